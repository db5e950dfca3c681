"""A bundle answers as its run did, anywhere; what was changed is refused; killed answers go on."""
import io, json, os, shutil, signal, subprocess, sys, time, zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from conftest import variables
from pneumo_nb.cli import main
from pneumo_nb.detector import (
    COLUMNS, Detector, bundle_of_run, make_bundle, map_file, read_bundle, write_answers, write_bundle)
from pneumo_nb.films import read_film
from pneumo_nb.phantom import make_dataset
from pneumo_nb.run import StudyError, read_json

ROOT = Path(__file__).parents[1]
SAID = ["file", "call", "conformal", "flags"]
NUMBERS = ["probability", "low", "high"]

@pytest.fixture(scope="module")
def detector(bundle): return Detector.load(bundle)

@pytest.fixture(scope="module")
def films(evaluated):
    "The folder of the run's films."
    return (evaluated.folder/read_json(evaluated.folder/"metrics/data.json")["root"]).resolve()

@pytest.fixture(scope="module")
def small(bundle, tmp_path_factory):
    "A bundle with a network of a few weights, of which a process is told at once."
    import keras
    from keras import layers
    whole, file = read_bundle(bundle), tmp_path_factory.mktemp("small")/"small.pneumo"
    keras.utils.set_random_seed(1)
    side = whole.card["image_size"]
    network = keras.Sequential([keras.Input((side, side, 1)), layers.Rescaling(1 / 255),
                                layers.AveragePooling2D(4), layers.Flatten(), layers.Dense(1, "sigmoid")])
    network.save(file.with_suffix(".keras"))
    write_bundle(replace(whole, network=file.with_suffix(".keras").read_bytes()), file)
    return file

@pytest.fixture(scope="module")
def many(films, tmp_path_factory):
    "A folder with 1,600 small films."
    folder = tmp_path_factory.mktemp("many")
    known = [cv2.resize(read_film(file), (48, 48)) for file in sorted((films/"train").glob("*/*.jpeg"))]
    for n in range(1600): cv2.imwrite(str(folder/f"{n:04d}.png"), known[n % len(known)])
    return folder

@pytest.fixture(scope="module")
def unbroken(small, many, tmp_path_factory):
    "Answers for many films, written in one go; memory in use, MB, and lines on disk with each new batch."
    import psutil
    out, process, seen = tmp_path_factory.mktemp("unbroken")/"a.csv", psutil.Process(), []
    write_answers(Detector.load(small), [many], out,
                  each=lambda rows: seen.append((process.memory_info().rss / 1e6, lines_of(out))))
    return table_of(out), *zip(*seen)

def lines_of(file): return file.read_bytes().count(b"\n") if file.exists() else 0

def table_of(file):
    "A table of answers."
    return pd.read_csv(file, keep_default_na=False)

def assert_same_answers(one, other):
    assert one[SAID].equals(other[SAID])
    np.testing.assert_allclose(one[NUMBERS].replace("", -1).astype(float),
                               other[NUMBERS].replace("", -1).astype(float), atol=1e-6)

# ---- commands where neither run nor checkout is

