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
# # The detector
#
# > One file that answers for any film: how sure, when not to believe it, and what it is not

# %%
#| default_exp detector

# %%
#| export
import csv, hashlib, io, json, os, tempfile, time, zipfile
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from pneumo_nb.run import (
    StudyError, atomic_path, is_hidden, jsonable, models, read_json, read_provenance, read_table,
    rng_for, threads, write_json)
from pneumo_nb.style import counted, in_list, model_title
from pneumo_nb.films import (
    FILM_ENDINGS, PlaceError, asking, check_gray, decode_film, dicom_remarks, dicom_tags, filesystem,
    in_words, is_address, read_bytes, read_film)
from pneumo_nb.cache import decode_films, squash, take
from pneumo_nb.measures import RULES, auroc
from pneumo_nb.doubt import (
    Reference, conformal_quantiles, conformal_sets, fit_reference, flags_of, left_out_answers,
    reference_arrays, reference_from)

# %%
#| hide
import keras
from fastcore.test import test_close, test_eq, test_fail
from keras import layers
from pneumo_nb.run import open_stage, write_csv
from pneumo_nb.phantom import make_dataset
from pneumo_nb.films import data_fingerprint, scan_dataset
from pneumo_nb.training import save_model


# %% [markdown]
# A run answers for its own films. A **detector** answers for any film, without notebooks and without the run.
# It is one file, a **bundle**, that can be copied to another machine.
#
# ## What is in a bundle
#
# A bundle is a plain zip with four files. The network, `network.keras`, is the one that the run saved, byte
# by byte. What train films look like is in `reference.npz` (chapter on doubt), and everything else in
# `card.json`. The manifest, `manifest.json`, has the SHA-256 sum of each. Its own sum names the bundle: the
# **digest**.

# %%
#| export
@dataclass(frozen=True)
class Bundle:
    "A network with all that its answers need."
    card: dict           # title, model, image_size, thresholds, conformal limits, where it is from …
    reference: Reference # what train films look like
    network: bytes       # a Keras file
    digest: str = ""     # of the manifest, once written


# %%
#| export
def _contents(bundle: Bundle) -> dict[str, bytes]: # name → content
    "The files of a bundle without the manifest."
    arrays = io.BytesIO()
    np.savez(arrays, **reference_arrays(bundle.reference))
    card = json.dumps(jsonable(bundle.card), indent=1, ensure_ascii=False, sort_keys=True)
    return {"card.json": card.encode(), "network.keras": bundle.network, "reference.npz": arrays.getvalue()}


# %%
#| export
def _manifest(contents: dict[str, bytes]) -> bytes:
    "The sums of all files, always written alike."
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())}
    return json.dumps(dict(format=1, sha256=sums), indent=1, sort_keys=True).encode()


# %%
#| export
def _packed(contents: dict[str, bytes]) -> bytes: # of a zip
    "Files and their manifest as a zip without times or compression."
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in {"manifest.json": _manifest(contents), **contents}.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # the same bytes on every system
            archive.writestr(entry, content)
    return packed.getvalue()


# %%
#| export
def bundle_bytes(bundle: Bundle) -> bytes:
    "The file of a bundle; the same bundle gives the same bytes."
    return _packed(_contents(bundle))

def write_bundle(
    bundle: Bundle,
    file: str | Path, # FILE.pneumo
) -> str: # the digest
    "Write a bundle, whole or not at all."
    with atomic_path(Path(file)) as partial: partial.write_bytes(bundle_bytes(bundle))
    return hashlib.sha256(_manifest(_contents(bundle))).hexdigest()


# %% [markdown]
# Reading sums up every file and packs the contents again. So every changed, added or missing byte is found.
# Nothing in a bundle is a program: no pickle, and Keras loads the network in its safe mode. The sums tell
# accidents, not who made a bundle: whoever changes a file can sum it up anew, and gets another digest.

# %%
#| export
_MEMBERS = {"card.json", "network.keras", "reference.npz"}
_MOST_BYTES = 2 << 30  # of a bundle


# %%
#| export
def _zip_contents(packed: bytes) -> dict[str, bytes]: # name → content; {} for no zip that could be a bundle
    "The files of a zip that is no longer unpacked than packed."
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            entries = archive.infolist()
            is_stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
            if not is_stored or sum(entry.file_size for entry in entries) > len(packed): return {}
            return {entry.filename: archive.read(entry) for entry in entries}
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile): return {}


# %%
#| export
def _address_bytes(address: str) -> bytes: # none of a file too large for a bundle
    "What lies at an address."
    files, path = filesystem(address)
    with asking(address): return files.cat_file(path) if files.size(path) <= _MOST_BYTES else b""

def _file_bytes(file: str | Path) -> bytes: # `file`: or an address
    "What is in a file that should be a bundle."
    try:
        if is_address(file): return _address_bytes(file)
        if not Path(file).is_file(): raise FileNotFoundError
        return Path(file).read_bytes() if Path(file).stat().st_size <= _MOST_BYTES else b""
    except (FileNotFoundError, IsADirectoryError): raise StudyError(
        f"Expected a bundle or a run's folder, found nothing at {file}; "
        "make a bundle with `pneumo bundle RUN --out FILE.pneumo`.") from None


