"""Tables of finished runs: what they hold, which runs may share one, and what is kept of runs not at hand."""
import json, re, shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from pneumo_nb.cli import main
from pneumo_nb.measures import holm, paired_tests
from pneumo_nb.results import (ABLATION_MARKERS, BEFORE, RESULTS_MARKERS, ablation_markdown, results_in,
                               results_markdown, results_rows, write_between)
from pneumo_nb.run import (StudyError, digests, enter_looks, read_json, read_looks, read_provenance,
                           write_csv, write_json)

ROOT = Path(__file__).parents[1]
RULE = "accuracy, sensitivity .95"

def copied(evaluated, folder):
    "The evaluated run under another name, without its films."
    shutil.copytree(evaluated.folder, folder, ignore=shutil.ignore_patterns("cache", "notebooks", "figures"))
    return folder

def rewrite(file, change):
    "Change a JSON file."
    value = read_json(file)
    change(value)
    write_json(file, value)

def recorded(folder):
    "A run whose record holds the digests of the files as they are now."
    def digest(record):
        for stage in record["stages"].values(): stage["outputs"] = digests(folder, list(stage["outputs"]))
    rewrite(folder/"provenance.json", digest)
    return folder

def test_each_training_is_judged_by_each_rule(evaluated):
    "By hand: the lowest score among the sick films that must be called."
    members = pd.read_csv(evaluated.folder/"metrics/evaluation_members.csv").set_index("member")
    predictions = pd.read_csv(evaluated.folder/"members/compact.csv")
    assert sorted(members.index) == sorted(predictions.member.unique())
    for name, table in predictions.groupby("member"):
        validation, test = (table[table.split == split] for split in ("validation", "test"))
        sick = np.sort(validation.probability[validation.label == 1])[::-1]
        for wanted, column in ((.95, "accuracy_sensitivity .95"), (.98, "accuracy_sensitivity .98")):
            lowest = sick[int(np.ceil(wanted * len(sick))) - 1]
            below = validation.probability[validation.probability < lowest]
            threshold = (lowest + (below.max() if len(below) else 0)) / 2
            accuracy = ((test.probability >= threshold) == test.label).mean()
            assert members.loc[name, column] == pytest.approx(accuracy)

def test_a_run_has_a_row_for_each_model_and_one_for_each_kind_with_several_trainings(evaluated, tmp_path):
    folder = copied(evaluated, tmp_path/"more")
    file = folder/"metrics/evaluation_members.csv"
    members = pd.read_csv(file)
    second = members[members.member == "compact_ensemble_s0"].assign(member="compact_ensemble_s1")
    pd.concat([members, second]).to_csv(file, index=False)
    rows = {row["model"]: row for row in results_rows(folder)}
    assert {name: row["trained"] for name, row in rows.items()} == {
        "compact net": "1", "compact ensemble": "2 together",
        "compact net, mean and range": "2 apart", "compact ensemble, mean and range": "2 apart"}
    assert all(set(row) <= set(rows["compact net"]) for row in rows.values())

def test_a_table_says_what_its_runs_were_made_from(evaluated):
    table = evaluated.pneumo("results", "recipe").stdout
    assert "| compact ensemble | recipe |" in table and "published" not in table
    looks = len(read_provenance(evaluated.folder)["test_looks"])
    assert "drawn phantoms, films of 24 pixels, seed 42" in table
    assert re.search(rf"\b{looks} looks? at the test films", table)

def test_a_stage_with_models_but_no_films_of_its_own_is_named_too(evaluated, tmp_path):
    folder = copied(evaluated, tmp_path/"joined")
    def joined(record): record["stages"]["joint"] = record["stages"]["compact"] | dict(
        parameters=dict(seed=1), outputs={}, notes=["answers together"])
    rewrite(folder/"provenance.json", joined)
    assert "joint: answers together" in results_markdown([folder])

def test_runs_on_other_films_are_not_put_into_one_table(evaluated, tmp_path):
    other = copied(evaluated, tmp_path/"other")
    rewrite(other/"metrics/data.json", lambda facts: facts.update(fingerprint="another"))
    recorded(other)
    for table in (results_markdown, ablation_markdown):
        with pytest.raises(StudyError, match="Expected runs on the same films, found"):
            table([evaluated.folder, other])

# ---- looks before, and differences beyond chance

def table_cells(text): return [[cell.strip() for cell in line.strip("| ").split(" | ")]
                               for line in text.split("\n\n")[0].splitlines()]

