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
import json
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd

from pneumo_nb.cache import Films, take
from pneumo_nb.evaluation import load_predictions, test_films
from pneumo_nb.explanation import (
    METHODS, Method, explain, hits_interval, panel_boxes, plot_film, plot_rows, pointing_hits,
    random_weights)
from pneumo_nb.faithfulness import (
    LIGHT, agreement, audit_sentence, burnt_in_regions, lesion_groups, outside_body, region_audit)
from pneumo_nb.gradients import has_feature_map
from pneumo_nb.networks import as_model, networks_of, pneumonia_logits
from pneumo_nb.preprocessing import load_films
from pneumo_nb.run import Stage, StudyError, finish, look, models, note, open_stage, read_json, rng_for
from pneumo_nb.run import write_csv
from pneumo_nb.style import CLASS_NAMES, counted, in_list, model_title, plot_style, readable, save_figure

# %%
#| hide
from functools import partial
from fastcore.test import test_eq, test_fail
from IPython.display import Markdown, display
from pneumo_nb.eda import load_burnt_in
from pneumo_nb.faithfulness import faithfulness_table, localisation_table, measure_methods
from pneumo_nb.faithfulness import MEASURES, plot_sanity, sanity, shown_faithfulness, use_sentence
from pneumo_nb.mlp import train_quick
plot_style()

# %% tags=["parameters"]
run_dir = ""        # the run directory; "" for a temporary one
seed = 42           # decides which films are explained

# films
films_shown = 3     # films that the best model got right and wrong, picked by the seed
paths = []          # or the films to explain, as named in images.csv
mistakes_shown = 3  # misclassified films of each model
pointing_films = 0  # films of the pointing game on phantoms, drawn by the seed; 0: all that are called right
measured_films = 8  # films on which all methods are measured, drawn by the seed; 0: all that are called right

# methods
methods = []        # names of methods; [] for all that there are
rise_masks = 400    # masked copies of a film for RISE
patch_size = 12     # occlusion: side of the covering square, pixels
stride = 6          # step from one position to the next, pixels
fill = 127.5        # gray of the patch, 0-255

# %%
#| export
RANGES = {
    "films_shown": "whole number from 1 to 100",
    "paths": "list of plain texts",
    "mistakes_shown": "whole number from 0 to 100",
    "pointing_films": "whole number from 0 to 100000",
    "measured_films": "whole number from 0 to 100000",
    "methods": "list of plain texts",
    "rise_masks": "whole number from 2 to 100000",
    "patch_size": "whole number from 1 to 1024, at most image_size",
    "stride": "whole number from 1 to 1024, at most patch_size",
    "fill": "number from 0 to 255",
}

# %%
#| export
STAGE = {
    "reads": ["predictions/*.csv", "models/*.keras", "images.csv", "burnt_in.csv", "metrics/data.json",
              "metrics/evaluation.json"],
    "writes": ["metrics/xai*.csv"],
    "card": ["xai_first"],
}


# %% [markdown]
# Which parts of a film does a model's answer depend on? Are those parts lung? Evaluation counts right and
# wrong answers, and a model may be right for a wrong reason. This chapter shows maps for films of this run:
# red where a part counts as a sign of pneumonia, blue where it speaks against.
#
# A map always looks like something. So the chapter shows each film by several methods, and beside them two
# **controls** that never asked the network: a random map and an edge map of the film. Then it measures which
# maps may be believed. The instruments say how maps are made and measured: occlusion, gradients, sampling,
# explanations and faithfulness. Above all, a map shows what a model uses, never whether it is right to use
# it.

# %% [markdown]
# ## A film and its map
#
# Each map has its own scale, and no scale ends below a floor. So a map of noise looks pale. A white line runs
# round the strongest tenth of a map. On phantoms a dashed yellow line shows where disease was drawn.

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
                   mistakes_shown=mistakes_shown, pointing_films=pointing_films,
                   measured_films=measured_films, methods=methods, rise_masks=rise_masks,
                   patch_size=patch_size, stride=stride, fill=fill)
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
        "Maps in the order of the paths; `settings`: method → its settings."
        return explain(self.network, self.pixels(paths), method, **settings.get(method, {}))

    def suits(self, method: str) -> bool:
        "Can the method explain this network? Grad-CAM needs a feature map."
        if "layer" not in METHODS[method].defaults: return True
        return has_feature_map(self.network, (self.films.size, self.films.size))


