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
# > A run's site: a landing page, its chapters, the operating point, methods and limits, all from the run's own files

# %%
#| default_exp report

# %%
#| export
import html, json, os, re, shutil, tempfile
from contextlib import contextmanager
from pathlib import Path

from pneumo_nb.run import COLOURS, MODEL_TITLES, STAGES, StudyError, atomic_path, read_json, read_provenance, study_order
from pneumo_nb.pages import Figure, as_html, drop_chatter, finish_pages, front_matter, html_cell, processed, project_folder, render, stage_pages, table_html, with_front_matter

# %%
#| hide
import nbformat
import nbformat.v4 as nb
from fastcore.test import test_eq, test_fail


# %% [markdown]
# A report should be true on its own. Someone who reads nothing else must find the question, the films, the results, what
# they are worth and what they are not. So every number on these pages is read from the run's files when the report is made;
# nothing is typed.
#
# ## The films, in one table

# %%
#| export
def films_rows(folder: Path) -> list[dict]: # split, films, normal, bacterial, viral, patients
    "How many films and patients are in each split; nothing if the run has no films."
    if not (folder/"images.csv").exists(): return []
    import pandas as pd
    images = pd.read_csv(folder/"images.csv")
    def row(name, part):
        kinds = part.kind.value_counts()
        return {"split": name, "films": f"{len(part):,}", **{words: f"{kinds.get(kind, 0):,}" for kind, words in
                (("normal", "normal"), ("bacteria", "bacterial pneumonia"), ("virus", "viral pneumonia"))},
                "pneumonia": f"{part.label.mean():.1%}", "patients": f"{part.patient_id.nunique():,}"}
    splits = [s for s in ("train", "validation", "test") if (images.split == s).any()]
    return [row(s, images[images.split == s]) for s in splits] + [row("all", images)]

def films_source(folder: Path) -> str: # HTML
    "What the films are, in words."
    facts = read_json(folder/"metrics/data.json") if (folder/"metrics/data.json").exists() else {}
    return {"phantoms": "drawn <strong>phantoms</strong>, so these numbers say nothing about real films",
            "folder": f"the films of a folder named <code>{html.escape(Path(facts.get('root', '')).name)}</code>"}.get(facts.get("source"), "films that this run does not name")


# %%
#| export
def results_section(folder: Path) -> str: # HTML
    "The comparison, if the run has one."
    if not (folder/"comparison.csv").exists(): return "<p>This run has not been evaluated.</p>"
    import pandas as pd
    from pneumo_nb.evaluation import comparison_table
    comparison, judged = pd.read_csv(folder/"comparison.csv"), read_json(folder/"metrics/evaluation.json")["judged"]
    rows = [{k: v.replace("–", "\u2060–\u2060") for k, v in r.items()} for r in comparison_table(comparison).to_dict("records")]  # an interval is not broken at its dash
    table = table_html(rows, f"The models on {comparison.films[0]:,} {judged} films", sort_from=2).replace('class="scroll"', 'class="scroll fit"')
    share = (comparison.fn + comparison.tp)[0] / comparison.films[0]
    random = read_provenance(folder)["stages"].get("resnet", {}).get("parameters", {}).get("weights") == "none"
    note = ('<p class="text"><strong>ResNet50 began with random weights here</strong>, not with those learned on photographs. Its rows say nothing about transfer learning.</p>'
            if random and comparison.model.str.startswith("resnet").any() else "")
    return (f'{table}{note}<p class="text">Calls are made at a threshold of {comparison.threshold[0]:g}. AUROC: the chance that a pneumonia film gets a higher probability than a normal one; '
            f'sensitivity: pneumonia films called so; specificity: normal films called normal. Calling every film pneumonia would have an accuracy of {share:.4f}. In brackets 95 % intervals, '
            'patients redrawn. The chapter on <a href="evaluation.html">evaluation</a> says which differences the films support, and on the page '
            '<a href="operating_point.html">operating point</a> the threshold can be moved.</p>' + published_section(folder))

def published_section(folder: Path) -> str: # HTML
    "Trainings of a kind, published results on the same films, and how often test was looked at."
    rows, looks = results_rows(folder), len(read_provenance(folder).get("test_looks", []))
    apart = [{k: v.replace("–", "\u2060–\u2060") for k, v in r.items() if k not in ("training", "parameters")} for r in rows if r["trained"].endswith("apart")]
    parts = [table_html(apart, "Mean and range over trainings that differ by seed, or seed and fold; accuracies with a rule's name are at the threshold that it chose on validation", sort_from=99).replace('class="scroll"', 'class="scroll fit"')] if apart else []
    if public_test(folder): parts.append('<h3>Published results on the public test films</h3>' + table_html(
        [{"who": who, "AUROC": f"{auroc:.3f}", "accuracy": f"{accuracy:.3f}"} for who, (auroc, accuracy) in PUBLISHED.items()], "Published results on these test films", sort_from=1))
    return "".join(parts) + f'<p class="text">The test films were looked at {looks} time(s) in this run; the record below says when and why.</p>'


# %% [markdown]
# ## What ran
#
# Which code, on which machine, with which parameters, how long, and what it had to say.

# %%
#| export
def in_order(stages: dict) -> list: # pairs of name and record
    "Stages in the study's order, whenever they ran."
    return [(name, stages[name]) for name in STAGES if name in stages]

def parameters_section(folder: Path) -> str: # HTML
    "Every stage with its parameters and costs."
    rows = [{"stage": name, "seconds": f"{r['seconds']:,.1f}", "peak memory": f"{r['peak_memory_mb']:,} MB" if r["peak_memory_mb"] else "–",
             "parameters": html.escape(", ".join(f"{k} = {v}" for k, v in r["parameters"].items()))} for name, r in in_order(read_provenance(folder)["stages"])]
    table = table_html(rows, "Stages, their costs and parameters", escape=False, sort_from=99) if rows else ""
    return re.sub(r"<td>(?=[^<]* = )", '<td class="words">', table)

