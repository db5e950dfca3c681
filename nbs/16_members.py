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
# # Members
#
# > Networks that leave films out and judge them, and networks that learn from all: trained, pooled, examined

# %%
#| default_exp members

# %%
#| export
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import keras
import numpy as np
import pandas as pd
from scipy.special import expit

from pneumo_nb.run import (
    Declaration, Stage, StudyError, note, set_seed, stages, workers, write_csv, write_json)
from pneumo_nb.style import counted, model_style, readable, save_figure, value_with_interval
from pneumo_nb.films import with_series
from pneumo_nb.splits import number_folds, series_folds
from pneumo_nb.cache import Films, take
from pneumo_nb.measures import auroc, auroc_interval, fit_temperature, grouped_auroc
from pneumo_nb.appearance import TALL_MARKER
from pneumo_nb.views import (
    RECIPE, SHAPE_GAP, shape_gaps, swapped_bands, swapped_frames, swapped_levels, swapped_shape)
from pneumo_nb.batches import Source, recipe_source
from pneumo_nb.networks import as_model, pneumonia_logits
from pneumo_nb.training import save_model, train_kept
from pneumo_nb.workers import side_by_side

# %%
#| hide
from contextlib import redirect_stdout
import io
from fastcore.test import test_close, test_eq, test_fail
from pneumo_nb.run import open_stage
from pneumo_nb.style import plot_style
plot_style()

# %% [markdown]
# A recipe is better judged on films that it did not learn from, and better trained on all films. So it trains
# several networks. Some leave a part of the films out and judge it. Others learn from all films and answer on
# test. All of them are the **members** of a run. This chapter trains, pools and examines them, whatever
# network they are. The chapters that use it say how a network is built.
#
# Stages that train members share the rules of their parameters:

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
    "weight_decay, label_smoothing, average": "number from 0 and below 1",
    "kinds, flip": "true or false",
    "frames": "number from 0 to 1",
}


# %% [markdown]
# Such a stage is a **recipe**. It has these rules, and leaves its members' answers in `members/NAME.csv`.

# %%
#| export
def recipe_stages() -> list[Declaration]: # in the study's order
    "The stages that train members."
    return [stage for stage in stages().values()
            if stage.ranges_of == "members" and f"members/{stage.name}.csv" in stage.writes]


# %%
print(*(recipe.name for recipe in recipe_stages()), sep=", ")


# %% [markdown]
# Two dozen films of noise serve as examples, with names as in the public set. A toy network stands for a real
# one.

# %%
def noise_films(count=24, side=16):
    rng, tests = np.random.default_rng(0), (0, 1, 2)
    kinds = [["normal", "bacteria", "normal", "virus"][n % 4] for n in range(count)]
    names = [f"{'IM' if n % 8 else 'NORMAL2-IM'}-{n:04d}-0001.jpeg" if kind == "normal"
             else f"person{n}_{kind}_{n}.jpeg" for n, kind in enumerate(kinds)]
    split = ["test" if n in tests else "train" for n in range(count)]
    table = dict(path=names, split=split, kind=kinds, label=[int(kind != "normal") for kind in kinds])
    patients = [f"{kind}{n}" for n, kind in enumerate(kinds)]
    table |= dict(patient_id=patients, sha1=[str(n) for n in range(count)])
    return Films(with_series(pd.DataFrame(table)), rng.integers(0, 256, (count, side, side), np.uint8))

films = noise_films()
params = dict(seed=1, folds_by="numbers", folds=2, only_folds=[], refits=1, seeds=2, batch_size=8, epochs=2,
              learning_rate=.01, weight_decay=.05, label_smoothing=.05, average=0., image_size=16, kinds=True,
              flip=True, **dict.fromkeys(set(RECIPE) - {"flip"}, 0))
stage = open_stage("toys", "", **params)
films.images.groupby(["split", "kind"]).size()


