"""Tables of finished runs: what they hold, which runs may share one, and what is kept of runs not at hand."""
import json, re, shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pneumo_nb.results import (RESULTS_MARKERS, ablation_markdown, results_in, results_markdown, results_rows,
                               write_between)
from pneumo_nb.run import StudyError, digests, read_json, read_provenance, write_json

ROOT = Path(__file__).parents[1]
RULE_98 = "accuracy, sensitivity .98"

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

def test_runs_on_other_films_are_not_put_into_one_table(evaluated, tmp_path):
    other = copied(evaluated, tmp_path/"other")
    rewrite(other/"metrics/data.json", lambda facts: facts.update(fingerprint="another"))
    recorded(other)
    for table in (results_markdown, ablation_markdown):
        with pytest.raises(StudyError, match="Expected runs on the same films, found"):
            table([evaluated.folder, other])

@pytest.fixture
def elsewhere(evaluated, tmp_path):
    "A text with the results of a run that is not here."
    file = tmp_path/"TABLE.md"
    file.write_text(f"before\n{RESULTS_MARKERS[0]}\n{RESULTS_MARKERS[1]}\nafter\n")
    write_between(file, results_markdown([evaluated.folder]), RESULTS_MARKERS)
    text = file.read_text().replace("| recipe |", "| elsewhere |").replace("Run `recipe`", "Run `elsewhere`")
    file.write_text(text)
    return file

def add(evaluated, file): return evaluated.pneumo("results", "recipe", "--write", str(file), "--add")

def test_a_table_keeps_runs_that_are_not_here(evaluated, elsewhere):
    before = elsewhere.read_text()
    done = add(evaluated, elsewhere)
    assert done.returncode == 0, done.stderr
    runs = results_in(elsewhere.read_text())
    assert list(runs) == ["recipe", "elsewhere"]
    nameless = {name: [row | dict(run="") for row in rows] for name, (rows, _) in runs.items()}
    assert nameless["elsewhere"] == nameless["recipe"]
    assert runs["elsewhere"] == results_in(before)["elsewhere"] and runs["elsewhere"][1]
    assert runs["recipe"][1].startswith("Run `recipe`: ") and elsewhere.read_text().endswith("after\n")
    again = elsewhere.read_text()
    assert add(evaluated, elsewhere).returncode == 0 and elsewhere.read_text() == again

def test_a_table_of_a_version_without_a_column_gets_dashes_there(evaluated, elsewhere):
    runs = results_in(elsewhere.read_text())["elsewhere"][0]
    column = list(runs[0]).index(RULE_98)
    def without(line): return " | ".join(c for n, c in enumerate(line.split(" | ")) if n != column)
    lines = elsewhere.read_text().splitlines()
    elsewhere.write_text("\n".join(without(l) if l.startswith("|") else l for l in lines) + "\n")
    assert RULE_98 not in results_in(elsewhere.read_text())["elsewhere"][0][0]
    assert add(evaluated, elsewhere).returncode == 0
    rows = results_in(elsewhere.read_text())["elsewhere"][0]
    assert {row[RULE_98] for row in rows} == {"–"}
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

def test_an_ablation_names_what_differs_and_who_answers(evaluated, tmp_path):
    folds = copied(evaluated, tmp_path/"folds")
    def without_refits(record): record["stages"]["compact"]["parameters"].update(refits=0, match=0.)
    rewrite(folds/"provenance.json", without_refits)
    text = ablation_markdown([evaluated.folder, folds])
    assert "| the recipe |" in text and "refits 0" in text and "match 0.0" in text
    assert "AUROC of 2 folds across the naming series" in text
    assert "the networks that learned from all folds" in text
    assert "these networks averaged" in ablation_markdown([folds])

def test_an_ablation_needs_the_examinations(evaluated, tmp_path):
    bare = copied(evaluated, tmp_path/"bare")
    (bare/"metrics/compact.json").unlink()
    recorded(bare)
    with pytest.raises(StudyError, match="found bare without; run them first"): ablation_markdown([bare])

def test_the_projects_table_names_what_each_run_was_made_from():
    runs = results_in((ROOT/"nbs/39_findings.py").read_text(encoding="utf-8"))
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
