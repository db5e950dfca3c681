# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: python3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Parameters
#
# > What a notebook declares, what a parameter file asks, and the values that come of both

# %%
#| default_exp parameters

# %%
#| export
import ast
from pathlib import Path

import yaml

from pneumo_nb.run import StudyError, check_value, shortened, stages

# %%
#| hide
import json, tempfile
from fastcore.test import test_eq, test_fail


# %% [markdown]
# Every number that someone may want to change is a parameter with a name, a default and a comment, in one
# tagged cell at the top of its chapter. That cell is the whole vocabulary of the stage. A misspelled `epoch:
# 50` would otherwise silently train 3 epochs and waste a night; here it is an error.
#
# ## What a notebook declares
#
# [papermill](https://papermill.readthedocs.io) reads the tagged cell. Without the tag it would only warn and
# run the defaults, so a missing cell is an error here.

# %%
#| export
def declared_parameters(
    notebook: Path, # .ipynb with a cell tagged `parameters`
) -> dict: # name → default; run_dir, which the command fills in, left out
    "What a notebook's parameters cell declares."
    import papermill
    declared = papermill.inspect_notebook(str(notebook).replace("{", "{{").replace("}", "}}"))
    if not declared:
        raise StudyError(f"Expected a cell tagged `parameters` in {Path(notebook).name}, found none.")
    return {name: ast.literal_eval(facts["default"]) for name, facts in declared.items() if name != "run_dir"}


# %% [markdown]
# A notebook of one cell, with the tag and without:

# %%
def small_notebook(folder, tags):
    cell = dict(cell_type="code", id="a", execution_count=None, outputs=[], metadata=dict(tags=tags),
                source='run_dir = ""\nepochs = 3  # passes over the films\nlearning_rate = 1e-4')
    kernel = dict(name="python3", display_name="python3", language="python")
    book = dict(cells=[cell], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)
    path = Path(folder)/"33_toy.ipynb"
    path.write_text(json.dumps(book))
    return path

with tempfile.TemporaryDirectory() as folder:
    declared = declared_parameters(small_notebook(folder, ["parameters"]))
    test_eq(declared, dict(epochs=3, learning_rate=1e-4))
    test_fail(lambda: declared_parameters(small_notebook(folder, [])), contains="in 33_toy.ipynb, found none")


# %% [markdown]
# ## What a file asks
#
# A parameter file has a `common:` section, which reaches every stage that declares a parameter of that name.
# Each stage may have a section of its own, which wins over the common one. A list `stages:` names the stages
# that the file is for, where that is not all of them.

# %%
#| export
class _Loader(yaml.SafeLoader):
    "YAML in which a name given twice is an error, and does not silently win."
    def construct_mapping(self, node, deep=False):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        again = next((name for n, name in enumerate(names) if name in names[:n]), None)
        if again is not None: raise yaml.YAMLError(
            f"{shortened(again)} twice below line {node.start_mark.line + 1}; leave one of them out")
        return super().construct_mapping(node, deep)

def _load(text: str):
    "What a YAML text holds; whatever it is refused for is a YAMLError."
    try: return yaml.load(text, _Loader)
    except yaml.YAMLError: raise
    except RecursionError: raise yaml.YAMLError("values nested too deeply") from None
    except Exception as e:  # PyYAML's own, such as a KeyError for `!!bool 3`
        raise yaml.YAMLError(f"a value that cannot be read ({type(e).__name__})") from None


# %%
#| export
def read_yaml(path: str | Path):
    "What a YAML file holds; an empty dict for an empty file."
    if not Path(path).is_file(): raise StudyError(
        f"Expected a parameter file, found {'a folder' if Path(path).is_dir() else 'nothing'} at {path}; "
        "see params/quick.yaml for an example.")
    try: content = _load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise StudyError(f"Expected YAML in {path}, found: {' '.join(str(e).split())}.") from None
    return {} if content is None else content


