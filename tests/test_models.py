"""The networks: the study's sizes, what goes in and out, weights that cannot be had."""
import os, subprocess, sys

import keras
import numpy as np
import pytest

from pneumo_nb.cnn import build_cnn
from pneumo_nb.mlp import build_mlp
from pneumo_nb.resnet import build_resnet, unfreeze_blocks
from pneumo_nb.run import StudyError

def trainable(model): return sum(int(np.prod(w.shape)) for w in model.trainable_weights)

def test_parameter_counts_are_the_studys():
    for build, total, trained in ((build_mlp, 77_238_785, 77_236_993), (build_cnn, 26_212_545, 26_211_585),
                                  (lambda: build_resnet(weights="none"), 26_211_201, 2_623_489)):
        model = build()
        assert (model.count_params(), trainable(model), model.compiled) == (total, trained, False)
        assert (model.input_shape, model.output_shape) == ((None, 224, 224, 1), (None, 1))
        keras.backend.clear_session()

@pytest.mark.parametrize("build", [build_mlp, build_cnn, lambda size: build_resnet(size, "none")])
def test_one_file_predicts_from_gray_values(build, tmp_path):
    model = build(48)
    films = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 1), np.uint8)
    expected = model.predict(films, verbose=0)
    model.save(tmp_path/"m.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path/"m.keras").predict(films, verbose=0), expected)
    assert ((expected > 0) & (expected < 1)).all()

def test_fine_tuning_leaves_batch_normalisation_alone():
    model = build_resnet(48, "none")
    unfreeze_blocks(model, 3)
    trunk = model.get_layer("resnet50")
    before = {w.path: w.numpy() for w in trunk.weights}
    model.compile("sgd", "binary_crossentropy")
    films = np.random.default_rng(0).uniform(0, 255, (8, 48, 48, 1))
    model.fit(films, np.arange(8) % 2, epochs=1, verbose=0)
    changed = {w.path for w in trunk.weights if not np.array_equal(before[w.path], w.numpy())}
    assert changed and all("conv5" in path and "_bn" not in path for path in changed)

def test_a_weights_file_is_loaded(tmp_path):
    trunk = build_resnet(48, "none").get_layer("resnet50")
    trunk.save_weights(tmp_path/"trunk.weights.h5")
    for a, b in zip(trunk.get_weights(), build_resnet(48, str(tmp_path/"trunk.weights.h5")).get_layer("resnet50").get_weights()):
        np.testing.assert_array_equal(a, b)
    (tmp_path/"bad.weights.h5").write_bytes(b"no weights")
    with pytest.raises(StudyError, match="to hold weights of ResNet50"): build_resnet(48, str(tmp_path/"bad.weights.h5"))

def test_imagenet_out_of_reach_is_an_error_that_names_the_alternatives(tmp_path):
    code = "from pneumo_nb.resnet import build_resnet; build_resnet(48, 'imagenet')"
    offline = os.environ | {"KERAS_HOME": str(tmp_path), **{k: "http://127.0.0.1:9" for k in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}}
    done = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "StudyError: Could not fetch the ImageNet weights" in last and 'set weights to "none"' in last
