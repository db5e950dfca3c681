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
# # The command line
#
# > `pneumo` runs the notebooks in order, with parameters, and makes reports and tables of what they leave

# %%
#| default_exp cli

# %%
#| export
import logging, os, sys
from collections import Counter
from pathlib import Path

import click

from pneumo_nb.run import (
    StudyError, cache_folder, check_cache, check_films, check_parameters, check_run_folder, checkout_folder,
    enter_looks, films_folder, films_of, project_folder, read_json, read_looks, read_provenance, stages,
    workers)
from pneumo_nb.style import counted, looks_by_runs
from pneumo_nb.parameters import (
    declared_parameters, drop_undeclared, load_params, parse_override, resolve_params)
from pneumo_nb.execution import (
    check_upstream, execute_notebook, places_to_write, run_locked, stderr_to)

# %%
#| hide
import tempfile
from click.testing import CliRunner
from fastcore.test import test_eq, test_fail
from pneumo_nb.run import BY_HAND, write_json


# %% [markdown]
# Everything heavy is imported when it is needed, so that `pneumo --help` answers at once.
#
# ## What was asked
#
# A parameter file, single values on top (`-p cnn.epochs=3`), and a data folder make the parameters of all
# stages. An existing run keeps its own parameters unless a file is given. So one stage can be redone without
# repeating the rest of the command.

# %%
#| export
def _known_parameters() -> dict[str, dict]: # stage → {parameter: default}
    "What the notebooks declare."
    nbs = project_folder()/"nbs"
    return {name: declared_parameters(nbs/f"{stage.notebook}.ipynb") for name, stage in stages().items()}


# %%
#| export
def _parameter_source(
    folder: Path,
    file: str | None, # asked for
) -> tuple[Path, bool]: # file, and whether it is the run's own
    "Where parameters come from."
    kept = folder/"params.yaml"
    if file: return Path(file), False
    return (kept, True) if kept.exists() else (project_folder()/"params/quick.yaml", False)


# %%
#| export
def _asked_parameters(
    folder: Path,        # the run directory, which may not exist yet
    file: str | None,    # parameter file
    overrides: list[str],
    data: str | None,    # folder with films
    known: dict[str, dict],
    films: str | None = None, # table of own films
) -> tuple[dict[str, dict], list[str], str]: # stage → parameters; the stages to run; where both came from
    "The parameters of every stage."
    source, is_kept = _parameter_source(folder, file)
    sections, chosen = load_params(source)
    if is_kept:
        sections, dropped = drop_undeclared(sections, known)
        for name in dropped: click.echo(f"Note: this run's params.yaml holds {name}, which no notebook "
                                        "declares any more; it is left out.")
    sections = _overridden(sections, overrides, known)
    for name, value in dict(data_dir=data, films_csv=films).items():
        if value is not None: sections.setdefault("data", {})[name] = value
    return _absolute_paths(resolve_params(sections, known)), chosen, str(source)


# %%
#| export
def _overridden(sections: dict, overrides: list[str], known: dict) -> dict:
    "Sections with single values on top; what is asked now wins over what a file says of single stages."
    sections = {section: dict(values) for section, values in sections.items()}
    for section, name, value in sorted(map(parse_override, overrides), key=lambda o: o[0] != "common"):
        sections.setdefault(section, {})[name] = value
        if section == "common":
            for stage in known: sections.get(stage, {}).pop(name, None)
    return sections


# %%
#| export
def _absolute_paths(params: dict[str, dict]) -> dict[str, dict]: # `params`, changed in place
    "Files and folders that parameters name, as absolute paths: notebooks run in another folder."
    for name, stage in stages().items():
        for parameter, words in stage.paths.items():
            value = params[name][parameter]
            if value and value not in words: params[name][parameter] = str(Path(value).expanduser().resolve())
    return params


# %%
known = _known_parameters()
params, chosen, source = _asked_parameters(Path("no_run"), None, ["cnn.epochs=9"], None, known)
test_eq((params["cnn"]["epochs"], chosen, Path(source).name), (9, list(stages()), "quick.yaml"))
best = project_folder()/"params/best.yaml"
test_eq(_asked_parameters(Path("no_run"), best, [], None, known)[1],
        ["data", "eda", "compact", "transfer", "joint", "evaluation", "xai", "shortcuts", "shift"])
test_fail(lambda: _asked_parameters(Path("no_run"), None, ["cnn.epoch=9"], None, known),
          contains="known in cnn: batch_size, epochs")


# %% [markdown]
# ## Where a run is
#
# A run has a name, and lies in `runs/` where the command is called, or its folder is given.

# %%
#| export
def _run_folder(name: str) -> Path: # absolute
    "`runs/NAME` here, or the folder itself if a path is given; refused if it is something else than a run."
    if Path(name).name in ("", ".", ".."):
        raise StudyError(f"Expected a name such as monday for --run, found {name!r}.")
    folder = (Path(name) if os.sep in name else Path("runs")/name).resolve()
    _check_text("the run's folder", str(folder))
    check_run_folder(folder)
    return folder


# %%
#| export
def _check_text(what: str, text: str):
    "Refuse text that is not UTF-8: parameters, pages and records could not hold it."
    try: text.encode()
    except UnicodeEncodeError: raise StudyError(
        f"Expected {what} in UTF-8, found {text!r}; give it another name.") from None


