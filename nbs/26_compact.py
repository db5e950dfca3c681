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
# # A recipe for these films
#
# > A small residual network, made to ignore how a film was taken, and averaged over several of its kind

# %%
#| default_exp compact

# %%
#| export
import keras
import numpy as np
import pandas as pd
from scipy.special import expit

from pneumo_nb.run import Stage, StudyError, set_seed, write_csv
from pneumo_nb.style import COLOURS, counted, model_style, value_with_interval
from pneumo_nb.films import with_series
from pneumo_nb.splits import number_folds, series_folds
from pneumo_nb.cache import Films, take
from pneumo_nb.measures import auroc, auroc_interval, fit_temperature, grouped_auroc
from pneumo_nb.appearance import TALL_MARKER
from pneumo_nb.views import RECIPE_RANGES, shape_gaps, swapped_bands, swapped_levels, swapped_shape
from pneumo_nb.batches import Source, recipe_source
from pneumo_nb.networks import Contrast, FusedBatchNormalization, as_model, film_network, pneumonia_logits
from pneumo_nb.training import save_model, train_kept
from pneumo_nb.workers import side_by_side
from pneumo_nb.preprocessing import load_films

# %%
#| hide
from fastcore.test import test_close, test_eq, test_fail
from IPython.display import Markdown, display
from pneumo_nb.run import finish, note, open_stage, workers, write_json
from pneumo_nb.style import plot_style, readable, save_figure
from pneumo_nb.films import sample_films
from pneumo_nb.eda import load_appearance
plot_style()

# %% tags=["parameters"]
run_dir = ""           # the run directory; "" for a temporary one
seed = 42              # of the first network; the others count on from it
# members
folds_by = "series"    # leaves out a naming series of the normal films; or "numbers": a stretch of numbers
folds = 2              # how many, if by numbers
only_folds = []        # folds to leave out in turn, counted from 0; [] for all that have normal films
refits = 1             # networks that learn from all folds and judge test; 0: those of the folds judge test
seeds = 1              # how often all of that is done, with other initial weights
# optimiser
batch_size = 32
epochs = 2
learning_rate = 2e-3   # at its highest
weight_decay = 0.05
label_smoothing = 0.05
# network
image_size = 64        # side of the films, pixels
widths = [16, 32, 64]  # filters of each block
kinds = True           # tell bacterial from viral pneumonia while learning; False: two classes
contrast = "local"     # gray values relative to their surroundings, or to the whole "film"
precision = "float32"  # or "mixed_bfloat16", faster on processors that have it
# augmentation
match = 0.5            # share of films that get the gray levels of another film, of whatever class
bands = 0.5            # share of films that get the sharpness of another film
rotation = 10.0        # degrees either way
shift = 0.06           # fraction of the side, either way
stretch = 0.18         # each axis is scaled by up to e to the plus or minus this, by itself
flip = True            # mirror left and right in training and, averaged, in prediction
equalise = 0.3         # share of films with contrast-limited local equalisation (CLAHE)
gamma = 0.4            # gray levels to the power of up to e to the plus or minus this
blur = 0.3             # share of films that are blurred
noise = 0.3            # share of films with noise
cutout = 1             # rectangles wiped out

# %%
#| export
RANGES = {
    "folds_by": ["series", "numbers"],
    "folds": "whole number from 2 to 500",
    "only_folds": "list of whole numbers from 0 to 499, each below folds if folds_by is numbers",
    "refits": "whole number from 0 to 500",
    "seeds": "whole number from 1 to 1000",
    "batch_size": "whole number from 1 to 4096",
    "epochs": "whole number from 1 to 10000",
    "learning_rate": "number above 0 and up to 1",
    "weight_decay, label_smoothing": "number from 0 and below 1",
    "image_size": "whole number from 16 to 1024",
    "widths": "list of 1 to 8 whole numbers from 1 to 4096",
    "kinds, flip": "true or false",
    "contrast": ["local", "film"],
    "precision": ["float32", "mixed_bfloat16"],
    "match, bands, equalise, blur, noise": "number from 0 to 1",
    "rotation": "number from 0 to 180",
    "shift": "number from 0 to 0.5",
    "stretch": "number from 0 to 1",
    "gamma": "number from 0 to 2",
    "cutout": "whole number from 0 to 8",
}

# %%
#| export
STAGE = {
    "reads": ["images.csv", "metrics/data.json", "appearance.csv"],
    "writes": ["members/compact.csv", "metrics/compact.json"],
    "models": {
        "compact": {"title": "compact net", "colour": "#9467BD", "dash": (0, (4, 1))},
        "compact_ensemble": {"title": "compact ensemble", "colour": "#4B1A6E", "dash": "-"}},
    "card": ["compact_films"],
    "methods": """
        <p>The compact networks take films of {{ p.image_size }} pixels a side and tell
        {{ "the kinds of film apart" if p.kinds else "two classes" }}. AdamW trains them for {{ p.epochs }}
        epochs to the end, with augmentation of gray levels, sharpness and shape. The films that are not test
        were cut into
        {% if p.folds_by == "series" %}folds: one for each naming series of the normal films (where there is
        one series alone, {{ p.folds }} folds of consecutive patient numbers), with as large a share of the
        pneumonia films as each of the further folds without normal films.
        {% else %}{{ p.folds }} folds of consecutive patient numbers.{% endif %}
        {% if p.only_folds %}Folds {{ p.only_folds | join(", ") }} were{% else %}Each fold that has normal
        films was{% endif %} left out in turn
        {% if p.seeds > 1 %}({{ p.seeds }} times with other seeds){% endif %} and judged by
        networks that had not seen it. Those answers choose threshold and temperature.
        {% if p.refits %}Where there are test films,
        {{ "one network" if p.refits == 1 else p.refits ~ " networks" }} for each seed then learned from all
        folds and answered on test.{% else %}On test all of these networks answer.{% endif %}</p>""",
    "data_remark": "The compact networks divide the films of train and validation anew, into folds.",
    "examinations": "metrics/compact.json",
}

_SINGLE, _TOGETHER = STAGE["models"]

# %% [markdown]
# Can a network be kept from learning how a film was taken? On the public films the study's networks scored
# much better on validation than on test. The test films there are other stretches of the patient numbers, and
# gray levels, margins and sharpness differ in them. In the public train films, these very things tell the
# classes apart a good deal, so a network that is asked for nothing else learns them. Phantoms have no such
# shift; what holds for this run's films, the chapter on exploration measures.
#
# This chapter is a recipe against that. Each ingredient is a parameter, so a run without it shows what it is
# worth.

