"""The recipe: who learns from whom, what is saved, what a kill leaves, and looks at test that are not forgotten."""
import json, os, subprocess, sys, time
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
import psutil
import pytest

from pneumo_nb.compact import Contrast, band_scatters, level_counts, match_bands, match_levels, recipe_views, swapped_bands, swapped_levels, tall_markers
from pneumo_nb.data import naming_series, series_folds
from pneumo_nb.eda import marker_height, marker_table
from pneumo_nb.preprocessing import Films
from pneumo_nb.report import MARKERS, results_in
from pneumo_nb.resnet import build_compact
from pneumo_nb.training import FusedBatchNormalization

PNEUMO = str(Path(sys.executable).with_name("pneumo"))
SMALL = ["-p", "data.phantom_train=80", "-p", "data.phantom_test=24", "-p", "common.image_size=32", "-p", "compact.widths=[8, 16]", "-p", "compact.epochs=3", "-p", "compact.seeds=2"]

@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "A folder with a whole run of the recipe, evaluated."
    home = tmp_path_factory.mktemp("recipe")
    done = pneumo(home, "run", "--run", "whole", *SMALL, "--only", "data,eda,compact,evaluation")
    assert done.returncode == 0, done.stdout + done.stderr
    return home

def pneumo(home, *words, **more): return subprocess.run([PNEUMO, *words], cwd=home, capture_output=True, text=True, env=os.environ | dict(PNEUMO_CACHE=str(home/"cache"), **more))

def test_every_film_of_the_folds_left_out_is_judged_once_by_networks_that_never_saw_it(home):
    run = home/"runs/whole"
    images = pd.read_csv(run/"images.csv")
    fold, learned, tested = dict(zip(images.path, series_folds(images))), set(images.path[images.split != "test"]), set(images.path[images.split == "test"])
    answered = {p for p in learned if fold[p] in (0, 1)}  # the other folds have no normal films and are always learned from
    for name in ("compact", "compact_ensemble", "members/compact_s0_r0", "members/compact_s1_r0"):
        own = pd.read_csv(run/f"predictions/{name}.csv")
        assert sorted(own.path[own.split == "validation"]) == sorted(answered) and sorted(own.path[own.split == "test"]) == sorted(tested)
    assert sorted(f.stem for f in (run/"predictions/members").glob("*.csv")) == ["compact_s0_r0", "compact_s1_r0"]
    logs = (run/"notebooks/08b_compact.ipynb").read_text()
    for f in (0, 1):
        left_out = sum(fold[p] == f for p in learned)
        assert f"Member compact_s0_f{f}: {len(learned) - left_out:,} films to learn from, {left_out:,} left out" in logs
        normal = {naming_series(p) for p in learned if "/NORMAL/" in p and fold[p] != f}
        assert len(normal) == 1 and not normal & {naming_series(p) for p in learned if "/NORMAL/" in p and fold[p] == f}
    assert all(f"Member compact_s{s}_r0: {len(learned):,} films to learn from, 0 left out" in logs for s in (0, 1))
    assert all(logs.count(f"Member compact_s{s}_f{f}: ") == 1 for s in (0, 1) for f in (0, 1))   # each seed has networks of its own for the folds

