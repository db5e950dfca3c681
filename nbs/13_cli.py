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
# > `pneumo` runs the notebooks in order, with parameters, and picks up where it was stopped

# %%
#| default_exp cli

# %%
#| export
import os, sys, time
from fnmatch import fnmatch
from contextlib import contextmanager
from pathlib import Path

import click
import yaml

from pneumo_nb.run import STAGES, StudyError, atomic_path, load_params, read_json, read_provenance, resolve_params, stale_reason, write_json
from pneumo_nb.pages import project_folder

# %%
#| hide
import io, tempfile
from fastcore.test import test_eq, test_fail


# %% [markdown]
# The notebooks are the study; the command runs them. [papermill](https://papermill.readthedocs.io) executes each with
# its parameters and keeps the executed copy in the run directory. Everything heavy is imported when it is needed, so
# that `pneumo --help` answers at once.
#
# ## What notebooks declare
#
# What a notebook declares in its tagged cell is all that can be asked of it. papermill reads it; without the tag it
# would only warn and run the defaults, so a missing cell is an error here.

# %%
#| export
def declared_parameters(
    notebook: Path,
) -> dict: # name → default; run_dir, which the command fills in, left out
    "What a notebook's parameters cell declares."
    import ast, papermill
    found = papermill.inspect_notebook(str(notebook))
    if not found: raise StudyError(f"Expected a cell tagged `parameters` in {notebook.name}, found none.")
    return {name: ast.literal_eval(facts["default"]) for name, facts in found.items() if name != "run_dir"}


# %%
nbs = project_folder()/"nbs"
known = {stage: declared_parameters(nbs/f"{s['notebook']}.ipynb") for stage, s in STAGES.items()}
known["cnn"]


# %% [markdown]
# ## What was asked
#
# A parameter file, single values on top (`-p cnn.epochs=3`), and a data folder make the parameters of all stages. An
# existing run keeps its own parameters unless a file is given, so that one stage can be redone without repeating the
# rest of the command.

# %%
#| export
def parse_override(text: str) -> tuple[str, str, object]: # section, name, value
    "`cnn.epochs=3` in its parts, the value read as YAML."
    key, equals, value = text.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and section and name): raise StudyError(f"Expected -p SECTION.NAME=VALUE, such as cnn.epochs=3, found {text!r}.")
    try: return section, name, yaml.safe_load(value)
    except yaml.YAMLError: raise StudyError(f"Expected a YAML value such as 3, 1e-4 or [a, b] in -p {text!r}.") from None

def asked_parameters(
    folder: Path,        # the run directory, which may not exist yet
    file: str | None,    # parameter file
    overrides: list[str],
    data: str | None,    # folder with films
    known: dict[str, dict],
) -> tuple[dict[str, dict], list[str], str]: # stage → parameters; the stages to run; where both came from
    "The parameters of every stage."
    kept = folder/"params.yaml"
    source = Path(file) if file else kept if kept.exists() else project_folder()/"params/quick.yaml"
    sections, stages = load_params(source)
    sections = {k: dict(v) for k, v in sections.items()}
    if source == kept: sections = drop_undeclared(sections, known)
    for section, name, value in sorted(map(parse_override, overrides), key=lambda o: o[0] != "common"):
        sections.setdefault(section, {})[name] = value
        if section == "common":  # what is asked now wins over what a file says of single stages
            for stage in known: sections.get(stage, {}).pop(name, None)
    if data is not None: sections.setdefault("data", {})["data_dir"] = data
    params = resolve_params({k: {n: numeric(v) for n, v in s.items()} for k, s in sections.items()}, known)
    if folder := params["data"]["data_dir"]: params["data"]["data_dir"] = str(Path(folder).expanduser().resolve())
    if (weights := params["resnet"]["weights"]) not in ("imagenet", "none"): params["resnet"]["weights"] = str(Path(weights).expanduser().resolve())
    return params, stages, str(source)


