"""The chapter on evaluation: which models, trainings and films it finds in a run, and how it calls them."""
import numpy as np
import pandas as pd
import pytest

from pneumo_nb import evaluation
from pneumo_nb.measures import RULES
from pneumo_nb.run import StudyError, models, open_stage, write_csv, write_json

def films(split, n=12, seed=0):
    "Predictions of some normal and some pneumonia films, one a patient."
    rng, label = np.random.default_rng(seed), np.arange(n) % 2
    names = [f"PNEUMONIA/person{k}_{('virus', 'bacteria')[k % 4 // 2]}_{k}.jpeg" if label[k]
             else f"NORMAL/IM-{k:04d}-0001.jpeg" for k in range(n)]
    probability = np.clip(.3 * label + rng.uniform(.1, .6, n), 0, 1)
    return pd.DataFrame(dict(path=[f"{split}/{name}" for name in names], split=split, label=label,
                             probability=probability))

def both(seed=0): return pd.concat([films("validation", seed=seed), films("test", seed=seed + 1)])

@pytest.fixture
def stage(tmp_path): return open_stage("evaluation", tmp_path/"run")

def compared(stage): return evaluation.compare_models(stage, evaluation.load_predictions(stage), .5, 1, 20)

def test_models_stand_in_the_order_of_the_study_and_strangers_last(stage):
    names = ["someone_s_net", *reversed(models())]
    for name in names: write_csv(stage.path(f"predictions/{name}.csv"), both())
    assert list(compared(stage).model) == [*models(), "someone_s_net"]

def test_a_comparison_ends_with_validation_networks_and_remark(stage):
    for name in ("one", "several"): write_csv(stage.path(f"predictions/{name}.csv"), both())
    history = pd.DataFrame(dict(epoch=[1, 2] * 3, member=list("aabbcc"), total_seconds=range(6)))
    write_csv(stage.path("history/several.csv"), history)
    table = compared(stage)
    assert list(table)[-4:] == ["parameters", "validation_roc_auc", "networks", "remark"]
    assert table.networks.tolist() == [1, 3] and table.remark.tolist() == ["", ""]
    assert table.epochs.iloc[1] == 2 and np.isnan(table.epochs.iloc[0])
    validation = films("validation")
    pairs = [(p > q) + .5 * (p == q) for p in validation.probability[validation.label == 1]
             for q in validation.probability[validation.label == 0]]
    assert table.validation_roc_auc.tolist() == pytest.approx([np.mean(pairs)] * 2)

def test_without_test_films_validation_is_judged_and_chooses_nothing(stage):
    write_csv(stage.path("predictions/mine.csv"), films("validation"))
    table = compared(stage)
    assert table.films.tolist() == [12]
    assert table[["chosen_threshold", "chosen_accuracy", "validation_roc_auc"]].isna().all(axis=None)
    assert evaluation.comparison_table(table)["accuracy at the threshold chosen on validation"][0] == "–"

@pytest.mark.parametrize("weights, shown", [
    ("none", "ResNet50, frozen (random weights)"), ("imagenet", "ResNet50, frozen")])
def test_a_remark_stands_beside_the_model_in_tables(tmp_path, weights, shown):
    record = dict(parameters=dict(weights=weights))
    write_json(tmp_path/"provenance.json", dict(stages=dict(resnet=record)))
    stage = open_stage("evaluation", tmp_path)
    write_csv(stage.path("predictions/resnet_frozen.csv"), both())
    write_csv(stage.path("comparison.csv"), compared(stage))
    read = pd.read_csv(stage.path("comparison.csv"))   # an empty remark is NaN here
    for table in (compared(stage), read):
        assert evaluation.comparison_table(table).model.tolist() == [shown]

