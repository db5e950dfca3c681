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
# # Splits
#
# > Who goes into validation, and which films a fold leaves out: whole patients, always

# %%
#| default_exp splits

# %%
#| export
import warnings

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pneumo_nb.run import StudyError, rng_for
from pneumo_nb.style import counted
from pneumo_nb.films import with_series

# %%
#| hide
import tempfile
import matplotlib.pyplot as plt
from fastcore.test import test_eq, test_fail
from pneumo_nb.style import plot_style, readable, show_figure
from pneumo_nb.phantom import make_dataset
from pneumo_nb.films import scan_dataset
plot_style()


# %% [markdown]
# A model must be judged on children that it has not learned from. Films of one child are alike, so everything
# here moves whole patients. Four ways to set films aside follow, from the easiest question to the hardest.
#
# ## Who belongs together
#
# Two "patients" with a byte-identical film are taken for one, since one of the two must be misnamed. That
# joins patients in chains: whoever shares a film with a member of a group belongs to it.

# %%
#| export
def patient_groups(
    images: pd.DataFrame, # patient_id, and sha1 where it is known
) -> np.ndarray: # (n,) a number for each film's group
    "Patients, joined where they share a byte-identical film."
    films, keys = np.arange(len(images)), ["patient_id", "sha1"] if "sha1" in images else ["patient_id"]
    codes, start = [], len(images)  # a graph: films, and after them every patient and every content
    for key in keys:
        codes.append(pd.factorize(images[key])[0] + start)
        start = codes[-1].max(initial=start) + 1
    ends = np.tile(films, len(keys)), np.concatenate(codes)
    edges = coo_matrix((np.ones(len(ends[0])), ends), (start, start))
    return connected_components(edges, directed=False)[1][:len(images)]


# %%
chain = pd.DataFrame(dict(patient_id=["a", "a", "b", "c", "d"], sha1=["1", "2", "2", "3", "4"]))
groups = patient_groups(chain)
test_eq(groups[0], groups[2])           # a and b share film 2
test_eq(len(set(groups)), 3)            # a with b, c, d
test_eq(len(set(patient_groups(chain[["patient_id"]]))), 4)


# %% [markdown]
# ## Train, validation, test
#
# The test films stay as they were published. The 16 published `val` films are too few to steer anything, so
# they join train. Validation is then cut from train anew: 20 % of the films of each kind, by **whole
# patients** drawn by the seed. A random split by film would put many validation films next to another film of
# the same child in train; the chapter on the data counts how many.

# %%
#| export
def _draw_groups(
    groups: pd.Series, # of each film
    fraction: float,   # of the films, between 0 and 1
    rng: np.random.Generator,
) -> pd.Index: # of groups
    "Groups in random order; one is taken if that brings the share of films nearer to the fraction."
    sizes = groups.value_counts().sort_index()
    sizes = sizes.iloc[rng.permutation(len(sizes))]
    before = sizes.cumsum() - sizes
    return sizes.index[before + sizes / 2 <= fraction * len(groups)]


# %%
groups = pd.Series(np.repeat(np.arange(100), 3))   # a hundred patients with three films each
test_eq(len(_draw_groups(groups, .2, rng_for(1))), 20)
assert set(_draw_groups(groups, .2, rng_for(1))) != set(_draw_groups(groups, .2, rng_for(2)))


# %% [markdown]
# A patient who is in test and in train would be judged by a network that knows the child. The train films go,
# and a warning names the patients.

# %%
#| export
def _leaked(
    images: pd.DataFrame,
    group: pd.Series, # of each film
) -> pd.Series: # (n,) bool
    "Which films outside test show somebody who is in test."
    test = images.split == "test"
    return ~test & group.isin(set(group[test]))


# %%
#| export
def split_patients(
    images: pd.DataFrame,   # from `scan_dataset`
    fraction: float = 0.2,  # share of the train films of each kind that goes to validation
    seed: int = 42,
) -> pd.DataFrame: # the rows without leaked ones; split is train, validation or test
    "Cut validation from train by whole patients, stratified by kind; `val` films join train, test stays."
    if not 0 < fraction < 1:
        raise StudyError(f"Expected a validation fraction between 0 and 1, found {fraction}.")
    group, test = pd.Series(patient_groups(images), images.index), images.split == "test"
    leaked = _leaked(images, group)
    names = ", ".join(sorted(images.patient_id[leaked].unique())[:10])
    message = f"left out {counted(leaked.sum(), 'train film')} of patients who are in test: {names}"
    if names: warnings.warn(message, stacklevel=2)
    split = images.split.where(test, "train")
    for kind in sorted(images.kind.unique()):
        candidates = group[(images.kind == kind) & (split == "train") & ~leaked]
        chosen = _draw_groups(candidates, fraction, rng_for(seed, "validation", kind))
        split[group.isin(chosen) & ~test] = "validation"
    return images.assign(split=split)[~leaked]