def provenance_section(folder: Path) -> str: # HTML
    "Code, machine, packages, films, and the notes that stages left."
    provenance = read_provenance(folder)
    stages = provenance["stages"]
    if not stages: return ""
    last, commits = list(stages.values())[-1], list(dict.fromkeys(r["git_commit"] for r in stages.values()))
    facts = {"code, commit": ", ".join(commits), "films, fingerprint": provenance.get("data_fingerprint", "–"), "begun": min(r["started"] for r in stages.values()),
             "machine": f"{last['machine']['processor']}, {last['machine']['cores']} cores, {last['machine']['system']}",
             "packages": ", ".join(f"{k} {v}" for k, v in last["versions"].items())}
    rows = "".join(f"<tr><th scope=row>{k}</th><td class=words>{html.escape(str(v))}</td></tr>" for k, v in facts.items())
    notes = "".join(f"<li>{html.escape(name)}: {html.escape(text)}</li>" for name, r in in_order(stages) for text in r["notes"])
    looks = "".join(f"<li>{html.escape(l['time'][:16].replace('T', ' '))}, {html.escape(l['stage'])}: {html.escape(l['at'])}</li>" for l in provenance.get("test_looks", []))
    return (f'<div class="scroll" tabindex="0"><table>{rows}</table></div>'
            + (f'<p>What the stages noted:</p><ul>{notes}</ul>' if notes else "") + (f'<p>Looks at the test films (UTC):</p><ul>{looks}</ul>' if looks else ""))


# %% [markdown]
# ## One figure a chapter
#
# The landing page shows, for each chapter, the figure that carries it, and one film with its explanation.

# %%
#| export
TELLING = ["eda_samples", "preprocessing_augmentation", "mlp_history", "cnn_history", "resnet_finetuned_history", "resnet_frozen_history",
           "evaluation_comparison", "compact_films", "xai_beside", "xai_cnn", "xai_mlp"]  # of several in one chapter, the first

def chapter_cards(
    chapters: list[dict],       # front matter of each
    figures: dict[str, Figure], # of the site
) -> str: # HTML
    "The chapters, each with its blurb and its telling figure."
    cards = []
    for about in chapters:
        page = about["output-file"]
        name = next((n for n in TELLING if n in figures and figures[n].page == page), None)
        picture = f'<a href="{page}#fig-{name}">{figures[name].image()}</a>' if name else ""
        cards.append(f'<div class="card"><h3><a href="{page}">{html.escape(about["title"])}</a></h3><p>{as_html(about.get("description", ""))}</p>{picture}</div>')
    return f'<div class="cards">{"".join(cards)}</div>'

def explained_film(figures: dict[str, Figure]) -> str: # HTML
    "One film with what the models looked at."
    name = next((n for n in ("xai_beside", "xai_cnn", "xai_mlp") if n in figures), None)
    if not name: return ""
    figure = figures[name]
    return (f'<figure>{figure.image()}'
            f'<figcaption>{html.escape(figure.caption)} From <a href="{figure.page}#fig-{name}">Figure {figure.number}</a>.</figcaption></figure>')


# %% [markdown]
# ## The conclusion
#
# A few sentences, each made from a number in the run's files.

# %%
#| export
def conclusion(
    folder: Path, # an evaluated run
) -> list[str]: # sentences
    "What the run as a whole shows."
    facts = read_json(folder/"metrics/evaluation.json")
    rows = sorted(facts["comparison"], key=lambda r: -r["roc_auc"])
    best, name = rows[0], lambda r: MODEL_TITLES.get(r["model"], r["model"])
    lines = [f"At a threshold of {facts['threshold']:g} the model with the highest AUROC, {name(best)}, finds {best['tp']} of {best['tp'] + best['fn']} pneumonia films "
             f"and calls {best['fp']} of {best['fp'] + best['tn']} normal films pneumonia.",
             "AUROC from the highest to the lowest (0.5 is guessing, 1 is perfect): " + ", ".join(f"{name(r)} {r['roc_auc']:.3f}" for r in rows) + "."]
    sure = [p for p in facts["pairs"] if p["p_calls_holm"] < .05]
    if facts["pairs"]: lines.append(f"Compared by right and wrong calls at this threshold, {len(sure)} of {len(facts['pairs'])} pairs of models differ by more than chance "
                                    "(an exact test over patients, corrected after Holm)" + ("." if len(sure) == len(facts["pairs"]) else "; the others cannot be told apart."))
    if (shift := shift_rows(folder)) and all(r["difference"].startswith("-") for r in shift): lines.append(
        "Every model did less well on test than on validation films, so less should be expected of films from elsewhere.")
    if (folder/"metrics/eda_sizes.json").exists() and not (size := read_json(folder/"metrics/eda_sizes.json"))["constant"] and size["auroc"]:
        lines.append(f"Size and shape of the films alone reach an AUROC of {size['auroc']:.3f} on train and validation films, "
                     + ("the part of a score that needs no lung." if size["low"] > .5 else "which cannot be told from guessing."))
    if facts["judged"] != "test": lines.append("There were no test films: these numbers come from validation films, which also chose epoch or temperature, and are too kind.")
    return lines


# %% [markdown]
# ## The landing page

# %%
#| export
QUESTION = ("Can a network tell from a frontal chest X-ray whether a child has pneumonia, how sure can we be of the answer, and what does the network look at? "
            "Networks of several kinds are trained on films of some children, judged on films of others, and explained by "
            "covering the films piece by piece.")

def landing_page(
    folder: Path,
    chapters: list[dict], # front matter of each
    figures: dict[str, Figure],
): # nbformat notebook
    "The first page of a report."
    films = table_html(films_rows(folder), "Films and patients", sort_from=99) if films_rows(folder) else ""
    compact = (" The compact networks divide the films of train and validation anew, into folds." if "compact" in read_provenance(folder)["stages"] else "")
    closing = f'<p class="text">{html.escape(" ".join(conclusion(folder)))}</p>' if (folder/"metrics/evaluation.json").exists() else ""
    parts = {"Question": f'<p class="text">{QUESTION}</p>', "Data": f'<p class="text">This run used {films_source(folder)}. Models learn from train films; validation films choose the epoch; test films judge.{compact}</p>{films}', "Results": results_section(folder),
             "Conclusion": closing, "One film, explained": explained_film(figures), "Chapters": chapter_cards(chapters, figures), "Parameters": parameters_section(folder),
             "Provenance": provenance_section(folder), "Limits": '<p class="text">One test set, films squashed to a square, no films of another hospital: the chapter on '
             '<a href="methods.html">methods and limits</a> says what that means. This is a study, not a medical device.</p>'}
    return with_front_matter(sections(parts), "Pneumonia on chest X-rays", "What was asked, what came out, and what it is worth", "index.html")

