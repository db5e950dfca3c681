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
# # Many films
#
# > Millions of films answered by many processes or machines, each film once, whatever was killed

# %%
#| default_exp many

# %%
#| export
import hashlib, io, json, os, platform, shutil, tempfile, time, uuid
from collections import Counter
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from threading import Lock

from pneumo_nb.run import StudyError, jsonable, threads
from pneumo_nb.style import counted, in_list
from pneumo_nb.films import PlaceError, asking, filesystem, in_words, is_address
from pneumo_nb.workers import thread_variables
from pneumo_nb.detector import COLUMNS, Bundle, Detector, about, answer_table, bundle_bytes, without_greeting

# %%
#| hide
import keras
import numpy as np
import pandas as pd
from fastcore.test import test_close, test_eq, test_fail
from keras import layers
from pneumo_nb.cache import decode_films
from pneumo_nb.detector import find_films
from pneumo_nb.doubt import fit_reference
from pneumo_nb.films import scan_dataset
from pneumo_nb.phantom import make_dataset

# %% [markdown]
# One process answers some hundred films a second. For a million films that is an hour, for a hundred million
# it is days. This chapter has many processes share the work, on one machine or on a cluster of
# [Dask](https://distributed.dask.org). Films and answers may lie at addresses, as on S3.
#
# Three things must hold. Each film has exactly one row, whatever was killed. Memory does not grow with the
# number of films, in no process. And the answers are those that one process would give.
#
# ## Files at a place
#
# A place is a path or an address. What is written must be whole or absent. A store such as S3 puts an object
# at once. Elsewhere a file is written under another name, and renamed. The name is drawn, for on two machines
# two processes may have the same number.

# %%
#| export
_AT_ONCE = {"s3", "gs", "abfs", "memory"}  # stores that show an object only when all of it is there


# %%
#| export
def _at(folder: str, name: str) -> str:
    "A place in a folder."
    return folder + name if folder.endswith("/") else f"{folder}/{name}"


# %%
#| export
def put_file(place: str, content: bytes):
    "Write a file, whole or not at all."
    files, path = filesystem(place)
    above, _, name = path.rpartition("/")
    with asking(place):
        if _AT_ONCE & {*_protocols(files)}: return files.pipe_file(path, content)
        files.makedirs(above, exist_ok=True)
        partial = f"{above}/.partial-{uuid.uuid4().hex}-{name}"
        files.pipe_file(partial, content)
        files.mv(partial, path)


# %%
#| export
def _protocols(files) -> list[str]:
    "What the addresses of a filesystem begin with."
    return [files.protocol] if isinstance(files.protocol, str) else list(files.protocol)


# %%
#| export
def file_bytes(place: str) -> bytes | None: # None where there is no file
    "What is in a file."
    files, path = filesystem(place)
    try:
        with asking(place): return files.cat_file(path)
    except FileNotFoundError: return None


# %%
#| export
def names_in(folder: str) -> set[str]: # empty where there is no folder
    "What lies in a folder, without what is hidden."
    files, path = filesystem(folder)
    try:
        with asking(folder): listed = files.ls(path, detail=False)
    except FileNotFoundError: return set()
    below = [found.rstrip("/") for found in listed if found.rstrip("/") != path.rstrip("/")]
    return {name for name in (found.rpartition("/")[2] for found in below) if not name.startswith(".")}


# %%
with tempfile.TemporaryDirectory() as folder:
    for place in (f"{folder}/new", f"file://{folder}/other", "memory://new"):
        put_file(f"{place}/a.txt", b"first")
        put_file(f"{place}/a.txt", b"second")
        test_eq((file_bytes(f"{place}/a.txt"), file_bytes(f"{place}/b.txt")), (b"second", None))
        test_eq((names_in(place), names_in(f"{place}/none")), ({"a.txt"}, set()))
    test_eq(os.listdir(f"{folder}/new"), ["a.txt"])

# %% [markdown]
# ## The plan
#
# The films are listed once. Their names go into numbered files of a folder `_plan`, 512 in each, a name a
# line. So a task is a number, and whoever hands out tasks holds numbers only. The names are written as JSON,
# since a name may have a line break in it.