def test_trainings_are_grouped_by_their_model_whatever_their_names_are(stage):
    rows = [("compact", "compact_s0_r0"), ("compact", "compact_s1_r0"), ("someone_s_net", "first_s_try")]
    tables = [both(n).assign(model=model, member=member, seed=n) for n, (model, member) in enumerate(rows)]
    write_csv(stage.path("members/one.csv"), pd.concat(tables[1:]))
    write_csv(stage.path("members/another.csv"), tables[0])
    table = evaluation.member_table(evaluation._load_members(stage), "test", .5)
    assert list(zip(table.kind, table.member)) == rows
    assert {f"{key}_{rule}" for key in ("threshold", "accuracy") for rule in RULES} <= {*table}
    spread = evaluation.spread_table(table).set_index("model")
    assert spread["trained"].tolist() == ["2 trainings", "one training"]
    low, high = sorted(table.roc_auc[:2])
    assert spread["AUROC"].iloc[0] == f"{(low + high) / 2:.4f} ({low:.3f}–{high:.3f})"
    assert spread["AUROC"].iloc[1] == f"{table.roc_auc[2]:.4f}"
    assert not spread.iloc[1].str.contains("–").any()   # no range where there is one training

def test_a_member_is_judged_as_a_model_of_its_own(stage):
    for name in ("predictions/mine.csv", "members/mine.csv"):
        write_csv(stage.path(name), both().assign(model="mine", member="mine_0", seed=0))
    member = evaluation.member_table(evaluation._load_members(stage), "test", .5).iloc[0]
    thresholds = evaluation.threshold_table(evaluation.load_predictions(stage), .5, draws=20)
    thresholds, row = thresholds.set_index("chosen"), compared(stage).iloc[0]
    for rule in RULES:
        assert member[f"threshold_{rule}"] == thresholds.threshold[rule]
        assert member[f"accuracy_{rule}"] == thresholds.accuracy[rule]
    assert (member.accuracy_fixed, member.roc_auc) == (row.accuracy, row.roc_auc)
    sick = films("test", seed=1).query("label == 1")
    virus = sick[sick.path.str.contains("virus")]
    assert member.virus == (virus.probability >= member.threshold_Youden).mean()

def test_no_members_make_an_empty_table(stage):
    assert len(evaluation.member_table(evaluation._load_members(stage), "test")) == 0

def move_films_away(stage, explored):
    "A run whose films have moved away."
    images = films("test").assign(width=100, height=80, bytes=9)
    write_csv(stage.path("images.csv"), images)
    write_json(stage.path("metrics/data.json"), dict(root="/nowhere", source="folder", fingerprint="f"))
    if not explored: return
    write_csv(stage.path("appearance.csv"), images[["path"]].assign(marker=.08, weight=.5))
    write_json(stage.path("provenance.json"), dict(stages=dict(eda={})))

@pytest.mark.parametrize("explored", [True, False])
def test_markers_are_read_where_the_films_have_moved_if_exploration_measured_them(stage, explored):
    move_films_away(stage, explored)
    images = evaluation._run_films(stage, 42)
    markers = evaluation._load_markers(stage, images, 42)
    assert not evaluation._are_there(images, images.path) and not stage.notes
    looks = evaluation._with_looks(films("test"), images, markers)
    assert looks.width.tolist() == [100] * 12 and ("marker" in looks) == explored
    assert not explored or looks.marker.tolist() == [.08] * 12

def test_predictions_alone_have_neither_sizes_nor_markers(stage):
    images = evaluation._run_films(stage, 42)
    assert images is None and evaluation._load_markers(stage, images, 42) is None
    assert list(stage.folder.iterdir()) == []   # no phantoms were drawn

def test_what_cannot_be_judged_is_refused(stage):
    with pytest.raises(StudyError, match="found none; run a model stage first"):
        evaluation.load_predictions(stage)
    write_csv(stage.path("predictions/a.csv"), both())
    write_csv(stage.path("predictions/b.csv"), films("validation"))
    with pytest.raises(StudyError, match="Expected test films in the predictions of b, found none"):
        compared(stage)
