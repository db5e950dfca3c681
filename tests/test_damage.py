"""Runs whose files were changed, damaged or put in from elsewhere: one sentence that names the file."""
import base64, io, json, os, re, shutil, subprocess, sys, tempfile, time
from pathlib import Path

import nbformat
import nbformat.v4 as nb
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from click.testing import CliRunner
from PIL import Image

from pneumo_nb.cli import main
from pneumo_nb.report import render_report
from pneumo_nb.run import StudyError, finish, open_stage, read_json, write_csv, write_json

DATA, EVALUATION = "notebooks/30_data.ipynb", "notebooks/40_evaluation.ipynb"

@pytest.fixture
def damaged(evaluated, tmp_path, monkeypatch):
    "A copy of the evaluated run that may be damaged, seen from where the command is called."
    folder = tmp_path/"runs/spoilt"
    shutil.copytree(evaluated.folder, folder, ignore=shutil.ignore_patterns("cache", "models", ".*"))
    monkeypatch.chdir(tmp_path)
    return folder

def visible(folder): return {f: f.stat().st_size for f in folder.rglob("*") if not f.name.startswith(".")}

def refusal(folder, command):
    "The one line that a command ends with; nothing is written."
    before = visible(folder.parents[1])
    done = CliRunner().invoke(main, [command, folder.name])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.exception
    assert done.output.startswith("Error: ") and done.output.count("\n") == 1, done.output
    assert visible(folder.parents[1]) == before
    return done.output

def half(text): return text[:len(text) // 2]
def header(text): return text.splitlines()[0] + "\n"
def garbled(text): return "\x00\x01 ,,\n\"" + text[40:]
def worded(text): return re.sub(r"0\.\d+", "high", text)
def raised(text): return re.sub(r"0\.\d+", "0.9999", text)
def empty(text): return ""
def a_dict(text): return "{}"
def a_list(text): return "[]"

TABLES = ["comparison.csv", "metrics/evaluation_thresholds.csv", "metrics/evaluation_members.csv",
          "images.csv", "predictions/compact.csv"]
SPOILT = [(file, damage) for file in TABLES for damage in (empty, header, garbled, worded, raised, half)]
SPOILT += [(file, damage) for file in ("metrics/data.json", "metrics/evaluation.json", "metrics/compact.json")
           for damage in (empty, half, a_dict, a_list)]
READ_BY = {"metrics/data.json": ("results", "ablation", "report"),   # an ablation reads no evaluation
           "metrics/compact.json": ("ablation",)}

@pytest.mark.parametrize("file, damage", SPOILT, ids=lambda value: getattr(value, "__name__", value))
def test_a_file_that_a_stage_did_not_write_so_is_refused(damaged, file, damage):
    text = (damaged/file).read_text()
    if damage(text) == text: pytest.skip("nothing to spoil")
    (damaged/file).write_text(damage(text))
    stage = "data" if "data" in file or "images" in file else "compact" if "compact" in file else "evaluation"
    for command in READ_BY.get(file, ("results", "report")):
        says = refusal(damaged, command)
        assert f"Expected {file} as the stage {stage} wrote it in the run spoilt, found it changed" in says
        assert f"`pneumo run --run spoilt --only {stage}`" in says

@pytest.mark.parametrize("command, file", [
    ("results", "comparison.csv"), ("report", "metrics/data.json"), ("ablation", "metrics/compact.json"),
    ("results", "metrics/evaluation_thresholds.csv"), ("results", "predictions/compact_ensemble.csv")])
def test_a_file_that_is_gone_is_missed(damaged, command, file):
    (damaged/file).unlink()
    assert f"Expected {file} as the stage" in (says := refusal(damaged, command)) and "found none" in says

def test_results_of_an_evaluation_that_did_not_end_are_refused(damaged):
    open_stage("evaluation", damaged)   # begun again, and killed
    assert "comparison.csv as the stage evaluation wrote it" in refusal(damaged, "results")
    assert "found one that no finished stage wrote" in refusal(damaged, "report")

@pytest.mark.parametrize("text", ["", "path,split,label,probability\n", "x\n"])
def test_predictions_that_came_later_are_to_be_evaluated(damaged, text):
    (damaged/"predictions/foo.csv").write_text(text)
    for command in ("results", "report"):
        says = refusal(damaged, command)
        assert "Expected predictions/foo.csv as it was evaluated in the run spoilt, found it added" in says
        assert "`pneumo run --run spoilt --only evaluation`" in says

@pytest.mark.parametrize("text", ["", "path,split,label,probability\n", "x\n", "\x00",
                                  "path,split,label,probability\na,test,1,high\n",
                                  "path,split,label,probability\na,test,1,7\n"])
def test_predictions_that_cannot_be_shown_are_named(damaged, text):
    record = read_json(damaged/"provenance.json")
    del record["stages"]["evaluation"]
    write_json(damaged/"provenance.json", record)
    for file in [damaged/"comparison.csv", *(damaged/"metrics").glob("evaluation*")]: file.unlink()
    (damaged/"predictions/foo.csv").write_text(text)
    assert "predictions/foo.csv" in refusal(damaged, "report")

RECORDS = ["", "{", "[]", "{}", '{"stages": []}', '{"stages": {"data": {}}}', '{"stages": {"data": null}}',
           '{"stages": {"evaluation": {"parameters": {}, "outputs": {}}}}',
           '{"stages": {}, "test_looks": [{}]}', '{"stages": {}, "test_looks": 3}']

@pytest.mark.parametrize("text", RECORDS)
def test_a_record_that_is_none_is_named(damaged, text):
    (damaged/"provenance.json").write_text(text)
    for command in ("results", "ablation", "report"):
        assert "Expected the record of a run in" in (says := refusal(damaged, command))
        assert "provenance.json" in says

def retold(text): return text.replace("AUROC", "AUROC of .9999")

@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("damage", [empty, half, a_dict, a_list, garbled, retold])
def test_a_chapter_that_is_no_notebook_or_changed_is_named(damaged, damage, recorded):
    if not recorded:   # a notebook that papermill executed by hand
        if damage == retold: pytest.skip("nothing to compare with")
        record = read_json(damaged/"provenance.json")
        del record["stages"]["evaluation"]["notebook"]
        write_json(damaged/"provenance.json", record)
    (damaged/EVALUATION).write_text(damage((damaged/EVALUATION).read_text()))
    says = refusal(damaged, "report")
    assert EVALUATION in says and "remove that file and do `pneumo run`" in says
    assert ("as it was executed, found it changed" in says) == recorded

# ---- what an executed notebook says of its figures

def picture():
    drawn = io.BytesIO()
    Image.new("RGB", (4, 2)).save(drawn, "PNG")
    return base64.b64encode(drawn.getvalue()).decode()

def chapter(folder, png=None, **about):
    "A run with one chapter, which shows a figure."
    shown = nb.new_output("display_data", data={"image/png": png or picture()},
                          metadata={"image/png": about})
    cells = [nb.new_markdown_cell("# Data\n\n> Films"), nb.new_code_cell("plot()", outputs=[shown])]
    (folder/"notebooks").mkdir(parents=True)
    nbformat.write(nb.new_notebook(cells=cells), folder/DATA)
    return folder

@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "..", "a/b", "a\nb", 7, ["x"]])
def test_a_figure_is_written_nowhere_else(tmp_path, name):
    folder = chapter(tmp_path/"runs/a", name=name)
    before = visible(tmp_path)
    with pytest.raises(StudyError, match="Expected a file's name for figure 1 of data.html"):
        render_report(folder)
    assert visible(tmp_path) == before

