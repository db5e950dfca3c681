"""This project beside the reference study's own way, in turn, in one process: `make bench`.

Each row runs both ways several times after a warm-up and gives the medians, their spread and the ratio.
Ceilings (the network alone on films already in memory, large products, plain decoding) are measured in the
same run."""
import argparse, os, subprocess, sys, tempfile, time
from pathlib import Path
from types import SimpleNamespace

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import numpy as np
import tensorflow as tf

import reference
from pneumo_nb.run import git_commit, machine, open_stage, read_json, write_json
from pneumo_nb.cache import Films, decode_films, decoded
from pneumo_nb.views import AUGMENTATION
from pneumo_nb.batches import Source, film_source
from pneumo_nb.networks import as_model, fast_twin, film_network, fold_channels, pneumonia_logits
from pneumo_nb.training import compile_model
from pneumo_nb.occlusion import occlusion_map
from pneumo_nb.gradients import log_odds_gradients
from pneumo_nb.explanation import METHODS, explain
from pneumo_nb.doubt import fit_reference
from pneumo_nb.detector import Bundle, Detector
from pneumo_nb.data import prepare_data
from pneumo_nb.preprocessing import load_films
from pneumo_nb.mlp import build_mlp
from pneumo_nb.cnn import build_cnn
from pneumo_nb.resnet import build_resnet, split_model, trunk_features, unfreeze_blocks
from pneumo_nb.results import write_between

BATCH = 32
BETWEEN = "<!-- benchmark: written by `make bench WRITE=FILE` -->", "<!-- end of benchmark -->"
STUDY_TRAIN, STUDY_VALIDATION = 4183, 1049  # films of the public set

def random_resnet(size: int) -> keras.Model:
    "ResNet50 with random weights: speed does not depend on them."
    return build_resnet(size, "none")

class Bench:
    "Films, both inputs and settings that the rows share."
    def __init__(self, data: str, size: int, repeats: int):
        self.work = tempfile.TemporaryDirectory()
        self.cache = os.environ["PNEUMO_CACHE"] = str(Path(self.work.name)/"cache")
        self.size, self.repeats = size, repeats
        self.stage = open_stage("data", Path(self.work.name)/"run")
        images = prepare_data(self.stage, data, phantom_train=640, phantom_test=32)
        self.films = load_films(self.stage, size)
        self.source = film_source(self.films, 1, AUGMENTATION)
        self.root = Path(images.attrs["root"])
        self.generator = reference.generators(self.root/"train", size, BATCH)[0]

# What the machine can do

def timed(step) -> float:
    "Seconds a step takes."
    start = time.perf_counter()
    step()
    return time.perf_counter() - start

def least_seconds(step, times: int = 6) -> float:
    "Shortest time of a step: a ceiling is what the machine can do when nothing disturbs it."
    return min(timed(step) for _ in range(times))

def ceilings() -> dict: # billions of multiplications and additions a second
    "A large matrix product and a large convolution in float32."
    square = tf.random.normal((3072, 3072))
    films, filters = tf.random.normal((32, 56, 56, 128)), tf.random.normal((3, 3, 128, 128))
    product = lambda: tf.matmul(square, square).numpy()
    convolve = tf.function(lambda: tf.nn.conv2d(films, filters, 1, "SAME"))
    return dict(product=2 * 3072 ** 3 / least_seconds(product) / 1e9,
                convolution=2 * 32 * 56 * 56 * 9 * 128 * 128 / least_seconds(convolve) / 1e9)

def gflop(model) -> float: # billions
    "Multiplications and additions of training on one film: forward, and about twice that backward."
    total = 0
    for layer in model.layers:
        is_convolution = isinstance(layer, keras.layers.Conv2D)
        if is_convolution or isinstance(layer, keras.layers.Dense):
            places = np.prod(layer.output.shape[1:-1], initial=1) if is_convolution else 1
            total += 2 * float(places) * float(np.prod(layer.kernel.shape))
    return 3 * total / 1e9

