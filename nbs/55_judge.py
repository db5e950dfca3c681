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
# # The page of a judged hospital
#
# > What a detector is worth on films from elsewhere, on one page and in tables

# %%
#| default_exp judge

# %%
#| export
import base64, io, os, shutil, tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from pneumo_nb.run import StudyError, enter_judged, project_folder, read_looks, write_csv, write_json
from pneumo_nb.style import COLOURS, counted, value_with_interval
from pneumo_nb.measures import logit
from pneumo_nb.detector import Detector
from pneumo_nb.hospital import JUDGED, judge_films
from pneumo_nb.pages import fill, table_html

# %%
#| hide
from fastcore.test import test_eq
from pneumo_nb.style import plot_style
plot_style()

# %% [markdown]
# `pneumo judge` looks at the films of another hospital once, and says so in the ledger of looks. It writes a
# page that stands alone, and the tables behind it.
#
# ## In words

# %%
#| export
_WORDS = {"roc_auc": "AUROC", "accuracy": "accuracy", "sensitivity": "sensitivity",
          "specificity": "specificity", "ppv": "positive predictive value",
          "npv": "negative predictive value", "brier": "Brier score"}


# %%
#| export
def _rule_words(rule: str) -> str:
    "A rule's name for people."
    known = {"half": "fixed at .5", "youden": "Youden's rule"}
    return known.get(rule, rule.replace("sensitivity", "sensitivity ."))


# %%
test_eq([_rule_words(rule) for rule in ("half", "sensitivity95")], ["fixed at .5", "sensitivity .95"])


# %%
#| export
def _rule_rows(rules: pd.DataFrame) -> list[dict]: # from `judged_rules`
    "Measures at every threshold, for reading."
    return [{"threshold by": _rule_words(row["rule"]), "threshold": f"{row['threshold']:.3f}"}
            | {_WORDS[name]: value_with_interval(row, name, 3) for name in JUDGED if name != "roc_auc"}
            for row in rules.to_dict("records")]


# %%
#| export
def _group_rows(groups: pd.DataFrame) -> list[dict]: # from `judged_groups`
    "How many of each group are called right, for reading."
    return [{"films": row["group"], "number": f"{row['films']:,}",
             "called right": value_with_interval(row, "right", 3)} for row in groups.to_dict("records")]


# %%
#| export
def _comparison_rows(comparison: pd.DataFrame) -> list[dict]: # from `compare_with_own`
    "Here and on the detector's own test films, for reading."
    return [{"measure": _WORDS[row["measure"]],
             "own test films": f"{row['own']:.3f}", "here": f"{row['here']:.3f}",
             "difference": f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"}
            for row in comparison.to_dict("records")]


# %%
#| export
def _coverage_rows(coverage: pd.DataFrame) -> list[dict]: # from `coverage_table`
    "What conformal sets hold, for reading."
    return [{"true class": row["class"], "films": f"{row['films']:,}",
             "holds it": value_with_interval(row, "coverage", 3),
             "both": f"{row['both']:.1%}", "neither": f"{row['neither']:.1%}"}
            for row in coverage.to_dict("records")]


# %%
#| export
def _headline(judged: dict, rule: str) -> str: # `judged`: from `judge_films`
    "What it comes to in one sentence."
    row = judged["rules"].set_index("rule").loc[rule].to_dict()
    said = [f"{_WORDS[name]} {value_with_interval(row, name, 3)}" for name in
            ("roc_auc", "sensitivity", "specificity")]
    return f"{said[0]}; at the threshold by {_rule_words(rule)}, {said[1]} and {said[2]}."


# %%
#| export
def _films_words(answers: pd.DataFrame) -> str: # from `local_answers`
    "How many films, patients and flags."
    sick, flagged = int(answers.label.sum()), int((answers["flags"] != "").sum())
    patients = counted(answers.patient_id.nunique(), "patient")
    return (f"{counted(len(answers), 'film')} of {patients}, {sick:,} with pneumonia "
            f"({sick / len(answers):.1%}). {flagged:,} are flagged as unlike the films that the detector "
            f"learned from ({flagged / len(answers):.1%}); they count like all others.")


# %%
#| export
def _calibration_words(found: dict) -> str: # from `judged_calibration`
    "Whether probabilities can be believed."
    honest = "not more than" if found["ece"] <= found["ece_honest"] else "more than"
    line = [f"{name} {value_with_interval(found, name, 2)}" for name in ("slope", "intercept")]
    return (f"The expected calibration error is {found['ece']:.3f}, {honest} the {found['ece_honest']:.3f} "
            f"that honest probabilities reach by chance. Calibration has {line[0]} (perfect: 1) and "
            f"{line[1]} (perfect: 0). "
            "An intercept below 0 means that too much pneumonia is promised.")


# %%
#| export
def _plot_judged(answers: pd.DataFrame): # matplotlib Figure
    "ROC, and how probabilities lie in each class."
    import matplotlib.pyplot as plt
    from sklearn.metrics import roc_curve
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    wrong, found, _ = roc_curve(answers.label, answers.probability)
    left.plot(wrong, found, color=COLOURS["PNEUMONIA"], lw=2)
    left.plot([0, 1], [0, 1], color="gray", lw=.8, ls=":")
    left.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC", aspect="equal")
    bins = np.linspace(-8, 8, 33)
    for n, (name, title) in enumerate(dict(NORMAL="normal", PNEUMONIA="pneumonia").items()):
        right.hist(np.clip(logit(answers.probability[answers.label == n]), -8, 8), bins, color=COLOURS[name],
                   alpha=.6, label=title)
    right.set(xlabel="log odds of pneumonia", ylabel="films", title="Answers by true class")
    right.legend(fontsize=9)
    return figure


# %%
#| export
def _png(figure) -> dict: # figure (base64), width, height
    "A figure as a page takes it."
    import matplotlib.pyplot as plt
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=160)
    width, height = (round(side * 100) for side in figure.get_size_inches())
    plt.close(figure)
    return dict(figure=base64.b64encode(drawn.getvalue()).decode(), width=width, height=height)