# %%
test_fail(lambda: _run_folder("caf\udce9"), contains="Expected the run's folder in UTF-8, found")


# %%
#| export
def _existing_run(name: str) -> Path:
    "The folder of a run that exists."
    folder = _run_folder(name)
    if (folder/"provenance.json").exists(): return folder
    there = ", ".join(sorted(p.parent.name for p in Path("runs").glob("*/provenance.json")))
    advice = f"there are: {there}." if there else "do `pneumo run` first."
    raise StudyError(f"Expected a run in {folder}, found none; {advice}")


# %% [markdown]
# ## A run keeps its films
#
# A run on real films stays on them (`check_films`) unless `--fresh` says otherwise. The same films may lie at
# another place.

# %%
#| export
def _are_same_films(folder: Path, data_dir: str, films_csv: str) -> bool:
    "Whether a run's films lie in a data folder, too."
    import warnings
    from pneumo_nb.films import data_fingerprint, scan_dataset
    if not data_dir: return False
    fingerprint = read_provenance(folder).get("data_fingerprint")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the data stage says them
        return fingerprint == data_fingerprint(scan_dataset(data_dir, films_csv))


# %%
#| export
def _check_change_of_films(folder: Path, params: dict, fresh: bool): # parameters of the data stage
    "Refuse to turn a run on real films into one on others, and say so where it is asked for."
    before, asked = films_of(folder), films_folder(params)
    if before in (None, asked): return
    if before and _are_same_films(folder, asked, params.get("films_csv", "")): return
    if not fresh: check_films(folder, params)
    was, now = (f"the films in {films}" if films else "phantoms" for films in (before, asked))
    click.echo(f"Note: the run {folder.name} was on {was}; it is done again on {now}.")


# %%
with tempfile.TemporaryDirectory() as folder:
    write_json(Path(folder)/"metrics/data.json", dict(source="chest_xray", root="/films"))
    change = lambda data_dir, fresh: _check_change_of_films(Path(folder), dict(data_dir=data_dir), fresh)
    change("/films", fresh=False)
    test_fail(lambda: change("", fresh=False), contains="found phantoms asked for")
    change("", fresh=True)


# %% [markdown]
# ## Commands
#
# A command ends a `StudyError`, or a file that cannot be used, with one sentence and exit status 1. A value
# that is huge is not echoed whole. Ctrl-C loses nothing: whatever was half done is taken up again.

# %%
#| export
def _one_line(text: str, limit: int = 600) -> str:
    "A message on one line, its middle left out if it is very long."
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit * 2 // 3]} … {text[-limit // 3:]}"


# %%
test_eq(_one_line("found\n" + "9" * 10_000 + "; do this", 30), "found 99999999999999 … 9; do this")
test_eq(_one_line("found 9"), "found 9")


# %%
#| export
class Group(click.Group):
    "Commands that end a mistake with one sentence."
    def __init__(self, *words, **options):
        super().__init__(*words, **options)
        self.__wrapped__ = self.callback  # documentation shows the function

    def invoke(self, ctx):
        try: return super().invoke(ctx)
        except StudyError as e: reason = str(e)
        except UnicodeEncodeError as e:
            reason = f"Expected names in UTF-8, found {e.object[max(e.start - 40, 0):e.end + 40]!r}."
        except BrokenPipeError: raise  # nobody reads on, as behind `head`; click knows
        except OSError as e: reason = f"Could not use {e.filename or 'a file'}: {e.strerror or e}."
        except KeyboardInterrupt:
            click.echo("Stopped; the same command goes on.", err=True)
            logging.getLogger("asyncio").disabled = True  # it would tell of the kernel that was stopped, too
            ctx.exit(130)
        raise click.ClickException(_one_line(reason))


# %%
#| export
class Command(click.Command):
    "A command whose documentation is that of its function."
    def __init__(self, *words, **options):
        super().__init__(*words, **options)
        self.__wrapped__ = self.callback

    def invoke(self, ctx):
        for param in self.params:
            is_option = isinstance(param, click.Option)
            name = param.opts[0] if is_option else param.human_readable_name
            _check_values(name, ctx.params.get(param.name))
        return super().invoke(ctx)

Group.command_class = Command


# %%
#| export
def _check_values(name: str, values):
    "Refuse an option that was given but is empty, as by a shell's unset variable, or is not UTF-8."
    for value in values if isinstance(values, tuple) else (values,):
        if not isinstance(value, str): continue
        if not value.strip(): raise StudyError(
            f"Expected a value for {name}, found an empty one; give one, or leave it out.")
        _check_text(name, value)


# %%
#| export
@click.group(cls=Group, context_settings=dict(help_option_names=["-h", "--help"], max_content_width=110))
def main():
    "Pneumonia detection from chest X-rays: a reproducible study."
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a debugger's warning in every kernel
    places_to_write(cache_folder())
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a sign stops no run
        if hasattr(stream, "reconfigure"): stream.reconfigure(errors="replace")


# %% [markdown]
# ### Running the study

# %%
#| export
_STAGES = ", ".join(stages())


