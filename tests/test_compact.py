"""The recipe: who learns from whom, what is saved, what a kill leaves, and looks that are not forgotten."""
import json, shutil, subprocess, sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from pneumo_nb.cache import Films, squash
from pneumo_nb.compact import build_compact
from pneumo_nb.members import (answering, answers_of, check_members, chosen_folds, fold_films, fold_table,
                               keep_models, make_folds, make_plan, member_table, plan_members, pool_groups,
                               tall_markers, train_members)
from pneumo_nb.films import naming_series, read_film
from pneumo_nb.networks import Contrast, FusedBatchNormalization, residual_network
from pneumo_nb.run import StudyError, finish, look, open_stage, read_provenance
from pneumo_nb.splits import series_folds
from pneumo_nb.views import RECIPE_RANGES

MODELS = ["compact", "compact_ensemble"]

# ---- one run by the command line: begun side by side, killed, ended in line

def test_a_kill_leaves_no_result_and_no_process(recipe):
    assert recipe.family >= 3 and recipe.alive == 0   # the notebook and its two workers
    results = ("predictions/", "models/", "history/", "members/", "metrics/compact")
    assert not [file for file in recipe.left if file.startswith(results)]

def test_a_killed_recipe_goes_on_where_it_was(recipe):
    assert "Member networks: 2 at a time" in recipe.began
    assert "Member compact_s0_f0: epoch 12/12" in recipe.began
    assert sorted(recipe.done) == [f"compact_s0_{part}" for part in ("f0", "f1", "r0", "r1")]
    assert 0 < min(recipe.done.values()) < 12          # one was in training
    assert recipe.done["compact_s0_f0"] == 12          # and one done
    for member, epoch in recipe.done.items():
        assert f"{member}: continues after epoch {epoch} of an interrupted training" in recipe.went_on
    assert not list(recipe.folder.rglob(".partial-*")) and not list(recipe.folder.glob(".scratch-*"))

def test_side_by_side_and_interrupted_networks_are_those_trained_in_line_without_a_break(recipe):
    for file in ("predictions/compact.csv", "predictions/compact_ensemble.csv", "members/compact.csv"):
        assert (recipe.folder/file).read_bytes() == (recipe.in_line/file).read_bytes(), file
    for name in MODELS:
        histories = [pd.read_csv(folder/f"history/{name}.csv") for folder in (recipe.folder, recipe.in_line)]
        pd.testing.assert_frame_equal(*(h.drop(columns=["seconds", "total_seconds"]) for h in histories))

def test_every_film_of_the_folds_left_out_is_judged_once_by_networks_that_never_saw_it(recipe):
    images = pd.read_csv(recipe.folder/"images.csv")
    tested = sorted(images.path[images.split == "test"])
    fold = dict(zip(images.path, series_folds(images)))
    learned = images.path[images.split != "test"].tolist()
    judged = sorted(p for p in learned if fold[p] in (0, 1))  # the others have no normal films
    members = pd.read_csv(recipe.folder/"members/compact.csv")
    tables = [table for _, table in members.groupby("member")]
    tables += [pd.read_csv(recipe.folder/f"predictions/{name}.csv") for name in MODELS]
    for table in tables:
        assert sorted(table.path[table.split == "validation"]) == judged
        assert sorted(table.path[table.split == "test"]) == tested
    for f in (0, 1):
        left_out = sum(fold[p] == f for p in learned)
        words = f"{len(learned) - left_out:,} films to learn from, {left_out:,} left out"
        assert f"Member compact_s0_f{f}: {words}" in recipe.went_on
        normal = [p for p in learned if "/NORMAL/" in p]
        known = {naming_series(p) for p in normal if fold[p] != f}
        assert len(known) == 1 and not known & {naming_series(p) for p in normal if fold[p] == f}
    assert recipe.went_on.count(f": {len(learned):,} films to learn from, 0 left out") == 2

