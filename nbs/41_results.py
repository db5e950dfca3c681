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
# # Results
#
# > Tables of finished runs for texts that are kept: results, a summary of them, and ablations

# %%
#| default_exp results

# %%
#| export
import re, textwrap
from fnmatch import fnmatchcase
from pathlib import Path

from pneumo_nb.run import (
    StudyError, atomic_path, digests, read_json, read_provenance, read_table, stages)
from pneumo_nb.style import (
    counted, looks_in_words, mean_and_range, model_title, title_with_remark, value_with_interval)

# %%
#| hide
import io, tempfile
from contextlib import redirect_stdout
from fastcore.test import test_eq, test_fail
from pneumo_nb.run import finish, open_stage


# %% [markdown]
# Numbers typed by hand grow stale. Commands make the tables of this project's texts from the files of
# finished runs, and put them between two markers that stand in the text.
#
# ## Files as the stages wrote them
#
# A file may have been changed by hand, cut short or put in from elsewhere since its stage ended. It would be
# read like any other. So whatever makes a table or a page compares the files that it reads with the digests
# in the run's record first. Predictions that no stage wrote are another model's, and allowed.

# %%
#| export
def check_outputs(
    folder: Path,   # a run directory
    *patterns: str, # of the files that are about to be read
):
    "Refuse a run's files that are not what its stages wrote, and an evaluation of other predictions."
    records, there = read_provenance(folder)["stages"], digests(folder, patterns)
    written = {file: digest for record in records.values() for file, digest in record["outputs"].items()
               if any(fnmatchcase(file, pattern) for pattern in patterns)}
    for file in _differing(written, there):
        stage, is_ours = _writer(file), file in written or not file.startswith("predictions/")
        if stage and is_ours: raise StudyError(
            f"Expected {file} as the stage {stage} wrote it in the run {Path(folder).name}, found "
            f"{_difference(file, written, there)}; do `{command_for(folder, stage)}` to make it anew.")
    _check_judged(folder, records)


# %%
#| export
def _differing(before: dict, now: dict) -> list[str]: # both file → digest
    "Files that were added, changed or removed."
    return sorted(file for file in {*before, *now} if before.get(file) != now.get(file))

def _difference(file: str, before: dict, now: dict) -> str:
    "What became of a file."
    if file not in now: return "none"
    return "it changed" if file in before else "one that no finished stage wrote"


# %%
#| export
def _writer(file: str) -> str | None: # None for a file that no stage writes
    "The stage that writes a file."
    writers = [stage.name for stage in stages().values() if any(fnmatchcase(file, p) for p in stage.outputs)]
    return writers[0] if writers else None

def command_for(folder: Path, stage: str) -> str:
    "The command that does one stage of a run again."
    folder = Path(folder).resolve()
    is_here = folder.parent == Path("runs").resolve()
    return f"pneumo run --run {folder.name if is_here else folder} --only {stage}"


# %%
#| export
def _check_judged(folder: Path, records: dict):
    "Refuse an evaluation of other predictions than there are."
    judged = records.get("evaluation", {}).get("inputs")
    if judged is None: return
    before = {file: digest for file, digest in judged.items() if file.startswith("predictions/")}
    now = digests(folder, ["predictions/*.csv"])
    for file in _differing(before, now):
        what = "removed" if file not in now else "changed" if file in before else "added"
        raise StudyError(f"Expected {file} as it was evaluated in the run {Path(folder).name}, found it "
                         f"{what} since; do `{command_for(folder, 'evaluation')}` to evaluate what there is.")


# %%
with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
    stage, read = open_stage("evaluation", folder), ("comparison.csv", "predictions/*.csv")
    stage.path("comparison.csv").write_text("model,roc_auc\nmine,.7\n")
    test_fail(lambda: check_outputs(folder, *read), contains="found one that no finished stage wrote; do")
    finish(stage)
    check_outputs(folder, *read)
    stage.path("comparison.csv").write_text("model,roc_auc\nmine,.9\n")
    test_fail(lambda: check_outputs(folder, *read), contains="as the stage evaluation wrote it")
    stage.path("comparison.csv").unlink()
    test_fail(lambda: check_outputs(folder, *read), contains="found none; do `pneumo run --run")
    finish(stage)
    stage.path("predictions").mkdir()
    stage.path("predictions/mine.csv").write_text("path\n")
    test_fail(lambda: check_outputs(folder, *read), contains="predictions/mine.csv as it was evaluated in")


