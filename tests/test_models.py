"""The networks: what goes in and out, what is trained, weights that cannot be had."""
import os, subprocess, sys

import keras
import numpy as np
import pandas as pd
import pytest

from pneumo_nb.run import StudyError, open_stage
from pneumo_nb.phantom import make_dataset
from pneumo_nb.cnn import build_cnn
from pneumo_nb.data import prepare_data
from pneumo_nb.mlp import build_mlp, train_quick
from pneumo_nb.resnet import build_resnet, unfreeze_blocks

BUILDERS = [build_mlp, build_cnn, lambda size: build_resnet(size, "none")]

@pytest.mark.parametrize("build", BUILDERS)
def test_one_file_predicts_from_gray_values(build, tmp_path):
    model = build(48)
    films = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 1), np.uint8)
    expected = model.predict_on_batch(films)
    model.save(tmp_path/"m.keras")
    loaded = keras.saving.load_model(tmp_path/"m.keras")
    np.testing.assert_array_equal(loaded.predict_on_batch(films), expected)
    assert not model.compiled and expected.shape == (3, 1) and ((expected > 0) & (expected < 1)).all()

def test_fine_tuning_leaves_batch_normalisation_alone():
    model = build_resnet(32, "none")
    unfreeze_blocks(model, 3)
    trunk = model.get_layer("resnet50")
    before = {w.path: w.numpy() for w in trunk.weights}
    model.compile("sgd", "binary_crossentropy")
    films = np.random.default_rng(0).uniform(0, 255, (8, 32, 32, 1))
    model.train_on_batch(films, np.arange(8) % 2)
    changed = {w.path for w in trunk.weights if not np.array_equal(before[w.path], w.numpy())}
    assert changed and all("conv5" in path and "_bn" not in path for path in changed)

def test_a_weights_file_is_loaded(tmp_path):
    trunk = build_resnet(32, "none").get_layer("resnet50")
    trunk.save_weights(tmp_path/"trunk.weights.h5")
    loaded = build_resnet(32, str(tmp_path/"trunk.weights.h5")).get_layer("resnet50")
    for a, b in zip(trunk.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    (tmp_path/"bad.weights.h5").write_bytes(b"no weights")
    with pytest.raises(StudyError, match="to hold weights of ResNet50"):
        build_resnet(32, str(tmp_path/"bad.weights.h5"))

def test_imagenet_out_of_reach_is_an_error_that_names_the_alternatives(tmp_path):
    code = "from pneumo_nb.resnet import build_resnet; build_resnet(48, 'imagenet')"
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    offline = os.environ | proxies | {"KERAS_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=offline, capture_output=True, text=True, timeout=120)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "StudyError: Could not fetch the ImageNet weights" in last
    assert 'set weights to "none"' in last

def test_a_quick_model_is_for_phantoms_only(tmp_path):
    stage = open_stage("evaluation", tmp_path/"phantoms")
    train_quick(stage)
    assert {*pd.read_csv(stage.path("predictions/mlp.csv")).split} == {"validation", "test"}
    assert stage.path("models/mlp.keras").exists() and stage.path("history/mlp.csv").exists()
    assert any("an MLP was trained for one epoch on phantoms" in note for note in stage.notes)
    root = make_dataset(tmp_path/"films", n_train=30, n_test=6, n_val=0)
    (root/"phantom.json").unlink()   # now nothing says that these are drawn
    stage = open_stage("evaluation", tmp_path/"real")
    prepare_data(stage, str(root))
    with pytest.raises(StudyError, match="found none; run a model stage on these films first"):
        train_quick(stage)
    assert not stage.path("predictions").exists()
