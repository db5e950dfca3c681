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
import operator, re, textwrap
from fnmatch import fnmatchcase
from pathlib import Path

from pneumo_nb.run import (
    StudyError, atomic_path, check_value, digests, read_json, read_looks, read_provenance, read_table,
    short_commit, stages)
from pneumo_nb.style import (
    counted, in_list, looks_in_words, mean_and_range, model_title, p_text, title_with_remark,
    value_with_interval)
from pneumo_nb.reporting import is_public_test

# %%
#| hide
import io, os, tempfile
from contextlib import redirect_stdout
from unittest import mock
import pandas as pd
from fastcore.test import test_eq, test_fail
from pneumo_nb.run import enter_looks, finish, look, open_stage, write_json


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
    "Refuse files that are not what a run's stages wrote; with comparison.csv, one of other predictions, too."
    records, there = read_provenance(folder)["stages"], digests(folder, patterns)
    written = {file: digest for record in records.values() for file, digest in record["outputs"].items()
               if any(fnmatchcase(file, pattern) for pattern in patterns)}
    for file in _differing(written, there):
        stage, is_ours = _writer(file), file in written or not file.startswith("predictions/")
        if stage and is_ours: raise StudyError(
            f"Expected {file} as the stage {stage} wrote it in the run {Path(folder).name}, found "
            f"{_difference(file, written, there)}; do `{command_for(folder, stage)}` to make it anew.")
    if "comparison.csv" in patterns: _check_judged(folder, records)  # whoever reads the evaluation


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
PUBLISHED = {  # AUROC or None, accuracy, which films chose the epoch
    "reference study, CNN": (.936, .872, "validation"),
    "reference study, ResNet50, fine-tuned": (.936, .867, "validation"),
    "Kermany et al. 2018, Inception-v3, transferred": (.968, .928, "test, as the paper says"),
    "MedMNIST v2 (Yang et al. 2023), ResNet-18, 28 pixels": (.944, .854, "validation"),
    "MedMNIST v2, ResNet-18, 224 pixels": (.956, .864, "validation"),
    "MedMNIST v2, ResNet-50, 28 pixels": (.948, .854, "validation"),
    "MedMNIST v2, ResNet-50, 224 pixels": (.962, .884, "validation"),
    "MedMNIST v2, auto-sklearn": (.942, .855, "not said"),
    "MedMNIST v2, AutoKeras": (.947, .878, "validation"),
    "MedMNIST v2, Google AutoML Vision": (.991, .946, "not said"),
    "MedMNIST+ (Doerrich et al. 2025), ViT-B/16 by DINO, frozen": (.989, .916, "validation"),
    "MedMNIST+, ResNet-18, 224 pixels": (.980, .911, "validation"),
    "Rajaraman et al. 2018, VGG16 on cropped lungs": (None, .962, "a part of train, as a sample shows"),
    "MedViTV2 (Manzari et al. 2025), large": (None, .973, "test, as the code shows")}

# %% [markdown]
# ## One run's rows
#
# A row a model with its intervals, the highest AUROC first. Where a run trained several networks that differ
# by seed alone, a further row has their mean and range.

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
    comparison, by_rule = _comparison(folder), _rule_accuracies(folder)
    rules = list(dict.fromkeys(rule for _, rule in by_rule))
    return [_model_row(row, rules, by_rule) for row in comparison] + _spread_rows(folder, rules)

def _comparison(
    folder: Path, # an evaluated run
) -> list[dict]: # a row a model
    "A run's models, the highest AUROC first."
    if not (folder/"comparison.csv").exists(): raise StudyError(
        f"Expected comparison.csv in {folder}, found none; run the evaluation first.")
    numbers = ["roc_auc", "networks"]  # a table without them is an earlier version's
    table = read_table(folder/"comparison.csv", ["model", *numbers], numbers)
    return table.sort_values("roc_auc", ascending=False, kind="stable").to_dict("records")


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
    sizes = sorted({p["image_size"] for p in trained if "image_size" in p})  # some stages train nothing
    evaluation = records["evaluation"]
    commits = dict.fromkeys(short_commit(r["git_commit"]) for r in records.values())
    parts = ["drawn phantoms" if facts["source"] == "phantoms" else f"`{Path(facts['root']).name}`",
             f"films of {' and '.join(map(str, sizes)) or 'no'} pixels",
             f"seed {', '.join(sorted({str(p['seed']) for p in trained})) or 'none'}",
             machine_words(list(records.values())), f"commit {', '.join(commits)}", looks_in_words(folder),
             f"threshold {evaluation['parameters']['threshold']:g}"]
    notes = [f" {name}: {text}" for name, r in records.items() for text in r["notes"]]
    return f"Run `{folder.name}`: {', '.join(parts)}." + "".join(notes)