def layer_seconds(layer) -> float:
    "Forward and backward through one layer, with the gradient of its input."
    x = tf.random.normal((BATCH, *layer.input.shape[1:]))
    onto = tf.random.normal((BATCH, *layer.output.shape[1:]))
    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return tape.gradient(y, [x, *layer.trainable_variables], output_gradients=onto)
    step()
    return least_seconds(step)

def layer_costs(model) -> list[dict]: # layer, kind, seconds, gflops
    "What each layer of a network costs by itself."
    costs = []
    for layer in model.layers[1:]:
        if isinstance(layer.input, list): continue
        seconds = layer_seconds(layer)
        work = gflop(SimpleNamespace(layers=[layer])) * BATCH if layer.trainable_variables else 0.
        kind = type(layer).__name__
        costs.append(dict(layer=layer.name, kind=kind, seconds=seconds, gflops=work / seconds))
    return costs

# Both ways in turn

def in_turn(ways: dict, repeats: int) -> dict[str, list[float]]:
    "Results of each way, one after the other, `repeats` times, after one round that is not counted."
    rounds = [{name: way() for name, way in ways.items()} for _ in range(repeats + 1)][1:]
    return {name: [r[name] for r in rounds] for name in ways}

def ratio_of(medians: dict[str, float], unit: str) -> float | None:
    "How many times as good this project is. More is better for a rate, less for seconds."
    if "reference" not in medians: return None
    ours, theirs = medians["project"], medians["reference"]
    return ours / theirs if unit.endswith("/s") else theirs / ours

def row(name: str, unit: str, goal: str, results: dict, **more) -> dict:
    "One line of the table."
    medians = {way: float(np.median(values)) for way, values in results.items()}
    ratio = ratio_of(medians, unit)
    words = ", ".join(f"{way} {median:,.2f} {unit}" for way, median in medians.items())
    print(f"  {name}: {words}" + (f", ratio {ratio:.1f}" if ratio else ""), flush=True)
    return dict(row=name, unit=unit, goal=goal, ratio=ratio,
                **{f"{way}_median": median for way, median in medians.items()},
                **{f"{way}_all": values for way, values in results.items()}, **more)

# Input

def pipeline_row(b: Bench) -> list[dict]:
    paths = b.films.images.path[:256].tolist()
    def project():
        dataset = iter(b.source.train(BATCH, 1))
        next(dataset)
        return BATCH * 64 / timed(lambda: [next(dataset) for _ in range(64)])
    def study(): return BATCH * 4 / timed(lambda: [next(b.generator) for _ in range(4)])
    def decode(): return len(paths) / timed(lambda: [*decoded(b.root, paths, b.size)])
    results = in_turn(dict(project=project, reference=study, decoding_alone=decode), b.repeats)
    return [row("augmented input", "films/s", "20x", results)]

def second_run_row(b: Bench) -> list[dict]:
    def first():
        with tempfile.TemporaryDirectory() as cache:
            os.environ["PNEUMO_CACHE"] = cache
            return timed(lambda: load_films(b.stage, b.size))
    def second():
        os.environ["PNEUMO_CACHE"] = b.cache
        return timed(lambda: load_films(b.stage, b.size))
    results = in_turn(dict(project=second, first_run=first), b.repeats)
    return [row("decoded films, second run", "s", "decodes nothing", results, films=len(b.films.images))]

# Training

class LastBatch(keras.callbacks.Callback):
    "When the last train batch was done: before tf.data's wait at the end."
    def on_train_batch_end(self, batch, logs=None): self.at, self.batches = time.perf_counter(), batch + 1

def training_rate(model, data, steps: int) -> float: # films/s
    "From the call of `fit`, so that nothing is read ahead before the clock starts, to the last batch."
    last, start = LastBatch(), time.perf_counter()
    model.fit(data, steps_per_epoch=steps, epochs=1, verbose=0, shuffle=False, callbacks=[last])
    return BATCH * last.batches / (last.at - start)