# %%
#| export
def _chosen_stages(only: str) -> list[str]: # in the study's order
    "The stages that `--only` names."
    names = [s.strip() for s in only.split(",") if s.strip()]
    if wrong := [name for name in names if name not in stages()] or not names: raise StudyError(
        f"Expected stages among {_STAGES} for --only, found {', '.join(wrong) if names else 'none'}.")
    return [name for name in stages() if name in names]


# %%
#| export
@main.command()
@click.option("-f", "file", metavar="FILE",
              help="Parameter file. Default: the run's own, or params/quick.yaml for a new run.")
@click.option("-p", "overrides", multiple=True, metavar="STAGE.NAME=VALUE",
              help="One parameter, such as evaluation.threshold=0.4; repeatable.")
@click.option("--data", metavar="DIR",
              help="Folder with train/ and test/, or with films.csv. Default: draw phantoms.")
@click.option("--films", metavar="FILE",
              help="Table of own films. Default: films.csv in the data folder, if there is one.")
@click.option("--run", "name", metavar="NAME",
              help="Name of the run, in runs/. Default: the parameter file's name.")
@click.option("--only", metavar="STAGES",
              help=f"Comma-separated, of: {_STAGES}. Default: the parameter file's, or all.")
@click.option("--fresh", is_flag=True, help="Run stages even if nothing has changed.")
def run(file, overrides, data, films, name, only, fresh):
    "Run the study, or take up a run where it stopped."
    chosen = _chosen_stages(only) if only is not None else None
    folder = _run_folder(name if name is not None else Path(file).stem if file else "quick")
    params, listed, source = _asked_parameters(folder, file, overrides, data, _known_parameters(), films)
    chosen = chosen or listed
    check_parameters({name: params[name] for name in chosen})
    _check_films(params, chosen)
    _check_change_of_films(folder, params["data"], fresh)
    check_upstream(folder, chosen, params)
    check_cache()
    run_locked(folder, chosen, params, listed, source, fresh)


# %%
#| export
def _check_films(params: dict[str, dict], chosen: list[str]):
    "Refuse a wrong data folder, or table of films, before anything is started."
    from pneumo_nb.films import check_source
    places = params["data"]["data_dir"], params["data"]["films_csv"]
    if "data" in chosen and any(places): check_source(*places)


# %% [markdown]
# ### Many runs
#
# A sweep gives each of its points to a worker, here or on a cluster.

# %%
#| export
def _point_tasks(
    folder: Path, # the sweep's
    asked,        # from `read_sweep`
) -> list[dict]: # folder, stages, params, source
    "The run of each point, its parameters checked before any is begun."
    import json
    from pneumo_nb.sweep import point_name, share_films
    known, source = _known_parameters(), asked.base or project_folder()/"params/quick.yaml"
    sections, chosen = load_params(source)[0], list(asked.stages)
    words = [[f"{name}={json.dumps(value)}" for name, value in point.items()] for point in asked.points]
    each = [_absolute_paths(resolve_params(_overridden(sections, w, known), known)) for w in words]
    for params in each: check_parameters({name: params[name] for name in chosen})
    draw = share_films(folder, each, resolve_params(sections, known)["data"]["seed"])
    for point, params in zip(asked.points, each): check_upstream(folder/point_name(point), chosen, params)
    draw()
    return [dict(folder=str(folder/point_name(point)), stages=chosen, params=params, source=str(source))
            for point, params in zip(asked.points, each)]


# %%
#| export
@main.command()
@click.argument("file", metavar="SWEEP.yaml")
@click.option("--workers", "count", type=click.IntRange(1, 256), metavar="N",
              help="How many points to do at a time on this machine. Default: PNEUMO_WORKERS, or 1.")
@click.option("--scheduler", metavar="ADDRESS",
              help="A running Dask cluster in place of this machine, such as tcp://host:8786.")
@click.option("--test", "has_test", is_flag=True,
              help="Show the test columns, too; each run then counts as a look.")
def sweep(file, count, scheduler, has_test):
    """Do many runs: a grid, a list or draws of parameters and seeds.

    Points that are done are skipped, so the same command goes on. Writes runs/NAME/sweep.csv and a page."""
    from pneumo_nb.sweep import (
        check_sweep_folder, count_looks, do_tasks, is_done, read_sweep, sweep_table, write_sweep)
    from pneumo_nb.many import check_packages, cluster
    check_packages(dict(distributed="cluster"))
    asked, folder = read_sweep(file), (Path("runs")/Path(file).stem).resolve()
    check_sweep_folder(folder)
    check_cache()
    tasks = {Path(task["folder"]).name: task for task in _point_tasks(folder, asked)}
    left = {name: task for name, task in tasks.items() if not is_done(task)}
    done = len(tasks) - len(left)
    click.echo(f"{counted(len(tasks), 'point')} in {folder}, {done:,} unchanged and skipped")
    failed = {}
    if left:
        with cluster(count or workers(), scheduler or "") as client:
            failed = do_tasks(client, left, click.echo)
    if has_test: count_looks(folder, asked.points)
    splits = ("validation", "test") if has_test else ("validation",)
    page = write_sweep(folder, sweep_table(folder, asked.points, failed, splits))
    click.echo(f"Wrote {page} and sweep.csv.")
    undone = ", ".join(name for name, why in failed.items() if why)
    if undone: raise StudyError(f"Not done: {undone}; the page says why, and the same command tries again.")


# %% [markdown]
# ### Pages

