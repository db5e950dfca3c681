"Many runs on a real cluster, with a worker killed in the middle. About 60 s."
import os, signal, subprocess, time

import pandas as pd
import psutil
import pytest
from conftest import PNEUMO, pneumo, variables

pytest.importorskip("distributed")

SWEEP = """
stages: [data, preprocessing, mlp]
grid: {mlp.epochs: [1, 2]}
points: [{mlp.epochs: 2}]
"""
BASE = """
common: {image_size: 32, seed: 3}
data: {phantom_train: 60, phantom_test: 24}
"""

def killed_sweep(home):
    "Begin a sweep, kill a worker by force once a run has begun, and wait for the end."
    words = [PNEUMO, "sweep", "epochs.yaml", "--workers", "2"]
    env = variables(home, PNEUMO_THREADS="2")
    with open(home/"said.txt", "w") as said:
        command = subprocess.Popen(words, cwd=home, env=env, stdout=said, stderr=subprocess.STDOUT)
    give_up = time.time() + 300
    while not list((home/"runs/epochs").glob("p-*/provenance.json")):
        assert command.poll() is None and time.time() < give_up, (home/"said.txt").read_text()
        time.sleep(.2)
    workers = [p for p in psutil.Process(command.pid).children() if "spawn_main" in " ".join(p.cmdline())]
    doing = [p for worker in workers for p in worker.children(recursive=True)]
    os.kill(workers[0].pid, signal.SIGKILL)
    assert command.wait(timeout=300) == 0, (home/"said.txt").read_text()
    return doing

@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("sweep")
    (home/"epochs.yaml").write_text(SWEEP + "base: base.yaml\n")
    (home/"base.yaml").write_text(BASE)
    doing = killed_sweep(home)
    assert doing and not any(p.is_running() for p in doing)   # nothing goes on by itself
    return home

def test_a_killed_worker_loses_nothing(home):
    "Each point once, with the numbers of an ordinary run that nobody killed."
    table = pd.read_csv(home/"runs/epochs/sweep.csv")
    assert table["mlp.epochs"].tolist() == [1, 2] and table.failed.isna().all()
    assert not [name for name in table if name.startswith("test")]
    point = home/"runs/epochs"/table.point[1]
    params = [word for line in ("mlp.epochs=2", "common.image_size=32", "common.seed=3",
                                "data.phantom_train=60", "data.phantom_test=24") for word in ("-p", line)]
    words = ["run", "--run", "plain", *params, "-f", "base.yaml", "--only", "data,preprocessing,mlp"]
    done = pneumo(home, *words, PNEUMO_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    for file in ("predictions/mlp.csv", "images.csv"):
        assert (point/file).read_bytes() == (home/"runs/plain"/file).read_bytes(), file

def test_what_is_done_is_skipped_and_test_is_counted(home):
    done = pneumo(home, "sweep", "epochs.yaml", "--test")
    assert done.returncode == 0 and "2 points" in done.stdout and "2 unchanged and skipped" in done.stdout
    table = pd.read_csv(home/"runs/epochs/sweep.csv")
    assert table.test_roc_auc.between(0, 1).all()
    ledger, = home.rglob("looks.jsonl")
    assert ledger.read_text().count("a sweep's table") == 2

@pytest.mark.parametrize("text, found", {
    "stages: [data]\n": "Expected grid, points, draws or seeds",
    "stages: [data]\ngrid: {mlp.epoch: [1]}\n": "known in mlp: batch_size",
    "stages: [mlp]\nseeds: [1]\n": "has not been run",
    "stages: [data]\nseeds: [1]\nextra: 1\n": "Expected some of base, stages",
    "stages: [data, mlp]\ngrid: {mlp.epochs: [-1]}\n": "mlp.epochs"}.items())
def test_a_wrong_sweep_is_refused_in_one_sentence_before_anything_is_done(tmp_path, text, found):
    (tmp_path/"wrong.yaml").write_text(text)
    done = pneumo(tmp_path, "sweep", "wrong.yaml")
    assert done.returncode == 1 and found in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("runs/wrong/p-*"))