# %% [markdown]
# ## A table in Markdown

# %%
#| export
def _markdown_table(
    rows: list[dict], # text; the first row's keys are the columns
) -> str:
    "Rows as a Markdown table; a dash where a row has nothing."
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *[[row.get(c, "–") for c in columns] for row in rows]]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


# %%
print(_markdown_table([dict(model="CNN", AUROC="0.930"), dict(model="MLP")]))


# %% [markdown]
# ## Between two markers
#
# `write_between` replaces what stands between two lines of a text and leaves the rest alone. In a percent
# script the text stands in comments, and long lines are wrapped.

# %%
#| export
def read_text(file: Path) -> str:
    "A text that is kept; what is none is refused by its name."
    try: return Path(file).read_text(encoding="utf-8")
    except ValueError: raise StudyError(
        f"Expected text in UTF-8 in {file}, found something else; name another file.") from None


# %%
#| export
def write_between(
    file: Path, # a Markdown file or percent script
    text: str,
    markers: tuple[str, str],
) -> Path: # `file`
    "Replace what stands between two markers."
    before, first, rest = read_text(file).partition(markers[0])
    _, last, after = rest.partition(markers[1])
    if not (first and last): raise StudyError(
        f"Expected the lines {markers[0]!r} and {markers[1]!r} in {file}, found no such pair; "
        "add them where the table shall go.")
    prefix = "# " if file.suffix == ".py" else ""
    block = "".join(f"{prefix}{line}".rstrip() + "\n" for line in ["", *_wrapped(text), ""])
    with atomic_path(file) as partial:
        partial.write_text(f"{before}{first}\n{block}{prefix}{last}{after}", encoding="utf-8")
    return file


# %%
#| export
def _wrapped(text: str) -> list[str]:
    "Lines of at most 108 characters; those of a table stay whole."
    wrap = lambda line: textwrap.wrap(line, 108, break_long_words=False, break_on_hyphens=False) or [""]
    return [part for line in text.splitlines() for part in ([line] if line.startswith("|") else wrap(line))]


# %%
#| export
def _text_between(text: str, markers: tuple[str, str]) -> str:
    "What stands between two markers, without the signs of comments."
    block = text.partition(markers[0])[2].partition(markers[1])[0]
    return re.sub(r"^# ?", "", block, flags=re.M).strip()


# %%
with tempfile.TemporaryDirectory() as folder:
    readme = Path(folder)/"README.md"
    readme.write_text("before\n<!-- a -->\nold\n<!-- b -->\nafter\n")
    marks = "<!-- a -->", "<!-- b -->"
    written = write_between(readme, "| new |", marks).read_text()
    test_eq(written, "before\n<!-- a -->\n\n| new |\n\n<!-- b -->\nafter\n")
    test_eq(write_between(readme, "| new |", marks).read_text().count("| new |"), 1)
    readme.write_text("no markers")
    test_fail(lambda: write_between(readme, "x", marks), contains="add them")
    readme.write_bytes(b"\xff\xfe")
    test_fail(lambda: write_between(readme, "x", marks), contains="README.md, found something else")

# %% [markdown]
# ## Published results
#
# Others were judged on the same 624 test films. None of these came with an interval.

# %%
#| export
PUBLISHED = {  # AUROC, accuracy
    "reference study, CNN": (.936, .872),
    "reference study, ResNet50, fine-tuned": (.936, .867),
    "Kermany et al. 2018, Inception-v3, transferred": (.968, .928),
    "MedMNIST v2 (Yang et al. 2023), ResNet-18, 28 pixels": (.944, .854),
    "MedMNIST v2, ResNet-18, 224 pixels": (.956, .864),
    "MedMNIST v2, ResNet-50, 28 pixels": (.948, .854),
    "MedMNIST v2, ResNet-50, 224 pixels": (.962, .884),
    "MedMNIST v2, auto-sklearn": (.942, .855),
    "MedMNIST v2, AutoKeras": (.947, .878),
    "MedMNIST v2, Google AutoML Vision": (.991, .946)}

_PUBLIC_KINDS = {"normal": 234, "bacteria": 242, "virus": 148}  # of the public test films