def sections(parts: dict[str, str]) -> list: # nbformat cells
    "Headings with what stands below them; those without anything are left out."
    from nbformat import v4
    return [cell for heading, text in parts.items() if text for cell in (v4.new_markdown_cell(f"## {heading}"), html_cell(text))]


# %% [markdown]
# ## The operating point
#
# A model gives probabilities; a clinic needs a yes or no, and where to put the threshold depends on what a missed child and
# a false alarm cost, and on how many children are sick. One page lets a reader move both and see what happens to the films of
# this run. It counts as `classification_metrics` does. The curves are drawn by [Observable Plot](https://observablehq.com/plot/),
# which lies in the site's `assets/`, so the page works without a network; before any script has run, it shows the run's own threshold.

# %%
#| export
def by_model(files) -> list[Path]:
    "Files named after models, in the study's order."
    return sorted(files, key=lambda f: study_order(f.stem))

def operating_models(folder: Path) -> list[dict]: # name, title, colour, label, probability
    "Labels and probabilities of the films that each model is judged on."
    import pandas as pd
    from pneumo_nb.evaluation import judged_films, title
    files = by_model((folder/"predictions").glob("*.csv"))
    if not files: return []
    _, tests = judged_films({f.stem: pd.read_csv(f) for f in files})
    return [dict(name=name, title=title(name), colour=COLOURS.get(name, COLOURS["other"]), label=t.label.tolist(), probability=t.probability.tolist()) for name, t in tests.items()]

def operating_controls(models: list[dict], threshold: float, prevalence: float) -> str: # HTML
    "Model, threshold and prevalence."
    choices = "".join(f'<option value="{m["name"]}">{html.escape(m["title"])}</option>' for m in models)
    return (f'<div class="controls"><div><label for="op-model">Model</label><select id="op-model">{choices}</select></div>'
            f'<div><label for="op-threshold">Threshold <span class="hint">called pneumonia from here on</span></label><input id="op-threshold" type="number" min="0" max="1" step="any" value="{threshold:g}">'
            f'<input id="op-threshold-slider" type="range" min="0" max="1" step="0.001" value="{threshold:g}" aria-label="Threshold"></div>'
            f'<div><label for="op-prevalence">Prevalence, % <span class="hint">of pneumonia where the model is used; these films: {prevalence:.1f}</span></label><input id="op-prevalence" type="number" min="0" max="100" step="any" value="{prevalence:.6g}">'
            f'<input id="op-prevalence-slider" type="range" min="0" max="100" step="0.1" value="{prevalence:.1f}" aria-label="Prevalence in percent"></div></div>')


# %%
#| export
def operating_tables(model: dict, threshold: float) -> str: # HTML
    "Confusion matrix and metrics, as they are before any script runs."
    from pneumo_nb.evaluation import classification_metrics
    m = classification_metrics(model["label"], model["probability"], threshold)
    (tn, fp), (fn, tp) = m["confusion_matrix"]
    percent = lambda value: "undefined" if value != value else f"{100 * value:.2f} %"
    rows = [("sensitivity", "pneumonia films called pneumonia", m["recall_pneumonia"]), ("specificity", "normal films called normal", m["recall_normal"]), ("accuracy", "films called right", m["accuracy"]),
            ("ppv", "positive predictive value (PPV): called pneumonia and right, at this prevalence", m["precision_pneumonia"]), ("npv", "negative predictive value (NPV): called normal and right, at this prevalence", m["precision_normal"])]
    lines = "".join(f'<tr><th scope="row">{words if name in ("ppv", "npv") else f"{name}: {words}"}</th><td class="number" id="op-{name}">{percent(value)}</td></tr>' for name, words, value in rows)
    return (f'<div><h2 id="counts">Films</h2><table><thead><tr><td></td><th scope="col">called normal</th><th scope="col">called pneumonia</th></tr></thead><tbody>'
            f'<tr><th scope="row">truly normal</th><td class="number" id="op-tn">{tn}</td><td class="number" id="op-fp">{fp}</td></tr>'
            f'<tr><th scope="row">truly pneumonia</th><td class="number" id="op-fn">{fn}</td><td class="number" id="op-tp">{tp}</td></tr></tbody></table></div>'
            f'<div><h2 id="rates">Rates</h2><table><tbody>{lines}</tbody></table></div>')

def operating_page(folder: Path): # nbformat notebook, or None without predictions
    "The page on which a reader moves the threshold."
    models = operating_models(folder)
    if not models: return None
    facts = read_json(folder/"metrics/evaluation.json") if (folder/"metrics/evaluation.json").exists() else {}
    threshold, prevalence = facts.get("threshold", .5), 100 * sum(models[0]["label"]) / len(models[0]["label"])
    data = json.dumps(models).replace("<", "\\u003c")
    body = (f'<div id="operating-point">{operating_controls(models, threshold, prevalence)}<p id="op-said" role="status"></p><div class="results">{operating_tables(models[0], threshold)}'
            '<div><h2 id="roc">ROC</h2><div class="drawn" id="op-roc"></div></div><div><h2 id="pr">Precision and recall</h2><div class="drawn" id="op-pr"></div></div></div>'
            '<noscript><p>The numbers are those of the first model at the run\'s own threshold; moving it needs JavaScript.</p></noscript>'
            f'<script type="application/json">{data}</script></div>'
            '<p class="text">Choosing a threshold on the films that it is judged on flatters it: what the report calls a result uses the run\'s own threshold, or one chosen on validation. '
            'PPV and NPV follow from sensitivity, specificity and prevalence by Bayes\' rule; that a model keeps its sensitivity where disease is rarer or milder is an assumption.</p>'
            '<script src="assets/d3.min.js"></script><script src="assets/plot.umd.min.js"></script><script src="assets/operating_point.js"></script>')
    return with_front_matter([html_cell(body)], "Operating point", "Move the threshold, and see which films are found, missed and falsely called", "operating_point.html")


# %% [markdown]
# ## Methods and limits
#
# What a reader must know before believing a number, with the run's own facts where there are any.