# %%
explained = {}
for name in ranking:
    films = load_films(stage, networks[name].input_shape[1], seed)
    explained[name] = _Explained(name, networks[name], predictions[name], films)


# %% [markdown]
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


# %% [markdown]
# One more film is explained first, and stands on the report's landing page. It is the film with pneumonia
# that the best model calls so most surely.

# %%
#| export
def _surest(
    table: pd.DataFrame, # predictions of one model: path, label, probability
    threshold: float,
) -> str | None: # path; None where no pneumonia is called so
    "The film with pneumonia that a model calls so most surely."
    right = table[(table.label == 1) & (table.probability >= threshold)]
    return None if right.empty else right.path[right.probability.idxmax()]


# %%
test_eq((_surest(made_up, .5), _surest(made_up, .95)), ("d", None))


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
sure, chosen = _surest(tables[best], threshold), list(paths)
if not chosen:
    picked = _pick_films(tables[best], films_shown + 1, threshold, seed)
    chosen = [path for path in picked if path != sure][:films_shown]
_check_paths(chosen, predictions[best], best)
_note_learned(stage, chosen, tables[best], split)


# %%
#| export
def _asked_methods(names: list[str]) -> list[str]: # `names`: [] for all
    "The methods to explain by; controls are always among them."
    if unknown := [name for name in names if name not in METHODS]: raise StudyError(
        f"Expected methods of {', '.join(METHODS)}, found {', '.join(unknown)}.")
    return [name for name, method in METHODS.items() if not names or name in names or method.is_control]

def _titles(names) -> list[str]: # of methods
    return [METHODS[name].title for name in names]


# %%
test_eq(_asked_methods(["rise"]), ["rise", "random_map", "edge_map"])
test_fail(lambda: _asked_methods(["gaze"]), contains="found gaze")

# %%
occlusion = dict(patch_size=patch_size, stride=stride, fill=fill)
settings = dict(rise=dict(masks=rise_masks), occlusion=occlusion, smoothgrad=dict(samples=16),
                integrated_gradients=dict(tolerance=.05, most_steps=128))
wanted = _asked_methods(methods)
asked = [name for name in wanted if explained[best].suits(name)]
without = [name for name in wanted if name not in asked]
if without: print(f"{model_title(best)} has no feature map, so there are no {in_list(_titles(without))}.")


# %% [markdown]
# Before any picture, one question is put to every method: do its maps change when the network's weights are
# drawn anew? If they hardly do, the maps show the film and not the network, and the captions say so.

# %%
#| export
def _called_right(table: pd.DataFrame, threshold: float, most: int, seed: int) -> list[str]: # paths
    "Pneumonia films that a model called so; of more than `most`, a seeded pick."
    paths = table.path[(table.label == 1) & (table.probability >= threshold)].tolist()
    if not most or len(paths) <= most: return paths
    return [paths[n] for n in np.sort(rng_for(seed, "pointing").permutation(len(paths))[:most])]

def _warning(verdicts: pd.DataFrame, names) -> str: # `verdicts`: from `sanity`; `names`: of methods shown
    "What a caption says of methods that failed the check; empty where none did."
    failed = [row.method for row in verdicts.itertuples() if row.verdict == "hardly changes"
              and row.method in names and not METHODS[row.method].is_control]
    if not failed: return ""
    maps = in_list([f"{title}s" for title in _titles(failed)])
    return (f" Not to be believed: {maps}, which hardly change when the network's weights are drawn anew and "
            "so do not show what it looks at.")


# %%
checked = pd.DataFrame(dict(method=["rise", "edge_map"], verdict="hardly changes"))
assert _warning(checked, METHODS).startswith(" Not to be believed: RISE maps, which hardly change")
test_eq(_warning(checked, ["occlusion"]), "")

# %%
measured = _called_right(tables[best], threshold, measured_films, seed)
curves, verdicts = pd.DataFrame(), pd.DataFrame(dict(method=[], verdict=[]))
light = settings | LIGHT | dict(rise=dict(masks=60), occlusion=occlusion | dict(stride=patch_size))
if len(measured) < 2:
    print(f"{model_title(best)} calls fewer than 2 films with pneumonia so, so its maps are not checked.")