# %%
#| export
_TITLES = {"rules": "How well it ranks and calls", "comparison": "Beside its own test",
           "groups": "By kind and flag", "calibration": "Can probabilities be believed?",
           "coverage": "Conformal sets"}
_SAID = {
    "rules": "The thresholds are those on the detector's card. In brackets 95 % intervals, "
             "patients redrawn.",
    "comparison": "At the threshold of that test. The films are others, so both uncertainties count.",
    "groups": "Called right at the chosen rule. In brackets 95 % intervals, patients redrawn.",
    "coverage": "The share of patients whose set holds the true class, and of films whose set says nothing. "
                "The limits promise 90 % on films like those learned from."}


# %%
#| export
def _sections(judged: dict) -> list[dict]: # of the template
    "Titles, text, tables and the figure of the page."
    from markupsafe import Markup
    table = lambda rows: Markup(table_html(rows)) if rows else ""
    own = _comparison_rows(judged["comparison"])
    figure = _png(_plot_judged(judged["answers"])) | dict(
        alt="ROC curve, and histograms of the log odds of pneumonia for normal and pneumonia films.")
    said = _SAID | dict(calibration=_calibration_words(judged["calibration"]))
    if not own: said["comparison"] = "Its run was not evaluated before it was bundled: nothing to compare."
    rows = dict(rules=_rule_rows(judged["rules"]), comparison=own, groups=_group_rows(judged["groups"]),
                calibration=[], coverage=_coverage_rows(judged["coverage"]))
    return [dict(title=_TITLES[name], text=said[name], table=table(rows[name]))
            | (figure if name == "rules" else {}) for name in _TITLES]


# %%
#| export
def judge_page(
    detector: Detector,
    judged: dict,  # from `judge_films`
    hospital: str, # what the films are called
    rule: str,
) -> str: # HTML that needs no other file
    "The page of a judged hospital."
    from markupsafe import Markup
    assets, card = project_folder()/"nbs/assets", detector.card
    read = lambda name: Markup((assets/name).read_text(encoding="utf-8"))
    left_out = [f"{path} was left out: {reason}." for path, reason in judged["left_out"].items()]
    if len(left_out) > 20: left_out[20:] = [f"And {len(left_out) - 20:,} more, named in judgement.json."]
    return fill("judge", styles=read("layout.css") + read("study.css"), script=read("sortable.auto.min.js"),
                hospital=hospital, detector=card["title"], digest=detector.digest,
                trained_on=card["trained_on"], headline=_headline(judged, rule), left_out=left_out,
                films=_films_words(judged["answers"]), sections=_sections(judged), not_for=card["not"])


# %% [markdown]
# ## The folder of a judgement
#
# The judgement goes into a folder: `index.html`, a CSV for each table, and `judgement.json` with the digest
# of the detector. Answers are named by files, never by what DICOM tags say of a patient.

# %%
#| export
def judge(
    detector: Detector,
    data_dir: str | Path,
    out: str | Path,             # folder to write
    films_csv: str | Path = "",
    rule: str = "sensitivity95",
    seed: int = 42,
    draws: int = 1000,
) -> Path: # the page
    "Judge a detector on the films of a hospital, write page and tables, and count the look."
    out, hospital = Path(out), Path(data_dir).resolve().name
    if out.exists() and any(out.iterdir()):
        raise StudyError(f"Expected an absent or empty folder for the judgement, found files in {out}; "
                         "give another --out.")
    judged = judge_films(detector, data_dir, films_csv, rule, seed, draws)
    enter_judged(judged["fingerprint"], hospital, detector.digest)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=out.parent))
    try:
        _write_judgement(partial, detector, judged, hospital, rule)
        partial.chmod(0o755)
        os.replace(partial, out)
    finally: shutil.rmtree(partial, ignore_errors=True)
    return out/"index.html"


# %%
#| export
def _write_judgement(folder: Path, detector: Detector, judged: dict, hospital: str, rule: str):
    "Write page, tables and facts into a folder."
    for name in ("answers", "rules", "groups", "coverage", "comparison"):
        write_csv(folder/f"{name}.csv", judged[name])
    page = judge_page(detector, judged, hospital, rule)
    (folder/"index.html").write_text(page + "\n", encoding="utf-8")
    kept = {name: judged[name] for name in ("fingerprint", "left_out", "calibration")}
    write_json(folder/"judgement.json", kept | dict(
        detector=detector.digest, title=detector.card["title"], rule=rule, hospital=hospital,
        looks=len(read_looks(judged["fingerprint"]))))