def test_members_are_told_by_model_name_and_seed(recipe):
    members = pd.read_csv(recipe.folder/"members/compact.csv")
    columns = ["model", "member", "seed", "path", "split", "label", "probability", "uncalibrated"]
    assert list(members) == columns
    trainings = members[["model", "member", "seed"]].drop_duplicates().values.tolist()
    assert trainings == [["compact", "compact_s0_r0", 0], ["compact", "compact_s0_r1", 0],
                         ["compact_ensemble", "compact_ensemble_s0", 0]]

def test_answers_of_an_ensemble_are_the_mean_over_its_members(recipe):
    members = pd.read_csv(recipe.folder/"members/compact.csv").set_index("path")
    odds = {name: logit(table.uncalibrated) for name, table in members.groupby("member")}
    first, second, together = (odds[f"compact_{name}"] for name in ("s0_r0", "s0_r1", "ensemble_s0"))
    assert np.allclose((first + second) / 2, together, atol=1e-5) and not np.allclose(first, second)
    for name, expected in zip(MODELS, (first, together)):
        table = pd.read_csv(recipe.folder/f"predictions/{name}.csv").set_index("path")
        assert np.allclose(logit(table.uncalibrated), expected[table.index])

def test_the_temperature_of_the_history_is_that_of_the_predictions(recipe):
    for name in MODELS:
        table = pd.read_csv(recipe.folder/f"predictions/{name}.csv")
        temperature = pd.read_csv(recipe.folder/f"history/{name}.csv").temperature
        assert temperature.nunique() == 1
        assert np.allclose(table.probability, expit(logit(table.uncalibrated) / temperature[0]))

LOADED = """
import json, sys
import keras, numpy as np
import pneumo_nb.networks
films, *files = sys.argv[1:]
models = [keras.saving.load_model(file) for file in files]
weights = [sum(w.numpy().size for w in m.weights) - m.layers[-1].count_params() for m in models]
answers = [m.predict_on_batch(np.load(films).astype(np.float32))[:, 0].tolist() for m in models]
print(json.dumps([answers, weights]))
"""

def test_saved_models_take_gray_films_and_give_the_calibrated_answers(recipe, tmp_path):
    "In another process, which knows only the one import that loading takes."
    root = recipe.folder/json.loads((recipe.folder/"metrics/data.json").read_text())["root"]
    tables = [pd.read_csv(recipe.folder/f"predictions/{name}.csv") for name in MODELS]
    tables = [table[table.split == "test"] for table in tables]
    films = np.stack([squash(read_film(root/path), 24) for path in tables[0].path])[..., None]
    np.save(tmp_path/"films.npy", films)
    files = [recipe.folder/f"models/{name}.keras" for name in MODELS]
    done = subprocess.run([sys.executable, "-c", LOADED, tmp_path/"films.npy", *files], capture_output=True,
                          text=True, timeout=120)
    answers, weights = json.loads(done.stdout)
    for table, answer in zip(tables, answers): assert np.allclose(answer, table.probability, atol=1e-5)
    histories = [pd.read_csv(recipe.folder/f"history/{name}.csv") for name in MODELS]
    assert weights == [history.parameters[0] for history in histories]
    assert histories[1].member.unique().tolist() == ["compact_s0_r0", "compact_s0_r1"]

def test_looks_at_test_are_counted_for_good(evaluated, tmp_path):
    def looks(folder): return [look["stage"] for look in read_provenance(folder)["test_looks"]]
    assert looks(evaluated.folder) == ["compact", "evaluation"]   # how films look was measured by the first
    folder = evaluated.home/"runs/again"                           # other tests read the run meanwhile
    shutil.copytree(evaluated.folder, folder)
    assert evaluated.pneumo("run", "--run", "again", "--only", "data", "--fresh").returncode == 0
    unchanged = evaluated.pneumo("run", "--run", "again", "--only", "evaluation")
    assert unchanged.returncode == 0 and "unchanged, skipped" in unchanged.stdout
    assert looks(folder) == ["compact", "evaluation"]   # skipped: no look
    shutil.copy(folder/"provenance.json", tmp_path)
    again = open_stage("evaluation", tmp_path, threshold=.5)
    look(again, "the same predictions")
    finish(again)
    assert looks(tmp_path) == ["compact", "evaluation", "evaluation"]