def test_each_seed_has_an_ensemble_where_several_networks_of_it_answer(home):
    words = [*SMALL, "-p", "compact.epochs=1", "--only", "data,compact,evaluation"]
    done = pneumo(home, "run", "--run", "two", *words, "-p", "compact.refits=2")
    assert done.returncode == 0, done.stdout + done.stderr
    names = sorted(f.stem for f in (home/"runs/two/predictions/members").glob("*.csv"))
    assert names == ["compact_ensemble_s0", "compact_ensemble_s1", "compact_s0_r0", "compact_s0_r1", "compact_s1_r0", "compact_s1_r1"]
    assert "| compact ensemble, mean and range | two |" in pneumo(home, "results", "two").stdout
    members = pd.read_csv(home/"runs/two/metrics/evaluation_members.csv").set_index("member")
    for name in names:  # rules that fix the sensitivity, each by hand: the lowest score among the sick films that must be called
        table = pd.read_csv(home/f"runs/two/predictions/members/{name}.csv")
        sick, test = np.sort(table.probability[(table.split == "validation") & (table.label == 1)])[::-1], table[table.split == "test"]
        for wanted, column in ((.95, "accuracy_sensitivity .95"), (.98, "accuracy_sensitivity .98")):
            lowest = sick[int(np.ceil(wanted * len(sick))) - 1]
            below = table.probability[(table.split == "validation") & (table.probability < lowest)]
            threshold = (lowest + (below.max() if len(below) else 0)) / 2
            assert members.loc[name, column] == pytest.approx(((test.probability >= threshold) == test.label).mean())

def test_without_refits_the_networks_of_the_folds_answer_on_test(home):
    words = [*SMALL, "-p", "compact.epochs=1", "--only", "data,compact,evaluation"]
    done = pneumo(home, "run", "--run", "folds", *words, "-p", "compact.refits=0")
    assert done.returncode == 0, done.stdout + done.stderr
    members = [pd.read_csv(home/f"runs/folds/predictions/members/compact_s0_f{f}.csv").set_index("path") for f in (0, 1)]
    assert not set(members[0].index[members[0].split == "validation"]) & set(members[1].index[members[1].split == "validation"])
    tested = [set(m.index[m.split == "test"]) for m in members]
    assert tested[0] == tested[1] and len(tested[0]) == 24
    told = pneumo(home, "ablation", "folds").stdout
    assert "| the recipe |" in told and "AUROC of 2 folds across the naming series" in told and "these networks averaged" in told
    wrong = pneumo(home, "run", "--run", "folds", "--only", "data,compact", "-p", "compact.only_folds=[2]")
    assert wrong.returncode == 1 and "Expected films of every kind in fold 2, found no normal; take other folds." in wrong.stderr

def test_answers_of_an_ensemble_are_the_mean_over_its_members(home):
    from scipy.special import logit
    read = lambda name: pd.read_csv(home/f"runs/whole/predictions/{name}.csv").set_index("path").uncalibrated.map(logit)
    parts, whole = [read(f"members/compact_s{s}_r0") for s in (0, 1)], read("compact_ensemble")
    assert np.allclose((parts[0] + parts[1]) / 2, whole[parts[0].index], atol=1e-5)
    assert np.allclose(read("compact"), parts[0][read("compact").index])

def test_saved_models_take_gray_films_and_give_the_calibrated_answers(home):
    import cv2
    run = home/"runs/whole"
    root = Path(json.loads((run/"metrics/data.json").read_text())["root"])
    for name in ("compact", "compact_ensemble"):
        table = pd.read_csv(run/f"predictions/{name}.csv").query("split == 'test'").head(8)
        films = np.stack([cv2.resize(cv2.imread(str(root/p), cv2.IMREAD_GRAYSCALE), (32, 32), interpolation=cv2.INTER_AREA) for p in table.path])[..., None]
        np.save(home/"films.npy", films)
        code = (f"import keras, numpy as np, pneumo_nb.compact; print(*keras.saving.load_model({str(run/f'models/{name}.keras')!r})"
                f".predict_on_batch(np.load({str(home/'films.npy')!r}).astype(np.float32))[:, 0])")
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)   # another process, which knows only the import that the README names
        assert np.allclose([float(v) for v in said.stdout.split()], table.probability, atol=1e-5), said.stderr
        model = keras.saving.load_model(run/f"models/{name}.keras")
        assert pd.read_csv(run/f"history/{name}.csv").parameters[0] == sum(w.numpy().size for w in model.weights) - len(model.layers[-1].get_weights()[0]) - 1