# %%
#| export
def is_public_test(
    folder: Path, # a run directory
) -> bool:
    "Whether a run's test films are, by their numbers and names, those that others published on."
    if not (folder/"images.csv").exists(): return False
    images = read_table(folder/"images.csv", ["kind", "split"])
    counts = images.kind[images.split == "test"].value_counts().to_dict()
    return counts == _PUBLIC_KINDS and read_json(folder/"metrics/data.json")["source"] != "phantoms"


# %% [markdown]
# ## One run's rows
#
# A row a model, with intervals from redrawn patients. Where a run trained several networks that differ by
# seed alone, a further row has their mean and range.

# %%
#| export
AT = "accuracy at the run's threshold"

EVALUATED = ("comparison.csv", "images.csv", "metrics/data.json", "metrics/evaluation*", "predictions/*.csv")


# %%
#| export
def results_rows(
    folder: Path, # an evaluated run
) -> list[dict]: # text, in the columns of the results table
    "A run's models, and the mean and range of trainings of a kind."
    if not (folder/"comparison.csv").exists(): raise StudyError(
        f"Expected comparison.csv in {folder}, found none; run the evaluation first.")
    numbers = ["roc_auc", "networks"]  # a table without them is an earlier version's
    comparison = read_table(folder/"comparison.csv", ["model", *numbers], numbers).to_dict("records")
    by_rule = _rule_accuracies(folder)
    rules = list(dict.fromkeys(rule for _, rule in by_rule))
    return [_model_row(row, rules, by_rule) for row in comparison] + _spread_rows(folder, rules)


# %%
#| export
def _rule_accuracies(
    folder: Path,
) -> dict[tuple[str, str], str]: # (model, rule) → accuracy with its interval
    "Accuracy of each model at the threshold that each rule chose."
    file = folder/"metrics/evaluation_thresholds.csv"
    thresholds = read_table(file, ["model", "chosen", "accuracy"], ["accuracy"]).to_dict("records")
    chosen = [row for row in thresholds if row["chosen"] != "fixed"]
    return {(row["model"], row["chosen"]): value_with_interval(row, "accuracy") for row in chosen}


# %%
#| export
def _model_row(row: dict, rules: list[str], by_rule: dict) -> dict:
    "One model of a comparison."
    number = lambda key, form: form.format(row[key]) if key in row and row[key] == row[key] else "–"
    networks = int(row.get("networks", 1))
    return {"model": title_with_remark(row), "AUROC": value_with_interval(row, "roc_auc"),
            AT: value_with_interval(row, "accuracy"),
            **{f"accuracy, {rule}": by_rule.get((row["model"], rule), "–") for rule in rules},
            "trained": "1" if networks == 1 else f"{networks} together",
            "training": number("training_seconds", "{:,.0f} s"),
            "parameters": number("parameters", "{:,.0f}")}


# %%
#| export
def _read_members(
    folder: Path, # an evaluated run
): # data frame: the evaluation's table of trainings of a kind, empty without any
    "What an evaluation found of trainings of a kind."
    import pandas as pd
    file = folder/"metrics/evaluation_members.csv"
    if not file.exists() or file.stat().st_size <= 2: return pd.DataFrame()
    members = read_table(file)
    if "accuracy_Youden" in members: return members
    raise StudyError(f"Expected trainings judged by each rule in {file}, found an earlier version's; "
                     f"do `pneumo run --run {folder.name} --only evaluation --fresh` first.")


# %%
#| export
def _spread_rows(folder: Path, rules: list[str]) -> list[dict]:
    "Mean and range over the trainings of each kind, where there are two or more."
    members = _read_members(folder)
    rows = []
    for kind, group in members.groupby("kind", sort=False) if len(members) else ():
        if len(group) < 2: continue
        accuracies = {f"accuracy, {rule}": mean_and_range(group[f"accuracy_{rule}"]) for rule in rules}
        rows.append({"model": f"{model_title(kind)}, mean and range", "AUROC": mean_and_range(group.roc_auc),
                     AT: mean_and_range(group.accuracy_fixed), **accuracies,
                     "trained": f"{len(group)} apart"})
    return rows


# %% [markdown]
# ## What a run was made from
#
# Below the table stands what each run was made from: films, their size, seeds, code, and how often test was
# looked at.

