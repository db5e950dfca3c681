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
# # Execution
#
# > Notebooks run in order by papermill, each skipped where nothing has changed

# %%
#| default_exp execution

# %%
#| export
import os, shutil, sys, tempfile, time
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import yaml

from pneumo_nb.run import (
    RUN_MARK, Declaration, StudyError, atomic_path, devices, file_digest, project_folder, read_provenance,
    stages, stale_reason, threads, write_json)

# %%
#| hide
import io
from unittest import mock
from fastcore.test import test_eq, test_fail


# %% [markdown]
# The notebooks are the study; this runs them. [papermill](https://papermill.readthedocs.io) executes each
# with its parameters and keeps the executed copy in the run directory.
#
# ## One notebook
#
# While a notebook runs, its lines on epochs and its notes pass on to the terminal.

# %%
#| export
class _EpochLines:
    "Passes a notebook's epoch lines on to the terminal."
    def __init__(self, out): self.out, self.rest = out, ""
    def flush(self): self.out.flush()

    def write(self, text: str):
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            is_told = any(words in line for words in ("continues after", ": Note: "))  # a worker's note
            if is_told or line.startswith(("epoch ", "Note: ", "Member ")):
                self.out.write(f"      {line}\n")


# %%
lines = _EpochLines(io.StringIO())
lines.write("No run\nepoch  1/3  loss")
lines.write(" .5\n")
test_eq(lines.out.getvalue(), "      epoch  1/3  loss .5\n")


# %% [markdown]
# TensorFlow writes to standard error before anyone can stop it, so that goes to a file.