def films_in_memory(size: int): # tf.data.Dataset
    "One batch of noise again and again: input that costs nothing."
    rng, options = np.random.default_rng(0), tf.data.Options()
    films = rng.integers(0, 256, (BATCH, size, size, 1), np.uint8)
    labels = rng.integers(0, 2, (BATCH, 1)).astype(np.float32)
    options.autotune.enabled = False
    return tf.data.Dataset.from_tensors((films, labels)).cache().repeat().with_options(options)

def training_row(name, build, goal, b: Bench, fold=lambda model: model, jit=False, steps=12) -> list[dict]:
    ours, theirs = fold(build(b.size)), reference.as_the_study_has_it(build, b.size)
    compile_model(ours, 1e-4, jit)
    reference.compile_as_the_study(theirs)
    memory = films_in_memory(b.size)
    def project(): return training_rate(ours, b.source.train(BATCH, 1), steps)
    def in_memory(): return training_rate(ours, memory, steps)
    def study(): return training_rate(theirs, b.generator, steps)
    results = in_turn(dict(project=project, in_memory=in_memory, reference=study), b.repeats)
    rate, alone = float(np.median(results["project"])), float(np.median(results["in_memory"]))
    return [row(f"training, {name}", "films/s", goal, results, share_of_in_memory=rate / alone,
                gflops=gflop(build(b.size)) * rate)]

def mlp_row(b: Bench) -> list[dict]:
    return training_row("MLP", build_mlp, "5x", b, fold_channels, jit=True, steps=16)

def cnn_row(b: Bench) -> list[dict]:
    return training_row("CNN", build_cnn, "1.4x", b, fast_twin)

# ResNet50: speeds are measured on some films and multiplied up to the study's; every epoch costs the same

def few_films(b: Bench, train: int, validation: int) -> Films:
    "Some train and validation films, for the rows that fill a cache of features."
    keep = np.concatenate([b.films.rows("train")[:train], b.films.rows("validation")[:validation]])
    images = b.films.images.iloc[keep].reset_index(drop=True)
    return Films(images, b.films.pixels[keep])

def whole_training(epochs: int, train_rate: float, predict_rate: float, before: float = 0.) -> float:
    "Seconds of a training on the study's numbers of films, from measured films/s."
    return before + epochs * (STUDY_TRAIN / train_rate + STUDY_VALIDATION / predict_rate)

def predict_rate(network, source: Source) -> float: # films/s
    "Prediction of the validation films."
    rows = source.films.rows("validation")
    data = source.judge(rows, BATCH)
    return len(rows) / timed(lambda: network.predict(data, verbose=0))

def trunk_seconds(front, back, source: Source) -> float: # a film
    "One pass through the frozen trunk, in its two parts."
    some = source.films.rows("train")[:2 * BATCH]
    def through_trunk():
        for start in range(0, len(some), BATCH):
            lower = front.predict_on_batch(source.training(0, some[start:start + BATCH]))
            back.get_layer("blocks").predict_on_batch(lower)
    return timed(through_trunk) / len(some)

def resnet_rows(b: Bench, views=2) -> list[dict]:
    source = film_source(few_films(b, 128, 32), 1, AUGMENTATION, views)
    model, theirs = random_resnet(b.size), reference.as_the_study_has_it(random_resnet, b.size)
    lower, top, _ = trunk_features(model, source, 3, views)
    (front, back), head = split_model(model, 3), split_model(model, 0)[1]
    def study(epochs):
        def predictions(): return [theirs.predict_on_batch(next(b.generator)[0]) for _ in range(2)]
        return lambda: whole_training(epochs, training_rate(theirs, b.generator, 10),
                                      2 * BATCH / timed(predictions))
    def frozen():
        passes = (views * STUDY_TRAIN + STUDY_VALIDATION) * trunk_seconds(front, back, source)
        train_rate = training_rate(head, top.train(BATCH, 1), 130)
        return whole_training(20, train_rate, predict_rate(head, top), passes)
    def tuned():
        train_rate = training_rate(back, lower.train(BATCH, 1), 10)
        return whole_training(10, train_rate, predict_rate(back, lower))
    scaled = f"multiplied up to {STUDY_TRAIN:,} train and {STUDY_VALIDATION:,} validation films"
    about = dict(views=views, note=scaled)
    compile_model(head, 1e-4)
    reference.compile_as_the_study(theirs)
    results = in_turn(dict(project=frozen, reference=study(20)), b.repeats)
    lines = [row("ResNet50 frozen, 20 epochs", "s", "10x", results, **about)]
    for network in (model, theirs): unfreeze_blocks(network, 3)
    compile_model(back, 1e-5)
    reference.compile_as_the_study(theirs, 1e-5)
    results = in_turn(dict(project=tuned, reference=study(10)), b.repeats)
    return [*lines, row("ResNet50 fine-tuned, 10 epochs", "s", "3x", results, **about)]

