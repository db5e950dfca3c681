"""The command: a real run, really killed, taken up again."""
import json, os, signal, subprocess, sys, time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from pneumo_nb.run import StudyError, check_run_folder, finish, look, open_stage, write_json

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
    made = ("models/cnn.keras", "predictions/cnn.csv", "history/cnn.csv", "notebooks/34_cnn.ipynb")
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

def test_a_stage_is_refused_on_an_outdated_one_and_a_failure_keeps_what_was_there(killed, monkeypatch):
    home, run = killed[0], killed[0]/"runs/killed"
    refused = pneumo("run", "--run", "killed", "-p", "preprocessing.zoom=0.15", "--only", "cnn", cwd=home)
    assert refused.returncode == 1
    assert "cnn builds on preprocessing, which is out of date (changed zoom)" in refused.stderr
    monkeypatch.setenv("PNEUMO_CACHE_GB", "much")
    failing = pneumo("run", "--run", "killed", "--only", "cnn", "-p", "cnn.image_size=24", cwd=home)
    assert failing.returncode == 1 and failing.stderr.count("\n") == 1
    assert "Expected PNEUMO_CACHE_GB to be a number, found 'much'" in failing.stderr
    assert (run/"notebooks/34_cnn.failed.ipynb").exists() and (run/"notebooks/34_cnn.ipynb").exists()