# %%
#| export
def drop_undeclared(sections: dict[str, dict], known: dict[str, dict]) -> dict[str, dict]:
    "A run's kept parameters without those that its notebooks, which may be newer, declare no more."
    for stage, name in [(s, n) for s, params in sections.items() for n in params if n not in known.get(s, {})]:
        click.echo(f"Note: this run's params.yaml holds {stage}.{name}, which no notebook declares any more; it is left out.")
    return {s: {n: v for n, v in params.items() if n in known[s]} for s, params in sections.items() if s in known}

def numeric(value):
    "YAML 1.1 reads 1e-4 as text; here it is a number."
    if not isinstance(value, str) or not value.lstrip("+-")[:1].isdigit() or "e" not in value.lower(): return value
    try: return float(value)
    except ValueError: return value


# %%
test_eq(parse_override("cnn.epochs=3"), ("cnn", "epochs", 3))
test_eq(numeric("1e-4"), 1e-4); test_eq(numeric("-1e-4"), -1e-4); test_eq(numeric("1einer"), "1einer")
test_fail(lambda: parse_override("epochs=3"), contains="such as cnn.epochs=3")
params, stages, source = asked_parameters(Path("no_run"), None, ["cnn.epochs=9"], None, known)
test_eq((params["cnn"]["epochs"], stages, Path(source).name), (9, list(STAGES), "quick.yaml"))
test_eq(asked_parameters(Path("no_run"), project_folder()/"params/best.yaml", [], None, known)[1], ["data", "eda", "compact", "evaluation", "xai"])
test_fail(lambda: asked_parameters(Path("no_run"), None, ["cnn.epoch=9"], None, known), contains="known in cnn: batch_size, epochs")


# %% [markdown]
# ## One stage
#
# papermill writes the executed notebook beside its final name. The notebook itself records its provenance when it is
# done. If it fails, what it showed so far is kept as `NN_name.failed.ipynb`, and the reason is one sentence.

# %%
#| export
class EpochLines:
    "Passes a notebook's epoch lines on to the terminal."
    def __init__(self, out): self.out, self.rest = out, ""
    def write(self, text: str):
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            if line.startswith(("epoch ", "Note: ", "Member ")) or "continues after" in line: self.out.write(f"      {line}\n")
    def flush(self): self.out.flush()