def test_a_killed_recipe_goes_on_where_it_was_and_comes_to_the_same_answers(home):
    words, run = [PNEUMO, "run", "--run", "killed", *SMALL, "--only", "data,compact"], home/"runs/killed"
    killed = subprocess.Popen(words, cwd=home, stdout=subprocess.PIPE, text=True, env=os.environ | dict(PNEUMO_CACHE=str(home/"cache")))
    while killed.poll() is None and not list(run.glob(".scratch-compact/compact_s0_r0/epoch_*.json")): time.sleep(.005)
    assert killed.poll() is None, "the run ended before it could be killed"
    for process in [*psutil.Process(killed.pid).children(recursive=True), psutil.Process(killed.pid)]: process.kill()
    killed.wait()
    assert not list(run.glob("predictions/*.csv")) and not list(run.glob("models/*.keras"))
    again = pneumo(home, *words[1:])
    assert again.returncode == 0, again.stdout + again.stderr
    for file in sorted((home/"runs/whole/predictions").rglob("*.csv")):
        assert (run/file.relative_to(home/"runs/whole")).read_bytes() == file.read_bytes(), file.name

def test_networks_trained_side_by_side_are_those_trained_in_line_and_end_with_their_run(home):
    words = [*SMALL, "-p", "compact.sizes=[32, 24]", "--only", "data,compact,evaluation"]
    in_line = pneumo(home, "run", "--run", "line", *words, PNEUMO_THREADS="1")
    assert in_line.returncode == 0, in_line.stdout + in_line.stderr
    beside, run = ["run", "--run", "beside", *words, "-p", "compact.workers=2"], home/"runs/beside"
    killed = subprocess.Popen([PNEUMO, *beside], cwd=home, stdout=subprocess.PIPE, text=True, env=os.environ | dict(PNEUMO_CACHE=str(home/"cache")))
    while killed.poll() is None and len(list(run.glob(".scratch-compact/*/epoch_*.json"))) < 2: time.sleep(.005)
    assert killed.poll() is None, "the run ended before it could be killed"
    family = psutil.Process(killed.pid).children(recursive=True)
    killed.kill()
    killed.wait()
    assert len(family) >= 3 and not psutil.wait_procs(family, timeout=60)[1]   # the notebook and its two workers
    again = pneumo(home, *beside, PNEUMO_THREADS="2")
    assert again.returncode == 0 and ": epoch " in again.stdout and "2 at a time, 1 thread(s) each" in again.stdout, again.stdout + again.stderr
    for file in sorted((home/"runs/line/predictions").rglob("*.csv")):
        assert (run/file.relative_to(home/"runs/line")).read_bytes() == file.read_bytes(), file.name

def test_a_seeds_threshold_comes_from_its_own_networks_averaged_over_sizes(home):
    from scipy.special import logit
    read = lambda name: pd.read_csv(home/f"runs/line/predictions/members/{name}.csv").set_index("path").uncalibrated.map(logit)
    for s in (0, 1):
        parts, whole = [read(f"compact_s{s}_r0_{size}px") for size in (32, 24)], read(f"compact_ensemble_s{s}")
        assert set(parts[0].index) == set(parts[1].index) == set(whole.index)   # folds and test
        assert np.allclose((parts[0] + parts[1]) / 2, whole[parts[0].index], atol=1e-5)
    table = pneumo(home, "results", "line").stdout
    assert "| compact net, 32 pixels, mean and range | line |" in table and "films of 24 and 32 pixels" in table

def test_looks_at_test_are_counted_for_good(home):
    looks = lambda: [l["stage"] for l in json.loads((home/"runs/whole/provenance.json").read_text())["test_looks"]]
    assert looks() == ["eda", "evaluation"]
    assert pneumo(home, "run", "--run", "whole", "--only", "evaluation", "--fresh").returncode == 0
    assert looks() == ["eda", "evaluation", "evaluation"]
    assert pneumo(home, "run", "--run", "whole", "--only", "evaluation").returncode == 0 and len(looks()) == 3   # unchanged, skipped: no look
    assert "3 look(s) at the test films" in pneumo(home, "results", "whole").stdout

