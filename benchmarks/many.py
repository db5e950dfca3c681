"""What several workers cost a film, and whether memory stays flat: `python benchmarks/many.py`.

A few hundred small phantoms lie many times under other names. Each size is answered by one process, as
`pneumo predict` does without workers, and then by one and by two workers, all with the same detector."""
import argparse, json, os, subprocess, sys, tempfile, threading, time
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
DISTINCT, SIDE, FOLDER = 300, 96, 1000 # films drawn; their side, pixels; films in a folder

def small_films(folder: Path, n: int):
    "`n` names for the drawn films, so that drawing and disk are not what is measured."
    import cv2
    from pneumo_nb.films import read_film, scan_dataset
    from pneumo_nb.phantom import make_dataset
    root = make_dataset(folder/"drawn", DISTINCT - 30, 30, 1, 0)
    drawn = [root/path for path in scan_dataset(root).path]
    (folder/"small").mkdir()
    for k, path in enumerate(drawn):
        cv2.imwrite(str(folder/f"small/{k}.png"), cv2.resize(read_film(path), (SIDE, SIDE)))
    for i in range(n):
        place = folder/f"films/{i // FOLDER:04d}"
        if i % FOLDER == 0: place.mkdir(parents=True)
        os.link(folder/f"small/{i % len(drawn)}.png", place/f"{i:07d}.png")

def small_detector(folder: Path, size: int):
    "A detector with a network of a few weights."
    import keras, numpy as np
    from keras import layers
    from pneumo_nb.cache import squash
    from pneumo_nb.detector import Bundle, write_bundle
    from pneumo_nb.doubt import fit_reference
    from pneumo_nb.films import read_film
    pixels = np.stack([squash(read_film(path), size) for path in sorted((folder/"small").iterdir())])
    network = keras.Sequential([keras.Input((size, size, 1)), layers.Rescaling(1 / 255),
                                layers.AveragePooling2D(4), layers.Flatten(), layers.Dense(1, "sigmoid")])
    network.save(folder/"network.keras")
    card = dict(title="small", image_size=size, thresholds=dict(half=.5, sensitivity95=.5),
                conformal=dict(level=.9, normal=.6, pneumonia=.6), calibration=dict(intercept=0., slope=1.),
                trained_on="phantoms", intended="Measuring.") | {"not": "No medical device."}
    reference = fit_reference(pixels, np.arange(len(pixels)))
    write_bundle(Bundle(card, reference, (folder/"network.keras").read_bytes()), folder/"small.pneumo")

class Memory:
    "Resident memory of this process and of its largest child, MB, looked at every quarter of a second."
    def __init__(self): self.seen, self.ended = [], threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.ended.set()
        self.thread.join()

    def look(self):
        import psutil
        me, began = psutil.Process(), time.perf_counter()
        while not self.ended.wait(.25):
            sizes = [0]
            for child in me.children(recursive=True):
                try: sizes.append(child.memory_info().rss)
                except psutil.NoSuchProcess: continue
            self.seen.append((time.perf_counter() - began, me.memory_info().rss / 1e6, max(sizes) / 1e6))

def speed(done: list[tuple[float, int]], seconds: float) -> dict: # `done`: when how many films were answered
    "Films a second, from the first batch or part to the last, so without the start."
    films, (began, first) = sum(n for _, n in done), done[0]
    steady = (films - first) / (done[-1][0] - began) if films > first else float("nan")
    return dict(films=films, seconds=seconds, films_per_second=steady)

def measure_plain(folder: Path) -> dict:
    "One process, as without workers."
    from pneumo_nb.detector import Detector, write_answers
    began, done = time.perf_counter(), []
    with Memory() as memory:
        write_answers(Detector.load(folder/"small.pneumo"), [folder/"films"], folder/"plain.csv",
                      each=lambda rows: done.append((time.perf_counter() - began, len(rows))))
    used = [mb for _, mb, _ in memory.seen]
    (folder/"plain.csv").unlink()
    return speed(done, time.perf_counter() - began) | dict(peak_mb=max(used))