# %%
#| export
@main.command()
@click.argument("name", metavar="RUN")
def report(name):
    "Make a run's report: a site in the run's folder, and the list of all runs beside it."
    from pneumo_nb.report import render_report
    folder = _existing_run(name)
    index, by = render_report(folder)
    click.echo(f"Rendered by {by}. Open {index.as_uri()}")


# %%
#| export
def _phantom_run(name: str) -> Path:
    "A run whose films may be shown."
    from pneumo_nb.results import check_outputs
    folder = _existing_run(name)
    check_outputs(folder, "metrics/data.json", "comparison.csv")
    if read_json(folder/"metrics/data.json")["source"] == "phantoms": return folder
    raise StudyError(f"Expected a run on phantoms, found one on other films in {folder}; "
                     "what is published shows no film of a child.")


# %%
#| export
@main.command()
@click.argument("name", metavar="RUN")
def docs(name):
    "Make the documentation, in a clone's _docs/, with the chapters of a run on phantoms."
    from pneumo_nb.docs import render_docs
    project, folder = checkout_folder(), _phantom_run(name)
    chapters, studied = sorted((project/"nbs").glob("[0-9]*.ipynb")), {s.notebook for s in stages().values()}
    for file in (f for f in chapters if f.stem not in studied):
        click.echo(f"executing {file.stem}")
        execute_notebook(file, folder/"notebooks"/file.name, {}, folder/".kernel.log")
    with stderr_to(folder/".docs.log"):
        index, by = render_docs([folder/"notebooks"/f.name for f in chapters], project/"_docs")
    click.echo(f"Rendered by {by}. Open {index.as_uri()}")


# %%
#| export
@main.command()
@click.argument("name", metavar="RUN")
def pictures(name):
    "Make the README's two pictures from the report of a run on phantoms; needs Chromium."
    from pneumo_nb.docs import readme_pictures
    checkout_folder()  # refused before anything is looked for
    for file in readme_pictures(_phantom_run(name)): click.echo(f"Wrote {file}")


# %% [markdown]
# An installed package brings the chapters with it. To change one, it is copied out.

# %%
#| export
def _check_empty(folder: Path):
    "Refuse a folder in which something is."
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())): raise StudyError(
        f"Expected a new or an empty folder, found something in {folder}; give another.")


# %%
#| export
@main.command()
@click.argument("folder", metavar="DIR")
def notebooks(folder):
    "Copy the chapters to DIR, a new folder or an empty one, to read, run and change them."
    import shlex, shutil
    place, chapters = Path(folder), sorted((project_folder()/"nbs").glob("[0-9]*.ipynb"))
    _check_empty(place)
    place.mkdir(parents=True, exist_ok=True)
    for file in chapters: shutil.copyfile(file, place/file.name)
    trained = next(name for name, known in _known_parameters().items() if "epochs" in known)
    example = shlex.quote(str(place/f"{stages()[trained].notebook}.ipynb"))
    click.echo(f"Wrote {counted(len(chapters), 'notebook')} into {place}. "
               f"To run one: papermill {example} out.ipynb -p epochs 2")


# %%
with tempfile.TemporaryDirectory() as folder:
    notebooks.callback(f"{folder}/chapters")
    test_fail(lambda: notebooks.callback(f"{folder}/chapters"), contains="found something in")


# %% [markdown]
# ### The detector
#
# What a run has learned, as one file, and its answers for any films. The file holds the run's model card and
# data card, too.

# %%
#| export
@main.command()
@click.argument("name", metavar="RUN")
@click.option("--model", metavar="NAME", help="Default: the one with the highest AUROC on validation films.")
@click.option("--out", metavar="FILE", required=True, help="Where to write, such as child.pneumo.")
def bundle(name, model, out):
    "Write a detector: one file with a run's network and all that its answers need."
    from pneumo_nb.detector import bundle_of_run, write_bundle
    from pneumo_nb.reporting import data_card, model_card
    if not Path(out).resolve().parent.is_dir():
        raise StudyError(f"Expected a folder to write {Path(out).name} into, found none; make it first.")
    folder = _existing_run(name)
    packed = bundle_of_run(folder, model)
    card = packed.card
    card["cards"] = dict(model=model_card(folder, card["model"]), data=data_card(folder))
    digest = write_bundle(packed, out)
    click.echo(f"Wrote {out} ({Path(out).stat().st_size / 1e6:.1f} MB): {card['title']}, "
               f"learned from {card['trained_on']}.\nIts digest is {digest}.\n{card['not']}")


# %%
#| export
def _load_detector(place: str): # → Detector; `place`: or an address
    "The detector of a bundle or a run, without TensorFlow's greeting."
    from pneumo_nb.detector import Detector, without_greeting
    with without_greeting(): return Detector.load(place)


# %%
#| export
def _write_maps(detector, folder: str, method: str):
    "A function that draws the map of each film of some rows over it, into a folder."
    from pneumo_nb.detector import write_map
    Path(folder).mkdir(parents=True, exist_ok=True)
    def write(rows):
        for row in rows:
            if row["call"]: write_map(detector, row["path"], Path(folder), method)
    return write


# %%
#| export
def _check_maps(folder: str, places: tuple):
    "Refuse to draw maps where they would be taken for films."
    for place in places:  # no path is below an address
        if Path(folder).resolve().is_relative_to(Path(place).resolve()): raise StudyError(
            f"Expected a folder for maps outside the films in {place}, found {folder}; give another --maps.")


