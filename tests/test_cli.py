"""The command: a real run, really killed, taken up again."""
import json, os, subprocess, sys, time
from pathlib import Path

import pandas as pd
import psutil
import pytest

PNEUMO = str(Path(sys.executable).with_name("pneumo"))
SMALL = ["-p", "data.phantom_train=60", "-p", "data.phantom_test=12", "-p", "common.image_size=64", "-p", "common.batch_size=8",
         "-p", "cnn.epochs=5", "--only", "data,preprocessing,cnn"]

def pneumo(*words, cwd): return subprocess.run([PNEUMO, *words], cwd=cwd, capture_output=True, text=True)

def test_help_is_quick_to_import():
    code = "import pneumo_nb.cli, sys; print([m for m in ('tensorflow', 'keras', 'pandas', 'numpy', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"

def test_killed_run_resumes_and_the_same_seed_gives_the_same_predictions(tmp_path):
    whole = pneumo("run", "--run", "whole", *SMALL, cwd=tmp_path)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    killed, run = subprocess.Popen([PNEUMO, "run", "--run", "killed", *SMALL], cwd=tmp_path, stdout=subprocess.PIPE, text=True), tmp_path/"runs/killed"
    while killed.poll() is None and not list(run.glob(".scratch-cnn/cnn/epoch_*.json")): time.sleep(.005)
    assert killed.poll() is None, "the run ended before it could be killed"
    for process in [*psutil.Process(killed.pid).children(recursive=True), psutil.Process(killed.pid)]: process.kill()
    killed.wait()
    assert not any((run/f).exists() for f in ("models/cnn.keras", "predictions/cnn.csv", "history/cnn.csv", "notebooks/07_cnn.ipynb"))
    assert "cnn" not in json.loads((run/"provenance.json").read_text())["stages"]
    again = pneumo("run", "--run", "killed", *SMALL, cwd=tmp_path)
    assert again.returncode == 0 and again.stdout.count("unchanged, skipped") == 2 and "continues after epoch" in again.stdout, again.stdout
    assert (run/"predictions/cnn.csv").read_bytes() == (tmp_path/"runs/whole/predictions/cnn.csv").read_bytes()
    timeless = [pd.read_csv(tmp_path/f"runs/{name}/history/cnn.csv").drop(columns=["seconds", "total_seconds"]) for name in ("whole", "killed")]
    pd.testing.assert_frame_equal(*timeless)
    assert not list(run.rglob(".partial-*")) and not list(run.glob(".scratch-*"))
    changed = pneumo("run", "--run", "killed", "--only", "data,preprocessing", "-p", "common.seed=7", cwd=tmp_path)
    assert changed.stdout.count("changed seed") == 2, changed.stdout + changed.stderr
    back = pneumo("run", "--run", "killed", "--only", "data,preprocessing", "-p", "common.seed=42", cwd=tmp_path)
    assert back.returncode == 0
    third = pneumo("run", "--run", "killed", *SMALL, cwd=tmp_path)
    assert third.stdout.count("unchanged, skipped") == 3
    refused = pneumo("run", "--run", "killed", "-p", "preprocessing.zoom=0.15", "--only", "cnn", cwd=tmp_path)
    assert refused.returncode == 1 and "cnn builds on preprocessing, which is out of date (changed zoom)" in refused.stderr
    failing = pneumo("run", "--run", "killed", "--only", "cnn", "-p", "cnn.image_size=8", cwd=tmp_path)
    assert failing.returncode == 1 and "Expected an image_size of at least 16 pixels, found 8" in failing.stderr and failing.stderr.count("\n") == 1
    assert (run/"notebooks/07_cnn.failed.ipynb").exists() and (run/"notebooks/07_cnn.ipynb").exists()

@pytest.mark.parametrize("words, says", [
    (["run", "-f", "none.yaml"], "Expected a parameter file, found nothing at none.yaml"),
    (["run", "-p", "cnn.epoch=3"], "known in cnn: batch_size, epochs, image_size, jit_compile, learning_rate, seed"),
    (["run", "-p", "cnn.epochs=many"], "Expected cnn.epochs to be int like its default"),
    (["run", "--only", "cnm"], "found cnm"), (["run", "--only", "xai"], "xai builds on data, which has not been run"),
    (["run", "--data", "empty"], "empty, found nothing; point to the folder that holds train/ and test/"),
    (["run", "--run", ".."], "Expected a name such as monday"), (["run", "--run", "./empty/../other"], "found other files"),
    (["run", "-p", "data.seed=-1", "--only", "data", "--run", "out/x"], "Expected a seed of 0 or more, found -1"),
    (["run", "-f", "bin.yaml"], "Expected YAML in bin.yaml"), (["data", "phantom", "other/file/x"], "Could not use"),
    (["report", "x"], "do `pneumo run` first"), (["data", "check", "nowhere"], "found no folder at nowhere")])
def test_mistakes_end_in_one_sentence(tmp_path, words, says):
    (tmp_path/"empty").mkdir(); (tmp_path/"other").mkdir(); (tmp_path/"other/file").write_text("mine"); (tmp_path/"bin.yaml").write_bytes(b"\xff\xfe")
    done = pneumo(*words, cwd=tmp_path)
    assert done.returncode == 1 and says in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path/"runs").exists()

def test_fetch_without_a_network_says_so_in_one_line(tmp_path):
    offline = os.environ | {k: "http://127.0.0.1:9" for k in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    done = subprocess.run([PNEUMO, "data", "fetch", "films"], cwd=tmp_path, env=offline, capture_output=True, text=True)
    assert done.returncode == 1 and "Could not download paultimothymooney/chest-xray-pneumonia" in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.jpeg"))

def test_clean_empties_the_cache_that_runs_share(tmp_path, cache):
    assert pneumo("run", "--run", "a", "-p", "data.phantom_train=30", "-p", "data.phantom_test=6", "--only", "data,preprocessing", cwd=tmp_path).returncode == 0
    assert list(cache.glob("films-*.npy"))
    done = pneumo("data", "clean", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("Removed ") and not list(cache.iterdir())