# %%
#| export
def machine_words(
    records: list[dict], # of stages, in their order
) -> str: # such as "2 cores, 1 thread"
    "The cores of a machine and how many threads worked there, as far as records tell."
    threads = sorted({r["machine"]["threads"] for r in records if "threads" in r["machine"]})
    words = f", {' or '.join(map(str, threads))} thread" + ("" if threads == [1] else "s")
    return counted(records[-1]["machine"]["cores"], "core") + (words if threads else "")


# %%
of_threads = lambda *numbers: [dict(machine=dict(cores=2, threads=n)) for n in numbers]
test_eq(machine_words(of_threads(1)), "2 cores, 1 thread")
test_eq(machine_words(of_threads(2, 1)), "2 cores, 1 or 2 threads")
test_eq(machine_words([dict(machine=dict(cores=2))]), "2 cores")    # an earlier version's record


# %%
#| export
def _run_words(folder: Path) -> str:
    "What a run was made from, in words."
    records, facts = read_provenance(folder)["stages"], read_json(folder/"metrics/data.json")
    model_stages = [name for name, stage in stages().items() if stage.models and name in records]
    trained = [records[name]["parameters"] for name in model_stages]
    sizes = sorted({p["image_size"] for p in trained})
    evaluation = records["evaluation"]
    commits = dict.fromkeys(r["git_commit"][:10] for r in records.values())
    parts = ["drawn phantoms" if facts["source"] == "phantoms" else f"`{Path(facts['root']).name}`",
             f"films of {' and '.join(map(str, sizes)) or 'no'} pixels",
             f"seed {', '.join(sorted({str(p['seed']) for p in trained})) or 'none'}",
             machine_words(list(records.values())), f"commit {', '.join(commits)}", looks_in_words(folder),
             f"threshold {evaluation['parameters']['threshold']:g}"]
    notes = [f" {name}: {text}" for name, r in records.items() for text in r["notes"]]
    return f"Run `{folder.name}`: {', '.join(parts)}." + "".join(notes)


# %% [markdown]
# ## The results table
#
# A table may be put together from runs that are not all at hand. `results_in` reads what a table already
# says. That is kept, with a dash where the table did not yet have a column.

# %%
#| export
RESULTS_MARKERS = ("<!-- results: written by `pneumo results RUN... --write FILE` -->",
                   "<!-- end of results -->")

_KEY = (" In brackets: 95 % intervals over patients; in rows of means the range over trainings. "
        "Accuracies with a rule's name: at the threshold that it chose on validation.")


# %%
#| export
def results_in(
    text: str, # that holds a results table
) -> dict[str, tuple[list[dict], str]]: # run → its rows, its words; in the table's order
    "What a text's results table says of each run; published rows left out."
    table, _, words = _text_between(text, RESULTS_MARKERS).partition("\n\n")
    rows = _table_rows(table)
    words = " ".join(words.split())
    each = re.findall(r"(Run `([^`]+)`: .*?)(?= Run `| In brackets: )", words)
    by_run = {name: part for part, name in each}
    names = dict.fromkeys(r["run"] for r in rows if r["run"] != "published")
    return {name: ([r for r in rows if r["run"] == name], by_run.get(name, "")) for name in names}


# %%
#| export
def _table_rows(table: str) -> list[dict]:
    "The rows of a Markdown table of results."
    cells = [[c.strip() for c in line.strip("| ").split(" | ")] for line in table.splitlines()]
    wanted, columns = {"model", "run", "AUROC", AT}, cells[0] if cells else []
    whole = all(len(line) == len(columns) for line in cells)
    if cells and not (whole and wanted <= {*columns}): raise StudyError(
        f"Expected between the markers a table with {', '.join(sorted(wanted))} and a cell for each column "
        "in each row, found another; write its runs anew, without --add.")
    return [dict(zip(columns, line)) for line in cells[2:]]


# %%
rows = [{"model": model, "run": run, "AUROC": ".9", AT: ".8"}
        for model, run in (("m", "a"), ("n", "a"), ("m", "b"), ("who", "published"))]
words = ("Run `a`: drawn phantoms, films of 16 pixels.\nRun `b`: drawn phantoms, films of 32 pixels. "
         "In brackets: 95 %")
