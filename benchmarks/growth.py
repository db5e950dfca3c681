"""What happens to time and memory when the set grows: `make growth`. Each size runs in a process of its own, on noise in
place of films, through input, features, prediction and evaluation; the last column extrapolates to a million films."""
import argparse, json, os, subprocess, sys, tempfile, time
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
MARKERS = "<!-- growth: written by `make growth WRITE=FILE` -->", "<!-- end of growth -->"
PARTS = ["input pipeline", "feature cache", "prediction", "evaluation"]

def resident_mb() -> float:
    import psutil
    return psutil.Process().memory_info().rss / 1e6

def synthetic_films(n: int, size: int):
    "`n` films of noise in the cache, in patients of two, half of them in train."
    import numpy as np, pandas as pd
    from pneumo_nb.preprocessing import Films, cached_array
    rng = np.random.default_rng(0)
    chunks = lambda: (rng.integers(0, 256, (min(500, n - i), size, size), np.uint8) for i in range(0, n, 500))
    names = np.arange(n)
    images = pd.DataFrame(dict(path=[f"train/{i}.jpeg" for i in names], sha1=[f"{i:040x}" for i in names], label=names // 2 % 2, patient_id=names // 2,
                               split=np.where(names < n // 2, "train", "test")))
    return Films(images, cached_array(dict(kind="synthetic", n=n, size=size), (n, size, size), np.uint8, chunks))

def measure(n: int, size: int) -> dict: # part → seconds and resident megabytes
    "One size, all parts."
    import numpy as np, pandas as pd
    from pneumo_nb.cnn import build_cnn
    from pneumo_nb.evaluation import compare_models
    from pneumo_nb.preprocessing import AUGMENTATION, film_source
    from pneumo_nb.resnet import build_resnet, feature_source, split_model
    from pneumo_nb.run import open_stage
    from pneumo_nb.training import predict_films
    result, small = {}, synthetic_films(n, 32)
    def part(name, step):
        start = time.perf_counter()
        value = step()
        result[name] = dict(seconds=time.perf_counter() - start, resident_mb=resident_mb())
        return value
    source = film_source(synthetic_films(n, size), 1, AUGMENTATION)
    for s in (source, film_source(small, 1, AUGMENTATION, 1)):  # whatever happens once only
        next(iter(s.train(32, 1)))
    network, cnn = build_resnet(32, "none"), build_cnn(32)
    for model in (split_model(network, 0)[0], cnn): model.predict_on_batch(small.pixels[:32, ..., None])
    part(PARTS[0], lambda: [None for _ in source.train(32, 1).take(-(-(n // 2) // 32))])
    def fill_and_read():
        features, _ = feature_source(film_source(small, 1, AUGMENTATION, 1), split_model(network, 0)[0], 1)
        for _ in features.judge(small.rows("test"), 32): pass
    part(PARTS[1], fill_and_read)
    said = part(PARTS[2], lambda: predict_films(cnn, film_source(small, 1, AUGMENTATION), small.rows("test")))
    table = small.images.iloc[small.rows("test")].assign(probability=np.clip(said + .2 * np.random.default_rng(0).normal(size=len(said)), 0, 1))
    part(PARTS[3], lambda: compare_models(open_stage("evaluation", ""), {"cnn": table}, .5, 1))
    return result

def table(found: dict) -> str: # Markdown
    "Seconds and memory by number of films."
    results = {int(n): parts for n, parts in found["results"].items()}
    sizes = sorted(results)
    lines = ["| part | " + " | ".join(f"{n:,} films" for n in sizes) + " | a million |", "| --- " * (len(sizes) + 2) + "|"]
    for name in PARTS:
        (n1, s1), (n2, s2) = [(n, results[n][name]["seconds"]) for n in sizes[-2:]]
        hours = (s2 + (s2 - s1) / (n2 - n1) * (1e6 - n2)) / 3600
        lines.append(f"| {name} | " + " | ".join(f"{results[n][name]['seconds']:,.1f} s, {results[n][name]['resident_mb']:,.0f} MB" for n in sizes) + f" | {hours:,.2f} h |")
    return "\n".join(lines) + (f"\n\nOne epoch of input at {found['size']} pixels over half of the films; features by ResNet50 and prediction by the CNN at 32 pixels; "
        f"evaluation of half of the films with intervals. Resident memory after each part; {found['machine']['cores']} cores, commit {found['commit'][:10]}. "
        "The last column goes on along the line through the last two sizes.")

def main():
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--films", default="5000,20000,100000", help="comma-separated numbers of films")
    ask.add_argument("--size", type=int, default=224, help="side of the films in the input pipeline, pixels; features and prediction use 32")
    ask.add_argument("--out", default="benchmarks/growth.json")
    ask.add_argument("--write", default="", help="put the table of --out between the growth markers of this file; measures nothing")
    ask.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = ask.parse_args()
    if asked.one: return print(json.dumps(measure(asked.one, asked.size)))
    from pneumo_nb.report import write_between
    from pneumo_nb.run import git_commit, machine, plain, read_json, write_json
    if asked.write: return print(f"Wrote the table into {write_between(Path(asked.write), table(read_json(asked.out)), MARKERS)}")
    results = {}
    for n in map(int, asked.films.split(",")):
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run([sys.executable, __file__, "--one", str(n), "--size", str(asked.size)], env=os.environ | dict(PNEUMO_CACHE=cache), capture_output=True, text=True)
        if done.returncode: sys.exit(done.stderr)
        results[n] = json.loads(done.stdout.splitlines()[-1])
        print(f"{n:,} films done", flush=True)
    write_json(asked.out, found := plain(dict(machine=machine(), commit=git_commit(), size=asked.size, results=results)))
    print(f"\n{table(found)}\n\n{asked.out} written")

if __name__ == "__main__": main()
