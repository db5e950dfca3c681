"""What a reviewer asks: the checklists, the cards, the flow and the abstract, of a run written by hand."""
import re
from configparser import ConfigParser
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pneumo_nb.report import _card_html, _cards_page, _list_tables
from pneumo_nb.reporting import (
    STATUSES, abstract, checklists_of, data_card, flow_counts, flow_figure, flow_words, is_public_test,
    model_card, pages_of, read_checklists, status_counts, status_words)
from pneumo_nb.run import StudyError, stages, write_csv, write_json

ROOT = Path(__file__).parents[1]
PAGES = {"index.html", "operating_point.html", "methods.html", "checklists.html", "cards.html",
         *(f"{name}.html" for name in stages())}
PUBLIC = dict(normal=234, bacteria=242, virus=148)
MEASURES = dict(roc_auc=.9321, sensitivity=.8765, specificity=.7654, ppv=.6543, npv=.5432, accuracy=.4321)

def films(kinds, split, patients):
    "Films of some kinds, each patient with two if there are enough."
    rows = [dict(split=split, kind=kind, label=int(kind != "normal"),
                 patient_id=f"{split} {kind} {n // patients}")
            for kind, count in kinds.items() for n in range(count)]
    return pd.DataFrame(rows).assign(path=[f"{split}/{n}.png" for n in range(len(rows))])

def run_of(folder, source="phantoms", tests=None, evaluated=True):
    "A run with one model, written by hand."
    tests = tests or dict(normal=4, bacteria=2, virus=4)
    parts = [films(dict(normal=6, bacteria=10), "train", 2), films(dict(normal=2, virus=3), "validation", 1),
             films(tests, "test", 2)]
    write_csv(folder/"images.csv", pd.concat(parts))
    write_json(folder/"metrics/data.json", dict(root="/films/xray", source=source, fingerprint="1ab",
                                                left_out={"a.png": "is empty", "b.png": "is cut short"}))
    write_csv(folder/"metrics/data_checks.csv", pd.DataFrame(dict(
        problem=["same bytes in two splits", "no picture"], films=[3, 0], serious=True, examples="a.png")))
    record = dict(parameters=dict(image_size=64, draws=222), started="2026-11-26T17:29:31+00:00", seconds=70,
                  peak_memory_mb=200, git_commit="0123456789abcdef", versions=dict(keras="3.15.1"), notes=[],
                  machine={}, inputs={}, outputs={})
    write_json(folder/"provenance.json", dict(stages=dict(cnn=record, evaluation=record)))
    if not evaluated: return folder
    well, sick = tests["normal"], sum(tests.values()) - tests["normal"]
    row = dict(model="cnn", films=well + sick, threshold=.5, tn=well - 1, fp=1, fn=2, tp=sick - 2,
               parameters=98765, training_seconds=61.2, networks=1, validation_roc_auc=.9876, remark=None)
    for name, value in MEASURES.items():
        row |= {name: value, f"{name}_low": value - .1, f"{name}_high": value + .05}
    write_json(folder/"metrics/evaluation.json",
               dict(threshold=.5, split="test", best="cnn", comparison=[row, row | dict(model="mlp")]))
    write_csv(folder/"metrics/evaluation_subgroups.csv", pd.DataFrame(dict(
        model="cnn", label=1, by="kind", group=["bacteria", "virus"], films=[2, 4], patients=[1, 2],
        measure="sensitivity", rate=[.5, .75], rate_low=[None, .25], rate_high=[None, .95])))
    return folder

def words_of(card):
    "All text of a card or an abstract."
    pairs = card.items() if isinstance(card, dict) else card
    texts = [[heading, *(part if isinstance(part, list) else [part])] for heading, part in pairs]
    rows = [cell for text in texts for part in text if isinstance(part, list)
            for row in part for cell in row.values()]
    return " ".join([*(part for text in texts for part in text if isinstance(part, str)), *map(str, rows)])

def is_readable(text):
    "No key, no missing value, no open place, nothing counted wrongly."
    text = text.replace("pneumo_nb", "pneumo").replace("None of this", "Nothing here")
    return not re.search(r"\bnan\b|\bNone\b|[a-z]_[a-z]|[{}]|\b1 (film|patient|model|look)s\b|  ", text)

# ---- the checklists

def test_the_lists_are_whole():
    items = read_checklists()
    numbers = items.item.str.extract(r"^(\d+)[a-g]?$")[0].astype(int)
    for name, count, rows in [("STARD 2015", 30, 34), ("TRIPOD+AI 2024", 27, 52), ("CLAIM 2024", 44, 44)]:
        of_list = items.checklist == name
        assert sorted(set(numbers[of_list])) == [*range(1, count + 1)] and of_list.sum() == rows
        assert items[of_list].item.is_unique
    assert items.checklist.nunique() == 3

def test_every_point_is_answered_in_one_short_sentence():
    items = read_checklists()
    assert set(items.status) <= set(STATUSES[:-1])
    for row in items.itertuples():
        assert re.match(r"[A-Z].*\.$", row.words) and len(row.words.split()) <= 35, row
        assert ". " not in row.words and 0 < len(row.asks) < 70

def test_every_answer_is_on_a_page_that_a_report_can_have():
    for row in read_checklists().to_dict("records"):
        needs_page = row["status"] in ("in the report", "in part")
        assert (row["where"] in PAGES) if needs_page else (row["where"] == ""), row