# Explanations

def occlusion_row(name, build, goal, b: Bench) -> dict:
    film = b.films.pixels[:1]
    in_colour = np.repeat(film[0, ..., None] / 255, 3, axis=-1).astype(np.float32)
    ours, theirs = build(b.size), reference.as_the_study_has_it(build, b.size)
    along = len(range(0, b.size - 19, 10))  # positions of the patch along one axis
    def project(): return timed(lambda: occlusion_map(ours, film))
    def study(): return timed(lambda: reference.occlusion_map(theirs, in_colour, rows=3)) * along / 3
    results = in_turn(dict(project=project, reference=study), b.repeats)
    return row(f"occlusion map, {name}", "s", goal, results, reference_positions=along ** 2,
               note="the reference ran 3 rows of positions, scaled to all")

def occlusion_rows(b: Bench) -> list[dict]:
    networks = ("MLP", build_mlp, "50x"), ("CNN", build_cnn, "10x"), ("ResNet50", random_resnet, "2x")
    return [occlusion_row(name, build, goal, b) for name, build, goal in networks]

COPIES = 64  # of a film that a method of explanation asks about

def explanation_settings() -> dict[str, dict]: # method → settings
    "As many copies, or films for methods that ask about a film once."
    return dict(gradcam={}, hirescam={}, integrated_gradients=dict(steps=COPIES, tolerance=np.inf),
                smoothgrad=dict(samples=COPIES), rise=dict(masks=COPIES))

def explanation_row(name: str, method: str, network, b: Bench) -> dict:
    "A method by batches, one copy at a time, and the network's own pass over a batch that lies ready."
    own = explanation_settings()[method]
    films = b.films.pixels[:1 if own else COPIES]
    batch = np.repeat(b.films.pixels[:1], BATCH, axis=0).astype(np.float32)
    def rate(size): return COPIES / timed(lambda: explain(network, films, method, **own, batch_size=size))
    def alone():
        if method == "rise": return BATCH / timed(lambda: network.predict_on_batch(batch[..., None]))
        return BATCH / timed(lambda: log_odds_gradients(network, batch, batch_size=BATCH))
    results = in_turn(dict(project=lambda: rate(BATCH), network=alone, reference=lambda: rate(1)), b.repeats)
    share = float(np.median(results["project"]) / np.median(results["network"]))
    return row(f"{METHODS[method].title}, {name}", "copies/s", "90 % of the network's own pass", results,
               share_of_network=share, note="the reference asks about one copy at a time")

def explanation_rows(b: Bench) -> list[dict]:
    networks = [(name, build(b.size)) for name, build in (("CNN", build_cnn), ("ResNet50", random_resnet))]
    return [explanation_row(name, method, network, b) for name, network in networks
            for method in explanation_settings()]

# The detector

