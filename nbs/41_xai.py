# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: python3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What the models look at
#
# > Maps of the films on which this run's models are right and wrong, and how far to trust them

# %%
#| default_exp xai

# %%
#| export
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd

import pneumo_nb.networks  # its layers are part of saved models
from pneumo_nb.cache import Films, take
from pneumo_nb.evaluation import load_predictions, test_films
from pneumo_nb.explanation import METHODS, Method, explain, hits_interval, plot_beside, plot_maps
from pneumo_nb.explanation import pointing_hits, with_random_weights
from pneumo_nb.occlusion import occlusion_map
from pneumo_nb.preprocessing import load_films
from pneumo_nb.run import Stage, StudyError, finish, look, models, note, open_stage, read_json, rng_for
from pneumo_nb.run import write_csv
from pneumo_nb.style import CLASS_NAMES, counted, model_title, plot_style, readable, save_figure

# %%
#| hide
import time
from functools import partial
from fastcore.test import test_eq, test_fail
from IPython.display import Markdown, display
from pneumo_nb.mlp import train_quick
plot_style()

# %% tags=["parameters"]
run_dir = ""        # the run directory; "" for a temporary one
seed = 42           # decides which films are explained

# films
films_shown = 4     # films that the best model got right and wrong, picked by the seed
paths = []          # or the films to explain, as named in images.csv
mistakes_shown = 3  # misclassified films of each model
pointing_films = 0  # films of the pointing game on phantoms, drawn by the seed; 0: all that are called right

# occlusion
patch_size = 12     # side of the covering square, pixels
stride = 6          # step from one position to the next, pixels
fill = 127.5        # gray of the patch, 0-255

# %%
#| export
RANGES = {
    "films_shown": "whole number from 1 to 100",
    "paths": "list of plain texts",
    "mistakes_shown": "whole number from 0 to 100",
    "pointing_films": "whole number from 0 to 100000",
    "patch_size": "whole number from 1 to 1024, at most image_size",
    "stride": "whole number from 1 to 1024, at most patch_size",
    "fill": "number from 0 to 255",
}

# %%
#| export
STAGE = {
    "reads": ["predictions/*.csv", "models/*.keras", "images.csv", "metrics/data.json",
              "metrics/evaluation.json"],
    "writes": ["metrics/xai*.csv"],
    "card": ["xai_beside"],
}


# %% [markdown]
# Which parts of a film does a model's answer depend on? Are those parts lung? Evaluation counts right and
# wrong answers, and a model may be right for a wrong reason. This chapter shows maps for films of this run:
# red where a part counts as a sign of pneumonia, blue where it speaks against.
#
# The maps are made by **occlusion**: how much does the probability change when a part is covered? The
# chapters on occlusion and explanations show how that is computed and drawn, and what a map cannot say. Above
# all, it shows what a model uses, never whether it is right to use it.
#
# ## The models of this run
#
# Models are loaded from `models/*.keras`, each with films of the size that it takes.

# %%
#| export
def load_models(
    stage: Stage,
    names: list[str], # of models, as from the predictions
) -> dict[str, keras.Model]: # name → model: (N, S, S, 1) gray 0-255 → (N, 1) probability of pneumonia
    "The run's saved models, of those named."
    files = {name: stage.path("models", f"{name}.keras") for name in names}
    saved = {name: file for name, file in files.items() if file.exists()}
    if not saved: raise StudyError(f"Expected models/NAME.keras for the predictions of {', '.join(names)}, "
                                   "found none; run a model stage first.")
    return {name: keras.saving.load_model(file, compile=False) for name, file in saved.items()}


# %%
stage = open_stage("xai", run_dir, seed=seed, films_shown=films_shown, paths=paths,
                   mistakes_shown=mistakes_shown, pointing_films=pointing_films, patch_size=patch_size,
                   stride=stride, fill=fill)
if not list(stage.path("predictions").glob("*.csv")): train_quick(stage)
predictions = load_predictions(stage)
networks = load_models(stage, list(predictions))
split, tables = test_films(predictions)
if split == "test": look(stage, "films to explain and mistakes to show")
test_fail(lambda: load_models(stage, ["nobody"]), contains="found none; run a model stage first")