def test_a_row_says_how_often_its_test_films_had_been_looked_at_before(evaluated, tmp_path):
    "By the run's own record, by other runs in the ledger, and by hand; not what came after, nor other films."
    own = read_provenance(evaluated.folder)["test_looks"]
    before = sum(look["stage"] != "evaluation" for look in own)
    def cells():
        head, _, *rows = table_cells(results_markdown([evaluated.folder]))
        return {row[head.index(BEFORE)] for row in rows}
    assert cells() == {str(before)}   # this test's ledger is empty
    films = {key: read_json(evaluated.folder/"metrics/data.json")[key] for key in ("fingerprint", "source")}
    enter_looks(films, 3, "trials elsewhere", "2001-02-03")
    assert cells() == {str(before + 3)}
    enter_looks(films, 1, "later", own[-1]["time"])
    enter_looks(films | dict(fingerprint="other"), 1, "other films", "2001-02-03")
    assert cells() == {str(before + 3)} and len(read_looks()) == 5

def said(*words):
    done = CliRunner().invoke(main, ["looks", *map(str, words)])
    return done.output

def test_looks_that_no_ledger_counted_are_entered_by_hand_for_the_films_of_a_run_or_a_folder(evaluated):
    run, entered = evaluated.folder, ("--at", "trials  elsewhere", "--on", "2001-02-03")
    root = read_json(run/"metrics/data.json")["root"]
    assert said(run) == "No look at test films is known here.\n"
    first = said(run, "--add", 2, *entered)
    assert first.startswith("Entered by hand: 2 looks.\n") and ": 2 looks, entered by hand\n" in first
    assert first.endswith("2001-02-03T00:00:00+00:00  –            by hand      trials elsewhere (2 times)\n")
    third = said(run/root, "--add", 1, *entered)
    assert third.partition("\n")[2].replace("3", "2") == first.partition("\n")[2].replace("3", "2")
    fingerprint = read_json(run/"metrics/data.json")["fingerprint"]
    assert "4 looks" in said(fingerprint[:6], "--add", 1, *entered) and len(read_looks(fingerprint)) == 4

@pytest.mark.parametrize("words, says", [
    (["--add", 2], "found no FILMS, --at, --on; give all four"),
    (["1ab", "--at", "trials"], "found no --add, --on; give all four"),
    (["1ab", "--add", 2, "--at", "trials", "--on", "2001-02-03"], "'1ab', which names no sets of films"),
    (["RUN", "--add", 0, "--at", "trials", "--on", "2001-02-03"], "number from 1 to 1000, found 0"),
    (["RUN", "--add", 2, "--at", "trials", "--on", "yesterday"], "Expected a day such as 2025-11-25, found"),
    (["RUN", "--add", 2, "--at", "trials", "--on", "9001-02-03"], "Expected a day that has been")])
def test_looks_that_cannot_be_entered_are_refused_in_one_sentence(evaluated, words, says):
    output = said(*[evaluated.folder if word == "RUN" else word for word in words])
    assert says in output and output.count("\n") == 1 and read_looks() == []

def other_answers(folder, change):
    "Another run: the models' test answers changed, its evaluation done again as far as a table needs it."
    for file in folder.glob("predictions/*.csv"):
        table = pd.read_csv(file)
        write_csv(file, table.assign(probability=change(table)))
    def judged(record):
        record["stages"]["evaluation"]["inputs"].update(digests(folder, ["predictions/*.csv"]))
    recorded(folder)
    rewrite(folder/"provenance.json", judged)
    return folder

def difference(text):
    "The column of differences: its head, and each row's cell by name."
    head, _, *rows = table_cells(text)
    return head[3], {f"{row[0]} @ {row[1]}": row[3] for row in rows}

@pytest.fixture
def runs_apart(evaluated, tmp_path):
    "The run; the same answers; labels turned round."
    copies = [copied(evaluated, tmp_path/name) for name in ("same", "wrong")]
    return [evaluated.folder, copies[0], other_answers(copies[1], lambda table: .98 - .96 * table.label)]

def test_each_row_is_compared_with_the_first_and_beyond_chance_is_bold(runs_apart):
    text = results_markdown(runs_apart)
    head, cells = difference(text)
    first, *others = [name for name in cells if "mean and range" not in name]
    assert head == f"AUROC less that of {first}" and cells[first] == "–"
    assert {name for name, cell in cells.items() if cell.startswith("**-")} == {
        "compact net @ wrong", "compact ensemble @ wrong"}
    assert cells[first.replace("recipe", "same")] == "0.0000, p 1"
    sentence = text.split("\n\n")[1]
    assert sentence.startswith(f"Beyond chance (paired over patients, Holm) {first} differs in AUROC from ")
    assert sentence.partition("; not from ")[0].endswith("@ wrong") and "@ same" in sentence
    assert "bold: beyond chance" in text.split("\n\n")[2]