# %%
members = dict(folds_by=folds_by, folds=folds, only_folds=only_folds, refits=refits, seeds=seeds)
optimiser = dict(batch_size=batch_size, epochs=epochs, learning_rate=learning_rate, weight_decay=weight_decay,
                 label_smoothing=label_smoothing)
network = dict(image_size=image_size, widths=widths, kinds=kinds, contrast=contrast, precision=precision)
augmentation = dict(match=match, bands=bands, rotation=rotation, shift=shift, stretch=stretch, flip=flip,
                    equalise=equalise, gamma=gamma, blur=blur, noise=noise, cutout=cutout)
stage = open_stage("compact", run_dir, seed=seed, **members, **optimiser, **network, **augmentation)
films = load_films(stage, image_size, seed)
print(f"{len(films.pixels):,} films of {films.size} × {films.size} pixels")


# %% [markdown]
# ## Films as the network sees them
#
# Two things happen to a film. In training it goes through the chapter on views: other gray levels, other
# sharpness, turned, stretched, made harder or softer, with a rectangle wiped out. The first layer of the
# network then puts contrast in place of gray. [The figure](#fig-compact_films) shows a train film of each
# kind: as it is, as the network sees it untouched, and as it sees it in four epochs.

# %%
#| export
def _source(
    stage: Stage,             # its parameters are the recipe
    films: Films,             # split into train, validation and test
    seed: int,
    class_of: dict[str, int], # from `film_classes`
) -> Source:
    "What one network learns from."
    ranges = {name: stage.params[name] for name in RECIPE_RANGES}
    return recipe_source(films, seed, ranges, class_of)


# %%
#| export
def _plot_seen(
    films: Films,
    rows: np.ndarray, # a few train films
    source: Source,
    contrast: str,    # as for `Contrast`
    epochs: int = 4,
): # matplotlib Figure
    "Films as they are, in contrast, and in the contrast of several epochs."
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(len(rows), epochs + 2, figsize=(12, 2.15 * len(rows)), squeeze=False)
    titles = ["as it is", "as seen", *(f"epoch {n + 1}" for n in range(epochs))]
    for ax in axes.flat: ax.set(xticks=[], yticks=[])
    for ax, title in zip(axes[0], titles): ax.set_title(title)
    pixels, kinds = take(films.pixels, rows), films.images.kind.iloc[rows]
    for ax, film, kind in zip(axes[:, 0], pixels, kinds):
        ax.imshow(film, vmin=0, vmax=255)
        ax.set_ylabel(kind, color=COLOURS[kind])
    seen = [pixels[..., None], *(source.training(epoch, rows) for epoch in range(epochs))]
    for column, batch in zip(axes[:, 1:].T, seen):
        prepared = np.array(Contrast(contrast)(batch.astype(np.float32)))[..., 0]
        for ax, film in zip(column, prepared): ax.imshow(film, vmin=-3, vmax=3)
    return figure


# %%
source = _source(stage, films, seed, dict.fromkeys(films.images.kind, 0))   # classes are not looked at here
shown = sample_films(films.images.iloc[films.rows("train")], "kind", 1, seed).index.to_numpy()
surroundings = "its surroundings" if contrast == "local" else "the whole film"
save_figure(stage, _plot_seen(films, shown, source, contrast), "compact_films",
            "Train films as they are, as the network sees them, and as it sees them in training.",
            f"A train film of each kind ({', '.join(films.images.kind.iloc[shown])}): as it is, in contrast "
            f"to {surroundings}, and four times so after other gray levels, other sharpness, turning, "
            "stretching and so on.")


# %% [markdown]
# What is in the recipe, and why:
#
# 1. **A class for each kind.** The public names tell bacterial from viral pneumonia. The kinds differ less in
#    how films were taken than pneumonia and normal do. So telling them apart as well may make a network look
#    at the lung.
# 2. **Gray levels that say nothing.** Half of the films get the gray levels of another film, of whatever
#    class.
# 3. **Sharpness that says nothing.** Half of the films get the sharpness of another.
# 4. **Contrast in place of gray.** The network sees how each pixel differs from its surroundings, in units of
#    their scatter.
# 5. **Shape that says nothing.** Both axes are stretched by themselves, since squashing made the shape of a
#    chest a sign of its class.
# 6. **Validation that feels the shift.** Folds are cut across the naming series. Films whose appearance
#    speaks against their class are examined, and films of machines that hardly ever filmed a child without
#    pneumonia.
# 7. **Several networks** of different seeds, averaged.
#
# ## Members
#
# The networks of a run are its **members**. Some leave a fold out: they learn from all other folds, and each
# judges the fold that it did not see. Folds by `series` leave out all normal films of one naming series at a
# time. Folds by `numbers` are stretches of consecutive patient numbers; they stand in where the normal films
# have one series alone.

# %%
#| export
def _has_series(images: pd.DataFrame) -> bool: # path, split, kind
    "Whether the normal films to learn from have two naming series or more."
    normal = images[(images.split != "test") & (images.kind == "normal")]
    return with_series(normal).series.nunique() > 1


# %%
#| export
def make_folds(
    images: pd.DataFrame, # path, split, kind and patient_id
    folds_by: str,        # "series" or "numbers"
    folds: int,           # how many, if by numbers
) -> np.ndarray: # (N,) fold of each film; -1 for test films
    "Folds of one kind or the other; along the numbers, where the normal films have not two naming series."
    if folds_by not in ("series", "numbers"):
        raise StudyError(f'Expected compact.folds_by to be "series" or "numbers", found {folds_by!r}.')
    across = folds_by == "series" and _has_series(images)
    return series_folds(images) if across else number_folds(images, folds)


# %%
fold_of = make_folds(films.images, folds_by, folds)
if folds_by == "series" and not _has_series(films.images):
    note(stage, f"the normal films are of one naming series, so there are {folds} folds along the patients' "
                "numbers, as with compact.folds_by=numbers.")
test_fail(lambda: make_folds(films.images, "dates", 2), contains='"series" or "numbers", found \'dates\'')
pd.crosstab(pd.Series(fold_of, name="fold"), films.images.kind)


