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
# # Many runs
#
# > A grid, a list or draws of parameters, each an ordinary run, done by the workers of a Dask cluster

# %%
#| default_exp sweep

# %%
#| export
import base64, hashlib, io, json, math, os, re, subprocess, sys, threading
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from pneumo_nb.run import (
    StudyError, atomic_path, look, open_stage, project_folder, shortened, stages, stale_reason, threads,
    write_csv)
from pneumo_nb.style import (
    counted, figure_png, model_style, model_title, plot_style)
from pneumo_nb.parameters import read_yaml
from pneumo_nb.phantom import make_dataset
from pneumo_nb.workers import thread_variables
from pneumo_nb.measures import all_measures, auroc, auroc_interval, flat_intervals, read_predictions
from pneumo_nb.evaluation import with_names
from pneumo_nb.pages import fill, table_html, turned
from pneumo_nb.execution import run_locked

# %%
#| hide
import tempfile
from fastcore.test import test_close, test_eq, test_fail
from pneumo_nb.style import show_figure

# %% [markdown]
# Which learning rate? How much of a result is luck? Both are questions to many runs. A **sweep** is a list of
# **points**: parameters of an ordinary run, each with its own folder. Nothing here trains. Points are handed
# to [Dask](https://distributed.dask.org), which gives them to workers, on this machine or on a hundred, and
# hands a point on when its worker dies.
#
# ## What is asked
#
# A sweep is a YAML file. Each way to name points may stand alone or beside others:
#
# ```yaml
# base: params/quick.yaml            # what all points share; this is the default
# stages: [data, preprocessing, cnn] # the stages of each run
# grid:                              # every combination
#   cnn.epochs: [2, 4]
#   cnn.batch_size: [16, 32]
# points:                            # a list
#   - {cnn.epochs: 8, cnn.batch_size: 64}
# draws:                             # seeded random draws
#   count: 10
#   seed: 1
#   from:
#     cnn.learning_rate: {low: 0.0001, high: 0.01, log: true}
#     cnn.epochs: {low: 2, high: 12}
#     cnn.batch_size: [16, 32, 64]
# seeds: [1, 2, 3]                   # each point once with each common.seed
# ```

# %%
#| export
_KEYS = ("base", "stages", "grid", "points", "draws", "seeds")
_SEED = "common.seed"

def _must(is_right: bool, what: str, found):
    "Refuse a part of a sweep's file that is something else than expected."
    if not is_right: raise StudyError(f"Expected {what} in the sweep's file, found {shortened(found)}.")


# %%
#| export
def _check_values(where: str, values):
    "Refuse what is not a table of STAGE.NAME and something."
    is_named = isinstance(values, dict) and all(str(name).count(".") == 1 for name in values)
    _must(is_named, f"lines such as data.seed: … below {where}", values)


# %%
#| export
def grid_points(
    grid: dict[str, list], # STAGE.NAME → values
) -> list[dict]: # STAGE.NAME → value
    "Every combination of a grid; none of an empty one."
    _check_values("grid", grid)
    for name, values in grid.items(): _must(isinstance(values, list) and values, f"a list for {name}", values)
    return [dict(zip(grid, values)) for values in product(*grid.values())] if grid else []


# %%
test_eq(grid_points({"cnn.epochs": [2, 4], "cnn.batch_size": [16]}),
        [{"cnn.epochs": 2, "cnn.batch_size": 16}, {"cnn.epochs": 4, "cnn.batch_size": 16}])
test_fail(lambda: grid_points({"cnn.epochs": 2}), contains="Expected a list for cnn.epochs")
test_fail(lambda: grid_points({"epochs": [2]}), contains="lines such as data.seed: … below grid")


# %% [markdown]
# A draw is uniform between two limits, or uniform in the logarithm. Whole limits give whole numbers. The
# seed fixes all draws, so that the same file is the same sweep.