# %%
#| export
def _print_answers(detector, places, rule, tags, each):
    "Print answers as they come."
    from pneumo_nb.detector import COLUMNS, find_films
    import pandas as pd
    for n, rows in enumerate(detector.stream(find_films(places), rule, tags)):
        each(rows)
        table = pd.DataFrame(rows, columns=COLUMNS + list(tags))
        click.echo(table.to_csv(index=False, header=n == 0, lineterminator="\n"), nl=False)


# %%
#| export
def _answer(detector, places, out, rule, tags, draw, bar) -> Counter: # films, unread, flagged, earlier
    "Write or print answers, draw maps, move the bar, and name on stderr what could not be read."
    from pneumo_nb.detector import write_answers
    from pneumo_nb.many import put_up
    counts = Counter()
    def each(rows):
        draw(rows)
        for row in rows:
            if not row["call"]: bar.write(f"{row['file']}: {row['flags']}", file=sys.stderr)
            counts.update(films=1, unread=not row["call"], flagged=bool(row["call"] and row["flags"]))
        bar.update(len(rows))
    def earlier(seen):
        counts.update(seen, earlier=seen["films"])
        bar.n = bar.initial = seen["films"]
    if out:
        with put_up(out) as file: write_answers(detector, places, file, rule, tags, each, earlier)
    else: _print_answers(detector, places, rule, tags, each)
    return counts


# %%
#| export
@main.command()
@click.argument("bundle", metavar="BUNDLE")
@click.argument("places", metavar="FILES-OR-FOLDERS...", nargs=-1, required=True)
@click.option("--out", metavar="FILE",
              help="A file ending in .csv, .jsonl or .parquet; a folder with --workers or --scheduler. "
                   "Default: the screen.")
@click.option("--rule", default="sensitivity95", show_default=True, help="Whose threshold makes the call.")
@click.option("--maps", metavar="DIR", help="Also draw where each answer comes from, into DIR.")
@click.option("--method", default="occlusion", show_default=True, help="How --maps explains.")
@click.option("--tags", metavar="NAMES", help="DICOM tags to add, such as Modality,ViewPosition.")
@click.option("--workers", type=click.IntRange(1), metavar="N",
              help="Answer with N processes into a folder of Parquet files.")
@click.option("--scheduler", metavar="ADDRESS",
              help="The same with the workers of a Dask cluster, such as tcp://host:8786.")
def predict(bundle, places, out, rule, maps, method, tags, workers, scheduler):
    """Answer for films: probability, range, call, conformal set, and flags against believing it.

    BUNDLE is a file of `pneumo bundle`, or a run's folder. Films, BUNDLE and FILE may also be addresses, such
    as s3://bucket/films. An interrupted FILE is gone on with, unless it is at an address; a folder always is.
    Exit status 1 says that a film could not be read."""
    from tqdm import tqdm
    from pneumo_nb.detector import about, find_films
    if workers or scheduler:
        return _answer_with_workers(bundle, places, out, rule, maps, tags, workers, scheduler)
    if maps: _check_maps(maps, places)
    total = sum(1 for _ in find_films(places))
    if not total: raise StudyError("Expected films, found none in those folders; give others.")
    detector, names = _load_detector(bundle), tuple(tags.split(",")) if tags else ()
    said = about(detector, rule, names)
    draw = _write_maps(detector, maps, method) if maps else lambda rows: None
    with tqdm(total=total, unit=" films", disable=None) as bar:
        counts = _answer(detector, places, out, rule, names, draw, bar)
    click.echo(_summary(counts, said, out), err=True)
    if counts["unread"]: raise SystemExit(1)


# %%
#| export
def _check_asked(
    places: tuple, out: str | None, maps: str | None, workers: int | None, scheduler: str | None,
):
    "Refuse what several workers cannot do."
    from pneumo_nb.films import is_address
    if workers and scheduler: raise StudyError("Expected --workers or --scheduler, found both; give one.")
    if maps: raise StudyError("Expected no --maps with several workers, found it; draw maps of some films "
                              "without --workers and --scheduler.")
    if not out or Path(out).suffix in (".csv", ".jsonl") or Path(out).is_file(): raise StudyError(
        f"Expected a folder for the parts of the answers, found {out or 'no --out'}; give one, such as "
        "answers.parquet.")
    near = [place for place in (*places, out) if not (is_address(place) or os.path.isabs(place))]
    if scheduler and near: raise StudyError(
        f"Expected addresses or absolute paths with --scheduler, found {near[0]}; workers elsewhere are in "
        "another folder.")


# %%
#| export
def _answer_with_workers(bundle, places, out, rule, maps, tags, workers, scheduler):
    "Let several workers answer into a folder, and say what it came to."
    from tqdm import tqdm
    _check_asked(places, out, maps, workers, scheduler)
    from pneumo_nb.detector import bundle_at, find_films
    from pneumo_nb.many import answer_many, check_packages, make_plan
    check_packages()
    plan = make_plan(out, bundle_at(bundle), find_films(places), rule, tuple(tags.split(",")) if tags else ())
    counts = Counter()
    with tqdm(total=plan["films"], unit=" films", disable=None) as bar:
        def each(more):
            counts.update(more)
            bar.update(more["films"])
        answer_many(out, plan, workers or 1, scheduler or "", each)
    click.echo(_summary(counts, plan, out), err=True)
    if counts["unread"]: raise SystemExit(1)


