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
# # One look and one vocabulary
#
# > Colours, names and words that mean one thing from the first chapter to the last, and how figures are kept

# %%
#| default_exp style

# %%
#| export
from pneumo_nb.run import BY_HAND, Stage, atomic_path, models, read_looks, read_provenance

# %%
#| hide
import tempfile

import matplotlib.pyplot as plt
import pandas as pd
from fastcore.test import test_eq
from pneumo_nb.run import open_stage

# %% [markdown]
# A reader should learn a colour once. The palette is Okabe and Ito's, chosen so that readers with any common
# colour blindness can tell its colours apart. Lines differ in dash as well, so that they survive a
# black-and-white printer. Orange-red is pneumonia, and bacterial pneumonia where the two kinds are shown
# apart.

# %%
#| export
CLASS_NAMES = ["NORMAL", "PNEUMONIA"]  # in the order of their labels, 0 and 1

class _Colours(dict):
    "Colours by name; a kind of film that is not in the public set has that of others."
    def __missing__(self, name): return self["other"]

COLOURS = _Colours({
    "NORMAL": "#0072B2", "PNEUMONIA": "#D55E00",                        # classes
    "normal": "#0072B2", "bacteria": "#D55E00", "virus": "#CC79A7",     # kinds of film
    "pneumonia": "#D55E00", "other": "#8B5A2B"})                        # no colour of its own

# %%
test_eq(COLOURS["fungus"], COLOURS["other"])
assert "fungus" not in COLOURS


# %% [markdown]
# ## Models
#
# A model's title, colour and dash stand in the declaration of the stage that trains it, and nowhere else. So
# a new model appears in every figure, table and legend without a change here. A name that no stage declares
# stands for itself, in a colour of its own.

# %%
#| export
def model_title(
    name: str, # a key of `models()`, or another name
) -> str:
    "How a model is called in text."
    return models().get(name, {}).get("title", name)


# %%
#| export
def title_with_remark(
    row: dict, # of the comparison: model, and maybe remark
) -> str: # such as "ResNet50, frozen (random weights)"
    "A model's title with what must be known beside it."
    title, remark = model_title(row["model"]), row.get("remark")
    has_remark = isinstance(remark, str) and remark   # an empty one is NaN when read from a file
    return f"{title} ({remark})" if has_remark else title


# %%
test_eq(title_with_remark(dict(model="mine", remark="random weights")), "mine (random weights)")
test_eq(title_with_remark(dict(model="mine", remark=float("nan"))), "mine")


# %%
#| export
def model_style(
    name: str, # of a model
) -> dict: # keywords for matplotlib's `plot`: color, ls
    "A model's line."
    look = models().get(name, {})
    return dict(color=look.get("colour", COLOURS["other"]), ls=look.get("dash", "-"))


# %%
#| export
def model_order(
    name: str, # of a model
) -> tuple: # to sort by
    "A model's place in the order of the study; names that no stage declares come last."
    order = list(models())
    return (order.index(name) if name in order else len(order), name)


# %%
test_eq(model_title("someone else's"), "someone else's")
test_eq(model_style("someone else's"), dict(color=COLOURS["other"], ls="-"))
test_eq(sorted([*reversed(models()), "zebra", "aardvark"], key=model_order), [*models(), "aardvark", "zebra"])


# %% [markdown]
# ## Kinds of film
#
# The public set holds normal films and two kinds of pneumonia. Other sets name their own.

# %%
#| export
def kind_words(
    kind: str, # of a film, as images.csv has it
) -> str: # such as "bacterial pneumonia"
    "What a kind of film is called in text."
    return dict(bacteria="bacterial pneumonia", virus="viral pneumonia").get(kind, kind)


# %%
#| export
def in_list(
    parts: list[str],
) -> str: # such as "a, b and c"
    "Several parts of a sentence, one after the other."
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)


# %%
test_eq([kind_words(kind) for kind in ("virus", "fungus")], ["viral pneumonia", "fungus"])
test_eq([in_list(list("abc")[:n]) for n in range(4)], ["", "a", "a and b", "a, b and c"])

# %% [markdown]
# ## Words for columns
#
# Keys are for code and column heads for people. A table is kept in CSV files with short keys such as
# `roc_auc`, and shown with the words that the field uses. This is the only list of such words.

