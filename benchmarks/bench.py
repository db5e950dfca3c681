"""This project beside the reference study's own way, in turn, in one process: `make bench`.

Each row runs both ways several times after a warm-up and gives the medians, their spread and the ratio. Ceilings (the
network alone on films already in memory, large products, plain decoding) are measured in the same run."""
import argparse, os, subprocess, sys, tempfile, time
from pathlib import Path
from types import SimpleNamespace

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import numpy as np
import tensorflow as tf

import reference
from pneumo_nb.cnn import build_cnn, fast_twin
from pneumo_nb.data import prepare_data
from pneumo_nb.mlp import build_mlp, fold_channels
from pneumo_nb.preprocessing import AUGMENTATION, Films, decoded, film_source, load_films
from pneumo_nb.report import write_between
from pneumo_nb.resnet import build_resnet, split_model, trunk_features, unfreeze_blocks
from pneumo_nb.run import machine, open_stage, git_commit, read_json, write_json
from pneumo_nb.training import compile_model
from pneumo_nb.xai import occlusion_map

BATCH, MARKERS = 32, ("<!-- benchmark: written by `make bench WRITE=FILE` -->", "<!-- end of benchmark -->")

# What the machine can do

def least_seconds(step, times: int = 6) -> float:
    "Shortest time of a step: a ceiling is what the machine can do when nothing disturbs it."
    return min(timed(step) for _ in range(times))

def timed(step) -> float:
    "Seconds a step takes."
    start = time.perf_counter()
    step()
    return time.perf_counter() - start

def ceilings() -> dict: # billions of multiplications and additions a second
    "A large matrix product and a large convolution in float32."
    a, films, filters = tf.random.normal((3072, 3072)), tf.random.normal((32, 56, 56, 128)), tf.random.normal((3, 3, 128, 128))
    convolve = tf.function(lambda: tf.nn.conv2d(films, filters, 1, "SAME"))
    return dict(product=2 * 3072 ** 3 / least_seconds(lambda: tf.matmul(a, a).numpy()) / 1e9,
                convolution=2 * 32 * 56 * 56 * 9 * 128 * 128 / least_seconds(convolve) / 1e9)

def layer_costs(model) -> list[dict]: # layer, kind, seconds, gflops
    "Forward and backward through each layer of a network by itself, the first one, too, with the gradient of its input."
    costs = []
    for layer in (l for l in model.layers[1:] if not isinstance(l.input, list)):
        x = tf.random.normal((BATCH, *layer.input.shape[1:]))
        onto = tf.random.normal((BATCH, *layer.output.shape[1:]))
        @tf.function
        def step():
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
            return tape.gradient(y, [x, *layer.trainable_variables], output_gradients=onto)
        step()
        seconds = least_seconds(step)
        costs.append(dict(layer=layer.name, kind=type(layer).__name__, seconds=seconds, gflops=gflop(SimpleNamespace(layers=[layer])) * BATCH / seconds if layer.trainable_variables else 0.))
    return costs

def gflop(model) -> float: # billions
    "Multiplications and additions of training on one film: forward, and about twice that backward."
    total = 0
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            places = np.prod(layer.output.shape[1:-1], initial=1) if isinstance(layer, keras.layers.Conv2D) else 1
            total += 2 * float(places) * float(np.prod(layer.kernel.shape))
    return 3 * total / 1e9

# Both ways in turn

class LastBatch(keras.callbacks.Callback):
    "When the last train batch was done: before tf.data's wait at the end."
    def on_train_batch_end(self, batch, logs=None): self.at, self.batches = time.perf_counter(), batch + 1

def in_turn(ways: dict, repeats: int) -> dict[str, list[float]]:
    "Results of each way, one after the other, `repeats` times, after one round that is not counted."
    rounds = [{name: way() for name, way in ways.items()} for _ in range(repeats + 1)][1:]
    return {name: [r[name] for r in rounds] for name in ways}