# %%
with tempfile.TemporaryDirectory() as folder:
    images = scan_dataset(make_dataset(f"{folder}/set", n_train=120, n_test=30, seed=1))
parts = split_patients(images, seed=1)
counts = parts.groupby(["split", "kind"]).agg(films=("path", "size"), patients=("patient_id", "nunique"))
readable(counts.unstack("kind"))

# %%
test_eq(parts.groupby("patient_id").split.nunique().max(), 1)
test_eq(parts, split_patients(images, seed=1))
assert not parts.split.equals(split_patients(images, seed=2).split)
test_eq((parts.split == "test").sum(), 30)
test_fail(lambda: split_patients(images, fraction=1.5), contains="found 1.5")


# %% [markdown]
# ## Folds by chance
#
# A fold is a part of the films that a network leaves out and judges. Patients with a film in common stay
# together, in the lowest of their folds.

# %%
#| export
def _whole_patients(
    images: pd.DataFrame,
    fold: np.ndarray, # (n,) of each film, -1 for test films
) -> np.ndarray: # (n,) int
    "Folds in which each group of patients lies in one."
    first = pd.Series(fold).where(fold >= 0).groupby(patient_groups(images)).transform("min")
    return np.where(fold >= 0, first.fillna(-1), -1).astype(int)


# %%
test_eq(_whole_patients(chain, np.array([0, 0, 2, 1, -1])), [0, 0, 0, 1, -1])


# %% [markdown]
# `random_folds` deals patients out by chance, each kind by itself. Every fold is then like the others: its
# films are **exchangeable** with those that a network learns from.

# %%
#| export
def random_folds(
    images: pd.DataFrame, # kind, split and patient_id
    folds: int,           # 2 or more
    seed: int,
) -> np.ndarray: # (n,) fold of each film, 0 to folds - 1; -1 for test films
    "Folds of films that are not in test: whole patients by chance, each with about as many of every kind."
    if folds < 2: raise StudyError(f"Expected 2 folds or more, found {folds}.")
    fold, films = np.full(len(images), -1), images.reset_index(drop=True)
    groups = pd.Series(patient_groups(films))
    for kind, members in films[films.split != "test"].groupby("kind"):
        sizes = groups[members.index].value_counts().sort_index()
        sizes = sizes.iloc[rng_for(seed, "folds", kind).permutation(len(sizes))]
        place = (sizes.cumsum() - sizes / 2) * folds / len(members)
        fold[members.index] = groups[members.index].map(place.astype(int))
    return _whole_patients(images, fold)


# %%
sixty = pd.DataFrame(dict(patient_id=np.repeat(np.arange(30), 2), kind=["a"] * 40 + ["b"] * 20,
                          split=["train"] * 58 + ["test"] * 2))
dealt = sixty.assign(fold=random_folds(sixty, 2, 1))
counts = dealt[dealt.fold >= 0].groupby(["kind", "fold"]).size().unstack()
test_eq(dealt.fold[-2:].tolist(), [-1, -1])
test_eq(dealt.groupby("patient_id").fold.nunique().max(), 1)
assert (random_folds(sixty, 2, 2) != random_folds(sixty, 2, 1)).any()
test_fail(lambda: random_folds(sixty, 1, 1), contains="2 folds or more, found 1")
counts


# %% [markdown]
# ## Folds along the numbers
#
# The official test films are not a random draw. Within each naming series they are one or two stretches of
# consecutive numbers, as the chapter on exploration shows. They were probably taken at another time than most
# train films. A random validation set holds numbers from everywhere between those of train and feels nothing
# of that.
#
# `number_folds` cuts each series into as many stretches of consecutive patient numbers as there are folds. A
# fold is one stretch of every series. To validate on a fold is to meet films of numbers that training never
# saw. Where a table lists the films, the kinds stand for the series, and the patients are counted in the
# order of their names.

# %%
#| export
def _stretch_of(
    films: pd.DataFrame, # of one series, as `with_series` gives them
    count: int,          # how many stretches
) -> pd.Series: # indexed as `films`; 0 to count - 1
    "Which stretch of consecutive patient numbers a film lies in, each with about as many films."
    numbers = films.number
    sizes = films.groupby(numbers).size()
    middle = sizes.cumsum() - sizes / 2
    return numbers.map((middle * count / len(films)).astype(int))


# %%
few = pd.DataFrame(dict(path=[f"IM-{number:04d}-0001.jpeg" for number in (7, 1, 3, 3, 9, 8)]))
test_eq(_stretch_of(with_series(few), 2).tolist(), [1, 0, 0, 0, 1, 1])


# %%
#| export
def _outside_test(
    images: pd.DataFrame,
) -> pd.DataFrame: # indexed by place in `images`
    "The films to learn from, with their series and numbers."
    return with_series(images.reset_index(drop=True)[(images.split != "test").to_numpy()])