# %%
#| export
WORDS = {
    "roc_auc": "AUROC", "auroc": "AUROC", "average_precision": "average precision",
    "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV",
    "f1": "F1", "f1_normal": "F1 normal", "f1_pneumonia": "F1 pneumonia", "mcc": "MCC",
    "brier": "Brier score", "ece": "ECE", "slope": "slope", "intercept": "intercept"}

# %% [markdown]
# Those were measures of a model. The next words are about comparisons, thresholds and groups of films:

# %%
#| export
WORDS |= {
    "low": "lower limit, 95 %", "high": "upper limit, 95 %", "rate": "called right",
    "delong": "AUROC, interval after DeLong", "validation_roc_auc": "AUROC on validation",
    "chosen": "chosen by", "chosen_threshold": "threshold chosen on validation",
    "chosen_accuracy": "accuracy at the threshold chosen on validation",
    "accuracy_fixed": "accuracy at the run's threshold", "when": "temperature",
    "ece_honest": "ECE that honest probabilities stay below",
    "threshold_Youden": "threshold, Youden", "accuracy_Youden": "accuracy, Youden",
    "threshold_sensitivity .95": "threshold, sensitivity .95",
    "threshold_sensitivity .98": "threshold, sensitivity .98",
    "accuracy_sensitivity .95": "accuracy, sensitivity .95",
    "accuracy_sensitivity .98": "accuracy, sensitivity .98",
    "validation_sensitivity": "sensitivity on validation",
    "validation_specificity": "specificity on validation",
    "auroc_difference": "AUROC, first − second", "accuracy_difference": "accuracy, first − second",
    "only_first": "only the first is right", "only_second": "only the second is right",
    "right_alone": "films one alone has right, first : second",
    "p_auroc": "p, DeLong", "p_auroc_holm": "p, DeLong, Holm", "p": "p, McNemar",
    "p_holm": "p, McNemar, Holm", "p_calls": "p, patients", "p_calls_holm": "p, patients, Holm"}

# %% [markdown]
# And the last ones are about films, training and the record of a run:

# %%
#| export
WORDS |= {
    "patient_id": "patient", "films_of_patient": "films of the patient", "label": "class",
    "most": "most films of a patient", "leaked": "same patient in train",
    "serious": "would spoil a result", "median": "middle",
    "found": "with a marker", "tall": "with a tall marker", "share": "share with a tall marker",
    "text": "with text", "text_share": "share with text",
    "lowest": "lowest number", "highest": "highest number",
    "weighted": "weighted by appearance", "swapped": "gray levels swapped", "bands": "sharpness swapped",
    "frames": "frame swapped",
    "shape": "shape swapped", "shape_gap": "gap of shape", "fold": "fold left out", "blind": "hits by chance",
    "random": "hits with random weights",
    "own_seed": "seed of its weights",
    "loss": "loss, train", "val_loss": "loss, validation", "val_auc": "AUROC, validation",
    "val_accuracy": "accuracy, validation", "learning_rate": "learning rate",
    "epochs": "epochs run", "training_seconds": "training, seconds",
    "networks": "trained", "uncalibrated": "probability before the temperature", "time": "time (UTC)"}


# %%
#| export
def readable(
    table, # DataFrame with keys for columns
): # DataFrame
    "The table with words for people as column heads and names of its index."
    return table.rename(columns=WORDS).rename_axis(index=WORDS, columns=WORDS)


# %%
scores = pd.DataFrame(dict(model=["CNN"], roc_auc=[.93], f1_normal=[.85], unheard_of=[1]))
test_eq(list(readable(scores)), ["model", "AUROC", "F1 normal", "unheard_of"])
readable(scores).style.hide(axis="index").format(precision=3)


# %% [markdown]
# A value stands with its 95 % interval, and a dash stands where there is no value.

# %%
#| export
def _missing(value) -> bool:
    "Whether a value is None or NaN."
    return value is None or value != value

def value_with_interval(
    row: dict,  # holds KEY, KEY_low and KEY_high
    key: str,
    digits: int = 4, # of the value; limits have three
) -> str: # such as "0.9300 (0.908–0.950)"
    "A value with its interval, for reading."
    if _missing(row.get(key)): return "–"
    value, low, high = f"{row[key]:.{digits}f}", row[f"{key}_low"], row[f"{key}_high"]
    if _missing(low): return value
    between = " to " if low < 0 else "–"
    return f"{value} ({low:.3f}{between}{high:.3f})"


