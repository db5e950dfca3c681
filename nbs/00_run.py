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
# # The run
#
# > The run directory, parameters, seeds, provenance and plot style that every stage shares

# %%
#| default_exp run

# %%
#| export
import hashlib, json, os, platform, shutil, subprocess, sys, tempfile, time
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import yaml

# %%
#| hide
from fastcore.test import test_eq, test_fail


# %% [markdown]
# A study is only as good as its bookkeeping. Every stage (data, exploration, preprocessing, three models,
# evaluation, explanations) reads what earlier stages left in one **run directory** and writes its own results there.
# Nothing travels any other way, so each result can be traced to the parameters and the films that gave it.
#
# ```
# runs/NAME/
#   params.yaml       what was asked            cache/        phantoms
#   provenance.json   what was done             models/       trained networks
#   images.csv        every film and its split  history/      one row an epoch
#   comparison.csv    the models side by side   predictions/  one row a film
#   figures/   metrics/   notebooks/   site/
# ```
#
# ## One kind of error
#
# Whatever a reader can mend (a wrong folder, a misspelled parameter) raises `StudyError`: one sentence that says what
# was expected, what was found and what to do. The command line prints that sentence and nothing else.

# %%
#| export
class StudyError(ValueError):
    "Input that its user can mend; the message says what was expected, what was found, and what to do."


# %% [markdown]
# ## Files that are whole or absent
#
# A process may be killed at any moment. A file written in place would then be cut short and yet look finished, so
# everything is written beside its final name and renamed when complete: a rename either happens or does not.

# %%
#| export
@contextmanager
def atomic_path(
    path: str | Path, # final place of the file; its folder is made if need be
):
    "Yield a temporary path beside `path`; rename it to `path` only if the block ends without an error."
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


# %% [markdown]
# An error half way leaves the old file as it was, and no debris:

# %%
def write_half(path):
    with atomic_path(path) as partial:
        partial.write_text("half a resu")
        raise OSError("disk full")

with tempfile.TemporaryDirectory() as folder:
    target = Path(folder)/"result.csv"
    target.write_text("old")
    test_fail(lambda: write_half(target), contains="disk full")
    test_eq(target.read_text(), "old")
    test_eq(os.listdir(folder), ["result.csv"])


# %% [markdown]
# A run directory holds thousands of numbers, and JSON has no way to write "undefined" (a precision without any
# positive call, say). `write_json` stores such values as `null` rather than as the invalid token `NaN`.

# %%
#| export
def plain(
    value, # NumPy scalars and arrays, paths, nested containers
):
    "`value` made of what JSON knows; NaN and infinities become None."
    if isinstance(value, dict): return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)): return [plain(v) for v in value]
    if hasattr(value, "tolist"): return plain(value.tolist())
    if isinstance(value, float) and (value != value or abs(value) == float("inf")): return None
    return str(value) if isinstance(value, Path) else value

def write_json(path, value):
    "Write `value` to `path` whole or not at all."
    with atomic_path(path) as partial: partial.write_text(json.dumps(plain(value), indent=1) + "\n", encoding="utf-8")

def read_json(path):
    "What `write_json` wrote."
    return json.loads(Path(path).read_text(encoding="utf-8"))

def write_csv(path, table):
    "Write a DataFrame without its index, with `\\n` line ends, whole or not at all."
    with atomic_path(path) as partial: table.to_csv(partial, index=False, lineterminator="\n")


# %%
test_eq(plain({"precision": float("nan"), "counts": (1, 2)}), {"precision": None, "counts": [1, 2]})

# %% [markdown]
# ## The stages
#
# Each stage names the files it reads and the files it writes, as patterns inside the run directory. That one table is
# enough to know what must run again: a stage whose parameters and input files are unchanged, and whose outputs are
# still what it wrote, has nothing to do. The data stage also watches the names, sizes and dates in the data folder.