@contextmanager
def stderr_to(file: Path):
    "Send this process's and its kernels' standard error to a file: TensorFlow writes there before anyone can stop it."
    file.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(file, "w") as log: os.dup2(log.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


# %%
#| export
def execute_notebook(
    notebook: Path,
    kept: Path,   # where the executed copy goes
    params: dict,
    log: Path,    # takes the kernel's standard error
):
    "Execute a notebook; what it showed until it failed is kept beside its place."
    import papermill
    from papermill.exceptions import PapermillExecutionError
    failed, name = kept.with_suffix(".failed.ipynb"), kept.stem
    failed.unlink(missing_ok=True)
    try:
        with atomic_path(kept) as partial:
            try:
                with stderr_to(log): papermill.execute_notebook(str(notebook), str(partial), params, cwd=str(notebook.parent),
                                                                kernel_name="python3", progress_bar=False, stdout_file=EpochLines(sys.stdout))
            except PapermillExecutionError:
                os.replace(partial, failed)
                raise
    except PapermillExecutionError as e:
        reason = e.evalue if e.ename == "StudyError" else f"{e.ename}: {e.evalue}"
        raise StudyError(f"{name} failed: {reason} (what it showed until then: {failed})") from None
    except RuntimeError as e:  # the kernel itself died, for want of memory perhaps
        raise StudyError(f"{name} failed: {e}; its last words are in {log}.") from None

def execute_stage(
    name: str,    # a key of STAGES
    params: dict,
    folder: Path, # the run directory
    nbs: Path,
):
    "Execute one stage's notebook into the run directory."
    file = f"{STAGES[name]['notebook']}.ipynb"
    execute_notebook(nbs/file, folder/"notebooks"/file, params | dict(run_dir=str(folder)), folder/".kernel.log")


# %%
lines = EpochLines(io.StringIO())
lines.write("No run\nepoch  1/3  loss"); lines.write(" .5\n")
test_eq(lines.out.getvalue(), "      epoch  1/3  loss .5\n")


# %% [markdown]
# ## The run
#
# Stages run in the study's order. Each is skipped when nothing that it depends on has changed. With `--only`, a stage
# must find what it reads: an earlier stage that has not been done, or was done with other parameters, is an error
# rather than a quick phantom in its place.

# %%
#| export
def check_upstream(
    folder: Path,
    chosen: list[str],       # stages to run
    params: dict[str, dict],
):
    "Refuse to run a stage on earlier ones that are missing or out of date."
    done = read_provenance(folder)["stages"]
    for stage in chosen:
        for other in (s for s in STAGES if s not in chosen and feeds(s, stage)):
            if other in done and (why := stale_reason(folder, other, params[other])): raise StudyError(
                f"{stage} builds on {other}, which is out of date ({why}); add {other} to --only, or leave --only out.")
            if other not in done and other in ("data", "preprocessing"): raise StudyError(
                f"{stage} builds on {other}, which has not been run in {folder.name}; add {other} to --only, or leave --only out.")
        models = ("mlp", "cnn", "resnet", "compact")
        if stage in ("evaluation", "xai") and not any(m in done or m in chosen for m in models): raise StudyError(
            f"{stage} needs at least one of {', '.join(models)}, and none has been run in {folder.name}; add one to --only.")

def feeds(stage: str, other: str) -> bool:
    "Whether `other` reads what `stage` writes."
    return any(fnmatch(w, r) for w in STAGES[stage]["writes"] for r in STAGES[other]["reads"])


# %%
#| export
def run_stages(
    folder: Path,
    chosen: list[str],
    params: dict[str, dict],
    fresh: bool, # run them even if nothing has changed
):
    "Run the chosen stages in order, skipping what is up to date."
    nbs = project_folder()/"nbs"
    for number, name in enumerate(chosen, 1):
        why = "asked to start afresh" if fresh else stale_reason(folder, name, params[name])
        if not why and not (folder/"notebooks"/f"{STAGES[name]['notebook']}.ipynb").exists(): why = "its executed notebook is missing"
        head = f"[{number}/{len(chosen)}] {name:<14}"
        if not why:
            click.echo(f"{head} unchanged, skipped")
            continue
        click.echo(f"{head} {why} …")
        if fresh: forget_stage(folder, name)
        start = time.time()
        execute_stage(name, params[name], folder, nbs)
        record = read_provenance(folder)["stages"][name]
        peak = f", {record['peak_memory_mb']:,} MB at most" if record["peak_memory_mb"] else ""
        click.echo(f"{' ' * len(head)} done in {time.time() - start:.1f} s{peak}")


# %%
#| export
def forget_stage(folder: Path, name: str):
    "Drop a stage's record and whatever an interrupted training left."
    import shutil
    provenance = read_provenance(folder)
    if provenance["stages"].pop(name, None): write_json(folder/"provenance.json", provenance)
    shutil.rmtree(folder/f".scratch-{name}", ignore_errors=True)

def clear_partial(folder: Path):
    "Remove half-written files that a killed process left; the caller holds the run's lock."
    import shutil
    places = [folder, *(folder/p for p in ("cache", "models", "history", "predictions", "predictions/members", "metrics", "figures", "notebooks", "site")), *folder.glob(".scratch-*/*")]
    for debris in (d for place in places for d in place.glob(".partial-[0-9]*-*")):
        shutil.rmtree(debris) if debris.is_dir() else debris.unlink(missing_ok=True)

def run_folder(name: str) -> Path: # absolute
    "`runs/NAME` here, or the folder itself if a path is given; refused if it is something else than a run."
    if not name.strip() or Path(name).name in ("", ".", "..") or set(name) & set("{}"):
        raise StudyError(f"Expected a name such as monday for --run (without braces), found {name!r}.")
    folder = (Path(name) if os.sep in name else Path("runs")/name).resolve()
    marks = ("params.yaml", "provenance.json", ".lock")
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or any((folder/m).exists() for m in marks))):
        raise StudyError(f"Expected a run or an empty folder at {folder}, found other files; choose another --run.")
    return folder


# %% [markdown]
# ## Commands