# %%
#| export
def shift_rows(folder: Path) -> list[dict]: # model, AUROC on validation and on test
    "How much better each model looks on validation than on test; for networks that learned from all folds, validation is by those that left one out."
    import pandas as pd
    from sklearn.metrics import roc_auc_score
    from pneumo_nb.evaluation import title
    rows = []
    for file in by_model((folder/"predictions").glob("*.csv")):
        parts = {name: part for name, part in pd.read_csv(file).groupby("split") if part.label.nunique() == 2}
        if {"validation", "test"} <= set(parts):
            auroc = {name: roc_auc_score(part.label, part.probability) for name, part in parts.items()}
            rows.append({"model": title(file.stem), "AUROC, validation": f"{auroc['validation']:.4f}", "AUROC, test": f"{auroc['test']:.4f}", "difference": f"{auroc['test'] - auroc['validation']:+.4f}"})
    return rows

def methods_section(folder: Path) -> str: # HTML
    "How the run was done, in words."
    stages = read_provenance(folder)["stages"]
    asked = lambda stage, name: stages.get(stage, {}).get("parameters", {}).get(name, "–")
    models = [MODEL_TITLES.get(f.stem, f.stem) for f in by_model((folder/"models").glob("*.keras")) if not f.stem.startswith("compact")]
    percent = lambda value: f"{value:.0%}" if isinstance(value, (int, float)) else value
    return (f'<div class="text"><p>The <em>reference study</em> is the work that this one repeats: the same public films and networks, in a single notebook. Where a chapter says “the study\'s” patch, ranges or rules, it means that one.</p>'
            '<p>Films are decoded once, as gray values, and squashed to a square. The test films are those that the set provides.</p>'
            + ("" if not models else f'<p>For the study\'s own models films have {asked("preprocessing", "image_size")} pixels a side. '
            f'Of the others, {percent(asked("data", "validation_fraction"))} are set aside for validation, whole patients at a time, with as many of each kind as in the whole; seed {asked("data", "seed")}. Only train films are augmented: '
            f'rotation up to {asked("preprocessing", "rotation")} degrees, shift up to {percent(asked("preprocessing", "shift"))} of the side, shear up to {asked("preprocessing", "shear")} degrees, zoom up to {percent(asked("preprocessing", "zoom"))}'
            f'{", mirrored left to right" if asked("preprocessing", "flip") is True else ""}.</p>'
            f'<p>These models are in this run: {html.escape(", ".join(models))}. Each minimises the binary cross-entropy with Adam, each class with the same weight in sum; the epoch with the lowest validation loss is kept, '
            'and the learning rate falls when that loss does not.</p>') + compact_words(folder) +
            '<p>Test films give the numbers reported; no stage of a run chooses by them. Every saved model divides its log odds by a temperature that validation fitted.</p>'
            '<p>Explanations cover a square of the film with gray and watch the probability. That shows what the answer depends on, not why, and nothing that acts only together with something uncovered.</p></div>')


# %%
#| export
def compact_words(folder: Path) -> str: # HTML
    "How the compact networks were made, if the run has any."
    stages = read_provenance(folder)["stages"]
    if "compact" not in stages: return ""
    p, refitted = stages["compact"]["parameters"], any((folder/"predictions/members").glob("compact_s*_r*.csv"))
    left_out = f"Folds {', '.join(map(str, p['only_folds']))} were" if p["only_folds"] else "Each fold that has normal films was"
    times = f", {p['seeds']} time(s) with other seeds"
    folds = {"series": "folds: one for each naming series of the normal films, with as large a share of the pneumonia films as each of the further folds without normal films", "numbers": f"{p['folds']} folds of consecutive patient numbers"}[p.get("folds_by", "numbers")]
    refits = f" Then {p['refits']} network(s) for each seed{' and size' if p.get('sizes') else ''} learned from all folds; these answer on test." if refitted else " On test all of these networks answer."
    seen = f", which networks see at {' or '.join(map(str, p['sizes']))} pixels" if p.get("sizes") else ""
    return (f'<p>The compact networks are other: films of {p["image_size"]} pixels{seen}, {"three classes" if p["kinds"] else "two classes"}, AdamW, {p["epochs"]} epochs to the end, augmentation of gray levels, sharpness and shape. The films that are not test were cut into {folds}. '
            f'{left_out} left out in turn{times}, and judged by the network(s) that had not seen it. Those answers choose threshold and temperature.{refits}</p>')


# %%
#| export
LIMITS = {
    "who is on a film": "Patients are inferred from the names of files. If two names mean one child, films of that child may lie on both sides of a split.",
    "whose films": "The public films show children of one to five years from one hospital in Guangzhou. Nothing here says how a model does on adults, other hospitals, other machines.",
    "the label": "Two physicians graded each film, a third checked the test films; poor films had been removed before. So a model is compared with readers of the same film, not with a culture or the course of the disease, and their disagreement is not in the numbers. Bacterial and viral pneumonia often look alike on a film.",
    "other disease": "A film here is normal or pneumonia. There are no films with only a pleural effusion, a collapsed lung, heart failure, tuberculosis or a foreign body, so nothing is known about how a model calls them.",
    "how films were taken": "Age within one to five years, sex, position, exposure, tubes and electrodes are not recorded. The sicker child is more often filmed lying down and with lines; a model may score by that.",
    "the form of the film": "Originals differ in size and aspect between the classes, and squashing turns that into the shape of the chest. A model may score by it; on copies that were squashed before, nothing can measure how much.",
    "validation is too kind": "Test films are other stretches of the patient numbers and look different, as the chapter on exploration measures. Validation drawn at random from train does not feel that, and it chooses the epoch of MLP, CNN and ResNet50; the compact networks are judged on folds across the naming series or along the numbers, which feel some of it.",
    "chance": "Intervals hold the chance of which patients were tested, not that of the training. Where several networks differ by seed, or seed and fold, alone, their range is given; the others were trained once.",
    "looking again": "Each look at the test films is a chance to tune to them. The record counts the looks of this run, not those of earlier runs or of others who published on the same films.",
    "prevalence": "Pneumonia is probably more common in these films than among children sent for a chest film. Accuracy and the predictive values depend on that. Sensitivity and specificity stay only if the pneumonias are as marked and the other children as well as here.",
}

