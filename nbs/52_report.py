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
# # The report
#
# > A run's site: a landing page, its chapters, the operating point, methods and limits

# %%
#| default_exp report

# %%
#| export
import html, json, re
from pathlib import Path
from urllib.parse import quote

from pneumo_nb.run import (
    StudyError, atomic_path, digests, file_digest, project_folder, read_json, read_provenance, read_table,
    stage_words, stages)
from pneumo_nb.style import (
    WORDS, counted, figure_png, looks_in_words, model_order, model_style, model_title, value_with_interval)
from pneumo_nb.pages import (
    Figure, as_html, figure_cell, fill, finish_pages, front_matter, html_cell, place_figures, processed,
    render, stage_pages, staging_folder, table_html, with_front_matter)
from pneumo_nb.results import (
    EVALUATED, PUBLISHED, check_outputs, command_for, machine_words, results_rows)
from pneumo_nb.reporting import (
    abstract, checklists_of, data_card, facts_of, films_source, flow_figure, flow_words, is_public_test,
    judged_row, model_card, status_words)

# %%
#| hide
import tempfile
from unittest import mock
import nbformat
import nbformat.v4 as nb
from fastcore.test import test_eq, test_fail

# %% [markdown]
# A report should be true on its own. Someone who reads nothing else must find the question, the films, the
# results, what they are worth and what they are not. So every number on these pages is read from the run's
# files when the report is made; nothing is typed. Sentences that belong to one stage stand in its
# declaration.
#
# ## The films, in one table

# %%
#| export
_KINDS = {"normal": "normal", "bacteria": "bacterial pneumonia", "virus": "viral pneumonia"}


# %%
#| export
def _films_rows(folder: Path) -> list[dict]: # split, films, each kind, pneumonia, patients
    "How many films and patients are in each split; nothing if the run has no films."
    if not (folder/"images.csv").exists(): return []
    images = read_table(folder/"images.csv", ["split", "kind", "label", "patient_id"], ["label"])
    splits = [s for s in ("train", "validation", "test") if (images.split == s).any()]
    kinds = sorted(images.kind.astype(str).unique(), key=[*_KINDS, *sorted(images.kind)].index)
    parts = [(s, images[images.split == s]) for s in splits] + [("all", images)]
    return [_films_row(split, films, kinds) for split, films in parts]


# %%
#| export
def _films_row(split: str, images, kinds: list[str]) -> dict:
    "Films of one split by kind; own films may be of any."
    counts = images.kind.value_counts()
    by_kind = {_KINDS.get(kind, f"of kind {kind}"): f"{counts.get(kind, 0):,}" for kind in kinds}
    return {"split": split, "films": f"{len(images):,}", **by_kind,
            "pneumonia": f"{images.label.mean():.1%}", "patients": f"{images.patient_id.nunique():,}"}


# %%
#| export
def _markup(text: str): # markupsafe.Markup
    "HTML that a template takes as it is."
    from markupsafe import Markup
    return Markup(text)


# %%
#| export
def _stage_sentences(folder: Path, key: str) -> list: # of Markup
    "What the run's stages have to say; what several of them say, once."
    sentences = dict.fromkeys(stage_words(folder, name, key) for name in stages())
    return [_markup(text) for text in sentences if text]


# %% [markdown]
# What the checks call serious may make every number below worthless. It stands above the results, by name.

# %%
#| export
def _serious_problems(folder: Path) -> list[dict]: # problem, films, examples
    "What the checks found that would spoil a result."
    file = folder/"metrics/data_checks.csv"
    if not file.exists(): return []
    checks = read_table(file, ["problem", "films", "serious", "examples"], ["films"])
    serious = checks[(checks.films > 0) & (checks.serious.astype(str) == "True")].fillna({"examples": ""})
    return [dict(problem=row.problem, films=counted(row.films, "film"), examples=row.examples)
            for row in serious.itertuples()]


# %%
#| export
def _data_section(folder: Path) -> str: # HTML
    "What the films are, in words and in numbers."
    facts, rows = facts_of(folder, "metrics/data.json"), _films_rows(folder)
    table = table_html(rows, "Films and patients", sort_from=99) if rows else ""
    return fill("data", source=facts.get("source"), folder=Path(facts.get("root", "")).name,
                cautions=_stage_sentences(folder, "data_remark"), table=_markup(table),
                problems=_serious_problems(folder))


# %%
with tempfile.TemporaryDirectory() as folder:
    (Path(folder)/"metrics").mkdir()
    (Path(folder)/"metrics/data_checks.csv").write_text(
        "problem,films,serious,examples\nsame bytes in two splits,1,True,a<b>.png\nhidden file,3,False,\n"
        "cut short,0,True,\n")
    shown = _data_section(Path(folder))
test_eq(re.findall("<li>(.*?)</li>", shown), ["same bytes in two splits: 1 film (a&lt;b&gt;.png)"])


# %% [markdown]
# ## The results

# %%
#| export
def _results_section(folder: Path) -> str: # HTML
    "The comparison, if the run has one, beside trainings of a kind and published results."
    from pneumo_nb.evaluation import comparison_table
    if not (folder/"comparison.csv").exists(): return fill("results", table="")
    comparison = read_table(folder/"comparison.csv", ["model", "roc_auc"], ["roc_auc"])
    first, split = comparison.iloc[0], read_json(folder/"metrics/evaluation.json")["split"]
    caption = f"The models on {first.films:,} {split} films"
    rows = comparison_table(comparison, is_brief=True).to_dict("records")
    table = table_html(rows, caption, sort_from=2)
    return fill("results", table=_markup(table), threshold=first.threshold,
                share=(first.fn + first.tp) / first.films, cautions=_stage_sentences(folder, "caution"),
                spread=_markup(_spread_section(folder)), published=_markup(_published_table(folder)),
                looks=looks_in_words(folder))