# %%
#| export
def read_bundle(file: str | Path) -> Bundle: # `file`: or an address
    "The bundle in a file, if it is as it was written."
    packed = _file_bytes(file)
    contents = _zip_contents(packed)
    manifest = contents.pop("manifest.json", b"")
    if {*contents} != _MEMBERS or manifest != _manifest(contents) or packed != _packed(contents):
        raise StudyError(f"Expected {file} to be a bundle as it was written, found one that was changed, "
                         "cut short, or something else; copy it again, or make it anew with `pneumo bundle`.")
    with np.load(io.BytesIO(contents["reference.npz"]), allow_pickle=False) as arrays:
        reference = reference_from(arrays)
    digest = hashlib.sha256(manifest).hexdigest()
    return Bundle(json.loads(contents["card.json"]), reference, contents["network.keras"], digest)


# %% [markdown]
# ## From a run to a bundle
#
# Without a name the model is the one with the highest AUROC on validation films, the run's folds for a
# recipe. Test has no say.

# %%
#| export
def _check_is_run(folder: Path):
    "Refuse a folder that holds no run with films and networks."
    needed = ["images.csv", "metrics/data.json", "provenance.json"]
    missing = [name for name in needed if not (folder/name).exists()]
    if missing: raise StudyError(f"Expected a run's folder at {folder}, found no {in_list(missing)} there; "
                                 "name a run that has trained a network.")


# %%
#| export
def _chosen_model(folder: Path, model: str | None) -> str:
    "The model asked for, or the best on validation."
    saved = {file.stem for file in folder.glob("models/*.keras")}
    there = [name for name in models() if name in saved and (folder/f"predictions/{name}.csv").exists()]
    if model in there: return model
    if model or not there:
        raise StudyError(f"Expected a model that the run {folder.name} has kept, found {model or 'none'}; "
                         + (f"choose one of {in_list(there)}." if there else "train one of its networks."))
    tables = {name: left_out_answers(folder, name) for name in there}
    score = lambda name: auroc(tables[name].label.to_numpy(), tables[name].probability.to_numpy())
    return max(there, key=score)


# %% [markdown]
# Thresholds have short names: `half` is .5, the others are the study's rules, chosen on validation.

# %%
#| export
def rule_key(name: str) -> str: # of a rule in RULES
    "The name of a rule on the command line."
    return name.lower().replace(" .", "")


# %%
#| export
def _thresholds(validation: pd.DataFrame) -> dict[str, float]:
    "A threshold by each rule."
    return {"half": .5} | {rule_key(name): float(rule(validation)) for name, rule in RULES.items()}


# %%
test_eq([rule_key(name) for name in RULES], ["youden", "sensitivity95", "sensitivity98"])

# %% [markdown]
# A reference needs no more than some thousand films. From a larger set whole patients are drawn.

# %%
#| export
_MOST_FILMS = 6000  # that the reference is fitted to


# %%
#| export
def _some_patients(images: pd.DataFrame, seed: int) -> pd.DataFrame:
    "Films of as many patients as fit, all where they do."
    if len(images) <= _MOST_FILMS: return images
    names = rng_for(seed, "reference").permutation(images.patient_id.unique())
    place = images.patient_id.map({name: n for n, name in enumerate(names)})
    first = place.sort_values(kind="stable").index[:_MOST_FILMS]
    return images.loc[sorted(first)]


# %%
#| export
def _run_reference(folder: Path, size: int, seed: int) -> Reference:
    "The reference of a run's films that are not test."
    images = pd.read_csv(folder/"images.csv", dtype=dict(path=str, patient_id=str), keep_default_na=False)
    images.attrs["root"] = str(folder/read_json(folder/"metrics/data.json")["root"])
    known = _some_patients(images[images.split != "test"], seed)
    pixels = take(decode_films(images, size).pixels, known.index.to_numpy())  # decoded by the run already
    return fit_reference(pixels, known.patient_id.to_numpy(), seed)


# %% [markdown]
# What a detector is for, and what it is not, stands on its card, and with every answer.

# %%
#| export
INTENDED = "Research and teaching: how likely a frontal chest film of a child shows pneumonia."
NOT_FOR = ("No medical device. It was tested on films of the set that it learned from, knows no history and "
           "no other disease, and must not decide about a patient.")


# %%
#| export
def _trained_on(folder: Path) -> str:
    "The films that a run learned from, in words."
    images = read_table(folder/"images.csv", ["split", "patient_id"])
    facts, known = read_json(folder/"metrics/data.json"), images[images.split != "test"]
    is_drawn = facts["source"] == "phantoms"
    kind = "drawn phantoms" if is_drawn else f"films of the set {Path(facts['root']).name}"
    return f"{len(known):,} {kind}, {counted(known.patient_id.nunique(), 'patient')}"


# %%
#| export
def _own_test(folder: Path, model: str) -> dict: # measures with intervals; {} before the evaluation
    "What the run's evaluation says of the model."
    if not (folder/"comparison.csv").exists(): return {}
    rows = pd.read_csv(folder/"comparison.csv").set_index("model")
    if model not in rows.index: return {}
    names = ["films", "prevalence", "threshold", *(f"{name}{end}" for name in
             ("roc_auc", "sensitivity", "specificity", "accuracy", "brier") for end in ("", "_low", "_high"))]
    return {name: rows.loc[model, name].item() for name in names}