def row(name: str, unit: str, goal: str, results: dict, **more) -> dict:
    "One line of the table. More is better for a rate, less for seconds; the ratio says how many times as good this project is."
    middle = {way: float(np.median(values)) for way, values in results.items()}
    ratio = None
    if "reference" in middle:
        ratio = middle["project"] / middle["reference"] if unit.endswith("/s") else middle["reference"] / middle["project"]
    line = dict(row=name, unit=unit, goal=goal, ratio=ratio, **{f"{way}_median": m for way, m in middle.items()},
                **{f"{way}_all": values for way, values in results.items()}, **more)
    print(f"  {name}: " + ", ".join(f"{way} {m:,.2f} {unit}" for way, m in middle.items()) + (f", ratio {ratio:.1f}" if ratio else ""), flush=True)
    return line

# Rows

def pipeline_row(b) -> list[dict]:
    def ours():
        dataset = iter(b.source.train(BATCH, 1))
        next(dataset)
        return BATCH * 64 / timed(lambda: [next(dataset) for _ in range(64)])
    def theirs(): return BATCH * 4 / timed(lambda: [next(b.generator) for _ in range(4)])
    paths = b.films.images.path[:256].tolist()
    def decode(): return len(paths) / timed(lambda: [*decoded(b.films.images.attrs["root"], paths, b.size)])
    return [row("augmented input", "films/s", "20x", in_turn(dict(project=ours, reference=theirs, decoding_alone=decode), b.repeats))]

def training_rate(model, data, steps: int) -> float: # films/s
    "From the call of `fit`, so that nothing is read ahead before the clock starts, to the last batch."
    last, start = LastBatch(), time.perf_counter()
    model.fit(data, steps_per_epoch=steps, epochs=1, verbose=0, shuffle=False, callbacks=[last])
    return BATCH * last.batches / (last.at - start)

def training_row(name, build, goal, b, fold=lambda m: m, jit=False, steps=12) -> list[dict]:
    ours, theirs, rng = fold(build(b.size)), reference.as_the_study_has_it(build, b.size), np.random.default_rng(0)
    compile_model(ours, 1e-4, jit)
    reference.compile_as_the_study(theirs)
    memory = tf.data.Dataset.from_tensors((rng.integers(0, 256, (BATCH, b.size, b.size, 1), np.uint8), rng.integers(0, 2, (BATCH, 1)).astype(np.float32))).cache().repeat()
    options = tf.data.Options()
    options.autotune.enabled = False
    results = in_turn(dict(project=lambda: training_rate(ours, b.source.train(BATCH, 1), steps), in_memory=lambda: training_rate(ours, memory.with_options(options), steps),
                           reference=lambda: training_rate(theirs, b.generator, steps)), b.repeats)
    return [row(f"training, {name}", "films/s", goal, results, share_of_in_memory=float(np.median(results["project"]) / np.median(results["in_memory"])),
                gflops=gflop(build(b.size)) * float(np.median(results["project"])))]

STUDY_FILMS = 4183, 1049  # train and validation films of the public set

def few_films(b, train: int, validation: int) -> Films:
    "Some train and validation films, for the rows that fill a cache of features."
    keep = np.concatenate([b.films.rows("train")[:train], b.films.rows("validation")[:validation]])
    images = b.films.images.iloc[keep].reset_index(drop=True)
    return Films(images, b.films.pixels[keep])

def whole_training(epochs: int, train_rate: float, judge_rate: float, before: float = 0.) -> float:
    "Seconds of a training on the study's numbers of films, from measured films/s."
    return before + epochs * (STUDY_FILMS[0] / train_rate + STUDY_FILMS[1] / judge_rate)