# %%
#| export
def _spread_section(folder: Path) -> str: # HTML
    "Mean and range over trainings of a kind."
    rows = [{k: v for k, v in row.items() if k not in ("training", "parameters")}
            for row in results_rows(folder) if row["trained"].endswith("apart")]
    caption = ("Mean and range over trainings that differ by seed, or seed and fold; accuracies with a "
               "rule's name are at the threshold that it chose on validation")
    return table_html(rows, caption, sort_from=99) if rows else ""

def _published_table(folder: Path) -> str: # HTML
    "Published results, where they are on the same films."
    if not is_public_test(folder): return ""
    rows = [{"who": who, "AUROC": "–" if auroc is None else f"{auroc:.3f}", "accuracy": f"{accuracy:.3f}",
             "the epoch was chosen on": chosen} for who, (auroc, accuracy, chosen) in PUBLISHED.items()]
    table = table_html(rows, "Published results on these test films", sort_from=1)
    return table + _paragraph(_PUBLISHED_WORDS)

_PUBLISHED_WORDS = """A selection, and no ranking: size and preparation of the films differ, few papers give
intervals, and on so few films those of the better rows overlap. A network whose epoch was chosen on the test
films looks better there than it is."""


# %% [markdown]
# ## What ran
#
# Which code, on which machine, with which parameters, how long, and what it had to say.

# %%
#| export
def _records(folder: Path) -> list: # pairs of name and record
    "Records of stages in the study's order, whenever they ran."
    done = read_provenance(folder)["stages"]
    return [(name, done[name]) for name in stages() if name in done]


# %%
#| export
def _parameters_section(folder: Path) -> str: # HTML
    "Every stage with its parameters and costs."
    listed = lambda params: html.escape(", ".join(f"{k} = {v}" for k, v in params.items()))
    memory = lambda record: f"{record['peak_memory_mb']:,} MB" if record["peak_memory_mb"] else "–"
    rows = [{"stage": name, "seconds": f"{record['seconds']:,.1f}", "peak memory": memory(record),
             "parameters": listed(record["parameters"])} for name, record in _records(folder)]
    table = table_html(rows, "Stages, their costs and parameters", escape=False, sort_from=99) if rows else ""
    return re.sub(r"<td>(?=[^<]* = )", '<td class="words">', table)


# %%
#| export
def _provenance_section(folder: Path) -> str: # HTML
    "Code, machine, packages, films, and the notes that stages left."
    provenance, records = read_provenance(folder), _records(folder)
    if not records: return ""
    of_stages, machine = [record for _, record in records], records[-1][1]["machine"]
    facts = {"code, commit": ", ".join(dict.fromkeys(record["git_commit"] for _, record in records)),
             "films, fingerprint": provenance.get("data_fingerprint", "–"),
             "begun": min(record["started"] for _, record in records),
             "machine": f"{machine['processor']}, {machine_words(of_stages)}, {machine['system']}",
             "packages": ", ".join(f"{k} {v}" for k, v in records[-1][1]["versions"].items())}
    notes = [(name, text) for name, record in records for text in record["notes"]]
    return fill("provenance", facts=facts, notes=notes, looks=provenance.get("test_looks", []))


# %% [markdown]
# ## One figure a chapter
#
# The landing page shows, for each chapter, the figure that its stage names, and one film with its
# explanation.

# %%
#| export
def _card_figure(page: str, figures: dict[str, Figure]) -> Figure | None:
    "The figure that stands for a chapter: the first of those that its stage names, else the chapter's first."
    on_page = {name: figure for name, figure in figures.items() if figure.page == page}
    stage = stages().get(Path(page).stem)
    wanted = [name for name in (stage.card if stage else []) if name in on_page]
    return on_page[wanted[0]] if wanted else next(iter(on_page.values()), None)


# %%
#| export
def _chapter_cards(
    chapters: list[dict],       # front matter of each
    figures: dict[str, Figure], # of the site
) -> str: # HTML
    "The chapters, each with its blurb and its telling figure."
    return fill("cards", cards=[_card(about, figures) for about in chapters])

def _card(about: dict, figures: dict[str, Figure]) -> dict:
    "What the card of one chapter shows."
    page, blurb = about["output-file"], _markup(as_html(about.get("description", "")))
    return dict(page=page, title=about["title"], blurb=blurb, figure=_card_figure(page, figures))


# %%
plot = lambda name: Figure(name, "1.1", "eda.html", "Films", "Films", 4, 2)
plots = {name: plot(name) for name in ("eda_counts", "eda_samples")}
test_eq(_card_figure("eda.html", plots).name, "eda_samples")   # which the stage names
test_eq(_card_figure("methods.html", plots), None)


# %% [markdown]
# ## The first screen
#
# A reader who stays for a minute should see what came out: a sentence, a film with its map, the ROC curves
# and four numbers, and what they are worth.

# %%
#| export
def _headline(folder: Path) -> str:
    "What came out, in one sentence."
    row = judged_row(folder)
    if not row: return "What was asked, and what came out"
    kind = "phantoms" if films_source(folder) == "phantoms" else f"{row['split']} films"
    films = f"{row['films']:,} {kind}"
    who = f"the {model_title(row['model'])}"
    if row["roc_auc"] is None: return f"On {films} of one class {who} calls {row['accuracy']:.0%} right"
    return (f"On {films} {who} tells pneumonia from normal with AUROC "
            f"{value_with_interval(row, 'roc_auc', 3)}")