# %%
for found, *asked in [("found both", "a", None, 2, "tcp://a:1"), ("found a.csv", "a.csv", None, 2, None),
                      ("found no --out", None, None, 2, None), ("Expected no --maps", "a", "maps", 2, None),
                      ("found films; workers elsewhere", "/a", None, None, "tcp://a:1")]:
    test_fail(lambda: _check_asked(("films",), *asked), contains=found)


# %%
#| export
def _summary(
    counts: Counter, # films, of these unread, flagged, and answered by an earlier call
    said: dict,      # from `about`
    out: str | None,
) -> str:
    "How many films got an answer, and what the answers are not."
    earlier = f" ({counts['earlier']:,} by an earlier call)" if counts["earlier"] else ""
    place = f"; see {out}" if out else ""
    return (f"{counted(counts['films'], 'film')}{earlier}: {counts['flagged']:,} flagged, "
            f"{counts['unread']:,} could not be read{place}. {said['title']}; "
            f"learned from {said['trained_on']}. {said['not']}")


# %%
about_it = {"title": "compact net", "trained_on": "films of a hospital", "not": "No medical device."}
test_eq(_summary(Counter(films=40, unread=1, flagged=3, earlier=32), about_it, "a.csv"),
        "40 films (32 by an earlier call): 3 flagged, 1 could not be read; see a.csv. compact net; "
        "learned from films of a hospital. No medical device.")


# %%
#| export
@main.command()
@click.argument("bundle", metavar="BUNDLE")
@click.option("--data", metavar="DIR", required=True,
              help="Films in NORMAL and PNEUMONIA, or a films.csv; a folder or its address.")
@click.option("--films", metavar="FILE", help="Table of own films. Default: films.csv in DIR, if any.")
@click.option("--out", metavar="DIR",
              help="Folder to write, or its address. Default: judged/NAME, after the films' folder.")
@click.option("--rule", default="sensitivity95", show_default=True, help="Whose threshold makes the call.")
def judge(bundle, data, films, out, rule):
    """Judge a detector as it is on the labelled films of another hospital; counts as a look.

    Writes a page and tables. BUNDLE is a file of `pneumo bundle`, or a run's folder."""
    detector = _load_detector(bundle)
    from pneumo_nb.judge import judge as judge_hospital
    from pneumo_nb.many import brought, put_up
    place = out or str(Path("judged")/Path(data).resolve().name)
    with brought(data, click.echo) as here, put_up(place) as folder:
        judge_hospital(detector, here, folder, films or "", rule)
    click.echo(f"Wrote {place.rstrip('/')}/index.html and its tables.\n"
               f"Detector {detector.digest[:12]}: {detector.card['not']}")


# %%
#| export
@main.command()
@click.argument("bundle", metavar="BUNDLE")
@click.option("--data", metavar="DIR", required=True, help="Labelled films, as for `pneumo judge`.")
@click.option("--films", metavar="FILE", help="Table of own films. Default: films.csv in DIR, if any.")
@click.option("--out", metavar="FILE", required=True, help="The new bundle.")
def recalibrate(bundle, data, films, out):
    """Adjust a detector's probabilities, thresholds and sets to a few labelled local films.

    The network stays. The new bundle remembers its parent. Too few films are refused."""
    if Path(out).exists(): raise StudyError(f"Expected no file yet at {out}, found one; give another --out.")
    detector = _load_detector(bundle)
    from pneumo_nb.detector import write_bundle
    from pneumo_nb.hospital import recalibrate as adjust
    changed = adjust(detector.bundle, data, films or "")
    digest, on = write_bundle(changed, out), changed.card["recalibrated_on"]
    lines = [f"{rule}: {changed.card['thresholds'][rule]:.3f} ({low:.3f} to {high:.3f})"
             for rule, (low, high) in on["threshold_intervals"].items()]
    click.echo(f"Wrote {out}, digest {digest[:12]}, parent {changed.card['parent'][:12]}, from "
               f"{counted(on['films'], 'film')} of {counted(on['patients'], 'patient')}.\n"
               f"Log odds: {on['intercept']:+.2f} + {on['slope']:.2f} × the detector's own.\n"
               f"Thresholds, with where other patients would have put them: {'; '.join(lines)}.\n"
               "Judge it on other films than these.")


# %% [markdown]
# The page to try a detector needs packages that the rest does not.

# %%
#| export
@main.command()
@click.argument("bundle", metavar="BUNDLE")
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Name or address to listen at. Where others can reach it, a token is needed.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535),
              help="0 for any that is free.")
@click.option("--token", metavar="WORD", envvar="PNEUMO_TOKEN",
              help="What every request must carry, or PNEUMO_TOKEN. Default: made and printed where needed.")
def serve(bundle, host, port, token):
    """Open a local page on which films can be dropped, with an API for programs.

    BUNDLE is a file that `pneumo bundle` made, or a run's folder."""
    try: from pneumo_nb.serve import serve as serve_page
    except ModuleNotFoundError as e: raise StudyError(
        f"Expected the packages of the page, found no {e.name}; "
        "install pneumo_nb with its extra serve.") from None
    detector = _load_detector(bundle)
    serve_page(detector, host, port, token, lambda address: click.echo(
        f"Open {address}\nNothing that is sent there is stored. Ctrl-C stops it."))