else:
    few = explained[best].pixels(measured[:3])
    curves, verdicts = sanity(explained[best].network, few, asked, light, seed, rows=3)
    write_csv(stage.path("metrics/xai_sanity.csv"), verdicts)


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
facts = read_json(stage.path("metrics/data.json"))
def masks_of(model, paths): # a mask a path, or None a path
    if facts["source"] != "phantoms": return [None] * len(paths)
    return list(_load_masks(stage.path(facts["root"]), paths, model.films.size)) if paths else []


# %%
#| export
def _compare_html(
    name: str,                # of the figure
    titles: list[str],        # of its panels
    boxes: list[list[float]], # from `panel_boxes`
) -> str: # markdown with HTML as it is
    "A slider over the panels of a figure."
    panels = [[title, f"{title}, enlarged from the figure", box] for title, box in zip(titles, boxes)]
    data = json.dumps(dict(figure=name, panels=panels)).replace("<", "\\u003c")
    html = (f'<div class="compare-maps"><script type="application/json">{data}</script></div>'
            '<script defer src="assets/compare.js"></script>')
    return f"``````{{=html}}\n{html}\n``````"


# %%
assert "<b>" not in _compare_html("xai_sure", ["<b>"], [[0, 0, 1, 1]])


# %%
#| export
def _film_figure(
    model: _Explained,
    path: str,
    maps: dict[str, np.ndarray], # method → (S, S)
    threshold: float,
    mask,                        # (S, S) bool; None: not known
): # matplotlib Figure
    "One film by all methods."
    title = f"{Path(path).stem}\n{_caption(model, path, threshold)}"
    return plot_film(model.pixels([path])[0], maps, title, mask)

def _film_alt(maps: dict[str, np.ndarray]) -> str: # method → (S, S)
    "What is seen on such a figure."
    parts = [f"{METHODS[name].title} from {m.min():+.2g} to {m.max():+.2g}" for name, m in maps.items()]
    return "A film, and on it in red and blue: " + "; ".join(parts) + "."


# %%
#| export
def _overview(model: _Explained, asked: list[str]) -> list[str]: # names of methods
    "By which two methods, where they suit, models are compared."
    suits = [name for name in asked if model.suits(name)]
    return [name for name in suits if name in ("occlusion", "gradcam")] or suits[:1]

def _quickest(model: _Explained, asked: list[str]) -> list[str]: # one method
    "By what every model is explained, and many films are."
    by = _overview(model, asked)
    return ["gradcam"] if "gradcam" in by else by[:1]

def _by_row(model: _Explained, paths: list[str], methods: list[str], settings: dict) -> list[dict]:
    "For each path: method → map."
    made = {name: model.maps(paths, name, settings) for name in methods}
    return [{name: drawn[n] for name, drawn in made.items()} for n in range(len(paths))]


# %% [markdown]
# [The first picture](#fig-xai_first) has the film with pneumonia that the best model calls so most surely,
# and a map of what it answers to. Where it calls none so, it is the first film explained.

# %%
model, path = explained[best], sure or chosen[0]
first = _quickest(model, asked)
maps = _by_row(model, [path], first, settings)[0]
figure = _film_figure(model, path, maps, threshold, masks_of(model, [path])[0])
caption = f"{Path(path).stem}, and what in it speaks for pneumonia to the {model_title(best)}."
save_figure(stage, figure, "xai_first", caption + _warning(verdicts, first), _film_alt(maps))

# %% [markdown]
# ## One film by all methods
#
# Ask of every map whether the colour lies on lung. Colour on the spine, on the heart, below the diaphragm or
# in the black beside the child is not a sign of pneumonia, even where the answer is right. Then compare with
# the controls, a random map and an edge map. A slider below each figure goes through the methods in one
# place, also by the arrow keys.

# %%
page = dict(xai_sure=sure) if sure else {}
page |= {f"xai_film_{n}": path for n, path in enumerate(chosen, 1)}
links = [f"[{'the surest film' if name == 'xai_sure' else Path(path).stem}](#fig-{name})"
         for name, path in page.items()]
display(Markdown(f"{model_title(best)} on " + " · ".join(links)))