# %% [markdown]
# ## How often test had been looked at before
#
# A result on films that were looked at before is kinder than a first look would be, whoever looked. So each
# row says how many looks at the same test films came before its evaluation. They are this run's own earlier
# ones, and those that the ledger has of other runs or that were entered by hand. Where the run's own are not
# in the ledger, as on another machine, its record has them.

# %%
#| export
BEFORE = "looks before"

def _looks_before(
    folder: Path, # an evaluated run
) -> str: # a count; a dash where no test films were judged
    "How often a run's test films had been looked at before its models were judged on them."
    of_look = operator.itemgetter("stage", "at", "time")
    own = [of_look(look) for look in read_provenance(folder).get("test_looks", [])]
    known = [of_look(look) for look in read_looks(read_json(folder/"metrics/data.json")["fingerprint"])]
    judged = [time for stage, _, time in own if stage == "evaluation"]
    times = [time for *_, time in [*known, *(look for look in own if look not in known)]]
    return f"{sum(time < judged[-1] for time in times):,}" if judged else "–"


# %%
with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, PNEUMO_CACHE=f"{folder}/cache"):
    mine, films = open_stage("evaluation", f"{folder}/mine"), dict(fingerprint="1ab", source="folder")
    write_json(mine.path("metrics/data.json"), films)
    test_eq(_looks_before(mine.folder), "–")
    look(mine, "predictions of 2 models")
    test_eq(_looks_before(mine.folder), "0")
    enter_looks(films, 3, "trials on another machine", "2025-11-20")
    enter_looks(films | dict(fingerprint="2cd"), 1, "other films", "2025-11-20")
    test_eq(_looks_before(mine.folder), "3")
    earlier = dict(stage="eda", at="gray levels", time="2025-11-24T09:00:00+00:00")   # not in the ledger
    looks = [earlier, *read_provenance(mine.folder)["test_looks"]]
    write_json(mine.path("provenance.json"), dict(stages={}, test_looks=looks))
    test_eq(_looks_before(mine.folder), "4")


# %% [markdown]
# ## Which rows differ beyond chance
#
# Two AUROCs a few thousandths apart may differ by chance. So each model at hand is compared with the table's
# first row, on the films that both judged, paired over patients after DeLong. Holm's correction is over all
# models at hand. Bold marks a difference beyond chance.

# %%
#| export
def _row_name(row: dict) -> str: return f"{row['model']} @ {row['run']}"

def _judged_films(
    folder: Path, # an evaluated run
) -> dict: # name of its row → a model's films: path, label, probability, patient_id
    "The films that each model of a run was judged on."
    from pneumo_nb.evaluation import test_films, with_names
    from pneumo_nb.measures import read_predictions
    names = {row["model"]: _row_name(dict(model=title_with_remark(row), run=folder.name))
             for row in _comparison(folder)}
    answers = lambda model: with_names(read_predictions(folder/f"predictions/{model}.csv"), folder)
    return test_films({name: answers(model) for model, name in names.items()})[1]


# %%
#| export
def _differences(
    first: str,   # name of a row
    tables: dict, # from `_judged_films`, of all runs at hand
) -> dict[str, str]: # name of a row → text; rows that cannot be compared with the first are left out
    "AUROC of each model less that of the first, with its interval and corrected p-value."
    from pneumo_nb.measures import holm, paired_tests
    if first not in tables: return {}
    others = [name for name in tables if name != first]
    pairs = {name: paired_tests({name: tables[name], first: tables[first]}, .5, draws=40) for name in others}
    compared = {name: pair.iloc[0] for name, pair in pairs.items() if pair.auroc_difference.notna().any()}
    corrected = holm([pair.p_auroc for pair in compared.values()])
    return {name: _difference_words(pair, p, len(tables[name]))
            for (name, pair), p in zip(compared.items(), corrected)}