# %%
#| export
def _large_numbers(folder: Path) -> list[dict]: # what, value, more
    "Four figures in large type."
    row, films = judged_row(folder), _films_rows(folder)
    measures = ("roc_auc", "sensitivity", "specificity") if row else ()
    limits = lambda key: value_with_interval(row, key, 3).partition(" ")[2].strip("()")
    numbers = [dict(what=WORDS[key], value=value_with_interval(row, key, 3).split(" ")[0], more=limits(key))
               for key in measures]
    if not films: return numbers
    drawn = "drawn, " if films_source(folder) == "phantoms" else ""
    return numbers + [dict(what="films", value=films[-1]["films"],
                           more=f"{drawn}of {films[-1]['patients']} patients")]

def _worth(folder: Path) -> list[str]: # sentences
    "What the numbers are worth, in two sentences."
    if not judged_row(folder): return []
    calls = _best_sentences(read_json(folder/"metrics/evaluation.json"))[0]
    films = ("The films are drawn phantoms, so these numbers show that the study works and say nothing about "
             "real films." if films_source(folder) == "phantoms" else
             "All films come from one set; nothing is known about films of another hospital.")
    return [calls, films]


# %%
#| export
def _hero(folder: Path, figures: dict[str, Figure]) -> str: # HTML
    "The first screen of a report."
    shown = {name: fill("linked", figure=figures[name]) for name in ("xai_first", "evaluation_roc")
             if name in figures}
    return fill("hero", film=shown.get("xai_first"), roc=shown.get("evaluation_roc"),
                numbers=_large_numbers(folder), worth=_worth(folder),
                runs="../../index.html" if folder.resolve().parent.name == "runs" else None)


# %% [markdown]
# ## The conclusion
#
# A few sentences, each made from a number in the run's files.

# %%
#| export
def _conclusion(
    folder: Path, # an evaluated run
) -> list[str]: # sentences
    "What the run as a whole shows."
    facts = read_json(folder/"metrics/evaluation.json")
    lines = [*_best_sentences(facts), *_difference_sentences(facts["pairs"]), *_shift_sentences(folder),
             *_size_sentences(facts_of(folder, "metrics/eda_sizes.json")), *_frame_sentences(folder)]
    return lines + ([] if facts["split"] == "test" else [_NO_TEST])

_NO_TEST = ("There were no test films: these numbers come from validation films, which also chose epoch or "
            "temperature, and are too kind.")

# %%
#| export
_SENTENCES = dict(
    calls="At a threshold of {threshold:g} {who} finds {tp} of {sick} pneumonia films and calls {fp} of "
          "{well} normal films pneumonia.",
    order="AUROC from the highest to the lowest (0.5 is guessing, 1 is perfect): {}.",
    one_class="The films that are judged are all of one class, so there is no AUROC.",
    below="{} ranks films worse than chance: its AUROC is {roc_auc:.3f} ({roc_auc_low:.3f} to "
          "{roc_auc_high:.3f}), all below 0.5.",
    upside_down="{} ranks every pair of films the wrong way round: its AUROC is 0.")


# %%
#| export
def _best_sentences(facts: dict) -> list[str]:
    "What the first model calls right, and all in their order."
    row = next(row for row in facts["comparison"] if row["model"] == facts["best"])
    defined = [row for row in facts["comparison"] if row["roc_auc"] is not None]
    who = ("the model with the highest AUROC, {}," if defined else "{}").format(model_title(row["model"]))
    counts = row | dict(who=who, sick=row["tp"] + row["fn"], well=row["fp"] + row["tn"])
    calls = _SENTENCES["calls"].format(**counts | dict(threshold=facts["threshold"]))
    if not defined: return [calls, _SENTENCES["one_class"]]
    rows = sorted(defined, key=lambda row: -row["roc_auc"])
    listed = ", ".join(f"{model_title(row['model'])} {row['roc_auc']:.3f}" for row in rows)
    return [calls, _SENTENCES["order"].format(listed), *_below_sentences(rows)]


# %%
#| export
def _below_sentences(rows: list[dict]) -> list[str]: # `rows`: of the comparison, with an AUROC
    "Models that are worse than guessing by more than chance."
    lines = []
    for row in rows:
        is_below = row["roc_auc_high"] is not None and row["roc_auc_high"] < .5
        key = "upside_down" if row["roc_auc"] == 0 else "below" if is_below else None
        if key: lines.append(_SENTENCES[key].format(model_title(row["model"]), **row))
    return lines


# %%
mine = dict(model="mine", roc_auc=.3, roc_auc_low=.2, roc_auc_high=.4, tp=1, fn=2, fp=3, tn=4)
sentences = lambda **change: _best_sentences(dict(comparison=[mine | change], best="mine", threshold=.5))
assert sentences()[0].endswith("mine, finds 1 of 3 pneumonia films and calls 3 of 7 normal films pneumonia.")
test_eq(sentences()[2],
        "mine ranks films worse than chance: its AUROC is 0.300 (0.200 to 0.400), all below 0.5.")
test_eq(sentences(roc_auc_high=.6)[2:], [])
test_eq(sentences(roc_auc_high=None)[2:], [])   # one patient has no interval
assert "wrong way round" in sentences(roc_auc=0)[2] and "all of one class" in sentences(roc_auc=None)[1]


# %% [markdown]
# Pairs of models are counted as the chapter on evaluation counts them: different in AUROC or in calls.

# %%
#| export
def _difference_sentences(pairs: list[dict]) -> list[str]:
    "How many pairs of models differ, in AUROC or in calls."
    if not pairs: return []
    from pneumo_nb.measures import pair_differences
    number = lambda value: float("nan") if value is None else value   # as JSON holds what is undefined
    rows = [{key: number(value) for key, value in pair.items()} for pair in pairs]
    differing = sum(bool(pair_differences(row)) for row in rows)
    others = "" if differing in (0, len(pairs)) else " The others cannot be told apart on these films."
    return [f"Of {counted(len(pairs), 'pair')} of models, {differing or 'none'} "
            f"{'differ' if differing > 1 else 'differs'} by more than chance, in AUROC or in right and wrong "
            f"calls at this threshold (both tested over patients and corrected after Holm).{others}"]