def test_what_a_run_does_not_have_is_said(tmp_path):
    folder = run_of(tmp_path)
    assert pages_of(folder) == {"index.html", "methods.html", "checklists.html", "cards.html"}
    def stard(item):
        items = checklists_of(folder)
        return items[items.checklist == "STARD 2015"].set_index("item").loc[item]
    assert stard("24").status == "not in this run" and stard("24")["where"] == ""
    assert stard("8").status == "in part" and stard("28").status == "not done"
    (folder/"notebooks").mkdir()
    (folder/"notebooks/40_evaluation.ipynb").write_text("{}")
    assert stard("24").status == "in the report"

def test_counts_of_statuses_add_up(tmp_path):
    items = checklists_of(tmp_path)
    assert status_counts(items).sum(axis=1).tolist() == [34, 52, 44]
    assert len(status_words(items)) == 3 and "34 points" in status_words(items)[0]

def test_another_status_is_refused(tmp_path):
    file = tmp_path/"lists.csv"
    read_checklists().assign(status="done").to_csv(file, index=False)
    with pytest.raises(StudyError, match="found done"): read_checklists(file)

# ---- the flow

@pytest.mark.parametrize("tests", [None, PUBLIC], ids=["few", "public"])
def test_flow_adds_up(tmp_path, tests):
    counts = flow_counts(run_of(tmp_path, tests=tests))
    parts, judged = counts["splits"], counts["judged"]
    assert counts["found"] == counts["kept"]["films"] + sum(counts["left_out"].values())
    for key in ("films", "patients", "normal", "pneumonia"):
        assert sum(part[key] for part in parts.values()) == counts["kept"][key], key
    assert judged["tp"] + judged["fn"] == parts["test"]["pneumonia"]
    assert judged["tn"] + judged["fp"] == parts["test"]["normal"]

def test_flow_is_drawn_for_a_phone(tmp_path):
    figure = flow_figure(run_of(tmp_path))
    texts = figure.axes[0].texts
    shown = "\n".join(text.get_text() for text in texts)
    assert figure.get_figwidth() * 80 <= 390 and all(text.get_fontsize() >= 10 for text in texts)
    assert all(words in shown for words in ("33 films found", "2 left out", "labelled pneumonia: 4"))
    assert is_readable(flow_words(tmp_path)) and "33 films found" in flow_words(tmp_path)
    figure.canvas.draw()
    inside = figure.bbox
    for text in texts:
        if not text.get_text(): continue
        box = text.get_bbox_patch().get_window_extent()
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0, text.get_text()

def test_flow_of_a_run_without_evaluation_ends_at_the_splits(tmp_path):
    figure = flow_figure(run_of(tmp_path, evaluated=False))
    assert "called" not in "".join(text.get_text() for text in figure.axes[0].texts)

# ---- cards and abstract

@pytest.mark.parametrize("source", ["phantoms", "public", "own"])
def test_cards_and_abstract_hold_the_numbers_and_nothing_raw(tmp_path, source):
    folder = run_of(tmp_path, "phantoms" if source == "phantoms" else "folder",
                    PUBLIC if source == "public" else None)
    assert is_public_test(folder) == (source == "public")
    data, model, summary = map(words_of, (data_card(folder), model_card(folder, "cnn"), abstract(folder)))
    assert is_readable(data) and is_readable(model) and is_readable(summary)
    assert all(f"{value:.4f} ({value - .1:.3f}–{value + .05:.3f})" in model for value in MEASURES.values())
    assert all(f"{MEASURES[name]:.4f}" in summary for name in ("roc_auc", "sensitivity", "specificity"))
    assert "98,765 parameters" in model and "61 seconds" in model and "0123456789," in model
    assert "0.7500 (0.250–0.950)" in model and "bacterial pneumonia" in model
    assert "222 times" in summary and "Of 2 models CNN" in summary
    assert "3 films: same bytes in two splits" in data and "1 × is cut short" in data
    said = dict(phantoms="no child is on a phantom", public="10.17632/rscbjbr9sj", own="folder named xray")
    assert said[source] in data and "/films" not in data + model + summary

def test_headings_are_those_of_model_cards(tmp_path):
    headings = ["Model details", "Intended use", "Out of scope", "Factors", "Metrics", "Evaluation data",
                "Training data", "Quantitative analyses", "Ethical considerations", "Caveats"]
    assert list(model_card(run_of(tmp_path), "cnn")) == headings

def test_a_run_before_its_evaluation_says_so(tmp_path):
    folder = run_of(tmp_path, evaluated=False)
    assert dict(abstract(folder))["Results"] == "The run has not been evaluated."
    card = words_of(model_card(folder, "cnn"))
    assert "has not been evaluated" in card and is_readable(card)

# ---- the pages

def test_pages_are_made_of_what_there_is(tmp_path):
    titles = {"evaluation.html": "Evaluation", "cards.html": "Cards"}
    empty = "".join(_list_tables(tmp_path, titles).values())
    assert _cards_page(tmp_path) is None and "not in this run" in empty and "evaluation.html" not in empty
    folder = run_of(tmp_path)
    lists, card = _list_tables(folder, titles), _card_html(model_card(folder, "cnn"), "Model card")
    assert list(lists) == ["STARD 2015", "TRIPOD+AI 2024", "CLAIM 2024"]
    assert '<a href="cards.html">Cards</a>' in lists["STARD 2015"] and "0.9321" in card

def test_citation_agrees_with_the_settings():
    settings = ConfigParser(delimiters=["="], interpolation=None)
    settings.read(ROOT/"settings.ini", encoding="utf-8")
    citation, said = yaml.safe_load((ROOT/"CITATION.cff").read_text()), settings["DEFAULT"]
    assert citation["version"] == said["version"] and citation["authors"] == [dict(name=said["author"])]
    assert citation["license"] == "Apache-2.0" and said["license"] == "apache2"
    assert citation["references"][0]["doi"].startswith("10.17632/rscbjbr9sj")