def methods_page(folder: Path): # nbformat notebook
    "How it was done, and what the numbers cannot say."
    source = f'<p class="text">This run used {films_source(folder)}.' + (" What follows about the public films does not apply to them.</p>" if "phantoms" in films_source(folder) else
        " What follows about the public films applies if these are they (Kermany et al., 2018).</p>")
    limits = table_html([{"limit": name, "what it means": text} for name, text in LIMITS.items()], "What these numbers cannot say", sort_from=99).replace("<td>", '<td class="words">')
    shift = shift_rows(folder)
    parts = {"Methods": methods_section(folder), "Limits": source + limits,
             "Validation and test in this run": table_html(shift, "AUROC of each model on validation and on test films", sort_from=99) if shift else "",
             "Use": '<p class="text"><strong>None of this is a medical device.</strong> No child should be treated, or sent home, by these models.</p>'}
    return with_front_matter(sections(parts), "Methods and limits", "How it was done, and what the numbers cannot say", "methods.html")


# %% [markdown]
# ## The report

# %%
#| export
def executed_notebooks(folder: Path) -> dict[str, Path]: # file name → file, in the study's order
    "The chapters that a run has."
    found = {f.name: f for s in STAGES.values() if (f := folder/"notebooks"/f"{s['notebook']}.ipynb").exists()}
    if not found: raise StudyError(f"Expected executed notebooks in {folder/'notebooks'}, found none; do `pneumo run` first.")
    return found

def report_pages(
    folder: Path,  # a run directory
    staging: Path, # takes the figures
) -> tuple[dict, dict]: # file name → page, in order; file name → executed notebook
    "All pages of a run's report."
    sources = executed_notebooks(folder)
    chapters = {name: processed(file) for name, file in sources.items()}
    for name, notebook in chapters.items(): offer_notebook(notebook, name)
    figures = finish_pages(dict(enumerate(chapters.values(), 1)), staging)
    extra = {"operating_point.ipynb": operating_page(folder), "methods.ipynb": methods_page(folder)}
    index = landing_page(folder, [front_matter(n) for n in [*chapters.values(), *filter(None, extra.values())]], figures)
    return {"index.ipynb": index, **chapters, **{k: v for k, v in extra.items() if v}}, sources

def offer_notebook(notebook, name: str):
    "Say below the title where the notebook of a page can be had."
    from nbformat import v4
    notebook.cells.insert(1, v4.new_markdown_cell(notebook_links(name)))

def notebook_links(name: str) -> str: # markdown
    "Links to the executed notebook, and to Colab and Kaggle once settings.ini names a repository there."
    from configparser import ConfigParser
    settings = ConfigParser(delimiters=["="], interpolation=None)
    settings.read(project_folder()/"settings.ini", encoding="utf-8")
    home, branch = settings["DEFAULT"]["git_url"], settings["DEFAULT"]["branch"]
    links = [f"[executed notebook](notebooks/{name})"]
    if found := re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?", home):
        file = f"{found[1]}/blob/{branch}/nbs/{name}"
        links += [f"[source](https://github.com/{file})", f"[open in Colab](https://colab.research.google.com/github/{file})",
                  f"[open in Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/{file})"]
    return " · ".join(links) + "\n\nCode is folded. Where a sentence ends in a colon and nothing follows, the folded code checks it; the chapter would not exist had the check failed."


# %%
#| export
def render_report(
    folder: str | Path, # a run directory
) -> tuple[Path, str]: # the landing page, what rendered it
    "Make `site/` from a run, and in `runs/` the list of all runs."
    folder = Path(folder)
    executed_notebooks(folder)  # refused before anything is written
    with tempfile.TemporaryDirectory(prefix="pneumo-site-") as staging:  # not in the run: Quarto passes over hidden folders
        staging = Path(staging)
        pages, sources = report_pages(folder, staging)
        stage_pages(staging, project_folder(), f"Run {folder.name}", pages, sources)
        by = render(staging, folder/"site")
    if folder.resolve().parent.name == "runs": write_runs_index(folder.resolve().parent)  # elsewhere an index.html may be another's
    return folder/"site/index.html", by


# %% [markdown]
# ## The documentation
#
# The documentation has the same chapters, those that no run executes among them, and in place of exported code the entry of each
# exported symbol as nbdev makes it. It is staged from notebooks executed on phantoms, so its figures show no child.

# %%
#| export
def documented(
    notebooks: list[Path], # executed, and index.ipynb
    project: Path,         # the checkout
) -> dict: # file name → page, in order
    "Notebooks as nbdev prepares them for documentation: exported code gives way to what each symbol takes and returns."
    import nbformat
    from nbdev.serve import proc_nbs
    with tempfile.TemporaryDirectory(prefix="pneumo-docs-") as folder, working_in(project):
        for file in notebooks: shutil.copy(file, Path(folder)/file.name)
        cache = proc_nbs(folder, force=True, n_workers=2)
        pages = {file.name: nbformat.read(cache/file.name, as_version=4) for file in notebooks}
    for name, page in pages.items():
        drop_chatter(page)
        mend_links(page)
        if name != "index.ipynb": offer_notebook(page, name)
    return pages

@contextmanager
def working_in(folder: Path):
    "Do something in another working folder: nbdev looks for settings.ini from where it is called."
    before = os.getcwd()
    os.chdir(folder)
    try: yield
    finally: os.chdir(before)

def mend_links(page):
    "Links that nbdev makes to its own host lead to the page beside; those to source lines go while settings.ini names no repository."
    from nbdev.config import get_config
    settings = get_config(path=project_folder())
    def mend(text):
        text = re.sub(rf"\]\({re.escape(settings.doc_host + settings.doc_baseurl)}/(\w+\.html)[^)]*\)", r"](\1)", text)
        if "github.com" not in settings.git_url: text = re.sub(r'<a[^>]*>source</a>|\[source\]\([^)]*\)(\{[^}]*\})?', "", text)
        text = re.sub(r"(\]\([^)]*\))\{target=[^}]*\}", r"\1", text)
        return re.sub(r"^```.*?^```", lambda code: re.sub(r"\[(`[^`]+`)\]\([^)]*\)", r"\1", code[0]), text, flags=re.S | re.M)  # no links inside code
    for cell in page.cells:
        if cell.cell_type == "markdown": cell.source = mend(cell.source)
        for data in (o.data for o in cell.get("outputs", []) if "data" in o and "text/markdown" in o.data): data["text/markdown"] = mend("".join(data["text/markdown"]))


