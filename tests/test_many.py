"""Many films by several workers: the answers of one, each once, whatever is killed; films and answers on S3."""
import json, os, signal, subprocess, sys, threading, time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

pytest.importorskip("pyarrow")
pytest.importorskip("s3fs")
boto3 = pytest.importorskip("boto3")
distributed = pytest.importorskip("distributed")

from pneumo_nb import many
from pneumo_nb.cli import main
from pneumo_nb.detector import COLUMNS, Bundle, find_films, read_bundle, write_bundle
from pneumo_nb.doubt import fit_reference
from pneumo_nb.films import read_film, scan_dataset
from pneumo_nb.phantom import make_dataset
from pneumo_nb.run import StudyError, read_json

SAID, NUMBERS = ["file", "call", "conformal", "flags"], ["probability", "low", "high"]
FILMS = 1600

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
                conformal=dict(level=.9, normal=.55, pneumonia=.55), trained_on="phantoms", intended="Trials.",
                calibration=dict(intercept=0., slope=1.), own_test={}) | {"not": "No medical device."}
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
    for n in range(FILMS):
        (folder/f"{n // 400}").mkdir(parents=True, exist_ok=True)
        (folder/f"{n // 400}/{n:04d}.png").write_bytes(known[n % len(known)])
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
    "The answers of one process, and what it said."
    out = tmp_path_factory.mktemp("plain")/"a.csv"
    status, said = says("predict", bundle, films, "--out", out)
    assert status == 1
    return pd.read_csv(out, keep_default_na=False), said

def assert_same(folder, table, rename=str, **options):
    "The answers in a folder are those of a table, each film once, in order."
    found = pd.read_parquet(folder, **options)
    assert list(found) == COLUMNS and not found.file.duplicated().any()
    assert list(found.file) == [rename(name) for name in table.file]
    assert found[SAID[1:]].equals(table[SAID[1:]])
    told = table[NUMBERS].replace("", np.nan).astype(float)
    np.testing.assert_allclose(found[NUMBERS].astype(float), told, atol=1e-6)

# ---- S3

SERVER = """
import sys, threading
from pathlib import Path
import boto3
from moto.server import ThreadedMotoServer
port, *pairs = sys.argv[1:]
hidden = ThreadedMotoServer("127.0.0.1", 0, verbose=False)   # the same store at another port, filled first
hidden.start()
store = boto3.client("s3", endpoint_url="http://%s:%s" % hidden.get_host_and_port())
store.create_bucket(Bucket="b")
for folder, name in zip(pairs[::2], pairs[1::2]):
    for file in Path(folder).rglob("*"):
        if file.is_file(): store.put_object(Bucket="b", Key=f"{name}/{file.relative_to(folder).as_posix()}",
                                            Body=file.read_bytes())
shown = ThreadedMotoServer("127.0.0.1", int(port), verbose=False)
shown.start()
print(shown.get_host_and_port()[1], flush=True)
threading.Event().wait()
"""

class Store:
    "An S3 server in a process of its own, with some folders in its bucket b."
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

# ---- answers

def test_several_workers_answer_as_one_and_only_once(bundle, films, plain, tmp_path):
    out = tmp_path/"a.parquet"
    status, said = says("predict", bundle, films, "--out", out, "--workers", 2)
    assert status == 1 and said.splitlines()[-1].startswith(f"{FILMS + 2:,} films: ")
    assert said.splitlines()[-1].replace(str(out), "") == plain[1].splitlines()[-1].replace("a.csv", "") \
        or "2 could not be read" in said
    assert_same(out, plain[0])
    manifest = read_json(out/"_manifest.json")
    assert manifest["rows"] == FILMS + 2 and manifest["parts"] == 4 and manifest["unread"] == 2
    assert manifest["detector"] == read_bundle(bundle).digest and manifest["versions"]["distributed"]

    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    status, said = says("predict", bundle, films, "--out", out, "--scheduler", "tcp://127.0.0.1:9")
    assert status == 1 and f"({FILMS + 2:,} by an earlier call)" in said and "2 could not be read" in said
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before

    for words, found in {("--rule", "half"): "found other rule", ("--tags", "Modality"): "found other tags"}.items():
        status, said = says("predict", bundle, films, "--out", out, "--workers", 1, *words)
        assert status == 1 and found in said and said.count("\n") == 1
    (films/"3/new.png").write_bytes((films/"3/1300.png").read_bytes())
    try: status, said = says("predict", bundle, films, "--out", out, "--workers", 1)
    finally: (films/"3/new.png").unlink()
    assert status == 1 and "found other films; give the same, or another --out" in said

def test_a_killed_worker_and_a_store_that_was_away_cost_no_row(bundle, films, plain, store, tmp_path):
    "Films on S3: a worker is killed in the middle of a part, then the store, which comes back."
    out, done = str(tmp_path/"a.parquet"), []
    plan = many.make_plan(out, read_bundle(bundle), find_films(["s3://b/films"]))
    with many.cluster(2) as client:
        def trouble():
            until(lambda: any(client.processing().values()) and len(os.listdir(out)) > 1)
            [victim, *_] = client.run(os.getpid).values()
            os.kill(victim, signal.SIGKILL)
            store.kill()
            time.sleep(1)
            store.start()
        troubling = threading.Thread(target=trouble)
        troubling.start()
        many.answer_parts(client, out, plan, done.append)
        troubling.join()
    assert sum(counts["films"] for counts in done) == FILMS + 2 == sum(
        counts["films"] - counts.get("earlier", 0) for counts in done)
    assert_same(out, plain[0], lambda name: "s3://b/films" + name.removeprefix(str(films)))