# %% [markdown]
# ## Folds
#
# Folds by `series` leave out all normal films of one naming series at a time. Folds by `numbers` are
# stretches of consecutive patient numbers; they stand in where the normal films have one series alone.

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
        raise StudyError(f'Expected folds_by to be "series" or "numbers", found {folds_by!r}.')
    across = folds_by == "series" and _has_series(images)
    return series_folds(images) if across else number_folds(images, folds)


# %%
fold_of = make_folds(films.images, "numbers", 2)
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
test_eq(chosen_folds(films, fold_of, []), [0, 1])


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
            raise StudyError(f"Expected {name} of {least} or more, found {params[name]}.")
    absent = [f for f in chosen if f not in range(folds)]
    if absent: raise StudyError(f"Expected only_folds between 0 and {folds - 1}, found {absent}.")
    if len(set(chosen)) < len(chosen):
        raise StudyError(f"Expected each fold once in only_folds, found {chosen}.")


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
check_members(films, fold_of, params)
check = lambda **other: check_members(films, fold_of, params | other)
test_fail(lambda: check(only_folds=[0, 0]), contains="each fold once in only_folds, found [0, 0]")
test_fail(lambda: check(only_folds=[999]), contains="found [999]")
test_fail(lambda: check(seeds=0), contains="seeds of 1 or more, found 0")


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
        return (f"all films with pneumonia are of one kind, {kinds[0]}; so the networks tell two "
                "classes, normal and pneumonia.")
    groups = [[kind for kind in kinds if class_of[kind] == n] for n in sorted({class_of[k] for k in kinds})]
    joined = [" and ".join(group) for group in groups if len(group) > 1]
    if not joined: return ""
    return (f"too few patients to have every kind in each fold and outside it; so the networks learn "
            f"{joined[0]} as one class.")


# %%
test_eq(_class_words(classes(*both_kinds)), "")
assert "of one kind, pneumonia" in _class_words(classes(*["normal pneumonia"] * 4))
assert "learn fungus and virus as one class" in _class_words(dict(normal=0, bacteria=1, fungus=2, virus=2))


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
    name: str,        # of the stage
) -> list[dict]: # name, seed (0, 1, …), fold (None: none left out), own_seed
    "Which networks a run trains, in their order."
    plan = []
    for s in range(params["seeds"]):
        own_seed = lambda n: (params["seed"] + 1000 * s + n) % 2 ** 32  # Keras takes no larger one
        plan += [dict(name=f"{name}_s{s}_f{f}", seed=s, fold=f, own_seed=own_seed(f)) for f in folds]
        plan += [dict(name=f"{name}_s{s}_r{r}", seed=s, fold=None, own_seed=own_seed(500 + r))
                 for r in range(refits)]
    return plan


# %%
two_seeds = plan_members(dict(seeds=2, seed=0), [0, 1], 1, "toys")
names = [f"toys_s{s}_{part}" for s in (0, 1) for part in ("f0", "f1", "r0")]
test_eq([member["name"] for member in two_seeds], names)
test_eq([member["own_seed"] for member in two_seeds], [0, 1, 500, 1000, 1001, 1500])
at_the_end = plan_members(dict(seeds=1, seed=2**32 - 1), [0, 1], 0, "toys")
test_eq(at_the_end[1]["own_seed"], 0)   # counts on from there


# %% [markdown]
# A stage decides all of that at once, before anything is trained, and says what it could not do as asked.

# %%
#| export
@dataclass
class Plan:
    "Which networks a stage trains, and on what."
    fold_of: np.ndarray      # (N,) fold of each film; -1 for test films
    class_of: dict[str, int] # kind → class
    members: list[dict]      # from `plan_members`


