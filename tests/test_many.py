"""Many films by several workers: the answers of one, each once, whatever is killed; and all on S3."""
import json, os, signal, subprocess, sys, threading, time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from click.testing import CliRunner

pytest.importorskip("pyarrow")
pytest.importorskip("s3fs")
pytest.importorskip("moto.server")
distributed = pytest.importorskip("distributed")

from pneumo_nb import many
from pneumo_nb.cli import main
from pneumo_nb.detector import COLUMNS, Bundle, find_films, read_bundle, write_bundle
from pneumo_nb.doubt import fit_reference
from pneumo_nb.films import read_film, scan_dataset
from pneumo_nb.phantom import make_dataset
from pneumo_nb.run import read_json

SAID, NUMBERS = ["file", "call", "conformal", "flags"], ["probability", "low", "high"]
FILMS, EACH = 446, 64 # of which two cannot be read; in a part

@pytest.fixture(autouse=True)
def small_parts(monkeypatch): monkeypatch.setattr(many, "_EACH", EACH)

# ---- films and a detector

@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    "A folder of phantoms."
    return make_dataset(tmp_path_factory.mktemp("drawn")/"hospital", 48, 12, 1, 0)

@pytest.fixture(scope="module")
def bundle(drawn, tmp_path_factory):
    "A detector of a few weights, as a file."
    import keras
    from keras import layers
    from pneumo_nb.cache import squash
    side, file = 48, tmp_path_factory.mktemp("bundle")/"small.pneumo"
    images = scan_dataset(drawn)
    pixels = np.stack([squash(read_film(drawn/path), side) for path in images.path])
    keras.utils.set_random_seed(1)
    network = keras.Sequential([keras.Input((side, side, 1)), layers.Rescaling(1 / 255),
                                layers.AveragePooling2D(4), layers.Flatten(), layers.Dense(1, "sigmoid")])
    network.save(file.with_suffix(".keras"))
    card = dict(title="a small net", image_size=side, thresholds=dict(half=.5, sensitivity95=.45),
                conformal=dict(level=.9, normal=.55, pneumonia=.55), trained_on="phantoms", intended="Trial",
                calibration=dict(intercept=0., slope=1.), own_test={}, provenance=dict(fingerprint=""))
    card["not"] = "No medical device."
    reference = fit_reference(pixels, images.patient_id.to_numpy())
    write_bundle(Bundle(card, reference, file.with_suffix(".keras").read_bytes()), file)
    return file

@pytest.fixture(scope="module")
def films(drawn, tmp_path_factory):
    "A folder with many small films, of which two cannot be read."
    import cv2
    folder = tmp_path_factory.mktemp("films")/"films"
    known = [cv2.imencode(".png", cv2.resize(read_film(drawn/path), (64, 64)))[1].tobytes()
             for path in scan_dataset(drawn).path]
    for n in range(FILMS - 2):
        (folder/f"{n // 150}").mkdir(parents=True, exist_ok=True)
        (folder/f"{n // 150}/{n:03d}.png").write_bytes(known[n % len(known)])
    (folder/"0/page.dcm").write_text("<html>no film</html>")
    (folder/"1/empty.png").touch()
    return folder

def says(*words):
    "Exit status and what a command prints."
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output

@pytest.fixture(scope="module")
def plain(bundle, films, tmp_path_factory):
    "The answers of one process, what it said, and where they are."
    out = tmp_path_factory.mktemp("plain")/"a.csv"
    status, said = says("predict", bundle, films, "--out", out)
    assert status == 1
    return pd.read_csv(out, keep_default_na=False), said, out

def assert_same(folder, table, rename=str):
    "The answers in a folder are those of a table, each film once, in order."
    found = pd.read_parquet(folder)
    assert list(found) == COLUMNS and not found.file.duplicated().any()
    for name in SAID: assert list(found[name]) == [rename(text) for text in table[name]], name
    told = table[NUMBERS].replace("", np.nan).astype(float)
    np.testing.assert_allclose(found[NUMBERS].astype(float), told, atol=1e-6)

# ---- S3

SERVER = """
import sys, threading
from pathlib import Path
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
port, *pairs = sys.argv[1:]
store = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
store.create_bucket("xray", "us-east-1")               # filled before anybody can ask
for folder, name in zip(pairs[::2], pairs[1::2]):
    for file in (file for file in Path(folder).rglob("*") if file.is_file()):
        store.put_object("xray", f"{name}/{file.relative_to(folder).as_posix()}", file.read_bytes())
server = ThreadedMotoServer("127.0.0.1", int(port), verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
threading.Event().wait()
"""