# %%
tests = ((.3, 1), (.01, 1), (None, .01))
alike, in_auroc, in_calls = (dict(p_auroc_holm=auroc, p_calls_holm=calls) for auroc, calls in tests)
assert _difference_sentences([alike, in_auroc, in_calls])[0].startswith("Of 3 pairs of models, 2 differ by")
assert _difference_sentences([alike])[0].startswith("Of 1 pair of models, none differs by")


# %%
#| export
def _shift_rows(folder: Path) -> list[dict]: # model, AUROC on validation and on test
    "How much better each model looks on validation than on test."
    if facts_of(folder, "metrics/evaluation.json").get("split") != "test": return []
    comparison = read_table(folder/"comparison.csv").dropna(subset=["roc_auc", "validation_roc_auc"])
    return [{"model": model_title(row.model), "AUROC, validation": f"{row.validation_roc_auc:.4f}",
             "AUROC, test": f"{row.roc_auc:.4f}",
             "difference": f"{row.roc_auc - row.validation_roc_auc:+.4f}"}
            for row in comparison.itertuples()]


# %%
#| export
def _shift_sentences(folder: Path) -> list[str]:
    "Whether all models did less well on test."
    rows = _shift_rows(folder)
    if not rows or not all(row["difference"].startswith("-") for row in rows): return []
    return ["Every model did less well on test than on validation films, so less should be expected of films "
            "from elsewhere."]


# %%
#| export
def _size_sentences(size: dict) -> list[str]: # `size`: from the exploration, or {}
    "What size and shape of the films give away."
    from pneumo_nb.measures import is_above_chance
    if not size or size["constant"] or not size["auroc"]: return []
    meaning = ("the part of a score that needs no lung." if is_above_chance(size["auroc"], size["low"]) else
               "which is not reliably above guessing.")
    return [f"Size and shape of the films alone reach an AUROC of {size['auroc']:.3f} on train and "
            f"validation films, {meaning}"]


# %%
wide = dict(constant=False, auroc=.9, low=.8)
for size in (wide, wide | dict(auroc=1., low=None)):
    assert _size_sentences(size)[0].endswith("the part of a score that needs no lung.")
test_eq(_size_sentences({}), [])


# %%
#| export
def _frame_sentences(folder: Path) -> list[str]: # one or none
    "What a classifier that sees only the frame of a film reaches, as the exploration found."
    from pneumo_nb.measures import is_above_chance
    if not (folder/"metrics/without_lungs.csv").exists(): return []
    answers = read_table(folder/"metrics/without_lungs.csv", ["asked", "classifier", "auroc", "low"])
    rows = {row.asked: row for row in answers[answers.classifier == "outer frame"].itertuples()}
    if "others" not in rows: return []
    is_told = is_above_chance(rows["others"].auroc, rows["others"].low)
    test = f", and of {rows['test'].auroc:.3f} on test films" if "test" in rows else ""
    return ["A classifier that sees only the outermost tenth of a film on each side reaches an AUROC of "
            f"{rows['others'].auroc:.3f} on train and validation films{test}: "
            + ("so much needs no lung." if is_told else "that is not reliably above guessing.")]


# %%
with tempfile.TemporaryDirectory() as folder:
    test_eq(_frame_sentences(Path(folder)), [])
    (Path(folder)/"metrics").mkdir()
    (Path(folder)/"metrics/without_lungs.csv").write_text(
        "asked,classifier,auroc,low\nothers,outer frame,.97,.96\ntest,outer frame,.9,.87\n")
    words = _frame_sentences(Path(folder))[0]
assert "0.970 on train and validation films, and of 0.900 on test films: so much needs no lung" in words

# %% [markdown]
# ## The landing page

# %%
#| export
_QUESTION = """Can a network tell from a frontal chest X-ray whether a child has pneumonia, how sure can we be
of the answer, and what does the network look at? Networks of several kinds are trained on films of some
children, judged on films of others, and explained by maps, which are checked in turn."""

_LIMITS_WORDS = """<p class="text">One test set, films squashed to a square, no films of another hospital: the
chapter on <a href="methods.html">methods and limits</a> says what that means. This is a study, not a medical
device.</p>"""

# %% [markdown]
# A chapter is **stale** where a file that it read has changed since. The first page and the chapter's head
# say so, with the command that renews it. The folder of films is not asked: a report may be made elsewhere.

# %%
#| export
_STALE = "The chapter {stage} is older than what it reads: {changed} since. To renew it, do `{command}`."

def _stale_sentences(folder: Path) -> dict[str, str]: # stage → sentence, in the study's order
    "Which chapters read files that have changed since."
    sentences = {}
    for name, record in _records(folder):
        before = {file: digest for file, digest in record["inputs"].items() if file != "data_dir"}
        now = digests(folder, stages()[name].reads)
        changed = [file for file in sorted({*before, *now}) if before.get(file) != now.get(file)]
        if not changed: continue
        more = f" and {counted(len(changed) - 1, 'other file')}" if changed[1:] else ""
        words = f"{changed[0]}{more} changed"
        sentences[name] = _STALE.format(stage=name, changed=words, command=command_for(folder, name))
    return sentences


# %%
#| export
def _stale_section(folder: Path) -> str: # HTML; "" where every chapter is up to date
    "The stale chapters of a run, for the first page."
    return "\n".join(f'<p class="text">{as_html(text)}</p>' for text in _stale_sentences(folder).values())


# %%
#| export
def _mark_stale(folder: Path, chapters: dict): # file name → notebook, changed in place
    "Say at the head of each stale chapter that it is."
    from nbformat import v4
    for name, sentence in _stale_sentences(folder).items():
        notebook = chapters.get(f"{stages()[name].notebook}.ipynb")
        if notebook is not None: notebook.cells.insert(1, v4.new_markdown_cell(f"**{sentence}**"))