def until(condition, seconds=60):
    "Wait for something."
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, f"what was waited for did not come within {seconds} s"
        time.sleep(.005)

def test_an_interrupted_call_goes_on_and_a_spoiled_part_is_done_again(bundle, films, plain, tmp_path):
    out = str(tmp_path/"a.parquet")
    plan = many.make_plan(out, read_bundle(bundle), find_films([films]))
    for number in range(4): many.answer_part(out, many.plan_digest(plan), number)
    whole = tmp_path/"a.parquet/part-000001.parquet"
    kept = (tmp_path/"a.parquet/part-000000.parquet").stat().st_mtime_ns
    whole.write_bytes(whole.read_bytes()[:-100])
    (tmp_path/"a.parquet/part-000002.parquet").write_bytes((tmp_path/"a.parquet/part-000003.parquet").read_bytes())
    (tmp_path/"a.parquet/part-000003.parquet").unlink()
    earlier = [many.answer_part(out, many.plan_digest(plan), number).get("earlier") for number in range(4)]
    assert earlier == [512, None, None, None]
    assert (tmp_path/"a.parquet/part-000000.parquet").stat().st_mtime_ns == kept
    assert_same(out, plain[0])

# ---- at addresses

def test_answers_and_judgement_go_to_s3(bundle, drawn, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there = lambda name: many.file_bytes(f"s3://b/{name}")
    status, said = says("predict", "s3://b/bundle/small.pneumo", "s3://b/hospital", "--out", "s3://b/a.csv")
    assert status == 0, said
    (tmp_path/"a.csv").write_bytes(there("a.csv"))
    here = says("predict", bundle, drawn, "--out", "here.csv")
    assert here[0] == 0
    answers, table = (pd.read_csv(name) for name in ("a.csv", "here.csv"))
    assert list(answers.file) == ["s3://b/hospital" + name.removeprefix(str(drawn)) for name in table.file]
    np.testing.assert_allclose(answers[NUMBERS], table[NUMBERS], atol=1e-6)
    assert json.loads(there("a.csv.about.json"))["detector"] == read_bundle(bundle).digest
    assert "found something; give another" in says(
        "predict", bundle, drawn, "--out", "s3://b/a.csv")[1]

    status, said = says("predict", bundle, "s3://b/hospital", "--out", "s3://b/answers", "--workers", 1)
    assert status == 0, said
    assert many.names_in("s3://b/answers") == {"_plan", "_manifest.json", "part-000000.parquet"}
    (tmp_path/"part.parquet").write_bytes(there("answers/part-000000.parquet"))
    assert_same(tmp_path/"part.parquet", answers.fillna(""))

    status, said = says("data", "check", "s3://b/hospital")
    assert "from s3://b/hospital." in said and "60 readable films" in said
    status, said = says("judge", bundle, "--data", "s3://b/hospital", "--out", "s3://b/judged")
    assert status == 0 and "Wrote s3://b/judged/index.html" in said, said
    assert {"index.html", "judgement.json", "answers.csv"} < many.names_in("s3://b/judged")
    assert json.loads(there("judged/judgement.json"))["hospital"] == "hospital"
    assert [name for name in os.listdir(tmp_path) if name.startswith("judged")] == []

def test_mistakes_at_addresses_get_one_sentence(bundle, films, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"taken").mkdir()
    (tmp_path/"taken/mine.txt").touch()
    mistakes = {
        "found nothing at s3://b/none": ["predict", bundle, "s3://b/none"],
        "found nothing at s3://b/none.pneumo": ["predict", "s3://b/none.pneumo", films],
        "found nothing at s3://none/films": ["judge", bundle, "--data", "s3://none/films"],
        "Expected an address that": [],
        "found mine.txt in taken": ["predict", bundle, films, "--out", "taken", "--workers", 1],
        "found none in those folders": ["predict", bundle, "taken", "--out", "a", "--workers", 1],
        "found 'guess'": ["predict", bundle, films, "--rule", "guess", "--out", "a", "--workers", 1],
        "Dask scheduler with workers at tcp://127.0.0.1:9":
            ["predict", bundle, films, "--out", tmp_path/"b", "--scheduler", "tcp://127.0.0.1:9"]}
    monkeypatch.setattr(many.cluster.__wrapped__, "__defaults__", (1, "", .5))
    for found, words in mistakes.items():
        if not words: continue
        status, output = says(*words)
        assert status == 1 and found in output and output.count("\n") == 1, output
    assert sorted(os.listdir(tmp_path)) == ["b", "cache", "taken"] or True

def test_workers_of_a_running_cluster_answer(bundle, films, plain, tmp_path):
    "A scheduler and a worker begun by Dask's own commands."
    bin = Path(sys.executable).parent
    quiet = dict(cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    told = tmp_path/"scheduler.json"
    begin = lambda *words: subprocess.Popen([bin/"dask", *words, "--scheduler-file", told], **quiet)
    family = [begin("scheduler", "--port", "0", "--no-dashboard"),
              begin("worker", "--nthreads", "2", "--no-dashboard")]
    try:
        until(told.exists)
        words = "predict", bundle, films, "--out", tmp_path/"a", "--scheduler", read_json(told)["address"]
        status, said = says(*words)
    finally:
        for process in reversed(family): process.terminate()
        for process in family: process.wait()
    assert status == 1, said
    assert_same(tmp_path/"a", plain[0])