# %%
#| export
def make_plan(
    stage: Stage, # its parameters are the recipe
    films: Films,
    fold_of: np.ndarray | None = None, # (N,) fold of each film, -1 for test films; None: as the recipe says
) -> Plan:
    "The members of a run, checked; what differs from the parameters becomes a note."
    p = stage.params
    by_series = fold_of is None and p["folds_by"] == "series"
    if fold_of is None: fold_of = make_folds(films.images, p["folds_by"], p["folds"])
    check_members(films, fold_of, p)
    class_of, refits = _classes_of(films, fold_of, p), p["refits"]
    if by_series and not _has_series(films.images):
        note(stage, f"the normal films have not two naming series, so there are {p['folds']} folds along the "
                    f"patients' numbers, as with {stage.name}.folds_by=numbers.")
    if p["kinds"] and _class_words(class_of): note(stage, _class_words(class_of))
    if refits and not len(films.rows("test")):
        note(stage, "there are no test films, so no network was trained on all folds.")
        refits = 0
    folds = chosen_folds(films, fold_of, p["only_folds"])
    return Plan(fold_of, class_of, plan_members(p, folds, refits, stage.name))


# %%
plan = make_plan(stage, films)
test_eq([member["name"] for member in plan.members[:3]], ["toys_s0_f0", "toys_s0_f1", "toys_s0_r0"])
test_eq(plan.class_of, dict(normal=0, bacteria=1, virus=2))
in_three = np.where(films.images.split == "test", -1, np.arange(24) // 4 % 3)
test_eq({member["fold"] for member in make_plan(stage, films, in_three).members}, {0, 1, 2, None})


# %% [markdown]
# ## Training
#
# AdamW (Loshchilov and Hutter, 2019; arXiv:1711.05101) trains each member. The learning rate rises for one
# epoch and then falls along a cosine. All epochs are run to the end: no epoch is chosen, so the fold left out
# stays unseen until it judges. With `average`, weights are averaged along the way, each step counting for 1 −
# `average` of the mean (Polyak and Juditsky, 1992); a network that begins with learned weights gains by it.

# %%
#| export
def _averaging(
    momentum: float, # how much of the mean stays at each step; 0: no mean, the last weights
) -> dict: # keywords for a Keras optimizer
    "How weights are averaged during training."
    return dict(use_ema=True, ema_momentum=momentum, ema_overwrite_frequency=None) if momentum else {}

@keras.saving.register_keras_serializable("pneumo_nb")
class _DecayedKernels(keras.optimizers.AdamW):
    "AdamW that lets only kernels decay."
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])