def random_detector(b: Bench, size: int = 64) -> Detector:
    "The compact ensemble of params/best.yaml, with random weights."
    networks = [film_network(size, (32, 64, 128, 256), 3, "local") for _ in range(3)]
    file, images = Path(b.work.name)/"ensemble.keras", b.films.images
    as_model(pneumonia_logits(networks, flip=True)).save(file)
    reference = fit_reference(decode_films(images, size).pixels, images.patient_id)
    card = dict(image_size=size, thresholds={"half": .5}, calibration=dict(intercept=0., slope=1.),
                conformal=dict(level=.9, normal=.5, pneumonia=.5))
    return Detector(Bundle(card, reference, file.read_bytes()))

def detector_row(b: Bench) -> list[dict]:
    detector, names = random_detector(b), b.films.images.path[:512].tolist()
    pixels, paths = decode_films(b.films.images, 64).pixels[:512], [str(b.root/name) for name in names]
    parts = [pixels[start:start + BATCH] for start in range(0, len(paths), BATCH)]
    def rate(step): return lambda: len(paths) / timed(step)
    ways = dict(project=rate(lambda: [*detector.stream(paths, "half")]),
                decoding_alone=rate(lambda: [*decoded(b.root, names, 64)]),
                network_alone=rate(lambda: [detector.probabilities(part) for part in parts]))
    results = in_turn(ways, b.repeats)
    medians = {way: float(np.median(values)) for way, values in results.items()}
    alone = medians["decoding_alone"], medians["network_alone"]
    more = dict(share_of_slower=medians["project"] / min(alone),
                one_after_the_other=1 / sum(1 / films for films in alone))
    return [row("detector, from files", "films/s", "95 % of the slower part", results, **more)]

# Commands

def command_rows(b: Bench) -> list[dict]:
    def seconds(*words):
        def run(): return timed(lambda: subprocess.run(words, check=True, capture_output=True))
        return in_turn(dict(project=run), b.repeats)
    pneumo = str(Path(sys.executable).with_name("pneumo"))
    return [row("import pneumo_nb", "s", "0.3 s", seconds(sys.executable, "-c", "import pneumo_nb")),
            row("pneumo --help", "s", "1 s", seconds(pneumo, "--help"))]

ROWS = {"pipeline": pipeline_row, "mlp": mlp_row, "cnn": cnn_row, "resnet": resnet_rows,
        "occlusion": occlusion_rows, "explanations": explanation_rows, "detector": detector_row,
        "second": second_run_row, "commands": command_rows}

# The table

def number(value: float | None) -> str:
    "A value with as many digits as it deserves."
    if value is None: return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 2 else f"{value:.2f}"

def spread(line: dict, way: str) -> str:
    "A way's median, lowest and highest."
    values = line.get(f"{way}_all")
    if not values: return ""
    return f"{number(line[f'{way}_median'])} ({number(min(values))}–{number(max(values))})"

def table_line(line: dict) -> str:
    "One row of Markdown."
    ratio = "" if line["ratio"] is None else f"{number(line['ratio'])}x"
    measured = f"{line['row']}, {line['unit']}"
    cells = measured, spread(line, "project"), spread(line, "reference"), ratio, line["goal"]
    return f"| {' | '.join(cells)} |"

def conditions(result: dict) -> str:
    "On what the rows were measured."
    top, cores = result["ceilings"], result["machine"]["cores"]
    return (f"Medians, lowest and highest of {result['repeats']} runs in turn at {result['size']} pixels "
            f"on {result['films']}; {cores} cores, {top['product']:,.0f} GFLOP/s in a large product and "
            f"{top['convolution']:,.0f} in a large convolution; commit {result['commit'][:10]}.")

def training_words(result: dict) -> list[str]:
    "How near training comes to what the machine can do."
    trainings = {line["row"].split(", ")[1]: line for line in result["rows"] if "share_of_in_memory" in line}
    if not trainings: return []
    shares = "; ".join(f"{name} {line['share_of_in_memory']:.0%}" for name, line in trainings.items())
    sentences = ["Speed of training with its input, as a share of that on films already in memory: "
                 f"{shares}."]
    if "CNN" in trainings:
        rate = trainings["CNN"]["gflops"]
        share = rate / result["ceilings"]["convolution"]
        sentences.append(f"Training the CNN does {rate:,.0f} GFLOP/s, "
                         f"{share:.0%} of the large convolution's.")
    return sentences