# %% [markdown]
# The row of fold −1 counts the test films, which belong to none. A fold without normal films could judge
# nothing, so it is never left out.

# %%
#| export
def chosen_folds(
    films: Films,
    fold_of: np.ndarray, # (N,) from `make_folds`
    only_folds: list,    # [] for all that have normal films
) -> list[int]:
    "The folds to leave out in turn."
    return only_folds or sorted(set(fold_of[(fold_of >= 0) & (films.labels == 0)].tolist()))


# %%
print("left out in turn: fold", ", ".join(map(str, chosen_folds(films, fold_of, only_folds))))


# %% [markdown]
# Members that could not be trained or judged are refused before the first one is.

# %%
#| export
def _check_classes(
    where: str,         # such as "in fold 1"
    labels: np.ndarray, # of the films there
):
    "Refuse films among which a class is missing."
    missing = [words for label, words in enumerate(("normal films", "films with pneumonia"))
               if not (labels == label).any()]
    if missing: raise StudyError(f"Expected normal films and films with pneumonia {where}, "
                                 f"found no {' and no '.join(missing)}; take other folds.")


# %%
test_fail(lambda: _check_classes("in fold 1", np.array([1, 1])), contains="in fold 1, found no normal films")
_check_classes("in fold 1", np.array([0, 1]))


# %%
#| export
def _check_numbers(
    params: dict,
    chosen: list[int], # folds to leave out
    folds: int,        # that there are
):
    "Refuse folds that are not there, and numbers that leave no network."
    for name, least in dict(seeds=1, refits=0).items():
        if params[name] < least:
            raise StudyError(f"Expected compact.{name} of {least} or more, found {params[name]}.")
    absent = [f for f in chosen if f not in range(folds)]
    if absent: raise StudyError(f"Expected compact.only_folds between 0 and {folds - 1}, found {absent}.")
    if len(set(chosen)) < len(chosen):
        raise StudyError(f"Expected each fold once in compact.only_folds, found {chosen}.")


# %%
#| export
def check_members(
    films: Films,
    fold_of: np.ndarray, # (N,) from `make_folds`
    params: dict,        # of the stage
):
    "Refuse members that could not be trained or judged."
    chosen = chosen_folds(films, fold_of, params["only_folds"])
    _check_numbers(params, chosen, int(fold_of.max()) + 1)
    for fold in chosen:
        _check_classes(f"in fold {fold}", films.labels[fold_of == fold])
        _check_classes(f"outside fold {fold}", films.labels[(fold_of >= 0) & (fold_of != fold)])


# %%
check_members(films, fold_of, stage.params)
check = lambda **other: check_members(films, fold_of, stage.params | other)
test_fail(lambda: check(only_folds=[0, 0]), contains="each fold once in compact.only_folds, found [0, 0]")
test_fail(lambda: check(only_folds=[999]), contains="found [999]")
test_fail(lambda: check(seeds=0), contains="compact.seeds of 1 or more, found 0")


# %% [markdown]
# ## Classes
#
# A network tells apart the kinds of film that there are to learn from. In the public set these are normal,
# bacterial and viral; other sets hold other kinds. A kind is a class of its own where every network that
# leaves a fold out meets it on both sides: among the films that it learns from and among those that it
# judges. A rarer kind is learned as one class with the most common kind. With fewer than two such kinds there
# are two classes, normal and pneumonia.

# %%
#| export
def _kinds_of_their_own(
    kinds: pd.Series,    # of all films
    fold_of: np.ndarray, # (N,) from `make_folds`
    chosen: list[int],   # folds to leave out
) -> list[str]: # the most common first; equally common ones by name
    "The kinds of pneumonia that are in every fold left out and outside each of them."
    learned = (fold_of >= 0) & (kinds != "normal").to_numpy()
    parts = [part for fold in chosen for part in (fold_of == fold, learned & (fold_of != fold))]
    sides, learned = [set(kinds[part]) for part in parts], kinds[learned]
    counts = learned.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    return [kind for kind in counts.index if all(kind in side for side in sides)]


# %%
#| export
def film_classes(
    kinds: pd.Series,    # of all films
    fold_of: np.ndarray, # (N,) from `make_folds`
    chosen: list[int],   # folds to leave out
    told_apart: bool,    # False: two classes, whatever kinds there are
) -> dict[str, int]: # kind → class; that of normal films is 0
    "Which class each kind of film is."
    kinds = kinds.reset_index(drop=True)
    apart = _kinds_of_their_own(kinds, fold_of, chosen) if told_apart else []
    numbers = {kind: n for n, kind in enumerate(sorted(apart), 1)} if len(apart) > 1 else {}
    joined = numbers[apart[0]] if numbers else 1
    return {"normal": 0} | {kind: numbers.get(kind, joined) for kind in sorted({*kinds} - {"normal"})}


# %%
kinds_of = lambda *words: pd.Series(" ".join(words).split())
halves = np.repeat([0, 1], 4)
classes = lambda *words, told_apart=True: film_classes(kinds_of(*words), halves, [0, 1], told_apart)
both_kinds = "normal bacteria bacteria virus", "normal bacteria bacteria virus"
test_eq(classes(*both_kinds), dict(normal=0, bacteria=1, virus=2))
test_eq(classes(*both_kinds, told_apart=False), dict(normal=0, bacteria=1, virus=1))
test_eq(classes(*["normal pneumonia"] * 4), dict(normal=0, pneumonia=1))
test_eq(classes("normal bacteria virus fungus", "normal virus virus bacteria"),   # fungi in one fold alone
        dict(normal=0, bacteria=1, fungus=2, virus=2))


# %%
#| export
def _classes_of(films: Films, fold_of: np.ndarray, params: dict) -> dict[str, int]: # kind → class
    "The classes of a run's films."
    chosen = chosen_folds(films, fold_of, params["only_folds"])
    return film_classes(films.images.kind, fold_of, chosen, params["kinds"])


# %% [markdown]
# Where a kind has no class of its own although kinds shall be told apart, the run says so.

# %%
#| export
def _class_words(
    class_of: dict[str, int], # from `film_classes`
) -> str: # "" where there are several kinds and each has a class of its own
    "Which kinds of pneumonia the networks cannot tell apart, and why."
    kinds = [kind for kind, n in class_of.items() if n]
    if len(kinds) == 1:
        return (f"all films with pneumonia are of one kind, {kinds[0]}; so the compact networks tell two "
                "classes, normal and pneumonia.")
    groups = [[kind for kind in kinds if class_of[kind] == n] for n in sorted({class_of[k] for k in kinds})]
    joined = [" and ".join(group) for group in groups if len(group) > 1]
    if not joined: return ""
    return (f"too few patients to have every kind in each fold and outside it; so the compact networks learn "
            f"{joined[0]} as one class.")