# %% [markdown]
# ### Tables

# %%
#| export
_WRITE = dict(metavar="FILE", help="Put the table between its markers in FILE instead of printing it.")


# %%
#| export
def _print_or_write(table: str, file: str | None, markers: tuple[str, str]):
    "Print a Markdown table, or put it between the markers of a file."
    from pneumo_nb.results import write_between
    click.echo(table if not file else f"Wrote the table into {write_between(Path(file), table, markers)}")


# %%
#| export
@main.command()
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@click.option("--write", **_WRITE)
@click.option("--add", is_flag=True,
              help="Keep what the table in FILE says of other runs, which need not be here.")
def results(names, write, add):
    "Print the results of one or more runs on the same films, beside published ones, as a Markdown table."
    from pneumo_nb.results import RESULTS_MARKERS, read_text, results_in, results_markdown
    if add and not (write and Path(write).is_file()): raise StudyError(
        f"Expected --write with a file whose table --add keeps, found {write or 'none'}; give both.")
    others = results_in(read_text(Path(write))) if add else None
    table = results_markdown([_existing_run(name) for name in names], others)
    _print_or_write(table, write, RESULTS_MARKERS)


# %%
#| export
@main.command()
@click.option("--write", metavar="FILE", required=True, help="The file with the summary's markers.")
@click.option("--findings", metavar="FILE",
              help="The file with the results table. Default: nbs/49_findings.py.")
def summary(write, findings):
    "Put some rows of the results table between the summary markers of a file, as its marker names them."
    from pneumo_nb.results import write_summary
    source = Path(findings) if findings else checkout_folder()/"nbs/49_findings.py"
    click.echo(f"Wrote the summary into {write_summary(Path(write), source)}")


# %%
#| export
@main.command()
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@click.option("--stage", metavar="NAME",
              help="The stage that it is about. Default: the one whose parameters differ between the runs.")
@click.option("--write", **_WRITE)
def ablation(names, stage, write):
    "Print what changes on the folds from the first run's recipe to the others', as a Markdown table."
    from pneumo_nb.results import ABLATION_MARKERS, ablation_markdown
    table = ablation_markdown([_existing_run(name) for name in names], stage)
    _print_or_write(table, write, ABLATION_MARKERS)


# %% [markdown]
# Every look at test films is a chance to tune to them, whichever run it belongs to. Looks that no ledger
# counted, since they were made elsewhere or before there was one, are entered by hand.

# %%
#| export
@main.command()
@click.argument("films", required=False)
@click.option("--add", "number", type=int, metavar="N",
              help="Enter N looks at FILMS that were made elsewhere, or before looks were counted.")
@click.option("--at", metavar="WORDS", help="With --add: what was looked at.")
@click.option("--on", metavar="DATE", help="With --add: when, such as 2025-11-25.")
def looks(films, number, at, on):
    """Print each look at test films, of all runs that share the cache.

    FILMS names some: a run, a folder of films, or how a fingerprint begins."""
    given = {"FILMS": films, "--add": number, "--at": at, "--on": on}
    missing = [name for name, value in given.items() if value is None]
    if missing and (number, at, on) != (None,) * 3: raise StudyError(
        f"Expected {', '.join(given)} together to enter looks, found no {', '.join(missing)}; give all four.")
    meant = _films_named(films) if films else None
    if number is not None: _enter_looks(films, meant, number, at, on)
    entries = [entry for entry in read_looks() if meant is None or entry["fingerprint"] in meant]
    if not entries: click.echo("No look at test films is known here.")
    for one in dict.fromkeys(entry["fingerprint"] for entry in entries):
        click.echo(_looks_at([entry for entry in entries if entry["fingerprint"] == one]))


# %%
#| export
def _films_named(name: str) -> dict[str, str]: # fingerprint → source
    "The films of a run, in a folder, or of which the ledger has a fingerprint that begins so."
    run = Path(name) if os.sep in name else Path("runs")/name
    if (run/"provenance.json").exists(): return _films_of_run(run)
    if Path(name).is_dir(): return _films_in_folder(name)
    return {entry["fingerprint"]: entry["source"] for entry in read_looks()
            if entry["fingerprint"].startswith(name)}


# %%
#| export
def _films_of_run(run: Path) -> dict[str, str]:
    "The films of a run."
    if not (run/"metrics/data.json").exists(): raise StudyError(
        f"Expected films in the run {run.name}, found none; do `pneumo run` first.")
    films = read_json(run/"metrics/data.json")
    return {films["fingerprint"]: films["source"]}


# %%
#| export
def _films_in_folder(folder: str) -> dict[str, str]:
    "The films in a folder."
    import warnings
    from pneumo_nb.films import data_fingerprint, scan_dataset
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is left out is `pneumo data check`'s to say
        return {data_fingerprint(scan_dataset(folder)): "folder"}