# %%
#| export
@contextmanager
def stderr_to(file: Path):
    "Send this process's and its kernels' standard error to a file."
    file.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(file, "w") as log: os.dup2(log.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


# %% [markdown]
# ### In this Python
#
# Jupyter looks for a kernel named `python3` in many folders, and another program may have left one there that
# runs another Python, without this package. A notebook of the study runs in the interpreter that runs this
# line. Kernel and command talk over sockets in a folder of their own rather than over ports, which two runs
# begun together might both take. Where the system has no such sockets, or the folder's name is too long for
# one, ports must do.

# %%
#| export
def _own_kernel(
    place: Path, # an empty folder
): # a class, for nbclient
    "A kernel of this very interpreter, whatever kernels Jupyter finds."
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = KernelSpec(argv=command, language="python", display_name="python3")
    talk = dict(connection_file=str(place/"kernel.json"))
    if os.name == "posix" and len(str(place)) < 90: talk |= dict(transport="ipc", ip=str(place/"k"))

    class OwnKernel(AsyncKernelManager):
        kernel_spec = property(lambda self: spec)
        def __init__(self, **options): super().__init__(**options | talk)
    return OwnKernel


# %%
with mock.patch.dict(os.environ, JUPYTER_PATH="/of/another"):
    manager = _own_kernel(Path("/tmp/place"))(kernel_name="python3")
test_eq((manager.kernel_spec.argv[0], manager.transport, manager.ip), (sys.executable, "ipc", "/tmp/place/k"))


# %% [markdown]
# In that folder a kernel also keeps what IPython would write into the home folder. What the user has IPython
# do at its start stays out of the study that way.

# %%
#| export
def _clear_places(
    folder: Path, # for temporary files
):
    "Remove the folders of kernels whose command was killed: its number, in their names, is of no process."
    from psutil import pid_exists
    for place in folder.glob("pneumo-[0-9]*-*"):
        if not pid_exists(int(place.name.split("-")[1])): shutil.rmtree(place, ignore_errors=True)


# %%
with tempfile.TemporaryDirectory() as folder:
    names = f"pneumo-{os.getpid()}-a", f"pneumo-{2 ** 30}-a"
    for name in names: (Path(folder)/name).mkdir()
    _clear_places(Path(folder))
    test_eq(os.listdir(folder), [names[0]])


# %%
#| export
@contextmanager
def _kernel_place(): # yields a Path
    "An empty folder for one kernel, gone afterwards."
    before = dict(os.environ)
    _clear_places(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=f"pneumo-{os.getpid()}-", ignore_cleanup_errors=True) as place:
        os.environ.update(IPYTHONDIR=place, JUPYTER_RUNTIME_DIR=place)
        try: yield Path(place)
        finally:
            os.environ.clear()
            os.environ.update(before)


# %%
with _kernel_place() as place: test_eq(os.environ["IPYTHONDIR"], str(place))
assert not place.exists() and os.environ.get("IPYTHONDIR") != str(place)

# %% [markdown]
# Other libraries keep something at home, too. Where that cannot be written, the cache takes it.

# %%
#| export
_AT_HOME = dict(MPLCONFIGDIR="matplotlib", KERAS_HOME="keras", JUPYTER_CONFIG_DIR="jupyter",
                JUPYTER_DATA_DIR="jupyter")

def places_to_write(
    cache: Path, # a folder that can be written
):
    "Point libraries to the cache if the home folder cannot be written."
    try: tempfile.TemporaryFile(dir=Path.home()).close()
    except (OSError, RuntimeError):  # RuntimeError: there is no home at all
        for variable, name in _AT_HOME.items(): os.environ.setdefault(variable, str(cache/"home"/name))


# %%
with tempfile.TemporaryDirectory() as cache:
    with mock.patch.dict(os.environ, HOME="/proc"):
        places_to_write(Path(cache))
        test_eq(os.environ["KERAS_HOME"], f"{cache}/home/keras")


# %% [markdown]
# ### Executed, or as far as it came
#
# papermill writes the executed notebook beside its final name. The notebook itself records its provenance
# when it is done. If it fails, what it showed so far is kept as `NN_name.failed.ipynb`, and the reason is one
# sentence. papermill takes braces in the names of files for parameters to fill in, so they are doubled.

# %%
#| export
def execute_notebook(
    notebook: Path,
    kept: Path,   # where the executed copy goes
    params: dict,
    log: Path,    # takes the kernel's standard error
):
    "Execute a notebook; what it showed until it failed is kept beside its place."
    from papermill.exceptions import PapermillExecutionError
    failed = kept.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    try: _once_more(lambda: _execute(notebook, kept, failed, params, log), log)
    except PapermillExecutionError as e:
        if e.ename == "KeyboardInterrupt": raise KeyboardInterrupt from None
        reason = e.evalue if e.ename == "StudyError" else f"{e.ename}: {e.evalue}"
        raise StudyError(f"{kept.stem} failed: {reason} (what it showed until then: {failed})") from None
    except RuntimeError as e:  # the kernel itself died, for want of memory perhaps
        raise StudyError(f"{kept.stem} failed: {e}; its last words are in {log}.") from None


# %% [markdown]
# Where kernels talk over ports, another run may have taken one of them first. A second kernel gets others.

# %%
#| export
def _once_more(
    execute,   # function without arguments
    log: Path, # what a kernel that dies says
):
    "Call a function, and once more if its kernel died for want of a port."
    try: return execute()
    except RuntimeError:
        if "Address already in use" not in log.read_text(errors="replace"): raise
    execute()


# %%
def die(words, log):
    with open(log, "a") as last: last.write(words)
    raise RuntimeError("Kernel died")

with tempfile.TemporaryDirectory() as folder:
    for words, times in (("ZMQError: Address already in use\n", 2), ("Killed\n", 1)):
        log = Path(folder)/f"{times}.log"
        test_fail(lambda: _once_more(lambda: die(words, log), log), contains="Kernel died")
        test_eq(log.read_text(), words * times)


# %%
#| export
def _execute(notebook: Path, kept: Path, failed: Path, params: dict, log: Path):
    "Let papermill execute a notebook into `kept`, or as far as it came into `failed`."
    import papermill
    from papermill.exceptions import PapermillExecutionError
    options = dict(cwd=str(notebook.parent), kernel_name="python3", progress_bar=False,
                   stdout_file=_EpochLines(sys.stdout))
    with atomic_path(kept) as partial, _kernel_place() as place:
        files = (str(file).replace("{", "{{").replace("}", "}}") for file in (notebook, partial))
        try:
            with stderr_to(log):
                papermill.execute_notebook(*files, params, kernel_manager_class=_own_kernel(place), **options)
        except PapermillExecutionError:
            os.replace(partial, failed)
            raise


# %% [markdown]
# ## Which stages can run
#
# With `--only`, a stage must find what it reads. An earlier stage that was done with other parameters is an
# error, rather than a quick phantom in its place. So is one that is missing, where the later stage cannot do
# without.

# %%
#| export
_NEEDED = ("data", "preprocessing")  # whoever reads these must find them; for others there is a stand-in


# %%
#| export
def check_upstream(
    folder: Path,
    chosen: list[str],       # stages to run
    params: dict[str, dict],
):
    "Refuse to run a stage on earlier ones that are missing or out of date."
    done = read_provenance(folder)["stages"]
    for name in chosen:
        for other in _upstream(name):
            if other.name in chosen: continue
            advice = f"add {other.name} to --only, or leave --only out."
            if other.name not in done and other.name in _NEEDED: raise StudyError(
                f"{name} builds on {other.name}, which has not been run in {folder.name}; {advice}")
            why = stale_reason(folder, other.name, params[other.name]) if other.name in done else ""
            if why: raise StudyError(f"{name} builds on {other.name}, which is out of date ({why}); {advice}")
        _check_models(folder, name, {*chosen, *done})
        _check_shared(folder, name, {*chosen, *done})


# %%
#| export
def _upstream(name: str) -> list[Declaration]:
    "The stages that write what a stage reads."
    feeds = lambda other: any(fnmatch(w, r) for w in other.outputs for r in stages()[name].reads)
    return [other for other in stages().values() if other.name != name and feeds(other)]


# %%
#| export
def _check_models(folder: Path, name: str, there: set[str]):
    "Refuse a stage that judges predictions where no stage makes any."
    training = [stage.name for stage in stages().values() if stage.models]
    judges = "predictions/*.csv" in stages()[name].reads
    if judges and not there & {*training}: raise StudyError(
        f"{name} needs at least one of {', '.join(training)}, and none has been run in {folder.name}; "
        "add one to --only.")

def _check_shared(folder: Path, name: str, there: set[str]):
    "Refuse a stage that reads of several others where fewer of them are there than it needs."
    shared, least = stages()[name].reads_of, stages()[name].at_least
    others = [other for other in stages() if shared and stages()[other].ranges_of == shared]
    known = [other for other in others if other in there]
    if others and len(known) < least: raise StudyError(
        f"{name} needs at least {least} of {', '.join(others)}, found {', '.join(known) or 'none'} in "
        f"{folder.name}; add another to --only, or leave {name} out.")


# %%
assert {"data"} <= {stage.name for stage in _upstream("eda")}
with tempfile.TemporaryDirectory() as folder:
    test_fail(lambda: check_upstream(Path(folder), ["eda"], {}), contains="eda builds on data")
    test_fail(lambda: check_upstream(Path(folder), ["data", "evaluation"], {}), contains="at least one of")
    together = next(name for name, stage in stages().items() if stage.at_least > 1)
    test_fail(lambda: check_upstream(Path(folder), ["data", together], {}), contains="at least 2 of")


# %% [markdown]
# ## A run
#
# Stages run in the study's order. Each is skipped when nothing that it depends on has changed. The numbers of
# threads and devices are not among these things, though they change the numbers a little. So whoever goes on
# with other ones is told.

# %%
#| export
def _others_note(
    name: str,     # "threads" or "devices"
    before: set,   # how many there were
    now: int,
) -> str: # "" where there is nothing to say
    "That earlier stages of a run used another number of something."
    others = ", ".join(map(str, sorted(before - {now})))
    return others and (f"Note: stages of this run were done with PNEUMO_{name.upper()}={others}, and now it "
                       f"is {now}; the same numbers need the same number of {name}.")

def _machine_note(
    machines: list[dict], # of the stages that are done; older records hold no threads or no devices
) -> str: # lines; "" where there is nothing to say
    "That earlier stages of a run used other numbers of threads or devices."
    of_threads = _others_note("threads", {m.get("threads", threads()) for m in machines}, threads())
    of_devices = _others_note("devices", {m.get("devices", 1) for m in machines}, devices())
    return "\n".join(filter(None, (of_threads, of_devices)))


# %%
with mock.patch.dict(os.environ, PNEUMO_THREADS="3"):
    test_eq(_machine_note([dict(threads=3), dict(cores=2)]), "")
    print(_machine_note([dict(threads=3), dict(threads=2, devices=4)]))


# %%
#| export
def run_stages(
    folder: Path,
    chosen: list[str],
    params: dict[str, dict],
    fresh: bool, # run them even if nothing has changed
):
    "Run the chosen stages in order, skipping what is up to date."
    said = _machine_note([record["machine"] for record in read_provenance(folder)["stages"].values()])
    for number, name in enumerate(chosen, 1):
        head = f"[{number}/{len(chosen)}] {name:<14}"
        if why := _why_run(folder, name, params[name], fresh):
            if said: print(said)
            said = ""
            print(f"{head} {why} …", flush=True)
            if fresh: _forget_stage(folder, name)
            print(f"{' ' * len(head)} {_execute_stage(folder, name, params[name])}", flush=True)
        else: print(f"{head} unchanged, skipped", flush=True)


# %%
#| export
def _why_run(folder: Path, name: str, params: dict, fresh: bool) -> str: # "" where the stage can be skipped
    "Why a stage runs."
    if fresh: return "asked to start afresh"
    if why := stale_reason(folder, name, params): return why
    executed = folder/"notebooks"/f"{stages()[name].notebook}.ipynb"
    return "" if executed.exists() else "its executed notebook is missing"


# %%
#| export
def _execute_stage(folder: Path, name: str, params: dict) -> str: # what it took
    "Execute one stage's notebook into the run directory."
    start, file = time.time(), f"{stages()[name].notebook}.ipynb"
    params, kept = params | dict(run_dir=str(folder)), folder/"notebooks"/file
    execute_notebook(project_folder()/"nbs"/file, kept, params, folder/".kernel.log")
    provenance = read_provenance(folder)
    record = provenance["stages"][name]
    record["notebook"] = file_digest(kept)  # a report shows none that was changed since
    write_json(folder/"provenance.json", provenance)
    peak = record["peak_memory_mb"]
    return f"done in {time.time() - start:.1f} s" + (f", {peak:,} MB at most" if peak else "")


# %%
#| export
def _forget_stage(folder: Path, name: str):
    "Drop a stage's record and whatever an interrupted training left."
    provenance = read_provenance(folder)
    if provenance["stages"].pop(name, None): write_json(folder/"provenance.json", provenance)
    shutil.rmtree(folder/f".scratch-{name}", ignore_errors=True)

_PLACES = ("cache", "models", "history", "predictions", "members", "metrics", "figures", "notebooks", "site")

def clear_partial(folder: Path):
    "Remove half-written files that a killed process left; the caller holds the run's lock."
    places = [folder, *(folder/place for place in _PLACES), *folder.glob(".scratch-*/*")]
    for debris in [file for place in places for file in place.glob(".partial-[0-9]*-*")]:
        if debris.is_dir(): shutil.rmtree(debris)
        else: debris.unlink(missing_ok=True)


# %%
with tempfile.TemporaryDirectory() as folder:
    for name in (".partial-7-images.csv", "models/.partial-7-cnn.keras", "mine.txt"):
        (Path(folder)/name).parent.mkdir(exist_ok=True)
        (Path(folder)/name).write_text("half")
    clear_partial(Path(folder))
    test_eq(sorted(f.name for f in Path(folder).rglob("*") if f.is_file()), ["mine.txt"])


# %% [markdown]
# While one process works on a run, no other may. The run's folder keeps what was asked of it.

# %%
#| export
def run_locked(
    folder: Path,
    chosen: list[str],       # stages to run
    params: dict[str, dict], # of every stage
    listed: list[str],       # stages that the run is for
    source: str,             # where the parameters came from
    fresh: bool,             # run stages even if nothing has changed
):
    "Run stages while no other process may."
    from filelock import FileLock, Timeout
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder/".lock", timeout=0):
            clear_partial(folder)
            text = f"{RUN_MARK}\n{yaml.safe_dump(dict(stages=listed) | params, sort_keys=False)}"
            with atomic_path(folder/"params.yaml") as partial: partial.write_text(text, encoding="utf-8")
            print(f"Run {folder.name} in {folder}, parameters from {source}", flush=True)
            run_stages(folder, chosen, params, fresh)
    except Timeout: raise StudyError(f"Another process is working on the run {folder.name}; wait for it, "
                                     "or choose another --run.") from None