# %%
#| export
def _difference_words(
    pair,       # a row of `paired_tests`
    p: float,   # corrected
    films: int, # that the model was judged on
) -> str: # such as "-0.0120 (-0.027 to 0.003), p 0.12"
    "A difference of AUROCs; bold where it is beyond chance."
    from pneumo_nb.measures import pair_differences
    value = dict(gap=pair.auroc_difference, gap_low=pair.auroc_low, gap_high=pair.auroc_high)
    words = f"{value_with_interval(value, 'gap')}, p {p_text(p)}"
    if pair.films < films: words += f", {counted(pair.films, 'film')} in common"
    is_beyond_chance = "auroc" in pair_differences(dict(p_auroc_holm=p, p_calls_holm=1))
    return f"**{words}**" if is_beyond_chance else words


# %% [markdown]
# Twenty patients a class. The first model ranks all right, another two normal films too high, and the third
# knows nothing and did not judge every film:

# %%
films = pd.DataFrame(dict(path=range(40), patient_id=range(40), label=[0, 1] * 20))
scores = films.label * 20 + films.path % 20
good, alike = films.assign(probability=scores), films.assign(probability=scores.where(scores != 0, 30))
coin = films.assign(probability=films.path * 7 % 40)
cells = _differences("good @ a", {"good @ a": good, "alike @ a": alike, "coin @ b": coin[4:]})
for name, words in cells.items(): print(f"{name}: {words}")
assert cells["alike @ a"].startswith("-0.0500 (")            # 20 of 400 pairs
assert cells["coin @ b"].startswith("**-0.") and cells["coin @ b"].endswith("p < 0.001**")
fewer = _differences("good @ a", {"good @ a": good[4:], "alike @ a": alike})
assert fewer["alike @ a"].endswith(", 36 films in common")
test_eq(_differences("good @ a", {"good @ a": good[:4], "coin @ b": coin[4:]}), {})   # no film in common

# %%
#| export
_LESS = "AUROC less that of "  # and the name of the table's first row

def _chance_sentence(
    rows: list[dict], # of a results table
) -> str: # "" where none was compared
    "Which rows differ in AUROC from the table's first by more than chance, as their cells say."
    less = next((column for column in rows[0] if column.startswith(_LESS)), "")
    compared = [row for row in rows if row.get(less, "–") != "–"]
    model, _, run = less.removeprefix(_LESS).rpartition(" @ ")
    titles = [model, *(row["model"] for row in compared)]
    name = operator.itemgetter("model") if len({*titles}) == len(titles) else _row_name
    differing, alike = ([name(row) for row in compared if row[less].startswith("**") == differs]
                        for differs in (True, False))
    first = f"Beyond chance (paired over patients, Holm) {name(dict(model=model, run=run))}"
    if not compared: return ""
    if not differing: return f"{first} does not differ in AUROC from {in_list(alike)}."
    words = f"{first} differs in AUROC from {in_list(differing)}"
    return f"{words}; not from {in_list(alike)}." if alike else f"{words}."


# %%
with_cell = lambda model, run, cell: {"model": model, "run": run, _LESS + "m @ a": cell}
rows = [with_cell("m", "a", "–"), with_cell("n", "a", "**-0.1**"), with_cell("o", "b", "-0.01")]
said = lambda rows: _chance_sentence(rows).removeprefix("Beyond chance (paired over patients, Holm) ")
test_eq(said(rows), "m differs in AUROC from n; not from o.")
test_eq(said(rows[:2]), "m differs in AUROC from n.")
test_eq(said([rows[0], rows[2]]), "m does not differ in AUROC from o.")
test_eq(said([*rows, with_cell("n", "b", "0.0")]),
        "m @ a differs in AUROC from n @ a; not from o @ b and n @ b.")
test_eq(said(rows[:1]), "")

# %% [markdown]
# ## The results table
#
# Of the rules for a threshold the table has the one that the study goes by, sensitivity .95; the chapter on
# evaluation has all. A table may be put together from runs that are not all at hand. `results_in` reads what
# a table already says. That is kept, with a dash where the table did not yet have a column. Columns of other
# rules, which tables once had, are dropped.

