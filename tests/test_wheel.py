"""An installed wheel needs no checkout: it runs, reports, answers and hands out its chapters in any folder.

It takes 80 s of processor time, most of it for a run of four stages."""
import json, os, re, shutil, subprocess, sys, sysconfig, venv, zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = [word for value in ("data.phantom_train=40", "data.phantom_test=12", "common.image_size=24",
                            "mlp.epochs=1", "evaluation.draws=50") for word in ("-p", value)]
SMALL += ["--only", "data,preprocessing,mlp,evaluation"]

def call(*words, cwd, **env):
    "A command that sees no other copy of the package."
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | env
    return subprocess.run(list(map(str, words)), cwd=cwd, env=env, capture_output=True, text=True)

def must(*words, **options):
    done = call(*words, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "A wheel of the tracked files, built without a network."
    home = tmp_path_factory.mktemp("wheel")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        (home/"copy"/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT/name, home/"copy"/name)
    must(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
         "-w", home, home/"copy", cwd=home)
    shutil.rmtree(home/"copy")
    return next(home.glob("*.whl"))

@pytest.fixture(scope="module")
def pneumo(wheel, tmp_path_factory):
    "The command of an environment with the wheel, in an empty folder; all else is what is installed here."
    home, place = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("empty")
    venv.create(home, with_pip=False, symlinks=True)
    python, paths = home/"bin/python", dict(base=str(home), platbase=str(home))
    must(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps",
         wheel, cwd=home)
    others = Path(sysconfig.get_path("purelib", vars=paths))/"others.pth"  # its own .pth files are not read
    others.write_text(sysconfig.get_path("purelib") + "\n")
    (home/"share/jupyter").mkdir(parents=True)
    (home/"share/jupyter/nbconvert").symlink_to(Path(sys.prefix)/"share/jupyter/nbconvert")  # its templates
    where = must(python, "-c", "import pneumo_nb; print(pneumo_nb.__file__)", cwd=place)
    assert Path(where.strip()).is_relative_to(home), where
    def command(*words, fails=False):
        run = call if fails else must
        return run(home/"bin/pneumo", *words, cwd=place, PNEUMO_CACHE=str(place/"cache"))
    command.place = place
    return command

@pytest.fixture(scope="module")
def run(pneumo):
    "A tiny run by the installed package."
    pneumo("run", "--run", "tiny", *SMALL)
    return pneumo.place/"runs/tiny"

def test_a_run_and_its_report_need_no_checkout(pneumo, run):
    records = json.loads((run/"provenance.json").read_text())["stages"]
    assert list(records) == ["data", "preprocessing", "mlp", "evaluation"]
    assert {record["git_commit"] for record in records.values()} == {"not in a git checkout"}
    pneumo("report", "tiny")
    pages = {file.name for file in (run/"site").glob("*.html")}
    assert {"index.html", "data.html", "mlp.html", "evaluation.html", "methods.html"} <= pages
    assert (run.parent/"index.html").exists()
    assert str(ROOT) not in (run/"site/index.html").read_text()

def test_it_answers_for_films(pneumo, run):
    film = next(run.glob("cache/**/*.jpeg"))
    assert "probability" in pneumo("predict", run, film)

def test_its_chapters_can_be_copied_out(pneumo):
    said = pneumo("notebooks", "chapters")
    copied = {file.name for file in (pneumo.place/"chapters").iterdir()}
    assert copied == {file.name for file in (ROOT/"nbs").glob("[0-9]*.ipynb")}
    assert (pneumo.place/re.search(r"papermill (\S+) ", said)[1]).exists()
    again = pneumo("notebooks", "chapters", fails=True)
    assert again.returncode == 1 and "found something in chapters" in again.stderr

@pytest.mark.parametrize("words", [
    ["docs", "tiny"], ["pictures", "tiny"], ["summary", "--write", "README.md"]])
def test_what_needs_a_checkout_says_so_in_one_sentence(pneumo, words):
    done = pneumo(*words, fails=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "Expected a clone of the project, found an installed package" in done.stderr

def test_scripts_of_others_travel_with_their_licences(wheel):
    with zipfile.ZipFile(wheel) as files:
        assets = {Path(name).name: files.read(name) for name in files.namelist() if "/nbs/assets/" in name}
    named = re.findall(r"^== (\S+\.js): \S+ \d+\.\d+\.\d+", assets["LICENSES.txt"].decode(), re.M)
    own = {"compare.js", "operating_point.js", "pages.js", "serve.js"}
    assert set(named) == {name for name in assets if name.endswith(".js")} - own