# %% [markdown]
# The threshold is the evaluation's, and so is the order: the best model first, then the others by their
# AUROC. Without an evaluation the threshold is .5, and the order is the study's.

# %%
#| export
def _by_rank(
    evaluation: dict,  # metrics/evaluation.json, or {}
    names: list[str],  # of models, in the study's order
) -> list[str]:
    "The best model first, then the others by AUROC."
    scores = {row["model"]: row["roc_auc"] or 0 for row in evaluation.get("comparison", [])}
    best = evaluation.get("best")
    return sorted(names, key=lambda name: (name != best, -scores.get(name, 0)))


# %%
scores = [dict(model="a", roc_auc=.8), dict(model="b", roc_auc=.9), dict(model="c", roc_auc=None)]
test_eq(_by_rank(dict(best="a", comparison=scores), ["c", "a", "b"]), ["a", "b", "c"])
test_eq(_by_rank({}, ["c", "a", "b"]), ["c", "a", "b"])

# %%
file = stage.path("metrics/evaluation.json")
evaluation = read_json(file) if file.exists() else {}
threshold, ranking = evaluation.get("threshold", .5), _by_rank(evaluation, list(networks))
best = ranking[0]


# %% [markdown]
# Explaining a model takes the network, its predictions and the films at its size. They travel together.

# %%
#| export
@dataclass
class _Explained:
    "A model of the run, with all that is needed to explain it."
    name: str
    network: keras.Model      # (N, S, S, 1) gray 0-255 → (N, 1) probability of pneumonia
    predictions: pd.DataFrame # path, label, probability
    films: Films              # at the network's size, S

    def pixels(self, paths: list[str]) -> np.ndarray: # (n, S, S) uint8
        "Films in the order of the paths."
        rows = {path: row for row, path in enumerate(self.films.images.path)}
        return take(self.films.pixels, np.array([rows[path] for path in paths], int))

    def maps(self, paths: list[str], method: str, settings: dict) -> np.ndarray: # (n, S, S) float32
        "Maps in the order of the paths."
        return explain(self.network, self.pixels(paths), method, **settings)


# %%
explained = {}
for name in ranking:
    films = load_films(stage, networks[name].input_shape[1], seed)
    explained[name] = _Explained(name, networks[name], predictions[name], films)
print(*(f"{model_title(name)}: films of {e.films.size} pixels" for name, e in explained.items()), sep="\n")


# %% [markdown]
# ## The films
#
# Unless films are named by the parameter `paths`, the seed picks them. The pick takes turns between films
# that the best model got right and wrong, of both classes where there are any.

# %%
#| export
def _pick_films(
    table: pd.DataFrame, # predictions of one model: path, label, probability
    count: int,
    threshold: float,
    seed: int,
) -> list[str]: # paths
    "A seeded pick that takes turns between right and wrong films of both classes."
    right = (table.probability >= threshold) == table.label
    kinds = [(is_right, label) for is_right in (True, False) for label in (0, 1)]
    groups = [table.path[(right == is_right) & (table.label == label)].tolist() for is_right, label in kinds]
    for n, group in enumerate(groups): rng_for(seed, "explain", n).shuffle(group)
    rounds = zip_longest(*groups)
    return [path for turns in rounds for path in turns if path is not None][:count]


# %%
made_up = pd.DataFrame(dict(path=list("abcde"), label=[0, 0, 0, 1, 1], probability=[.1, .2, .7, .9, .3]))
picked = _pick_films(made_up, 4, .5, seed)
test_eq((picked[0] in "ab", picked[1:]), (True, ["d", "c", "e"]))   # right 0, right 1, wrong 0, wrong 1


# %%
#| export
def _check_paths(
    paths: list[str],    # films to explain
    table: pd.DataFrame, # predictions of the best model
    model: str,
):
    "Refuse films that have no prediction, and an empty list."
    if not paths: raise StudyError("Expected at least one film to explain, found none; set films_shown to 1 "
                                   "or more, or name some in paths.")
    unknown = [path for path in paths if path not in set(table.path)]
    if unknown: raise StudyError(
        f"Expected paths as in predictions/{model}.csv (validation and test films), "
        f"found {', '.join(unknown[:3])}, which is not among them.")