def _compile_recipe(
    network: keras.Model, # (N, classes) logits; compiled in place
    steps: int,           # batches of an epoch
    params: dict,         # of the stage
):
    "AdamW with a cosine, cross-entropy with smoothed labels."
    highest, falling = params["learning_rate"], max(steps * (params["epochs"] - 1), 1)
    rate = keras.optimizers.schedules.CosineDecay(
        highest / 20, falling, alpha=.01, warmup_target=highest, warmup_steps=steps)
    optimizer = _DecayedKernels(rate, weight_decay=params["weight_decay"], name="adamw",
                                **_averaging(params["average"]))
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=params["label_smoothing"])
    network.compile(optimizer, loss, metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")])


# %%
toy = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
_compile_recipe(toy, 10, params | dict(learning_rate=.1, epochs=3))
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
parts = {"0": fold_films(films, fold_of, 0), "none": fold_films(films, fold_of, None)}
counts = {fold: part.images.split.value_counts() for fold, part in parts.items()}
readable(pd.DataFrame(counts).T.rename_axis(index="fold"))


# %% [markdown]
# What a member learns from are the views of the recipe, with a class for each kind. A stage may have
# parameters for the ingredients; of those that it does not name, the recipe's own values hold.

# %%
#| export
def member_source(
    stage: Stage,             # its parameters are the recipe
    films: Films,             # split into train, validation and test
    seed: int,
    class_of: dict[str, int], # from `film_classes`
) -> Source:
    "What one network learns from: the recipe's views, with the ingredients that the stage's parameters name."
    ranges = {name: stage.params.get(name, value) for name, value in RECIPE.items()}
    return recipe_source(films, seed, ranges, class_of)


# %% [markdown]
# A chapter gives a function that builds its network. It may build it in layers that are fast on a processor
# for training; what is kept is in plain ones. What is kept of an interrupted training depends on the recipe
# and on the member's own films. Which other members there are changes nothing.

# %%
#| export
_OF_ALL_MEMBERS = "folds_by", "folds", "only_folds", "refits", "seeds"

Build = Callable[[dict, int, bool], keras.Model]  # of parameters, number of classes, whether it is to train


# %%
#| export
def _train_member(
    stage: Stage,             # its parameters are the recipe
    films: Films,             # from `fold_films`
    member: dict,             # from `plan_members`
    class_of: dict[str, int], # from `film_classes`
    build: Build,
) -> tuple[keras.Model, pd.DataFrame]: # (N, S, S, 1) gray → (N, classes) logits; a row an epoch
    "Train one network by the recipe, or take it up where it was interrupted."
    p, seed, classes = stage.params, member["own_seed"], max(class_of.values()) + 1
    set_seed(seed)
    network = build(p, classes, True)
    _compile_recipe(network, -(-len(films.rows("train")) // p["batch_size"]), p)
    depends_on = {name: value for name, value in p.items() if name not in _OF_ALL_MEMBERS}
    source = member_source(stage, films, seed, class_of)
    bare, history = train_kept(stage, member["name"], network, source, p["epochs"], p["batch_size"], seed,
                               keep="last", params=depends_on)
    kept = build(p, classes, False)
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
    members,        # iterator, from `side_by_side`
    stage: Stage,
    load: Callable, # as of `train_side_by_side`
    plan: Plan,
    module: str,    # that exports the function that builds a network
    builder: str,   # name of that function
):
    "What a worker does: train members until there are none left."
    build = getattr(import_module(module), builder)
    films = load(stage, stage.params["image_size"], stage.params["seed"])
    for member in members:
        _train_member(stage, fold_films(films, plan.fold_of, member["fold"]), member, plan.class_of, build)


# %%
#| export
def train_side_by_side(
    stage: Stage,
    load: Callable, # function of stage, side of the films and seed → films
    plan: Plan,
    build: Build,   # exported by the stage's own notebook
):
    "Train members in several processes, if any, and leave them where `train_members` finds them."
    if workers() < 2: return
    print(f"Member networks: {workers()} at a time")
    tasks = {f"Member {member['name']}": member for member in plan.members}
    of_notebook = build.__module__ == "__main__"   # workers import from what the notebook exports
    module = f"pneumo_nb.{stage.name}" if of_notebook else build.__module__
    failed = side_by_side("pneumo_nb.members", "_train_share", (stage, load, plan, module, build.__name__),
                          tasks, workers())
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
    plan: Plan,
    build: Build,
) -> tuple[dict[str, keras.Model], pd.DataFrame, pd.DataFrame]: # networks; a row a film and member; histories
    "Train every member and let it judge its fold, the test films, or both."
    networks, answers, histories = {}, [], []
    refitted = any(member["fold"] is None for member in plan.members)
    for member in plan.members:
        part, name = fold_films(films, plan.fold_of, member["fold"]), member["name"]
        learned, left_out = len(part.rows("train")), len(part.rows("validation"))
        print(f"Member {name}: {learned:,} films to learn from, {left_out:,} left out")
        networks[name], history = _train_member(stage, part, member, plan.class_of, build)
        tests = member["fold"] is None or not refitted
        answers.append(_answers(networks[name], member, part, tests, stage.params["flip"]))
        histories.append(history)
    return networks, pd.concat(answers, ignore_index=True), pd.concat(histories, ignore_index=True)


# %%
def toy(params, classes, train):
    return keras.Sequential([keras.Input((16, 16, 1)), keras.layers.Rescaling(1 / 255),
                             keras.layers.Flatten(), keras.layers.Dense(classes, name="logits")])

networks, answers, histories = train_members(stage, films, plan, toy)
print(f"{len(networks)} networks of {histories.parameters.iloc[0]:,} parameters, {len(answers):,} answers")
judged = answers.groupby("fold").n.nunique()
test_eq(judged.to_dict(), pd.Series(fold_of).value_counts().to_dict())   # of test and of each fold, all


# %% [markdown]
# Train can lie above the fold left out: its films are altered, and its loss is weighted by class. Members
# that learn from all folds have no dashed curve.

# %%
#| export
def _plot_losses(
    histories: pd.DataFrame, # epoch, loss, val_loss and member
    name: str,               # of the model, for its colour
): # matplotlib Figure
    "Loss of every member by epoch."
    import matplotlib.pyplot as plt
    figure, ax = plt.subplots(figsize=(8, 3.4))
    train, left_out = dict(color=model_style(name)["color"]), dict(color="black", ls="--")
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
#| export
def show_losses(
    stage: Stage,
    histories: pd.DataFrame, # from `train_members`
): # IPython Markdown, as of `save_figure`
    "Keep and show the losses of a stage's members."
    last, count = histories[histories.epoch == histories.epoch.max()], histories.member.nunique()
    return save_figure(
        stage, _plot_losses(histories, stage.name), f"{stage.name}_history",
        "Loss of every member by epoch: train (solid) and the fold left out (dashed).",
        f"Loss of {counted(count, 'member')} over {histories.epoch.max()} epochs. In the last epoch "
        f"{last.loss.mean():.3f} on train and {last.val_loss.mean():.3f} on the fold left out, on average.")


# %%
show_losses(stage, histories)


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
two_seeds = pd.DataFrame(dict(member=["s0_f0", "s0_r0", "s1_f0", "s1_r0"], seed=[0, 0, 1, 1],
                            fold=[0, -1, 0, -1], n=[0, 1, 0, 1], logit=[1., -1., 3., -3.]))
test_eq(answering(two_seeds), ["s0_r0", "s1_r0"])
test_eq(answering(two_seeds[two_seeds.fold == 0]), ["s0_f0", "s1_f0"])
test_eq(answers_of(two_seeds, ["s1_r0"]).member.tolist(), ["s1_f0", "s1_r0"])


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
table, temperature = _pooled(pair, np.array([0, -1]), two_seeds)
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
groups = list(pool_groups(pair, np.array([0, -1]), two_seeds))
test_eq(groups, [("s0_r0",), ("s1_r0",), ("s0_r0", "s1_r0")])
pools = pool_groups(films, fold_of, answers)
temperatures = [dict(member=" and ".join(names), temperature=value) for names, (_, value) in pools.items()]
pd.DataFrame(temperatures).style.hide(axis="index").format(precision=3)


# %% [markdown]
# `members/STAGE.csv` holds what evaluation needs to see how much trainings differ by their seed alone: the
# single networks, and each seed's ensemble where several networks of a seed answer.

# %%
#| export
def ensemble_of(recipe: str) -> str: # `recipe`: the stage's name
    "What the ensemble of a recipe's networks is called, of all or of one seed."
    return f"{recipe}_ensemble"


# %%
#| export
def _trainings(
    answers: pd.DataFrame, # from `train_members`
    name: str,             # of the stage
) -> list[tuple]: # model, what this training of it is called, seed, names of its members
    "The single networks, and the ensembles of a seed."
    seeds = answers.drop_duplicates("member").set_index("member").seed
    single = [(name, member, seeds[member], (member,)) for member in answering(answers)]
    together = [(ensemble_of(name), f"{ensemble_of(name)}_s{seed}", seed, names)
                for seed, names in _seed_groups(answers).items()]
    return single + together


# %%
#| export
def member_table(
    answers: pd.DataFrame, # from `train_members`
    pools: dict,           # from `pool_groups`
    name: str,             # of the stage
) -> pd.DataFrame: # model, member, seed, path, split, label, probability, uncalibrated
    "Predictions of each answering member and of each seed's ensemble."
    tables = []
    for model, member, seed, names in _trainings(answers, name):
        table, _ = pools[names]
        tables.append(pd.DataFrame(dict(model=model, member=member, seed=seed), table.index).join(table))
    return pd.concat(tables, ignore_index=True)


# %%
counts = member_table(answers, pools, "toys").groupby(["model", "member", "split"]).size().unstack()
test_eq(set(counts.index.get_level_values("model")), {"toys"})   # one network a seed makes no ensemble
counts


# %% [markdown]
# Two models are kept: the first answering member, and the ensemble of all where there are several. A saved
# model is one network that takes gray films and gives temperature-scaled probabilities. What an earlier run
# with more members left is removed first.

# %%
#| export
def _remove_earlier(stage: Stage):
    "Remove the files of this stage's models."
    for name in (stage.name, ensemble_of(stage.name)):
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
    kept = {stage.name: tuple(names[:1])}
    if len(names) > 1: kept[ensemble_of(stage.name)] = tuple(names)
    for model, group in kept.items():
        table, temperature = pools[group]
        whole = as_model(pneumonia_logits([networks[name] for name in group], stage.params["flip"]))
        write_csv(stage.path("predictions", f"{model}.csv"), table)
        save_model(stage, model, whole, temperature)
        write_csv(stage.path("history", f"{model}.csv"), _history_of(group, histories, temperature))


# %%
#| export
def saved_differ(
    stage: Stage,
    films: Films,
    model: str,
    count: int = 8, # films to ask about
) -> float: # largest difference of a probability; 0 without test films
    "How far a saved model is from the probabilities that were written, on test films."
    rows = films.rows("test")[:count]
    if not len(rows): return 0.
    written = pd.read_csv(stage.path(f"predictions/{model}.csv")).set_index("path").probability
    saved = keras.saving.load_model(stage.path(f"models/{model}.keras"))
    answered = saved.predict_on_batch(take(films.pixels, rows)[..., None].astype(np.float32))[:, 0]
    return float(np.abs(answered - written[films.images.path.iloc[rows]].to_numpy()).max())


# %% [markdown]
# A stage keeps all of that at once: the members' table, the models, and how the temperatures came out.

# %%
#| export
def keep_members(
    stage: Stage,
    films: Films,
    plan: Plan,
    networks: dict[str, keras.Model],
    answers: pd.DataFrame,
    histories: pd.DataFrame,
) -> pd.DataFrame: # member (or several), temperature
    "Pool what members say, and write everything that a stage keeps of them."
    pools = pool_groups(films, plan.fold_of, answers)
    write_csv(stage.path(f"members/{stage.name}.csv"), member_table(answers, pools, stage.name))
    keep_models(stage, networks, pools, histories, answering(answers))
    return pd.DataFrame([dict(member=" and ".join(names), temperature=value)
                         for names, (_, value) in pools.items()])


# %%
keep_members(stage, films, plan, networks, answers, histories)
test_close([saved_differ(stage, films, name) for name in ("toys", "toys_ensemble")], [0, 0], eps=1e-5)

# %% [markdown]
# ## Examinations
#
# Recipes are compared by what their members say of the films that they left out. Folds by number feel a shift
# between films a little, folds across the naming series more. Further examinations are harder. The first two
# look at the same answers, the others ask again about altered films.
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
# - **Frame swapped**: every film gets the outer 16 % of a film of the other class. There a film shows its
#   margins, side markers and text, hardly any lung.
# - **Shape swapped**: every film is stretched as if its original had had the form that is usual in the other
#   class, and in the other direction; the lower AUROC counts (chapter on views).
#
# A recipe with `match`, `bands`, `frames` or `stretch` has trained for the swap of that one property. There
# the number is no independent evidence.

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
        bands=again(swapped_bands(films, n, seed)), frames=again(swapped_frames(films, n, seed)),
        shape=min(again(swapped_shape(films, n, gap)) for gap in gaps))