# %%
row = dict(roc_auc=.93, roc_auc_low=.908, roc_auc_high=.95, mcc=.1, mcc_low=-.05, mcc_high=.25)
test_eq(value_with_interval(row, "roc_auc"), "0.9300 (0.908–0.950)")
test_eq(value_with_interval(row, "mcc", digits=2), "0.10 (-0.050 to 0.250)")
test_eq(value_with_interval(dict(ppv=.5, ppv_low=None, ppv_high=None), "ppv"), "0.5000")
test_eq(value_with_interval(dict(ppv=float("nan")), "ppv"), "–")


# %% [markdown]
# Of several trainings a table gives the mean and the range. One training has neither, so its value stands
# alone.

# %%
#| export
def mean_and_range(
    values, # Series, of trainings that differ by chance alone; NaN where undefined
) -> str: # such as "0.9730 (0.970–0.976)"
    "Mean and range; one value stands alone, and a dash where there is none."
    mean, count = values.mean(), values.count()
    if count == 0: return "–"
    return f"{mean:.4f}" if count == 1 else f"{mean:.4f} ({values.min():.3f}–{values.max():.3f})"


# %%
texts = [mean_and_range(pd.Series(values)) for values in ([.97, .976], [.97, float("nan")], [float("nan")])]
test_eq(texts, ["0.9730 (0.970–0.976)", "0.9700", "–"])


# %% [markdown]
# ## Counts
#
# A number stands with its word, in the singular where it is one.

# %%
#| export
def counted(
    number: int,
    word: str, # in the singular
) -> str: # such as "2 looks"
    "A number with its word."
    return f"{number:,} {word}" + ("" if number == 1 else "s")


# %%
test_eq([counted(n, "look") for n in (0, 1, 1200)], ["0 looks", "1 look", "1,200 looks"])


# %% [markdown]
# Looks at the test films are counted in the run's record, and in the ledger of all runs on the same films.
# Every text says both in these words.

# %%
#| export
def looks_by_runs(
    looks: list[dict], # of the ledger, from `read_looks`
) -> str: # such as "7 looks by 2 runs"
    "How many looks there were, how many runs took them, and how many were entered by hand."
    taken = [look for look in looks if look["stage"] != BY_HAND]
    runs, by_hand = counted(len({look["run"] for look in taken}), "run"), len(looks) - len(taken)
    total = counted(len(looks), "look")
    if not by_hand: return f"{total} by {runs}"
    if not taken: return f"{total}, entered by hand"
    return f"{total}, {len(taken):,} by {runs} and {by_hand:,} entered by hand"


# %%
#| export
def looks_in_words(
    folder, # a run directory
) -> str: # such as "1 look at the test films (in all 7 looks by 2 runs)"
    "How often a run looked at the test films, and, where more looks are known, all runs on the same films."
    provenance = read_provenance(folder)
    here, fingerprint = len(provenance.get("test_looks", [])), provenance.get("data_fingerprint")
    known = read_looks(fingerprint) if fingerprint else []
    others = f" (in all {looks_by_runs(known)})" if len(known) > here else ""
    return f"{counted(here, 'look')} at the test films{others}"


# %%
with tempfile.TemporaryDirectory() as folder:
    test_eq(looks_in_words(folder), "0 looks at the test films")
twice, earlier = [dict(run="a", stage="evaluation")] * 2, [dict(run="", stage=BY_HAND)] * 3
test_eq(looks_by_runs(twice), "2 looks by 1 run")
test_eq(looks_by_runs(earlier + twice), "5 looks, 2 by 1 run and 3 entered by hand")
test_eq(looks_by_runs(earlier), "3 looks, entered by hand")


# %%
#| export
def p_text(p: float) -> str:
    "A p-value for reading."
    return "< 0.001" if p < .001 else f"{p:.2g}"


# %%
test_eq([p_text(p) for p in (.00001, .0312, .8)], ["< 0.001", "0.031", "0.8"])


# %% [markdown]
# ## Figures

