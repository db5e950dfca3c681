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
# # Exploration
#
# > What the films look like before any model sees them, and what their sizes alone give away

# %%
#| default_exp eda

# %%
#| export
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pneumo_nb.run import CLASS_NAMES, COLOURS, StudyError, finish, look, note, open_stage, plot_style, rng_for, save_figure, threads, write_json
from pneumo_nb.data import load_images, naming_series, patient_number

# %%
#| hide
import matplotlib.pyplot as plt
from fastcore.test import test_close, test_eq
from sklearn.metrics import roc_auc_score
from IPython.display import Markdown, display
plot_style()

# %% tags=["parameters"]
run_dir = ""         # the run directory; "" for a temporary one
seed = 42            # decides which films are shown, and the folds of the size baseline
films_per_class = 5  # in the grid of sample films

# %% [markdown]
# Before a model, look. Three things matter here: how many films there are of each class (it decides what an accuracy
# means), what they look like (it decides what is hard), and how large they are. The last sounds dull and is not: if
# the sick were photographed in another format than the healthy, then squashing everything to one square leaves a
# **shortcut**. A network could tell the classes apart by how stretched a chest looks and never see a lung.

# %%
stage = open_stage("eda", run_dir, seed=seed, films_per_class=films_per_class)
images = load_images(stage, seed)
print(f"{len(images):,} films" + (", drawn phantoms" if images.attrs["source"] == "phantoms" else ""))


# %% [markdown]
# ## How many
#
# The published split first, then this study's own, in which validation was cut from train by whole patients.
# [The figure](#fig-eda_counts) draws the second table.

# %%
#| export
def count_table(
    images: pd.DataFrame, # with `label`
    split: pd.Series,     # the split of each film
) -> pd.DataFrame: # a row a split, columns NORMAL, PNEUMONIA, total
    "Films by split and class."
    names = images.label.map(dict(enumerate(CLASS_NAMES)))
    table = pd.crosstab(split.rename("split"), names.rename("class")).reindex(columns=CLASS_NAMES, fill_value=0)
    order = [s for s in ("train", "val", "validation", "test") if s in table.index]
    return table.loc[order].assign(total=table.sum(axis=1))


# %%
small = pd.DataFrame(dict(label=[0, 1, 1]))
test_eq(count_table(small, pd.Series(["train", "train", "test"])).to_numpy(), [[1, 1, 2], [0, 1, 1]])
published = count_table(images, images.path.str.split("/").str[0])
published.style.format("{:,}")

# %%
counts = count_table(images, images.split)
counts.style.format("{:,}")


# %%
#| export
def plot_counts(
    counts: pd.DataFrame, # from `count_table`
): # matplotlib Figure
    "Bars of films by split and class, and the balance of the classes over all splits."
    import matplotlib.pyplot as plt
    figure, (bars, pie) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=[1.7, 1])
    for n, name in enumerate(CLASS_NAMES):
        drawn = bars.bar(np.arange(len(counts)) + .4 * n - .2, counts[name], .38, label=name, color=COLOURS[name])
        bars.bar_label(drawn, labels=[f"{v:,}" for v in counts[name]], padding=2)
    bars.set(xticks=range(len(counts)), xticklabels=counts.index, ylabel="films", title="Films by split")
    bars.legend()
    pie.pie(counts[CLASS_NAMES].sum(), labels=CLASS_NAMES, colors=[COLOURS[c] for c in CLASS_NAMES], autopct="%.1f %%",
            startangle=90, counterclock=False, textprops=dict(color="black"), wedgeprops=dict(edgecolor="white"))
    pie.set_title("All films")
    return figure


# %%
totals = counts[CLASS_NAMES].sum()
save_figure(stage, plot_counts(counts), "eda_counts", "Films by split and class, and the balance of the classes.", f"Bars of films by split and class, and a pie chart: {totals['NORMAL']:,} "
            f"normal and {totals['PNEUMONIA']:,} pneumonia films, {totals['PNEUMONIA'] / totals.sum():.0%} pneumonia.")