# %%
#| export
STAGES = {
    "data":          dict(notebook="02_data", reads=[], writes=["images.csv", "metrics/data.json", "metrics/data_checks.csv",
                                                                "cache/phantoms_*/phantom.json"]),
    "eda":           dict(notebook="03_eda", reads=["images.csv", "metrics/data.json"],
                          writes=["metrics/eda_*.json", "figures/eda_*.png"]),
    "preprocessing": dict(notebook="04_preprocessing", reads=["images.csv", "metrics/data.json"],
                          writes=["metrics/preprocessing.json", "figures/preprocessing_*.png"]),
    "mlp":           dict(notebook="06_mlp", reads=["images.csv", "metrics/preprocessing.json"],
                          writes=["models/mlp.keras", "history/mlp.csv", "predictions/mlp.csv", "figures/mlp_*.png"]),
    "cnn":           dict(notebook="07_cnn", reads=["images.csv", "metrics/preprocessing.json"],
                          writes=["models/cnn.keras", "history/cnn.csv", "predictions/cnn.csv", "figures/cnn_*.png"]),
    "resnet":        dict(notebook="08_resnet", reads=["images.csv", "metrics/preprocessing.json"],
                          writes=["models/resnet_*.keras", "history/resnet_*.csv", "predictions/resnet_*.csv",
                                  "figures/resnet_*.png"]),
    "compact":       dict(notebook="08b_compact", reads=["images.csv", "metrics/data.json"],
                          writes=["models/compact*.keras", "history/compact*.csv", "predictions/compact*.csv", "predictions/members/*.csv",
                                  "metrics/compact.json", "figures/compact_*.png"]),
    "evaluation":    dict(notebook="09_evaluation", reads=["predictions/*.csv", "predictions/members/*.csv", "history/*.csv", "images.csv", "metrics/data.json"],
                          writes=["comparison.csv", "metrics/evaluation.json", "metrics/evaluation_*.csv", "figures/evaluation_*.png"]),
    "xai":           dict(notebook="10_xai", reads=["predictions/*.csv", "models/*.keras", "images.csv",
                                                    "metrics/data.json", "metrics/evaluation.json"],
                          writes=["metrics/xai*.csv", "figures/xai_*.png"]),
}


# %% [markdown]
# "Unchanged" is decided by content, not by dates: copying a run to another disk must not make it stale.

# %%
#| export
def file_digest(
    path: str | Path,
) -> str: # SHA-1 of the bytes, in hex
    "Fingerprint of a file's content."
    digest = hashlib.sha1()
    with open(path, "rb") as f:
        while block := f.read(1 << 20): digest.update(block)
    return digest.hexdigest()

def digests(
    folder: Path,        # run directory
    patterns: list[str], # globs relative to it
) -> dict[str, str]: # file → SHA-1, hidden (unfinished) files left out
    "Fingerprints of all files that match, by their path inside `folder`."
    files = {f for p in patterns for f in Path(folder).glob(p) if not f.name.startswith(".")}
    return {f.relative_to(folder).as_posix(): file_digest(f) for f in sorted(files)}

def inputs_digest(
    folder: Path, # run directory
    name: str,    # stage
    params: dict,
) -> dict[str, str]:
    "Fingerprints of what a stage reads: files of the run, and for the data stage the listing of the data folder."
    found = digests(folder, STAGES[name]["reads"])
    if root := params.get("data_dir"):
        listed = (f for split in ("train", "val", "test") for f in (Path(root)/split).rglob("*") if f.is_file())
        files = sorted((str(f), s.st_size, s.st_mtime_ns) for f in listed if (s := f.stat()))
        found["data_dir"] = hashlib.sha1(repr(files).encode()).hexdigest()
    return found


# %% [markdown]
# `git hash-object` would give another value (it adds a header), but the plain SHA-1 of three bytes is known:

# %%
with tempfile.TemporaryDirectory() as folder:
    (Path(folder)/"abc.csv").write_text("abc")
    test_eq(digests(folder, ["*.csv"]), {"abc.csv": "a9993e364706816aba3e25717850c26c9cd0d89d"})

# %% [markdown]
# ## Where, when and with what
#
# Provenance is written by the stage itself, so that a notebook run by hand leaves the same trace as a batch.

# %%
#| export
VERSIONED = ["tensorflow", "keras", "numpy", "pandas", "scikit-learn", "opencv-python", "matplotlib", "papermill"]

def package_versions() -> dict[str, str]:
    "Installed versions of the packages that results depend on."
    from importlib.metadata import PackageNotFoundError, version
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try: found[name] = version(name)
        except PackageNotFoundError: found[name] = "not installed"
    return found