# %%
#| export
def number_folds(
    images: pd.DataFrame, # path, split and patient_id
    folds: int,           # 2 or more
) -> np.ndarray: # (n,) fold of each film, 0 to folds - 1; -1 for test films
    "Folds of films that are not in test: a stretch of consecutive numbers of each series, whole patients."
    if folds < 2: raise StudyError(f"Expected 2 folds or more, found {folds}.")
    fold, films = np.full(len(images), -1), _outside_test(images)
    for series, members in films.groupby("series"):
        count = members.number.nunique()
        if count < folds:
            raise StudyError(f"Expected patients of at least {folds} numbers in the series {series}, "
                             f"found {count}; ask for fewer folds.")
        fold[members.index] = _stretch_of(members, folds)
    return _whole_patients(images, fold)


# %% [markdown]
# Three folds of the phantoms. In each series one stretch of numbers follows the other:

# %%
outside = parts[parts.split != "test"]
numbered = with_series(outside).assign(fold=number_folds(outside, 3))
edges = numbered.groupby(["series", "fold"]).number.agg(["min", "max"]).unstack("fold")
for fold in (0, 1): assert (edges["max", fold] < edges["min", fold + 1]).all()
edges

# %%
test_eq(set(number_folds(parts, 3)[(parts.split == "test").to_numpy()]), {-1})
test_eq(numbered.groupby("patient_id").fold.nunique().max(), 1)
test_fail(lambda: number_folds(parts, 500), contains="ask for fewer folds")
test_fail(lambda: number_folds(parts, 1), contains="2 folds or more")


# %% [markdown]
# ## Folds across the naming series
#
# A harder question: does a model know a normal film when the normal films that it learned from came from the
# **other naming series**, of another time perhaps? Two naming series of normal films make two folds. To
# validate on one is to meet normal films of a series that training never saw.
#
# Films of a table have no naming series, so these folds are refused there.
#
# Pneumonia has no second series of its kind. So short stretches of its numbers are dealt out in turn: to
# these folds, and as many again to further folds without normal films, which need not be left out. With two
# series, each network of a fold learns from three quarters of the pneumonia films, but only from about half
# of the normal ones.

# %%
#| export
def series_folds(
    images: pd.DataFrame, # path, split, kind and patient_id
    stretches: int = 4,   # of each pneumonia series, for each fold
) -> np.ndarray: # (n,) fold of each film, those with normal films first; -1 for test films
    "A fold for each naming series of the normal films, and as many with pneumonia alone; whole patients."
    fold, films = np.full(len(images), -1), _outside_test(images)
    names = sorted(films.series[films.kind == "normal"].unique())
    if len(names) < 2:
        raise StudyError("Expected normal films of two naming series or more, "
                         f"found {', '.join(names) or 'none'}; take folds along the numbers instead.")
    count = 2 * len(names)
    for name, members in films.groupby("series"):
        if name in names: fold[members.index] = names.index(name)
        else: fold[members.index] = _stretch_of(members, stretches * count) % count
    return _whole_patients(images, fold)


# %%
numbered["across"] = series_folds(outside, stretches=2)
normal = numbered[numbered.kind == "normal"]
test_eq(normal.groupby("across").series.unique().map(list).to_dict(), {0: ["IM"], 1: ["NORMAL2-IM"]})
test_eq(numbered.groupby("patient_id").across.nunique().max(), 1)
one_series = outside[numbered.series != "IM"]
test_fail(lambda: series_folds(one_series), contains="found NORMAL2-IM; take folds along the numbers")
numbered.groupby(["across", "series"]).size().unstack(fill_value=0).rename_axis(index="fold")

# %% [markdown]
# ## Side by side
#
# [The figure](#fig-splits_along_numbers) shows which films one training does not learn from, in black. A
# random validation set is spread over all numbers. A fold along the numbers is a block of each series. A fold
# across the series holds one series of normal films, and short stretches of pneumonia.

# %%
left_out = {"random validation set": numbered.split == "validation",
            "first fold along the numbers": numbered.fold == 0,
            "first fold across the series": numbered.across == 0}
figure, axes = plt.subplots(1, 3, figsize=(12, 2.2), sharey=True)
for ax, (title, rows) in zip(axes, left_out.items()):
    ax.scatter(numbered.number[~rows], numbered.series[~rows], marker="|", s=120, color="#BBBBBB")
    ax.scatter(numbered.number[rows], numbered.series[rows], marker="|", s=120, color="black")
    ax.set(title=title, xlabel="patient number", ylim=(-.5, 3.5))
show_figure(
    figure, "splits_along_numbers", "Three ways to set phantoms aside, along the numbers of each series.",
    "Three panels with a row for each series. Black marks are scattered in the first, a block in each row of "
    "the second, and a whole row of normal films with short blocks of pneumonia in the third.");