def test_differences_are_those_of_the_paired_tests(runs_apart):
    "The same as all models tested against the first, with Holm's correction over them."
    _, cells = difference(results_markdown(runs_apart))
    patients = pd.read_csv(runs_apart[0]/"images.csv").set_index("path").patient_id
    keys, tables = {"compact net": "compact", "compact ensemble": "compact_ensemble"}, {}
    for name in [name for name in cells if "mean" not in name]:
        model, _, run = name.partition(" @ ")
        folder = next(folder for folder in runs_apart if folder.name == run)
        table = pd.read_csv(folder/f"predictions/{keys[model]}.csv").query("split == 'test'")
        tables[name] = table.assign(patient_id=table.path.map(patients))
    first, *others = tables
    pairs = [paired_tests({name: tables[name], first: tables[first]}, .5).iloc[0] for name in others]
    for name, pair, p in zip(others, pairs, holm([pair.p_auroc for pair in pairs])):
        value, _, words = cells[name].strip("*").partition(", p ")
        assert float(value.split()[0]) == pytest.approx(pair.auroc_difference, abs=5e-5)
        assert words == ("< 0.001" if p < .001 else f"{p:.2g}")

def test_kept_differences_stay_as_long_as_the_first_row_does(runs_apart):
    "They stay beside the same first row; beside another, or one with another AUROC, they would be wrong."
    kept = results_in("\n\n".join([RESULTS_MARKERS[0], results_markdown(runs_apart), RESULTS_MARKERS[1]]))
    _, cells = difference(results_markdown(runs_apart))
    _, again = difference(results_markdown(runs_apart[:1], kept))
    own = [name for name in cells if name.endswith("@ recipe")]
    assert {name: cell for name, cell in again.items() if name not in own} == {
        name: cell for name, cell in cells.items() if name not in own}
    assert difference(results_markdown(runs_apart[1:2], kept))[1]["compact net @ wrong"] == cells[
        "compact net @ wrong"]      # the first row is not at hand, but as it was
    changed = {run: ([row | dict(AUROC="0.5") for row in rows], words) for run, (rows, words) in kept.items()}
    _, cells = difference(results_markdown(runs_apart[:1], changed))
    assert cells["compact net @ wrong"] == "–"

def test_a_run_is_given_once(evaluated):
    done = evaluated.pneumo("results", "recipe", "recipe")
    assert done.returncode != 0 and "Expected runs of different names, found recipe, recipe" in done.stderr

@pytest.fixture
def elsewhere(evaluated, tmp_path):
    "A text with the results of a run that is not here."
    file = tmp_path/"TABLE.md"
    file.write_text(f"before\n{RESULTS_MARKERS[0]}\n{RESULTS_MARKERS[1]}\nafter\n")
    write_between(file, results_markdown([evaluated.folder]), RESULTS_MARKERS)
    text = file.read_text()
    for mark in ("| {} |", "Run `{}`", "@ {}"):
        text = text.replace(mark.format("recipe"), mark.format("elsewhere"))
    file.write_text(text)
    return file

def add(evaluated, file): return evaluated.pneumo("results", "recipe", "--write", str(file), "--add")

def test_a_table_keeps_runs_that_are_not_here(evaluated, elsewhere):
    before = elsewhere.read_text()
    done = add(evaluated, elsewhere)
    assert done.returncode == 0, done.stderr
    runs = results_in(elsewhere.read_text())
    assert list(runs) == ["recipe", "elsewhere"]
    def is_less(column): return column.startswith("AUROC less")
    def nameless(row): return {c: v for c, v in row.items() if c != "run" and not is_less(c)}
    here, there = ([nameless(row) for row in runs[name][0]] for name in ("recipe", "elsewhere"))
    assert there == here
    assert {v for row in runs["elsewhere"][0] for c, v in row.items() if is_less(c)} == {"–"}
    kept, words = results_in(before)["elsewhere"]
    assert list(map(nameless, kept)) == there and words and runs["elsewhere"][1] == words
    assert runs["recipe"][1].startswith("Run `recipe`: ") and elsewhere.read_text().endswith("after\n")
    again = elsewhere.read_text()
    assert add(evaluated, elsewhere).returncode == 0 and elsewhere.read_text() == again

def test_a_table_of_a_version_without_a_column_gets_dashes_there(evaluated, elsewhere):
    runs = results_in(elsewhere.read_text())["elsewhere"][0]
    column = list(runs[0]).index(RULE)
    def without(line): return " | ".join(c for n, c in enumerate(line.split(" | ")) if n != column)
    lines = elsewhere.read_text().splitlines()
    elsewhere.write_text("\n".join(without(l) if l.startswith("|") else l for l in lines) + "\n")
    assert RULE not in results_in(elsewhere.read_text())["elsewhere"][0][0]
    assert add(evaluated, elsewhere).returncode == 0
    rows = results_in(elsewhere.read_text())["elsewhere"][0]
    assert {row[RULE] for row in rows} == {"–"}
    assert [row["trained"] for row in rows] == [row["trained"] for row in runs]