# %%
#| export
def _draw(name: str, rule, rng: np.random.Generator):
    "One value after a rule."
    if isinstance(rule, list) and rule: return rule[rng.integers(len(rule))]
    is_rule = isinstance(rule, dict) and {"low", "high"} <= set(rule) <= {"low", "high", "log"}
    _must(is_rule, f"a list, or low, high and maybe log: true, for {name}", rule)
    low, high = rule["low"], rule["high"]
    are_numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (low, high))
    _must(are_numbers and low < high and (low > 0 or not rule.get("log")), f"low below high for {name}", rule)
    is_whole = isinstance(low, int) and isinstance(high, int)
    if rule.get("log"): value = math.exp(rng.uniform(math.log(low), math.log(high)))
    else: value = int(rng.integers(low, high + 1)) if is_whole else rng.uniform(low, high)
    return round(value) if is_whole else float(f"{value:.4g}")


# %%
#| export
def drawn_points(
    draws: dict, # count, seed, from: STAGE.NAME → values, or low, high and maybe log
) -> list[dict]: # STAGE.NAME → value
    "Seeded random points."
    are_right = isinstance(draws, dict) and set(draws) == {"count", "seed", "from"}
    _must(are_right, "count, seed and from below draws", draws)
    count = draws["count"]
    _must(isinstance(count, int) and 1 <= count <= 10_000, "1 to 10000 for count below draws", count)
    _check_values("from", draws["from"])
    rng = np.random.default_rng(draws["seed"])
    return [{name: _draw(name, rule, rng) for name, rule in draws["from"].items()} for _ in range(count)]


# %%
rule = {"cnn.learning_rate": dict(low=1e-4, high=1e-2, log=True), "cnn.epochs": dict(low=2, high=4)}
drawn = drawn_points(dict(count=200, seed=1, **{"from": rule}))
test_eq(drawn, drawn_points(dict(count=200, seed=1, **{"from": rule})))
test_eq({point["cnn.epochs"] for point in drawn}, {2, 3, 4})
test_close(np.median([point["cnn.learning_rate"] for point in drawn]), 1e-3, eps=3e-4)
test_fail(lambda: drawn_points(dict(count=1, seed=1, **{"from": {"cnn.epochs": dict(low=3, high=2)}})),
          contains="low below high for cnn.epochs")


# %% [markdown]
# A point's folder is named by its values, so that a sweep may grow and shrink, and what is done stays done.
# The folder of a sweep holds nothing else than its own.

# %%
#| export
@dataclass(frozen=True)
class Sweep:
    "What a sweep's file asks for."
    base: Path | None        # parameter file; None for params/quick.yaml
    stages: tuple[str, ...]  # of each run, in the study's order
    points: tuple[dict, ...] # STAGE.NAME → value, each once


# %%
#| export
def point_name(point: dict) -> str: # such as "p-3f09c41b"
    "The name of a point's run."
    return "p-" + hashlib.sha256(json.dumps(point, sort_keys=True).encode()).hexdigest()[:8]


# %%
#| export
def check_sweep_folder(folder: Path):
    "Refuse a folder that holds something else than a sweep."
    own = re.compile(r"p-[0-9a-f]{8}|films|sweep\.csv|index\.html|\.partial-.*")
    others = [file.name for file in folder.glob("*") if not own.fullmatch(file.name)]
    if others: raise StudyError(f"Expected a sweep or an empty folder at {folder}, found {others[0]}; give "
                                "the sweep's file another name.")


# %%
#| export
def _chosen_stages(asked) -> tuple[str, ...]:
    "The stages of each run."
    known = ", ".join(stages())
    are_right = isinstance(asked, list) and asked and all(name in stages() for name in asked)
    _must(are_right, f"stages: with a list of some of {known}", asked)
    return tuple(name for name in stages() if name in asked)

def _seeded(points: list[dict], seeds) -> list[dict]:
    "Each point with each seed."
    are_whole = isinstance(seeds, list) and all(isinstance(seed, int) for seed in seeds)
    _must(are_whole, "whole numbers below seeds", seeds)
    return [point | {_SEED: seed} for point in points or [{}] for seed in seeds] if seeds else points


