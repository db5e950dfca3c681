"""Recipes together: what counts, what is saved, what is refused, and what makes the stage due again."""
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from pneumo_nb.data import prepare_data
from pneumo_nb.execution import execute_notebook
from pneumo_nb.joint import find_recipes, recipe_stages
from pneumo_nb.measures import auroc
from pneumo_nb.networks import Reduce
from pneumo_nb.pages import project_folder
from pneumo_nb.preprocessing import load_films
from pneumo_nb.run import StudyError, open_stage, read_json, read_provenance, stale_reason, stages, write_csv
from pneumo_nb.training import save_model

FIRST, SECOND = [recipe.name for recipe in recipe_stages()][:2]
ONLY_FIRST = 5   # films that the first recipe alone answered
PARAMS = dict(seed=42)

def toy_network(side, seed):
    "A linear network with random weights that says something of brightness."
    keras.utils.set_random_seed(seed)
    film = keras.Input((side, side, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 128, -1)(film))
    return keras.Model(film, keras.layers.Dense(1, activation="sigmoid", name="pneumonia")(x))

def answers(network, films, temperature=2.):
    "What a network says of all films, as a recipe writes it."
    raw = network.predict(films.pixels[..., None], verbose=0)[:, 0].astype(float)
    split = np.where(films.images.split == "test", "test", "validation")
    return pd.DataFrame(dict(path=films.images.path, split=split, label=films.images.label,
                             probability=expit(logit(raw) / temperature), uncalibrated=raw))

def leave_recipe(stage, name, side, seeds, without=0):
    "Write what a stage that trains members leaves; `without`: films out of fold that it has not answered."
    films, tables = load_films(stage, side, 42), []
    for seed in seeds:
        network = toy_network(side, 10 * side + seed)
        table = answers(network, films)
        left_out = table.index[table.split == "validation"][:without]
        tables.append(table.drop(index=left_out).assign(model=name, member=f"{name}_s{seed}_r0", seed=seed))
    write_csv(stage.path(f"members/{name}.csv"), pd.concat(tables))
    write_csv(stage.path(f"predictions/{name}.csv"), tables[-1].drop(columns=["model", "member", "seed"]))
    save_model(stage, name, network, 2.)
    history = dict(epoch=[1, 2], total_seconds=[1., 3.], parameters=network.count_params(), member=name)
    write_csv(stage.path(f"history/{name}.csv"), pd.DataFrame(history))

def toy_run(folder):
    "A run with two recipes: one of 16 pixels and two seeds, one of 32 pixels and the first seed alone."
    stage = open_stage("data", folder)
    prepare_data(stage, seed=42, phantom_train=40, phantom_test=12)
    leave_recipe(stage, FIRST, 16, (1, 0))
    leave_recipe(stage, SECOND, 32, (0,), without=ONLY_FIRST)
    return stage

@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "That run with the stage done, and what its answers are made of."
    folder = tmp_path_factory.mktemp("joint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PNEUMO_CACHE", str(folder/"cache"))
        stage = toy_run(folder/"run")
        notebook = f"{stages()['joint'].notebook}.ipynb"
        execute_notebook(project_folder()/"nbs"/notebook, folder/notebook,
                         PARAMS | dict(run_dir=str(stage.folder)), folder/"kernel.log")
        films = load_films(stage, 32, 42)
    table = lambda file: pd.read_csv(stage.path(file))
    recipes = [table(f"predictions/{name}.csv") for name in (FIRST, SECOND)]
    return SimpleNamespace(folder=stage.folder, films=films, table=table, recipes=recipes,
                           joint=table("predictions/joint.csv"),
                           metrics=read_json(stage.path("metrics/joint.json")))

def test_what_is_written_of_test_films_is_what_the_saved_network_says(run):
    saved = keras.saving.load_model(run.folder/"models/joint.keras")
    assert saved.input_shape == (None, 32, 32, 1)
    tests = run.joint[run.joint.split == "test"].set_index("path").probability
    rows = (run.films.images.split == "test").to_numpy()
    asked = saved.predict(run.films.pixels[rows][..., None].astype(np.float32), verbose=0)[:, 0]
    assert np.abs(asked - tests[run.films.images.path[rows]].to_numpy()).max() < 1e-6
    assert 0 < run.metrics["largest_difference"] < .02   # films were reduced once, or twice