class Store:
    "An S3 server in a process of its own, with some folders in its bucket xray."
    def __init__(self, *pairs): self.pairs, self.port, self.process = list(map(str, pairs)), "0", None

    def start(self):
        self.process = subprocess.Popen([sys.executable, "-c", SERVER, self.port, *self.pairs], text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.port = self.process.stdout.readline().strip()
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

@pytest.fixture(scope="module")
def store(drawn, films, bundle):
    "S3 with films, and credentials for it in the environment."
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"): patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server = Store(films, "films", drawn, "hospital", bundle.parent, "bundle").start()
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
        yield server
        server.kill()

@pytest.fixture(scope="module")
def running(store, tmp_path_factory):
    "The address of a scheduler with two workers, begun by Dask's own commands with the store's credentials."
    home, dask = tmp_path_factory.mktemp("dask"), Path(sys.executable).with_name("dask")
    quiet = dict(cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    begin = lambda *words: subprocess.Popen(
        [dask, *words, "--no-dashboard", "--scheduler-file", home/"scheduler.json"], **quiet)
    family = [begin("scheduler", "--port", "0"), begin("worker", "--nworkers", "2", "--nthreads", "1")]
    until((home/"scheduler.json").exists)
    yield read_json(home/"scheduler.json")["address"]
    for process in reversed(family): process.kill()    # the two workers end with theirs
    for process in family: process.wait()

def until(condition, seconds=120):
    "Wait for something."
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, f"what was waited for did not come within {seconds} s"
        time.sleep(.005)

# ---- answers

def test_workers_of_this_machine_answer_as_one_process_and_only_once(bundle, films, plain, tmp_path):
    out = tmp_path/"a.parquet"
    status, said = says("predict", bundle, films, "--out", out, "--workers", 1)
    last = lambda text: text.splitlines()[-1].replace(str(out), "OUT").replace(str(plain[2]), "OUT")
    assert status == 1 and last(said) == last(plain[1]) and "2 could not be read" in said
    assert_same(out, plain[0])
    manifest = read_json(out/"_manifest.json")
    assert (manifest["rows"], manifest["parts"], manifest["unread"]) == (FILMS, 7, 2)
    assert manifest["detector"] == read_bundle(bundle).digest and manifest["versions"]["distributed"]

    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    status, said = says("predict", bundle, films, "--out", out, "--scheduler", "tcp://127.0.0.1:9")
    assert status == 1 and f"({FILMS} by an earlier call)" in said and "2 could not be read" in said
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before

    changes = {("--rule", "half"): "found other rule", ("--tags", "Modality"): "found other tags"}
    for words, found in changes.items():
        status, said = says("predict", bundle, films, "--out", out, "--workers", 1, *words)
        assert status == 1 and found in said and said.count("\n") == 1
    (films/"2/new.png").write_bytes((films/"2/300.png").read_bytes())
    try: status, said = says("predict", bundle, films, "--out", out, "--workers", 1)
    finally: (films/"2/new.png").unlink()
    assert status == 1 and "found other films; give the same, or another --out" in said

def test_a_killed_worker_and_a_store_away_cost_no_row(bundle, plain, films, store, running, tmp_path):
    "Films on S3: a worker is killed in the middle of a part, then the store, which comes back after a while."
    out, killed = tmp_path/"a.parquet", []
    def trouble():
        with distributed.Client(running, set_as_default=False) as client:
            client.wait_for_workers(2)
            until(lambda: list(out.glob("part-*")))
            numbers = client.run(os.getpid)
            killed.extend(worker for worker, tasks in client.processing().items() if tasks)
            os.kill(numbers[killed[0]], signal.SIGKILL)
        store.kill()
        time.sleep(1)
        store.start()
    troubling = threading.Thread(target=trouble)
    troubling.start()
    status, said = says("predict", bundle, "s3://xray/films", "--out", out, "--scheduler", running)
    troubling.join()
    assert killed and status == 1 and "2 could not be read" in said, said
    assert_same(out, plain[0], lambda text: text.replace(str(films), "s3://xray/films"))

def test_an_interrupted_call_goes_on_and_a_spoiled_part_is_done_again(bundle, films, plain, tmp_path):
    out, part = tmp_path/"a.parquet", lambda number: tmp_path/f"a.parquet/part-00000{number}.parquet"
    plan = many.make_plan(str(out), read_bundle(bundle), find_films([films]))
    answer = lambda: [many.answer_part(str(out), many.plan_digest(plan), number) for number in range(7)]
    answer()
    kept = part(0).stat().st_mtime_ns
    part(1).write_bytes(part(1).read_bytes()[:-100])
    part(2).write_bytes(part(3).read_bytes())
    part(6).unlink()
    assert [counts.get("earlier") for counts in answer()] == [64, None, None, 64, 64, 64, None]
    assert part(0).stat().st_mtime_ns == kept
    assert_same(out, plain[0])

BEGIN = """
import os, time
from pneumo_nb.many import cluster
if __name__ == "__main__":
    with cluster(2) as client:
        print(*client.run(os.getpid).values(), flush=True)
        time.sleep(600)
"""

def test_workers_end_with_whoever_began_them(tmp_path):
    (tmp_path/"begin.py").write_text(BEGIN)
    process = subprocess.Popen([sys.executable, tmp_path/"begin.py"], stdout=subprocess.PIPE, text=True,
                               stderr=subprocess.DEVNULL)
    workers = [int(word) for word in process.stdout.readline().split()]
    assert len(workers) == 2 and all(map(psutil.pid_exists, workers))
    process.kill()
    process.wait()
    until(lambda: not any(map(psutil.pid_exists, workers)), 20)

# ---- at addresses

def test_answers_and_judgement_go_to_s3(bundle, drawn, store, running, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there = lambda name: many.file_bytes(f"s3://xray/{name}")
    answer = lambda *words: says("predict", "s3://xray/bundle/small.pneumo", "s3://xray/hospital", *words)
    status, said = answer("--out", "s3://xray/a.csv")
    assert status == 0, said
    Path("there.csv").write_bytes(there("a.csv"))
    assert says("predict", bundle, drawn, "--out", "here.csv")[0] == 0
    answers, table = (pd.read_csv(name, keep_default_na=False) for name in ("there.csv", "here.csv"))
    assert list(answers.file) == ["s3://xray/hospital" + name.removeprefix(str(drawn)) for name in table.file]
    np.testing.assert_allclose(answers[NUMBERS], table[NUMBERS], atol=1e-6)
    assert json.loads(there("a.csv.about.json"))["detector"] == read_bundle(bundle).digest
    status, said = answer("--out", "s3://xray/a.csv")
    assert status == 1 and "Expected nothing yet at s3://xray/a.csv" in said

    status, said = answer("--out", "s3://xray/answers", "--scheduler", running)
    assert status == 0, said
    assert many.names_in("s3://xray/answers") == {"_plan", "_manifest.json", "part-000000.parquet"}
    assert_same("s3://xray/answers", answers)

    status, said = says("data", "check", "s3://xray/hospital")
    assert "MB) from s3://xray/hospital." in said and "readable films of" in said
    status, said = says("judge", bundle, "--data", "s3://xray/hospital", "--out", "s3://xray/judged")
    assert status == 0 and "Wrote s3://xray/judged/index.html" in said, said
    assert {"index.html", "judgement.json", "answers.csv"} < many.names_in("s3://xray/judged")
    assert json.loads(there("judged/judgement.json"))["hospital"] == "hospital"
    assert sorted(os.listdir()) == ["cache", "here.csv", "here.csv.about.json", "there.csv"]

def test_mistakes_at_addresses_get_one_sentence(bundle, films, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("taken").mkdir()
    Path("taken/mine.txt").touch()
    ask = lambda place, *words: ["predict", bundle, place, *words, "--workers", 1]
    mistakes = {
        "found nothing at s3://xray/none;": ["predict", "s3://xray/none", films],
        "found nothing at s3://xray/none.": ["predict", bundle, "s3://xray/none"],
        "found nothing at s3://nowhere/films": ["judge", bundle, "--data", "s3://nowhere/films"],
        "Expected an answer from no://films": ["predict", bundle, "no://films"],
        "gcsfs": ["predict", bundle, "gcs://films"],
        "found mine.txt in taken": ask(films, "--out", "taken"),
        "found none in those folders": ask("taken", "--out", "a"),
        "found 'guess'": ask(films, "--out", "a", "--rule", "guess")}
    for found, words in mistakes.items():
        status, output = says(*words)
        assert status == 1 and found in output and output.count("\n") == 1, output
    assert os.listdir() == ["taken"]