# %%
model = explained[best]
maps = {name: model.maps(list(page.values()), name, settings) for name in asked}
masks = masks_of(model, list(page.values()))
for n, (name, path) in enumerate(page.items()):
    of_film = {method: drawn[n] for method, drawn in maps.items()}
    figure = _film_figure(model, path, of_film, threshold, masks[n])
    boxes = panel_boxes(figure, 1 + len(asked))
    which = "the film with pneumonia that it calls so most surely" if name == "xai_sure" else Path(path).stem
    caption = f"{model_title(best)}: {which}, by each method on its own scale."
    save_figure(stage, figure, name, caption + _warning(verdicts, asked), _film_alt(of_film))
    slider = _compare_html(name, ["film", *_titles(asked)], boxes)
    display({"text/markdown": slider}, raw=True)

# %% [markdown]
# ## What the methods ask
#
# Each method asks another question. What red says differs, and so do the units: no scale can be compared with
# that of another method.
#
# The patch of occlusion is of middle gray. It darkens heart, spine and belly, it brightens the black margin,
# and it is about as bright as an aerated lung. A pale lung does not show that a model ignores it, and a red
# spine may show only that brightness counts.

# %%
said = [METHODS[name] for name in asked]
table = pd.DataFrame(dict(method=_titles(asked), red=[m.red for m in said], unit=[m.unit for m in said]))
table.rename(columns=dict(red="red says that")).style.hide(axis="index")


# %% [markdown]
# ## What the models call them
#
# Each model's call, with its probability for the class that it names: P for pneumonia, N for normal. Maps are
# always about the probability of pneumonia.

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
short = {rf"^{name}\b": name[0] for name in CLASS_NAMES} | {r"\.[a-z]+$": ""}
table.replace(short, regex=True).style.hide(axis="index").format(na_rep="–")


# %% [markdown]
# ## Every model
#
# The same films for every model of the run, by the quickest method that suits it: Grad-CAM where it has a
# feature map, else occlusion.

# %%
#| export
def _rows_figure(
    models: list[_Explained],          # a row each
    paths: list[str],                  # a row each
    maps: list[dict[str, np.ndarray]], # a row each: method → (S, S)
    threshold: float,
    masks: list,                       # a row each: (S, S) bool; None: not known
): # matplotlib Figure
    "A row a film or model, a column a method."
    captions = [f"{Path(path).stem}\n{_caption(model, path, threshold)}"
                for model, path in zip(models, paths)]
    pixels = [model.pixels([path])[0] for model, path in zip(models, paths)]
    return plot_rows(pixels, maps, captions, masks)

def _links(kind: str, names: list[str]) -> str: # markdown
    "Links to the figures of some models."
    return " · ".join(f"[{model_title(name)}](#fig-{kind}_{name})" for name in names)


# %%
test_eq(_links("xai", ["a", "b"]), "[a](#fig-xai_a) · [b](#fig-xai_b)")
display(Markdown(_links("xai", ranking)))

# %%
shown = {}   # model → [method → map] a film
for name, model in explained.items():
    by = _quickest(model, wanted)
    shown[name] = _by_row(model, chosen, by, settings)
    figure = _rows_figure([model] * len(chosen), chosen, shown[name], threshold, masks_of(model, chosen))
    kinds = in_list([f"{title}s" for title in _titles(by)])
    alt = f"{counted(len(chosen), 'film')}, each beside its {kinds} for {model_title(name)}."
    caption = f"{model_title(name)}: {kinds}."
    if name == best: caption += _warning(verdicts, by)
    save_figure(stage, figure, f"xai_{name}", caption, alt)


# %% [markdown]
# ## The best beside another
#
# The best model and the best of another chapter, on the same film and the same scales: [a
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

# %%
pair, path = _two_to_compare(ranking), next(iter(page.values()))
if len(pair) < 2: print("This run has no two models to compare.")
else:
    two = [explained[name] for name in pair]
    methods_of = [_overview(model, wanted) for model in two]
    rows = [_by_row(model, [path], by, settings)[0] for model, by in zip(two, methods_of)]
    masks = [masks_of(model, [path])[0] for model in two]
    figure, titles = _rows_figure(two, [path] * 2, rows, threshold, masks), list(map(model_title, pair))
    caption = f"{titles[0]} and {titles[1]} on one film; a scale for each method."
    alt = f"One film twice, with maps for {titles[0]} above and {titles[1]} below."
    save_figure(stage, figure, "xai_beside", caption + _warning(verdicts, methods_of[0]), alt)