block = "\n".join([RESULTS_MARKERS[0], "", _markdown_table(rows), "", words, "", RESULTS_MARKERS[1]])
there = results_in(block)
test_eq({name: [r["model"] for r in rows] for name, (rows, _) in there.items()}, dict(a=["m", "n"], b=["m"]))
test_eq(there["b"][1], "Run `b`: drawn phantoms, films of 32 pixels.")
test_fail(lambda: results_in(block.replace("| run |", "| walk |")), contains="a table with AUROC, acc")
test_fail(lambda: results_in(block.replace(" | .8 |", " |")), contains="a cell for each column")


# %%
#| export
def results_markdown(
    folders: list[Path], # evaluated runs on the same films
    others: dict | None = None, # from `results_in`: what a table already says of runs, in its order
) -> str: # markdown
    "The models of one or more runs, beside published results, with what they were made from."
    for folder in folders: check_outputs(folder, *EVALUATED)
    _check_same_films(folders)
    others = others or {}
    rows_of = lambda folder: [{"model": r["model"], "run": folder.name} | r for r in results_rows(folder)]
    new = {folder.name: (rows_of(folder), _run_words(folder)) for folder in folders}
    _check_others(others, new)
    first = {name: run for name, run in new.items() if name not in others}  # runs that are new to the table
    runs = first | others | new
    columns = next(iter(new.values()))[0][0]
    rows = [{c: row.get(c, "–") for c in columns} for table, _ in runs.values() for row in table]
    if is_public_test(folders[0]): rows += _published_rows()
    return _markdown_table(rows) + "\n\n" + " ".join(words for _, words in runs.values()) + _KEY


# %%
#| export
def _published_rows() -> list[dict]:
    "Published results in the columns of the results table."
    return [{"model": who, "run": "published", "AUROC": f"{auroc:.3f}", AT: f"{accuracy:.3f}"}
            for who, (auroc, accuracy) in PUBLISHED.items()]


# %% [markdown]
# Runs on different films, or columns that a kept run lacks the meaning of, are refused:

# %%
#| export
def _check_same_films(folders: list[Path]):
    "Refuse runs on different films."
    fingerprints = {read_json(folder/"metrics/data.json")["fingerprint"] for folder in folders}
    if len(fingerprints) > 1: raise StudyError(
        f"Expected runs on the same films, found {', '.join(f.name for f in folders)} on different ones; "
        "print them one by one.")


# %%
#| export
def _check_others(others: dict, new: dict): # both run → rows, words
    "Refuse kept runs with columns of their own, or on films of another name."
    films = lambda words: words.partition(": ")[2].partition(",")[0]
    rows, words = next(iter(new.values()))
    for name, (kept, kept_words) in others.items():
        if name in new: continue
        if strange := [c for c in kept[0] if c not in rows[0]]: raise StudyError(
            f"Expected no columns but {', '.join(rows[0])}, found {', '.join(strange)} in the table; "
            "write all of its runs anew.")
        if films(kept_words) != films(words): raise StudyError(
            f"Expected runs on {films(words)}, found {name} on "
            f"{films(kept_words) or 'films that are not named'} in the table; write all of its runs anew.")


# %%
new = dict(b=([dict(model="m")], "Run `b`: z, y."))
test_fail(lambda: _check_others(dict(a=([dict(colour="red")], "Run `a`: x, y.")), new),
          contains="found colour in the table")
test_fail(lambda: _check_others(dict(a=([dict(model="m")], "Run `a`: x, y.")), new),
          contains="Expected runs on z, found a on x")

# %% [markdown]
# ## A summary
#
# The README shows a few rows of that table. Its marker names them, each as a model and its run. Below them
# stands how often these runs looked at the test films.

# %%
#| export
_SUMMARY_START = re.compile(r"<!-- summary: .*?-->", re.S)
_SUMMARY_END = "<!-- end of summary -->"


# %%
#| export
def _summary_rows(
    text: str, # with a summary's marker, such as `<!-- summary: …; rows: CNN @ reference; … -->`
) -> list[tuple[str, str]]: # model, run
    "Which rows a text wants."
    marker = _SUMMARY_START.search(text)
    if not marker or _SUMMARY_END not in text: raise StudyError(
        "Expected a marker `<!-- summary: …; rows: MODEL @ RUN; … -->` and its end in the text, "
        "found none; add them.")
    words = " ".join(re.sub(r"^# ?", "", marker[0], flags=re.M).split())
    listed = words.partition("rows: ")[2].removesuffix("-->").split(";")
    return [tuple(part.strip() for part in row.split(" @ ")) for row in listed if " @ " in row]