# %%
#| export
def count_findings(
    counts: pd.DataFrame, # from `count_table`
) -> str: # markdown
    "What the counts mean, in words."
    share = counts["PNEUMONIA"] / counts["total"]
    lines = [f"- A model that calls every film pneumonia is right on **{share[s]:.1%}** of the {s} films: the accuracy to beat."
             for s in ("train", "test") if s in share]
    ratio = counts.loc["train", "PNEUMONIA"] / counts.loc["train", "NORMAL"]
    lines.append(f"- In train there are {ratio:.1f} pneumonia films for each normal one; class weights make up for that in training.")
    return "\n".join(lines)


# %%
display(Markdown(count_findings(counts)))


# %% [markdown]
# ## What they look like
#
# A seeded pick of train films as the files are, with their size in pixels. Look for the heart, bright, mostly to the
# right of the spine in the picture (the child's left), the dark lung fields, and whether you can tell apart the rows of [the figure](#fig-eda_samples). Bacterial pneumonia tends
# to whiten one region, viral pneumonia to veil both lungs, and many films show neither clearly.

# %%
#| export
def sample_films(
    images: pd.DataFrame,
    by: str,      # column whose values are sampled, such as "kind"
    count: int,   # films for each value
    seed: int,
) -> pd.DataFrame: # rows of `images`, value by value in order of their first film
    "A seeded pick, the same number for each value where there are enough."
    groups = [images[images[by] == value] for value in images[by].unique()]
    return pd.concat([group.iloc[rng_for(seed, "sample", str(group[by].iloc[0])).permutation(len(group))[:count]]
                      for group in groups])