# %% [markdown]
# ## Mistakes
#
# The films that these two models got most confidently wrong. Each is named, so that it can be looked up, with
# what it is and what it was called. Where a model is all but certain, no patch moves its answer and an
# occlusion map stays blank. Blank does not mean that it looked nowhere. And a map cannot say why a film was
# called wrong.

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
mistakes = {name: _worst_mistakes(tables[name], mistakes_shown, threshold) for name in pair}
for name in pair:
    if not mistakes_shown: print(f"Mistakes of {model_title(name)} are not shown in this run.")
    elif not mistakes[name]: print(f"{model_title(name)} makes no mistakes on the {split} films.")
mistaken = [name for name in pair if mistakes[name]]
if mistaken: display(Markdown(_links("xai_mistakes", mistaken)))

# %%
for name in mistaken:
    model, wrong, title = explained[name], mistakes[name], model_title(name)
    rows = _by_row(model, wrong, _overview(model, wanted), settings)
    figure = _rows_figure([model] * len(wrong), wrong, rows, threshold, masks_of(model, wrong))
    alt = f"{counted(len(wrong), f'{split} film')} that {title} called wrong most confidently, with maps."
    caption = f"{title}: its most confident mistakes."
    if name == best: caption += _warning(verdicts, rows[0])
    save_figure(stage, figure, f"xai_mistakes_{name}", caption, alt)

# %% [markdown]
# ## Which maps to believe
#
# All numbers here are of the best model, on films with pneumonia that it calls so. The notebook on
# faithfulness says what each measure asks.
#
# **Sanity** comes first (Adebayo et al., 2018; arXiv:1810.03292). [The curves](#fig-xai_sanity) show how
# alike a map stays while the network forgets, from the answer down to the film. A method whose maps hardly
# change does not look at the network. The controls show what that looks like.

# %%
if len(curves):
    alt = f"A plot for each of {len(verdicts)} methods: how alike maps stay as more of the network forgets."
    caption = f"{model_title(best)}: maps while the network forgets."
    save_figure(stage, plot_sanity(curves, verdicts), "xai_sanity", caption, alt)


# %% [markdown]
# Then the measures. A row is a measure, a column a method; ↑ means that more is better, ↓ that less is. Each
# cell has the mean over films, its interval over redrawn patients, and the **rank**. Methods whose intervals
# touch share a rank.

# %%
#| export
def _patients_of(
    model: _Explained,
    paths: list[str],
) -> list: # whose film each is
    "Patients in the order of the paths."
    images = model.films.images
    return images.set_index("path").patient_id[paths].tolist()

def _train_mean(films: Films, most: int = 400) -> np.ndarray | None: # (S, S) float32
    "The mean of train films, at most so many; None where there are none."
    rows = films.rows("train")[:most]
    return take(films.pixels, rows).mean(axis=0, dtype=np.float32) if len(rows) else None


# %%
model, table = explained[best], pd.DataFrame()
patients, masks = _patients_of(model, measured), masks_of(model, measured)
masks = np.stack(masks) if facts["source"] == "phantoms" and masks else None
if len(measured) > 1:
    mean, pixels = _train_mean(model.films), model.pixels(measured)
    values, made = measure_methods(model.network, pixels, asked, light, masks, mean, 6, seed=seed)
    table = faithfulness_table(values, patients, seed)
    write_csv(stage.path("metrics/xai_faithfulness.csv"), table)
    display(shown_faithfulness(table))

# %% [markdown]
# **Agreement** is the rank correlation of each pair of methods' maps, with their sign. Two methods that agree
# may both be wrong; two that disagree cannot both be right.

# %%
if len(table):
    agreed = agreement(made, patients, seed)
    write_csv(stage.path("metrics/xai_agreement.csv"), agreed)
    square = agreed.assign(**{column: _titles(agreed[column]) for column in ("first", "second")})
    square = square.pivot(index="first", columns="second", values="correlation")
    square = square.reindex(index=_titles(asked)[:-1], columns=_titles(asked)[1:])
    display(square.rename_axis(index=None, columns=None).style.format("{:.2f}", na_rep=""))


