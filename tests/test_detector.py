"""A bundle answers as its run did, anywhere; what was changed is refused; killed answers go on."""
import json, os, shutil, signal, subprocess, sys, time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import PNEUMO, pneumo, variables
from pneumo_nb.detector import COLUMNS, Detector, read_bundle, write_bundle
from pneumo_nb.films import read_film
from pneumo_nb.phantom import make_dataset
from pneumo_nb.run import StudyError, read_json

ROOT = Path(__file__).parents[1]
SAID = ["file", "call", "conformal", "flags"]

@pytest.fixture(scope="module")
def detector(bundle): return Detector.load(bundle)

def films_of(evaluated):
    "The folder of the run's films."
    return (evaluated.folder/read_json(evaluated.folder/"metrics/data.json")["root"]).resolve()

ELSEWHERE = """
import sys
import pneumo_nb, keras, pandas as pd
bundle, films, saved, out = sys.argv[1:]
assert "elsewhere" in pneumo_nb.__file__, pneumo_nb.__file__
keras.saving.load_model(saved, compile=False)        # needs no other import
from pneumo_nb.detector import Detector
Detector.load(bundle).predict(films).to_csv(out, index=False)
"""

@pytest.fixture(scope="module")
def elsewhere(evaluated, bundle, tmp_path_factory):
    "Answers of a process that sees neither checkout nor run."
    place = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(ROOT/"pneumo_nb", place/"site/pneumo_nb", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(films_of(evaluated)/"test", place/"films")
    shutil.copy(bundle, place/"b.pneumo")
    shutil.copy(evaluated.folder/"models/compact.keras", place/"compact.keras")
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, "b.pneumo", "films", "compact.keras", "out.csv"],
                          cwd=place, capture_output=True, text=True,
                          env=os.environ | dict(PYTHONPATH=str(place/"site")))
    assert done.returncode == 0, done.stderr
    return pd.read_csv(place/"out.csv", keep_default_na=False)

def test_a_bundle_says_what_its_run_said_where_neither_run_nor_checkout_is(elsewhere, evaluated, bundle):
    model = read_bundle(bundle).card["model"]
    table = pd.read_csv(evaluated.folder/f"predictions/{model}.csv").set_index("path").probability
    paths = ["test" + file.removeprefix("films") for file in elsewhere.file]
    assert list(elsewhere) == COLUMNS and len(paths) == 24
    np.testing.assert_allclose(elsewhere.probability, table[paths], atol=1e-6)

def test_low_and_high_are_those_of_the_members(detector, evaluated):
    if detector.members == 1: pytest.skip("the best model of this run is a single network")
    said = detector.predict(films_of(evaluated)/"test")
    assert ((said.low <= said.probability + 1e-6) & (said.probability <= said.high + 1e-6)).all()
    assert (said.high - said.low).max() > 1e-3

def test_every_changed_byte_is_found(bundle, tmp_path):
    content, file = bundle.read_bytes(), tmp_path/"changed.pneumo"
    rng = np.random.default_rng(0)
    for place in [0, 30, 60, len(content) - 1, *rng.integers(0, len(content), 40)]:
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1:])
        with pytest.raises(StudyError, match="was changed"): read_bundle(file)
    for spoiled in (content[:-1], content + b"\0", b"", b"PK\3\4"):
        file.write_bytes(spoiled)
        with pytest.raises(StudyError, match="was changed"): read_bundle(file)

def test_a_bundle_read_and_written_is_the_same_file(bundle, tmp_path):
    assert write_bundle(read_bundle(bundle), tmp_path/"again.pneumo") == read_bundle(bundle).digest
    assert (tmp_path/"again.pneumo").read_bytes() == bundle.read_bytes()

def test_the_card_names_no_folder_of_this_machine(bundle, evaluated):
    card = json.dumps(read_bundle(bundle).card)
    assert str(evaluated.home) not in card and str(Path.home()) not in card

def test_dicom_and_png_of_a_film_get_the_same_answer(detector, tmp_path):
    for name in ("png", "dicom"): make_dataset(tmp_path/name, 6, 6, 1, 0, hospital="B", file_format=name)
    png, dicom = (detector.predict(sorted((tmp_path/name).glob("t*/*/*"))) for name in ("png", "dicom"))
    np.testing.assert_allclose(dicom.probability, png.probability, atol=1e-6)
    assert list(dicom.call) == list(png.call) and list(dicom["flags"]) == list(png["flags"])