# %%
test_fail(lambda: _check_paths([], made_up, "mlp"), contains="set films_shown to 1 or more")
test_fail(lambda: _check_paths(["z"], made_up, "mlp"), contains="predictions/mlp.csv")


# %% [markdown]
# Named films may be others than those on which the models are judged. A network may then have learned from
# them: some are trained once more on all films that are not test. A note says so.

# %%
#| export
def _note_learned(
    stage: Stage,
    paths: list[str],    # films to explain
    table: pd.DataFrame, # predictions of the best model on the films it is judged on
    split: str,          # which these are
):
    "Note films that a model may have learned from."
    others = [path for path in paths if path not in set(table.path)]
    if others: note(stage, f"{', '.join(others)}: not among the {split} films, so these films may have been "
                    "learned from; a probability may be that of a network that did not, a map is not.")


# %%
chosen = list(paths) or _pick_films(tables[best], films_shown, threshold, seed)
_check_paths(chosen, predictions[best], best)
_note_learned(stage, chosen, tables[best], split)
print(f"{model_title(best)} leads, threshold {threshold:g}; explained are", *chosen, sep="\n  ")


# %% [markdown]
# ## What the models call them
#
# Each model's call, with its probability for the class that it names. The maps below are always about the
# probability of pneumonia.

# %%
#| export
def _call(
    table: pd.DataFrame, # predictions of one model: path, probability
    path: str,
    threshold: float,
) -> tuple[str, float] | None: # class and its probability; None for a film without a prediction
    "What a model calls a film, and how surely."
    rows = table.probability[table.path == path]
    if rows.empty: return None
    probability = rows.iloc[0]
    positive = probability >= threshold
    return CLASS_NAMES[int(positive)], probability if positive else 1 - probability


# %%
test_eq(_call(made_up, "d", .5), ("PNEUMONIA", .9))
test_eq(_call(made_up, "a", .5), ("NORMAL", .9))
test_eq(_call(made_up, "z", .5), None)


# %%
#| export
def _calls_table(
    predictions: dict[str, pd.DataFrame], # model → path, probability
    paths: list[str],
    labels: dict[str, int],               # path → 0 normal, 1 pneumonia
    threshold: float,
) -> pd.DataFrame: # a row a film: film, true, then each model's call and probability
    "What every model calls the films explained."
    rows = []
    for path in paths:
        calls = {model_title(name): _call(table, path, threshold) for name, table in predictions.items()}
        words = {title: f"{call[0]} {call[1]:.1%}" for title, call in calls.items() if call}
        rows.append(dict(film=Path(path).name, true=CLASS_NAMES[labels[path]]) | words)
    return pd.DataFrame(rows)


# %%
images = explained[best].films.images
labels = dict(zip(images.path, images.label))
table = _calls_table(predictions, chosen, labels, threshold)
write_csv(stage.path("metrics/xai.csv"), table)
table.style.hide(axis="index").format(na_rep="–")


# %% [markdown]
# ## Pictures
#
# Film, map and overlay side by side, a figure for each model. The colours diverge from white at no change,
# and **one scale serves all films of a figure**. So a pale map means a model that hardly reacted.
#
# Ask of every map whether the colour lies on lung. Colour on the spine, on the heart, below the diaphragm or
# in the black beside the child is not a sign of pneumonia, even where the answer is right.
#
# Nor is covering the same everywhere. The patch is of middle gray. It darkens heart, spine and belly, it
# brightens the black margin, and it is about as bright as an aerated lung. A pale lung does not show that the
# model ignores it, and a red spine may show only that brightness counts.

# %%
#| export
def _figure_name(kind: str, model: str = "", method: str = "occlusion") -> str:
    "What a figure is called; the first method is not named."
    parts = [kind, model, "" if method == next(iter(METHODS)) else method]
    return "_".join(part for part in parts if part)