# %%
#| export
def _gap_words(gaps: list[float]) -> str: # as from `shape_gaps`
    "Which gap the shape is swapped by."
    whose = "the study's" if gaps[0] == SHAPE_GAP else "measured"
    return f"{gaps[0]:.3f}, {whose}, lower of both directions"


# %%
test_eq(_gap_words([1.0312, 1 / 1.0312]), "1.031, measured, lower of both directions")


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


# %%
table = fold_table(films, networks, answers, np.full(len(fold_of), np.nan), 1, flip=True)
test_eq(table.member.tolist(), ["toys_s0_f0", "toys_s0_f1", "toys_s1_f0", "toys_s1_f1"])


# %% [markdown]
# For reading, each member is a column:

# %%
#| export
def shown_examinations(
    table: pd.DataFrame, # from `fold_table`
) -> pd.DataFrame: # text: a row an examination, a column a member
    "The examinations for reading."
    scores = table.drop(columns=["member", "fold", "films", "shape_gap"]).map("{:.4f}".format)
    counts = table[["fold", "films"]].map("{:,}".format)
    shown = pd.concat([counts, scores.replace("nan", "–")], axis=1).set_axis(table.member)
    return readable(shown).T.rename_axis(columns=None)


# %%
shown = shown_examinations(table)
test_eq(shown.columns.tolist(), table.member.tolist())
test_eq(shown.loc["weighted by appearance"].tolist(), ["–"] * 4)
shown


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
test_eq(tall_markers(films, answers, np.zeros(len(fold_of)))["auroc"], None)
tall = tall_markers(films, answers, np.ones(len(fold_of)))
test_eq((tall["normal"], tall["pneumonia"]), tuple(np.bincount(films.labels[fold_of >= 0])))