# %% [markdown]
# Networks of one recipe that differ by seed or fold agree on most calls. Do they also agree on where to look?
# Here it is asked of the networks of the best ensemble, by methods that follow derivatives. Where they
# differ, a map shows one training and not what films of pneumonia have in common.

# %%
#| export
def _networks_apart(
    model: _Explained,
    paths: list[str],
    methods: list[str],
    settings: dict, # method → its settings
    seed: int,
) -> pd.DataFrame: # method, first, second (numbers of networks), correlation, low, high
    "How alike the maps of an ensemble's networks are."
    pixels, patients, rows = model.pixels(paths), _patients_of(model, paths), []
    networks = [as_model(pneumonia_logits([net], flip=False)) for net in networks_of(model.network)]
    for method in methods:
        own = settings.get(method, {})
        maps = {n: explain(net, pixels, method, **own) for n, net in enumerate(networks, 1)}
        rows.append(agreement(maps, patients, seed).assign(method=method))
    return pd.concat(rows)


# %%
if len(table):
    ensembles = (name for name in ranking if networks_of(networks[name]))
    ensemble = next(ensembles, None)
    of_gradients = [name for name in ("gradcam", "integrated_gradients", "smoothgrad") if name in asked]
    if not (ensemble and of_gradients): print("This run has no ensemble's networks to compare.")
    else:
        alike = _networks_apart(explained[ensemble], measured, of_gradients, light, seed)
        write_csv(stage.path("metrics/xai_networks.csv"), alike)
        means = alike.groupby("method", sort=False).correlation.agg(["mean", "min", "max"]).reset_index()
        words = readable(means.assign(method=_titles(means.method))).style.hide(axis="index")
        caption = f"Maps of {model_title(ensemble)}'s networks: correlation over pairs"
        display(words.format(precision=2).set_caption(caption))


# %% [markdown]
# **Off the child, and on text**: no disease lies in the air beside the child, nor on burnt-in text and
# markers. At a ratio of 1 a map pays such a region no attention of its own.

# %%
#| export
def _audit_regions(
    model: _Explained,
    paths: list[str],
    maps: dict[str, np.ndarray],  # method → (N, S, S)
    places: pd.DataFrame | None,  # from `load_burnt_in`; None where nobody has looked
    seed: int,
) -> pd.DataFrame: # method, region, films, weight, area, ratio, low, high
    "How much of each method's maps lies where no disease can be."
    regions = {"the air beside the child": outside_body(model.pixels(paths))}
    if places is not None: regions["text and markers"] = burnt_in_regions(paths, places, model.films.size)
    patients = _patients_of(model, paths)
    rows = [dict(method=name, region=region) | region_audit(drawn, where, patients, seed)
            for region, where in regions.items() for name, drawn in maps.items()]
    return pd.DataFrame(rows)


# %%
audits = pd.DataFrame(dict(method=[], region=[], films=[]))
if len(table):
    looked = stage.path("burnt_in.csv").exists()
    text = load_burnt_in(stage, model.films.images, seed) if looked else None
    audits = _audit_regions(model, measured, made, text, seed)
    write_csv(stage.path("metrics/xai_regions.csv"), audits)
    words = audits[audits.films > 0].assign(method=_titles(audits.method[audits.films > 0]))
    display(readable(words).style.hide(axis="index").format(precision=2))

# %% [markdown]
# ## Against the truth
#
# On phantoms we know where disease was drawn. The **pointing game** counts how often a map's highest point
# lies in the drawn disease, over diseased films that a model called right. Pointing blindly scores the
# disease's share of the film. The interval comes from redrawn patients. Beside it stands the same
# architecture with random weights: what it hits, it hits without having learned anything. Every model plays
# by the quickest method that suits it: Grad-CAM where it has a feature map, else occlusion. A feature map
# of few places can only point at these, so a hit says more than a miss.

# %%
#| export
_POINTING = ["model", "films", "hits", "blind", "method", "low", "high", "random"]