def _links(kind: str, names: list[str]) -> str: # markdown, a line for each method
    "Links to the figures of some models."
    def line(method, words):
        links = [f"[{model_title(n)}](#fig-{_figure_name(kind, n, method)})" for n in names]
        return f"{words.title.capitalize()}s: {' · '.join(links)}"
    return "\n\n".join(line(method, words) for method, words in METHODS.items())


# %%
test_eq(_figure_name("xai", "mlp"), "xai_mlp")
test_eq(_figure_name("xai_mistakes", "mlp", "gaze"), "xai_mistakes_mlp_gaze")
test_eq(_links("xai", ["a", "b"]).splitlines()[0], "Occlusion maps: [a](#fig-xai_a) · [b](#fig-xai_b)")


# %%
#| export
def _caption(
    model: _Explained,
    path: str,
    threshold: float,
) -> str: # two lines
    "Who calls a film what, how surely, and what it is."
    images = model.films.images
    true = CLASS_NAMES[images.label[images.path == path].iloc[0]]
    call = _call(model.predictions, path, threshold)
    if call is None: answer = "no prediction"
    else: answer = f"{call[0]} " + ("> 99%" if call[1] >= .995 else f"{call[1]:.0%}")
    return f"{model_title(model.name)}: {answer}\ntrue: {true}"


# %%
#| export
def _map_figure(
    model: _Explained,
    paths: list[str],
    maps: np.ndarray, # (n, S, S), one a path
    threshold: float,
    method: str,
): # matplotlib Figure
    "Maps of one model on some films."
    captions = [f"{Path(path).stem}\n{_caption(model, path, threshold)}" for path in paths]
    return plot_maps(model.pixels(paths), maps, captions, method)


# %%
occlusion = dict(patch_size=patch_size, stride=stride, fill=fill)
settings = {method: {} for method in METHODS} | dict(occlusion=occlusion)
display(Markdown(_links("xai", ranking)))

# %%
maps = {method: {} for method in METHODS}   # method → model → (n, S, S)
for method, words in METHODS.items():
    for name, model in explained.items():
        start, title = time.time(), model_title(name)
        made = maps[method][name] = model.maps(chosen, method, settings[method])
        print(f"{title}: {counted(len(made), words.title)} of {model.films.size} pixels a side "
              f"in {time.time() - start:.1f} s")
        caption = f"{title}: films, {words.title}s and overlays; red where {words.red}."
        alt = (f"{counted(len(chosen), 'film')} with {title}'s {words.title}s and overlays. "
               f"The maps reach from {made.min():+.2f} to {made.max():+.2f} ({words.unit}).")
        figure = _map_figure(model, chosen, made, threshold, method)
        save_figure(stage, figure, _figure_name("xai", name, method), caption, alt)


# %% [markdown]
# ## The best beside another
#
# The best model and the best of another chapter, on the same film and the same scale: [a
# comparison](#fig-xai_beside). Agreement between two models is not proof, but disagreement is a warning.

# %%
#| export
def _two_to_compare(
    ranking: list[str], # models, best first
) -> list[str]: # two, or the only one
    "The best model and the best of another stage, else the second best."
    first, *others = ranking
    stage_of = {name: facts["stage"] for name, facts in models().items()}
    apart = [name for name in others if stage_of.get(name, name) != stage_of.get(first, first)]
    return [first, *(apart or others)[:1]]


# %%
test_eq(_two_to_compare(["a", "b", "c"]), ["a", "b"])
test_eq(_two_to_compare(["a"]), ["a"])
of_one_stage = ["resnet_finetuned", "resnet_frozen"]
test_eq(_two_to_compare([*of_one_stage, "cnn"]), ["resnet_finetuned", "cnn"])
test_eq(_two_to_compare(of_one_stage), of_one_stage)


# %% [markdown]
# The film shown is the one to which the best model reacts most. Models that take films of different sizes are
# each drawn on their own. A patch of as many pixels covers a larger part of a smaller film.

# %%
#| export
def _beside_figure(
    pair: list[_Explained],
    path: str,
    maps: list[np.ndarray], # of this film, (S, S) each
    threshold: float,
    method: str,
): # matplotlib Figure
    "One film with the overlays of two models."
    pixels = [model.pixels([path])[0] for model in pair]
    return plot_beside(pixels, maps, [_caption(model, path, threshold) for model in pair], method)