def read_film(
    root: str | Path,
    path: str, # relative to `root`
) -> np.ndarray: # (H, W) uint8
    "A film's pixels in gray, at full size."
    film = cv2.imdecode(np.fromfile(Path(root)/path, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if film is None: raise StudyError(f"Expected a readable film at {Path(root)/path}, found one that OpenCV cannot decode; replace or remove it.")
    return film

def plot_samples(
    films: pd.DataFrame, # rows to show
    root: str | Path,
    by: str = "kind",    # one row of the grid for each value
): # matplotlib Figure
    "A grid of films with their size."
    import matplotlib.pyplot as plt
    groups = [(value, films[films[by] == value]) for value in films[by].unique()]
    figure, axes = plt.subplots(len(groups), films[by].value_counts().max(), figsize=(12, 2.6 * len(groups)), squeeze=False)
    for ax in axes.flat: ax.axis("off")
    for (value, group), row in zip(groups, axes):
        for ax, film in zip(row, group.itertuples()):
            ax.imshow(read_film(root, film.path), vmin=0, vmax=255)
            ax.set_title(f"{value}  {film.width}×{film.height}", fontsize=10, color=COLOURS[value])
    return figure


# %%
train = images[images.split == "train"]
shown = sample_films(train, "kind", films_per_class, seed)
save_figure(stage, plot_samples(shown, images.attrs["root"]), "eda_samples", "Train films of each kind, each with its size in pixels.",
            f"{len(shown)} train films: a row each of normal, bacterial and viral ones, with their width and height.")


# %% [markdown]
# ## How large they are
#
# Width, height and their ratio for every film, by class: a table, then [a picture](#fig-eda_sizes). The reference study looked at 100 films a class of the
# full-size set and saw normal films of 1630 × 1346 pixels on average, pneumonia films of 1205 × 826.

# %%
#| export
def size_table(
    images: pd.DataFrame,
) -> pd.DataFrame: # rows: class and measure; columns as of `describe`
    "Summary of width, height and aspect (width / height) by class."
    sizes = images.assign(aspect=images.width / images.height, film=images.label.map(dict(enumerate(CLASS_NAMES))))
    return sizes.groupby("film")[["width", "height", "aspect"]].describe().stack(level=0, future_stack=True)


# %%
sizes = size_table(images)
sizes.style.format(lambda v: f"{v:,.0f}" if v >= 10 else f"{v:.3f}")


# %%
#| export
def plot_sizes(
    images: pd.DataFrame,
): # matplotlib Figure
    "Box plots of width, height and aspect by class, and width against height."
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, 4, figsize=(13, 4), width_ratios=[1, 1, 1, 2])
    groups = [images[images.label == n] for n in range(2)]
    values = dict(width=lambda d: d.width, height=lambda d: d.height, aspect=lambda d: d.width / d.height)
    for ax, (name, get) in zip(axes, values.items()):
        boxes = ax.boxplot([get(g) for g in groups], tick_labels=CLASS_NAMES, widths=.6, patch_artist=True,
                           medianprops=dict(color="black"), flierprops=dict(markersize=3))
        for box, c in zip(boxes["boxes"], CLASS_NAMES): box.set(facecolor=COLOURS[c], alpha=.75)
        ax.set(title=name, ylabel="width / height" if name == "aspect" else "pixels")
        ax.tick_params(axis="x", labelsize=8)
    for group, name, marker in zip(groups, CLASS_NAMES, "o^"):
        axes[3].scatter(group.width, group.height, s=14, alpha=.5, marker=marker, color=COLOURS[name], label=name, linewidths=0)
    axes[3].set(title="Every film", xlabel="width (pixels)", ylabel="height (pixels)")
    axes[3].legend()
    return figure


# %%
means = images.groupby("label")[["width", "height"]].mean()
save_figure(stage, plot_sizes(images), "eda_sizes", "Size and aspect of the films by class.", "Box plots of width, height and aspect by class, and a scatter of width against "
            "height. Mean size: " + "; ".join(f"{CLASS_NAMES[n]} {m.width:.0f}×{m.height:.0f} pixels" for n, m in means.iterrows()) + ".")


# %% [markdown]
# ## What size alone gives away
#
# How well does a logistic regression tell the classes apart from width, height and aspect, without a single pixel?
# It is judged on films of patients it was not fitted on (five folds, whole patients, train and validation films only).
# An AUROC of .5 is a coin; anything reliably above is a shortcut that a model trained on squashed films may take, since
# squashing turns aspect into the shape of the chest.

# %%
#| export
def size_baseline(
    images: pd.DataFrame, # films to use
    seed: int = 42,
    folds: int = 5,
) -> dict: # auroc (pooled over folds), low and high (95 % interval), films, folds, constant
    "AUROC of the class predicted from size alone, cross-validated by patient."
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    features = np.stack([images.width, images.height, images.width / images.height], axis=1)
    folds = min(folds, *(images[images.label == n].patient_id.nunique() for n in range(2)))
    if folds < 2: return dict(auroc=float("nan"), low=float("nan"), high=float("nan"), films=len(images), folds=folds, constant=False)
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    cv = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    constant = bool((features == features[0]).all())
    scores = np.full(len(images), .5) if constant else cross_val_predict(
        model, features, images.label, groups=images.patient_id, cv=cv, method="predict_proba")[:, 1]
    low, high = patient_interval(images, scores, roc_auc_score, seed)
    return dict(auroc=roc_auc_score(images.label, scores), low=low, high=high, films=len(images), folds=folds, constant=constant)


# %%
#| export
def patient_draws(
    patients,          # (n,) whose film each is
    draws: int,
    seed: int,
    at_once: int = 5_000_000, # numbers held in memory together
): # yields (b, n) weights, `draws` rows in all
    "How often each film occurs when patients, not films, are redrawn with replacement, since films of one child are alike (Efron 1979)."
    codes, names = pd.factorize(np.asarray(patients))
    rng, count = rng_for(seed, "interval"), len(names)
    step = max(1, at_once // max(len(codes), 1))
    for start in range(0, draws, step):
        yield rng.multinomial(count, np.full(count, 1 / count), size=min(step, draws - start))[:, codes]

def patient_interval(
    images: pd.DataFrame, # with label and patient_id
    scores: np.ndarray,   # (n,)
    measure,              # function of labels, scores and `sample_weight`; a draw in which it is NaN does not count
    seed: int,
    draws: int = 500,
) -> tuple[float, float]: # 2.5 and 97.5 percentiles
    "Bootstrap interval of one measure over redrawn patients."
    labels = images.label.to_numpy()
    weights = (w for block in patient_draws(images.patient_id, draws, seed) for w in block)
    values = [measure(labels, scores, sample_weight=w) for w in weights if len(set(labels[w > 0])) == 2]
    return tuple(np.nanpercentile(values, [2.5, 97.5]).tolist()) if values else (float("nan"), float("nan"))


# %% [markdown]
# On made-up sizes the answer is known: unrelated sizes give about .5, a class that is always wider gives 1, and equal
# sizes exactly .5.

# %%
rng = rng_for(1)
made_up = pd.DataFrame(dict(label=[0, 1] * 200, patient_id=[f"p{i}" for i in range(400)],
                            width=rng.integers(900, 1500, 400), height=rng.integers(700, 1200, 400)))
assert size_baseline(made_up)["low"] < .5 < size_baseline(made_up)["high"]
test_eq(size_baseline(made_up.assign(width=made_up.width + 1000 * made_up.label))["auroc"], 1.0)
test_eq(size_baseline(made_up.assign(width=224, height=224))["auroc"], .5)


# %%
#| export
def size_findings(
    baseline: dict, # from `size_baseline`
) -> str: # markdown
    "What the size baseline means for squashing, in words."
    auroc = baseline["auroc"]
    head = (f"- From width, height and aspect alone the class is told with an **AUROC of {auroc:.3f}** "
            f"(95 % interval {baseline['low']:.3f} to {baseline['high']:.3f}, patients redrawn; {baseline['films']:,} train and validation films, {baseline['folds']} folds by patient).")
    if auroc != auroc: return "- Too few patients for a size baseline."
    if baseline["constant"]: return ("- **Every film has the same size**: these are copies that were squashed before. The table and the figure above therefore show nothing. "
        "The shape that the originals had is still hidden in the shape of the chest, and nothing here can measure it.")
    if baseline["low"] > .5: return (head + "\n- **Size is a shortcut.** Squashing every film to a square carries the difference into the "
        "pixels as a stretch of the chest, so part of what a model scores may be the format of the film. "
        "Results on squashed films should be read with that in mind.")
    return head + "\n- That cannot be told from guessing (.5), so these films show no size shortcut that squashing could pass on."


# %%
baseline = size_baseline(images[images.split != "test"], seed)
display(Markdown(size_findings(baseline)))
write_json(stage.path("metrics/eda_sizes.json"), baseline)


# %% [markdown]
# ## Which numbers are in which split
#
# Names carry numbers, and numbers are given in some order, most likely that in which films were collected. If the published test set were a random draw, its numbers would lie among those of train, in many short stretches.

# %%
#| export
def number_table(
    images: pd.DataFrame, # with path, patient_id
) -> pd.DataFrame: # a row a naming series and published split: films, patients, lowest, middle and highest patient number, stretches
    "The stretch of numbers that each split takes of each series."
    numbered = images.assign(series=images.path.map(naming_series), number=images.path.map(patient_number), published=images.path.str.split("/").str[0])
    numbered = numbered.sort_values(["series", "number", "published"])
    begins = (numbered.published != numbered.published.shift()) | (numbered.series != numbered.series.shift())
    return numbered.assign(begins=begins).groupby(["series", "published"]).agg(films=("path", "size"), patients=("patient_id", "nunique"), lowest=("number", "min"), median=("number", "median"),
                                                         highest=("number", "max"), stretches=("begins", "sum")).reset_index()


# %%
numbers = number_table(images)
test_eq(numbers.films.sum(), len(images))
few = pd.DataFrame(dict(path=[f"{s}/NORMAL/IM-{n}-1.jpeg" for n, s in enumerate(["train", "train", "test", "test", "train"])], patient_id=range(5)))
test_eq(number_table(few).stretches.tolist(), [1, 2])   # test between two stretches of train
numbers.style.hide(axis="index").format({"median": "{:.0f}"})

# %% [markdown]
# ## The side marker
#
# On a film an R is burnt in, so that nobody mistakes the sides. How large it comes out depends on the machine and on how the film was cut afterwards, and nothing about it is disease. `marker_height` looks for it in the upper half of the film (a little more than that), within about a quarter of its width from either edge:
# something much brighter than its surroundings, of thin strokes, with a stem over its whole height and one hole in its upper half. Electrodes, clips and tubes, which sick children have more of, are bright and thin, too, but not that.
# A marker counts as tall above a sixteenth of the film's height: most films have smaller letters, some machines larger ones.

# %%
#| export
TALL_MARKER = 1 / 16  # of the film's height

def marker_height(
    film: np.ndarray, # (H, W) uint8
) -> float: # share of the film's height, of the tallest found, at most 1/7; 0 if none was
    "Height of the side marker, an R."
    small = cv2.resize(film, (224, 224), interpolation=cv2.INTER_AREA) if film.shape != (224, 224) else film
    thin = cv2.morphologyEx(small, cv2.MORPH_TOPHAT, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))) > 70
    heights = [0]
    for half in (thin[:120, :60], thin[:120, -60:]):
        _, parts, boxes, _ = cv2.connectedComponentsWithStats(half.astype(np.uint8))
        for n, (x, y, w, h, area) in enumerate(boxes[1:], 1):
            if 5 <= h <= 32 and 3 <= w <= 24 and .4 <= w / h <= 1.1 and 14 <= area and .25 <= area / (w * h) <= .8 and looks_like_r(parts[y:y + h, x:x + w] == n): heights.append(int(h))
    return max(heights) / 224