@pytest.mark.parametrize("old, new, says", [
    ("drawn phantoms", "`other_films`", "Expected runs on drawn phantoms, found elsewhere on `other_films`"),
    ("| trained |", "| how often |", "write all of its runs anew")])
def test_a_table_that_cannot_be_compared_is_left_alone(evaluated, elsewhere, old, new, says):
    wrong = elsewhere.read_text().replace(old, new)
    elsewhere.write_text(wrong)
    done = add(evaluated, elsewhere)
    assert done.returncode != 0 and says in done.stderr and elsewhere.read_text() == wrong

def test_add_needs_a_file_to_add_to(evaluated):
    done = evaluated.pneumo("results", "recipe", "--add")
    assert done.returncode != 0 and "give both" in done.stderr

# ---- an ablation

@pytest.fixture
def examined(evaluated, tmp_path):
    "The recipe's run as it is before any evaluation, and with another value of one parameter."
    runs = [copied(evaluated, tmp_path/name) for name in ("first", "second")]
    for run in runs:
        (run/"comparison.csv").unlink()
        rewrite(run/"provenance.json", lambda record: record["stages"].pop("evaluation"))
    def changed(record): record["stages"]["compact"]["parameters"].update(match=0.)
    rewrite(runs[1]/"provenance.json", changed)
    return runs

def test_an_ablation_needs_no_evaluation_and_shows_no_test(examined):
    text = ablation_markdown(examined)
    lines = text.splitlines()
    assert lines[0].startswith("| changed | folds | viral |")
    assert lines[0].endswith("| frame swapped | shape swapped | training |")
    assert lines[2].startswith("| the recipe |") and lines[3].startswith("| match 0.0 |")
    assert read_json(examined[0]/"metrics/compact.json")["virus"] == pytest.approx(
        float(lines[2].split(" | ")[2]), abs=5e-5)
    assert "Networks of the stage compact: AUROC of 2 folds across the naming series" in text
    assert "test" not in text.replace("No test film was asked.", "")

def test_an_ablation_is_about_the_stage_that_differs_or_the_one_named(examined):
    for run in examined:
        shutil.copy(run/"metrics/compact.json", run/"metrics/transfer.json")
        def also(record): record["stages"]["transfer"] = record["stages"]["compact"] | dict(
            parameters=dict(folds_by="series", epochs=2, image_size=24),
            outputs={"metrics/transfer.json": ""})
        rewrite(run/"provenance.json", also)
        recorded(run)
    assert "| match 0.0 |" in ablation_markdown(examined)
    named = ablation_markdown(examined, "transfer")
    assert "match" not in named and "2 epochs at 24 pixels" in named
    with pytest.raises(StudyError, match="found them alike; name one with --stage"):
        ablation_markdown(examined[:1])

def test_an_ablation_needs_the_examinations(examined):
    (examined[1]/"metrics/compact.json").unlink()
    with pytest.raises(StudyError, match="as the stage compact wrote it in the run second, found none"):
        ablation_markdown(examined)
    recorded(examined[1])
    with pytest.raises(StudyError, match="found second without; run that stage first"):
        ablation_markdown(examined)

def test_the_command_writes_an_ablation_of_the_stage_named(evaluated, tmp_path):
    file = tmp_path/"TEXT.md"
    file.write_text("\n".join(ABLATION_MARKERS))
    wrong = evaluated.pneumo("ablation", "recipe", "--stage", "cnn", "--write", str(file))
    assert "--stage to be one of compact, transfer, found 'cnn'" in wrong.stderr
    done = evaluated.pneumo("ablation", "recipe", "--stage", "compact", "--write", str(file))
    assert done.returncode == 0 and "| the recipe |" in file.read_text()

def test_the_projects_table_names_what_each_run_was_made_from():
    runs = results_in((ROOT/"nbs/49_findings.py").read_text(encoding="utf-8"))
    assert len(runs) > 1
    for name, (rows, words) in runs.items():
        assert rows and words.startswith(f"Run `{name}`: ")
        assert re.search(r"\d looks?(\(s\))? at the test films", words)

def test_a_chapter_that_is_older_than_what_it_reads_is_named_with_its_command(tmp_path):
    from pneumo_nb.report import _stale_sentences
    from pneumo_nb.run import finish, open_stage
    stage = open_stage("evaluation", tmp_path/"mine", threshold=.5)
    finish(stage)
    assert _stale_sentences(stage.folder) == {}
    stage.path("appearance.csv").write_text("path\n")
    [sentence] = _stale_sentences(stage.folder).values()
    assert "The chapter evaluation is older than what it reads: appearance.csv changed since." in sentence
    assert sentence.endswith("--only evaluation`.")