# %%
#| export
RESULTS_MARKERS = ("<!-- results: written by `pneumo results RUN... --write FILE` -->",
                   "<!-- end of results -->")

_BY_RULE = "accuracy, sensitivity .95"
_COLUMNS = ["model", "run", "AUROC", AT, _BY_RULE, BEFORE, "trained", "training", "parameters"]
_DROPPED = {"accuracy, Youden", "accuracy, sensitivity .98"}

_KEY = (" In brackets: 95 % intervals over patients; in rows of means the range over trainings. "
        "Accuracy, sensitivity .95: at the threshold that this rule chose on validation. Looks before: how "
        "often, as far as is known, any run had looked at the same test films before those of the row were "
        "judged. A dash: not known, or not compared.")
_LESS_KEY = (
    " AUROC less another: after DeLong, paired over patients, on the films that both judged; p after Holm, "
    "over the rows written together; bold: beyond chance. The first row has the highest AUROC of its run on "
    "these very films, so its lead is a little too large.")


# %%
#| export
def results_in(
    text: str, # that holds a results table
) -> dict[str, tuple[list[dict], str]]: # run → its rows, its words; in the table's order
    "What a text's results table says of each run; published rows and dropped columns left out."
    table, _, words = _text_between(text, RESULTS_MARKERS).partition("\n\n")
    rows = [{c: cell for c, cell in row.items() if c not in _DROPPED} for row in _table_rows(table)]
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
rows = [{"model": model, "run": run, "AUROC": ".9", AT: ".8", "accuracy, Youden": ".7"}
        for model, run in (("m", "a"), ("n", "a"), ("m", "b"), ("who", "published"))]
words = ("Run `a`: drawn phantoms, films of 16 pixels.\nRun `b`: drawn phantoms, films of 32 pixels. "
         "In brackets: 95 %")
block = "\n".join([RESULTS_MARKERS[0], "", _markdown_table(rows), "", words, "", RESULTS_MARKERS[1]])
there = results_in(block)
test_eq({name: [r["model"] for r in rows] for name, (rows, _) in there.items()}, dict(a=["m", "n"], b=["m"]))
test_eq(there["b"], ([{"model": "m", "run": "b", "AUROC": ".9", AT: ".8"}],
                     "Run `b`: drawn phantoms, films of 32 pixels."))
test_fail(lambda: results_in(block.replace("| run |", "| walk |")), contains="a table with AUROC, acc")
test_fail(lambda: results_in(block.replace(" | .8 |", " |")), contains="a cell for each column")


# %% [markdown]
# Runs that the table does not know yet come first. So its first row is the best model of the first run, and
# the rows at hand are compared with that one, if it is at hand. Kept differences stay if they are from the
# same row with the same AUROC.

# %%
#| export
def results_markdown(
    folders: list[Path], # evaluated runs on the same films
    others: dict | None = None, # from `results_in`: what a table already says of runs, in its order
) -> str: # markdown
    "The models of one or more runs, beside published results, with what they were made from."
    for folder in folders: check_outputs(folder, *EVALUATED)
    _check_same_films(folders)
    others, new = others or {}, {folder.name: (_run_rows(folder), _run_words(folder)) for folder in folders}
    _check_others(others, new)
    first = {name: run for name, run in new.items() if name not in others}  # runs that are new to the table
    runs = first | others | new
    rows = _with_differences([row for table, _ in runs.values() for row in table], folders, others)
    sentence, are_compared = _chance_sentence(rows), any(column.startswith(_LESS) for column in rows[0])
    if is_public_test(folders[0]): rows += _published_rows()
    words = " ".join(words for _, words in runs.values()) + _KEY + _LESS_KEY * are_compared
    return "\n\n".join(part for part in (_markdown_table(rows), sentence, words) if part)

def _run_rows(folder: Path) -> list[dict]:
    "A run's rows of the results table."
    facts = {"run": folder.name, BEFORE: _looks_before(folder)}
    return [{column: (row | facts).get(column, "–") for column in _COLUMNS} for row in results_rows(folder)]