# %%
#| export
class Group(click.Group):
    "Commands that end a `StudyError`, or a file that cannot be used, with one sentence and exit status 1."
    def __init__(self, *words, **options):
        super().__init__(*words, **options)
        self.__wrapped__ = self.callback  # documentation shows the function

    def invoke(self, ctx):
        try: return super().invoke(ctx)
        except StudyError as e: raise click.ClickException(str(e)) from None
        except OSError as e: raise click.ClickException(f"Could not use {e.filename or 'a file'}: {e.strerror or e}.") from None

class Command(click.Command):
    "A command whose documentation is that of its function."
    def __init__(self, *words, **options):
        super().__init__(*words, **options)
        self.__wrapped__ = self.callback

Group.command_class = Command

@click.group(cls=Group, context_settings=dict(help_option_names=["-h", "--help"], max_content_width=110))
def main():
    "Pneumonia detection from chest X-rays: a reproducible study."
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a debugger's warning in every kernel


# %%
#| export
@main.command()
@click.option("-f", "file", metavar="FILE", help="Parameter file. Default: the run's own, or params/quick.yaml for a new run.")
@click.option("-p", "overrides", multiple=True, metavar="STAGE.NAME=VALUE", help="One parameter, such as cnn.epochs=3; repeatable.")
@click.option("--data", metavar="DIR", help="Folder with train/ and test/. Default: draw phantoms.")
@click.option("--run", "name", metavar="NAME", help="Name of the run, in runs/. Default: the parameter file's name.")
@click.option("--only", metavar="STAGES", help=f"Comma-separated, of: {', '.join(STAGES)}. Default: the parameter file's, or all.")
@click.option("--fresh", is_flag=True, help="Run stages even if nothing has changed.")
def run(file, overrides, data, name, only, fresh):
    "Run the study, or take up a run where it stopped."
    from filelock import FileLock, Timeout
    chosen = [s.strip() for s in only.split(",") if s.strip()] if only is not None else list(STAGES)
    if not chosen or (wrong := [s for s in chosen if s not in STAGES]):
        raise StudyError(f"Expected stages among {', '.join(STAGES)} for --only, found {', '.join(wrong) if chosen else 'none'}.")
    folder, nbs = run_folder(name if name is not None else Path(file).stem if file else "quick"), project_folder()/"nbs"
    known = {stage: declared_parameters(nbs/f"{s['notebook']}.ipynb") for stage, s in STAGES.items()}
    params, stages, source = asked_parameters(folder, file, overrides, data, known)
    chosen = stages if only is None else [s for s in STAGES if s in chosen]
    if "data" in chosen and params["data"]["data_dir"]: check_folder(params["data"]["data_dir"])
    check_upstream(folder, chosen, params)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder/".lock", timeout=0):
            clear_partial(folder)
            with atomic_path(folder/"params.yaml") as partial: partial.write_text(yaml.safe_dump(dict(stages=stages) | params, sort_keys=False), encoding="utf-8")
            click.echo(f"Run {folder.name} in {folder}, parameters from {source}")
            run_stages(folder, chosen, params, fresh)
    except Timeout: raise StudyError(f"Another process is working on the run {folder.name}; wait for it, or choose another --run.") from None

def check_folder(data: str):
    "Refuse a wrong data folder before anything is started."
    from pneumo_nb.data import check_layout
    check_layout(data)


# %%
#| export
@main.command()
@click.argument("name", metavar="RUN")
def report(name):
    "Make a run's report: a site in the run's folder, and the list of all runs beside it."
    from pneumo_nb.report import render_report
    index, by = render_report(existing_run(name))
    click.echo(f"Rendered by {by}. Open {index.as_uri()}")