# %%
#| export
def _enter_looks(name: str, meant: dict[str, str], number: int, at: str, on: str): # from `_films_named`
    "Enter looks at one set of films."
    if len(meant) != 1: raise StudyError(
        f"Expected a run, a folder of films, or how one known fingerprint begins, found {name!r}, "
        f"which names {len(meant) or 'no'} sets of films; name one.")
    [(fingerprint, source)] = meant.items()
    enter_looks(dict(fingerprint=fingerprint, source=source), number, at, on)
    click.echo(f"Entered by hand: {counted(number, 'look')}.")


# %%
#| export
def _looks_at(entries: list[dict]) -> str:
    "The looks at one set of films in words; those that are alike on one line."
    first, line = entries[0], "  {time}  {run:<12} {stage:<12} {at}"
    lines = Counter(line.format(**entry | dict(run=entry["run"] or "–")) for entry in entries)
    head = f"{first['fingerprint']} ({first['source']}): {looks_by_runs(entries)}"
    return "\n".join([head, *(f"{line} ({n} times)" if n > 1 else line for line, n in lines.items())])


# %%
seen = dict(fingerprint="1ab", source="chest_xray", stage="evaluation", at="3 models", time="2025-11-25")
by_hand = seen | dict(run="", stage=BY_HAND, at="trials on another machine", time="2025-11-20")
print(_looks_at([by_hand, by_hand, seen | dict(run="best"), seen | dict(run="reference")]))


# %% [markdown]
# ### Films

# %%
#| export
@main.group(cls=Group)
def data():
    "Draw, list, check or fetch films."


# %%
#| export
@data.command()
@click.argument("folder", metavar="DIR")
@click.option("--train", "n_train", type=int, metavar="N",
              help="Films in train.  [default: 240 at hospital A, none elsewhere]")
@click.option("--test", "n_test", default=60, show_default=True, metavar="N", help="Films in test.")
@click.option("--seed", default=42, show_default=True, metavar="N")
@click.option("--hospital", default="A", show_default=True, metavar="NAME",
              help="A, or B: larger and softer films, other gray levels and markers, fewer sick, and other "
                   "children.")
@click.option("--format", "file_format", default="jpeg", show_default=True, metavar="NAME",
              help="jpeg, png or dicom.")
def phantom(folder, n_train, n_test, seed, hospital, file_format):
    """Draw a phantom set in DIR: a new folder, an empty one, or one with the same set.

    With train and test films it is a set for `pneumo run --data DIR`. Test films alone are what
    `pneumo judge` and `pneumo recalibrate` take as films of another hospital."""
    from pneumo_nb.phantom import make_dataset
    root = make_dataset(folder, n_train, n_test, seed, hospital=hospital, file_format=file_format)
    click.echo(f"Phantoms in {root}")


# %%
#| export
@data.command()
@click.argument("folder")
@click.option("--films", metavar="FILE", help="Table of own films. Default: films.csv in FOLDER, if any.")
def check(folder, films):
    """Report everything found wrong with a set; exit status 1 if films are damaged or splits leak.

    FOLDER may be an address, such as s3://bucket/films."""
    import warnings
    from pneumo_nb.films import check_dataset, scan_dataset
    from pneumo_nb.many import brought
    with warnings.catch_warnings(), brought(folder, click.echo) as here:
        warnings.simplefilter("ignore")  # what is left out is in the table
        images = scan_dataset(here, films or "")
        table = check_dataset(here, images)
    head = f"{len(images):,} readable films of {images.patient_id.nunique():,} patients"
    click.echo(f"{head}\n\n{table.to_string(index=False)}")
    serious = table[(table.films > 0) & table.serious].problem
    if len(serious): raise StudyError("Found: " + "; ".join(serious) + ".")


# %%
#| export
@data.command()
@click.argument("folder", metavar="DIR")
def template(folder):
    "Begin a table of own films, films.csv, with a row for each picture below DIR."
    from pneumo_nb.films import write_template
    file = write_template(folder)
    click.echo(f"Wrote {file}: fill in label (NORMAL or PNEUMONIA), and split, patient and kind as far as "
               f"they are known; then check it with `pneumo data check {folder}`.")


# %%
#| export
@data.command()
@click.argument("folder", default="data/chest_xray")
def fetch(folder):
    "Download the public set (1.2 GB) from Kaggle; continues a broken download."
    from pneumo_nb.films import fetch_dataset
    click.echo(f"Films in {fetch_dataset(folder)}")


# %%
#| export
@data.command()
def clean():
    "Remove the decoded films and features that all runs share; the next run makes them again."
    from pneumo_nb.cache import clean_cache
    click.echo(f"Removed {clean_cache() / 1e6:,.1f} MB from {cache_folder()}")


# %% [markdown]
# What a user sees:

# %%
cli = CliRunner()
print(cli.invoke(main, ["--help"], prog_name="pneumo").output)


# %%
def fails(*words):
    "The one sentence that a mistaken command ends with."
    result = cli.invoke(main, words)
    assert result.exit_code == 1 and result.output.count("\n") == 1, result.output
    print(result.output.strip().replace(folder, "…"))

with tempfile.TemporaryDirectory() as folder:
    fails("run", "--only", "cnm")
    fails("run", "--data", f"{folder}/nowhere")
    fails("run", "--run", f"{folder}/a", "-p", "cnn.epoch=3")
    fails("run", "--run", f"{folder}/a", "--only", "evaluation")
    fails("report", f"{folder}/monday")
