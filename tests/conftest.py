"""Every test has a cache of its own. One run of the recipe, killed and taken up again, serves two files."""
import json, os, pickle, shutil, subprocess, sys, time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

PNEUMO = str(Path(sys.executable).with_name("pneumo"))

LONGEST = ["test_site", "test_damage", "test_wheel", "test_benchmarks", "test_training", "test_cli",
           "test_detector"]

def pytest_collection_modifyitems(items):
    "The files that take longest come first, so that no process is left alone with one of them at the end."
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))

@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PNEUMO_CACHE", str(tmp_path/"cache"))
    return tmp_path/"cache"

# ---- the recipe

RECIPE = {"data.phantom_train": 80, "data.phantom_test": 24, "common.image_size": 24, "common.batch_size": 16,
          "compact.widths": [4, 8], "compact.epochs": 12, "compact.refits": 2}

IN_LINE = """
import json, sys
from pneumo_nb.run import open_stage, write_csv
from pneumo_nb.compact import build_compact
from pneumo_nb.members import answering, keep_models, make_plan, member_table, pool_groups, train_members
from pneumo_nb.preprocessing import load_films
folder, p = sys.argv[1], json.loads(sys.argv[2])
stage = open_stage("compact", folder, **p)
films = load_films(stage, p["image_size"], p["seed"])
plan = make_plan(stage, films)
networks, answers, histories = train_members(stage, films, plan, build_compact)
pools = pool_groups(films, plan.fold_of, answers)
write_csv(stage.path("members/compact.csv"), member_table(answers, pools, "compact"))
keep_models(stage, networks, pools, histories, answering(answers))
"""

@dataclass
class RecipeRun:
    "One run by the command line, and what was seen when it was killed in the middle."
    home: Path           # where the command is called
    began: str           # what the command printed before it was killed
    family: int          # processes that it had started
    alive: int           # of these, how many outlived it
    left: list[str]      # files that it left
    done: dict[str, int] # member → epochs done by then
    went_on: str         # what the command printed that took the run up again
    in_line: Path        # the same trained without a break, one network after the other

    @property
    def folder(self): return self.home/"runs/recipe"

    def pneumo(self, *words): return pneumo(self.home, *words)

def variables(home, **more): return os.environ | dict(PNEUMO_CACHE=str(home/"cache")) | more

def pneumo(home, *words, **more):
    return subprocess.run([PNEUMO, *words], cwd=home, capture_output=True, text=True, timeout=300,
                          env=variables(home, **more))

def wait_until(condition, process, seconds=120):
    "Wait for something that a command does; fail if it ends, or takes too long."
    end = time.time() + seconds
    while not condition():
        assert process.poll() is None, "the command ended too early"
        assert time.time() < end, f"what was waited for did not come within {seconds} s"
        time.sleep(.005)

def epochs_done(folder):
    "Member → the last epoch whose state is there."
    states = sorted(folder.glob(".scratch-compact/*/epoch_*.json"))
    return {state.parent.name: int(state.stem.removeprefix("epoch_")) for state in states}

def kill_in_the_middle(command):
    """Kill a command but nothing that it started: how many processes that were, how many of them live on.

    A notebook notices only after a second that its command is gone. Until then its workers are stopped, so
    that they are in the middle of a training when they find the notebook gone."""
    import psutil
    notebooks = psutil.Process(command.pid).children()
    workers = [worker for notebook in notebooks for worker in notebook.children(recursive=True)]
    for worker in workers: worker.suspend()
    command.kill()
    command.wait()
    _, alive = psutil.wait_procs(notebooks, timeout=60)
    for worker in workers: worker.resume()
    _, still = psutil.wait_procs(workers, timeout=60)
    return len(notebooks + workers), len(alive + still)

def begin_in_line(home, folder):
    "Train the recipe of a run on its films in one go, one network after the other, on one thread."
    for file in ("images.csv", "metrics/data.json", "provenance.json"):
        (home/"line"/file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder/file, home/"line"/file)
    params = yaml.safe_load((folder/"params.yaml").read_text())["compact"]
    return subprocess.Popen([sys.executable, "-c", IN_LINE, home/"line", json.dumps(params)],
                            stdout=subprocess.DEVNULL, env=variables(home, PNEUMO_THREADS="1"))

def made_once(tmp_path_factory, name, make):
    "What `make` gives, made by the first of the processes that share the tests and read by the others."
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    file = shared/f"{name}.pickle"
    with FileLock(shared/f"{name}.lock"):
        if not file.exists(): file.write_bytes(pickle.dumps(make(shared/name)))
    return pickle.loads(file.read_bytes())