def test_an_answer_is_the_mean_of_the_recipes_log_odds_at_one_temperature(run):
    left_out = run.joint[run.joint.split == "validation"].set_index("path")
    first, second = (logit(table.set_index("path").probability[left_out.index]) for table in run.recipes)
    mean, temperature = (first + second) / 2, run.metrics["temperature"]
    assert np.allclose(logit(left_out.uncalibrated), mean, atol=1e-9)
    assert np.allclose(logit(left_out.probability) * temperature, mean, atol=1e-9)
    scores = {row["model"]: row["auroc"] for row in run.metrics["scores"]}
    assert scores["joint"] == pytest.approx(auroc(left_out.label, first + second))

def test_films_and_seeds_that_not_every_recipe_has_are_left_out_and_named(run):
    more, fewer = (set(table.path) for table in run.recipes)
    assert set(run.joint.path) == more & fewer and len(more - fewer) == ONLY_FIRST
    members = run.table("members/joint.csv")
    assert members.member.unique().tolist() == ["joint_s0"] and run.metrics["seeds"] == [0]
    notes = " ".join(read_provenance(run.folder)["stages"]["joint"]["notes"])
    assert f"left out: {ONLY_FIRST} out-of-fold films of {FIRST}." in notes
    assert f"left out: 1 seed of {FIRST}." in notes

def test_its_history_adds_up(run):
    last = run.table("history/joint.csv").iloc[-1]
    assert last.total_seconds == 6 and last.parameters == 16 ** 2 + 32 ** 2 + 2

def test_the_stage_is_due_when_a_recipe_changes_and_not_by_itself_or_another_model(run):
    assert stale_reason(run.folder, "joint", PARAMS) == ""
    inputs = read_provenance(run.folder)["stages"]["joint"]["inputs"]
    assert f"members/{SECOND}.csv" in inputs and not [file for file in inputs if "joint" in file]
    other_input, other_output = "its input files changed", "its files were changed or removed"
    reasons = {"members/joint.csv": other_output, "predictions/another.csv": "",
               f"members/{FIRST}.csv": other_input, f"models/{SECOND}.keras": other_input}
    for file, reason in reasons.items():
        path = run.folder/file
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(b"something else")
        assert stale_reason(run.folder, "joint", PARAMS) == reason, file
        path.unlink() if before is None else path.write_bytes(before)
    assert stale_reason(run.folder, "joint", PARAMS) == ""

@pytest.fixture
def stage(run, tmp_path):
    "A stage in a copy of that run's tables."
    stage = open_stage("joint", tmp_path/"run")
    for place in ("members", "predictions"):
        shutil.copytree(run.folder/place, stage.path(place))
    return stage

def test_one_recipe_alone_is_refused(stage):
    assert [recipe.name for recipe in find_recipes(stage)] == [FIRST, SECOND]
    stage.path(f"members/{SECOND}.csv").unlink()
    with pytest.raises(StudyError, match=f"2 recipes or more in .*, found {FIRST}; joint needs 2 of"):
        find_recipes(stage)

HEADER = "path,split,label,probability\n"

@pytest.mark.parametrize("content, says", [
    (None, "found none; run the stage again"), ("path\na.png\n", "found no split"),
    (HEADER + "a.png,test,1,.7\n" * 2, "found 1 again"), (HEADER + "a.png,test,1,7\n", "not logits")])
def test_what_a_recipe_did_not_write_so_is_refused(stage, content, says):
    file = stage.path(f"predictions/{SECOND}.csv")
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(StudyError, match=says): find_recipes(stage)

def test_a_layer_reduces_films_as_they_were_reduced_from_the_original():
    original = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 1), np.uint8)
    once, twice = np.array(Reduce(64)(original)), np.array(Reduce(64)(Reduce(128)(original)))
    assert np.abs(once - twice).max() <= 1 and np.array_equal(once, once.round())
    with pytest.raises(StudyError, match="films of 300 pixels a side or more"): Reduce(300)(original)