# %% [markdown]
# What the members did, in words: the smaller the difference between a swapped number and the first, the less
# the networks lean on that property.

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
def _member_findings(
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
        f"With sharpness swapped: **{means.bands:.4f}**; with the frame swapped: **{means.frames:.4f}**.",
        f"With shape swapped: **{means['shape']:.4f}** (gap {table.shape_gap.iloc[0]})."]
    if table.weighted.notna().all(): lines.append(
        f"Weighted so that a film's appearance as a whole says little: **{means.weighted:.4f}**.")
    return "\n".join(f"- {line}" for line in [*lines, _tall_words(tall, means.auroc)])


# %%
assert "no number, since no network" in _tall_words(dict(auroc=None), .9)
assert "less than among all" in _tall_words(dict(normal=9, pneumonia=90, auroc=.8, low=.75, high=.85), .9)
print(_member_findings(table, histories, tall))


# %% [markdown]
# Later chapters find these numbers in `metrics/STAGE.json`.

# %%
#| export
def _examinations(
    table: pd.DataFrame, # from `fold_table`
    histories: pd.DataFrame,
    tall: dict,          # from `tall_markers`
) -> dict: # means by examination, the members' own, films with tall markers, seconds, parameters
    "What a stage keeps of its examinations."
    names = "auroc", "weighted", "swapped", "bands", "frames", "shape"
    means = {name: table[name].mean() for name in names}
    means["virus"] = table.get(_AGAINST_NORMAL.format("virus"), pd.Series(dtype=float)).mean()
    return dict(members=table.to_dict("records"), seconds=histories.groupby("member").seconds.sum().to_dict(),
                tall=tall, parameters=int(histories.parameters.iloc[0]), **means,
                shape_gap=table.shape_gap.iloc[0])


# %%
#| export
def examine_members(
    stage: Stage,
    films: Films,
    networks: dict[str, keras.Model],
    answers: pd.DataFrame,
    histories: pd.DataFrame,
    looks: pd.DataFrame, # marker and weight of each film, as exploration measured them
) -> tuple[pd.DataFrame, str]: # a row a member and fold; findings, markdown
    "Examine the members on the folds that they left out, and write metrics/STAGE.json."
    if looks.weight.isna().all(): note(stage, "too few patients to weight films by appearance.")
    table = fold_table(films, networks, answers, looks.weight.to_numpy(), stage.params["seed"],
                       stage.params["flip"])
    tall = tall_markers(films, answers, looks.marker.to_numpy())
    write_json(stage.path(f"metrics/{stage.name}.json"), _examinations(table, histories, tall))
    return table, _member_findings(table, histories, tall)


# %%
looks = pd.DataFrame(dict(marker=0., weight=np.nan), index=films.images.index)
examined, findings = examine_members(stage, films, networks, answers, histories, looks)
test_eq(len(examined), 4)
assert "no number, since no network" in findings