def looks_like_r(part: np.ndarray) -> bool: # `part`: (h, w) bool, cut to its box
    "Whether a shape has a stem on its left over at least nine tenths of its height, and one hole, whose middle is in the upper half."
    outlines, order = cv2.findContours(np.pad(part, 1).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    holes = [outline for outline, (_, _, _, outside) in zip(outlines, order[0]) if outside >= 0]
    return len(holes) == 1 and holes[0][:, 0, 1].mean() < .45 * (len(part) + 2) and part[:, :max(2, part.shape[1] // 4)].any(axis=1).mean() > .9


# %%
for height in (9, 14, 20):
    lettered = [cv2.putText(np.full((224, 224), 30, np.uint8), letter, (12, 60), cv2.FONT_HERSHEY_SIMPLEX, height / 21, 235, 2, cv2.LINE_AA) for letter in "RXO"]
    test_close(marker_height(lettered[0]) * 224, height, eps=2.5)
    test_eq([marker_height(film) for film in lettered[1:]], [0, 0])
test_close(marker_height(cv2.resize(lettered[0], (900, 600))), marker_height(lettered[0]), eps=.01)
test_eq(marker_height(np.full((224, 224), 30, np.uint8)), 0)

# %% [markdown]
# ## What a film looks like as a whole
#
# Eight simple measures of each film: mean gray and its scatter, how dark the darkest twentieth is and how bright the brightest, the share of black, sharpness (how much neighbouring pixels differ, relative to the scatter),
# bytes for a pixel (how hard it was compressed) and how much more gray changes across the edges of JPEG's 8-pixel blocks than elsewhere. None knows a place in the film. (A whitened lung makes a film brighter, so they are not blind to disease either; but they do not see where.)

# %%
#| export
APPEARANCE = ["mean", "scatter", "dark", "bright", "black", "sharpness", "bytes", "blocks"]

def appearance(film: np.ndarray, bytes: int) -> dict: # measures of APPEARANCE
    "How a film looks as a whole; gray values of 0-255, `bytes` and `blocks` at the film's own size."
    steps = np.abs(np.diff(film.astype(np.int16), axis=1)).mean(axis=0)
    small = cv2.resize(film, (224, 224), interpolation=cv2.INTER_AREA) if film.shape != (224, 224) else film
    dark, bright = np.percentile(small, [5, 95])
    scatter = float(small.std())
    return dict(mean=float(small.mean()), scatter=scatter, dark=dark, bright=bright, black=float((small < 8).mean()), sharpness=float(cv2.Laplacian(small, cv2.CV_32F).std() / (scatter + 1)),
                bytes=bytes / film.size, blocks=float(steps[7::8].mean() / (steps.mean() + 1e-6)))

def appearance_table(
    images: pd.DataFrame,
    root: str | Path,
) -> pd.DataFrame: # APPEARANCE and marker, rows as of `images`
    "`appearance` and `marker_height` of every film, each read once, on all cores."
    def measures(path, bytes):
        film = read_film(root, path)
        return appearance(film, bytes) | dict(marker=marker_height(film))
    with ThreadPoolExecutor(threads()) as pool:
        rows = list(pool.map(measures, images.path, images.bytes))
    return pd.DataFrame(rows, index=images.index)[[*APPEARANCE, "marker"]]


# %%
flat, noisy = np.full((224, 224), 100, np.uint8), np.random.default_rng(0).integers(0, 255, (224, 224), np.uint8)
test_eq([appearance(flat, 50_176)[m] for m in ("mean", "scatter", "bytes", "sharpness")], [100, 0, 1, 0])
assert appearance(noisy, 1)["sharpness"] > 1 and abs(appearance(noisy, 1)["blocks"] - 1) < .05
blocky = np.repeat(np.random.default_rng(0).integers(0, 255, (224, 28), np.uint8), 8, axis=1)
assert appearance(blocky, 1)["blocks"] > 7
seen = appearance_table(images, images.attrs["root"])
if (images.split == "test").any(): look(stage, "gray levels, sharpness, compression and side markers of the test films, by class")


# %%
#| export
def told_apart(
    films: pd.DataFrame,   # with APPEARANCE and patient_id
    target: np.ndarray,    # (n,) bool
    seed: int,
    folds: int = 5,
) -> dict: # auroc, low, high, films; NaN where there are too few
    "How well a random forest tells two groups of films apart by appearance, judged on patients that they were not fitted on."
    from sklearn.metrics import roc_auc_score
    scores = appearance_scores(films, target, seed, folds)
    if scores is None: return dict(auroc=float("nan"), low=float("nan"), high=float("nan"), films=len(films))
    low, high = patient_interval(films.assign(label=target.astype(int)), scores, roc_auc_score, seed)
    return dict(auroc=roc_auc_score(target, scores), low=low, high=high, films=len(films))

def appearance_scores(films: pd.DataFrame, target: np.ndarray, seed: int, folds: int = 5) -> np.ndarray | None: # (n,) chance of `target`; None with too few patients
    "What a random forest says of each film by appearance, fitted on other patients."
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    folds = min(folds, *(films.patient_id[target == t].nunique() for t in (False, True)))
    if folds < 2: return None
    cv = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return cross_val_predict(forest(seed), films[APPEARANCE], target, groups=films.patient_id, cv=cv, method="predict_proba")[:, 1]


# %%
#| export
def forest(seed: int): # scikit-learn classifier
    "A random forest for eight measures."
    from sklearn.ensemble import RandomForestClassifier
    return RandomForestClassifier(100, min_samples_leaf=5, random_state=seed)

def shift_table(
    images: pd.DataFrame, # with APPEARANCE
    seed: int,
) -> pd.DataFrame: # a row a question: question, auroc, low, high, films
    "Is test told from train within a naming series, and a class from the other within train, by appearance alone?"
    apart = lambda films, target: told_apart(films, target.to_numpy(), seed)
    rows = [dict(question=f"{kind}: test or train?") | apart(films, films.split == "test") for kind, films in images.groupby(images.path.map(naming_series))] if (images.split == "test").any() else []
    learned, test = images[images.split != "test"], images[images.split == "test"]
    rows.append(dict(question="train and validation: pneumonia or normal?") | apart(learned, learned.label == 1))
    if len(test): rows.append(dict(question="the same, asked of test films: pneumonia or normal?") | carried_over(learned, test, seed))
    return pd.DataFrame(rows)

def carried_over(learned: pd.DataFrame, test: pd.DataFrame, seed: int) -> dict: # auroc, low, high, films
    "What appearance tells of the class of test films, as learned on the others."
    from sklearn.metrics import roc_auc_score
    scores = forest(seed).fit(learned[APPEARANCE], learned.label).predict_proba(test[APPEARANCE])[:, 1]
    low, high = patient_interval(test, scores, roc_auc_score, seed)
    return dict(auroc=roc_auc_score(test.label, scores), low=low, high=high, films=len(test))


# %% [markdown]
# Two questions to a classifier that knows these eight numbers and nothing else. Within one naming series, can it tell **test from train**? Under a random split it could not: .5. And among the films to learn from, can it
# tell **pneumonia from normal**? As far as it can, a network may too, without looking at any place in the lung, and where test looks different that knowledge misleads; the last row shows how far. [The figure](#fig-eda_shift) shows one of the eight along the numbers.

# %%
made_up = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 8)), columns=APPEARANCE).assign(patient_id=np.arange(300) // 2)
coin = np.random.default_rng(1).random(300) < .5
assert told_apart(made_up, coin, 1)["low"] < .5 < told_apart(made_up, coin, 1)["high"]
test_eq(told_apart(made_up.assign(dark=coin * 10.), coin, 1)["auroc"], 1)
shift = shift_table(images.drop(columns="bytes").join(seen), seed)
shift.style.hide(axis="index").format({"auroc": "{:.3f}", "low": "{:.3f}", "high": "{:.3f}"})


# %% [markdown]
# ## The side marker gives the machine away
#
# How many films have a tall marker, by series and side of the split. Letters that are cut, gray or touch something else are missed. The public set's finds on train films were looked at: 48 of those with pneumonia, drawn at random, and all 18 normal ones showed an R. The intervals take films as independent.

# %%
#| export
def marker_table(
    images: pd.DataFrame,
    markers: pd.Series, # heights of their side markers
) -> pd.DataFrame: # a row a naming series and side of the split: films, found (share with a marker found), tall (number above TALL_MARKER), share, low, high
    "How many films have a tall marker."
    from statsmodels.stats.proportion import proportion_confint
    rows = []
    for (series, test), own in markers.groupby([images.path.map(naming_series), images.split == "test"]):
        tall = int((own > TALL_MARKER).sum())
        low, high = proportion_confint(tall, len(own), method="wilson")
        rows.append(dict(series=series, split="test" if test else "train and validation", films=len(own), found=(own > 0).mean(), tall=tall, share=tall / len(own), low=low, high=high))
    return pd.DataFrame(rows)


# %%
tall = marker_table(images, seen.marker)
test_eq(tall.films.sum(), len(images))
tall.style.hide(axis="index").format({"found": "{:.0%}", "share": "{:.1%}", "low": "{:.1%}", "high": "{:.1%}"}).set_caption("Films whose side marker is taller than a sixteenth of the film")


# %%
#| export
def marker_findings(images: pd.DataFrame, markers: pd.Series) -> str: # markdown
    "What the marker gives away, in words."
    from statsmodels.stats.proportion import proportion_confint
    tall = markers > TALL_MARKER
    def counted(rows): return f"{tall[rows].sum():,} of {rows.sum():,}" + (f" ({tall[rows].mean():.1%})" if rows.any() else "")
    bounds = lambda rows: proportion_confint(tall[rows].sum(), rows.sum(), method="wilson") if rows.any() else (0, 1)
    test, sick = images.split == "test", images.label == 1
    if not tall.any(): return "- No film has a side marker taller than a sixteenth of it; it gives nothing away here."
    lines = [f"- **A tall side marker** is found on {counted(~test & sick)} pneumonia films and on {counted(~test & ~sick)} normal ones that are not test."]
    if test.any(): lines.append(f"- On test it is found on {counted(test & sick)} and {counted(test & ~sick)}.")
    if bounds(~test & sick)[0] > bounds(~test & ~sick)[1]: lines.append("- So a network that recognises the films with the tall marker, by whatever sign, can take what they have in common for the disease: the machine's look, and who is filmed by it. The normal films among them are the ones to judge it by.")
    return "\n".join(lines)


# %%
display(Markdown(marker_findings(images, seen.marker)))
test_eq("gives nothing away" in marker_findings(images, seen.marker * 0), True)


# %% [markdown]
# ## Films weighted so that appearance says little
#
# If appearance may be a shortcut, a model should also be judged as if it were none. **Overlap weights** (Li, Morgan and Zaslavsky, 2018; *J. Am. Stat. Assoc.* 113, 390) do that: with *e* the chance of pneumonia by appearance alone, where both classes
# are equally common, a normal film counts *e* and a pneumonia film 1 − *e*. A normal film that looks normal as a whole counts for little, one that looks like pneumonia for much, and the other way round; among films so weighted, appearance says much less about the class: nothing if *e* were exact.
# It is a strict judge, since what makes an appearance is partly disease. The chapter on the compact recipe uses it to compare recipes on films that are not test.

# %%
#| export
def overlap_weights(
    scores: np.ndarray, # (n,) chance of pneumonia by appearance, fitted on other films
    labels: np.ndarray, # (n,) 0 or 1, both present
) -> np.ndarray: # (n,) within 0 and 1
    "How much each film counts where appearance shall not."
    from scipy.special import expit, logit
    even = expit(logit(np.clip(scores, .01, .99)) - logit(labels.mean()))  # as if both classes were equally common
    return np.where(labels == 1, 1 - even, even)


# %% [markdown]
# A made-up trait that nine in ten of one class have and one in ten of the other: weighted, each class has it half of the time. And the films of this run:

# %%
trait, sick = np.repeat([0, 1, 0, 1], [90, 10, 30, 270]), np.repeat([0, 1], [100, 300])
counted = overlap_weights(np.where(trait, 270 / 280, 30 / 120), sick)
test_close([np.average(trait[sick == c], weights=counted[sick == c]) for c in (0, 1)], [.5, .5])
learned = images.drop(columns="bytes").join(seen)[images.split != "test"]
scores = appearance_scores(learned, learned.label == 1, seed)
if scores is not None:
    weighted = roc_auc_score(learned.label, scores, sample_weight=overlap_weights(scores, learned.label.to_numpy()))
    print(f"Pneumonia told from normal by appearance, films that are not test: AUROC {roc_auc_score(learned.label, scores):.3f}, weighted {weighted:.3f}")


# %%
#| export
def plot_along_numbers(
    images: pd.DataFrame, # path, kind, split
    values: pd.Series,    # of each film
    label: str,           # what they are
): # matplotlib Figure
    "One measure along the patient numbers of each naming series, train and test."
    import matplotlib.pyplot as plt
    series, number = images.path.map(naming_series), images.path.map(patient_number)
    figure, axes = plt.subplots(1, series.nunique(), figsize=(13, 3.2), sharey=True, squeeze=False)
    for ax, name in zip(axes.flat, sorted(series.unique())):
        own = (series == name).to_numpy()
        for test, style in ((False, dict(color=COLOURS[images.kind[own].iloc[0]], marker="o")), (True, dict(color="black", marker="x"))):
            chosen = own & ((images.split == "test") == test).to_numpy()
            ax.scatter(number[chosen], values[chosen], s=9 if not test else 14, alpha=.45, linewidths=0 if not test else .9, label="test" if test else "not test, in the colour of the kind", **style)
        ordered = number[own].sort_values(kind="stable").index
        ax.plot(number[ordered], values[ordered].rolling(51, center=True, min_periods=15).median(), color="white", lw=4)
        ax.plot(number[ordered], values[ordered].rolling(51, center=True, min_periods=15).median(), color="#444444", lw=2, label="running median")
        ax.set(title=name, xlabel="patient number")
    axes[0, 0].set_ylabel(label)
    figure.legend(*axes[0, -1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


# %%
save_figure(stage, plot_along_numbers(images, seen.dark, "5th percentile of gray"), "eda_shift", "The darkest gray of each film along the patient numbers of its series.",
            "Scatter of the 5th percentile of gray against the patient number for each naming series, train and test marked, with a running median.")


# %%
#| export
def shift_findings(
    shift: pd.DataFrame,   # from `shift_table`
    numbers: pd.DataFrame, # from `number_table`
) -> str: # markdown
    "What the shift means, in words."
    span = lambda r: f"{r.auroc:.3f} ({r.low:.3f} to {r.high:.3f})"
    kinds = [r for r in shift.itertuples() if r.question.endswith("test or train?")]
    classes, *carried = [r for r in shift.itertuples() if r not in kinds]
    lines = []
    if told := [r for r in kinds if r.low > .5]: lines.append("- **Test is not a random draw.** By appearance alone, test is told from train with an AUROC of "
        + ", ".join(f"{span(r)} among {r.question.split(':')[0]} films" for r in told) + "; a random split would give .5. Validation cut from train cannot feel that.")
    elif any(r.low == r.low for r in kinds): lines.append("- By appearance, test cannot be told from train within a series.")
    test = numbers[numbers.published == "test"]
    if len(test): lines.append("- In the order of the numbers, test takes " + ", ".join(f"{r.stretches} stretch{'es' if r.stretches > 1 else ''} of {r.series} ({r.patients} patients)" for r in test.itertuples())
                               + (". The split was made along the numbers, not at random." if (test.patients > 10 * test.stretches).all() else "."))
    if classes.low > .5: lines.append(f"- **Appearance may be a shortcut**: without knowing any place in a film, pneumonia is told from normal among train and validation films with an AUROC of {span(classes)}"
        + (f", and among test films, after learning from these, with {span(carried[0])}." if carried else ".") + " Part of it can be disease, which whitens lungs; what is lost on test is not.")
    return "\n".join(lines)


# %%
display(Markdown(shift_findings(shift, numbers)))
write_json(stage.path("metrics/eda_shift.json"), dict(numbers=numbers.to_dict("records"), shift=shift.to_dict("records"), markers=tall.to_dict("records")))
record = finish(stage)