# ---- who learns from whom, in tables

def some_films(tested=True):
    "Noise of 16 pixels under names of two normal series and two kinds of pneumonia, 24 patients of each."
    names = [(f"IM-{n:04}-0001.jpeg", "normal") for n in range(24)]
    names += [(f"NORMAL2-IM-{n:04}-0001.jpeg", "normal") for n in range(24)]
    names += [(f"person{n}_{kind}_{n}.jpeg", kind) for n in range(24) for kind in ("bacteria", "virus")]
    images = pd.DataFrame(names, columns=["name", "kind"])
    images["label"] = (images.kind != "normal").astype(int)
    images["path"] = "train/" + images.label.map({0: "NORMAL/", 1: "PNEUMONIA/"}) + images.name
    images["patient_id"] = images["sha1"] = images.name
    images["split"] = np.where(tested & (np.arange(len(images)) % 8 == 0), "test", "train")
    pixels = np.random.default_rng(0).integers(0, 256, (len(images), 16, 16), np.uint8)
    return Films(images, pixels)

def made_answers(films, fold_of, plan, seed=0):
    "What members of a plan might say."
    rng, parts = np.random.default_rng(seed), []
    refitted = any(member["fold"] is None for member in plan)
    for member in plan:
        part = fold_films(films, fold_of, member["fold"])
        tests = member["fold"] is None or not refitted
        n = np.concatenate([part.rows("validation"), part.rows("test") if tests else []]).astype(int)
        fold = -1 if member["fold"] is None else member["fold"]
        parts.append(pd.DataFrame(dict(member=member["name"], seed=member["seed"], fold=fold, n=n,
                                       logit=rng.normal(size=len(n)) + films.labels[n])))
    return pd.concat(parts, ignore_index=True)

def test_each_seed_has_networks_for_the_folds_and_an_ensemble_of_its_own():
    films = some_films()
    fold_of = make_folds(films.images, "series", 0)
    chosen = chosen_folds(films, fold_of, [])
    plan = plan_members(dict(seed=5, seeds=2), chosen, 2, "compact")
    assert chosen == [0, 1] and len(plan) == 8
    assert len({member["own_seed"] for member in plan}) == 8
    answers = made_answers(films, fold_of, plan)
    members = member_table(answers, pool_groups(films, fold_of, answers), "compact")
    expected = ["compact_s0_r0", "compact_s0_r1", "compact_s1_r0", "compact_s1_r1",
                "compact_ensemble_s0", "compact_ensemble_s1"]
    assert members.member.unique().tolist() == expected
    odds = answers.pivot(index="n", columns="member", values="logit")
    for s in (0, 1):
        table = members[members.member == f"compact_ensemble_s{s}"].set_index("path")
        rows = films.images.reset_index().set_index("path")["index"][table.index]
        is_test = (table.split == "test").to_numpy()
        refits = odds[[f"compact_s{s}_r0", f"compact_s{s}_r1"]].loc[rows].mean(axis=1)
        out_of_fold = odds[[f"compact_s{s}_f0", f"compact_s{s}_f1"]].loc[rows].mean(axis=1)  # one judged each
        assert np.allclose(logit(table.uncalibrated), np.where(is_test, refits, out_of_fold))