# %%
#| export
def _landing_page(
    folder: Path,
    chapters: list[dict], # front matter of each
    figures: dict[str, Figure],
): # nbformat notebook
    "The first page of a report."
    evaluated = (folder/"metrics/evaluation.json").exists()
    closing = fill("sentences", sentences=_conclusion(folder)) if evaluated else ""
    parts = {"Chapters to renew": _stale_section(folder), "Question": _paragraph(_QUESTION),
             "Data": _data_section(folder), "Results": _results_section(folder), "Conclusion": closing,
             "Chapters": _chapter_cards(chapters, figures), "Limits": _LIMITS_WORDS,
             "Parameters": _folded("Stages, their costs and parameters", _parameters_section(folder)),
             "Provenance": _folded("Code, machine, packages, films and looks", _provenance_section(folder))}
    cells = [html_cell(_hero(folder, figures)), *_sections(parts)]
    return with_front_matter(cells, "Pneumonia on chest X-rays", _headline(folder), "index.html")


# %%
#| export
def _folded(title: str, body: str) -> str: # HTML
    "A part of a page behind a line to click on; nothing where it is empty."
    return fill("folded", title=title, body=_markup(body)) if body else ""


# %%
#| export
def _paragraph(text: str) -> str: # HTML
    return f'<p class="text">{html.escape(text)}</p>'


# %%
#| export
def _sections(parts: dict[str, str]) -> list: # nbformat cells
    "Headings with what stands below them; those without anything are left out."
    from nbformat import v4
    named = [(heading, text) for heading, text in parts.items() if text]
    pairs = [(v4.new_markdown_cell(f"## {heading}"), html_cell(text)) for heading, text in named]
    return [cell for pair in pairs for cell in pair]


# %% [markdown]
# ## The operating point
#
# A model gives probabilities; a clinic needs a yes or no. Where to put the threshold depends on what a missed
# child and a false alarm cost, and on how many children are sick. One page lets a reader move both and see
# what happens to the films of this run. It counts as `classification_metrics` does. The curves are drawn by
# [Observable Plot](https://observablehq.com/plot/), which lies in the site's `assets/`, so the page works
# without a network. Before any script has run, it shows the run's own threshold.

# %%
#| export
def _operating_models(folder: Path) -> list[dict]: # name, title, colour, label, probability
    "Labels and probabilities of the films that each model is judged on."
    from pneumo_nb.evaluation import test_films
    from pneumo_nb.measures import read_predictions
    files = sorted((folder/"predictions").glob("*.csv"), key=lambda file: model_order(file.stem))
    if not files: return []
    _, tables = test_films({file.stem: read_predictions(file) for file in files})
    look = lambda name: dict(name=name, title=model_title(name), colour=model_style(name)["color"])
    return [look(name) | dict(label=table.label.tolist(), probability=table.probability.tolist())
            for name, table in tables.items()]

_RATES = {"sensitivity": ("sensitivity: pneumonia films called pneumonia", "recall_pneumonia"),
          "specificity": ("specificity: normal films called normal", "recall_normal"),
          "accuracy": ("accuracy: films called right", "accuracy"),
          "ppv": ("positive predictive value (PPV): called pneumonia and right, at this prevalence",
                  "precision_pneumonia"),
          "npv": ("negative predictive value (NPV): called normal and right, at this prevalence",
                  "precision_normal")}


# %%
#| export
def _operating_numbers(model: dict, threshold: float) -> dict: # counts, rates
    "Confusion matrix and rates, as they are before any script runs."
    from pneumo_nb.measures import classification_metrics
    metrics = classification_metrics(model["label"], model["probability"], threshold)
    percent = lambda value: "undefined" if value != value else f"{100 * value:.2f} %"
    (tn, fp), (fn, tp) = metrics["confusion_matrix"]
    return dict(counts=dict(tn=tn, fp=fp, fn=fn, tp=tp),
                rates=[(key, words, percent(metrics[measure])) for key, (words, measure) in _RATES.items()])


# %%
#| export
def _operating_page(folder: Path): # nbformat notebook, or None without predictions
    "The page on which a reader moves the threshold."
    models = _operating_models(folder)
    if not models: return None
    evaluated = facts_of(folder, "metrics/evaluation.json")
    models.sort(key=lambda model: model["name"] != evaluated.get("best"))   # the page opens on the first
    threshold = evaluated.get("threshold", .5)
    prevalence = 100 * sum(models[0]["label"]) / len(models[0]["label"])
    data = json.dumps(models).replace("<", "\\u003c")
    body = fill("operating_point", models=models, threshold=threshold, prevalence=prevalence,
                data=_markup(data), **_operating_numbers(models[0], threshold))
    blurb = "Move the threshold, and see which films are found, missed and falsely called"
    return with_front_matter([html_cell(body)], "Operating point", blurb, "operating_point.html")


# %% [markdown]
# ## Methods and limits
#
# What a reader must know before believing a number, with the run's own facts where there are any.