# %%
#| export
def _beside_caption(
    titles: list[str],   # of two models
    sizes: list[float],  # of the largest change that each map of this film shows
    count: int,          # films explained
    words: Method,
) -> str:
    "Which film is shown, and which overlay looks pale."
    film = "The film explained" if count == 1 else (
        f"Of {counted(count, 'film')} explained the one to which {titles[0]} reacts most")
    weak, strong = sorted(zip(sizes, titles))
    pale = "" if weak[0] > strong[0] / 2 else (
        f" {weak[1]} looks pale on it: its largest change is {weak[0]:.2f}, "
        f"that of {strong[1]} {strong[0]:.2f}.")
    return f"{film}, with the overlays of {' and '.join(titles)} on one scale.{pale} Red where {words.red}."


# %%
beside = _beside_caption(["A", "B"], [.1, .9], 4, METHODS["occlusion"])
assert beside.startswith("Of 4 films explained the one to which A reacts most, with the overlays of A and B")
assert "A looks pale on it: its largest change is 0.10, that of B 0.90." in beside
assert "pale" not in _beside_caption(["A", "B"], [.8, .9], 1, METHODS["occlusion"])

# %%
pair = _two_to_compare(ranking)
compared = METHODS if len(pair) == 2 else {}
if not compared: print("This run has no two models to compare.")
for method, words in compared.items():
    strongest = int(np.argmax([np.abs(change).max() for change in maps[method][best]]))
    two_maps = [maps[method][name][strongest] for name in pair]
    two = [explained[name] for name in pair]
    figure = _beside_figure(two, chosen[strongest], two_maps, threshold, method)
    titles, sizes = [model_title(name) for name in pair], [float(np.abs(m).max()) for m in two_maps]
    caption = _beside_caption(titles, sizes, len(chosen), words)
    alt = f"One film with the overlays of {' and '.join(titles)} on one scale."
    save_figure(stage, figure, _figure_name("xai_beside", method=method), caption, alt)


# %% [markdown]
# ## Mistakes
#
# The films that each model got most confidently wrong. Each is named, so that it can be looked up, with what
# it is and what it was called. Where a model is all but certain, no patch moves its answer and the map stays
# blank. Blank does not mean that it looked nowhere. And a map cannot say why a film was called wrong.

# %%
#| export
def _worst_mistakes(
    table: pd.DataFrame, # predictions of one model: path, label, probability
    count: int,
    threshold: float,
) -> list[str]: # paths, most confident first
    "The films called wrong with the greatest confidence."
    wrong = table[(table.probability >= threshold) != table.label]
    error = (wrong.probability - wrong.label).abs()
    return wrong.path.loc[error.sort_values(ascending=False, kind="stable").index[:count]].tolist()


# %%
made_up = pd.DataFrame(dict(path=list("abcd"), label=[0, 1, 1, 0], probability=[.9, .05, .6, .2]))
test_eq(_worst_mistakes(made_up, 3, .5), ["b", "a"])

# %%
mistakes = {name: _worst_mistakes(tables[name], mistakes_shown, threshold) for name in ranking}
for name in ranking:
    if not mistakes_shown: print(f"Mistakes of {model_title(name)} are not shown in this run.")
    elif not mistakes[name]: print(f"{model_title(name)} makes no mistakes on the {split} films.")
mistaken = [name for name in ranking if mistakes[name]]
if mistaken: display(Markdown(_links("xai_mistakes", mistaken)))

# %%
for method, words in METHODS.items():
    for name in mistaken:
        model, wrong, title = explained[name], mistakes[name], model_title(name)
        made = model.maps(wrong, method, settings[method])
        figure = _map_figure(model, wrong, made, threshold, method)
        caption = f"{title}: its most confident mistakes."
        alt = (f"{counted(len(wrong), f'{split} film')} that {title} called wrong most confidently, "
               "with maps and overlays.")
        save_figure(stage, figure, _figure_name("xai_mistakes", name, method), caption, alt)