def test_a_picture_that_is_none_is_named(tmp_path):
    with pytest.raises(StudyError, match="Expected a PNG picture for figure 1 of data.html"):
        render_report(chapter(tmp_path/"runs/a", png=picture()[:40]))

# ---- names and notes go to pages as text

EVIL = '"<img src=x onerror=alert(1)>'

def test_nothing_from_a_run_becomes_markup(tmp_path):
    folder = chapter(tmp_path/"runs"/f"a {EVIL}", name="dot", alt=EVIL, caption=EVIL)
    films = pd.DataFrame(dict(path=["a", "b"], split="test", label=[0, 1], probability=[.2, .7]))
    write_csv(folder/"predictions"/f"{EVIL}.csv", films)
    write_json(folder/"provenance.json", dict(stages={}))
    stage = open_stage("evaluation", folder, **{EVIL: EVIL})
    stage.notes.append(EVIL)
    measures = ("roc_auc", "accuracy", "sensitivity", "specificity", "chosen_accuracy", "validation_roc_auc")
    values = {f"{name}{end}": .9 for name in measures for end in ("", "_low", "_high")}
    counts = dict(films=2, threshold=.5, tn=1, fp=0, fn=0, tp=1, epochs=1, networks=1,
                  training_seconds=2.)
    rows = [dict(model=EVIL, remark=EVIL, **values, **counts)]
    write_csv(folder/"comparison.csv", pd.DataFrame(rows))
    facts = dict(split="test", best=EVIL, threshold=.5, pairs=[], comparison=rows)
    write_json(folder/"metrics/evaluation.json", facts)
    thresholds = dict(model=EVIL, chosen=EVIL, accuracy=.9, accuracy_low=.8, accuracy_high=1.)
    write_csv(folder/"metrics/evaluation_thresholds.csv", pd.DataFrame([thresholds]))
    finish(stage)
    index, _ = render_report(folder)
    for page in [*index.parent.glob("*.html"), tmp_path/"runs/index.html"]:
        soup = BeautifulSoup(page.read_text(), "html.parser")
        assert not soup.find_all(onerror=True) and not soup.find_all("img", src="x"), page
    pages = {name: (index.parent/name).read_text() for name in ("index.html", "operating_point.html")}
    option = BeautifulSoup(pages["operating_point.html"], "html.parser").find("option")
    assert option["value"] == option.get_text() == EVIL
    assert BeautifulSoup(pages["index.html"], "html.parser").find("main").get_text().count(EVIL) >= 3

# ---- a report that is killed

KILLED = """
import os, signal
from pneumo_nb import pages
with pages.staging_folder() as folder:
    (folder/"half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""

def test_what_a_killed_report_left_is_removed_by_the_next(tmp_path, monkeypatch):
    place = tmp_path/"temporary"
    place.mkdir()
    subprocess.run([sys.executable, "-c", KILLED], env=os.environ | dict(TMPDIR=str(place)))
    left, = place.glob("pneumo-site-*")
    os.utime(left, (time.time() - 100,) * 2)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    render_report(chapter(tmp_path/"runs/a"))
    assert list(place.iterdir()) == []