# %%
#| export
_LIMITS = {
    "who is on a film": """Patients are inferred from the names of files. If two names mean one
        child, films of that child may lie on both sides of a split.""",
    "whose films": """The public films show children of one to five years from one hospital in
        Guangzhou. Nothing here says how a model does on adults, other hospitals, other machines.""",
    "the label": """Two physicians graded each film, a third checked the test films; poor films had
        been removed before. So a model is compared with readers of the same film, not with a
        culture or the course of the disease, and their disagreement is not in the numbers.
        Bacterial and viral pneumonia often look alike on a film.""",
    "other disease": """A film here is normal or pneumonia. There are no films with only a pleural
        effusion, a collapsed lung, heart failure, tuberculosis or a foreign body, so nothing is
        known about how a model calls them.""",
    "how films were taken": """Age within one to five years, sex, position, exposure, tubes and
        electrodes are not recorded. The sicker child is more often filmed lying down and with
        lines; a model may score by that.""",
    "the form of the film": """Originals differ in size and aspect between the classes, and
        squashing turns that into the shape of the chest. A model may score by it; on copies that
        were squashed before, nothing can measure how much.""",
    "validation is too kind": """Test films are other stretches of the patient numbers and look
        different, as the chapter on exploration measures. Validation drawn at random from train
        does not feel that, and where a network keeps its best epoch, validation chose it. Folds
        across the naming series or along the numbers feel some of it.""",
    "chance": """Intervals hold the chance of which patients were tested, not that of the training.
        Where several networks differ by seed, or seed and fold, alone, their range is given; the
        others were trained once.""",
    "looking again": """Each look at the test films is a chance to tune to them. The record counts
        the looks of this run, not those of earlier runs or of others who published on the same
        films.""",
    "prevalence": """Pneumonia is probably more common in these films than among children sent for a
        chest film. Accuracy and the predictive values depend on that. Sensitivity and specificity
        stay only if the pneumonias are as marked and the other children as well as here.""",
}

# %%
#| export
_DEVICE = """<p class="text"><strong>None of this is a medical device.</strong> No child should be treated, or
sent home, by these models.</p>"""

def _methods_page(folder: Path): # nbformat notebook
    "How it was done, and what the numbers cannot say."
    rows = [{"limit": name, "what it means": " ".join(text.split())} for name, text in _LIMITS.items()]
    table = table_html(rows, "What these numbers cannot say", sort_from=99)
    table = table.replace("<td>", '<td class="words">')
    phantoms = films_source(folder) == "phantoms"
    shift, caption = _shift_rows(folder), "AUROC of each model on validation and on test films"
    parts = {"Methods": fill("methods", stages=_stage_sentences(folder, "methods")),
             "Limits": fill("limits", phantoms=phantoms, table=_markup(table)),
             "Validation and test in this run": table_html(shift, caption, sort_from=99) if shift else "",
             "Use": _DEVICE}
    blurb = "How it was done, and what the numbers cannot say"
    return with_front_matter(_sections(parts), "Methods and limits", blurb, "methods.html")


# %% [markdown]
# ## What a reviewer asks
#
# One page answers three checklists, below an abstract. Another holds the data card and the card of the model
# with the highest AUROC. The notebook of that name makes both from the run's files.

# %%
#| export
def _titled(parts: list[tuple[str, str]]) -> str: # HTML; `parts`: heading, sentences
    "Short paragraphs that begin with their heading."
    return "\n".join(f'<p class="text"><strong>{html.escape(heading)}.</strong> {as_html(text)}</p>'
                     for heading, text in parts)

_LISTS_HEAD = """Each row is a point of a list, in this project's words, with what there is. A list asks
whether something is told, not whether it is good."""
_LISTS_PHANTOMS = """This run used drawn phantoms. What is said of children, hospital and graders is said of
the public set (Kermany et al., 2018), and does not apply to them."""
_LISTS_OTHERS = """What is said of children, hospital and graders is said of the public set (Kermany et al.,
2018); of other films their owner must say it."""


# %%
#| export
def _list_row(point: dict, titles: dict[str, str]) -> dict: # cells are HTML; `titles`: page → title
    "One point of a checklist."
    page = point["where"].split("#")[0]
    link = f'<a href="{point["where"]}">{html.escape(titles.get(page, page))}</a>' if page else "–"
    shown = {key: html.escape(point[key]) for key in ("item", "asks", "status", "words")}
    return {"item": shown["item"], "what it asks": shown["asks"], "status": shown["status"], "where": link,
            "what there is": shown["words"]}


# %%
shown = _list_row(dict(item="10a", asks="a & b", status="in part", where="eda.html", words="Some."),
                  {"eda.html": "Exploration"})
test_eq((shown["what it asks"], shown["where"]), ("a &amp; b", '<a href="eda.html">Exploration</a>'))


# %%
#| export
def _wide_words(table: str) -> str: # HTML
    "A table whose cells of prose may break."
    return re.sub(r"<td>(?=[^<]{30})", '<td class="words">', table)

def _list_tables(folder: Path, titles: dict[str, str]) -> dict[str, str]: # heading → HTML
    "The checklists, a table each, below the counts of their answers."
    items, tables = checklists_of(folder), {}
    for name, points in items.groupby("checklist", sort=False):
        rows = [_list_row(point, titles) for point in points.to_dict("records")]
        table = table_html(rows, f"What {name} asks", escape=False, sort_from=99)
        tables[name] = _paragraph(" ".join(status_words(points))) + _wide_words(table)
    return tables


# %%
#| export
def _flow_cells(folder: Path) -> list: # nbformat cells; none in a run without films
    "The flow of films and patients, as a figure."
    from nbformat import v4
    if not (folder/"images.csv").exists(): return []
    words = "## Films and patients\n\nHow films became calls: [Figure S.1](#fig-reporting_flow)."
    caption, alt = "From the films found to the best model's calls.", flow_words(folder)
    png = figure_png(flow_figure(folder), alt)
    return [v4.new_markdown_cell(words), figure_cell(png, "reporting_flow", caption, alt)]


# %%
#| export
def _checklist_page(
    folder: Path,
    titles: dict[str, str], # page → title
    staging: Path,          # takes the figure
): # nbformat notebook
    "The run in an abstract, its films in a figure, and three lists of what a report should tell."
    titles = titles | {"index.html": "First page", "checklists.html": "This page", "cards.html": "Cards"}
    head = dict(phantoms=_LISTS_PHANTOMS, public="", own=_LISTS_OTHERS)[films_source(folder)]
    lists = {"Three checklists": _paragraph(_LISTS_HEAD) + (_paragraph(head) if head else ""),
             **_list_tables(folder, titles)}
    cells = _sections({"Abstract": _titled(abstract(folder))}) + _flow_cells(folder) + _sections(lists)
    blurb = "The run in an abstract, and what three checklists ask of such a report"
    page = with_front_matter(cells, "Abstract and checklists", blurb, "checklists.html")
    place_figures(page, "S", staging)
    return page