# %%
test_eq(_class_words(classes(*both_kinds)), "")
assert "of one kind, pneumonia" in _class_words(classes(*["normal pneumonia"] * 4))
assert "learn fungus and virus as one class" in _class_words(dict(normal=0, bacteria=1, fungus=2, virus=2))

# %%
class_of = _classes_of(films, fold_of, stage.params)
if kinds and _class_words(class_of): note(stage, _class_words(class_of))
print("; ".join(f"class {n}: {kind}" for kind, n in class_of.items()))


# %% [markdown]
# The folds' answers together are the **out-of-fold** answers. Each of these films is judged by a network that
# saw neither it nor, with folds by series, a normal film of its series. Out-of-fold answers choose thresholds
# and temperatures, and recipes are compared by them.
#
# Then `refits` networks for each seed learn from all folds, by the same recipe, and judge test. Without
# refits, the networks that left a fold out answer on test, too. Each seed has folds' networks of its own.

# %%
#| export
def plan_members(
    params: dict,     # seed and seeds
    folds: list[int], # to leave out in turn
    refits: int,      # networks that learn from all folds, for each seed
) -> list[dict]: # name, seed (0, 1, …), fold (None: none left out), own_seed
    "Which networks a run trains, in their order."
    plan = []
    for s in range(params["seeds"]):
        own_seed = lambda n: (params["seed"] + 1000 * s + n) % 2 ** 32  # Keras takes no larger one
        plan += [dict(name=f"compact_s{s}_f{f}", seed=s, fold=f, own_seed=own_seed(f)) for f in folds]
        plan += [dict(name=f"compact_s{s}_r{r}", seed=s, fold=None, own_seed=own_seed(500 + r))
                 for r in range(refits)]
    return plan


# %%
two_seeds = plan_members(dict(seeds=2, seed=0), [0, 1], 1)
names = [f"compact_s{s}_{part}" for s in (0, 1) for part in ("f0", "f1", "r0")]
test_eq([member["name"] for member in two_seeds], names)
test_eq([member["own_seed"] for member in two_seeds], [0, 1, 500, 1000, 1001, 1500])
test_eq(plan_members(dict(seeds=1, seed=2**32 - 1), [0, 1], 0)[1]["own_seed"], 0)   # counts on from there

# %%
if refits and not len(films.rows("test")):
    note(stage, "there are no test films, so no network was trained on all folds.")
refits_done = refits if len(films.rows("test")) else 0
plan = plan_members(stage.params, chosen_folds(films, fold_of, only_folds), refits_done)
readable(pd.DataFrame(plan, dtype=object)).style.hide(axis="index")


# %% [markdown]
# ## Training
#
# AdamW (Loshchilov and Hutter, 2019; arXiv:1711.05101) trains each member. The learning rate rises for one
# epoch and then falls along a cosine. All epochs are run to the end: no epoch is chosen, so the fold left out
# stays unseen until it judges.