@main.command()
@click.argument("name", metavar="RUN")
def docs(name):
    "Make the documentation, in _docs/, with the chapters of a run on phantoms."
    from pneumo_nb.report import render_docs
    folder, project = existing_run(name), project_folder()
    if read_json(folder/"metrics/data.json")["source"] != "phantoms": raise StudyError(f"Expected a run on phantoms for the documentation, found one on other films in {folder}.")
    chapters, stages = sorted((project/"nbs").glob("[0-9]*.ipynb")), {s["notebook"] for s in STAGES.values()}
    for file in (f for f in chapters if f.stem not in stages):
        click.echo(f"executing {file.stem}")
        execute_notebook(file, folder/"notebooks"/file.name, {}, folder/".kernel.log")
    with stderr_to(folder/".docs.log"): index, by = render_docs([folder/"notebooks"/f.name for f in chapters], project/"_docs")
    click.echo(f"Rendered by {by}. Open {index.as_uri()}")

@main.command()
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@click.option("--write", metavar="FILE", help="Put the table between the results markers of FILE instead of printing it.")
@click.option("--add", is_flag=True, help="Keep what the table in FILE says of other runs, which need not be here.")
def results(names, write, add):
    "Print the results of one or more runs on the same films, beside published ones, as a Markdown table."
    from pneumo_nb.report import MARKERS, results_in, results_markdown
    if add and not (write and Path(write).is_file()): raise StudyError(f"Expected --write with a file whose table --add keeps, found {write or 'none'}; give both.")
    others = results_in(Path(write).read_text(encoding="utf-8")) if add else None
    print_or_write(results_markdown([existing_run(name) for name in names], others), write, MARKERS)


# %%
#| export
@main.command()
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@click.option("--write", metavar="FILE", help="Put the table between the ablation markers of FILE instead of printing it.")
def ablation(names, write):
    "Print what changes from the first run's recipe to those of the others, as a Markdown table."
    from pneumo_nb.report import ABLATION_MARKERS, ablation_markdown
    print_or_write(ablation_markdown([existing_run(name) for name in names]), write, ABLATION_MARKERS)

def print_or_write(table: str, file: str | None, markers: tuple[str, str]):
    "Print a Markdown table, or put it between the markers of a file."
    from pneumo_nb.report import write_between
    click.echo(table if not file else f"Wrote the table into {write_between(Path(file), table, markers)}")

def existing_run(name: str) -> Path:
    "The folder of a run that exists."
    folder = run_folder(name)
    if (folder/"provenance.json").exists(): return folder
    there = sorted(p.parent.name for p in Path("runs").glob("*/provenance.json"))
    raise StudyError(f"Expected a run in {folder}, found none; " + (f"there are: {', '.join(there)}." if there else "do `pneumo run` first."))


# %%
#| export
@main.group(cls=Group)
def data():
    "Draw, check or fetch films."

@data.command()
@click.argument("folder")
@click.option("--train", "n_train", default=240, show_default=True, help="Films in train.")
@click.option("--test", "n_test", default=60, show_default=True, help="Films in test.")
@click.option("--seed", default=42, show_default=True)
def phantom(folder, n_train, n_test, seed):
    "Draw a phantom set."
    from pneumo_nb.phantom import make_dataset
    click.echo(f"Phantoms in {make_dataset(folder, n_train, n_test, seed)}")

@data.command()
@click.argument("folder")
def check(folder):
    "Report everything found wrong with a set; exit status 1 if films are damaged or splits leak."
    import warnings
    from pneumo_nb.data import check_dataset, scan_dataset
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is left out is in the table
        images = scan_dataset(folder)
        table = check_dataset(folder, images)
    click.echo(f"{len(images):,} readable films of {images.patient_id.nunique():,} patients\n\n{table.to_string(index=False)}")
    if bad := table[(table.films > 0) & table.serious].problem.tolist(): raise StudyError("Found: " + "; ".join(bad) + ".")

@data.command()
@click.argument("folder", default="data/chest_xray")
def fetch(folder):
    "Download the public set (1.2 GB) from Kaggle; continues a broken download."
    from pneumo_nb.data import fetch_dataset
    click.echo(f"Films in {fetch_dataset(folder)}")

@data.command()
def clean():
    "Remove the decoded films and features that all runs share; the next run makes them again."
    from pneumo_nb.preprocessing import cache_folder, clean_cache
    click.echo(f"Removed {clean_cache() / 1e6:,.1f} MB from {cache_folder()}")


# %% [markdown]
# What a user sees:

# %%
from click.testing import CliRunner
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