# %%
#| export
def _card_html(card: dict[str, list], name: str) -> str: # HTML
    "A card: headings, sentences, tables."
    parts = []
    for heading, content in card.items():
        text = " ".join(part for part in content if isinstance(part, str))
        tables = [table_html(part, f"{name}: {heading.lower()}", sort_from=99)
                  for part in content if not isinstance(part, str) and part]
        parts += ([_titled([(heading, text)])] if text else []) + tables
    return "\n".join(parts)


# %%
#| export
def _cards_page(folder: Path): # nbformat notebook, or None without films
    "What must be known of the films and of the best model before either is used."
    if not (folder/"images.csv").exists(): return None
    best = facts_of(folder, "metrics/evaluation.json").get("best")
    parts = {"The films": _card_html(data_card(folder), "Data card")}
    if best: parts[f"The model: {model_title(best)}"] = _card_html(model_card(folder, best), "Model card")
    blurb = "What must be known of the films and of the best model before either is used"
    return with_front_matter(_sections(parts), "Data card and model card", blurb, "cards.html")


# %%
card = _card_html({"Films": ["Two `films`.", [dict(split="all", films="2")]], "Nothing": [[]]}, "Card")
assert "<strong>Films.</strong> Two" in card and "<code>films</code>" in card and card.count("<table") == 1


# %% [markdown]
# ## The report
#
# The report shows the study's chapters alone. Below the title of each stands where its notebook can be had.

# %%
#| export
def _executed_notebooks(folder: Path) -> dict[str, Path]: # file name → file, in the study's order
    "The chapters that a run has."
    files = {name: folder/"notebooks"/f"{stage.notebook}.ipynb" for name, stage in stages().items()}
    executed = {file.name: file for file in files.values() if file.exists()}
    for name, record in _records(folder):
        is_changed = files[name].exists() and record.get("notebook", "") not in ("", file_digest(files[name]))
        if is_changed: raise StudyError(
            f"Expected the notebook {files[name]} as it was executed, found it changed; "
            "remove that file and do `pneumo run`, which executes it again.")
    if not executed: raise StudyError(
        f"Expected executed notebooks in {folder/'notebooks'}, found none; do `pneumo run` first.")
    return executed


# %%
#| export
def offer_notebook(notebook, name: str): # `notebook`, changed in place
    "Say below the title where the notebook of a page can be had."
    from nbformat import v4
    notebook.cells.insert(1, v4.new_markdown_cell(f"{_notebook_links(name)}{_FOLDED}"))

_FOLDED = ", with all code. Where a sentence ends in a colon and nothing follows, a check of it held."


# %%
#| export
def _notebook_links(name: str) -> str: # markdown
    "Links to the executed notebook, and to Colab and Kaggle once settings.ini names a repository there."
    from configparser import ConfigParser
    settings = ConfigParser(delimiters=["="], interpolation=None)
    settings.read(project_folder()/"settings.ini", encoding="utf-8")
    home, branch = settings["DEFAULT"]["git_url"], settings["DEFAULT"]["branch"]
    repository = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?", home)
    links = {"executed notebook": f"notebooks/{name}"}
    if repository:
        file = f"{repository[1]}/blob/{branch}/nbs/{name}"
        links |= {"source": f"https://github.com/{file}",
                  "open in Colab": f"https://colab.research.google.com/github/{file}",
                  "open in Kaggle": f"https://kaggle.com/kernels/welcome?src=https://github.com/{file}"}
    line = " · ".join(f"[{words}]({link})" for words, link in links.items())
    return f"{line}\n\n{_INSTALL.format(repository[1])}" if repository else line

_INSTALL = ("Colab and Kaggle do not have the package: there, first run "
            "`%pip install git+https://github.com/{}` in a cell of its own.")

# %%
with tempfile.TemporaryDirectory() as folder:
    home = "git_url = https://github.com/someone/study.git"
    (Path(folder)/"settings.ini").write_text(f"[DEFAULT]\n{home}\nbranch = main\n", encoding="utf-8")
    with mock.patch.dict(globals(), project_folder=lambda: Path(folder)):
        print(_notebook_links("30_data.ipynb").replace(" · ", "\n"))


# %%
#| export
def report_pages(
    folder: Path,  # a run directory
    staging: Path, # takes the figures
) -> tuple[dict, dict]: # file name → page, in order; file name → executed notebook
    "All pages of a run's report."
    sources, operating = _executed_notebooks(folder), _operating_page(folder)
    chapters = {name: processed(file) for name, file in sources.items()}
    for name, notebook in chapters.items(): offer_notebook(notebook, name)
    _mark_stale(folder, chapters)
    figures = finish_pages(dict(enumerate(chapters.values(), 1)), staging)
    extra = {"operating_point.ipynb": operating} if operating else {}
    extra["methods.ipynb"] = _methods_page(folder)
    named = [front_matter(page) for page in [*chapters.values(), *extra.values()]]
    titles = {page["output-file"]: page["title"] for page in named}
    extra["checklists.ipynb"] = _checklist_page(folder, titles, staging)
    if cards := _cards_page(folder): extra["cards.ipynb"] = cards
    shown = [front_matter(page) for page in [*chapters.values(), *extra.values()]]
    index = _landing_page(folder, shown, figures)
    return {"index.ipynb": index, **chapters, **extra}, sources