# %%
#| export
def render_docs(
    notebooks: list[Path], # executed, in order
    site: Path,
) -> tuple[Path, str]: # the first page, what rendered it
    "Make the documentation: README, chapters, every exported symbol."
    project = project_folder()
    with tempfile.TemporaryDirectory(prefix="pneumo-site-") as staging:
        staging = Path(staging)
        pages = documented([project/"nbs/index.ipynb", *notebooks], project)
        finish_pages({name.partition("_")[0].lstrip("0") or "0": page for name, page in pages.items() if name[:2].isdecimal()}, staging)
        stage_pages(staging, project, "pneumo_nb", pages, {f.name: f for f in notebooks})
        by = render(staging, site)
    return site/"index.html", by


# %% [markdown]
# ## All runs side by side
#
# `runs/index.html` has a row for each model of each run, sorts by any column, and shows those parameters in which the runs differ.

# %%
#| export
RUN_COLUMNS = {"roc_auc": "AUROC", "accuracy": "accuracy", "recall_pneumonia": "sensitivity", "recall_normal": "specificity", "f1_normal": "F1 normal",
            "f1_pneumonia": "F1 pneumonia", "average_precision": "average precision", "brier": "Brier score", "training_seconds": "training, s"}

def run_facts(folder: Path) -> dict | None: # "stage.name" → value; None if the run's record cannot be read
    "All parameters of a run's stages."
    try: stages = read_provenance(folder)["stages"]
    except StudyError as e:
        print(f"Note: {folder.name} is left out of the list of runs. {e}")
        return None
    return {f"{stage}.{name}": value for stage, r in stages.items() for name, value in r["parameters"].items()}

def runs_rows(runs: Path) -> list[dict]: # a row a run and model
    "Metrics of every run, and the parameters in which they differ."
    import pandas as pd
    facts = {f.parent: known for f in sorted(runs.glob("*/provenance.json")) if (known := run_facts(f.parent)) is not None}
    differing = [k for k in dict.fromkeys(k for p in facts.values() for k in p) if len({str(p.get(k)) for p in facts.values()}) > 1]
    rows = []
    for folder in facts:
        begun = min((r["started"] for r in read_provenance(folder)["stages"].values()), default="")[:16].replace("T", " ")
        models = pd.read_csv(folder/"comparison.csv").to_dict("records") if (folder/"comparison.csv").exists() else [{}]
        name = html.escape(folder.name)
        link = f'<a href="{name}/site/index.html">{name}</a>' if (folder/"site/index.html").exists() else name
        rows += [{"run": link, "begun (UTC)": begun, "model": html.escape(MODEL_TITLES.get(m.get("model"), m.get("model", "–"))),
                  **{words: f"{m[key]:.4f}" if key != "training_seconds" else f"{m[key]:.0f}" for key, words in RUN_COLUMNS.items() if key in m and m[key] == m[key]},
                  **{k: html.escape(str(facts[folder].get(k, "–"))) for k in differing}} for m in models]
    return rows


# %%
#| export
def write_runs_index(runs: Path) -> Path: # the page
    "Write `index.html` beside the runs."
    assets, rows = project_folder()/"nbs/assets", runs_rows(runs)
    styles = "".join((assets/f).read_text(encoding="utf-8") for f in ("layout.css", "study.css"))
    body = table_html(rows, "A row a run and model; click a heading to sort", escape=False, sort_from=0) if rows else "<p>There are no runs yet.</p>"
    text = (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Runs · pneumo_nb</title><link rel="icon" href="data:,">'
            f'<style>{styles}</style></head><body><header class="top"><a href="index.html">pneumo_nb</a></header><main style="padding: 1rem 1.2rem"><h1>Runs</h1>'
            f'<p class="text">Every model of every run in this folder. Columns such as <code>cnn.epochs</code> are the parameters in which the runs differ.</p>{body}</main>'
            f'<script>{(assets/"sortable.auto.min.js").read_text(encoding="utf-8")}</script></body></html>\n')
    with atomic_path(runs/"index.html") as partial: partial.write_text(text, encoding="utf-8")
    return runs/"index.html"


# %% [markdown]
# A run with one executed chapter gives a landing page, that chapter, and methods and limits:

# %%
with tempfile.TemporaryDirectory() as runs:
    folder = Path(runs)/"small"
    test_fail(lambda: render_report(folder), contains="do `pneumo run` first")
    chapter = nb.new_notebook(cells=[nb.new_markdown_cell("# Data\n\n> Which films there are"), nb.new_code_cell("1 + 1")])
    (folder/"notebooks").mkdir(parents=True); nbformat.write(chapter, folder/"notebooks/02_data.ipynb")
    index, by = render_report(folder)
    print(sorted(p.name for p in index.parent.iterdir()), "by", by)
    assert "Which films there are" in index.read_text() and "This run has not been evaluated" in index.read_text()
    test_eq([d.name for d in folder.glob(".partial-*")], [])

# %% [markdown]
# ## Results for a README
#
# Numbers typed by hand grow stale. `results_markdown` makes the table from the files of one or more runs, with published results on the same films beside them, and `write_between` puts it
# between two markers of a text. A table may be put together from runs that are not all on one machine: `results_in` reads what it already says, and that is kept, with a dash where the table did not yet have a column.

# %%
#| export
MARKERS = "<!-- results: written by `pneumo results RUN... --write FILE` -->", "<!-- end of results -->"

PUBLISHED = {  # results on the same 624 test films: AUROC, accuracy
    "reference study, CNN": (.936, .872), "reference study, ResNet50, fine-tuned": (.936, .867), "Kermany et al. 2018, Inception-v3, transferred": (.968, .928),
    "MedMNIST v2 (Yang et al. 2023), ResNet-18, 28 pixels": (.944, .854), "MedMNIST v2, ResNet-18, 224 pixels": (.956, .864), "MedMNIST v2, ResNet-50, 28 pixels": (.948, .854),
    "MedMNIST v2, ResNet-50, 224 pixels": (.962, .884), "MedMNIST v2, auto-sklearn": (.942, .855), "MedMNIST v2, AutoKeras": (.947, .878), "MedMNIST v2, Google AutoML Vision": (.991, .946)}

AT = "accuracy at the run's threshold"