# %%
#| export
def _compile_recipe(
    network: keras.Model, # (N, classes) logits; compiled in place
    steps: int,           # batches of an epoch
    params: dict,         # of the stage
):
    "AdamW with a cosine, cross-entropy with smoothed labels."
    highest, falling = params["learning_rate"], max(steps * (params["epochs"] - 1), 1)
    rate = keras.optimizers.schedules.CosineDecay(
        highest / 20, falling, alpha=.01, warmup_target=highest, warmup_steps=steps)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=params["weight_decay"])
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=params["label_smoothing"])
    network.compile(optimizer, loss, metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")])


# %%
toy = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
_compile_recipe(toy, 10, stage.params | dict(learning_rate=.1, epochs=3))
rates = [float(toy.optimizer._learning_rate(step)) for step in (0, 10, 20, 30)]
test_close(rates, [.005, .1, .0505, .001], eps=1e-6)   # after none, one, two and three epochs


# %% [markdown]
# A member's fold takes the place of validation:

# %%
#| export
def fold_films(
    films: Films,
    fold_of: np.ndarray, # (N,) from `make_folds`
    fold: int | None,    # to leave out; None for none
) -> Films:
    "The films with one fold as validation and the other folds as train."
    split = np.where(fold_of < 0, "test", np.where(fold_of == fold, "validation", "train"))
    return Films(films.images.assign(split=split), films.pixels)


# %%
counts = {"0": fold_films(films, fold_of, 0), "none": fold_films(films, fold_of, None)}
counts = {fold: part.images.split.value_counts() for fold, part in counts.items()}
readable(pd.DataFrame(counts).T.rename_axis(index="fold"))

# %% [markdown]
# A member is trained in layers that are fast on a processor and kept in plain ones. What is kept of an
# interrupted training depends on the recipe and on the member's own films. Which other members there are
# changes nothing.

# %%
#| export
_OF_ALL_MEMBERS = "folds_by", "folds", "only_folds", "refits", "seeds"

def _recipe_network(
    params: dict,
    classes: int, # that it tells apart
    **options,    # norm and dtype, as for `residual_network`
) -> keras.Model: # (N, S, S, 1) gray → (N, classes) logits
    "A network with new weights."
    return film_network(params["image_size"], params["widths"], classes, params["contrast"], **options)


# %%
#| export
def _train_member(
    stage: Stage, # its parameters are the recipe
    films: Films, # from `fold_films`
    member: dict, # from `plan_members`
    class_of: dict[str, int], # from `film_classes`
) -> tuple[keras.Model, pd.DataFrame]: # (N, S, S, 1) gray → (N, classes) logits; a row an epoch
    "Train one network by the recipe, or take it up where it was interrupted."
    p, seed, classes = stage.params, member["own_seed"], max(class_of.values()) + 1
    set_seed(seed)
    network = _recipe_network(p, classes, norm=FusedBatchNormalization, dtype=p["precision"])
    _compile_recipe(network, -(-len(films.rows("train")) // p["batch_size"]), p)
    depends_on = {name: value for name, value in p.items() if name not in _OF_ALL_MEMBERS}
    source = _source(stage, films, seed, class_of)
    bare, history = train_kept(stage, member["name"], network, source, p["epochs"], p["batch_size"], seed,
                               keep="last", params=depends_on)
    kept = _recipe_network(p, classes)
    kept.set_weights(bare.get_weights())
    return kept, history.assign(member=member["name"], parameters=kept.count_params())


# %% [markdown]
# With `PNEUMO_WORKERS` above 1, members are trained side by side, as the chapter on workers describes. Each
# worker leaves what it trained where an interrupted training is looked for. The members are then gone through
# in line all the same, and each is found there. So if a worker fails, its member is trained in line, or the
# error comes up there. On one thread each, networks come out the same to the bit either way.

# %%
#| export
def _train_share(
    members,      # iterator, from `side_by_side`
    stage: Stage,
):
    "What a worker does: train members until there are none left."
    p = stage.params
    films = load_films(stage, p["image_size"], p["seed"])
    fold_of = make_folds(films.images, p["folds_by"], p["folds"])
    class_of = _classes_of(films, fold_of, p)
    for member in members: _train_member(stage, fold_films(films, fold_of, member["fold"]), member, class_of)


# %%
#| export
def _train_ahead(
    stage: Stage,
    plan: list[dict], # from `plan_members`
    count: int,       # networks to train at the same time
):
    "Train members side by side and leave them where `train_members` finds them."
    print(f"Member networks: {count} at a time")
    tasks = {f"Member {member['name']}": member for member in plan}
    failed = side_by_side("pneumo_nb.compact", "_train_share", (stage,), tasks, count)
    if failed:
        ended = f"{counted(failed, 'worker')} ended early"
        print(f"Member networks: {ended}; what is missing is trained in line.")


# %% [markdown]
# A network's answer is the log odds of pneumonia. It learned from classes that count the same. With three of
# them its probabilities speak for a mix of films with two thirds pneumonia; the chapter on networks makes one
# probability of them. The temperature then sets them right for the mix of the folds.

# %%
#| export
def _film_logits(
    logits: keras.Model, # from `pneumonia_logits`
    pixels: np.ndarray,  # (N, S, S) uint8
    rows: np.ndarray,    # which of them
    batch_size: int = 64,
) -> np.ndarray: # (len(rows), networks)
    "Log odds of pneumonia for films as they are."
    parts = [logits.predict_on_batch(take(pixels, rows[n:n + batch_size])[..., None].astype(np.float32))
             for n in range(0, len(rows), batch_size)]
    return np.concatenate(parts) if parts else np.zeros((0, logits.output_shape[1]), np.float32)


# %%
#| export
def _answers(
    network: keras.Model, # a member's
    member: dict,
    films: Films,         # from `fold_films`
    tests: bool,          # whether it judges test
    flip: bool,
) -> pd.DataFrame: # member, seed, fold (-1: none left out), n, logit
    "What a member says of the fold that it left out, of the test films, or of both."
    rows = np.concatenate([films.rows("validation"), films.rows("test") if tests else []]).astype(int)
    logits = _film_logits(pneumonia_logits([network], flip), films.pixels, rows)[:, 0]
    fold = -1 if member["fold"] is None else member["fold"]
    return pd.DataFrame(dict(member=member["name"], seed=member["seed"], fold=fold, n=rows,
                             logit=logits.astype(float)))


# %%
#| export
def train_members(
    stage: Stage,
    films: Films,
    fold_of: np.ndarray, # (N,) from `make_folds`
    plan: list[dict],    # from `plan_members`
) -> tuple[dict[str, keras.Model], pd.DataFrame, pd.DataFrame]: # networks; a row a film and member; histories
    "Train every member and let it judge its fold, the test films, or both."
    networks, answers, histories = {}, [], []
    refitted = any(member["fold"] is None for member in plan)
    class_of = _classes_of(films, fold_of, stage.params)
    for member in plan:
        part, name = fold_films(films, fold_of, member["fold"]), member["name"]
        learned, left_out = len(part.rows("train")), len(part.rows("validation"))
        print(f"Member {name}: {learned:,} films to learn from, {left_out:,} left out")
        networks[name], history = _train_member(stage, part, member, class_of)
        tests = member["fold"] is None or not refitted
        answers.append(_answers(networks[name], member, part, tests, stage.params["flip"]))
        histories.append(history)
    return networks, pd.concat(answers, ignore_index=True), pd.concat(histories, ignore_index=True)


# %%
if workers() > 1: _train_ahead(stage, plan, workers())
networks, answers, histories = train_members(stage, films, fold_of, plan)
print(f"{len(networks)} networks of {histories.parameters.iloc[0]:,} parameters, {len(answers):,} answers")


# %% [markdown]
# [The curves](#fig-compact_history) hold every member; those that learn from all folds have no dashed one.
# Train can lie above the fold left out: its films are altered, and its loss is weighted by class.

# %%
#| export
def _plot_losses(
    histories: pd.DataFrame, # epoch, loss, val_loss and member
): # matplotlib Figure
    "Loss of every member by epoch."
    import matplotlib.pyplot as plt
    figure, ax = plt.subplots(figsize=(8, 3.4))
    train, left_out = dict(color=model_style(_SINGLE)["color"]), dict(color="black", ls="--")
    for _, rows in histories.groupby("member", sort=False):
        judged = rows.dropna(subset=["val_loss"])
        ax.plot(rows.epoch, rows.loss, lw=1, **train)
        ax.plot(judged.epoch, judged.val_loss, lw=1, **left_out)
    ax.plot([], [], label="train", **train)
    ax.plot([], [], label="fold left out", **left_out)
    ax.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    ax.legend()
    ax.xaxis.get_major_locator().set_params(integer=True)
    return figure


# %%
last = histories[histories.epoch == epochs]
save_figure(stage, _plot_losses(histories), "compact_history",
            "Loss of every member by epoch: train (solid) and the fold left out (dashed).",
            f"Loss of {len(networks)} members over {epochs} epochs. In the last epoch {last.loss.mean():.3f} "
            f"on train and {last.val_loss.mean():.3f} on the fold left out, on average.")


# %% [markdown]
# ## One probability a film
#
# Several networks answer together by the mean of their log odds. Those that **answer** are the refits, or all
# where there are none.

# %%
#| export
def answering(
    answers: pd.DataFrame, # from `train_members`
) -> list[str]: # names
    "The members that judge test, or would if there were any."
    return answers.member[(answers.fold < 0) | (answers.fold >= 0).all()].unique().tolist()


# %% [markdown]
# Of films that are not test, the folds' networks of the same seed speak for a refit. No film that a network
# learned from has a say in its threshold. But the answers that choose are those of networks that knew fewer
# films. And the mean of several refits is cut where their single counterparts say. How well that carries
# over, only test shows.

# %%
#| export
def answers_of(
    answers: pd.DataFrame, # from `train_members`
    names,                 # of answering members
) -> pd.DataFrame: # rows of `answers`
    "What members say; for refits, also what their seeds' networks say of the folds that they left out."
    named = answers.member.isin(names)
    if (answers.fold[named] >= 0).all(): return answers[named]
    out_of_fold = (answers.fold >= 0) & answers.seed.isin(answers.seed[named])
    return answers[named | out_of_fold]


# %%
made_up = pd.DataFrame(dict(member=["s0_f0", "s0_r0", "s1_f0", "s1_r0"], seed=[0, 0, 1, 1],
                            fold=[0, -1, 0, -1], n=[0, 1, 0, 1], logit=[1., -1., 3., -3.]))
test_eq(answering(made_up), ["s0_r0", "s1_r0"])
test_eq(answering(made_up[made_up.fold == 0]), ["s0_f0", "s1_f0"])
test_eq(answers_of(made_up, ["s1_r0"]).member.tolist(), ["s1_f0", "s1_r0"])


# %% [markdown]
# The temperature is fitted to the mean log odds of the out-of-fold films. In the table these count as
# validation.

# %%
#| export
def _pooled(
    films: Films,
    fold_of: np.ndarray,   # (N,) from `make_folds`
    answers: pd.DataFrame, # from `answers_of`
) -> tuple[pd.DataFrame, float]: # path, split, label, probability, uncalibrated; the temperature
    "One answer a film: the mean of its members' log odds, divided by the temperature."
    means = answers.groupby("n").logit.mean()
    rows, logits = means.index.to_numpy(), means.to_numpy()
    left_out = fold_of[rows] >= 0
    temperature = fit_temperature(films.labels[rows[left_out]], expit(logits[left_out]))
    table = films.images.iloc[rows][["path", "label"]]
    table = table.assign(probability=expit(logits / temperature), uncalibrated=expit(logits))
    table.insert(1, "split", np.where(left_out, "validation", "test"))
    return table.sort_values("split", ascending=False, kind="stable").reset_index(drop=True), temperature


# %%
pair = Films(pd.DataFrame(dict(path=["a.png", "b.png"], label=[1, 0])), None)
table, temperature = _pooled(pair, np.array([0, -1]), made_up)
test_close(table.uncalibrated, expit([2, -2]))
test_eq((table.split.tolist(), temperature), (["validation", "test"], 1))
table


# %% [markdown]
# Each group of members that answers together is pooled once: every answering member by itself, those of each
# seed, and all.

# %%
#| export
def _seed_groups(
    answers: pd.DataFrame, # from `train_members`
) -> dict[int, tuple]: # seed → names of its answering members, where there are several
    "Which members make the ensemble of each seed."
    first = answers[answers.member.isin(answering(answers))].drop_duplicates("member")
    groups = {int(seed): tuple(names) for seed, names in first.groupby("seed").member}
    return {seed: names for seed, names in groups.items() if len(names) > 1}


# %%
#| export
def pool_groups(
    films: Films,
    fold_of: np.ndarray,   # (N,) from `make_folds`
    answers: pd.DataFrame, # from `train_members`
) -> dict[tuple, tuple]: # names of members → what `_pooled` gives of them
    "Answers of every group of members that answers together."
    names = answering(answers)
    groups = dict.fromkeys([*((name,) for name in names), *_seed_groups(answers).values(), tuple(names)])
    return {group: _pooled(films, fold_of, answers_of(answers, group)) for group in groups}


# %%
test_eq(list(pool_groups(pair, np.array([0, -1]), made_up)), [("s0_r0",), ("s1_r0",), ("s0_r0", "s1_r0")])
pools = pool_groups(films, fold_of, answers)
temperatures = [dict(member=" and ".join(names), temperature=value) for names, (_, value) in pools.items()]
pd.DataFrame(temperatures).style.hide(axis="index").format(precision=3)


# %% [markdown]
# `members/compact.csv` holds what evaluation needs to see how much trainings differ by their seed alone: the
# single networks, and each seed's ensemble where several networks of a seed answer.

# %%
#| export
def _trainings(
    answers: pd.DataFrame, # from `train_members`
) -> list[tuple]: # model, what this training of it is called, seed, names of its members
    "The single networks, and the ensembles of a seed."
    seeds = answers.drop_duplicates("member").set_index("member").seed
    single = [(_SINGLE, name, seeds[name], (name,)) for name in answering(answers)]
    together = [(_TOGETHER, f"{_TOGETHER}_s{seed}", seed, names)
                for seed, names in _seed_groups(answers).items()]
    return single + together


# %%
#| export
def member_table(
    answers: pd.DataFrame, # from `train_members`
    pools: dict,           # from `pool_groups`
) -> pd.DataFrame: # model, member, seed, path, split, label, probability, uncalibrated
    "Predictions of each answering member and of each seed's ensemble."
    tables = []
    for model, member, seed, names in _trainings(answers):
        table, _ = pools[names]
        tables.append(pd.DataFrame(dict(model=model, member=member, seed=seed), table.index).join(table))
    return pd.concat(tables, ignore_index=True)


# %%
write_csv(stage.path(f"members/{stage.name}.csv"), member_table(answers, pools))
member_table(answers, pools).groupby(["model", "member", "split"]).size().unstack()


# %% [markdown]
# Two models are kept: the first answering member, and the ensemble of all where there are several. A saved
# model is one network that takes gray films and gives temperature-scaled probabilities. What an earlier run
# with more members left is removed first.

# %%
#| export
def _remove_earlier(stage: Stage):
    "Remove the files of this stage's models."
    for name in (_SINGLE, _TOGETHER):
        for file in (f"predictions/{name}.csv", f"models/{name}.keras", f"history/{name}.csv"):
            stage.path(file).unlink(missing_ok=True)


# %%
#| export
def _history_of(names: tuple, histories: pd.DataFrame, temperature: float) -> pd.DataFrame:
    "What the training of some members took, one after the other."
    history = histories[histories.member.isin(names)]
    return history.assign(total_seconds=history.seconds.cumsum(), temperature=temperature,
                          parameters=history.drop_duplicates("member").parameters.sum())


# %%
#| export
def keep_models(
    stage: Stage,
    networks: dict[str, keras.Model],
    pools: dict,             # from `pool_groups`
    histories: pd.DataFrame,
    names: list[str],        # of answering members
):
    "Write predictions, model and history of the first answering member and of the ensemble."
    _remove_earlier(stage)
    kept = {_SINGLE: tuple(names[:1])} | ({_TOGETHER: tuple(names)} if len(names) > 1 else {})
    for model, group in kept.items():
        table, temperature = pools[group]
        whole = as_model(pneumonia_logits([networks[name] for name in group], stage.params["flip"]))
        write_csv(stage.path("predictions", f"{model}.csv"), table)
        save_model(stage, model, whole, temperature)
        write_csv(stage.path("history", f"{model}.csv"), _history_of(group, histories, temperature))


# %%
names = answering(answers)
keep_models(stage, networks, pools, histories, names)
test_films, (table, _) = films.rows("test")[:8], pools[tuple(names[:1])]
expected = table.set_index("path").probability[films.images.path.iloc[test_films]]
saved = keras.saving.load_model(stage.path(f"models/{stage.name}.keras"))
test_close(_film_logits(saved, films.pixels, test_films)[:, 0], expected.to_numpy(), eps=1e-4)

# %% [markdown]
# ## Does validation feel the shift?
#
# Folds by number do a little, folds across the naming series more. All normal films of a fold by series
# belong to a series of which its network knows no normal film. Its network also knows fewer normal films than
# one that learns from all, so a low number here is both.
#
# Further examinations are harder. The first two look at the same answers, the others ask again about altered
# films.
#
# - **Weighted**: films count by the overlap weights of the chapter on appearance. Under these a film's
#   appearance as a whole says much less about its class. Normal films that look like pneumonia, and the other
#   way round, decide.
# - **Tall markers**: only films whose side marker is taller than a sixteenth of the film.
# - **Gray levels swapped**: every film of the fold gets the gray levels of a film of the **other class**. The
#   order of gray stays, the contrast changes. A network that reads gray levels as a sign of the class is now
#   misled each time.
# - **Sharpness swapped**: every film gets the sharpness of a film of the other class, as `match_bands` does
#   it.
# - **Shape swapped**: every film is stretched as if its original had had the form that is usual in the other
#   class. A network that reads the shape of the chest as a sign of the class is misled. The gap between the
#   classes' forms is measured on the originals of films that are not test. Where all originals have one size
#   it cannot be measured, and the lower AUROC of both directions counts (chapter on views).
#
# A recipe with `match`, `bands` or `stretch` has trained for the swap of that one property. There the number
# is no independent evidence.
#
# Recipes are compared by these numbers, which no test film enters. But false alarms of an earlier recipe on
# test suggested two of them: the look at tall markers, and evening out sharpness (chapter on findings). So
# test numbers are no first look.

# %%
#| export
_AGAINST_NORMAL = "{} against normal"

def _by_kind(
    kinds: np.ndarray,  # (N,) of all films
    n: np.ndarray,      # (k,) which films were judged
    scores: np.ndarray, # (k,) of these
) -> dict[str, float]: # column → AUROC, NaN where none were judged; nothing with one kind of pneumonia
    "Each kind of pneumonia against the normal films."
    sick, judged = sorted({*kinds} - {"normal"}), kinds[n]
    if len(sick) < 2: return {}
    rows = {kind: (judged == kind) | (judged == "normal") for kind in sick}
    return {_AGAINST_NORMAL.format(kind): auroc(judged[chosen] == kind, scores[chosen])
            for kind, chosen in rows.items()}


# %%
judged = np.array("normal virus bacteria normal".split())
test_eq(_by_kind(judged, np.arange(4), np.array([1., 2, 0, 1])),
        {"bacteria against normal": 0., "virus against normal": 1.})
test_eq(_by_kind(judged[:2], np.arange(2), np.array([1., 2])), {})


# %%
#| export
def _examine(
    network: keras.Model,  # of a member that left a fold out
    films: Films,
    answers: pd.DataFrame, # of this member, about films that are not test
    weights: np.ndarray,   # (N,) overlap weights
    seed: int,
    flip: bool,
    gaps: list[float],     # by which to swap the shape, from `shape_gaps`
) -> dict: # AUROC by examination
    "One member on the fold that it never saw."
    n, logits = answers.n.to_numpy(), pneumonia_logits([network], flip)
    labels, scores, every = films.labels[n], answers.logit.to_numpy(), np.arange(len(n))
    def again(pixels): return auroc(labels, _film_logits(logits, pixels, every)[:, 0])
    return dict(
        auroc=auroc(labels, scores), **_by_kind(films.images.kind.to_numpy(), n, scores),
        weighted=auroc(labels, scores, weights[n]), swapped=again(swapped_levels(films, n, seed)),
        bands=again(swapped_bands(films, n, seed)),
        shape=min(again(swapped_shape(films, n, gap)) for gap in gaps))


# %%
#| export
def _gap_words(gaps: list[float]) -> str: # as from `shape_gaps`
    "Which gap the shape is swapped by."
    return f"{gaps[0]:.3f}, measured" if len(gaps) == 1 else f"{gaps[0]:.3f}, lower of both directions"


# %%
test_eq(_gap_words([1.0312]), "1.031, measured")
test_eq(_gap_words([1.2, 1 / 1.2]), "1.200, lower of both directions")


# %%
#| export
def fold_table(
    films: Films,
    networks: dict[str, keras.Model],
    answers: pd.DataFrame, # from `train_members`
    weights: np.ndarray,   # (N,) overlap weights; NaN where there are none
    seed: int,
    flip: bool,
) -> pd.DataFrame: # a row a member that left a fold out: member, fold, films, AUROC by examination, shape_gap
    "How each member does on the fold that it never saw."
    rows = []
    is_test = films.images.split.to_numpy() == "test"
    out_of_fold = answers[(answers.fold >= 0) & ~is_test[answers.n]]
    gaps = shape_gaps(films.images[~is_test])
    for name, part in out_of_fold.groupby("member", sort=False):
        scores = _examine(networks[name], films, part, weights, seed, flip, gaps)
        rows.append(dict(member=name, fold=part.fold.iloc[0], films=len(part)) | scores
                    | dict(shape_gap=_gap_words(gaps)))
    return pd.DataFrame(rows)


# %% [markdown]
# The table has an AUROC for each examination. Where there are several kinds of pneumonia, each is also set
# against the normal films.

# %%
looks = load_appearance(stage, films.images, seed)
if looks.weight.isna().all(): note(stage, "too few patients to weight films by appearance.")
table = fold_table(films, networks, answers, looks.weight.to_numpy(), seed, flip)
caption = "AUROC of each member on the fold it never saw, by examination"
readable(table).style.hide(axis="index").format(precision=4).set_caption(caption)


# %% [markdown]
# In the public set, films with tall markers come from machines by which many sick and hardly any other
# children were filmed. So this is where a network that knows the machine calls a normal film sick. The few
# normal films among them are real ones: nothing is altered or weighted. Films are compared with others judged
# by the same network.

# %%
#| export
def _of_both_classes(answers: pd.DataFrame) -> pd.DataFrame: # member and label
    "Answers of members that judged films of both classes."
    return answers[answers.groupby("member").label.transform("nunique") == 2]


# %%
#| export
def tall_markers(
    films: Films,          # rows numbered from 0
    answers: pd.DataFrame, # from `train_members`
    markers: np.ndarray,   # (N,) height of the side marker, share of the film's
) -> dict: # normal, pneumonia: films judged; auroc, low, high: None where no member judged both classes
    "AUROC of the out-of-fold answers among films with a tall side marker, with its interval after DeLong."
    is_asked = (films.images.split.to_numpy() != "test") & (markers > TALL_MARKER)
    rows = answers[(answers.fold >= 0) & is_asked[answers.n]]
    patients = films.images.patient_id.to_numpy()[rows.n]
    rows = _of_both_classes(rows.assign(label=films.labels[rows.n], patient_id=patients))
    labels = rows.drop_duplicates("n").label
    counts = dict(normal=int((labels == 0).sum()), pneumonia=int((labels == 1).sum()))
    if len(rows) == 0: return counts | dict(auroc=None, low=None, high=None)
    low, high = auroc_interval(rows.assign(probability=rows.logit), rows.member)   # ranks alone count
    value = grouped_auroc(rows.member.to_numpy(), rows.label.to_numpy(), rows.logit.to_numpy())
    return counts | dict(auroc=value, low=low, high=high)


# %%
markers = looks.marker.to_numpy()
tall = tall_markers(films, answers, markers)
test_eq(tall_markers(films, answers, markers * 0)["auroc"], None)


# %% [markdown]
# ## What the members did
#
# The smaller the difference between a swapped number and the first, the less the networks lean on that
# property. Where shape is swapped, it is the shape of the chest. In the public films squashing made that a
# sign of the class.

# %%
#| export
def _tall_words(
    tall: dict,   # from `tall_markers`
    every: float, # AUROC among all films
) -> str:
    "What films with a tall marker say."
    if tall["auroc"] is None:
        return "Among films with a tall side marker: no number, since no network judged both classes."
    bounds = dict(auroc=tall["auroc"], auroc_low=tall["low"], auroc_high=tall["high"])
    value = (f"Among films with a tall side marker, {tall['normal']} normal and {tall['pneumonia']} with "
             f"pneumonia: **{value_with_interval(bounds, 'auroc', 3)}**")
    if not tall["high"] < every: return value + "; too few films to tell it from the number for all."
    return value + (", less than among all: such films are harder for it, or it leans on what most of them "
                    "have in common.")


# %%
#| export
def _kinds_in_words(means: pd.Series) -> str: # `means`: of the columns of `fold_table`; "" without kinds
    "How well each kind of pneumonia is told from normal films."
    columns = [column for column in means.index if column.endswith(_AGAINST_NORMAL.format(""))]
    return "".join(f"; {column} {means[column]:.4f}" for column in columns if means[column] == means[column])


# %%
#| export
def _compact_findings(
    table: pd.DataFrame,     # from `fold_table`
    histories: pd.DataFrame,
    tall: dict,              # from `tall_markers`
) -> str: # markdown
    "What the members did on validation, in words."
    seconds, means = histories.groupby("member").seconds.sum(), table.mean(numeric_only=True)
    lines = [
        f"{counted(len(seconds), 'network')} of {histories.parameters.iloc[0]:,} parameters, "
        f"{seconds.mean():,.0f} s of training each, {seconds.sum():,.0f} s together; {len(table)} of them "
        "left a fold out and judged it.",
        f"On the fold left out: AUROC **{means.auroc:.4f}** on average ({table.auroc.min():.4f} to "
        f"{table.auroc.max():.4f}){_kinds_in_words(means)}.",
        f"With gray levels swapped between the classes: **{means.swapped:.4f}**.",
        f"With sharpness swapped: **{means.bands:.4f}**.", f"With shape swapped: **{means['shape']:.4f}** "
        f"(gap {table.shape_gap.iloc[0]})."]
    if table.weighted.notna().all(): lines.append(
        f"Weighted so that a film's appearance as a whole says little: **{means.weighted:.4f}**.")
    return "\n".join(f"- {line}" for line in [*lines, _tall_words(tall, means.auroc)])


# %%
display(Markdown(_compact_findings(table, histories, tall)))
assert "no number, since no network" in _tall_words(dict(auroc=None), .9)
assert "less than among all" in _tall_words(dict(normal=9, pneumonia=90, auroc=.8, low=.75, high=.85), .9)


# %% [markdown]
# Later chapters find these numbers in `metrics/compact.json`.

# %%
#| export
def _examinations(table: pd.DataFrame, histories: pd.DataFrame, tall: dict) -> dict:
    "What `metrics/compact.json` holds."
    means = {name: table[name].mean() for name in ("auroc", "weighted", "swapped", "bands", "shape")}
    means["virus"] = table.get(_AGAINST_NORMAL.format("virus"), pd.Series(dtype=float)).mean()
    return dict(members=table.to_dict("records"), seconds=histories.groupby("member").seconds.sum().to_dict(),
                tall=tall, parameters=int(histories.parameters.iloc[0]), **means,
                shape_gap=table.shape_gap.iloc[0])


# %%
write_json(stage.path("metrics/compact.json"), _examinations(table, histories, tall))
record = finish(stage)