# %%
#| export
def _summary_markdown(
    findings: str,               # a text with the whole results table
    rows: list[tuple[str, str]], # from `_summary_rows`
) -> str: # markdown
    "Some rows of a results table, with AUROC and accuracy."
    table = _table_rows(_text_between(findings, RESULTS_MARKERS).partition("\n\n")[0])
    known = {(r["model"], r["run"]): r for r in table}
    if missing := [f"{model} @ {run}" for model, run in rows if (model, run) not in known]: raise StudyError(
        f"Expected rows of the results table, found {'; '.join(missing)}, which it does not hold; "
        "correct the marker.")
    heads = {"model": "model", "run": "run", "AUROC": "AUROC", AT: "accuracy"}
    return _markdown_table([{head: known[row][key] for key, head in heads.items()} for row in rows])


# %%
#| export
def _summary_looks(
    findings: str,               # a text with the whole results table
    rows: list[tuple[str, str]], # from `_summary_rows`
) -> str: # a sentence; "" where the table does not tell
    "How often the runs of a summary looked at the test films."
    known = {name: re.search(r"([\d,]+ looks?) at the test films", words)
             for name, (_, words) in results_in(findings).items()}
    runs = dict.fromkeys(run for _, run in rows if known.get(run))
    parts = [f"{known[run][1]} by the run `{run}`" for run in runs]
    return f"By their records, test films had {', '.join(parts)}." if parts else ""


# %%
#| export
def write_summary(
    file: Path,     # takes the summary between its markers
    findings: Path, # holds the results table
) -> Path: # `file`
    "Write a text's summary anew."
    text = read_text(file)
    rows = _summary_rows(text)
    whole = read_text(findings)
    summary = "\n\n".join([_summary_markdown(whole, rows), _summary_looks(whole, rows)]).rstrip()
    return write_between(file, summary, (_SUMMARY_START.search(text)[0], _SUMMARY_END))


# %%
wanted = "<!-- summary: written by a command;\n# rows: m @ b; n @ a -->\n# <!-- end of summary -->"
test_eq(_summary_rows(wanted), [("m", "b"), ("n", "a")])
whole = _markdown_table(rows)
with tempfile.TemporaryDirectory() as folder:
    findings, readme = Path(folder)/"findings.md", Path(folder)/"README.py"
    findings.write_text("\n".join([RESULTS_MARKERS[0], "", whole, "", words, RESULTS_MARKERS[1]]))
    readme.write_text(f"# {wanted}\n")
    summary = write_summary(readme, findings).read_text()
    assert "# | m | b | .9 | .8 |\n# | n | a | .9 | .8 |" in summary
    test_fail(lambda: _summary_markdown(findings.read_text(), [("m", "c")]), contains="m @ c")
looked = block.replace("films of 16 pixels", "3 looks at the test films")
test_eq(_summary_looks(looked, [("m", "a"), ("m", "b")]),
        "By their records, test films had 3 looks by the run `a`.")

# %% [markdown]
# ## An ablation
#
# An ablation asks what an ingredient is worth: the same recipe with one thing changed. The first run is what
# the others are compared with. The numbers that recipes are chosen by come from folds that each network never
# saw. Those on test stand beside them, for reading only.

# %%
#| export
ABLATION_MARKERS = ("<!-- ablation: written by `pneumo ablation RUN... --write FILE` -->",
                    "<!-- end of ablation -->")


# %%
#| export
def _examined_stage(folder: Path): # Declaration
    "The stage whose examinations on films that are not test a run holds."
    examining = [stage for stage in stages().values() if stage.examinations]
    done = [stage for stage in examining if (folder/stage.examinations).exists()]
    if done and (folder/"comparison.csv").exists(): return done[0]
    wanted = " or ".join(stage.name for stage in examining)
    raise StudyError(f"Expected runs with the stages {wanted} and evaluation, found {folder.name} without; "
                     "run them first.")