def results_rows(folder: Path) -> list[dict]: # a row a model, and one for each kind of which several were trained
    "A run's models in the columns of the results table."
    import pandas as pd
    from pneumo_nb.evaluation import RULES, span, spread_table, title
    if not (folder/"comparison.csv").exists(): raise StudyError(f"Expected comparison.csv in {folder}, found none; run the evaluation first.")
    clean = lambda value, form: form.format(value) if value == value else "–"
    chosen = {(r["model"], r["chosen"]): span(r, "accuracy") for r in pd.read_csv(folder/"metrics/evaluation_thresholds.csv").to_dict("records")}
    rows = [{"model": title(r["model"]), "AUROC": span(r, "roc_auc"), AT: span(r, "accuracy"), **{f"accuracy, {rule}": chosen.get((r["model"], rule), "–") for rule in RULES},
             "trained": "1" if r["model"] != "compact_ensemble" else f"{member_count(folder)} together", "training": clean(r["training_seconds"], "{:,.0f} s"), "parameters": clean(r.get("parameters", float("nan")), "{:,.0f}")}
            for r in pd.read_csv(folder/"comparison.csv").to_dict("records")]
    members = read_members(folder)
    for row in spread_table(members).to_dict("records") if len(members) else []:
        rows.append({"model": f"{row['']}, mean and range", "AUROC": row["AUROC"], AT: row[AT], **{f"accuracy, {rule}": row[f"accuracy, {rule}"] for rule in RULES}, "trained": f"{row['trained']} apart", "training": "–", "parameters": "–"})
    return rows


# %%
#| export
def read_members(folder: Path): # data frame: the evaluation's `member_table`, empty without members
    "What an evaluation found of trainings of a kind."
    import pandas as pd
    file = folder/"metrics/evaluation_members.csv"
    if not file.exists() or file.stat().st_size <= 2: return pd.DataFrame()
    members = pd.read_csv(file)
    if "accuracy_Youden" not in members: raise StudyError(f"Expected trainings judged by each rule in {file}, found an earlier version's; do `pneumo run --run {folder.name} --only evaluation --fresh` first.")
    return members

def public_test(folder: Path) -> bool:
    "Whether a run's test films are, by their numbers and names, those that others published on."
    rows = [r for r in films_rows(folder) if r["split"] == "test"]
    return bool(rows) and [rows[0][k] for k in ("normal", "bacterial pneumonia", "viral pneumonia")] == ["234", "242", "148"] and read_json(folder/"metrics/data.json")["source"] != "phantoms"

def member_count(folder: Path) -> int:
    "How many networks a run's ensemble averages."
    return len([f for f in (folder/"predictions/members").glob("compact_s*_[fr]*.csv")])


# %%
#| export
def results_markdown(
    folders: list[Path], # evaluated runs on the same films
    others: dict | None = None, # from `results_in`: what a table already says of runs, in its order; those in `folders` are made anew
) -> str: # markdown
    "The models of one or more runs, beside published results, with what they were made from."
    facts = [read_json(folder/"metrics/data.json") for folder in folders]
    if len({f["fingerprint"] for f in facts}) > 1: raise StudyError(f"Expected runs on the same films, found {', '.join(f.name for f in folders)} on different ones; print them one by one.")
    new = {folder.name: ([{"model": r["model"], "run": folder.name} | r for r in results_rows(folder)], run_words(folder)) for folder in folders}
    check_others(others or {}, new)
    others, columns = others or {}, next(iter(new.values()))[0][0]
    said = {name: told for name, told in new.items() if name not in others} | others | new  # runs that are new to the table come first
    rows = [{c: row.get(c, "–") for c in columns} for own, _ in said.values() for row in own]
    if public_test(folders[0]): rows += [{"model": who, "run": "published", "AUROC": f"{auroc:.3f}", AT: f"{accuracy:.3f}"} for who, (auroc, accuracy) in PUBLISHED.items()]
    return markdown_table(rows) + "\n\n" + " ".join(words for _, words in said.values()) + (
        " In brackets: 95 % intervals, patients redrawn; in rows of means the range over trainings. Accuracies with a rule's name: at the threshold that it chose on validation.")

def results_in(text: str) -> dict[str, tuple[list[dict], str]]: # run → its rows, its words; in the table's order
    "What a text's results table says of each run; published rows left out."
    block = re.sub(r"^# ?", "", text.partition(MARKERS[0])[2].partition(MARKERS[1])[0], flags=re.M)  # percent scripts have text in comments
    table, _, words = block.strip().partition("\n\n")
    cells = [[c.strip() for c in line.strip("| ").split(" | ")] for line in table.splitlines()]
    rows = [dict(zip(cells[0], line)) for line in cells[2:]]
    said = {name: part for part, name in re.findall(r"(Run `([^`]+)`: .*?)(?= Run `| In brackets: )", words)}
    return {name: ([r for r in rows if r["run"] == name], said.get(name, "")) for name in dict.fromkeys(r["run"] for r in rows) if name != "published"}

def check_others(others: dict, new: dict): # both run → rows, words
    "Refuse to put runs into a table whose columns they lack, or beside runs on films of another name; more is not known of runs that are not here."
    films = lambda words: words.partition(": ")[2].partition(",")[0]
    rows, words = next(iter(new.values()))
    for name, (own, said) in others.items():
        if name in new: continue
        if strange := [c for c in own[0] if c not in rows[0]]: raise StudyError(f"Expected no columns but {', '.join(rows[0])}, found {', '.join(strange)} in the table; write all of its runs anew.")
        if films(said) != films(words): raise StudyError(f"Expected runs on {films(words)}, found {name} on {films(said) or 'films that are not named'} in the table; write all of its runs anew.")


# %%
#| export
def markdown_table(rows: list[dict]) -> str: # columns are those of the first row
    "Rows as a Markdown table; a dash where a row has nothing."
    lines = [list(rows[0]), ["---"] * len(rows[0]), *[[r.get(c, "–") for c in rows[0]] for r in rows]]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)

def run_words(folder: Path) -> str:
    "What a run was made from, in words."
    provenance, facts = read_provenance(folder), read_json(folder/"metrics/data.json")
    stages = provenance["stages"]
    films = "drawn phantoms" if facts["source"] == "phantoms" else f"`{Path(facts['root']).name}`"
    sizes = sorted({str(size) for name, r in stages.items() if name in ("mlp", "cnn", "resnet", "compact") for size in r["parameters"].get("sizes") or [r["parameters"]["image_size"]]}, key=int)
    seeds = sorted({str(r["parameters"]["seed"]) for name, r in stages.items() if name in ("mlp", "cnn", "resnet", "compact")})
    commits, looks = ", ".join(dict.fromkeys(r["git_commit"][:10] for r in stages.values())), len(provenance.get("test_looks", []))
    return (f"Run `{folder.name}`: {films}, films of {' and '.join(sizes) or 'no'} pixels, seed {', '.join(seeds) or 'none'}, {stages['evaluation']['machine']['cores']} cores, commit {commits}, {looks} look(s) at the test films, threshold {stages['evaluation']['parameters']['threshold']:g}."
            + "".join(f" {name}: {text}" for name, r in stages.items() for text in r["notes"]))