# %%
#| export
def _provenance(folder: Path, model: str) -> dict:
    "Code, versions, seed and films of the training."
    record = read_provenance(folder)["stages"].get(models()[model]["stage"], {})
    kept = {name: record.get(name) for name in ("git_commit", "versions", "parameters", "started")}
    return kept | dict(fingerprint=read_json(folder/"metrics/data.json")["fingerprint"])


# %%
#| export
_LICENCE = "Code: Apache-2.0. Public films (Kermany et al.): CC BY 4.0. Own films: as their owner says."
LEVEL = .9  # of the conformal sets


# %%
#| export
def bundle_of_run(
    folder: str | Path,       # the run's
    model: str | None = None, # None: the best on validation
) -> Bundle:
    "A run's model with its thresholds, limits and reference."
    folder = Path(folder).resolve()
    _check_is_run(folder)
    model = _chosen_model(folder, model)
    validation = left_out_answers(folder, model)
    network = (folder/f"models/{model}.keras").read_bytes()
    size, seed = _network_size(network), _seed(folder)
    history = pd.read_csv(folder/f"history/{model}.csv")
    limits = conformal_quantiles(validation.label, validation.probability, validation.patient_id, LEVEL)
    card = dict(
        title=f"{model_title(model)}, run {folder.name}", model=model, image_size=size,
        temperature=history.temperature.iloc[-1].item(), thresholds=_thresholds(validation),
        conformal=dict(level=LEVEL) | limits, calibration=dict(intercept=0., slope=1.),
        validation_films=len(validation), own_test=_own_test(folder, model), parent=None,
        trained_on=_trained_on(folder), provenance=_provenance(folder, model), licence=_LICENCE,
        intended=INTENDED) | {"not": NOT_FOR}
    return Bundle(card, _run_reference(folder, size, seed), network)


# %%
#| export
def _seed(folder: Path) -> int:
    "The seed of a run's films."
    return read_provenance(folder)["stages"].get("data", {}).get("parameters", {}).get("seed", 42)


# %%
#| export
def make_bundle(
    folder: str | Path,       # the run's
    model: str | None = None, # None: the best on validation
    out: str | Path = "detector.pneumo",
) -> str: # the digest
    "Write a run's detector into one file."
    return write_bundle(bundle_of_run(folder, model), out)


# %% [markdown]
# ## The network by itself
#
# Keras reads a network from a file only, so its bytes pass through a temporary one.

# %%
#| export
@contextmanager
def without_greeting():
    "Keep from the screen what TensorFlow says of the machine when it is imported."
    screen, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try: yield
    finally:
        os.dup2(screen, 2)
        for number in (screen, nowhere): os.close(number)


# %%
with without_greeting(): os.write(2, b"not on the screen")


# %%
#| export
def _load_network(content: bytes): # keras.Model
    "The network in these bytes, in Keras's safe mode."
    import keras, pneumo_nb.networks # the second knows the layers
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder)/"network.keras"
        file.write_bytes(content)
        try: return keras.saving.load_model(file, compile=False, safe_mode=True)
        except (ValueError, TypeError, KeyError, OSError) as e: raise StudyError(
            f"Expected a network that Keras loads in its safe mode, found one that it refuses "
            f"({type(e).__name__}); make the bundle anew with `pneumo bundle`.") from None


# %%
#| export
def _network_size(content: bytes) -> int:
    "Side of the squares that a network takes, told by its configuration alone."
    with zipfile.ZipFile(io.BytesIO(content)) as archive: config = json.loads(archive.read("config.json"))
    shapes = [layer["config"].get("batch_shape") for layer in config["config"]["layers"]]
    return next(shape for shape in shapes if shape)[1]


# %% [markdown]
# A saved network ends in one dense unit with a sigmoid. Before it, an ensemble has the log odds of each
# member. So the same pass gives the answer and how far the members are apart. A network alone has no range.

# %%
#| export
def _with_members(network): # → keras.Model with the input of the last unit; weights (k,), constant; members
    "A network that stops before its last unit."
    import keras
    last = network.layers[-1]
    weights, constant = last.get_weights()
    joined = isinstance(last.input._keras_history.operation, keras.layers.Concatenate)
    members = len(weights) if joined and np.ptp(weights) < 1e-6 * np.abs(weights).max() else 1
    before = keras.Model(network.inputs[0], last.input)
    return before, weights[:, 0].astype(np.float64), float(constant[0]), members


# %% [markdown]
# ## Finding films
#
# Folders are walked in the order of names. Other than for a study, which lists all films at once, only a
# folder's own names are in memory at a time. A file that is
# named is tried whatever its ending. Of a folder's files only those count that end like films.

# %%
#| export
def _walk(folder: str, above: tuple = ()): # yields paths; `above`: folders that it lies in
    "Films in a folder and below by name; nothing hidden, no masks of phantoms, no link that leads back up."
    real = os.path.realpath(folder)
    if real in above: return
    with os.scandir(folder) as entries:
        names = sorted((entry.name, entry.is_dir()) for entry in entries)
    is_drawn = ("phantom.json", False) in names
    for name, is_folder in names:
        if is_hidden(name, "") or (is_drawn and name == "masks"): continue
        if is_folder: yield from _walk(os.path.join(folder, name), (*above, real))
        elif name.lower().endswith(FILM_ENDINGS): yield os.path.join(folder, name)