def test_predict_names_what_it_could_not_read_and_goes_on(bundle, evaluated, tmp_path):
    folder = tmp_path/"films"
    shutil.copytree(films_of(evaluated)/"test/NORMAL", folder)
    first = sorted(folder.iterdir())[0]
    (folder/"a page.dcm").write_text("<html>no film</html>")
    done = pneumo(tmp_path, "predict", str(bundle), "films", "--out", "a.jsonl", "--maps", "maps",
                  "--tags", "Modality")
    rows = [json.loads(line) for line in (tmp_path/"a.jsonl").read_text().splitlines()]
    assert done.returncode == 1 and "1 could not be read" in done.stderr, done.stderr
    assert "No medical device" in done.stderr and "Traceback" not in done.stderr
    assert len(rows) == len(list(folder.iterdir())) and set(rows[0]) == {*COLUMNS, "Modality"}
    unread = [row for row in rows if row["probability"] is None]
    assert [Path(row["file"]).name for row in unread] == ["a page.dcm"]
    assert unread[0]["flags"].startswith("could not be read: ") and unread[0]["call"] == ""
    assert len(list((tmp_path/"maps").glob("*.png"))) == len(rows) - 1
    assert any(first.stem in file.name for file in (tmp_path/"maps").iterdir())
    again = pneumo(tmp_path, "predict", str(bundle), "films", "--out", "a.jsonl", "--rule", "half")
    assert again.returncode == 1 and "same detector, rule and tags" in again.stderr

@pytest.mark.parametrize("words, says", [
    (["predict", "none.pneumo", "."], "found none in those folders"),
    (["predict", "none.pneumo", "nowhere"], "found nothing at nowhere"),
    (["bundle", "none", "--out", "b.pneumo"], "none")])
def test_mistakes_get_one_sentence(tmp_path, words, says):
    done = pneumo(tmp_path, *words)
    assert done.returncode == 1 and says in done.stderr and done.stderr.count("\n") <= 2
    assert not (tmp_path/"b.pneumo").exists()

# ---- kills

WRITER = """
import os, sys
from pneumo_nb.detector import Detector, write_answers
import keras, tensorflow       # imported once; nothing is computed before the fork
bundle, films, out = sys.argv[1:]
for line in sys.stdin:
    child = os.fork()
    if not child:
        write_answers(Detector.load(bundle), [films], out)
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""

def lines_of(file): return file.read_bytes().count(b"\n") if file.exists() else 0

def test_twenty_kills_lose_at_most_the_batch_in_flight(bundle, evaluated, detector, tmp_path):
    "A process that has imported everything forks each writer, so that a kill costs no new start."
    films, out = tmp_path/"films", tmp_path/"answers.csv"
    films.mkdir()
    known = sorted((films_of(evaluated)/"train").glob("*/*.jpeg"))
    for n in range(1400): os.link(known[n % len(known)], films/f"{n:05d}.jpeg")
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(bundle), str(films), str(out)], text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              env=variables(tmp_path))
    def begin():
        writer.stdin.write("go\n")
        writer.stdin.flush()
        return int(writer.stdout.readline())
    rng, end = np.random.default_rng(1), time.time() + 120
    for _ in range(20):
        child, before = begin(), lines_of(out)
        while lines_of(out) < before + 1 and time.time() < end: time.sleep(.002)
        time.sleep(rng.uniform(0, .03))
        seen = lines_of(out)
        os.kill(child, signal.SIGKILL)
        assert writer.stdout.readline() == "ended\n"
        assert lines_of(out) >= seen
    assert lines_of(out) < 1401, "the films were too few for twenty kills"
    begin()
    assert writer.stdout.readline() == "ended\n"
    writer.stdin.close()
    writer.wait()
    answers, said = pd.read_csv(out, keep_default_na=False), detector.predict(known)
    assert [Path(f).name for f in answers.file] == [f"{n:05d}.jpeg" for n in range(1400)]
    again = said.iloc[np.arange(1400) % len(known)].reset_index(drop=True)
    np.testing.assert_allclose(answers.probability, again.probability, atol=1e-6)
    assert answers[SAID[1:]].equals(again[SAID[1:]])

def test_memory_does_not_grow_with_the_films(detector, evaluated):
    import psutil
    film, process = read_film(next((films_of(evaluated)/"test").glob("*/*.jpeg"))), psutil.Process()
    used = []
    for n, rows in enumerate(detector.stream(film for _ in range(4000))):
        if n in (20, 124): used.append(process.memory_info().rss / 1e6)
    assert used[1] - used[0] < 15

def test_parquet_holds_the_same(detector, evaluated, tmp_path):
    pytest.importorskip("pyarrow")
    from pneumo_nb.detector import write_answers
    folder = films_of(evaluated)/"test"
    for name in ("a.csv", "a.parquet"): write_answers(detector, [folder], tmp_path/name)
    table = pd.read_csv(tmp_path/"a.csv", keep_default_na=False)
    parquet = pd.read_parquet(tmp_path/"a.parquet")
    assert parquet[SAID].equals(table[SAID]) and sorted(f.name for f in tmp_path.iterdir()) == [
        "a.csv", "a.csv.about.json", "a.parquet", "a.parquet.about.json"]
    np.testing.assert_allclose(parquet.probability, table.probability, atol=1e-6)
