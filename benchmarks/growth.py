"""What happens to time and memory when the set grows: `make growth`.

Each size runs in a process of its own, on noise in place of films, through input, features, prediction and
evaluation. The last column extrapolates to a million films."""
import argparse, json, os, subprocess, sys, tempfile, time
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
BETWEEN = "<!-- growth: written by `make growth WRITE=FILE` -->", "<!-- end of growth -->"
PARTS = ["input pipeline", "feature cache", "prediction", "evaluation"]

def resident_mb() -> float:
    import psutil
    return psutil.Process().memory_info().rss / 1e6

def synthetic_films(n: int, size: int):
    "`n` films of noise in the cache, in patients of two, half of them in train."
    import numpy as np, pandas as pd
    from pneumo_nb.cache import Films, cached_array
    rng, names = np.random.default_rng(0), np.arange(n)
    def chunks():
        for start in range(0, n, 500):
            yield rng.integers(0, 256, (min(500, n - start), size, size), np.uint8)
    images = pd.DataFrame(dict(path=[f"train/{i}.jpeg" for i in names], sha1=[f"{i:040x}" for i in names],
                               label=names // 2 % 2, patient_id=names // 2,
                               split=np.where(names < n // 2, "train", "test")))
    key = dict(kind="synthetic", n=n, size=size)
    return Films(images, cached_array(key, (n, size, size), np.uint8, chunks))

def measure(n: int, size: int) -> dict: # part → seconds and resident megabytes
    "One size, all parts."
    import numpy as np
    from pneumo_nb.run import open_stage
    from pneumo_nb.views import AUGMENTATION
    from pneumo_nb.batches import feature_source, film_source
    from pneumo_nb.training import predict_films
    from pneumo_nb.cnn import build_cnn
    from pneumo_nb.resnet import build_resnet, split_model
    from pneumo_nb.evaluation import compare_models
    small, result = synthetic_films(n, 32), {}
    test = small.rows("test")
    source = film_source(synthetic_films(n, size), 1, AUGMENTATION)
    resnet, cnn = build_resnet(32, "none"), build_cnn(32)

    # whatever happens once only
    for s in (source, film_source(small, 1, AUGMENTATION, 1)): next(iter(s.train(32, 1)))
    for model in (split_model(resnet, 0)[0], cnn): model.predict_on_batch(small.pixels[:32, ..., None])

    def part(name, step):
        start = time.perf_counter()
        value = step()
        result[name] = dict(seconds=time.perf_counter() - start, resident_mb=resident_mb())
        return value
    def one_epoch():
        for _ in source.train(32, 1).take(-(-(n // 2) // 32)): pass
    def fill_and_read():
        front = split_model(resnet, 0)[0]
        features, _ = feature_source(film_source(small, 1, AUGMENTATION, 1), front, 1)
        for _ in features.judge(test, 32): pass
    def predict(): return predict_films(cnn, film_source(small, 1, AUGMENTATION), test)
    def evaluate(answers):
        noise = .2 * np.random.default_rng(0).normal(size=len(answers))
        table = small.images.iloc[test].assign(probability=np.clip(answers + noise, 0, 1))
        compare_models(open_stage("evaluation", ""), {"cnn": table}, .5, 1)

    part("input pipeline", one_epoch)
    part("feature cache", fill_and_read)
    answers = part("prediction", predict)
    part("evaluation", lambda: evaluate(answers))
    return result

def measure_apart(n: int, size: int) -> dict: # as `measure`
    "One size in a process and a cache of its own."
    with tempfile.TemporaryDirectory() as cache:
        words = [sys.executable, __file__, "--one", str(n), "--size", str(size)]
        environment = os.environ | dict(PNEUMO_CACHE=cache)
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode: sys.exit(done.stderr)
    print(f"{n:,} films done", flush=True)
    return json.loads(done.stdout.splitlines()[-1])

# The table

def part_line(name: str, results: dict[int, dict]) -> str:
    "One row of Markdown; the last cell goes on along the line through the last two sizes."
    sizes = sorted(results)
    parts = [results[n][name] for n in sizes]
    (n1, s1), (n2, s2) = [(n, part["seconds"]) for n, part in zip(sizes, parts)][-2:]
    hours = (s2 + (s2 - s1) / (n2 - n1) * (1e6 - n2)) / 3600
    cells = [f"{part['seconds']:,.1f} s, {part['resident_mb']:,.0f} MB" for part in parts]
    return f"| {' | '.join([name, *cells, f'{hours:,.2f} h'])} |"

def table(measured: dict) -> str: # Markdown
    "Seconds and memory by number of films."
    results = {int(n): parts for n, parts in measured["results"].items()}
    head = ["part", *(f"{n:,} films" for n in sorted(results)), "a million"]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    size, cores, commit = measured["size"], measured["machine"]["cores"], measured["commit"][:10]
    words = (f"One epoch of input at {size} pixels over half of the films; features by ResNet50 and "
             "prediction by the CNN at 32 pixels; evaluation of half of the films with intervals. "
             f"Resident memory after each part; {cores} cores, commit {commit}. "
             "The last column goes on along the line through the last two sizes.")
    return "\n".join([*lines, *(part_line(name, results) for name in PARTS), "", words])

# The command

def arguments() -> argparse.ArgumentParser:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--films", default="5000,20000,100000", help="comma-separated numbers of films")
    ask.add_argument("--size", type=int, default=224, help="side of the films in the input pipeline, pixels; "
                     "features and prediction use 32")
    ask.add_argument("--out", default="benchmarks/growth.json")
    ask.add_argument("--write", default="", help="put the table of --out between the growth markers of this "
                     "file, such as nbs/49_findings.py; measures nothing")
    ask.add_argument("--one", type=int, help=argparse.SUPPRESS)
    return ask

def main():
    asked = arguments().parse_args()
    if asked.one: return print(json.dumps(measure(asked.one, asked.size)))
    from pneumo_nb.run import git_commit, jsonable, machine, read_json, write_json
    from pneumo_nb.results import write_between
    if asked.write:
        file = write_between(Path(asked.write), table(read_json(asked.out)), BETWEEN)
        return print(f"Wrote the table into {file}")
    results = {n: measure_apart(n, asked.size) for n in map(int, asked.films.split(","))}
    measured = jsonable(dict(machine=machine(), commit=git_commit(), size=asked.size, results=results))
    write_json(asked.out, measured)
    print(f"\n{table(measured)}\n\n{asked.out} written")

if __name__ == "__main__": main()