# %%
#| export
def _examinations(folder: Path) -> dict:
    "What a stage found of its networks on films that are not test."
    stage = _examined_stage(folder)
    results = read_json(folder/stage.examinations)
    if "tall" not in results: raise StudyError(
        f"Expected runs that were judged on films with tall markers, found {folder.name} of an earlier "
        f"version; run the stage {stage.name} again.")
    return results


# %%
#| export
def _recipe(folder: Path) -> dict:
    "The parameters of the examined stage."
    return read_provenance(folder)["stages"][_examined_stage(folder).name]["parameters"]


# %%
#| export
def ablation_markdown(
    folders: list[Path], # runs of the recipe; the first is what the others are compared with
) -> str: # markdown
    "What changes when one ingredient of the recipe does."
    examinations = [stage.examinations for stage in stages().values() if stage.examinations]
    for folder in folders: check_outputs(folder, *EVALUATED, *examinations)
    _check_same_films(folders)
    recipes = [_recipe(folder) for folder in folders]
    rows = [_ablation_row(folder, recipe, recipes[0]) for folder, recipe in zip(folders, recipes)]
    return _markdown_table(rows) + "\n\n" + _ablation_words(folders, recipes[0])

def _changed(recipe: dict, first: dict) -> str:
    "In which parameters a recipe differs from the first."
    names = {**first, **recipe}
    return ", ".join(f"{k} {recipe.get(k)}" for k in names if recipe.get(k) != first.get(k)) or "the recipe"



# %%
#| export
def _ablation_row(folder: Path, recipe: dict, first: dict) -> dict:
    "One recipe's numbers, from the folds and from test."
    results, compared = _examinations(folder), read_table(folder/"comparison.csv").set_index("model")
    compared_models = [m for m in _examined_stage(folder).models if m in compared.index]
    last, tall = compared.loc[compared_models[-1]], results["tall"]  # the ensemble, where there is one
    tall = dict(auroc=tall["auroc"], auroc_low=tall["low"], auroc_high=tall["high"])
    each = [member["auroc"] for member in results["members"]]
    number = lambda key: "–" if results.get(key) is None else f"{results[key]:.4f}"
    return {"changed": _changed(recipe, first),
            "folds": f"{results['auroc']:.4f} ({min(each):.3f}–{max(each):.3f})",
            "viral": number("virus"), "weighted": number("weighted"),
            "tall marker": value_with_interval(tall, "auroc", 3),
            "gray swapped": number("swapped"), "sharpness swapped": number("bands"),
            "frame swapped": number("frames"), "shape swapped": number("shape"),
            "test AUROC": f"{last.roc_auc:.4f}", "test accuracy": f"{last.chosen_accuracy:.4f}",
            "training": f"{sum(results['seconds'].values()):,.0f} s"}


# %%
#| export
_ABLATION_WORDS = """
AUROC of {{ folds }} folds {{ across }}, each judged by a network that did not see it, on average (in
brackets the range): all films; viral against normal; films weighted so that appearance says little; films
with a tall side marker ({{ tall }}; in brackets 95 %, after DeLong); gray levels, sharpness, frame or
shape of the film swapped between the classes. {{ p.epochs }} epochs at {{ p.image_size }} pixels unless
changed. Test: {{ answering }}, at the threshold that validation chose. Commit {{ commits }}.
"""


# %%
#| export
def _ablation_words(folders: list[Path], p: dict) -> str: # `p`: parameters of the first run
    "What the columns of the ablation are."
    from jinja2 import Template
    results = [_examinations(folder) for folder in folders]
    counts = {f"{r['tall']['normal']} normal and {r['tall']['pneumonia']} with pneumonia" for r in results}
    records = [r for folder in folders for r in read_provenance(folder)["stages"].values()]
    words = Template(_ABLATION_WORDS).render(
        p=p, folds=len({m["fold"] for m in results[0]["members"]}), tall=" or ".join(sorted(counts)),
        across={"series": "across the naming series", "numbers": "along the patient numbers"}[p["folds_by"]],
        answering="the networks that learned from all folds" if p["refits"] else "these networks averaged",
        commits=", ".join(dict.fromkeys(r["git_commit"][:10] for r in records)))
    return " ".join(words.split())


# %%
test_eq(_changed(dict(epochs=3, match=0), dict(epochs=3, match=.5)), "match 0")
test_eq(_changed(dict(epochs=3), dict(epochs=3)), "the recipe")