def test_without_refits_the_networks_of_the_folds_answer_on_test():
    films = some_films()
    fold_of = make_folds(films.images, "series", 0)
    answers = made_answers(films, fold_of, plan_members(dict(seed=0, seeds=1), [0, 1], 0, "compact"))
    assert answering(answers) == ["compact_s0_f0", "compact_s0_f1"]
    members = member_table(answers, pool_groups(films, fold_of, answers), "compact")
    parts = [members[members.member == f"compact_s0_f{f}"] for f in (0, 1)]
    judged = [set(part.path[part.split == "validation"]) for part in parts]
    tested = [set(part.path[part.split == "test"]) for part in parts]
    assert not judged[0] & judged[1]
    assert tested[0] == tested[1] == set(films.images.path[films.images.split == "test"])
    one = answers_of(answers, ["compact_s0_f0"])
    assert one.member.unique().tolist() == ["compact_s0_f0"]   # the other fold's network has no say in it

def test_some_folds_may_be_left_out_and_a_set_without_test_films_is_judged_on_validation(tmp_path):
    films = some_films(tested=False)
    params = dict.fromkeys(RECIPE_RANGES, .3) | dict(
        seed=1, seeds=1, refits=0, only_folds=[0, 2], kinds=True, contrast="local", image_size=16, widths=[4],
        precision="float32", batch_size=32, epochs=1, learning_rate=2e-3, weight_decay=.05,
        label_smoothing=.05, average=0., flip=True, cutout=1, folds_by="numbers", folds=3)
    stage = open_stage("compact", tmp_path, **params)
    plan = make_plan(stage, films)
    fold_of = plan.fold_of
    networks, answers, histories = train_members(stage, films, plan, build_compact)
    assert sorted(answers.n) == sorted(np.flatnonzero((fold_of == 0) | (fold_of == 2)))
    pools = pool_groups(films, fold_of, answers)
    keep_models(stage, networks, pools, histories, answering(answers))
    for name in MODELS:
        assert set(pd.read_csv(tmp_path/f"predictions/{name}.csv").split) == {"validation"}
    table = fold_table(films, networks, answers, np.full(len(fold_of), np.nan), 1, flip=True)
    assert table.member.tolist() == ["compact_s0_f0", "compact_s0_f2"] and table.weighted.isna().all()
    columns = ["auroc", "virus against normal", "swapped", "bands", "frames", "shape"]
    assert table[columns].notna().all(axis=None)
    assert set(table.shape_gap) == {"1.205, the study's, lower of both directions"}   # films of no size
    # taken up with one member, the ensemble's files go, and those of others stay
    (tmp_path/"history/other.csv").write_text("mine")
    keep_models(stage, networks, pools, histories, answering(answers)[:1])
    files = sorted(f.relative_to(tmp_path).as_posix() for f in tmp_path.glob("[a-z]*/*"))
    assert files == ["history/compact.csv", "history/other.csv", "models/compact.keras",
                     "predictions/compact.csv"]

def learned_kinds(rename, tmp_path):
    "Films of other kinds, their folds, and what one network of one epoch says of them."
    films = some_films()
    films = Films(films.images.assign(kind=films.images.kind.replace(rename)), films.pixels)
    params = dict.fromkeys(RECIPE_RANGES, 0) | dict(
        seed=1, seeds=1, refits=0, only_folds=[0], kinds=True, contrast="local", image_size=16, widths=[2],
        precision="float32", batch_size=32, epochs=1, learning_rate=2e-3, weight_decay=.05,
        label_smoothing=.05, average=0., flip=False, cutout=0, folds_by="series", folds=2)
    stage = open_stage("compact", tmp_path, **params)
    networks, answers, _ = train_members(stage, films, make_plan(stage, films), build_compact)
    table = fold_table(films, networks, answers, np.full(len(films.images), np.nan), 1, flip=False)
    return networks["compact_s0_f0"].output_shape[1], table

@pytest.mark.parametrize("rename, classes, columns", [
    (dict(virus="pneumonia", bacteria="pneumonia"), 2, []),
    (dict(virus="shape", bacteria="auroc"), 3, ["auroc against normal", "shape against normal"])])