# %%
#| export
_EACH = 512  # films in a part: sixteen batches


# %%
#| export
def _name_lines(names: list[str]) -> bytes:
    "Names of films, each on a line."
    return "".join(json.dumps(name) + "\n" for name in names).encode()


# %%
#| export
def _listed(
    films,                            # paths and addresses
    write=lambda number, names: None, # called with the lines of each part
) -> dict: # films, parts, listing: a digest of all names in their order
    "Divide films into parts; no more than one part is in memory."
    films, digest, count, parts = iter(films), hashlib.sha256(), 0, 0
    while names := list(islice(films, _EACH)):
        write(parts, _name_lines(names))
        digest.update(_name_lines(names))
        count, parts = count + len(names), parts + 1
    return dict(films=count, parts=parts, listing=digest.hexdigest())


# %%
test_eq(_name_lines(["a.png", "b\n.png"]), b'"a.png"\n"b\\n.png"\n')
written = {}
facts = _listed((f"{n}.png" for n in range(1025)), written.__setitem__)
test_eq((facts["films"], facts["parts"], written[2]), (1025, 3, b'"1024.png"\n'))
test_eq(_listed(f"{n}.png" for n in range(1025)), facts)


# %% [markdown]
# The detector is written beside the names. So the folder is all that a worker on another machine needs,
# besides the films. The file `plan.json` comes last: without it the films are listed anew.

# %%
#| export
def _names_file(folder: str, number: int) -> str: return _at(folder, f"_plan/films-{number:06d}.txt")

def _part_file(folder: str, number: int) -> str: return _at(folder, f"part-{number:06d}.parquet")

def _plan_content(plan: dict) -> bytes:
    "A plan as its file holds it."
    return json.dumps(jsonable(plan), indent=1, ensure_ascii=False).encode() + b"\n"


# %%
#| export
def make_plan(
    folder: str,       # where the answers go
    bundle: Bundle,
    films,             # paths and addresses, as from `find_films`
    rule: str = "sensitivity95",
    tags: tuple = (),  # DICOM tags to add
) -> dict: # what `about` says, and films, parts and listing
    "Write who shall answer for which films, or see that it is as before."
    said, before = about(bundle, rule, tags), file_bytes(_at(folder, "_plan/plan.json"))
    if before is not None:
        _check_same_plan(folder, json.loads(before), jsonable(said | _listed(films)))
        return json.loads(before)
    _check_no_others(folder)
    plan = said | _listed(films, lambda number, lines: put_file(_names_file(folder, number), lines))
    if not plan["films"]: raise StudyError("Expected films, found none in those folders; give others.")
    put_file(_at(folder, "_plan/detector.pneumo"), bundle_bytes(bundle))
    put_file(_at(folder, "_plan/plan.json"), _plan_content(plan))
    return plan


# %%
#| export
def _check_same_plan(folder: str, before: dict, now: dict):
    "Refuse to go on with other films, or another detector."
    names = dict(detector="detector", rule="rule", tags="tags", listing="films")
    others = [word for name, word in names.items() if before[name] != now[name]]
    if others: raise StudyError(
        f"Expected the same {in_list(list(names.values()))} as in the plan of {folder}, found other "
        f"{in_list(others)}; give the same, or another --out.")


# %%
#| export
def _check_no_others(folder: str):
    "Refuse a folder in which something else lies."
    if others := names_in(folder) - {"_plan"}: raise StudyError(
        f"Expected a new or empty folder for the answers, found {min(others)} in {folder}; "
        "give another --out.")


# %% [markdown]
# For the examples, sixty phantoms and a detector of a few weights that was taught nothing.

# %%
def small_bundle(root, side=32):
    images = scan_dataset(root).reset_index(drop=True)
    images.attrs["root"] = str(root)
    reference = fit_reference(np.array(decode_films(images, side).pixels), images.patient_id.to_numpy())
    keras.utils.set_random_seed(1)
    network = keras.Sequential([keras.Input((side, side, 1)), layers.Rescaling(1 / 255),
                                layers.AveragePooling2D(4), layers.Flatten(), layers.Dense(1, "sigmoid")])
    network.save(f"{root}.keras")
    card = dict(title="a small net", image_size=side, thresholds=dict(half=.5, sensitivity95=.4),
                conformal=dict(level=.9, normal=.6, pneumonia=.6), calibration=dict(intercept=0., slope=1.),
                trained_on="phantoms", intended="Trials.") | {"not": "No medical device."}
    return Bundle(card, reference, Path(f"{root}.keras").read_bytes(), "of the examples")