# %%
#| export
def _check_sections(path: str | Path, sections):
    "Refuse a file that holds something else than sections of named values."
    wrong, is_dict = sections, isinstance(sections, dict)
    if is_dict: wrong = [k for k, v in sections.items() if k != "stages" and not isinstance(v, dict)]
    if wrong or not is_dict: raise StudyError(
        f"Expected {path} to hold sections (common, {', '.join(stages())}) of `name: value` lines, "
        f"found {shortened(wrong)}; indent each parameter below its section.")

def _check_stages(path: str | Path, asked):
    "Refuse a `stages:` that is not a list of stages."
    wrong, known = asked, list(stages())
    if isinstance(asked, list) and asked: wrong = [s for s in asked if s not in known]
    if wrong or not asked: raise StudyError(
        f"Expected `stages:` in {path} to be a list of some of {', '.join(known)}, "
        f"found {shortened(wrong)}.")


# %%
#| export
def load_params(
    path: str | Path, # YAML file
) -> tuple[dict[str, dict], list[str]]: # section → parameters; the stages it is for, in the study's order
    "Read a parameter file."
    sections = read_yaml(path)
    _check_sections(path, sections)
    if "stages" not in sections: return sections, list(stages())
    asked = sections.pop("stages")
    _check_stages(path, asked)
    return sections, [s for s in stages() if s in asked]


# %%
def load_text(text):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder)/"mine.yaml"
        file.write_text(text)
        return load_params(file)

sections, asked = load_text("common:\n  seed: 7\ncnn:\n  epochs: 20\n")
test_eq(sections, dict(common=dict(seed=7), cnn=dict(epochs=20)))
test_eq(asked, list(stages()))
test_fail(lambda: load_text("seed: 7"), contains="found ['seed']; indent each parameter")
test_fail(lambda: load_text("stages: [cnm]"), contains="found ['cnm']")
test_fail(lambda: load_text("stages: cnn"), contains="found 'cnn'")
test_fail(lambda: load_text("common: [1"), contains="Expected YAML in")
test_fail(lambda: load_params("nowhere.yaml"), contains="found nothing at nowhere.yaml")
test_fail(lambda: load_params("."), contains="found a folder at .")
test_fail(lambda: load_text("cnn:\n  epochs: 1\n  epochs: 20\n"),
          contains="found: 'epochs' twice below line 2")
test_fail(lambda: load_text("cnn: {a: 1}\ncnn: {b: 2}\n"), contains="found: 'cnn' twice below line 1")


# %% [markdown]
# YAML 1.1 reads `1e-4`, without a point, as text. Here it is a number.

# %%
#| export
def _numeric(value):
    "A number for text such as 1e-4; anything else as it is."
    if not isinstance(value, str) or "e" not in value.lower(): return value
    if not value.lstrip("+-")[:1].isdigit(): return value
    try: return float(value)
    except ValueError: return value


# %%
test_eq([_numeric(v) for v in ("1e-4", "-1e-4", 3)], [1e-4, -1e-4, 3])
test_eq([_numeric(v) for v in ("1einer", "imagenet")], ["1einer", "imagenet"])


# %% [markdown]
# Single values may be asked on top of a file, such as `-p cnn.epochs=3` on the command line.

# %%
#| export
def parse_override(
    text: str, # SECTION.NAME=VALUE
) -> tuple[str, str, object]: # section, name, value
    "An override in its parts, the value read as YAML."
    key, equals, value = text.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and section and name):
        raise StudyError(f"Expected -p SECTION.NAME=VALUE, such as data.seed=7, found {shortened(text)}.")
    try: return section, name, _load(value)
    except yaml.YAMLError:
        raise StudyError("Expected a YAML value such as 3, 1e-4 or [a, b] behind "
                         f"-p {shortened(key)[1:-1]}=, found {shortened(value)}.") from None


# %%
test_eq(parse_override("cnn.epochs=3"), ("cnn", "epochs", 3))
test_eq(parse_override("compact.widths=[8, 16]"), ("compact", "widths", [8, 16]))
test_fail(lambda: parse_override("epochs=3"), contains="such as data.seed=7")
test_fail(lambda: parse_override("cnn.epochs=[3"), contains="Expected a YAML value")