# %% [markdown]
# ## Against the truth
#
# On phantoms we know where disease was drawn. If a model looks at it, covering it should lower the
# probability more than covering the rest. The **pointing game** counts how often a map's highest point lies
# in the drawn disease, over diseased films that the model called right. Pointing blindly scores the disease's
# share of the film. The interval comes from redrawn patients. Beside it stands the same architecture with
# random weights: what it hits, it hits without having learned anything.

# %%
#| export
def _load_masks(
    root: str | Path, # of the phantoms
    paths: list[str],
    size: int,        # side of the result, pixels
) -> np.ndarray: # (N, size, size) bool
    "Where disease was drawn on phantom films."
    def mask(path):
        drawn = cv2.imread(str((Path(root)/"masks"/path).with_suffix(".png")), cv2.IMREAD_GRAYSCALE)
        return cv2.resize(drawn, (size, size), interpolation=cv2.INTER_AREA) > 127
    return np.stack([mask(path) for path in paths])


# %%
#| export
def _patients_of(
    model: _Explained,
    paths: list[str],
) -> list: # whose film each is
    "Patients in the order of the paths."
    images = model.films.images
    return images.set_index("path").patient_id[paths].tolist()


# %%
#| export
_POINTING = ["model", "films", "hits", "blind", "method", "low", "high", "random"]

def _called_right(table: pd.DataFrame, threshold: float, most: int, seed: int) -> list[str]: # paths
    "Pneumonia films that a model called so; of more than `most`, a seeded pick."
    paths = table.path[(table.label == 1) & (table.probability >= threshold)].tolist()
    if not most or len(paths) <= most: return paths
    return [paths[n] for n in np.sort(rng_for(seed, "pointing").permutation(len(paths))[:most])]


# %%
#| export
def _point(
    model: _Explained,
    table: pd.DataFrame, # its predictions on the films it is judged on
    root: str | Path,    # of the phantoms
    threshold: float,
    method: str,
    settings: dict,      # of the method
    seed: int,
    most: int,           # films; 0 for all that are called right
) -> dict | None: # a value for each of `_POINTING`; None without pneumonia that it called right
    "One model's pointing game, and that of the same architecture with random weights."
    paths = _called_right(table, threshold, most, seed)
    if not paths: return None
    masks = _load_masks(root, paths, model.films.size)
    untrained = replace(model, network=with_random_weights(model.network, seed))
    hits, random = (pointing_hits(m.maps(paths, method, settings), masks) for m in (model, untrained))
    low, high = hits_interval(hits, _patients_of(model, paths), seed)
    return dict(model=model.name, films=len(paths), hits=hits.mean(), blind=masks.mean(), method=method,
                low=low, high=high, random=random.mean())


# %%
facts, games = read_json(stage.path("metrics/data.json")), []
if facts["source"] == "phantoms":
    for method in METHODS:
        for name, model in explained.items():
            root = stage.path(facts["root"])
            game = _point(model, tables[name], root, threshold, method, settings[method], seed,
                          pointing_films)
            if game: games.append(game)
            else: print(f"{model_title(name)} called no pneumonia right, so there is nothing to point at.")
else: print("These films come without masks, so the maps cannot be checked against the truth here.")

# %%
pointing = pd.DataFrame(games, columns=_POINTING)
write_csv(stage.path("metrics/xai_pointing.csv"), pointing)
method_titles = {method: words.title for method, words in METHODS.items()}
shown = pointing.assign(model=pointing.model.map(model_title), method=pointing.method.map(method_titles))
if games: display(readable(shown).style.hide(axis="index").format(precision=2))


# %% [markdown]
# ## What the maps say

# %%
#| export
def _reaction(
    title: str,       # of the model
    method: Method,
    maps: np.ndarray, # (N, S, S)
) -> str: # markdown
    "How strongly a model reacts, in words."
    size = np.abs(maps).max(axis=(1, 2))
    positive = int((maps.mean(axis=(1, 2)) > 0).sum())
    return (f"- **{title}**, {method.unit}: {np.median(size):.3f} up or down at the strongest place of the "
            f"median film ({size.min():.3f} to {size.max():.3f} over the {counted(len(maps), 'film')} "
            f"above); the mean over a film is above 0 on {positive} of {len(maps)}.")