# %%
#| export
def plot_style():
    "Set matplotlib's defaults for the study's figures."
    import matplotlib.pyplot as plt
    plt.rcParams.update({
        "figure.dpi": 80, "figure.constrained_layout.use": True, "figure.facecolor": "white",
        "font.size": 11, "axes.titlesize": 12, "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": False, "legend.frameon": False, "image.cmap": "gray", "image.interpolation": "nearest"})


# %% [markdown]
# A figure is shown at twice the density of an ordinary screen. Its name, caption and alternative text travel
# in the notebook's output, where the report's site finds them. The alternative text says what is seen, for
# readers who use a screen reader. Noted, too, is where a figure shows films, since a page that is dark may
# turn the colours of a chart, and never those of a film.

# %%
#| export
def figure_png(
    figure,   # matplotlib Figure; closed afterwards
    alt: str, # what is seen, in words
) -> bytes:
    "A figure as a PNG of twice the density."
    import io
    import matplotlib.pyplot as plt
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=2 * plt.rcParams["figure.dpi"], metadata={"Description": alt})
    plt.close(figure)
    return png.getvalue()

def picture_boxes(figure) -> list[list[float]]: # left, top, right, bottom; shares of width and height
    "Where a drawn figure shows films, maps or their colour bars."
    shows = lambda ax: ax.images or hasattr(ax, "_colorbar")
    axes = [ax for ax in figure.axes if shows(ax)] if any(ax.images for ax in figure.axes) else []
    places = [ax.get_position() for ax in axes]
    return [[round(side, 4) for side in (p.x0, 1 - p.y1, p.x1, 1 - p.y0)] for p in places]

def show_figure(
    figure,       # matplotlib Figure; closed afterwards
    name: str,    # what links to it say, such as "eda_counts" in `#fig-eda_counts`
    caption: str, # what the figure is, one sentence
    alt: str,     # what is seen, in words
) -> bytes: # the PNG
    "Display a figure with its caption and alternative text."
    import matplotlib.pyplot as plt
    from IPython.display import Image, display
    png, width = figure_png(figure, alt), int(figure.get_figwidth() * plt.rcParams["figure.dpi"])
    about = dict(name=name, caption=caption, pictures=picture_boxes(figure))
    display(Image(data=png, width=width, alt=alt, metadata=about))
    return png


# %%
plot_style()
drawn, (films, chart) = plt.subplots(1, 2, figsize=(4, 2))
films.imshow([[0, 1]], aspect="auto")
chart.plot([0, 1])
figure_png(drawn, "A picture beside a chart.")
(left, top, right, bottom), = picture_boxes(drawn)
assert left < right < .5 and top < .1 and bottom > .8


# %% [markdown]
# `save_figure` writes the same bytes into the run. What the notebook shows and what the run keeps can thus
# never differ.

# %%
#| export
def save_figure(
    stage: Stage,
    figure,       # matplotlib Figure; closed afterwards
    name: str,    # file name without ending; begins with the stage's name
    caption: str, # what the figure is, one sentence
    alt: str,     # what is seen, in words
):
    "Write `figures/NAME.png` and display it with its caption and alternative text."
    png = show_figure(figure, name, caption, alt)
    with atomic_path(stage.path("figures", f"{name}.png")) as partial: partial.write_bytes(png)


# %% [markdown]
# [The figure](#fig-style_colours) is the key to all others: the kinds of film, then every model in the order
# of the study.

# %%
plot_style()
kinds = {kind: dict(color=COLOURS[kind], ls="-") for kind in ("normal", "bacteria", "virus")}
lines = kinds | {model_title(name): model_style(name) for name in models()}
figure, ax = plt.subplots(figsize=(5, 2.6))
for place, (label, style) in enumerate(lines.items()): ax.plot([0, 1], [-place, -place], lw=4, **style)
ax.set(yticks=[-place for place in range(len(lines))], yticklabels=lines, xticks=[])
with tempfile.TemporaryDirectory() as folder:
    stage = open_stage("eda", folder)
    save_figure(stage, figure, "style_colours", "Colours and dashes of the kinds of film and of the models.",
                f"A line in the colour and dash of each of: {', '.join(lines)}.")
    assert stage.path("figures/style_colours.png").stat().st_size > 1000