# %%
#| export
def render_report(
    folder: str | Path, # a run directory
) -> tuple[Path, str]: # the landing page, what rendered it
    "Make `site/` from a run, and in `runs/` the list of all runs."
    folder = Path(folder)
    _executed_notebooks(folder)  # refused before anything is written
    check_outputs(folder, *EVALUATED, "metrics/*")
    with staging_folder() as staging:
        pages, sources = report_pages(folder, staging)
        stage_pages(staging, project_folder(), f"Run {folder.name}", pages, sources)
        by = render(staging, folder/"site")
    runs = folder.resolve().parent
    if runs.name == "runs": _write_runs_index(runs)  # elsewhere an index.html may be another's
    return folder/"site/index.html", by


# %% [markdown]
# ## All runs side by side
#
# `runs/index.html` has a row for each model of each run and sorts by any column. It shows those parameters in
# which the runs differ.

# %%
#| export
_RUN_COLUMNS = ["roc_auc", "accuracy", "sensitivity", "specificity", "f1_normal", "f1_pneumonia",
                "average_precision", "brier", "training_seconds"]


# %%
#| export
def _run_parameters(folder: Path) -> dict | None: # "stage.name" → value; None if the record cannot be read
    "All parameters of a run's stages."
    try:
        records = read_provenance(folder)["stages"]
        check_outputs(folder, "comparison.csv")
    except StudyError as e:
        print(f"Note: {folder.name} is left out of the list of runs. {e}")
        return None
    return {f"{stage}.{name}": v for stage, r in records.items() for name, v in r["parameters"].items()}


# %%
#| export
def _readable_runs(runs: Path) -> dict[Path, dict]: # run → its parameters
    "The runs of a folder whose records can be read."
    folders = sorted(file.parent for file in runs.glob("*/provenance.json"))
    return {folder: params for folder in folders if (params := _run_parameters(folder)) is not None}

def _runs_rows(each: dict[Path, dict]) -> list[dict]: # a row a run and model; `each`: from `_readable_runs`
    "Metrics of every run, and the parameters in which they differ."
    names = dict.fromkeys(name for params in each.values() for name in params)
    differing = [name for name in names if len({str(params.get(name)) for params in each.values()}) > 1]
    values = lambda params: {name: params.get(name, "–") for name in differing}
    return [row for folder, params in each.items() for row in _run_rows(folder, values(params))]


# %%
#| export
def _run_rows(folder: Path, differing: dict) -> list[dict]:
    "A row for each model of one run; cells are HTML."
    begun = min((r["started"] for r in read_provenance(folder)["stages"].values()), default="")[:16]
    compared = folder/"comparison.csv"
    models = read_table(compared).to_dict("records") if compared.exists() else [{"model": "–"}]
    name, place = html.escape(folder.name), quote(folder.name)
    link = f'<a href="{place}/site/index.html">{name}</a>' if (folder/"site/index.html").exists() else name
    parameters = {html.escape(key): html.escape(str(value)) for key, value in differing.items()}
    head = {"run": link, "begun (UTC)": html.escape(begun.replace("T", " "))}
    return [{**head, "model": html.escape(model_title(model["model"])), **_run_cells(model), **parameters}
            for model in models]


# %%
#| export
def _run_cells(model: dict) -> dict:
    "The measures of one model that the list shows."
    defined = {key: model[key] for key in _RUN_COLUMNS if key in model and model[key] == model[key]}
    digits = lambda key: 0 if key.endswith("seconds") else 4
    return {WORDS[key]: f"{value:.{digits(key)}f}" for key, value in defined.items()}


# %%
#| export
def _run_card(folder: Path) -> dict: # name, link, films, headline, picture; links are relative to the runs
    "What the list of runs shows of one run."
    facts, place = facts_of(folder, "metrics/data.json"), quote(folder.name)
    films = Path(facts.get("root", "")).name or "none"
    if films_source(folder) == "phantoms": films = "drawn phantoms"
    pictures = [f"{name}.webp" for name in ("xai_first", "evaluation_roc", "eda_samples")]
    shown = [name for name in pictures if (folder/"site/figures"/name).exists()]
    return dict(name=folder.name, films=films, headline=_headline(folder),
                link=f"{place}/site/index.html" if (folder/"site/index.html").exists() else None,
                picture=f"{place}/site/figures/{shown[0]}" if shown else None)


# %%
#| export
def _write_runs_index(runs: Path) -> Path: # the page
    "Write `index.html` beside the runs."
    assets, each = project_folder()/"nbs/assets", _readable_runs(runs)
    rows = _runs_rows(each)
    read = lambda name: _markup((assets/name).read_text(encoding="utf-8"))
    caption = "A row a run and model; click a heading to sort"
    table = table_html(rows, caption, escape=False, sort_from=0) if rows else ""
    cards = [_run_card(folder) for folder in each]
    text = fill("runs", cards=cards, styles=read("layout.css") + read("study.css"),
                script=read("sortable.auto.min.js"), table=_markup(table))
    with atomic_path(runs/"index.html") as partial: partial.write_text(text + "\n", encoding="utf-8")
    return runs/"index.html"


# %% [markdown]
# A run with one executed chapter gives a landing page, that chapter, methods and limits, and checklists:

# %%
with tempfile.TemporaryDirectory() as runs:
    folder = Path(runs)/"small"
    test_fail(lambda: render_report(folder), contains="do `pneumo run` first")
    cells = [nb.new_markdown_cell("# Data\n\n> Which films there are"), nb.new_code_cell("1 + 1")]
    (folder/"notebooks").mkdir(parents=True)
    nbformat.write(nb.new_notebook(cells=cells), folder/"notebooks/30_data.ipynb")
    index, by = render_report(folder)
    print(sorted(p.name for p in index.parent.iterdir()), "by", by)
    landing = index.read_text()
    assert "Which films there are" in landing and "This run has not been evaluated" in landing
    test_eq([d.name for d in folder.glob(".partial-*")], [])