# %% [markdown]
# ## The values that come of both
#
# The stage's section decides, the common value fills in, and the default remains. A name that no notebook
# declares is refused, and so is a value of another type than its default. A whole number may stand for a real
# one. Whether a value is in its range is asked when it is known which stages run (`check_parameters`).

# %%
#| export
def _check_names(sections: dict[str, dict], known: dict[str, dict]):
    "Refuse sections and parameters that no notebook declares."
    everywhere = {name for params in known.values() for name in params}
    for section, params in sections.items():
        if section != "common" and section not in known:
            raise StudyError(f"Expected the sections common, {', '.join(known)}; found {shortened(section)}.")
        allowed = everywhere if section == "common" else known[section]
        for name in params:
            if name not in allowed: raise StudyError(
                f"No notebook declares {section}.{str(name)[:60]}; "
                f"known in {section}: {', '.join(sorted(allowed))}.")


# %%
#| export
_RULES = {int: "whole number", float: "finite number", bool: "true or false", str: "plain text",
          list: "list of values"}


# %%
#| export
def resolve_params(
    sections: dict[str, dict], # from `load_params`
    known: dict[str, dict],    # stage → {parameter: default}, from `declared_parameters`
) -> dict[str, dict]: # stage → every parameter with its value
    "Merge defaults, the common section and each stage's own."
    _check_names(sections, known)
    asked = {s: {name: _numeric(value) for name, value in params.items()} for s, params in sections.items()}
    resolved = {}
    for stage, defaults in known.items():
        common = {name: value for name, value in asked.get("common", {}).items() if name in defaults}
        resolved[stage] = defaults | common | asked.get(stage, {})
        for name, value in resolved[stage].items():
            check_value(f"{stage}.{name}", value, _RULES[type(defaults[name])])
    return resolved


# %%
known = dict(data=dict(seed=42, data_dir=""), cnn=dict(seed=42, epochs=3, learning_rate=1e-4))
test_eq(resolve_params(dict(common=dict(seed=7), cnn=dict(epochs=20, learning_rate="3e-4")), known),
        dict(data=dict(seed=7, data_dir=""), cnn=dict(seed=7, epochs=20, learning_rate=3e-4)))
resolve = lambda **sections: resolve_params(sections, known)
test_fail(lambda: resolve(cnn=dict(epoch=50)), contains="known in cnn: epochs, learning_rate, seed")
test_fail(lambda: resolve(cn=dict(epochs=50)), contains="found 'cn'")
test_fail(lambda: resolve(cnn=dict(epochs="many")), contains="cnn.epochs to be a whole number, found 'many'")
test_fail(lambda: resolve(cnn=dict(epochs=True)), contains="found True")


# %% [markdown]
# A run keeps the parameters that it was made with. Notebooks may have changed since, so what they no longer
# declare is left out when such a run is taken up again, and the command names it.

# %%
#| export
def drop_undeclared(
    sections: dict[str, dict], # a run's kept parameters
    known: dict[str, dict],    # stage → {parameter: default}
) -> tuple[dict[str, dict], list[str]]: # sections; what was left out, as "SECTION.NAME"
    "Kept parameters without those that notebooks no longer declare."
    declared, dropped = {}, []
    for section, params in sections.items():
        names = known.get(section, {})
        dropped += [f"{section}.{name}" for name in params if name not in names]
        if section in known: declared[section] = {name: v for name, v in params.items() if name in names}
    return declared, dropped


# %%
old = dict(data=dict(seed=1), cnn=dict(epochs=3, sizes=[64]), lstm=dict(units=8))
declared, dropped = drop_undeclared(old, known)
test_eq(declared, dict(data=dict(seed=1), cnn=dict(epochs=3)))
test_eq(dropped, ["cnn.sizes", "lstm.units"])
