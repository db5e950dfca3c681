"""Pneumonia detection from chest X-rays. Saved networks load with this import, which does not load Keras itself."""
__version__ = "0.1.0"

import sys
from importlib import import_module, util


class _KnowOwnLayers:
    "Import the study's layers as soon as Keras has been imported, so that `keras.saving.load_model` knows them."
    def find_spec(self, name, path=None, target=None):
        if name != "keras": return None
        sys.meta_path.remove(self)
        spec = util.find_spec(name)
        if spec is None: return None
        load = spec.loader.exec_module
        def load_both(module):
            load(module)
            import_module("pneumo_nb.networks")
        spec.loader.exec_module = load_both
        return spec


if "keras" in sys.modules: import_module("pneumo_nb.networks")
else: sys.meta_path.insert(0, _KnowOwnLayers())