# %%
#| export
def read_sweep(
    file: str | Path, # YAML
) -> Sweep:
    "Read what a sweep is asked for."
    asked = read_yaml(file)
    _must(isinstance(asked, dict) and set(asked) <= {*_KEYS}, f"some of {', '.join(_KEYS)}", asked)
    listed = asked.get("points", [])
    _must(isinstance(listed, list), "a list below points", listed)
    for point in listed: _check_values("points", point)
    points = grid_points(asked.get("grid", {})) + listed
    points += drawn_points(asked["draws"]) if "draws" in asked else []
    points = _seeded(points, asked.get("seeds", []))
    _must(points, "grid, points, draws or seeds", asked)
    each = {point_name(point): point for point in points}
    base = Path(file).parent/asked["base"] if "base" in asked else None
    return Sweep(base, _chosen_stages(asked.get("stages")), tuple(each.values()))


# %%
text = """
stages: [cnn, data]
grid: {cnn.epochs: [2, 4]}
points: [{cnn.epochs: 4}, {cnn.epochs: 8}]
seeds: [1, 2]
"""
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder)/"sweep.yaml"
    file.write_text(text)
    sweep = read_sweep(file)
    test_eq((sweep.stages, len(sweep.points)), (("data", "cnn"), 6))   # 4 epochs were asked for twice
    file.write_text("stages: [data]\n")
    test_fail(lambda: read_sweep(file), contains="Expected grid, points, draws or seeds")
    test_fail(lambda: check_sweep_folder(Path(folder)), contains="found sweep.yaml; give the sweep's file")
print(point_name(sweep.points[0]), sweep.points[0])


# %% [markdown]
# ## Films drawn once
#
# A run without a folder of films draws phantoms for itself. The points of a sweep share them: they are drawn
# once, with the seed of the base, so that seeds differ in split and training and not in films. Where points
# ask for other phantoms, or for planted shortcuts, each run draws its own. Decoded films are shared by all
# runs anyway.

# %%
#| export
def _are_alike(each: list[dict]) -> bool: # `each`: parameters of the data stage
    "Whether all ask for the same phantoms, without shortcuts."
    keys = [name for name in each[0] if name.startswith("phantom_")]
    asked = {tuple(params[key] for key in keys) for params in each}
    has_films = any(params["data_dir"] or params["films_csv"] for params in each)
    is_plain = all(value == "none" for value in next(iter(asked)) if isinstance(value, str))
    return len(asked) == 1 and is_plain and not has_films

def share_films(
    folder: Path,     # the sweep's
    each: list[dict], # parameters of all stages, of each point; changed in place
    seed: int,        # of the base
): # function without arguments
    "Give all points the same folder of phantoms, where all ask for the same; returned is what draws them."
    if not _are_alike([params["data"] for params in each]): return lambda: None
    sizes = [each[0]["data"][f"phantom_{split}"] for split in ("train", "test")]
    films = (folder/"films"/"_".join(["phantoms", *map(str, [*sizes, seed])])).resolve()
    for params in each: params["data"]["data_dir"] = str(films)
    return lambda: make_dataset(films, *sizes, seed)


# %%
plain = dict(data_dir="", films_csv="", phantom_train=6, phantom_test=4, phantom_text="none")
with tempfile.TemporaryDirectory() as folder:
    two = [dict(data=dict(plain)), dict(data=dict(plain))]
    draw = share_films(Path(folder), two, seed=1)
    place, = {params["data"]["data_dir"] for params in two}
    assert not Path(place).exists() and draw().samefile(place)
    other = [dict(data=dict(plain)), dict(data=plain | dict(phantom_train=8))]
    share_films(Path(folder), other, seed=1)
    test_eq([params["data"]["data_dir"] for params in other], ["", ""])


# %% [markdown]
# ## One point
#
# A worker does a point in a process of its own, since a notebook's kernel needs one that it can be started
# from. A worker may be killed at any moment. Its process must not go on then, or the worker that takes the
# point over would find the run locked. It gets its task by a pipe and ends when the pipe does.

# %%
#| export
def _end_with_pipe():
    "End this process when the one that began it does, however that ends."
    while os.read(0, 1 << 16): pass
    os._exit(1)


# %%
#| export
def do_task():
    "Do the task that stands in the first line of the input; the process of `do_point`."
    task = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_pipe, daemon=True).start()
    chosen = task["stages"]
    try: run_locked(Path(task["folder"]), chosen, task["params"], chosen, task["source"], fresh=False)
    except StudyError as e: raise SystemExit(str(e))


# %%
#| export
_COMMAND = [sys.executable, "-c", "from pneumo_nb.sweep import do_task; do_task()"]