def resnet_rows(b, views=2) -> list[dict]:
    "Speeds are measured on some films and multiplied up to the study's; each epoch of either way costs the same."
    films = few_films(b, 128, 32)
    source, judged = film_source(films, 1, AUGMENTATION, views), films.rows("validation")
    model, theirs = build_resnet(b.size, "none"), reference.as_the_study_has_it(lambda size: build_resnet(size, "none"), b.size)
    lower, top, _ = trunk_features(model, source, 3, views)
    (front, back), head = split_model(model, 3), split_model(model, 0)[1]
    compile_model(head, 1e-4)
    reference.compile_as_the_study(theirs)
    some = films.rows("train")[:2 * BATCH]
    def through_trunk():
        for i in range(0, len(some), BATCH): back.get_layer("blocks").predict_on_batch(front.predict_on_batch(source.training(0, some[i:i + BATCH])))
    def judge_rate(network, data, n): return n / timed(lambda: network.predict(data, verbose=0))
    def judge_study(): return 2 * BATCH / timed(lambda: [theirs.predict_on_batch(next(b.generator)[0]) for _ in range(2)])
    def project_frozen():
        passes = (views * STUDY_FILMS[0] + STUDY_FILMS[1]) * timed(through_trunk) / len(some)
        return whole_training(20, training_rate(head, top.train(BATCH, 1), 130), judge_rate(head, top.judge(judged, BATCH), len(judged)), passes)
    def study(epochs): return lambda: whole_training(epochs, training_rate(theirs, b.generator, 10), judge_study())
    note = dict(views=views, note=f"multiplied up to {STUDY_FILMS[0]:,} train and {STUDY_FILMS[1]:,} validation films")
    lines = [row("ResNet50 frozen, 20 epochs", "s", "10x", in_turn(dict(project=project_frozen, reference=study(20)), b.repeats), **note)]
    for network in (model, theirs): unfreeze_blocks(network, 3)
    compile_model(back, 1e-5)
    reference.compile_as_the_study(theirs, 1e-5)
    def project_tuned(): return whole_training(10, training_rate(back, lower.train(BATCH, 1), 10), judge_rate(back, lower.judge(judged, BATCH), len(judged)))
    return lines + [row("ResNet50 fine-tuned, 10 epochs", "s", "3x", in_turn(dict(project=project_tuned, reference=study(10)), b.repeats), **note)]

def occlusion_rows(b) -> list[dict]:
    lines, film = [], b.films.pixels[:1]
    color = np.repeat(film[0, ..., None] / 255, 3, axis=-1).astype(np.float32)
    for name, build, goal in (("MLP", build_mlp, "50x"), ("CNN", build_cnn, "10x"), ("ResNet50", lambda size: build_resnet(size, "none"), "2x")):
        ours, theirs = build(b.size), reference.as_the_study_has_it(build, b.size)
        positions = len(range(0, b.size - 19, 10)) ** 2
        def study(): return timed(lambda: reference.occlusion_map(theirs, color, rows=3)) * positions / (3 * positions ** .5)
        lines.append(row(f"occlusion map, {name}", "s", goal, in_turn(dict(project=lambda: timed(lambda: occlusion_map(ours, film)), reference=study), b.repeats),
                         reference_positions=positions, note="the reference ran 3 rows of positions, scaled to all"))
    return lines

def second_run_row(b) -> list[dict]:
    def first():
        with tempfile.TemporaryDirectory() as cache:
            os.environ["PNEUMO_CACHE"] = cache
            return timed(lambda: load_films(b.stage, b.size))
    def second():
        os.environ["PNEUMO_CACHE"] = b.cache
        return timed(lambda: load_films(b.stage, b.size))
    return [row("decoded films, second run", "s", "decodes nothing", in_turn(dict(project=second, first_run=first), b.repeats), films=len(b.films.images))]

def command_rows(b) -> list[dict]:
    def run(*words): return lambda: timed(lambda: subprocess.run(words, check=True, capture_output=True))
    return [row("import pneumo_nb", "s", "0.3 s", in_turn(dict(project=run(sys.executable, "-c", "import pneumo_nb")), b.repeats)),
            row("pneumo --help", "s", "1 s", in_turn(dict(project=run(str(Path(sys.executable).with_name("pneumo")), "--help")), b.repeats))]

ROWS = {"pipeline": pipeline_row, "mlp": lambda b: training_row("MLP", build_mlp, "5x", b, fold_channels, jit=True, steps=16),
        "cnn": lambda b: training_row("CNN", build_cnn, "1.4x", b, fast_twin), "resnet": resnet_rows, "occlusion": occlusion_rows,
        "second": second_run_row, "commands": command_rows}

# The table