def test_results_of_runs_on_other_films_are_not_put_into_one_table(home):
    assert pneumo(home, "run", "--run", "other", *SMALL, "-p", "data.phantom_test=30", "--only", "data,compact,evaluation").returncode == 0
    done = pneumo(home, "results", "whole", "other")
    assert done.returncode == 1 and "Expected runs on the same films, found whole, other on different ones" in done.stderr
    table = pneumo(home, "results", "whole").stdout
    assert "| compact ensemble | whole |" in table and "2 apart" in table and "2 together" in table and "published" not in table

def test_a_results_table_keeps_runs_that_are_not_here_and_only_if_they_are_comparable(home):
    table = home/"TABLE.md"
    table.write_text(f"before\n{MARKERS[0]}\n{MARKERS[1]}\nafter\n")
    assert pneumo(home, "results", "whole", "--write", "TABLE.md").returncode == 0
    elsewhere = table.read_text().replace("| whole |", "| elsewhere |").replace("Run `whole`", "Run `elsewhere`")
    table.write_text(elsewhere)
    done = pneumo(home, "results", "whole", "--write", "TABLE.md", "--add")
    assert done.returncode == 0, done.stderr
    both = results_in(table.read_text())
    assert list(both) == ["whole", "elsewhere"] and [r | dict(run="") for r in both["elsewhere"][0]] == [r | dict(run="") for r in both["whole"][0]]
    assert both["elsewhere"][1] in elsewhere and both["whole"][1].startswith("Run `whole`: ") and table.read_text().endswith("after\n")
    again = table.read_text()
    assert pneumo(home, "results", "whole", "--write", "TABLE.md", "--add").returncode == 0 and table.read_text() == again
    earlier = "\n".join(" | ".join(c for n, c in enumerate(line.split(" | ")) if n != 6) if line.startswith("|") else line for line in elsewhere.splitlines()) + "\n"
    table.write_text(earlier)   # of a version that did not yet have the column
    assert pneumo(home, "results", "whole", "--write", "TABLE.md", "--add").returncode == 0
    assert {r["accuracy, sensitivity .98"] for r in results_in(table.read_text())["elsewhere"][0]} == {"–"} and [r["trained"] for r in results_in(table.read_text())["elsewhere"][0]] == [r["trained"] for r in both["elsewhere"][0]]
    for wrong, why in ((elsewhere.replace("drawn phantoms", "`other_films`"), "Expected runs on drawn phantoms, found elsewhere on `other_films`"), (elsewhere.replace("| trained |", "| how often |"), "write all of its runs anew")):
        table.write_text(wrong)
        done = pneumo(home, "results", "whole", "--write", "TABLE.md", "--add")
        assert done.returncode != 0 and why in done.stderr and table.read_text() == wrong
    done = pneumo(home, "results", "whole", "--add")
    assert done.returncode != 0 and "give both" in done.stderr

def test_the_readme_table_names_what_each_run_was_made_from():
    for file in ("README.md", "nbs/index.py"):
        said = results_in((Path(__file__).parents[1]/file).read_text(encoding="utf-8"))
        assert len(said) > 1 and all(words.startswith(f"Run `{name}`: ") and "look(s) at the test films" in words for name, (_, words) in said.items())