def measure_workers(folder: Path, workers: int) -> dict:
    "Some workers on this machine; scheduler and client are this process."
    from pneumo_nb.detector import find_films, read_bundle
    from pneumo_nb.many import answer_many, make_plan
    began, done, out = time.perf_counter(), [], str(folder/f"answers-{workers}")
    with Memory() as memory:
        plan = make_plan(out, read_bundle(folder/"small.pneumo"), find_films([folder/"films"]))
        planned = time.perf_counter() - began
        manifest = answer_many(out, plan, workers, each=lambda counts: done.append(
            (time.perf_counter() - began, counts["films"])))
    assert manifest["rows"] == plan["films"]
    found = speed(done, time.perf_counter() - began) | dict(planned_seconds=planned, parts=plan["parts"])
    return found | growth(memory.seen, done[0][0], done[-1][0])

def growth(seen: list[tuple], first: float, last: float) -> dict: # when; scheduler and largest worker, MB
    "Peaks of memory, and how they differ between the second and the last quarter of the work."
    quarter = lambda k: [row for row in seen if 0 <= row[0] - first - k * (last - first) / 4
                         <= (last - first) / 4] or seen[-1:]
    peak = lambda rows, column: max(row[column] for row in rows)
    return {f"{name}_{what}": value for column, name in ((1, "scheduler"), (2, "worker")) for what, value in (
        ("peak_mb", peak(seen, column)), ("growth_mb", peak(quarter(3), column) - peak(quarter(1), column)))}

def measure_size(n: int, workers: list[int], size: int) -> dict:
    "All ways for one number of films, each in a process of its own."
    with tempfile.TemporaryDirectory() as place:
        small_films(Path(place), n)
        small_detector(Path(place), size)
        ways = {"plain": 0} | {f"{w} workers": w for w in workers}
        found = {name: measure_apart(place, w) for name, w in ways.items()}
    for name in list(ways)[1:]: found[name]["overhead_ms"] = 1000 * (
        1 / found[name]["films_per_second"] - 1 / found["plain"]["films_per_second"])
    return found

def measure_apart(place: str, workers: int) -> dict:
    "One way in a process and a cache of its own."
    words = [sys.executable, __file__, "--one", place, "--workers", str(workers)]
    environment = os.environ | dict(PNEUMO_CACHE=f"{place}/cache")
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode: sys.exit(done.stderr)
    print(f"{workers or 'no'} workers: {done.stdout.splitlines()[-1]}", flush=True)
    return json.loads(done.stdout.splitlines()[-1])

def core_hours(result: dict) -> dict: # films → hours of a core
    "What more films would take at this speed; each way has all threads."
    from pneumo_nb.run import threads
    return {n: n / result["films_per_second"] * threads() / 3600 for n in (10 ** 6, 10 ** 8)}

def arguments() -> argparse.ArgumentParser:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--films", default="5000,20000,100000", help="comma-separated numbers of films")
    ask.add_argument("--workers", default="1,2", help="comma-separated numbers of workers")
    ask.add_argument("--size", type=int, default=48, help="side of the squares that the network sees")
    ask.add_argument("--write", action="store_true", help="write benchmarks/many.json")
    ask.add_argument("--one", help=argparse.SUPPRESS)
    return ask

def main():
    asked = arguments().parse_args()
    workers = [int(word) for word in asked.workers.split(",")]
    if asked.one:
        found = measure_workers(Path(asked.one), workers[0]) if workers[0] else measure_plain(Path(asked.one))
        return print(json.dumps(found))
    from pneumo_nb.run import git_commit, jsonable, machine, write_json
    results = {n: measure_size(n, workers, asked.size) for n in map(int, asked.films.split(","))}
    for found in results.values():
        for result in found.values(): result["core_hours"] = core_hours(result)
    measured = jsonable(dict(machine=machine(), commit=git_commit(), size=asked.size, results=results,
                             load=os.getloadavg()))
    if asked.write: write_json(Path(__file__).with_suffix(".json"), measured)
    print(json.dumps(measured, indent=1))

if __name__ == "__main__": main()