def test_the_recipe_learns_the_kinds_that_there_are(rename, classes, columns, tmp_path):
    "A set with one kind of pneumonia, and one whose kinds have the names of measures."
    found, table = learned_kinds(rename, tmp_path)
    assert (found, [c for c in table if c.endswith("against normal")]) == (classes, columns)
    assert table[["auroc", "swapped", "bands", "shape", *columns]].notna().all(axis=None)

def test_normal_films_of_one_series_are_cut_along_the_numbers():
    films = some_films().images
    one = films[~films.path.str.contains("NORMAL2")].reset_index(drop=True)
    assert (make_folds(one, "series", 3) == make_folds(one, "numbers", 3)).all()
    assert (make_folds(films, "series", 3) == series_folds(films)).all()

@pytest.mark.parametrize("change, says", [
    (dict(only_folds=[2]), "Expected normal films and films with pneumonia in fold 2, found no normal films"),
    (dict(only_folds=[7]), "Expected only_folds between 0 and 3, found [7]"),
    (dict(only_folds=[0, 0]), "Expected each fold once in only_folds, found [0, 0]"),
    (dict(seeds=0), "Expected seeds of 1 or more, found 0"),
    (dict(refits=-1), "Expected refits of 0 or more, found -1")])
def test_members_that_could_not_be_judged_are_refused(change, says):
    films = some_films()
    params = dict(only_folds=[], seeds=1, refits=1, kinds=True) | change
    with pytest.raises(StudyError) as refusal:
        check_members(films, make_folds(films.images, "series", 0), params)
    assert says in str(refusal.value)

def test_films_with_tall_markers_are_judged_by_themselves():
    images = pd.DataFrame(dict(split=["train"] * 9 + ["test"], label=[0, 0, 1, 1, 0, 1, 1, 0, 1, 0],
                               patient_id=list("abcdefghij")))
    markers = np.array([.1, .1, .1, .1, 0, 0, .1, .1, .1, .1])
    answers = pd.DataFrame(dict(  # four with a marker that count, and two of another network, higher by 50
        member=["one"] * 7 + ["two"] * 2 + ["one"], fold=[0] * 6 + [-1, 1, 1, 0], n=range(10),
        logit=[-2., 1, 0, 2, 9, -9, 0, 50, 60, 9]))
    tall = tall_markers(Films(images, None), answers, markers)
    assert (tall["normal"], tall["pneumonia"]) == (3, 3)
    assert tall["auroc"] == pytest.approx((3 + 1) / 5) and tall["low"] <= .8 <= tall["high"]
    alone = tall_markers(Films(images, None), answers[answers.member == "two"].iloc[:1], markers)
    assert alone == dict(normal=0, pneumonia=0, auroc=None, low=None, high=None)

# ---- what the network is made of

def test_contrast_forgets_brightness_and_a_slope_of_gray():
    film = np.random.default_rng(0).normal(100, 30, (1, 64, 64, 1)).clip(0, 200).astype(np.float32)
    foggy = film * .8 + 30 + np.linspace(0, 15, 64, dtype=np.float32)[:, None]
    clear, veiled = (np.array(Contrast()(f)) for f in (film, foggy))
    assert np.abs(clear - veiled).mean() < .12 * np.abs(clear).mean()

def test_products_of_half_the_length_learn_the_same():
    losses = []
    films = np.random.default_rng(0).normal(size=(64, 32, 32, 1)).astype(np.float32)
    films[::2] += 1
    classes = np.eye(3, dtype=np.float32)[np.arange(64) % 2]
    for dtype in ("float32", "mixed_bfloat16"):
        keras.utils.set_random_seed(0)
        network = residual_network(32, (8, 16), norm=FusedBatchNormalization, dtype=dtype)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        network.compile(keras.optimizers.AdamW(1e-3), loss)
        losses.append([network.train_on_batch(films, classes) for _ in range(12)])
        assert all(w.dtype == "float32" for w in network.weights)
    assert losses[0][-1] < .8 * losses[0][0] and np.allclose(losses[0], losses[1], rtol=.1)