def test_some_folds_may_be_left_out_a_set_without_test_films_is_judged_on_validation_and_old_members_go(home):
    import shutil
    films = next((home/"runs/whole/cache").glob("phantoms_*"))
    shutil.copytree(films, home/"films")
    shutil.rmtree(home/"films/test")
    done = pneumo(home, "run", "--run", "untested", "--data", "films", *SMALL, "-p", "compact.folds_by=numbers", "-p", "compact.folds=3", "-p", "compact.only_folds=[0, 2]", "--only", "data,preprocessing,mlp,compact,evaluation", "-p", "mlp.epochs=1")
    assert done.returncode == 0, done.stdout + done.stderr
    run = home/"runs/untested"
    pairs = pd.read_csv(run/"metrics/evaluation_pairs.csv")
    assert pd.read_csv(run/"comparison.csv").chosen_accuracy.isna().all() and len(pairs) and "test_looks" not in json.loads((run/"provenance.json").read_text())
    one = pneumo(home, "run", "--run", "untested", "--only", "data,compact", "-p", "compact.only_folds=[1]", "-p", "compact.seeds=1")
    assert one.returncode == 0 and sorted(f.name for f in run.glob("*/compact*.*")) == ["compact.csv", "compact.csv", "compact.json", "compact.keras", "compact_films.png", "compact_history.png"], one.stdout
    wrong = pneumo(home, "run", "--run", "untested", "--only", "data,compact", "-p", "compact.only_folds=[7]")
    assert wrong.returncode == 1 and "Expected compact.only_folds between 0 and 2, found [7]" in wrong.stderr

def test_levels_from_elsewhere_keep_the_order_and_swapping_changes_class():
    rng = np.random.default_rng(0)
    film, other = rng.integers(0, 200, (24, 24), np.uint8), rng.integers(100, 256, (24, 24), np.uint8)
    matched = match_levels(film, level_counts(other))
    order = np.argsort(film.ravel(), kind="stable")
    assert (np.diff(matched.ravel()[order].astype(int)) >= 0).all() and abs(matched.mean() - other.mean()) < 2
    dark, light = rng.integers(0, 60, (5, 16, 16), np.uint8), rng.integers(200, 256, (5, 16, 16), np.uint8)
    films = Films(pd.DataFrame(dict(label=[0] * 5 + [1] * 5)), np.concatenate([dark, light]))
    swapped = swapped_levels(films, np.arange(10), 1)
    assert swapped[:5].min() >= 200 and swapped[5:].max() < 60

def test_sharpness_from_elsewhere_keeps_places_and_swapping_changes_class():
    rng = np.random.default_rng(0)
    sharp = rng.integers(60, 190, (6, 64, 64)).astype(np.uint8)
    soft = np.stack([cv2.GaussianBlur(film, (0, 0), 1) for film in sharp[:3]])
    matched = match_bands(soft[0], band_scatters(sharp[0]))
    assert band_scatters(soft[0])[0] < .5 * band_scatters(sharp[0])[0] and 2.4 < band_scatters(matched)[0] / band_scatters(soft[0])[0] < 3.1  # three times, less what rounding and the next band take
    assert np.corrcoef(matched.ravel(), soft[0].ravel())[0, 1] > .8 and abs(matched.mean() - soft[0].mean()) < 1
    assert np.abs(match_bands(sharp[0], band_scatters(sharp[0])).astype(int) - sharp[0]).max() <= 2
    films = Films(pd.DataFrame(dict(label=[0] * 3 + [1] * 3)), np.concatenate([soft, sharp[3:]]))
    before, after = ([band_scatters(film)[0] for film in pixels] for pixels in (films.pixels, swapped_bands(films, np.arange(6), 1)))
    assert max(before[:3]) < min(before[3:]) and min(after[:3]) > 2 * max(before[:3]) and max(after[3:]) < .5 * min(before[3:])

def test_without_sharpness_from_elsewhere_the_recipe_changes_no_band():
    films = Films(pd.DataFrame(dict(split=["train"] * 4, label=[0, 1] * 2)), np.random.default_rng(0).integers(60, 190, (4, 32, 32)).astype(np.uint8))
    still = dict(match=0, bands=0, rotation=0, shift=0, stretch=0, flip=False, equalise=0, gamma=0, blur=0, noise=0, cutout=0)
    seen = [recipe_views(films, 0, still | dict(bands=share))(1, np.arange(4))[..., 0] for share in (0, 1)]
    assert np.abs(seen[0].astype(int) - films.pixels).max() <= 1 and np.abs(seen[1].astype(int) - films.pixels).max() > 1