def _point(
    model: _Explained,
    paths: list[str],  # films with pneumonia that it called so
    masks: np.ndarray, # (N, S, S) bool
    method: str,
    settings: dict,    # method → its settings
    seed: int,
) -> dict: # a value for each of `_POINTING`
    "One model's pointing game, and that of the same architecture with random weights."
    hits = pointing_hits(model.maps(paths, method, settings), masks)
    with random_weights(model.network, seed):
        random = pointing_hits(model.maps(paths, method, settings), masks)
    low, high = hits_interval(hits, _patients_of(model, paths), seed)
    return dict(model=model.name, films=len(paths), hits=hits.mean(), blind=masks.mean(), method=method,
                low=low, high=high, random=random.mean())


# %%
games = []
for name, model in explained.items() if facts["source"] == "phantoms" else ():
    right = _called_right(tables[name], threshold, pointing_films, seed)
    if not right: print(f"{model_title(name)} called no pneumonia right, so there is nothing to point at.")
    for method in _quickest(model, wanted) if right else ():
        games.append(_point(model, right, np.stack(masks_of(model, right)), method, settings, seed))
if facts["source"] != "phantoms":
    print("These films come without masks, so the maps cannot be checked against the truth here.")

# %%
pointing = pd.DataFrame(games, columns=_POINTING)
write_csv(stage.path("metrics/xai_pointing.csv"), pointing)
words = pointing.assign(model=pointing.model.map(model_title), method=_titles(pointing.method))
if games: display(readable(words).style.hide(axis="index").format(precision=2))

# %% [markdown]
# For the best model all methods are compared, with two more measures: the share of a map's weight that lies
# in the disease, and how well its highest pixels cover it (IoU). The file holds kinds of pneumonia, and small
# and large lesions, apart.

# %%
places = None
if len(table) and masks is not None:
    kinds = explained[best].films.images.set_index("path").kind[measured]
    places = localisation_table(values, masks, lesion_groups(masks, kinds), patients, seed)
    write_csv(stage.path("metrics/xai_places.csv"), places)
    words = places[places.group == "all"].drop(columns="group").rename(columns=dict(random="random weights"))
    words = words.assign(method=_titles(words.method), measure=[MEASURES[m].title for m in words.measure])
    display(readable(words).style.hide(axis="index").format(precision=2))


# %% [markdown]
# ## What it comes to

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
def _by_method(shown: dict[str, list[dict]]) -> dict[str, dict[str, np.ndarray]]:
    "From model → [method → map] a film to method → model → maps (N, S, S)."
    by = {}
    for name, rows in shown.items():
        for method in rows[0]: by.setdefault(method, {})[name] = np.stack([row[method] for row in rows])
    return by

def _region_sentences(audits: pd.DataFrame) -> list[str]: # markdown; `audits`: from `_audit_regions`
    "Which maps point where no disease can be."
    return [f"- {audit_sentence(row, row['method'], row['region'])}" for row in audits.to_dict("records")
            if row["films"] and row["low"] > 1 and not METHODS[row["method"]].is_control]


# %%
test_eq(_by_method(dict(a=[dict(rise=1), dict(rise=2)]))["rise"]["a"], [1, 2])


# %%
#| export
def _findings(
    shown: dict[str, list[dict]], # model → [method → map (S, S)] a film
    pointing: pd.DataFrame,       # columns as in `_POINTING`
    audits: pd.DataFrame,         # from `_audit_regions`
    chosen: str,                  # from `_chosen_sentence`
    use: str,                     # from `use_sentence`; empty where nothing was measured
) -> str: # markdown
    "What the maps say, in words."
    by = _by_method(shown)
    lines = [f"- **{use}**"] if use else []
    lines += _region_sentences(audits)
    lines += [_reaction(model_title(name), METHODS[method], drawn)
              for method, group in by.items() for name, drawn in group.items()]
    lines += [chosen, *map(_pointing_sentence, pointing.itertuples())]
    for method, group in by.items(): lines += _faint_sentence(METHODS[method], group)
    return "\n".join(lines)


# %%
chosen_words = _chosen_sentence(chosen, bool(paths), predictions[best], threshold, model_title(best))
use = use_sentence(table, verdicts, places) if len(table) else ""
display(Markdown(_findings(shown, pointing, audits, chosen_words, use)))
record = finish(stage)