def git_commit(folder: str | Path = ".") -> str: # e.g. "3f2a… with local changes", or "not in a git checkout"
    "Commit of the code that runs."
    def git(*words): return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True)
    try: head, status = git("rev-parse", "HEAD"), git("status", "--porcelain")
    except FileNotFoundError: return "git is not installed"
    if head.returncode: return "not in a git checkout"
    return head.stdout.strip() + (" with local changes" if status.stdout.strip() else "")

def machine() -> dict:
    "Processor, cores and system this process runs on."
    return dict(system=platform.platform(), processor=platform.processor() or platform.machine(), cores=os.cpu_count())

def peak_memory_mb() -> int | None: # None where the system does not tell (Windows)
    "Largest resident memory of this process so far, in megabytes."
    try: import resource
    except ImportError: return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))


# %% [markdown]
# ## A stage at work
#
# `open_stage` comes early in every stage notebook. It makes or opens the run directory, notes the parameters, and
# forgets the stage's earlier record: from here until `finish` the stage counts
# as not done. Opened without a run directory (interactively, or by a test), it works in a temporary one and says so.

# %%
#| export
class Stage:
    "One stage at work in one run directory."
    def __init__(self,
        name: str,    # a key of `STAGES`
        folder: Path, # the run directory
        params: dict, # the stage's parameters, `seed` among them
    ):
        self.name, self.folder, self.params, self.started = name, Path(folder), params, time.time()
        self.notes: list[str] = []
        self.forget()

    def path(self, *parts: str) -> Path:
        "A path inside the run directory."
        return self.folder.joinpath(*parts)

    @property
    def scratch(self) -> Path:
        "A hidden folder for what an interrupted stage needs to go on; `finish` removes it."
        return self.folder/f".scratch-{self.name}"

    def forget(self):
        "Drop the record of an earlier completion."
        provenance = read_provenance(self.folder)
        if provenance["stages"].pop(self.name, None): write_json(self.folder/"provenance.json", provenance)


# %%
#| export
def read_provenance(
    folder: str | Path, # a run directory
) -> dict: # {"stages": {name: record}}
    "What is recorded of a run so far."
    file = Path(folder)/"provenance.json"
    if not file.exists(): return {"stages": {}}
    try: provenance = read_json(file)
    except ValueError: provenance = None
    if not isinstance(provenance, dict) or "stages" not in provenance: raise StudyError(
        f"Expected the record of a run in {file}, found something else; remove that file, and the run's stages are done again.")
    return provenance