def do_point(
    task: dict,  # folder, stages, params, source
    share: int,  # how many points are done at a time by this process
) -> str: # "" where it was done, else why not
    "Do the run of one point."
    env = os.environ | thread_variables(max(threads() // share, 1))
    process = subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, env=env)
    process.stdin.write(json.dumps(task).encode() + b"\n")
    process.stdin.flush()   # and left open
    said = process.stdout.read().decode(errors="replace").strip().splitlines()
    return "" if process.wait() == 0 else (said or ["its process ended without a word"])[-1]


# %% [markdown]
# A point that cannot be done says why in one sentence:

# %%
with tempfile.TemporaryDirectory() as folder:
    task = dict(folder=f"{folder}/p-1", stages=["data"], source="this example",
                params=dict(data=dict(data_dir="/nowhere/films")))
    print(do_point(task, share=1).replace(folder, "…"))


# %% [markdown]
# ## All points
#
# Points whose stages are all unchanged are not done again. The others go to the cluster. One that fails does
# not hold up the rest. A worker that dies gives its point to another. If four workers die of one point, it is
# given up, and that is said.

# %%
#| export
def is_done(task: dict) -> bool: # `task`: folder, stages, params
    "Whether nothing of a point has to run."
    folder = Path(task["folder"])
    if not (folder/"provenance.json").exists(): return False
    return not any(stale_reason(folder, name, task["params"][name]) for name in task["stages"])


# %%
#| export
def do_tasks(
    client,                  # of Dask
    tasks: dict[str, dict],  # name → folder, stages, params, source
    tell=print,              # takes a line
) -> dict[str, str]: # name → "" where it was done, else why not
    "Do tasks on a cluster, each in a process of a worker."
    from distributed import as_completed
    share = max([facts["nthreads"] for facts in client.scheduler_info()["workers"].values()], default=1)
    futures = {client.submit(do_point, task, share, key=f"{name}-{os.getpid()}", pure=False): name
               for name, task in tasks.items()}
    results = {}
    for number, future in enumerate(as_completed(futures), 1):
        name, error = futures[future], future.exception()
        results[name] = f"{type(error).__name__}: {error}" if error else future.result()
        tell(f"[{number}/{len(tasks)}] {name}: {results[name] or 'done'}")
    return results


# %% [markdown]
# ## What came out
#
# Points are compared on **validation** films, which are there to choose by. Test is not: the more points are
# compared on it, the better the best of them looks by chance. So its columns are left out until someone asks
# for them, and then each run counts as a look in the ledger.

# %%
#| export
def _judged(film_table: pd.DataFrame, split: str) -> dict: # AUROC, low, high, Brier; {} where undefined
    "A model on the films of one split."
    films = film_table[film_table.split == split]
    if films.label.nunique() < 2: return {}
    limits = flat_intervals(dict(roc_auc=auroc_interval(films)))
    brier = float(all_measures(films, .5)["brier"][0])
    measures = dict(roc_auc=auroc(films.label, films.probability)) | limits | dict(brier=brier)
    return {f"{split}_{name}": value for name, value in measures.items()}


# %%
#| export
def point_rows(
    folder: Path,            # a point's run
    splits: tuple[str, ...], # to judge on
) -> list[dict]: # model, measures of each split, seconds; a row a model
    "What a run's models come to."
    rows = []
    for file in sorted((folder/"predictions").glob("*.csv")):
        table, history = with_names(read_predictions(file), folder), folder/"history"/file.name
        measures = {key: value for split in splits for key, value in _judged(table, split).items()}
        seconds = pd.read_csv(history).total_seconds.iloc[-1] if history.exists() else float("nan")
        rows.append(dict(model=file.stem) | measures | dict(training_seconds=seconds))
    return rows


# %%
four = pd.DataFrame(dict(path=list("abcd"), split="validation", label=[0, 0, 1, 1],
                         probability=[.1, .6, .4, .9], patient_id=list("abcd")))
test_eq(_judged(four, "validation")["validation_roc_auc"], .75)
test_eq(_judged(four, "test"), {})


# %%
#| export
def sweep_table(
    folder: Path,              # the sweep's
    points: tuple[dict, ...],
    failed: dict[str, str],    # name of a point → why it was not done
    splits: tuple[str, ...] = ("validation",),
) -> pd.DataFrame: # a row a point and model
    "Every point with its values, and what its models come to."
    rows = []
    for point in points:
        name = point_name(point)
        head = dict(point=name) | point | dict(failed=failed.get(name, ""))
        made = point_rows(folder/name, splits) if not failed.get(name) else []
        rows += [head | row for row in made or [{}]]
    return pd.DataFrame(rows)


# %% [markdown]
# Runs that differ by `common.seed` alone are one setting. Its mean is what to expect of another seed, its
# range how much luck is in it.

# %%
#| export
_NOT_SETTING = ("point", _SEED, "failed", "training_seconds")

def settings_of(
    table: pd.DataFrame, # from `sweep_table`
) -> pd.DataFrame: # a row a setting and model: mean, lowest and highest AUROC on validation, runs, seconds
    "The sweep with its seeds taken together, the best setting first."
    made = table[table.failed == ""].dropna(subset="validation_roc_auc")
    is_measure = lambda name: name.startswith(("validation_", "test_"))
    names = [name for name in made if name not in _NOT_SETTING and not is_measure(name)]
    measures = [name for name in ("validation_roc_auc", "test_roc_auc") if name in made]
    groups = made.groupby(names, sort=False, dropna=False)
    parts = {m: groups[m].agg(["mean", "min", "max"]).add_prefix(f"{m}_") for m in measures}
    more = groups.size().rename("runs"), groups.training_seconds.mean()
    joined = pd.concat([*parts.values(), *more], axis=1)
    return joined.sort_values("validation_roc_auc_mean", ascending=False, kind="stable").reset_index()


# %%
toy = pd.DataFrame({"point": list("abc"), "cnn.epochs": [2, 2, 4], "common.seed": [1, 2, 1], "failed": "",
                    "model": "cnn", "validation_roc_auc": [.7, .8, .9], "training_seconds": [1., 3, 4]})
settings = settings_of(toy)
test_eq(settings["cnn.epochs"].tolist(), [4, 2])
test_eq(settings.runs.tolist(), [1, 2])
test_close(settings.validation_roc_auc_mean.tolist(), [.9, .75])


# %% [markdown]
# [The figure](#fig-sweep_toy) has a panel for each parameter that varies. Every dot is a run, every colour a
# model, and a line joins the means.

# %%
#| export
def plot_sweep(table: pd.DataFrame): # matplotlib Figure; `table`: from `sweep_table`
    "AUROC on validation against each parameter that varies."
    import matplotlib.pyplot as plt
    made = table.dropna(subset="validation_roc_auc")
    varied = [n for n in made if "." in n and n != _SEED and made[n].astype(str).nunique() > 1] or [_SEED]
    columns = min(len(varied), 3)
    lines = -(-len(varied) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.2 * columns + .6, 3 * lines + .6), sharey=True,
                                squeeze=False)
    for ax, name in zip(axes.flat, varied): _plot_parameter(ax, made, name)
    for ax in axes.flat[len(varied):]: ax.axis("off")
    figure.supylabel("AUROC on validation")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure


# %%
#| export
def _plot_parameter(ax, table: pd.DataFrame, name: str):
    "Every run, and the mean over runs, against one parameter."
    numbers = pd.to_numeric(table[name], errors="coerce")
    is_number = numbers.notna().all()
    order = sorted(table[name].astype(str).unique())
    at = numbers if is_number else table[name].astype(str).map(order.index)
    for model, rows in table.assign(at=at).groupby("model", sort=False):
        style = model_style(model)
        ax.plot(rows["at"], rows.validation_roc_auc, "o", ms=4, alpha=.6, color=style["color"])
        means = rows.groupby("at").validation_roc_auc.mean()
        ax.plot(means.index, means, **style, lw=1.5, label=model_title(model))
    if is_number and numbers.min() > 0 and numbers.max() / numbers.min() > 20: ax.set_xscale("log")
    if not is_number: ax.set_xticks(range(len(order)), order)
    elif ax.get_xscale() == "linear" and numbers.nunique() < 7: ax.set_xticks(sorted(numbers.unique()))
    ax.set_xlabel(name)


# %%
plot_style()
_ = show_figure(plot_sweep(toy), "sweep_toy", "AUROC on validation of a toy's three runs.",
                "Three dots: two at 2 epochs, .7 and .8, and one at 4 epochs, .9.")