# %%
#| export
def _with_differences(
    rows: list[dict],    # of the table, in its order
    folders: list[Path], # the runs at hand
    others: dict,        # run → rows, words; as the table had them
) -> list[dict]: # in the table's columns
    "The rows, each with its difference from the first, where any has one."
    first, less = rows[0], _LESS + _row_name(rows[0])
    kept = {run: table for run, (table, _) in others.items() if run not in {f.name for f in folders}}
    tables = {name: films for folder in folders for name, films in _judged_films(folder).items()}
    cells = _differences(_row_name(first), tables)
    if _is_as_before(first, others): cells |= {_row_name(row): row[less] for table in kept.values()
                                               for row in table if less in row}
    rows = [row | {less: cells.get(_row_name(row), "–")} for row in rows]
    are_compared = any(row[less] != "–" for row in rows)
    columns = [*_COLUMNS[:3], *([less] if are_compared else []), *_COLUMNS[3:]]
    return [{column: row.get(column, "–") for column in columns} for row in rows]

def _is_as_before(row: dict, others: dict) -> bool: # `others`: run → rows, words
    "Whether a table already had a row with the same AUROC."
    return any(_row_name(was) == _row_name(row) and was["AUROC"] == row["AUROC"]
               for table, _ in others.values() for was in table)


# %%
#| export
def _published_rows() -> list[dict]:
    "Published results in the columns of the results table."
    return [{"model": who, "run": "published", "AUROC": "–" if auroc is None else f"{auroc:.3f}",
             AT: f"{accuracy:.3f}"} for who, (auroc, accuracy, _) in PUBLISHED.items()]


# %% [markdown]
# Runs on different films or of the same name, or columns that the table does not know, are refused:

# %%
#| export
def _check_same_films(folders: list[Path]):
    "Refuse runs on different films, or of the same name."
    names = [folder.name for folder in folders]
    fingerprints = {read_json(folder/"metrics/data.json")["fingerprint"] for folder in folders}
    if len({*names}) < len(names): raise StudyError(
        f"Expected runs of different names, found {', '.join(names)}; give each run once.")
    if len(fingerprints) > 1: raise StudyError(
        f"Expected runs on the same films, found {', '.join(names)} on different ones; "
        "print them one by one.")