def layer_words(result: dict) -> list[str]:
    "Where a step of the CNN goes, kind by kind."
    layers, seconds = result.get("cnn_layers", []), {}
    if not layers: return []
    for cost in layers: seconds[cost["kind"]] = seconds.get(cost["kind"], 0) + cost["seconds"]
    whole = sum(cost["seconds"] for cost in layers)
    shares = sorted(((part / whole, kind) for kind, part in seconds.items()), reverse=True)
    kinds = ", ".join(f"{kind} {share:.0%}" for share, kind in shares if share > .01)
    rates = ", ".join(f"{cost['gflops']:.0f}" for cost in layers if "Conv" in cost["kind"])
    return [f"Its layers one by one, forward and backward, take {whole:.2f} s a batch: {kinds}; "
            f"its convolutions, from first to last, do {rates} GFLOP/s."]

def detector_words(result: dict) -> list[str]:
    "How near the detector comes to the slower of its two parts."
    lines = [line for line in result["rows"] if "share_of_slower" in line]
    words = ("The detector answers at {:.0%} of the slower of its parts by themselves: decoding does {} "
             "films/s, its three networks of 64 pixels {}. Both use all cores; one after the other they "
             "would do {}.")
    names = "decoding_alone_median", "network_alone_median", "one_after_the_other"
    return [words.format(line["share_of_slower"], *(number(line[name]) for name in names)) for line in lines]

def table(result: dict) -> str: # Markdown
    "The JSON's numbers, for reading."
    head = ["| what | this project | the study's way | ratio | goal |", "| --- | --- | --- | --- | --- |"]
    words = [conditions(result), *training_words(result), *layer_words(result), *detector_words(result)]
    return "\n".join([*head, *map(table_line, result["rows"]), "", " ".join(words)])

# The command

def arguments() -> argparse.ArgumentParser:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--rows", default=",".join(ROWS), help=f"comma-separated, of {', '.join(ROWS)}")
    ask.add_argument("--size", type=int, default=224, help="side of the films, pixels")
    ask.add_argument("--data", default="", help="folder with train/ and test/; without it, phantoms")
    ask.add_argument("--repeats", type=int, default=3)
    ask.add_argument("--out", default="benchmarks/phantoms.json", help="JSON to write")
    ask.add_argument("--write", default="", help="put the table of --out between the benchmark markers of "
                     "this file, such as nbs/49_findings.py; measures nothing")
    return ask

def measure(chosen: list[str], data: str, size: int, repeats: int) -> dict:
    "The rows asked for, and the machine that they were measured on."
    bench = Bench(data, size, repeats)
    count = len(bench.films.images)
    films = f"{Path(data).name} ({count:,} films)" if data else f"{count} phantoms"
    result = dict(machine=machine(), commit=git_commit(), size=size, repeats=repeats, films=films,
                  ceilings=ceilings(), rows=[line for name in chosen for line in ROWS[name](bench)])
    if "cnn" in chosen: result["cnn_layers"] = layer_costs(fast_twin(build_cnn(size)))
    return result

def main():
    ask, start = arguments(), time.time()
    asked = ask.parse_args()
    if asked.write:
        file = write_between(Path(asked.write), table(read_json(asked.out)), BETWEEN)
        return print(f"Wrote the table into {file}")
    chosen = asked.rows.split(",")
    unknown = [name for name in chosen if name not in ROWS]
    if unknown: ask.error(f"expected rows among {', '.join(ROWS)}, found {', '.join(unknown)}")
    result = measure(chosen, asked.data, asked.size, asked.repeats)
    result["seconds"] = time.time() - start
    write_json(asked.out, result)
    print(f"\n{table(result)}\n\n{asked.out} written; {result['seconds']:,.0f} s")

if __name__ == "__main__": main()