FORGE = """
import json, os, sys, traceback
import pneumo_nb, keras, tensorflow              # once; nothing is computed before a fork
import pneumo_nb.detector
from pneumo_nb.cli import main
assert pneumo_nb.__file__.startswith(os.getcwd()), pneumo_nb.__file__

def begin(words):
    for number, name in ((1, "out.txt"), (2, "err.txt")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if words[0] == "load": keras.saving.load_model(words[1], compile=False)
    else: main(words)

for line in sys.stdin:
    if not (child := os.fork()):
        status = 0
        try: begin(json.loads(line))
        except SystemExit as e: status = e.code or 0
        except BaseException: status = traceback.print_exc() or 70
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

class Elsewhere:
    """Commands in a folder with a copy of the package alone: no notebook, no run, no path to the checkout.

    One process imports everything and forks each command, so that a kill does not cost a start."""
    def __init__(self, home):
        self.home = home
        shutil.copytree(ROOT/"pneumo_nb", home/"pneumo_nb", ignore=shutil.ignore_patterns("__pycache__"))
        clean = {name: value for name, value in variables(home).items() if name != "PYTHONPATH"}
        self.process = subprocess.Popen([sys.executable, "-c", FORGE], cwd=home, text=True, env=clean,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL)

    def begin(self, *words) -> int: # process
        self.process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def status(self) -> int: return int(self.process.stdout.readline())

    def run(self, *words) -> tuple[int, str]: # exit status, stderr
        self.begin(*words)
        return self.status(), (self.home/"err.txt").read_text()

@pytest.fixture(scope="module")
def elsewhere(bundle, small, evaluated, films, tmp_path_factory):
    place = Elsewhere(tmp_path_factory.mktemp("elsewhere"))
    shutil.copytree(films/"test", place.home/"films")
    (place.home/"films/a page.dcm").write_text("<html>no film</html>")
    shutil.copy(bundle, place.home/"b.pneumo")
    shutil.copy(small, place.home/"small.pneumo")
    shutil.copy(evaluated.folder/"models/compact.keras", place.home/"compact.keras")
    yield place
    place.process.stdin.close()
    place.process.wait()

def test_a_saved_network_loads_after_one_import(elsewhere):
    assert elsewhere.run("load", "compact.keras")[0] == 0

def test_a_bundle_says_what_its_run_said_and_names_what_it_could_not_read(elsewhere, evaluated, bundle):
    status, said = elsewhere.run("predict", "b.pneumo", "films", "--out", "a.csv", "--tags", "Modality")
    card = read_bundle(bundle).card
    answers, model = table_of(elsewhere.home/"a.csv"), card["model"]
    assert card["cards"]["model"]["Intended use"] and "Films and patients" in card["cards"]["data"]
    table = pd.read_csv(evaluated.folder/f"predictions/{model}.csv").set_index("path").probability
    read = answers[answers.call != ""]
    assert list(answers) == [*COLUMNS, "Modality"] and len(read) == 24
    paths = ["test" + file.removeprefix("films") for file in read.file]
    np.testing.assert_allclose(read.probability.astype(float), table[paths], atol=1e-6)

    [unread] = answers[answers.call == ""].to_dict("records")
    assert unread["file"] == "films/a page.dcm" and unread["flags"].startswith("could not be read: ")
    assert unread["probability"] == unread["conformal"] == ""
    assert status == 1 and f"films/a page.dcm: {unread['flags']}\n" in said and "Traceback" not in said
    assert "25 films" in said and "1 could not be read; see a.csv" in said and "No medical device" in said
    note = read_json(elsewhere.home/"a.csv.about.json")
    assert note["detector"] == read_bundle(bundle).digest and "drawn phantoms" in note["trained_on"]
    assert note["rule"] == "sensitivity95" and note["not"].startswith("No medical device")

def test_each_batch_is_on_the_disk_before_the_next_is_answered(unbroken):
    lines = unbroken[2]
    assert len(lines) == 50 and list(lines[1:]) == [1 + 32 * n for n in range(1, 50)]

def test_twenty_kills_lose_at_most_the_batch_in_flight(elsewhere, many, unbroken):
    "Each command is killed once it has written something, at no matter what it is doing then."
    out, rng = elsewhere.home/"killed.csv", np.random.default_rng(1)
    words = "predict", "small.pneumo", many, "--out", out.name
    for _ in range(20):
        before, child = lines_of(out), elsewhere.begin(*words)
        end = time.time() + 60
        while lines_of(out) <= max(before, 1) and time.time() < end: time.sleep(.001)
        time.sleep(rng.uniform(0, .01))
        seen = lines_of(out)
        os.kill(child, signal.SIGKILL)
        assert elsewhere.status() == -signal.SIGKILL, "the films were too few for twenty kills"
        assert max(before, 1) < seen <= lines_of(out)
    kept = lines_of(out) - 1
    status, said = elsewhere.run(*words)
    assert status == 0 and f"1,600 films ({kept:,} by an earlier call)" in said
    assert_same_answers(table_of(out), unbroken[0])
    assert [file.name for file in elsewhere.home.glob(".killed*")] == []

def test_memory_does_not_grow_with_the_films(unbroken):
    used = unbroken[1]
    assert used[-1] - used[6] < 10   # from 200 to 1,600 films

# ---- the file

def test_members_give_the_range(evaluated, films):
    "An ensemble's bundle answers as the ensemble did, and says how far its members are apart."
    ensemble = Detector(bundle_of_run(evaluated.folder, "compact_ensemble"))
    said = ensemble.predict(films/"test")
    table = pd.read_csv(evaluated.folder/"predictions/compact_ensemble.csv").set_index("path").probability
    paths = [Path(file).relative_to(films).as_posix() for file in said.file]
    np.testing.assert_allclose(said.probability, table[paths], atol=1e-6)
    assert ensemble.members == 2 and (said.high - said.low).max() > 1e-3
    assert ((said.low <= said.probability) & (said.probability <= said.high)).all()

def test_every_changed_byte_is_found(bundle, tmp_path):
    "In every member: its name, its content from first to last byte, and the zip's own list of it."
    content, file = bundle.read_bytes(), tmp_path/"changed.pneumo"
    with zipfile.ZipFile(bundle) as archive: entries = archive.infolist()
    assert len(entries) == 4
    places = [0, len(content) - 1, *np.random.default_rng(0).integers(0, len(content), 40)]
    for entry in entries:
        name, start = entry.filename.encode(), entry.header_offset + 30
        places += [start, content.rindex(name), start + len(name), start + len(name) + entry.file_size // 2,
                   start + len(name) + entry.file_size - 1]
    for place in places:
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1:])
        with pytest.raises(StudyError, match="was changed"): read_bundle(file)
    for spoiled in (content[:-1], content + b"\0", b"\0" + content, b"", b"PK\3\4"):
        file.write_bytes(spoiled)
        with pytest.raises(StudyError, match="was changed"): read_bundle(file)

def forged(file, contents, kind=zipfile.ZIP_STORED):
    "A zip whose sums are right, as nobody but a forger writes it."
    from pneumo_nb.detector import _manifest
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, content in {"manifest.json": _manifest(contents), **contents}.items():
            archive.writestr(zipfile.ZipInfo(name), content, kind)
    return file

def test_members_that_are_missing_or_more_are_refused_even_with_right_sums(bundle, tmp_path):
    with zipfile.ZipFile(bundle) as archive: contents = {n: archive.read(n) for n in archive.namelist()}
    contents.pop("manifest.json")
    others = [contents | {"more.py": b"print()"}, contents | {"../card.json": b"{}"},
              *({name: contents[name] for name in contents if name != left} for left in contents)]
    for n, other in enumerate(others):
        with pytest.raises(StudyError, match="or something else"): read_bundle(
            forged(tmp_path/f"{n}.pneumo", other))
    with pytest.raises(StudyError, match="or something else"): read_bundle(
        forged(tmp_path/"packed.pneumo", contents | {"card.json": b" " * 10 ** 7}, zipfile.ZIP_DEFLATED))

def test_a_network_with_a_program_in_it_is_refused(bundle, tmp_path):
    import keras
    twice = keras.Sequential([keras.Input((24, 24, 1)), keras.layers.Lambda(lambda x: x * 2)])
    twice.save(tmp_path/"twice.keras")
    other = replace(read_bundle(bundle), network=(tmp_path/"twice.keras").read_bytes())
    write_bundle(other, tmp_path/"twice.pneumo")
    with pytest.raises(StudyError, match="in its safe mode, found one that it refuses"):
        Detector.load(tmp_path/"twice.pneumo")

def test_a_run_gives_the_same_bytes_again(bundle, evaluated, tmp_path):
    "By the package twice; and what was read of a file of the command is written as it was."
    digests = [make_bundle(evaluated.folder, out=tmp_path/f"{n}.pneumo") for n in range(2)]
    assert digests[0] == digests[1]
    assert (tmp_path/"0.pneumo").read_bytes() == (tmp_path/"1.pneumo").read_bytes()
    assert write_bundle(read_bundle(bundle), tmp_path/"copy.pneumo") == read_bundle(bundle).digest
    assert (tmp_path/"copy.pneumo").read_bytes() == bundle.read_bytes()

def test_the_card_names_no_folder_of_this_machine(bundle, evaluated):
    card = json.dumps(read_bundle(bundle).card)
    assert str(evaluated.home) not in card and str(Path.home()) not in card

# ---- answers

def test_dicom_and_png_of_a_film_get_the_same_answer(detector, tmp_path):
    for name in ("png", "dicom"): make_dataset(tmp_path/name, 6, 6, 1, 0, hospital="B", file_format=name)
    png, dicom = (detector.predict(sorted((tmp_path/name).glob("t*/*/*"))) for name in ("png", "dicom"))
    np.testing.assert_allclose(dicom.probability, png.probability, atol=1e-6)
    assert list(dicom.call) == list(png.call) and list(dicom["flags"]) == list(png["flags"])

def test_every_kind_of_file_holds_the_same(small, films, tmp_path):
    pytest.importorskip("pyarrow")
    detector = Detector.load(small)
    for kind in ("csv", "jsonl", "parquet"): write_answers(detector, [films/"test"], tmp_path/f"a.{kind}")
    table = table_of(tmp_path/"a.csv")
    rows = pd.DataFrame([json.loads(line) for line in (tmp_path/"a.jsonl").read_text().splitlines()])
    for other in (rows, pd.read_parquet(tmp_path/"a.parquet")):
        assert list(other) == COLUMNS
        assert_same_answers(other, table)
    kinds = ("csv", "jsonl", "parquet")
    assert {f.name for f in tmp_path.glob("*") if f.is_file()} == {
        *(f"a.{kind}" for kind in kinds), *(f"a.{kind}.about.json" for kind in kinds)}

def test_answers_are_taken_up_wherever_they_were_cut(small, films, tmp_path):
    detector, folder = Detector.load(small), films/"test/NORMAL"
    names = lambda rows: [row.partition(b"jpeg")[0] for row in rows.splitlines()]
    for kind in ("csv", "jsonl"):
        out = tmp_path/f"a.{kind}"
        write_answers(detector, [folder], out)
        whole = out.read_bytes()
        for cut in (0, 5, whole.index(b"\n"), whole.index(b"\n") + 1, 400, len(whole) - 1, len(whole)):
            out.write_bytes(whole[:cut])
            write_answers(detector, [folder], out)
            assert names(out.read_bytes()) == names(whole)

def test_answers_are_not_taken_up_for_other_films_or_by_two(small, films, tmp_path):
    from filelock import FileLock
    detector, folder, out = Detector.load(small), tmp_path/"films", tmp_path/"a.csv"
    shutil.copytree(films/"test/NORMAL", folder)
    write_answers(detector, [folder], out)
    first = sorted(folder.iterdir())[0]
    first.rename(first.with_name("0.jpeg"))            # as many films, the last the same
    with pytest.raises(StudyError, match=f"Expected film 1 to be {first}.*0.jpeg; give the same"):
        write_answers(detector, [folder], out)
    with FileLock(tmp_path/".a.csv.lock"), pytest.raises(StudyError, match="Another process is writing"):
        write_answers(detector, [folder], out)
    out.write_text("file\nmine\n")
    (tmp_path/"a.csv.about.json").unlink()
    with pytest.raises(StudyError, match="to hold answers of the same detector, rule and tags"):
        write_answers(detector, [folder], out)
    assert out.read_text() == "file\nmine\n"

# ---- the command, in this process

def says(*words):
    "Exit status and what a command prints."
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output

def test_mistakes_get_one_sentence_and_leave_nothing(small, films, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"empty").mkdir()
    mistakes = {
        "found none in those folders": ["predict", small, "empty"],
        "found nothing at nowhere": ["predict", small, "nowhere"],
        "found nothing at none.pneumo": ["predict", "none.pneumo", films/"test"],
        "found 'guess'": ["predict", small, films/"test", "--rule", "guess", "--out", "a.csv"],
        "found PatientName": ["predict", small, films/"test", "--tags", "PatientName", "--out", "a.csv"],
        "found a.txt": ["predict", small, films/"test", "--out", "a.txt"],
        "found none at no": ["predict", small, films/"test", "--out", "no/a.csv"],
        "outside the films": ["predict", small, films/"test", "--maps", films/"test/maps"],
        "Expected a run in": ["bundle", "none", "--out", "b.pneumo"]}
    for found, words in mistakes.items():
        status, output = says(*words)
        assert status == 1 and found in output and output.count("\n") == 1, output
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == []

def test_films_with_odd_names_are_answered_and_have_their_maps(small, films, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    film = next((films/"test").glob("*/*.jpeg")).read_bytes()
    odd = [b"one.jpeg", b"one.dcm.jpeg", b"a, \"b\".jpeg", b"caf\xe9.jpeg", b"new\nline.jpeg"]
    os.makedirs("films/below")
    for name in odd: Path(os.fsdecode(b"films/" + name)).write_bytes(film)
    Path("films/below/one.jpeg").write_bytes(film)
    status, output = says("predict", small, "films", "--out", "a.csv", "--maps", "maps")
    answers = table_of("a.csv")
    assert status == 0 and len(answers) == len(odd) + 1 and answers.probability.nunique() == 1
    assert {"films/caf\\udce9.jpeg", "films/new\\nline.jpeg", 'films/a, "b".jpeg'} < set(answers.file)
    for name in answers.file: assert map_file(Path("maps"), name).is_file(), name
    assert len([file for file in Path("maps").rglob("*") if file.is_file()]) == len(answers)

def test_a_file_that_could_not_be_read_stays_a_failure_when_answers_are_taken_up(small, films, tmp_path):
    folder, out = tmp_path/"films", tmp_path/"a.jsonl"
    shutil.copytree(films/"test/NORMAL", folder)
    (folder/"half.jpeg").write_bytes(next(folder.glob("*.jpeg")).read_bytes()[:3000])
    (folder/"gone.png").symlink_to(folder/"nowhere")
    count = len(list(folder.iterdir()))
    first, second = (says("predict", small, folder, "--out", out) for _ in range(2))
    assert first[0] == second[0] == 1 and "2 could not be read" in first[1]
    assert f"{count} films ({count} by an earlier call)" in second[1] and "2 could not be read" in second[1]
    status, output = says("predict", small, folder, "--out", out, "--rule", "half")
    assert status == 1 and "same detector, rule and tags" in output

def test_without_a_file_the_answers_are_printed(small, films):
    done = CliRunner().invoke(main, ["predict", str(small), *map(str, (films/"test/NORMAL").iterdir())])
    assert done.exit_code == 0 and list(pd.read_csv(io.StringIO(done.stdout))) == COLUMNS
    assert "No medical device" in done.stderr