# %% [markdown]
# ## The page
#
# A sweep's folder has the runs, `sweep.csv` with a row for each run and model, and a page that needs no other
# file.

# %%
#| export
def _picture(png: bytes, alt: str): # markupsafe.Markup
    "A chart as it is and as a dark page needs it, inside a page."
    from PIL import Image
    image, dark = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    turned(image, []).save(dark, "PNG")
    light, dark = (base64.b64encode(data).decode() for data in (png, dark.getvalue()))
    return fill("inline", light=light, dark=dark, alt=alt, width=image.width // 2, height=image.height // 2)


# %%
#| export
def _setting_rows(settings: pd.DataFrame) -> list[dict]: # cells are text
    "Settings for reading; what is the same in all is left out."
    rows, varied = [], [name for name in settings if "." in name and settings[name].astype(str).nunique() > 1]
    for row in settings.to_dict("records"):
        named = {name: str(row[name]) for name in varied}
        spread = {f"AUROC on {split}": _spread(row, f"{split}_roc_auc") for split in ("validation", "test")
                  if f"{split}_roc_auc_mean" in row}
        rows.append(dict(model=model_title(row["model"])) | named | spread | dict(
            runs=row["runs"], training=f"{row['training_seconds']:,.1f} s"))
    return rows


# %%
#| export
def _spread(row: dict, key: str) -> str: # such as "0.900 (0.880–0.920)"
    "Mean and range; the mean alone of one run."
    mean, low, high = (row[f"{key}_{end}"] for end in ("mean", "min", "max"))
    return f"{mean:.3f}" if row["runs"] == 1 else f"{mean:.3f} ({low:.3f}–{high:.3f})"


# %%
test_eq([row["AUROC on validation"] for row in _setting_rows(settings)], ["0.900", "0.750 (0.700–0.800)"])


# %%
#| export
def _shown(table: pd.DataFrame) -> tuple[str, str]: # picture and table as HTML; "" where no run is judged
    "What the page of a sweep shows."
    if "validation_roc_auc" not in table or table.validation_roc_auc.isna().all(): return "", ""
    alt = "AUROC on validation of every run against each parameter; the table has the numbers."
    plot_style()
    picture, rows = _picture(figure_png(plot_sweep(table), alt), alt), _setting_rows(settings_of(table))
    return picture, table_html(rows, "Mean, and range over seeds", sort_from=0)


# %%
#| export
def write_sweep(
    folder: Path,
    table: pd.DataFrame, # from `sweep_table`
) -> Path: # the page
    "Write the table and the page of a sweep."
    from markupsafe import Markup
    read = lambda name: Markup((project_folder()/"nbs/assets"/name).read_text(encoding="utf-8"))
    write_csv(folder/"sweep.csv", table)
    picture, shown = _shown(table)
    text = fill("sweep", name=folder.name, styles=read("layout.css") + read("study.css"),
                failed=table[table.failed != ""][["point", "failed"]].to_dict("records"),
                script=read("sortable.auto.min.js"), picture=picture, table=Markup(shown),
                runs=counted(table.point.nunique(), "run"), has_test="test_roc_auc" in table)
    with atomic_path(folder/"index.html") as partial: partial.write_text(text + "\n", encoding="utf-8")
    return folder/"index.html"


# %%
#| export
def count_looks(
    folder: Path,             # the sweep's
    points: tuple[dict, ...],
):
    "Count a look at the test films for each point that has predictions."
    for point in points:
        run = folder/point_name(point)
        if list((run/"predictions").glob("*.csv")): look(open_stage("evaluation", run), "a sweep's table")


# %%
with tempfile.TemporaryDirectory() as folder:
    page = write_sweep(Path(folder), toy)
    text = page.read_text()
    assert "0.750 (0.700\u2060–\u20600.800)" in text and "Test is left out" in text
    test_eq(sorted(file.name for file in page.parent.iterdir()), ["index.html", "sweep.csv"])