# %%
#| export
def _walk_address(address: str): # yields addresses
    "The same at an address, where there are no links."
    files, folder = filesystem(address)
    with asking(address): listed = files.ls(folder, detail=True)
    paths = [(found["name"].rstrip("/"), found["type"] == "directory") for found in listed]
    names = sorted((path.rpartition("/")[2], is_folder, path) for path, is_folder in paths)
    is_drawn = any(name == "phantom.json" for name, *_ in names)
    for name, is_folder, path in names:
        if path == folder.rstrip("/") or is_hidden(name, "") or (is_drawn and name == "masks"): continue
        if is_folder: yield from _walk_address(files.unstrip_protocol(path))
        elif name.lower().endswith(FILM_ENDINGS): yield files.unstrip_protocol(path)


# %%
#| export
def _exists(place: str) -> bool: # path or address
    "Whether anything is at a place."
    if not is_address(place): return os.path.exists(place)
    files, path = filesystem(place)
    with asking(place): return files.exists(path)

def _films_at(place: str): # yields paths or addresses
    "The film at a place, or those in its folder. An address that ends like a film is one."
    if is_address(place): return [place] if place.lower().endswith(FILM_ENDINGS) else _walk_address(place)
    return _walk(place) if os.path.isdir(place) else [place]


# %%
#| export
def find_films(
    places: list, # files and folders, as paths or addresses
): # iterator of paths and addresses, as text
    "The films at some places; refuses at once what is not there."
    for place in map(str, places):
        if not _exists(place):
            raise StudyError(f"Expected a film or a folder, found nothing at {in_words(place)}.")
    return chain.from_iterable(map(_films_at, map(str, places)))


# %%
with tempfile.TemporaryDirectory() as folder:
    for name in ("b/2.png", "b/1.dcm", "b/notes.txt", "b/@eaDir/2.png", "c.jpeg", ".hidden.png",
                 "masks/c.png", "phantom.json"):
        Path(folder, name).parent.mkdir(exist_ok=True, parents=True)
        Path(folder, name).touch()
    Path(folder, "b/back").symlink_to(folder)                     # would go round for ever
    found = [Path(film).relative_to(folder).as_posix() for film in find_films([folder])]
    test_eq(found, ["b/1.dcm", "b/2.png", "c.jpeg"])
    test_fail(lambda: find_films([folder, "nowhere"]), contains="found nothing at nowhere")

# %% [markdown]
# The same names at an address give the same films:

# %%
store, _ = filesystem("memory://")
for name in ("b/2.png", "b/1.dcm", "b/notes.txt", "b/@eaDir/2.png", "c.jpeg", ".hidden.png", "masks/c.png",
             "phantom.json"): store.pipe_file(f"/set/{name}", b"")
test_eq([film.removeprefix("memory:///set/") for film in find_films(["memory://set"])], found)
test_eq(list(find_films(["memory://set/c.jpeg"])), ["memory://set/c.jpeg"])
test_fail(lambda: find_films(["memory://none"]), contains="found nothing at memory://none")
store.rm("/set", recursive=True)

# %% [markdown]
# ## A detector
#
# What the card says is looked up by these.

# %%
#| export
COLUMNS = ["file", "probability", "low", "high", "call", "conformal", "flags", "seconds"]
_BATCH = 32


# %%
#| export
@dataclass
class Read:
    "A film that was read, or why it could not be."
    name: str                  # of the file in words, or of the array
    pixels: np.ndarray | None  # (S, S) uint8
    flags: list[str]           # what its DICOM tags and its looks say against believing an answer
    path: str | None = None    # of the file
    tags: dict | None = None   # DICOM tags asked for


# %%
#| export
def _read_file(path: str, size: int, tags: tuple) -> Read:
    "Decode and squash the film in a file."
    name = in_words(path)
    try:
        content = read_bytes(path)
        pixels = squash(decode_film(content, name), size)
        said = {tag: in_words(value) for tag, value in dicom_tags(content, tags).items()} if tags else {}
        return Read(name, pixels, dicom_remarks(content), path, said)
    except PlaceError: raise  # of which the film knows nothing
    except (StudyError, OSError) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        return Read(name, None, [f"could not be read: {' '.join(reason.split())}"], path)


# %%
#| export
def _read(item, size: int, tags: tuple) -> Read: # `item`: a path, or a name and an array
    "One film, ready for the network."
    if isinstance(item, str): return _read_file(item, size, tags)
    return Read(item[0], squash(np.ascontiguousarray(item[1]), size), [])


# %%
#| export
def _read_group(items: list, bundle: Bundle, tags: tuple) -> list[Read]:
    "Some films, with how they are unlike those learned from."
    films = [_read(item, bundle.card["image_size"], tags) for item in items]
    read = [film for film in films if film.pixels is not None]
    if read: doubts = flags_of(bundle.reference, np.stack([film.pixels for film in read]))
    for n, film in enumerate(read): film.flags.extend(doubts[n])
    return films


# %% [markdown]
# Films are read by threads, a few films at a time, at most eight batches ahead of the network. Nothing else
# is kept of them, so memory does not grow with their number. Films at an address are mostly waited for, so
# more threads read them.

# %%
#| export
_GROUP = 4  # films that a thread reads at a time: half the work on their looks that single ones need
_WAITING = 8  # threads that wait for films at an address, for each that would read files