# %%
#| export
def _check_others(others: dict, new: dict): # both run → rows, words
    "Refuse kept runs with columns of their own, or on films of another name."
    films = lambda words: words.partition(": ")[2].partition(",")[0]
    words = next(iter(new.values()))[1]
    for name, (kept, kept_words) in others.items():
        if name in new: continue
        if strange := [c for c in kept[0] if c not in _COLUMNS and not c.startswith(_LESS)]: raise StudyError(
            f"Expected no columns but {', '.join(_COLUMNS)}, found {', '.join(strange)} in the table; "
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
# stands which of them differ beyond chance, as far as the table says.

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
    "Some rows of a results table, with AUROC, accuracy and looks, and which of them differ beyond chance."
    table = _table_rows(_text_between(findings, RESULTS_MARKERS).partition("\n\n")[0])
    known = {(r["model"], r["run"]): r for r in table}
    if missing := [f"{model} @ {run}" for model, run in rows if (model, run) not in known]: raise StudyError(
        f"Expected rows of the results table, found {'; '.join(missing)}, which it does not hold; "
        "correct the marker.")
    heads = {"model": "model", "run": "run", "AUROC": "AUROC", AT: AT, BEFORE: BEFORE}
    shown = [{head: known[row].get(key, "–") for key, head in heads.items()} for row in rows]
    return f"{_markdown_table(shown)}\n\n{_chance_sentence([known[row] for row in rows])}".rstrip()


# %%
#| export
def write_summary(
    file: Path,     # takes the summary between its markers
    findings: Path, # holds the results table
) -> Path: # `file`
    "Write a text's summary anew."
    text = read_text(file)
    rows = _summary_rows(text)
    summary = _summary_markdown(read_text(findings), rows)
    return write_between(file, summary, (_SUMMARY_START.search(text)[0], _SUMMARY_END))


# %%
wanted = "<!-- summary: written by a command;\n# rows: m @ b; n @ a -->\n# <!-- end of summary -->"
test_eq(_summary_rows(wanted), [("m", "b"), ("n", "a")])
less = {_LESS + "m @ a": "-0.1"}
whole = _markdown_table([row | less | {BEFORE: "7"} for row in rows])
with tempfile.TemporaryDirectory() as folder:
    findings, readme = Path(folder)/"findings.md", Path(folder)/"README.py"
    findings.write_text("\n".join([RESULTS_MARKERS[0], "", whole, "", words, RESULTS_MARKERS[1]]))
    readme.write_text(f"# {wanted}\n")
    summary = write_summary(readme, findings).read_text()
    assert "# | m | b | .9 | .8 | 7 |\n# | n | a | .9 | .8 | 7 |" in summary
    assert "m @ a does not differ in AUROC from m @ b and n @ a." in summary
    test_fail(lambda: _summary_markdown(findings.read_text(), [("m", "c")]), contains="m @ c")
test_eq(_summary_markdown(block, [("m", "b")]).splitlines()[-1], "| m | b | .9 | .8 | – |")   # an older table

# %% [markdown]
# ## An ablation
#
# An ablation asks what an ingredient is worth: the same recipe with one thing changed. The first run is what
# the others are compared with. Recipes are chosen without test, so all numbers here come from folds that each
# network never saw, and a run need not be evaluated. Where runs hold the examinations of several stages, the
# stage is meant whose parameters differ between them.

# %%
#| export
ABLATION_MARKERS = ("<!-- ablation: written by `pneumo ablation RUN... --write FILE` -->",
                    "<!-- end of ablation -->")


# %%
#| export
def _examining() -> list[str]: return [name for name, stage in stages().items() if stage.examinations]

def _recipes(folder: Path) -> dict[str, dict]: # stage → its parameters
    "The recipes whose examinations, on films that are not test, a run holds."
    done = read_provenance(folder)["stages"]
    return {name: done[name]["parameters"] for name in _examining()
            if name in done and (folder/stages()[name].examinations).exists()}


# %%
#| export
def _ablated_stage(
    recipes: dict[str, dict], # run → its `_recipes`
    asked: str | None = None, # a stage; None for the one whose parameters differ
) -> str:
    "The stage that an ablation of these runs is about."
    if asked is not None: check_value("--stage", asked, _examining())
    wanted = _examining() if asked is None else [asked]
    for run, there in recipes.items():
        if not {*wanted} & {*there}: raise StudyError(
            f"Expected runs with examinations of the stage {' or '.join(wanted)}, found {run} without; "
            "run that stage first.")
    shared = [name for name in wanted if all(name in there for there in recipes.values())]
    if len(shared) == 1: return shared[0]
    first, *others = recipes.values()
    differing = [name for name in shared if any(there[name] != first[name] for there in others)]
    if len(differing) == 1: return differing[0]
    if not shared: raise StudyError(
        f"Expected runs that share examinations of {' or '.join(wanted)}, found {', '.join(recipes)} with "
        "none in common; run one of these stages in all.")
    raise StudyError(
        f"Expected runs whose parameters differ in one of {in_list(shared)}, found them "
        f"{f'to differ in {in_list(differing)}' if differing else 'alike'}; name one with --stage.")


# %%
one, other = (dict(compact=dict(epochs=n), transfer=dict(epochs=2)) for n in (3, 4))
test_eq(_ablated_stage(dict(a=one, b=other)), "compact")
test_eq(_ablated_stage(dict(a=one, b=other), "transfer"), "transfer")
test_eq(_ablated_stage(dict(a=one, b=dict(transfer={}))), "transfer")      # all that they share
for recipes, problem in [
    (dict(a=one, b={}), "compact or transfer, found b without"),
    (dict(a=one, b=one), "one of compact and transfer, found them alike; name one with --stage"),
    (dict(a=one, b=dict(compact={}, transfer={})), "found them to differ in compact and transfer; name"),
    (dict(a=dict(compact={}), b=dict(transfer={})), "of compact or transfer, found a, b with none in")]:
    test_fail(lambda: _ablated_stage(recipes), contains=problem)
test_fail(lambda: _ablated_stage(dict(a=one), "cnn"), contains="--stage to be one of compact, transfer")


# %%
#| export
def ablation_markdown(
    folders: list[Path],      # runs of the recipe; the first is what the others are compared with
    asked: str | None = None, # the stage that it is about; None for the one whose parameters differ
) -> str: # markdown
    "What changes when one ingredient of the recipe does, on films that are not test."
    files = {name: stages()[name].examinations for name in _examining()}
    for folder in folders: check_outputs(folder, "metrics/data.json", *files.values())
    _check_same_films(folders)
    recipes = {folder.name: _recipes(folder) for folder in folders}
    stage = _ablated_stage(recipes, asked)
    examined = [_examinations(folder, stage) for folder in folders]
    first, *_ = recipes = [there[stage] for there in recipes.values()]
    rows = [_ablation_row(results, _changed(recipe, first)) for results, recipe in zip(examined, recipes)]
    return f"{_markdown_table(rows)}\n\n{_ablation_words(folders, stage, first, examined)}"


# %%
#| export
def _examinations(folder: Path, stage: str) -> dict:
    "What a stage found of its networks on films that are not test."
    results = read_json(folder/stages()[stage].examinations)
    if "tall" not in results: raise StudyError(
        f"Expected runs that were judged on films with tall markers, found {folder.name} of an earlier "
        f"version; run the stage {stage} again.")
    return results

def _changed(recipe: dict, first: dict) -> str:
    "In which parameters a recipe differs from the first."
    names = {**first, **recipe}
    return ", ".join(f"{k} {recipe.get(k)}" for k in names if recipe.get(k) != first.get(k)) or "the recipe"


# %%
test_eq(_changed(dict(epochs=3, match=0), dict(epochs=3, match=.5)), "match 0")
test_eq(_changed(dict(epochs=3), dict(epochs=3)), "the recipe")


# %%
#| export
def _ablation_row(
    results: dict, # from `_examinations`
    changed: str,
) -> dict: # text
    "One recipe's numbers on the folds."
    tall, each = results["tall"], [member["auroc"] for member in results["members"]]
    tall = dict(auroc=tall["auroc"], auroc_low=tall["low"], auroc_high=tall["high"])
    number = lambda key: "–" if results.get(key) is None else f"{results[key]:.4f}"
    return {"changed": changed,
            "folds": f"{results['auroc']:.4f} ({min(each):.3f}–{max(each):.3f})",
            "viral": number("virus"), "weighted": number("weighted"),
            "tall marker": value_with_interval(tall, "auroc", 3),
            "gray swapped": number("swapped"), "sharpness swapped": number("bands"),
            "frame swapped": number("frames"), "shape swapped": number("shape"),
            "training": f"{sum(results['seconds'].values()):,.0f} s"}


# %%
toys = dict(members=[dict(auroc=.9), dict(auroc=.8)], auroc=.85, virus=None, frames=.7,
            seconds=dict(a=1, b=2), tall=dict(auroc=.6, low=.5, high=.7))
test_eq({k: v for k, v in _ablation_row(toys, "match 0").items() if v != "–"},
        {"changed": "match 0", "folds": "0.8500 (0.800–0.900)", "tall marker": "0.600 (0.500–0.700)",
         "frame swapped": "0.7000", "training": "3 s"})

# %%
#| export
_ABLATION_WORDS = """
Networks of the stage {{ stage }}: AUROC of {{ folds }} folds {{ across }}, each judged by a network that did
not see it, on average (in brackets the range): all films; viral against normal; films weighted so that
appearance says little; films with a tall side marker ({{ tall }}; in brackets 95 %, after DeLong); gray
levels, sharpness, frame or shape of the film swapped between the classes. {{ p.epochs }} epochs at
{{ p.image_size }} pixels unless changed. No test film was asked. Commit {{ commits }}.
"""


# %%
#| export
def _ablation_words(
    folders: list[Path],
    stage: str,
    p: dict,              # parameters of the first run
    examined: list[dict], # each run's `_examinations`
) -> str:
    "What the columns of the ablation are."
    from jinja2 import Template
    counts = {f"{r['tall']['normal']} normal and {r['tall']['pneumonia']} with pneumonia" for r in examined}
    commits = [short_commit(read_provenance(folder)["stages"][stage]["git_commit"]) for folder in folders]
    words = Template(_ABLATION_WORDS).render(
        stage=stage, p=p, folds=len({m["fold"] for m in examined[0]["members"]}),
        tall=" or ".join(sorted(counts)), commits=", ".join(dict.fromkeys(commits)),
        across={"series": "across the naming series", "numbers": "along the patient numbers"}[p["folds_by"]])
    return " ".join(words.split())