work = tempfile.TemporaryDirectory()
os.environ["PNEUMO_CACHE"] = f"{work.name}/cache"
root = make_dataset(f"{work.name}/set", 60, 6, 1, 0)
bundle, out = small_bundle(root), f"{work.name}/answers.parquet"
plan = make_plan(out, bundle, find_films([root]))
test_eq(make_plan(out, bundle, find_films([root])), plan)
fails = lambda contains, films, rule="sensitivity95": test_fail(
    lambda: make_plan(out, bundle, films, rule), contains=contains)
fails("found other rule", find_films([root]), "half")
fails("found other films; give the same", find_films([root/"train"]))
test_fail(lambda: make_plan(str(root), bundle, []), contains="found masks in")
sorted(os.listdir(f"{out}/_plan")), plan["films"]


# %% [markdown]
# ## A part
#
# A worker knows the folder, the digest of the plan and a number. Plan and detector are read once by each
# process. A process answers one part at a time, with all of its threads.

# %%
#| export
def plan_digest(plan: dict) -> str:
    "What names a plan."
    return hashlib.sha256(_plan_content(plan)).hexdigest()


# %%
#| export
@lru_cache(maxsize=4)
def _plan_in(folder: str, digest: str) -> dict:
    "The plan in a folder."
    content = file_bytes(_at(folder, "_plan/plan.json")) or b""
    if hashlib.sha256(content).hexdigest() == digest: return json.loads(content)
    raise StudyError(f"Expected the plan with which this call began in {folder}, found another or none; "
                     "give workers the same folder, and leave it as it is.")


# %%
#| export
@lru_cache(maxsize=1)
def _detector_in(folder: str, digest: str) -> Detector: # `digest`: of the plan
    "The detector in a folder, loaded once."
    _keep_share()
    with without_greeting(): return Detector.load(_at(folder, "_plan/detector.pneumo"))


# %%
#| export
def _keep_share():
    "Use no more threads than this worker has, unless PNEUMO_THREADS says another number."
    from distributed import get_worker
    try: share = get_worker().state.nthreads
    except ValueError: return  # no worker's process
    if "PNEUMO_THREADS" not in os.environ: os.environ.update(thread_variables(share))


# %% [markdown]
# A part that is there is looked at rather than believed: it must be a Parquet file with a row for each of its
# films, in their order. Otherwise it is answered anew.

# %%
#| export
def _counts(rows: list[dict]) -> dict[str, int]:
    "How many films, and how many could not be read or are flagged."
    return dict(films=len(rows), unread=sum(not row["call"] for row in rows),
                flagged=sum(bool(row["call"] and row["flags"]) for row in rows))


# %%
#| export
def _seen_in(place: str, names: list[str]) -> dict[str, int] | None: # None for anything else
    "What a part has that holds answers for these films."
    import pyarrow, pyarrow.parquet
    content = file_bytes(place)
    if content is None: return None
    try: rows = pyarrow.parquet.read_table(io.BytesIO(content), columns=["file", "call", "flags"]).to_pylist()
    except (pyarrow.ArrowException, OSError, KeyError): return None
    return _counts(rows) if [row["file"] for row in rows] == [in_words(name) for name in names] else None


# %%
#| export
def _parquet(rows: list[dict], columns: list[str]) -> bytes:
    "Answers as a Parquet file."
    from pyarrow.parquet import write_table
    content = io.BytesIO()
    write_table(answer_table(rows, columns), content)
    return content.getvalue()


# %%
#| export
_ONE_PART = Lock()  # of a process