@pytest.mark.parametrize("height", [150, 224, 600])
@pytest.mark.parametrize("share", [.045, .09])
def test_side_markers_are_measured_as_drawn_whatever_the_size_of_the_film(height, share):
    film = np.full((height, round(height * 1.3)), 40, np.uint8)
    for side in (.05, .87):
        drawn = cv2.putText(film.copy(), "R", (int(side * film.shape[1]), int(.25 * height)), cv2.FONT_HERSHEY_SIMPLEX, share * height / 21, 235, max(1, round(share * height / 6)), cv2.LINE_AA)
        assert abs(marker_height(drawn) - share) < .02
    assert marker_height(film) == 0

def test_no_bone_of_a_phantom_is_taken_for_a_tall_marker(home):
    images = pd.read_csv(home/"runs/whole/images.csv")
    root = next((home/"runs/whole/cache").glob("phantoms_*"))
    heights = np.array([marker_height(cv2.imread(str(root/path), cv2.IMREAD_GRAYSCALE)) for path in images.path])
    assert (heights < .06).all() and abs(np.median(heights[heights > 0]) - 21 / 520) < .012 and (heights > 0).sum() > 10
    table = marker_table(images, pd.Series(heights))
    assert table.films.sum() == len(images) and table.tall.sum() == 0

def test_films_with_tall_markers_are_judged_by_themselves():
    images = pd.DataFrame(dict(split=["train"] * 9 + ["test"], label=[0, 0, 1, 1, 0, 1, 1, 0, 1, 0], patient_id=list("abcdefghij")))
    markers = pd.Series([.1, .1, .1, .1, 0, 0, .1, .1, .1])  # of those that are not test
    judged = pd.DataFrame(dict(member=["one"] * 7 + ["two"] * 2 + ["one"], fold=[0] * 6 + [-1, 1, 1, 0], n=range(10), logit=[-2., 1, 0, 2, 9, -9, 0, 50, 60, 9]))  # the first four, and two of another network, higher by 50
    found = tall_markers(Films(images, None), judged, markers, 1)
    assert (found["normal"], found["pneumonia"]) == (3, 3) and found["auroc"] == pytest.approx((3 + 1) / 5) and found["low"] <= .8 <= found["high"]
    alone = tall_markers(Films(images, None), judged[judged.member == "two"].iloc[:1], markers, 1)
    assert alone == dict(normal=0, pneumonia=0, auroc=None, low=None, high=None)

def test_contrast_forgets_brightness_and_a_slope_of_gray():
    rng = np.random.default_rng(0)
    film = rng.normal(100, 30, (1, 64, 64, 1)).clip(0, 200).astype(np.float32)
    foggy = film * .8 + 30 + np.linspace(0, 15, 64, dtype=np.float32)[:, None]
    local = [np.array(Contrast()(f)) for f in (film, foggy)]
    assert np.abs(local[0] - local[1]).mean() < .12 * np.abs(local[0]).mean()

def test_products_of_half_the_length_learn_the_same():
    losses = []
    for dtype in ("float32", "mixed_bfloat16"):
        keras.utils.set_random_seed(0)
        network = build_compact(32, (8, 16), norm=FusedBatchNormalization, dtype=dtype)
        network.compile(keras.optimizers.AdamW(1e-3), keras.losses.CategoricalCrossentropy(from_logits=True))
        films = np.random.default_rng(0).normal(size=(64, 32, 32, 1)).astype(np.float32)
        films[::2] += 1
        classes = np.eye(3, dtype=np.float32)[np.arange(64) % 2]
        losses.append([network.train_on_batch(films, classes) for _ in range(12)])
        assert all(w.dtype == "float32" for w in network.weights)
    assert losses[0][-1] < .8 * losses[0][0] and np.allclose(losses[0], losses[1], rtol=.1)