@pytest.mark.parametrize("words, says", [
    (["run", "-f", "none.yaml"], "Expected a parameter file, found nothing at none.yaml"),
    (["run", "-p", "cnn.epoch=3"], "known in cnn: batch_size, epochs, image_size, jit_compile"),
    (["run", "-p", "cnn.epochs=many"], "Expected cnn.epochs to be a whole number, found 'many'"),
    (["run", "--only", "cnm"], "found cnm"),
    (["run", "--only", "xai"], "xai builds on data, which has not been run"),
    (["run", "--only", "data,evaluation"], "evaluation needs at least one of"),
    (["run", "--data", "empty"], "empty, found nothing; point to the folder that holds train/ and test/"),
    (["run", "--run", ".."], "Expected a name such as monday"),
    (["run", "--run", "./empty/../other"], "found other files"),
    (["run", "-p", "data.seed=-1", "--only", "data", "--run", "out/x"],
     "Expected data.seed to be a whole number from 0 to 4294967295, found -1"),
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

# ---- nothing silently wrong

def said(*words):
    "What a command says, called in this process, and its exit status."
    from click.testing import CliRunner
    from pneumo_nb.cli import main
    done = CliRunner().invoke(main, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.output, done.exit_code

@pytest.mark.parametrize("words", [
    ["run", "--data", ""], ["run", "--run", ""], ["run", "-f", ""], ["run", "--only", " "], ["run", "-p", ""],
    ["report", ""], ["results", "a", ""], ["data", "check", ""], ["data", "phantom", ""],
    ["summary", "--write", ""], ["looks", ""]])
def test_a_value_that_is_given_but_empty_is_refused(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output, status = said(*words)
    assert status == 1 and "found an empty one; give one, or leave it out." in output
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize("words", [["run", "--data"], ["run", "--run"], ["data", "check"]])
def test_a_name_that_is_not_utf8_is_refused_by_name(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output, status = said(*words, "caf\udce9")
    assert status == 1 and "in UTF-8, found 'caf\\udce9'" in output and not list(tmp_path.iterdir())

@pytest.mark.parametrize("given, passed", [
    ([], ""), (["DATA="], ' --data ""'), (["DATA=films"], ' --data "films"')])
def test_make_report_passes_on_an_empty_data(given, passed):
    make = ["make", "-n", "--no-print-directory", "report", *given, "-o", ".venv/bin/.installed"]
    of_make = ("DATA", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    variables = {name: value for name, value in os.environ.items() if name not in of_make}
    done = subprocess.run(make, cwd=Path(__file__).parents[1], env=variables, capture_output=True, text=True)
    assert done.stdout.splitlines()[0].rstrip().endswith(f'--run "quick"{passed}')

FOREIGN = [("params.yaml", "mine: 1"), ("params.yaml", "stages:\n- build\n- test\n"), ("images.csv", "mine"),
           ("provenance.json", "{}"), ("provenance.json", '{"stages": {"build": {"seconds": 3}}}'),
           ("params.yaml", b"\xff\xfe"), ("provenance.json", b"\xff\xfe")]

@pytest.mark.parametrize("name, content", FOREIGN)
def test_a_foreign_folder_is_no_run_and_stays_as_it_is(name, content, tmp_path):
    (tmp_path/"p").mkdir()
    (tmp_path/"p"/name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = {f: f.read_bytes() for f in (tmp_path/"p").rglob("*")}
    for words in (["run", "--only", "data", "--run"], ["report"], ["results"]):
        output, status = said(*words, str(tmp_path/"p"))
        assert status == 1 and "found other files" in output and output.count("\n") == 1, output
    with pytest.raises(StudyError, match="found other files"): open_stage("data", tmp_path/"p", seed=1)
    assert {f: f.read_bytes() for f in (tmp_path/"p").rglob("*")} == before

def test_runs_made_before_the_marker_are_recognised(tmp_path):
    for name, text in ((".lock", ""), ("params.yaml", "stages:\n- data\ndata:\n  seed: 42\n")):
        (tmp_path/name).write_text(text)
    check_run_folder(tmp_path)

def test_a_run_on_real_films_is_not_turned_into_one_on_phantoms(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from pneumo_nb.phantom import make_dataset
    make_dataset("films", n_train=6, n_test=4, n_val=0)
    make_dataset("others", n_train=6, n_test=4, n_val=0, seed=1)
    run, mine = tmp_path/"runs/real", dict(data_dir=str(tmp_path/"films"))
    write_json(run/"metrics/data.json", dict(source="films", root=mine["data_dir"]))
    kept = f"# The parameters of a run, written by `pneumo run`.\ndata:\n  data_dir: {tmp_path/'films'}\n"
    (run/"params.yaml").write_text(kept)
    quick = str(Path(__file__).parents[1]/"params/quick.yaml")
    for words, asked in ((["-f", quick], "phantoms"), (["-p", "data.data_dir=''"], "phantoms"),
                         (["--data", "others"], f"the films in {tmp_path/'others'}")):
        output, status = said("run", "--run", "real", *words)
        assert status == 1 and f"to stay on the films in {tmp_path/'films'}, found {asked} asked" in output
        assert (run/"params.yaml").read_text() == kept and len(list(run.iterdir())) == 2
    for other in ("", "others"):   # a notebook by itself, of a run that `pneumo run` made
        with pytest.raises(StudyError, match="stay on the films"): open_stage("data", run, data_dir=other)
    finish(open_stage("data", "alone", **mine))
    with pytest.raises(StudyError, match="found phantoms"): open_stage("data", "alone", data_dir="")
    assert open_stage("data", "alone", data_dir="films").folder == tmp_path/"alone"   # the same films

HOSTILE = {"argv": ["/bin/false", "{connection_file}"], "language": "python", "display_name": "another"}

@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    "A run where nothing is as usual: another kernel, no home to write to, braces, a terminal of few signs."
    home = tmp_path_factory.mktemp("else")/"p{q}"
    spec = home/"jupyter/kernels/python3/kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps(HOSTILE))
    unusual = dict(JUPYTER_PATH=str(home/"jupyter"), HOME="/proc", PYTHONIOENCODING="ascii",
                   PNEUMO_CACHE=str(home/"cache"), TMPDIR=str(home.parent))
    words = [PNEUMO, "run", "--only", "data", "-p", "data.phantom_train=20", "-p", "data.phantom_test=4"]
    return home, lambda *more: subprocess.run([*words, *more], cwd=home, env=os.environ | unusual,
                                              capture_output=True, text=True)

def test_a_run_works_where_nothing_is_as_usual_and_leaves_nothing_behind(elsewhere):
    home, run = elsewhere
    done = run("--run", "a")
    assert done.returncode == 0 and "done in" in done.stdout, done.stdout + done.stderr
    assert [f.name for f in home.parent.iterdir()] == ["p{q}"]   # no kernel's folder
    record = json.loads((home/"runs/a/provenance.json").read_text())["stages"]["data"]
    assert record["machine"]["threads"] >= 1 and record["machine"]["workers"] >= 1

def test_a_renamed_run_goes_on(elsewhere):
    home, run = elsewhere
    (home/"runs/a").rename(home/"b")
    assert "unchanged, skipped" in run("--run", "./b").stdout

def test_an_unwritable_cache_is_said_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PNEUMO_CACHE", "/proc/cache")
    output, status = said("run", "--only", "data")
    assert status == 1 and "the cache /proc/cache" in output and "set PNEUMO_CACHE to" in output
    assert not list(tmp_path.iterdir())

def test_ctrl_c_ends_in_one_sentence_and_leaves_nothing_half_done(tmp_path):
    words = [PNEUMO, "run", "--run", "a", "--only", "data", "-p", "data.phantom_train=2000"]
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # in the background it is ignored
    command = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True, preexec_fn=heed)
    end = time.time() + 60
    while not (tmp_path/"runs/a/cache").exists() and time.time() < end: time.sleep(.01)
    os.killpg(command.pid, signal.SIGINT)
    _, errors = command.communicate(timeout=120)
    assert (command.returncode, errors) == (130, "Stopped; the same command goes on.\n")
    assert not (tmp_path/"runs/a/provenance.json").exists() and not list(tmp_path.glob("runs/a/metrics/*"))

def test_huge_values_are_not_echoed_whole(tmp_path):
    output, status = said("run", "-p", f"cnn.{'x' * 5000}=3")
    assert status == 1 and len(output) < 700 and "No notebook declares" in output

def test_looks_of_all_runs_stand_in_one_ledger_that_clean_keeps(tmp_path, cache):
    for name in ("a", "b"):
        stage = open_stage("evaluation", tmp_path/name)
        write_json(stage.path("metrics/data.json"), dict(fingerprint="1ab2", source="chest_xray"))
        look(stage, "predictions of 2 models")
    assert said("data", "clean")[1] == 0
    output, _ = said("looks", "1ab")
    assert output.startswith("1ab2 (chest_xray): 2 looks by 2 runs\n") and output.count("evaluation") == 2
    with open(cache/"looks.jsonl", "a") as ledger: ledger.write("half a l")
    assert "Expected a look in line 3 of" in said("looks")[0]