# %%
#| export
def _read_ahead(items, bundle: Bundle, tags: tuple = ()): # yields Read, in order
    "Films in order, read on all cores, with few in memory."
    items = iter(items)
    first = next(items, "")
    is_far = isinstance(first, str) and is_address(first)
    pool = ThreadPoolExecutor(threads() * (_WAITING if is_far else 1))
    items = chain([first] if first else [], items)
    groups = iter(lambda: list(islice(items, _GROUP)), [])
    submit = lambda group: pool.submit(_read_group, group, bundle, tags)
    try:
        waiting = deque(map(submit, islice(groups, 8 * _BATCH // _GROUP)))
        while waiting:
            yield from waiting.popleft().result()
            waiting.extend(map(submit, islice(groups, 1)))
    finally: pool.shutdown(cancel_futures=True)  # who stops does not wait for films that nobody asks for


# %%
#| export
def _named(films): # yields paths as text, or (name, array)
    "Films as they were given: paths, folders, one array or several."
    if isinstance(films, (str, os.PathLike)): films = [films]
    if isinstance(films, np.ndarray) and films.ndim == 2: films = films[None]
    for n, film in enumerate(films):
        if not isinstance(film, (str, os.PathLike)): yield f"array {n}", _checked_array(film)
        elif is_address(film): yield from _films_at(film)
        elif os.path.isdir(film): yield from _walk(os.fspath(film))
        else: yield os.fspath(film)


# %%
#| export
def _checked_array(film) -> np.ndarray: # (H, W) uint8
    "An array that can be a film."
    film = np.asarray(film)
    if film.ndim == 3 and film.shape[2] == 1: film = film[..., 0]
    if film.ndim != 2 or film.dtype != np.uint8 or min(film.shape) < 16:
        raise StudyError("Expected a film as (H, W) uint8 with at least 16 pixels a side, found "
                         f"{film.shape} {film.dtype}; read films with `read_film`.")
    return film


# %%
#| export
def threshold_of(card: dict, rule: str) -> float:
    "The threshold of a rule."
    rules = card["thresholds"]
    if rule in rules: return rules[rule]
    raise StudyError(f"Expected one of the rules {in_list(list(rules))}, found {rule!r}.")


# %%
#| export
def conformal_limits(card: dict) -> dict[str, float]:
    "The limits of the sets; none on the card where there were too few patients."
    limits = card["conformal"]
    return {name: float("inf") if limits[name] is None else limits[name] for name in ("normal", "pneumonia")}


# %%
test_eq(conformal_limits(dict(conformal=dict(normal=None, pneumonia=.4))), dict(normal=np.inf, pneumonia=.4))


# %%
#| export
def _bundle_in_memory(folder: Path) -> Bundle:
    "A run's bundle, with the digest that it would have as a file."
    bundle = bundle_of_run(folder)
    return replace(bundle, digest=hashlib.sha256(_manifest(_contents(bundle))).hexdigest())

def bundle_at(place: str | Path) -> Bundle: # a file, its address, or the folder of a run
    "A bundle that is there, or made from a run."
    return _bundle_in_memory(Path(place)) if Path(place).is_dir() else read_bundle(place)


# %%
#| export
def _explained(detector, film, method: str, own: dict) -> np.ndarray: # (H, W) float32
    "A map, enlarged to its film."
    import cv2
    from pneumo_nb.explanation import explain
    is_path = isinstance(film, (str, os.PathLike))
    film = decode_film(read_bytes(film), in_words(film)) if is_path else _checked_array(film)
    found = explain(detector.network, squash(film, detector.size)[None], method, **own)[0]
    return cv2.resize(np.asarray(found, np.float32), film.shape[::-1], interpolation=cv2.INTER_LINEAR)


# %%
#| export
class Detector:
    "Answers for films, and says when not to believe it. Films: paths, folders, or arrays (H, W) uint8."
    def __init__(self, bundle: Bundle):
        self.bundle, self.card, self.digest = bundle, bundle.card, bundle.digest
        self.size = self.card["image_size"] # side of the squares that the network sees
        self.network = _load_network(bundle.network)
        self._before, self._weights, self._constant, self.members = _with_members(self.network)

    @classmethod
    def load(cls, path: str | Path): # → Detector
        "A detector from a bundle, or made from the folder of a run."
        return cls(bundle_at(path))

    def probabilities(self, pixels: np.ndarray) -> np.ndarray: # (N, size, size) uint8 → (1 + members, N)
        "Temperature-scaled probabilities of pneumonia: the answer, then each member's."
        gray = check_gray(np.asarray(pixels)[..., None]).astype(np.float32)
        parts = np.asarray(self._before.predict_on_batch(gray), np.float64)
        answer = parts @ self._weights + self._constant
        each = parts * self._weights.sum() + self._constant if self.members > 1 else answer[:, None]
        line = self.card["calibration"]
        return expit(line["intercept"] + line["slope"] * np.column_stack([answer, each]).T)

    def stream(self, films, rule: str = "sensitivity95", tags: tuple = ()): # yields lists of rows
        "Answers in the order of the films, with each film's `path`; memory does not grow with their number."
        threshold = threshold_of(self.card, rule)
        reads = _read_ahead(_named(films), self.bundle, tuple(tags))
        while batch := list(islice(reads, _BATCH)): yield _answer_batch(self, batch, threshold)

    def predict(self, films, rule: str = "sensitivity95") -> pd.DataFrame: # `COLUMNS`; one row a film
        "Answers for films. A file that cannot be read has no probability, and a flag that says why."
        if isinstance(films, (str, os.PathLike)): films = find_films([films])  # refuses what is not there
        return pd.DataFrame([row for rows in self.stream(films, rule) for row in rows], columns=COLUMNS)

    def explain(self, film, method: str = "occlusion", **own) -> np.ndarray: # (H, W) float32, film's own size
        "Where on a film the answer comes from; above 0 what speaks for pneumonia. `method`: of `METHODS`."
        return _explained(self, film, method, own)


# %%
#| export
def _answer_batch(detector: Detector, batch: list[Read], threshold: float) -> list[dict]:
    "Rows of answers for some films."
    began, read = time.perf_counter(), [film for film in batch if film.pixels is not None]
    answers = iter(_answers(detector, read, threshold) if read else [])
    nothing = dict.fromkeys(("probability", "low", "high"), float("nan")) | dict(call="", conformal="")
    said = [next(answers) if film.pixels is not None else nothing for film in batch]
    seconds = round((time.perf_counter() - began) / len(batch), 4)
    return [dict(file=film.name) | row | dict(flags="; ".join(film.flags), seconds=seconds, path=film.path)
            | (film.tags or {}) for film, row in zip(batch, said)]


# %%
#| export
def _answers(detector: Detector, read: list[Read], threshold: float): # yields rows
    "What the detector says of films that could be read."
    answer, *each = detector.probabilities(np.stack([film.pixels for film in read]))
    low, high = np.min(each, axis=0), np.max(each, axis=0)
    sets = conformal_sets(answer, conformal_limits(detector.card))
    for n in range(len(read)):
        numbers = (float(f"{value[n]:.12g}") for value in (answer, low, high))
        call = "pneumonia" if answer[n] >= threshold else "normal"
        yield dict(zip(("probability", "low", "high"), numbers)) | dict(call=call, conformal=sets[n])


# %% [markdown]
# A small run on phantoms, with a network of a few weights, gives a bundle. Written twice, it has the same
# bytes.

# %%
def small_run(folder):
    root = make_dataset(Path(folder)/"set", n_train=120, n_test=16, n_val=0, seed=1)
    stage = open_stage("mlp", Path(folder)/"run", seed=1)
    images = scan_dataset(root)
    is_test = images.split == "test"
    images["split"] = np.where(is_test, "test", np.where(images.index % 3 == 0, "validation", "train"))
    write_csv(stage.path("images.csv"), images)
    write_json(stage.path("metrics/data.json"), dict(root=str(root), source="phantoms",
                                                    fingerprint=data_fingerprint(images)))
    keras.utils.set_random_seed(1)
    network = keras.Sequential([keras.Input((32, 32, 1)), layers.Rescaling(1 / 255),
                                layers.AveragePooling2D(4), layers.Flatten(), layers.Dense(1, "sigmoid")])
    save_model(stage, "mlp", network, 1.)
    pixels = decode_films(images.set_axis(images.index), 32).pixels
    said = network.predict(pixels[..., None], verbose=0)[:, 0]
    table = images[["path", "label"]].assign(split=images.split, probability=said)
    write_csv(stage.path("predictions/mlp.csv"), table[table.split != "train"])
    write_csv(stage.path("history/mlp.csv"), pd.DataFrame(dict(temperature=[1.])))
    return stage.folder, root, table

folder = tempfile.TemporaryDirectory()
os.environ["PNEUMO_CACHE"] = f"{folder.name}/cache"
run, root, table = small_run(folder.name)
file = Path(folder.name)/"small.pneumo"
digest = make_bundle(run, out=file)
test_eq(make_bundle(run, out=Path(folder.name)/"again.pneumo"), digest)
test_eq(file.read_bytes(), Path(folder.name, "again.pneumo").read_bytes())
test_fail(lambda: make_bundle(run, "cnn", file), contains="found cnn; choose one of mlp.")

# %% [markdown]
# The bundle says what the run said:

# %%
detector = Detector.load(file)
answers = detector.predict(root/"test")
test_eq(list(answers), COLUMNS)
told = table.set_index("path").probability
paths = [Path(f).relative_to(root).as_posix() for f in answers.file]
test_close(answers.probability.to_numpy(), told[paths].to_numpy(), eps=1e-6)
answers.head(3).style.hide(axis="index").format(precision=3)

# %% [markdown]
# One changed byte anywhere is found:

# %%
content = file.read_bytes()
spoiled = Path(folder.name)/"spoiled.pneumo"
for place in (content.find(b"network.keras") + 2000, content.find(b"small"), len(content) // 2):
    spoiled.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1:])
    test_fail(lambda: Detector.load(spoiled), contains="was changed")
test_fail(lambda: Detector.load(root/"nothing.pneumo"), contains="found nothing at")

# %% [markdown]
# Arrays are taken as well. What cannot be a film is refused, and what is no film is flagged.

# %%
noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
assert "unlike the films it learned from" in detector.predict(noise)["flags"][0]
test_fail(lambda: detector.predict(noise / 255), contains="found (64, 64) float64")
test_fail(lambda: detector.predict(noise, rule="none"), contains="found 'none'")
test_eq(detector.explain(noise, patch_size=8, stride=8).shape, (64, 64))


# %% [markdown]
# A map is drawn over its film and written under the film's own path, so that no two films share a file.

# %%
#| export
def map_file(folder: Path, film: str) -> Path: # `film`: path
    "Where the map of a film goes: FOLDER/PATH.png."
    parts = ["up" if part == ".." else in_words(part) for part in Path(film).parts]
    return folder.joinpath(*(part for part in parts if part != "/")).with_name(f"{parts[-1]}.png")


# %%
test_eq(map_file(Path("m"), "/a/../b.dcm").as_posix(), "m/a/up/b.dcm.png")


# %%
#| export
def write_map(
    detector: Detector,
    film: str,     # path
    folder: Path,
    method: str = "occlusion",
) -> Path:
    "Write a film with its map over it."
    import cv2
    from pneumo_nb.explanation import overlay
    found, file = detector.explain(film, method), map_file(Path(folder), film)
    shown = overlay(read_film(film), found, max(float(np.abs(found).max()), .05))
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as partial:
        partial.write_bytes(cv2.imencode(".png", np.uint8(shown[..., ::-1] * 255))[1])
    return file


# %%
written = write_map(detector, answers.file[0], Path(folder.name)/"maps")
test_eq(read_film(written).shape, read_film(answers.file[0]).shape)

# %% [markdown]
# ## A file of answers
#
# `pneumo predict` writes answers as they come. Beside the file, `FILE.about.json` says who answered, by which
# rule, and what the answers are not. If a writing was interrupted, the next call goes on behind the last
# whole line. It must be the same detector, rule and tags, and the same films in the same order: every film
# that has an answer is compared with the one that is there now.

# %%
#| export
_KINDS = (".csv", ".jsonl", ".parquet")


# %%
#| export
def about(detector: Detector, rule: str, tags: tuple = ()) -> dict:
    "What a file of answers must say besides."
    card = detector.card
    dicom_tags(b"", tags)  # refuses those that may tell who is on a film
    said = {name: card[name] for name in ("title", "trained_on", "intended", "not")}
    asked = dict(rule=rule, threshold=threshold_of(card, rule), tags=list(tags))
    return dict(detector=detector.digest) | asked | said


# %%
#| export
def _said_of(line: bytes, kind: str) -> tuple[str, str, str]: # film, call, flags
    "What a line of a file says; nothing if it is no answer."
    try:
        if kind == ".jsonl": row = json.loads(line)
        else: row = dict(zip(COLUMNS, next(csv.reader([line.decode()]))))
        return row["file"], row["call"], row["flags"]
    except (ValueError, KeyError, TypeError, csv.Error): return "", "", ""


# %%
#| export
def _whole_lines(file: Path): # yields lines and where they end
    "Lines of a file but one that was cut short."
    end = 0
    with open(file, "rb") as f:
        for line in f:
            end += len(line)
            if line.endswith(b"\n"): yield line, end


# %%
torn = Path(folder.name)/"torn.csv"
torn.write_bytes(b"one\ntwo\nthr")                             # killed while it wrote
test_eq(list(_whole_lines(torn)), [(b"one\n", 4), (b"two\n", 8)])
test_eq(_said_of(b'"a, b.png",.7,.6,.8,normal,both,,0.1\n', ".csv"), ("a, b.png", "normal", ""))
test_eq(_said_of(b"[1]\n", ".jsonl"), ("", "", ""))


# %%
#| export
def _text_of(rows: list[dict], kind: str, columns: list[str]) -> str:
    "Rows as lines of a file."
    if kind == ".csv":
        return pd.DataFrame(rows, columns=columns).to_csv(index=False, header=False, lineterminator="\n")
    return "".join(json.dumps(jsonable({name: row.get(name) for name in columns}), ensure_ascii=False) + "\n"
                   for row in rows)


# %%
#| export
def _check_out(out: Path):
    "Refuse a file that cannot be written."
    if out.suffix not in _KINDS:
        raise StudyError(f"Expected a file that ends in {', '.join(_KINDS)}, found {out.name}; "
                         "rename it.")
    if not out.parent.is_dir():
        raise StudyError(f"Expected a folder to write {out.name} into, found none at {out.parent}.")
    if out.suffix == ".parquet":
        try: import pyarrow # noqa: F401
        except ModuleNotFoundError: raise StudyError(
            "Expected pyarrow to write Parquet, found none; install pneumo_nb with its extra parquet, "
            "or write .csv or .jsonl.") from None


# %%
#| export
def _note_of(file: Path) -> Path:
    "Where stands what answers are not."
    return file.with_name(file.name + ".about.json")


# %%
#| export
def _begin(lines: Path, asked: dict): # `asked`: from `about`
    "Begin a file of answers, or refuse one that holds others."
    note = _note_of(lines)
    if lines.exists() and not (note.exists() and read_json(note) == jsonable(asked)):
        raise StudyError(f"Expected {lines.name} to hold answers of the same detector, rule and tags, found "
                         "others; give another --out, or remove it and its .about.json.")
    write_json(note, asked)
    lines.touch()


# %%
#| export
def _check_same(place: int, film: str, now: str):
    "Refuse to go on with other films than an earlier call had."
    if film != now: raise StudyError(
        f"Expected film {place:,} to be {film or 'named'} as in the answers that there are, found {now}; "
        "give the same films, or another --out.")


# %%
#| export
def _taken_up(lines: Path, head: str, films) -> tuple[Counter, int]: # films, unread, flagged; bytes to keep
    "Pass over the films that have an answer; refuse others than these."
    seen, end = Counter(), 0
    for n, (line, end) in enumerate(_whole_lines(lines)):
        if head and not n: continue
        film, call, flags = _said_of(line, lines.suffix)
        _check_same(seen["films"] + 1, film, in_words(next(films, "no more")))
        seen.update(films=1, unread=not call, flagged=bool(call and flags))
    return seen, end


# %%
#| export
@contextmanager
def _alone(lines: Path):
    "While no other process writes the same file."
    from filelock import FileLock, Timeout
    lock = lines.with_name(f".{lines.name}.lock")
    try:
        with FileLock(lock, timeout=0):
            yield
            lock.unlink(missing_ok=True)
    except Timeout: raise StudyError(f"Another process is writing {lines.name}; wait for it, "
                                     "or give another --out.") from None


# %% [markdown]
# A Parquet file cannot be added to. Its answers are first written as lines into a hidden file, which becomes
# the Parquet file at the end.

# %%
#| export
_NUMBERS = {"probability", "low", "high", "seconds"}

def _schema(columns: list[str]): # → pyarrow.Schema
    "Which columns hold numbers, and which text."
    import pyarrow
    return pyarrow.schema([(name, pyarrow.float64() if name in _NUMBERS else pyarrow.string())
                           for name in columns])

def answer_table(rows: list[dict], columns: list[str]): # → pyarrow.Table
    "Rows of answers as Parquet holds them."
    import pyarrow
    rows = [{name: row.get(name) for name in columns} for row in jsonable(rows)]
    texts = [{name: value if name in _NUMBERS or value is None else str(value) for name, value in row.items()}
             for row in rows]
    return pyarrow.Table.from_pylist(texts, _schema(columns))


# %%
#| export
def _to_parquet(lines: Path, out: Path, columns: list[str]):
    "Lines of answers as one Parquet file, whole or not at all."
    from pyarrow.parquet import ParquetWriter
    with atomic_path(out) as partial, ParquetWriter(partial, _schema(columns)) as writer, \
         open(lines, encoding="utf-8") as f:
        while some := [json.loads(line) for line in islice(f, 10_000)]:
            writer.write_table(answer_table(some, columns))


# %%
#| export
def _finish_parquet(lines: Path, out: Path, columns: list[str]):
    "The Parquet file and its note, in place of the lines and theirs."
    write_json(_note_of(out), read_json(_note_of(lines)))
    _to_parquet(lines, out, columns)
    for done in (lines, _note_of(lines)): done.unlink()


# %%
#| export
def _lines_of(out: Path) -> Path:
    "Where answers are written as they come."
    if out.suffix != ".parquet": return out
    if out.exists(): raise StudyError(f"Expected no file yet at {out}, found one; give another --out.")
    return out.with_name(f".{out.name}.jsonl")


# %%
#| export
def write_answers(
    detector: Detector,
    places: list,                # files and folders
    out: str | Path,             # .csv, .jsonl or .parquet
    rule: str = "sensitivity95",
    tags: tuple = (),            # DICOM tags to add
    each=lambda rows: None,      # called with the rows of every batch, before they are written
    earlier=lambda seen: None,   # called once, with what an earlier call had written: films, unread, flagged
):
    "Write answers batch by batch; go on where an earlier call was interrupted."
    out, asked, columns = Path(out), about(detector, rule, tags), [*COLUMNS, *tags]
    _check_out(out)
    lines, films = _lines_of(out), find_films(places)
    head = ",".join(columns) + "\n" if lines.suffix == ".csv" else ""
    with _alone(lines):
        _begin(lines, asked)
        seen, end = _taken_up(lines, head, films)
        earlier(seen)
        with open(lines, "ab") as f:
            f.truncate(end)
            if not end: f.write(head.encode())
            for rows in detector.stream(films, rule, tags):
                each(rows)
                f.write(_text_of(rows, lines.suffix, columns).encode())
                f.flush()
        if lines != out: _finish_parquet(lines, out, columns)


# %%
whole, cut = Path(folder.name)/"whole.csv", Path(folder.name)/"cut.csv"
write_answers(detector, [root/"train"], whole)
write_answers(detector, [root/"train"], cut)
cut.write_bytes(cut.read_bytes()[:3000])               # as after a kill
begun = cut.read_bytes().count(b"\n") - 1
write_answers(detector, [root/"train"], cut, earlier=lambda seen: test_eq(seen["films"], begun))
columns = COLUMNS[:-1]                                 # all but the seconds
first, second = (pd.read_csv(f, keep_default_na=False)[columns] for f in (whole, cut))
words = ["file", "call", "conformal", "flags"]
test_eq(second[words].values.tolist(), first[words].values.tolist())
test_close(second.probability.to_numpy(), first.probability.to_numpy(), eps=1e-6)
test_fail(lambda: write_answers(detector, [root/"train"], cut, "half"), contains="of the same detector, rule")
test_fail(lambda: write_answers(detector, [root/"test"], cut), contains="as in the answers that there are")
folder.cleanup()