@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    """The recipe on phantoms, begun side by side and ended in line.

    It is killed when two of four members are trained and the others are in training, and taken up again."""
    return made_once(tmp_path_factory, "recipe", run_recipe)

def run_recipe(home):
    "Begin the recipe in a folder, kill it, take it up again, and train the same in line."
    home.mkdir()
    folder = home/"runs/recipe"
    asked = [word for name, value in RECIPE.items() for word in ("-p", f"{name}={json.dumps(value)}")]
    words = ["run", "--run", "recipe", *asked, "--only", "data,compact"]
    with open(home/"began.txt", "w") as printed:
        command = subprocess.Popen([PNEUMO, *words], cwd=home, stdout=printed,
                                   env=variables(home, PNEUMO_WORKERS="2", PNEUMO_THREADS="2"))
    wait_until(lambda: len(epochs_done(folder)) == 4, command)
    family, alive = kill_in_the_middle(command)
    left, done = [f.relative_to(folder).as_posix() for f in folder.rglob("*")], epochs_done(folder)
    began = (home/"began.txt").read_text()
    line = begin_in_line(home, folder)
    again = pneumo(home, *words, PNEUMO_THREADS="1")
    assert again.returncode == 0, again.stdout + again.stderr
    assert line.wait(timeout=300) == 0
    return RecipeRun(home, began, family, alive, left, done, again.stdout, home/"line")

@pytest.fixture(scope="session")
def evaluated(recipe, tmp_path_factory):
    "That run, evaluated."
    def evaluate(_):
        words = "run", "--run", "recipe", "--only", "evaluation", "-p", "evaluation.draws=50"
        done = recipe.pneumo(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return recipe
    return made_once(tmp_path_factory, "evaluated", evaluate)

@pytest.fixture(scope="session")
def bundle(evaluated, tmp_path_factory):
    "The file with that run's networks."
    def make(place):
        file = place.with_suffix(".pneumo")
        done = evaluated.pneumo("bundle", "recipe", "--out", str(file))
        assert done.returncode == 0, done.stdout + done.stderr
        return file
    return made_once(tmp_path_factory, "bundle", make)

# ---- phantoms with planted text

@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    "Films with text on those of pneumonia, in train and test; where it is, and where markers are found."
    return made_once(tmp_path_factory, "planted", draw_planted)

def draw_planted(home):
    "Films of 64 pixels, and a table of text and markers."
    import numpy as np, pandas as pd
    from pneumo_nb.appearance import burnt_in
    from pneumo_nb.cache import decode_films
    from pneumo_nb.films import read_film, scan_dataset
    from pneumo_nb.phantom import make_dataset
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PNEUMO_CACHE", str(home/"cache"))
        root = make_dataset(home/"set", 120, 60, seed=3, n_val=0, shortcuts=dict(text="class"))
        images = scan_dataset(root).reset_index(drop=True)
        images.attrs["root"] = str(root)
        films = decode_films(images, 64)
        films.pixels = np.array(films.pixels)
    text = pd.read_csv(root/"planted.csv").rename(columns=dict(x0="x", y0="y")).assign(kind="text")
    text = text.assign(w=text.x1 - text.x, h=text.y1 - text.y)
    markers = [dict(path=path) | place for path in images.path for place in burnt_in(read_film(root/path))
               if place["kind"] == "marker"]
    return films, pd.concat([text[["path", "kind", *"xywh"]], pd.DataFrame(markers)], ignore_index=True)

@pytest.fixture(scope="session")
def corner_reader(planted, tmp_path_factory):
    "A network that sees the lower right corner alone, trained for seconds."
    return made_once(tmp_path_factory, "corner_reader", lambda _: train_corner_reader(planted[0]))

def train_corner_reader(films):
    "A network on a film's lower right corner."
    import keras
    from keras import layers as L
    from pneumo_nb.run import set_seed
    set_seed(1)
    inputs = keras.Input((films.size, films.size, 1))
    x = L.Rescaling(1 / 255)(L.Cropping2D(((films.size - 10, 0), (films.size // 2, 0)))(inputs))
    x = L.GlobalMaxPooling2D()(L.Conv2D(8, 3, activation="relu")(x))
    network = keras.Model(inputs, L.Dense(1, "sigmoid")(x))
    network.compile(keras.optimizers.Adam(.02), "binary_crossentropy")
    train = films.rows("train")
    network.fit(films.pixels[train, ..., None], films.labels[train], epochs=60, batch_size=32, verbose=0)
    return network