# %% [markdown]
# An ablation asks what an ingredient is worth: the same recipe with one thing changed. `ablation_markdown` puts such runs below a first one, says what is different in each, and gives the numbers that recipes are chosen by, from the
# folds that each network never saw, beside those on test, which are for reading only.

# %%
#| export
ABLATION_MARKERS = "<!-- ablation: written by `pneumo ablation RUN... --write FILE` -->", "<!-- end of ablation -->"

def ablation_markdown(
    folders: list[Path], # runs of the recipe; the first is what the others are compared with
) -> str: # markdown
    "What changes when one ingredient of the recipe does."
    import pandas as pd
    if len({read_json(f/"metrics/data.json")["fingerprint"] for f in folders}) > 1: raise StudyError("Expected runs on the same films, found different ones; compare them one set at a time.")
    rows, asked = [], [read_provenance(f)["stages"].get("compact", {}).get("parameters") for f in folders]
    if missing := [f.name for f, p in zip(folders, asked) if p is None or not (f/"comparison.csv").exists()]: raise StudyError(
        f"Expected runs with the stages compact and evaluation, found {', '.join(missing)} without; run them first.")
    if older := [f.name for f in folders if "tall" not in read_json(f/"metrics/compact.json")]: raise StudyError(f"Expected runs that were judged on films with tall markers, found {', '.join(older)} of an earlier version; run the stage compact again.")
    part = lambda value: "–" if value is None else f"{value:.4f}"
    for folder, parameters in zip(folders, asked):
        told, compared = read_json(folder/"metrics/compact.json"), pd.read_csv(folder/"comparison.csv").set_index("model")
        best = compared.loc["compact_ensemble" if "compact_ensemble" in compared.index else "compact"]
        changed = ", ".join(f"{k} {parameters.get(k)}" for k in {**asked[0], **parameters} if parameters.get(k) != asked[0].get(k)) or "the recipe"
        each = [m["auroc"] for m in told["members"]]
        rows.append({"changed": changed, "folds": f"{told['auroc']:.4f} ({min(each):.3f}–{max(each):.3f})", "viral": part(told["virus"]), "weighted": part(told["weighted"]), "tall marker": "–" if told["tall"]["auroc"] is None else "{auroc:.3f} ({low:.3f}–{high:.3f})".format(**told["tall"]),
                     "gray swapped": part(told["swapped"]), "sharpness swapped": part(told["bands"]), "shape swapped": part(told["shape"]), "test AUROC": f"{best.roc_auc:.4f}", "test accuracy": f"{best.chosen_accuracy:.4f}", "training": f"{sum(told['seconds'].values()):,.0f} s"})
    return markdown_table(rows) + ablation_words(folders, asked[0])

def ablation_words(folders: list[Path], p: dict) -> str: # `p`: parameters of the first run
    "What the columns of the ablation are."
    judging = len({m["fold"] for m in read_json(folders[0]/"metrics/compact.json")["members"]})
    folds = {"series": "across the naming series", "numbers": "along the patient numbers"}[p["folds_by"]]
    answering = "the networks that learned from all folds" if p["refits"] else "these networks averaged"
    counted = {f"{t['normal']} normal and {t['pneumonia']} with pneumonia" for t in (read_json(f/"metrics/compact.json")["tall"] for f in folders)}
    return (f"\n\nAUROC of {judging} folds {folds}, each judged by a network that did not see it, on average (in brackets the range): all films; viral against normal; films weighted so that appearance says little; films with a tall side marker "
        f"({' or '.join(sorted(counted))}; in brackets 95 %, patients redrawn); gray levels, sharpness, or the shape of the film swapped between the classes. {p['epochs']} epochs at "
        f"{p['image_size']} pixels unless changed. Test: {answering}, at the threshold that validation chose. Commit {', '.join(dict.fromkeys(r['git_commit'][:10] for f in folders for r in read_provenance(f)['stages'].values()))}.")


# %%
#| export
def write_between(
    file: Path, # a Markdown file or percent script
    text: str,
    markers: tuple[str, str] = MARKERS,
) -> Path: # `file`
    "Replace what stands between two markers."
    before, found, rest = file.read_text(encoding="utf-8").partition(markers[0])
    _, end, after = rest.partition(markers[1])
    if not (found and end): raise StudyError(f"Expected the lines {markers[0]!r} and {markers[1]!r} in {file}, found no such pair; add them where the table shall go.")
    prefix = "# " if file.suffix == ".py" else ""
    block = "".join(f"{prefix}{line}".rstrip() + "\n" for line in ["", *text.splitlines(), ""])
    with atomic_path(file) as partial: partial.write_text(f"{before}{found}\n{block}{prefix}{end}{after}", encoding="utf-8")
    return file


# %%
with tempfile.TemporaryDirectory() as folder:
    readme = Path(folder)/"README.md"
    readme.write_text(f"before\n{MARKERS[0]}\nold\n{MARKERS[1]}\nafter\n")
    test_eq(write_between(readme, "| new |").read_text(), f"before\n{MARKERS[0]}\n\n| new |\n\n{MARKERS[1]}\nafter\n")
    test_eq(write_between(readme, "| new |").read_text().count("| new |"), 1)
    said = "Run `a`: drawn phantoms, films of 16 pixels. Run `b`: drawn phantoms, films of 32 pixels. In brackets: 95 % intervals"
    write_between(readme, markdown_table([dict(model="m", run="a"), dict(model="n", run="a"), dict(model="m", run="b"), dict(model="who", run="published")]) + f"\n\n{said}")
    found = results_in(readme.read_text())
    test_eq({name: [r["model"] for r in rows] for name, (rows, _) in found.items()}, dict(a=["m", "n"], b=["m"]))
    test_eq([words for _, words in found.values()], ["Run `a`: drawn phantoms, films of 16 pixels.", "Run `b`: drawn phantoms, films of 32 pixels."])
    readme.write_text("no markers")
    test_fail(lambda: write_between(readme, "x"), contains="add them")