def table(result: dict) -> str: # Markdown
    "The JSON's numbers, for reading."
    def number(v): return "" if v is None else f"{v:,.0f}" if v >= 100 else f"{v:.1f}" if v >= 2 else f"{v:.2f}"
    def spread(line, way):
        values = line.get(f"{way}_all")
        return "" if not values else f"{number(line[f'{way}_median'])} ({number(min(values))}–{number(max(values))})"
    lines = ["| what | this project | the study's way | ratio | goal |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {r['row']}, {r['unit']} | {spread(r, 'project')} | {spread(r, 'reference')} | {'' if r['ratio'] is None else number(r['ratio']) + 'x'} | {r['goal']} |" for r in result["rows"]]
    top, m = result["ceilings"], result["machine"]
    alone = "; ".join(f"{r['row'].split(', ')[1]} {r['share_of_in_memory']:.0%}" for r in result["rows"] if "share_of_in_memory" in r)
    return "\n".join(lines) + (f"\n\nMedians, lowest and highest of {result['repeats']} runs in turn at {result['size']} pixels on {result['films']}; "
        f"{m['cores']} cores, {top['product']:,.0f} GFLOP/s in a large product and {top['convolution']:,.0f} in a large convolution; commit {result['commit'][:10]}."
        + (f" Speed of training with its input, as a share of that on films already in memory: {alone}." if alone else "")
        + "".join(f" Training the CNN does {r['gflops']:,.0f} GFLOP/s, {r['gflops'] / top['convolution']:.0%} of the large convolution's." for r in result["rows"] if r["row"] == "training, CNN")
        + layer_words(result))

def layer_words(result: dict) -> str:
    "Where a step of the CNN goes, kind by kind."
    layers = result.get("cnn_layers", [])
    whole, kinds = sum(c["seconds"] for c in layers), dict.fromkeys(c["kind"] for c in layers)
    shares = sorted(((sum(c["seconds"] for c in layers if c["kind"] == kind) / whole, kind) for kind in kinds), reverse=True)
    if not layers: return ""
    rates = [f"{c['gflops']:.0f}" for c in layers if "Conv" in c["kind"]]
    return (f" Its layers one by one, forward and backward, take {whole:.2f} s a batch: " + ", ".join(f"{kind} {share:.0%}" for share, kind in shares if share > .01)
            + f"; its convolutions, from first to last, do {', '.join(rates)} GFLOP/s.")

class Bench:
    "Films, both inputs and settings that the rows share."
    def __init__(self, data: str, size: int, repeats: int):
        self.work = tempfile.TemporaryDirectory()
        self.cache = os.environ["PNEUMO_CACHE"] = str(Path(self.work.name)/"cache")
        self.size, self.repeats, self.stage = size, repeats, open_stage("data", Path(self.work.name)/"run")
        images = prepare_data(self.stage, data, phantom_train=640, phantom_test=32)
        self.films = load_films(self.stage, size)
        self.source, self.folder = film_source(self.films, 1, AUGMENTATION), Path(images.attrs["root"])/"train"
        self.generator = reference.generators(self.folder, size, BATCH)[0]

def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--rows", default=",".join(ROWS), help=f"comma-separated, of {', '.join(ROWS)}")
    ask.add_argument("--size", type=int, default=224, help="side of the films, pixels")
    ask.add_argument("--data", default="", help="folder with train/ and test/; without it, phantoms are drawn")
    ask.add_argument("--repeats", type=int, default=3)
    ask.add_argument("--out", default="benchmarks/phantoms.json", help="JSON to write")
    ask.add_argument("--write", default="", help="put the table of --out between the benchmark markers of this file; measures nothing")
    asked = ask.parse_args()
    if asked.write: return print(f"Wrote the table into {write_between(Path(asked.write), table(read_json(asked.out)), MARKERS)}")
    chosen = asked.rows.split(",")
    if wrong := [r for r in chosen if r not in ROWS]: ask.error(f"expected rows among {', '.join(ROWS)}, found {', '.join(wrong)}")
    bench, start = Bench(asked.data, asked.size, asked.repeats), time.time()
    result = dict(machine=machine(), commit=git_commit(), size=asked.size, repeats=asked.repeats,
                  films=f"{Path(asked.data).name} ({len(bench.films.images):,} films)" if asked.data else f"{len(bench.films.images)} phantoms", ceilings=ceilings())
    result |= dict(rows=[line for name in chosen for line in ROWS[name](bench)])
    if "cnn" in chosen: result["cnn_layers"] = layer_costs(fast_twin(build_cnn(asked.size)))
    result["seconds"] = time.time() - start
    write_json(asked.out, result)
    print(f"\n{table(result)}\n\n{asked.out} written; {result['seconds']:,.0f} s")

if __name__ == "__main__": main()