def _answer_once(folder: str, digest: str, number: int) -> dict[str, int]:
    "Answer for the films of a part, unless they have their answers."
    plan, lines = _plan_in(folder, digest), file_bytes(_names_file(folder, number)).splitlines()
    names, place = [json.loads(line) for line in lines], _part_file(folder, number)
    if seen := _seen_in(place, names): return seen | dict(earlier=seen["films"])
    with _ONE_PART:
        batches = _detector_in(folder, digest).stream(names, plan["rule"], tuple(plan["tags"]))
        rows = [row for batch in batches for row in batch]
    put_file(place, _parquet(rows, [*COLUMNS, *plan["tags"]]))
    return _counts(rows)


# %% [markdown]
# A store may be away for a while. A part is begun anew then, after a second, two, four and so on, two minutes
# in all. No film gets a row that says it could not be read because a store was away.

# %%
#| export
def _patiently(
    do,                                 # function without arguments
    waits=(1, 2, 4, 8, 16, 32, 64), # seconds
):
    "Do something again where a place did not answer."
    for wait in waits:
        try: return do()
        except PlaceError: time.sleep(wait)
    return do()


# %%
#| export
def answer_part(
    folder: str,
    digest: str, # of the plan
    number: int,
) -> dict[str, int]: # films, unread, flagged, and how many of them an earlier call had answered
    "Write a part of the answers, if it is not there."
    return _patiently(lambda: _answer_once(folder, digest, number))


# %%
tries = iter([PlaceError("away"), PlaceError("away"), None])
def ask():
    if reason := next(tries): raise reason
    return "answered"
test_eq(_patiently(ask, waits=(0, 0, 0)), "answered")

# %% [markdown]
# A part holds what the detector says in one process. It is not answered twice, unless it was spoiled.

# %%
first = answer_part(out, plan_digest(plan), 0)
test_eq(first["films"], 66)
part = pd.read_parquet(f"{out}/part-000000.parquet")
told = Detector(bundle).predict(root)
for name in COLUMNS[:-1]: test_eq(list(part[name]), list(told[name]))
test_eq(answer_part(out, plan_digest(plan), 0), first | dict(earlier=66))
Path(out, "part-000000.parquet").write_bytes(b"PAR1 cut short")
test_eq(answer_part(out, plan_digest(plan), 0), first)

# %% [markdown]
# ## Handing out
#
# Each worker has four parts at most in front of it. When one is done the next is handed out, and the number
# of workers is looked at again, for they may come and go. So the scheduler knows a few tasks, however many
# parts there are. If a worker is killed, Dask gives its parts to others.

# %%
#| export
_IN_FLIGHT = 4  # parts a worker


# %%
#| export
def _answer_of(future) -> dict[str, int]: # from `answer_part`
    "What a worker says of a part, or one sentence on why there is nothing."
    try: return future.result()
    except StudyError: raise
    except Exception as e: raise StudyError(
        f"Expected a worker to answer for {future.key}, found {type(e).__name__}: {e}; "
        "mend that, and the same command goes on.") from None


# %%
#| export
def answer_parts(
    client,                       # of Dask
    folder: str,
    plan: dict,
    each=lambda counts: None, # called with what `answer_part` gives for every part
):
    "Have all parts answered by the workers of a cluster, a few in flight at a time."
    from distributed import as_completed
    numbers, digest, working = iter(range(plan["parts"])), plan_digest(plan), as_completed()
    do = import_module("pneumo_nb.many").answer_part  # a worker knows nothing of a notebook's definitions
    def hand_out():
        room = max(_IN_FLIGHT * len(client.nthreads()), 1) - working.count()
        for number in islice(numbers, max(room, 0)):
            working.add(client.submit(do, folder, digest, number, pure=False,
                                      key=f"part-{number:06d}-{uuid.uuid4().hex}"))
    hand_out()
    while working.count():
        for future in working.next_batch(): each(_answer_of(future))
        del future  # or the scheduler would keep it
        hand_out()


# %% [markdown]
# The workers are processes of this machine, or those of a cluster that runs already. Workers of this machine
# share its threads evenly. They end with the process that began them, however that ends.

# %%
#| export
_EXTRAS = dict(distributed="cluster", fsspec="cluster", pyarrow="parquet")

