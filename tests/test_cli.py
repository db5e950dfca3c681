"""The command: a real run, really killed, taken up again."""
import json, os, subprocess, sys, time
from pathlib import Path

import pandas as pd
import psutil
import pytest

PNEUMO = str(Path(sys.executable).with_name("pneumo"))
SMALL = [word for value in ("data.phantom_train=60", "data.phantom_test=12", "common.image_size=64",
                            "common.batch_size=8", "cnn.epochs=5") for word in ("-p", value)]
SMALL += ["--only", "data,preprocessing,cnn"]

def pneumo(*words, cwd): return subprocess.run([PNEUMO, *words], cwd=cwd, capture_output=True, text=True)

@pytest.mark.parametrize("module, heavy", [
    ("cli", "tensorflow keras pandas numpy matplotlib papermill"),
    ("results", "tensorflow keras statsmodels"),
    ("evaluation", "tensorflow keras statsmodels sklearn"),
    ("measures", "tensorflow keras statsmodels sklearn")])
def test_what_an_import_does_not_wait_for(module, heavy):
    code = f"import pneumo_nb.{module}, sys; print([m for m in {heavy.split()} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr

def kill_when(process, there, seconds=120):
    "Kill a command and all that it started as soon as something is there."
    end = time.time() + seconds
    while process.poll() is None and not there() and time.time() < end: time.sleep(.005)
    assert process.poll() is None and there(), "the run ended, or hung, before it could be killed"
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family: member.kill()
    process.wait()

@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    "A run killed in the middle of a training and taken up again, beside one that was not."
    home = tmp_path_factory.mktemp("killed")
    whole = pneumo("run", "--run", "whole", *SMALL, cwd=home)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    run, words = home/"runs/killed", [PNEUMO, "run", "--run", "killed", *SMALL]
    process = subprocess.Popen(words, cwd=home, stdout=subprocess.PIPE, text=True)
    kill_when(process, lambda: list(run.glob(".scratch-cnn/cnn/epoch_*.json")))
    made = ("models/cnn.keras", "predictions/cnn.csv", "history/cnn.csv", "notebooks/24_cnn.ipynb")
    assert not any((run/file).exists() for file in made)
    assert "cnn" not in json.loads((run/"provenance.json").read_text())["stages"]
    return home, pneumo("run", "--run", "killed", *SMALL, cwd=home)

def test_a_killed_run_resumes_and_the_same_seed_gives_the_same_predictions(killed):
    home, again = killed
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("unchanged, skipped") == 2
    assert "continues after epoch" in again.stdout
    whole, run = home/"runs/whole", home/"runs/killed"
    assert (run/"predictions/cnn.csv").read_bytes() == (whole/"predictions/cnn.csv").read_bytes()
    histories = [pd.read_csv(folder/"history/cnn.csv") for folder in (whole, run)]
    pd.testing.assert_frame_equal(*(h.drop(columns=["seconds", "total_seconds"]) for h in histories))
    assert not list(run.rglob(".partial-*")) and not list(run.glob(".scratch-*"))

def test_a_changed_parameter_makes_stages_due_and_its_return_does_not_retrain(killed):
    home = killed[0]
    early = ["run", "--run", "killed", "--only", "data,preprocessing"]
    changed = pneumo(*early, "-p", "common.seed=7", cwd=home)
    assert changed.stdout.count("changed seed") == 2, changed.stdout + changed.stderr
    assert pneumo(*early, "-p", "common.seed=42", cwd=home).returncode == 0
    assert pneumo("run", "--run", "killed", *SMALL, cwd=home).stdout.count("unchanged, skipped") == 3

def test_a_stage_is_refused_on_an_outdated_one_and_a_failure_keeps_what_was_there(killed):
    home, run = killed[0], killed[0]/"runs/killed"
    refused = pneumo("run", "--run", "killed", "-p", "preprocessing.zoom=0.15", "--only", "cnn", cwd=home)
    assert refused.returncode == 1
    assert "cnn builds on preprocessing, which is out of date (changed zoom)" in refused.stderr
    failing = pneumo("run", "--run", "killed", "--only", "cnn", "-p", "cnn.image_size=8", cwd=home)
    assert failing.returncode == 1 and failing.stderr.count("\n") == 1
    assert "Expected an image_size of at least 16 pixels, found 8" in failing.stderr
    assert (run/"notebooks/24_cnn.failed.ipynb").exists() and (run/"notebooks/24_cnn.ipynb").exists()

@pytest.mark.parametrize("words, says", [
    (["run", "-f", "none.yaml"], "Expected a parameter file, found nothing at none.yaml"),
    (["run", "-p", "cnn.epoch=3"], "known in cnn: batch_size, epochs, image_size, jit_compile"),
    (["run", "-p", "cnn.epochs=many"], "Expected cnn.epochs to be int like its default"),
    (["run", "--only", "cnm"], "found cnm"),
    (["run", "--only", "xai"], "xai builds on data, which has not been run"),
    (["run", "--only", "data,evaluation"], "evaluation needs at least one of"),
    (["run", "--data", "empty"], "empty, found nothing; point to the folder that holds train/ and test/"),
    (["run", "--run", ".."], "Expected a name such as monday"),
    (["run", "--run", "./empty/../other"], "found other files"),
    (["run", "-p", "data.seed=-1", "--only", "data", "--run", "out/x"], "Expected a seed of 0 or more"),
    (["run", "-f", "bin.yaml"], "Expected YAML in bin.yaml"),
    (["data", "phantom", "other/file/x"], "Could not use"),
    (["report", "x"], "do `pneumo run` first"),
    (["data", "check", "nowhere"], "found no folder at nowhere")])
def test_mistakes_end_in_one_sentence(tmp_path, words, says):
    for name in ("empty", "other"): (tmp_path/name).mkdir()
    (tmp_path/"other/file").write_text("mine")
    (tmp_path/"bin.yaml").write_bytes(b"\xff\xfe")
    done = pneumo(*words, cwd=tmp_path)
    assert done.returncode == 1 and says in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path/"runs").exists()

def test_fetch_without_a_network_says_so_in_one_line(tmp_path):
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run([PNEUMO, "data", "fetch", "films"], cwd=tmp_path, env=os.environ | nowhere,
                          capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "Could not download paultimothymooney/chest-xray-pneumonia" in done.stderr
    assert not list(tmp_path.rglob("*.jpeg"))

def test_clean_empties_the_cache_that_runs_share(tmp_path, cache):
    words = ["-p", "data.phantom_train=30", "-p", "data.phantom_test=6", "--only", "data,preprocessing"]
    assert pneumo("run", "--run", "a", *words, cwd=tmp_path).returncode == 0
    assert list(cache.glob("films-*.npy"))
    done = pneumo("data", "clean", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("Removed ") and not list(cache.iterdir())