# %%
one_half = np.array([[[0, .5], [0, 0]], [[0, -.2], [0, 0]]])
sentence = _reaction("A model", METHODS["occlusion"], one_half)
assert "0.350 up or down at the strongest place of the median film (0.200 to 0.500 over" in sentence
assert "above 0 on 1 of 2" in sentence


# %%
#| export
def _pointing_sentence(game) -> str: # a row of the pointing table
    "How a pointing game went, in words."
    if game.low > game.blind: against = "better than chance"
    elif game.high < game.blind: against = "worse than chance"
    else: against = "not to be told from chance"
    return (f"- The highest point of {model_title(game.model)}'s {METHODS[game.method].title}s lies in the "
            f"drawn disease on {game.hits:.0%} of {counted(game.films, 'film')} "
            f"({game.low:.0%} to {game.high:.0%}): {against}, since pointing blindly "
            f"would hit {game.blind:.0%}. With random weights the same network hits {game.random:.0%}.")


# %%
game = dict(model="a", films=40, hits=.5, blind=.1, method="occlusion", low=.3, high=.7, random=.2)
def in_words(**changes): return _pointing_sentence(next(pd.DataFrame([game | changes]).itertuples()))
assert "50% of 40 films (30% to 70%): better than chance, since" in in_words()
assert "not to be told from chance" in in_words(blind=.3) and "worse than chance" in in_words(blind=.8)


# %%
#| export
def _chosen_sentence(
    chosen: list[str],   # films explained
    is_named: bool,      # by the parameter, not picked by the seed
    table: pd.DataFrame, # predictions of the best model: path, label, probability
    threshold: float,
    title: str,          # of the best model
) -> str: # markdown
    "How the films came to be chosen, and how many of them the best model calls right."
    rows = table.set_index("path").loc[chosen]
    right = int(((rows.probability >= threshold) == rows.label).sum())
    how = "named by the parameter `paths`" if is_named else "picked by the seed, right and wrong in turn"
    return (f"- The films explained were {how}: {title} calls {right} of {len(chosen)} right. So this is "
            "not an average over the films that the models are judged on.")


# %%
of_five = partial(_chosen_sentence, list("abc"), table=made_up, threshold=.5, title="A model")
assert "named by the parameter `paths`: A model calls 3 of 3 right" in of_five(True, table=made_up.assign(
    probability=made_up.label))
assert "picked by the seed" in of_five(False)


# %%
#| export
def _faint_sentence(
    method: Method,
    maps: dict[str, np.ndarray], # model → (N, S, S)
) -> list[str]: # no line or one, markdown
    "Whose maps are faint, and what that means, where the method says what it means."
    faint = [model_title(name) for name, drawn in maps.items()
             if np.median(np.abs(drawn).max(axis=(1, 2))) < method.faint_below]
    return [f"- The {method.title}s of {' and '.join(faint)} are faint: {method.faint}."] if faint else []


# %%
faint, strong = np.full((2, 3, 3), .01), np.full((2, 3, 3), .4)
assert "maps of a are faint" in _faint_sentence(METHODS["occlusion"], dict(a=faint, b=strong))[0]
test_eq(_faint_sentence(METHODS["occlusion"], dict(b=strong)), [])


# %%
#| export
def _findings(
    maps: dict[str, dict[str, np.ndarray]], # method → model → maps (N, S, S)
    pointing: pd.DataFrame,                 # columns as in `_POINTING`
    chosen: str,                            # from `_chosen_sentence`
) -> str: # markdown
    "What the maps say, in words."
    lines = [_reaction(model_title(name), METHODS[method], drawn)
             for method, group in maps.items() for name, drawn in group.items()]
    lines += [chosen, *map(_pointing_sentence, pointing.itertuples())]
    for method, group in maps.items(): lines += _faint_sentence(METHODS[method], group)
    return "\n".join(lines)


# %%
chosen_words = _chosen_sentence(chosen, bool(paths), predictions[best], threshold, model_title(best))
display(Markdown(_findings(maps, pointing, chosen_words)))
record = finish(stage)