def check_packages(
    extras: dict[str, str] = _EXTRAS, # package → the extra that brings it
):
    "Refuse to begin without packages that only several workers need."
    missing = [name for name in extras if find_spec(name) is None]
    if missing: raise StudyError(
        f"Expected {in_list(missing)} to answer with several workers, found none; install pneumo_nb with its "
        f"{in_list(sorted({f'extra {extras[name]}' for name in missing}))}.")


# %%
#| export
def _own_cluster(workers: int): # distributed.LocalCluster
    "Workers on this machine."
    from distributed import LocalCluster
    quiet = dict(TF_CPP_MIN_LOG_LEVEL=os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"))
    return LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0",
                        env=quiet | thread_variables(max(threads() // workers, 1)))


# %%
#| export
def _their_client(scheduler: str, seconds: float): # distributed.Client
    "A client of a cluster that runs, with a worker at least."
    from distributed import Client
    try:
        client = Client(scheduler, timeout=seconds)
        client.wait_for_workers(1, timeout=seconds)
        return client
    except (OSError, TimeoutError, ValueError) as e: raise StudyError(
        f"Expected a Dask scheduler with workers at {scheduler}, found none ({type(e).__name__}); start "
        "`dask scheduler` and `dask worker`, or give --workers.") from None


# %%
#| export
@contextmanager
def cluster(
    workers: int = 1,
    scheduler: str = "",  # address of a running one, such as tcp://host:8786; instead of `workers`
    seconds: float = 20., # how long to wait for it
): # yields distributed.Client
    "A client of a cluster; an own one ends with the block."
    from distributed import Client
    if scheduler:
        with _their_client(scheduler, seconds) as client: yield client
    else:
        with _own_cluster(workers) as own, Client(own) as client: yield client


# %%
test_fail(lambda: cluster(scheduler="tcp://127.0.0.1:9", seconds=.2).__enter__(),
          contains="Expected a Dask scheduler with workers at tcp://127.0.0.1:9")

# %% [markdown]
# ## All together
#
# At the end the folder has a manifest. Its name and that of the plan begin with `_`, which readers of Parquet
# pass over. So `pd.read_parquet(FOLDER)` reads the answers of all parts.

# %%
#| export
_VERSIONED = ["tensorflow", "keras", "numpy", "opencv-python", "distributed", "fsspec", "pyarrow"]


# %%
#| export
def _finished(folder: str, plan: dict) -> dict | None: # the manifest; None where work is left
    "What an earlier call left when it was done, if all parts are still there."
    content = file_bytes(_at(folder, "_manifest.json"))
    if content is None: return None
    there, manifest = names_in(folder), json.loads(content)
    is_whole = all(f"part-{number:06d}.parquet" in there for number in range(plan["parts"]))
    return manifest if is_whole and manifest["plan"] == plan_digest(plan) else None


# %%
#| export
def _manifest_of(plan: dict, counts: Counter) -> dict:
    "What the answers are, and what made them."
    made_with = dict(python=platform.python_version()) | {name: version(name) for name in _VERSIONED}
    counted_films = dict(rows=counts["films"], unread=counts["unread"], flagged=counts["flagged"])
    return dict(format=1, plan=plan_digest(plan)) | plan | counted_films | dict(versions=made_with)


# %%
#| export
def answer_many(
    folder: str,      # of the plan
    plan: dict,       # from `make_plan`
    workers: int = 1,
    scheduler: str = "",
    each=lambda counts: None, # called with what `answer_part` gives for every part
) -> dict: # the manifest
    "Answer all parts of a plan that have no answers yet."
    if manifest := _finished(folder, plan):
        counts = dict(films=manifest["rows"], unread=manifest["unread"], flagged=manifest["flagged"])
        each(counts | dict(earlier=manifest["rows"]))
        return manifest
    total = Counter()
    def count(counts):
        total.update(counts)
        each(counts)
    with cluster(workers, scheduler) as client: answer_parts(client, folder, plan, count)
    put_file(_at(folder, "_manifest.json"), _plan_content(_manifest_of(plan, total)))
    return _manifest_of(plan, total)


# %%
manifest = answer_many(out, plan)
test_eq((manifest["rows"], manifest["unread"], manifest["parts"]), (66, 0, 1))
test_eq(answer_many(out, plan, scheduler="tcp://127.0.0.1:9"), manifest)   # nobody is asked
answers = pd.read_parquet(out)
test_eq(list(answers.file), list(told.file))
answers.head(3)


# %% [markdown]
# ## Films brought here
#
# A study or a judgement looks at films several times, and at all of them at once. Films at an address are
# brought into a temporary folder for that, which has the same name. A local folder stays where it is.

# %%
#| export
@contextmanager
def brought(
    place: str,     # folder, or its address
    say=print,      # gets one line
): # yields the folder
    "A folder to read, brought from its address for as long as the block lasts."
    if not is_address(place):
        yield place
        return
    files, root = filesystem(place)
    with asking(place): listed = files.find(root, detail=True) if files.exists(root) else {}
    sizes = {path: found["size"] for path, found in listed.items()}
    if not sizes: raise StudyError(f"Expected a folder of films, found nothing at {place}.")
    with tempfile.TemporaryDirectory(prefix="pneumo-films-") as above:
        folder = Path(above)/(root.rstrip("/").rpartition("/")[2] or "films")
        places = {path: _inside(folder, path.removeprefix(root.rstrip("/")), place) for path in sizes}
        with asking(place): files.get(list(places), list(places.values()))
        say(f"Brought {counted(len(sizes), 'file')} ({sum(sizes.values()) / 1e6:,.1f} MB) from {place}.")
        yield str(folder)


# %%
#| export
def _inside(folder: Path, name: str, place: str) -> str:
    "Where a file of an address goes; refused if that is outside of the folder."
    path = folder/name.lstrip("/")
    if ".." not in path.parts: return str(path)
    raise StudyError(f"Expected names that stay in a folder at {place}, found {in_words(name)}; rename it.")


# %%
store, _ = filesystem("memory://")
for file in sorted(root.rglob("*.jpeg")):
    store.pipe_file(f"/far/{root.name}/{file.relative_to(root).as_posix()}", file.read_bytes())
with brought(f"memory://far/{root.name}") as folder:
    test_eq(Path(folder).name, root.name)
    test_eq([Path(f).name for f in find_films([folder])], [Path(f).name for f in find_films([root])])
assert not Path(folder).exists()
with brought(root) as folder: test_eq(folder, root)
test_fail(lambda: _inside(Path("/a"), "/../b.png", "s3://a"), contains="found /../b.png")


# %% [markdown]
# What is written to an address is written here first. It is put there when it is done. If that fails, it
# stays here, and one sentence says where.

# %%
#| export
@contextmanager
def put_up(
    place: str, # a file or a folder, or its address
): # yields a path to write to
    "A path to write to, of which all is put to its address when the block has ended without an error."
    if not is_address(place):
        yield Path(place)
        return
    files, there = filesystem(place)
    with asking(place): is_taken = files.exists(there)
    if is_taken: raise StudyError(f"Expected nothing yet at {place}, found something; give another --out.")
    above, _, name = there.rstrip("/").rpartition("/")
    folder = Path(tempfile.mkdtemp(prefix="pneumo-out-"))
    try: yield folder/name
    except BaseException:
        shutil.rmtree(folder)
        raise
    try: _put_all(folder, place.rstrip("/").removesuffix(name))
    except PlaceError as e: raise StudyError(f"{e} What was to be put there is in {folder}.") from None
    shutil.rmtree(folder)


# %%
#| export
def _put_all(folder: Path, above: str):
    "Put the files of a folder, without what is hidden, below an address."
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        if not name.startswith("."): put_file(_at(above, name), file.read_bytes())


# %%
with put_up("memory://far/judged") as folder:
    folder.mkdir()
    (folder/"index.html").write_text("<html>")
test_eq(file_bytes("memory://far/judged/index.html"), b"<html>")
test_fail(lambda: put_up("memory://far/judged").__enter__(), contains="Expected nothing yet at memory://far")
with put_up("out.csv") as file: test_eq(file, Path("out.csv"))
store.rm("/far", recursive=True)
work.cleanup()