def open_stage(
    name: str,           # a key of `STAGES`
    run_dir: str | Path, # the run directory; "" for a temporary one
    **params,            # the notebook's parameters
) -> Stage:
    "Begin a stage; its record is written by `Stage.finish`."
    if run_dir == "":
        keep = _temporary_runs.setdefault(name, tempfile.TemporaryDirectory(prefix=f"pneumo-{name}-"))
        run_dir = keep.name
        print(f"No run_dir given: the {name} stage works in a temporary run directory, gone when this kernel ends.")
    folder = Path(run_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return Stage(name, folder, params)

_temporary_runs: dict[str, tempfile.TemporaryDirectory] = {}


# %% [markdown]
# An upstream file may be missing when a notebook runs alone. Stages then make a quick one from phantoms, and this note
# stands in the notebook's output and in the provenance, so that nobody mistakes it for a result on real films.

# %%
#| export
def note(
    stage: Stage,
    text: str, # one sentence
):
    "Say something about this run in the output and keep it in the provenance."
    stage.notes.append(text)
    print(f"Note: {text}")


# %% [markdown]
# Test films are there for final numbers. Each time that a stage reads them as test films, their labels or what they look like, is one
# **look**, and it stays in the run's record for good, through repeated and fresh runs, because every look is a chance to tune to them.

# %%
#| export
def look(
    stage: Stage,
    at: str, # what was looked at, a few words
):
    "Count one look at the test films in the run's record."
    provenance = read_provenance(stage.folder)
    seen = datetime.now(timezone.utc).isoformat(timespec="seconds")
    provenance.setdefault("test_looks", []).append(dict(stage=stage.name, at=at, time=seen))
    write_json(stage.folder/"provenance.json", provenance)


# %%
with tempfile.TemporaryDirectory() as folder:
    for _ in range(2): look(open_stage("evaluation", folder), "predictions of 2 models")
    test_eq([l["stage"] for l in read_provenance(folder)["test_looks"]], ["evaluation"] * 2)   # opening a stage again forgets no look


# %% [markdown]
# `finish` closes the record: what went in, what came out, how long it took, on which machine and code.

# %%
#| export
def finish(
    stage: Stage,
) -> dict: # the record, as it stands in provenance.json
    "Write the stage's record; only now does the stage count as done."
    record = dict(parameters=plain(stage.params), notes=stage.notes,
        started=datetime.fromtimestamp(stage.started, timezone.utc).isoformat(timespec="seconds"),
        seconds=round(time.time() - stage.started, 1), peak_memory_mb=peak_memory_mb(),
        git_commit=git_commit(Path(__file__).parent if "__file__" in globals() else "."),
        versions=package_versions(), machine=machine(),
        inputs=inputs_digest(stage.folder, stage.name, stage.params),
        outputs=digests(stage.folder, STAGES[stage.name]["writes"]))
    provenance = read_provenance(stage.folder)
    provenance["stages"][stage.name] = record
    if stage.path("metrics/data.json").exists():
        provenance["data_fingerprint"] = read_json(stage.path("metrics/data.json"))["fingerprint"]
    write_json(stage.path("provenance.json"), provenance)
    shutil.rmtree(stage.scratch, ignore_errors=True)
    print(f"{stage.name}: {len(record['outputs'])} files in {record['seconds']:.1f} s")
    return record


# %% [markdown]
# Whether a stage still stands is then a comparison of three things, and the answer names the one that differs.

# %%
#| export
def stale_reason(
    folder: str | Path, # run directory
    name: str,          # stage
    params: dict,       # the parameters it would run with
) -> str: # "" when the stage can be skipped
    "Why a stage has to run (again)."
    record = read_provenance(folder)["stages"].get(name)
    if record is None: return "not done yet"
    changed = sorted(k for k in {*record["parameters"], *params}
                     if record["parameters"].get(k, _absent) != plain(params.get(k, _absent)))
    if changed: return "changed " + ", ".join(changed)
    if inputs_digest(folder, name, params) != record["inputs"]: return "its input files changed"
    if digests(folder, STAGES[name]["writes"]) != record["outputs"]: return "its files were changed or removed"
    return ""

_absent = object()

# %% [markdown]
# A miniature life of a run: evaluated once, skipped while nothing changes, due again as soon as a threshold, an input
# or an output differs.

# %%
with tempfile.TemporaryDirectory() as folder:
    stage = open_stage("evaluation", folder, threshold=0.5)
    test_eq(stale_reason(folder, "evaluation", dict(threshold=0.5)), "not done yet")
    stage.path("comparison.csv").write_text("model,accuracy\n")
    finish(stage)
    test_eq(stale_reason(folder, "evaluation", dict(threshold=0.5)), "")
    test_eq(stale_reason(folder, "evaluation", dict(threshold=0.4)), "changed threshold")
    stage.path("comparison.csv").write_text("cut sho")
    test_eq(stale_reason(folder, "evaluation", dict(threshold=0.5)), "its files were changed or removed")
    stage.path("predictions").mkdir(); stage.path("predictions/cnn.csv").write_text("path\n")
    test_eq(stale_reason(folder, "evaluation", dict(threshold=0.5)), "its input files changed")


# %% [markdown]
# ## Parameters
#
# A parameter file has a `common:` section, which reaches every stage that declares a parameter of that name, and one
# section a stage, which wins over it. What a notebook declares in its tagged cell is the whole vocabulary: a name that
# no notebook knows is an error, because a misspelled `epoch: 50` that silently trains 3 epochs wastes a night. A list `stages:` names the stages that the file is for, where that is not all of them.

# %%
#| export
def load_params(
    path: str | Path, # YAML file
) -> tuple[dict[str, dict], list[str]]: # section → parameters; the stages it is for, in the study's order
    "Read a parameter file."
    if not Path(path).is_file():
        raise StudyError(f"Expected a parameter file, found nothing at {path}; see params/quick.yaml for an example.")
    try: sections = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as e: raise StudyError(f"Expected YAML in {path}, found: {' '.join(str(e).split())}") from None
    stages = sections.pop("stages", list(STAGES)) if isinstance(sections, dict) else []
    wrong = sections if not isinstance(sections, dict) else [k for k, v in sections.items() if not isinstance(v, dict)]
    if wrong: raise StudyError(f"Expected {path} to hold sections (common, {', '.join(STAGES)}) of `name: value` lines, "
                               f"found {wrong!r}; indent each parameter below its section.")
    if not isinstance(stages, list) or not stages or (odd := [s for s in stages if s not in STAGES]): raise StudyError(
        f"Expected `stages:` in {path} to be a list of some of {', '.join(STAGES)}, found {odd if isinstance(stages, list) and stages else stages!r}.")
    return sections, [s for s in STAGES if s in stages]


# %%
#| export
def resolve_params(
    sections: dict[str, dict], # from `load_params`
    known: dict[str, dict],    # stage → {parameter: default}, as the notebooks declare them
) -> dict[str, dict]: # stage → every parameter with its value
    "Merge defaults, the common section and each stage's own, refusing what no notebook declares."
    common, everywhere = sections.get("common", {}), {name for params in known.values() for name in params}
    for section, params in sections.items():
        if section != "common" and section not in known:
            raise StudyError(f"Expected the sections common, {', '.join(known)}; found {section!r}.")
        allowed = everywhere if section == "common" else known[section]
        for name in params:
            if name not in allowed: raise StudyError(
                f"No notebook declares {section}.{name}; known in {section}: {', '.join(sorted(allowed))}.")
    resolved = {stage: defaults | {k: v for k, v in common.items() if k in defaults} | sections.get(stage, {})
                for stage, defaults in known.items()}
    for stage, params in resolved.items():
        for name, value in params.items(): check_type(f"{stage}.{name}", value, known[stage][name])
    return resolved

def check_type(name, value, default):
    "Refuse a value whose type is not its default's (a whole number may stand for a real one; None admits anything)."
    wanted = type(default)
    fits = default is None or isinstance(value, wanted) or (wanted is float and isinstance(value, int))
    if not fits or (isinstance(value, bool) and wanted is not bool):
        raise StudyError(f"Expected {name} to be {wanted.__name__} like its default {default!r}, found {value!r}.")


# %% [markdown]
# The section decides, the common value fills in, the default remains, and mistakes are named:

# %%
known = dict(data=dict(seed=42, data_dir=""), cnn=dict(seed=42, epochs=3, learning_rate=1e-4))
test_eq(resolve_params(dict(common=dict(seed=7), cnn=dict(epochs=20)), known),
        dict(data=dict(seed=7, data_dir=""), cnn=dict(seed=7, epochs=20, learning_rate=1e-4)))
test_fail(lambda: resolve_params(dict(cnn=dict(epoch=50)), known), contains="known in cnn: epochs, learning_rate, seed")
test_fail(lambda: resolve_params(dict(cn=dict(epochs=50)), known), contains="found 'cn'")
test_fail(lambda: resolve_params(dict(cnn=dict(epochs="many")), known), contains="cnn.epochs to be int")


# %% [markdown]
# ## Seeds
#
# Two kinds of chance enter a study. What concerns a film (its augmentation, its place in the epoch's order) is drawn
# from a generator made of the seed and the film's own numbers, so it does not depend on what was drawn before: a
# resumed training sees exactly the films that an unbroken one would. The initial weights come from Keras's global seed.

# %%
#| export
def rng_for(
    *key: int | str, # seed, then what the numbers are for: `rng_for(42, "augment", epoch, film)`
): # numpy.random.Generator
    "An independent, reproducible random generator for one purpose."
    import numpy as np
    if any(isinstance(k, int) and k < 0 for k in key): raise StudyError(f"Expected a seed of 0 or more, found {key[0]}.")
    return np.random.default_rng([k if isinstance(k, int) else int(hashlib.sha1(k.encode()).hexdigest()[:8], 16) for k in key])

def set_seed(seed: int):
    "Seed Python, NumPy and Keras, for initial weights and dropout."
    import keras
    keras.utils.set_random_seed(seed)


# %%
a, b = rng_for(42, "augment", 3, 17).random(), rng_for(42, "augment", 3, 17).random()
test_eq(a, b)
assert a != rng_for(42, "augment", 3, 18).random() and a != rng_for(42, "order", 3, 17).random()


# %% [markdown]
# ## Threads
#
# One place says how many threads decode, augment and compute: as many as the cores that this process may use, or
# `PNEUMO_THREADS` where a machine is shared. No number that the study reports depends on which film a thread took first.

# %%
#| export
def threads() -> int:
    "How many threads to work with."
    asked = os.environ.get("PNEUMO_THREADS", "")
    if asked and not (asked.isdecimal() and int(asked)): raise StudyError(f"Expected PNEUMO_THREADS to be a whole number above 0, found {asked!r}.")
    return int(asked) if asked else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

if os.environ.get("PNEUMO_THREADS", "").isdecimal():  # TensorFlow reads these once, when it starts; `threads` refuses anything else
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", os.environ["PNEUMO_THREADS"])
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", os.environ["PNEUMO_THREADS"])

# %% [markdown]
# ## One look for all figures
#
# A colour means one thing from the first chapter to the last. The palette is Okabe and Ito's, made to be told apart by
# readers with any common colour blindness; lines also differ in dash, so that they survive a black-and-white printer.

# %%
#| export
CLASS_NAMES = ["NORMAL", "PNEUMONIA"]
COLOURS = {"NORMAL": "#0072B2", "PNEUMONIA": "#D55E00", "normal": "#0072B2", "bacteria": "#D55E00", "virus": "#CC79A7",
           "mlp": "#E69F00", "cnn": "#009E73", "resnet_frozen": "#56B4E9", "resnet_finetuned": "#4D4D4D",
           "compact": "#9467BD", "compact_ensemble": "#4B1A6E", "other": "#8B5A2B"}
DASHES = {"mlp": ":", "cnn": "-", "resnet_frozen": "--", "resnet_finetuned": "-.", "compact": (0, (4, 1)), "compact_ensemble": "-"}
MODEL_TITLES = {"mlp": "MLP", "cnn": "CNN", "resnet_frozen": "ResNet50, frozen", "resnet_finetuned": "ResNet50, fine-tuned",
                "compact": "compact net", "compact_ensemble": "compact ensemble"}

def study_order(model: str) -> tuple: # to sort by
    "The study's order of models, those it does not know last."
    order = list(MODEL_TITLES)
    return (order.index(model) if model in order else len(order), model)

def plot_style():
    "Set matplotlib's defaults for the study's figures."
    import matplotlib.pyplot as plt
    plt.rcParams.update({
        "figure.dpi": 80, "figure.constrained_layout.use": True, "figure.facecolor": "white",
        "font.size": 11, "axes.titlesize": 12, "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": False, "legend.frameon": False, "image.cmap": "gray", "image.interpolation": "nearest"})


# %% [markdown]
# `save_figure` writes a figure into the run and shows it in the notebook from the same bytes, with the text that a
# screen reader speaks. What the notebook shows and what the run keeps can thus never differ. `show_figure` does the showing alone.

# %%
#| export
def save_figure(
    stage: Stage,
    figure,    # matplotlib Figure; closed afterwards
    name: str, # file name without ending; begins with the stage's name
    caption: str, # what the figure is, one sentence
    alt: str,  # what is seen, in words, for readers who cannot see it
):
    "Write `figures/NAME.png` and display it with its caption and alternative text."
    with atomic_path(stage.path("figures", f"{name}.png")) as partial: partial.write_bytes(show_figure(figure, name, caption, alt))

def show_figure(figure, name: str, caption: str, alt: str) -> bytes: # the PNG
    "Display a figure at twice the density of an ordinary screen; a site takes its name, caption and alternative text from the notebook."
    import io
    import matplotlib.pyplot as plt
    from IPython.display import Image, display
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=2 * plt.rcParams["figure.dpi"], metadata={"Description": alt})
    display(Image(data=png.getvalue(), width=int(figure.get_figwidth() * plt.rcParams["figure.dpi"]), alt=alt, metadata=dict(name=name, caption=caption)))
    plt.close(figure)
    return png.getvalue()


# %%
#| hide
import matplotlib.pyplot as plt
with tempfile.TemporaryDirectory() as folder:
    stage = open_stage("eda", folder)
    plot_style()
    figure, ax = plt.subplots(figsize=(4, 1.7))
    ax.barh(list(MODEL_TITLES.values()), [1] * len(MODEL_TITLES), color=[COLOURS[m] for m in MODEL_TITLES])
    ax.set_title("One colour a model, everywhere"); ax.set_xticks([])
    save_figure(stage, figure, "eda_colours", "The colours of the models.", "A bar in the colour of each model.")
    assert stage.path("figures/eda_colours.png").stat().st_size > 1000
