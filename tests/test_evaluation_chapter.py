"""The chapter on evaluation: which models, trainings and films it finds in a run, and how it calls them."""
import numpy as np
import pandas as pd
import pytest

from pneumo_nb import evaluation
from pneumo_nb.measures import RULES, auroc_interval, paired_tests
from pneumo_nb.run import StudyError, finish, models, open_stage, write_csv, write_json

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

@pytest.mark.parametrize("weights, shown", [
    ("none", "ResNet50, frozen (random weights)"), ("imagenet", "ResNet50, frozen")])
def test_a_remark_stands_beside_the_model_in_tables(tmp_path, weights, shown):
    finish(open_stage("resnet", tmp_path, weights=weights))
    stage = open_stage("evaluation", tmp_path)
    write_csv(stage.path("predictions/resnet_frozen.csv"), both())
    write_csv(stage.path("comparison.csv"), compared(stage))
    read = pd.read_csv(stage.path("comparison.csv"))   # an empty remark is NaN here
    for table in (compared(stage), read):
        assert evaluation.comparison_table(table).model.tolist() == [shown]

def words_of(stage):
    "All text of the chapter's tables and findings."
    predictions = evaluation.load_predictions(stage)
    tests, names = evaluation.test_films(predictions)[1], {name: name for name in predictions}
    table, groups = compared(stage), evaluation.subgroup_table(tests, .5, 1, 20)
    calibration, pairs = evaluation._calibration_table(tests, 1, 50), paired_tests(tests, .5, 1, 20)
    thresholds = evaluation.threshold_table(predictions, .5, 1, 20)
    tables = [evaluation.comparison_table(table), evaluation._measures_table(table),
              evaluation._groups_table(groups), evaluation._readable_thresholds(thresholds, names),
              evaluation._readable_calibration(calibration, names)]
    if len(pairs): tables.append(evaluation._pairs_table(pairs))
    findings = "\n".join(evaluation._all_findings(table, groups, calibration, pairs))
    return "\n".join([findings, *(t.to_string() for t in tables)])

BORDERS = dict(
    ordinary=lambda t: t, normal=lambda t: t[(t.label == 0) | (t.split != "test")],
    pneumonia=lambda t: t[(t.label == 1) | (t.split != "test")],
    one_sick=lambda t: pd.concat([t[t.label == 0], t[t.label == 1].groupby("split").head(1)]),
    no_validation=lambda t: t[t.split == "test"], constant=lambda t: t.assign(probability=.5),
    perfect=lambda t: t.assign(probability=t.label * 1.),
    upside_down=lambda t: t.assign(probability=1. - t.label))

@pytest.mark.parametrize("kind", BORDERS)
def test_no_table_or_finding_says_nan(stage, kind):
    for n, name in enumerate(("one", "other")):
        write_csv(stage.path(f"predictions/{name}.csv"), BORDERS[kind](both(n)))
    assert "nan" not in words_of(stage).lower()

@pytest.mark.parametrize("kind, said", [
    ("normal", "All films judged are of one class, so there is no AUROC."),
    ("upside_down", "**one ranks every pair of films the wrong way round**: its AUROC is 0."),
    ("constant", "The highest AUROC, **0.500**, is that of **one**.")])
def test_the_findings_say_what_is_odd(stage, kind, said):
    write_csv(stage.path("predictions/one.csv"), BORDERS[kind](both()))
    assert said in words_of(stage)

def test_a_model_below_chance_is_called_so(stage):
    table = pd.concat([films("validation", 60), films("test", 60, 1)])
    for name, p in (("right", table.probability), ("turned", 1 - table.probability)):
        write_csv(stage.path(f"predictions/{name}.csv"), table.assign(probability=p))
    words = words_of(stage)
    assert "**turned ranks films worse than chance**" in words and "**right ranks" not in words

def test_the_interval_of_an_auroc_is_delongs_everywhere(stage):
    import matplotlib.pyplot as plt
    write_csv(stage.path("predictions/mine.csv"), both())
    row, predictions = compared(stage).iloc[0], evaluation.load_predictions(stage)
    table = evaluation.test_films(predictions)[1]["mine"]
    low, high = auroc_interval(table)
    assert (row.roc_auc_low, row.roc_auc_high) == (row.delong_low, row.delong_high) == (low, high)
    figure = evaluation._plot_roc(pd.DataFrame([row]), dict(mine=table), seed=1)
    legend = figure.legends[0].get_texts()[0].get_text()
    plt.close(figure)
    assert legend == f"mine: {row.roc_auc:.3f} ({low:.3f}–{high:.3f})"

@pytest.mark.parametrize("power, word", [
    (1, "calibrated, as far as these films can tell"), (3, "temperature-scaled at most, not calibrated")])
def test_only_what_stays_within_chance_is_called_calibrated(power, word):
    rng = np.random.default_rng(0)
    p = rng.random(600)
    table = pd.DataFrame(dict(label=(rng.random(600) < p).astype(int), probability=p ** power,
                              patient_id=range(600)))
    calibration = evaluation._calibration_table(dict(mine=table))
    assert list(calibration)[-1] == "ece_honest"
    [line] = evaluation._probability_findings(dict(model="mine", brier=.1, prevalence=.5), calibration)
    assert line.endswith(f"so they are {word}.")

def test_thresholds_have_intervals_of_as_many_draws_as_the_rest():
    table = films("validation", 40)
    table = table.assign(patient_id=range(40))
    few, many = (evaluation._thresholds_of(table, .5, 1, draws) for draws in (200, 1000))
    assert few["Youden"][0] == many["Youden"][0] and few != many

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
    assert member.sensitivity_virus == (virus.probability >= member.threshold_Youden).mean()

def test_kinds_and_patients_are_those_of_the_list_of_films(stage):
    table = both()
    images = table.assign(patient_id=range(len(table)), kind=np.where(table.label == 1, "fungus", "normal"))
    write_csv(stage.path("images.csv"), images[["path", "kind", "patient_id"]])
    write_csv(stage.path("predictions/mine.csv"), table)
    read = evaluation.load_predictions(stage)["mine"]
    assert read.kind.tolist() == images.kind.tolist()
    assert read.patient_id.tolist() == images.patient_id.tolist()
    groups = evaluation.subgroup_table(evaluation.test_films(dict(mine=read))[1], .5, 1, 20)
    assert {*groups.group[groups["by"] == "kind"]} == {"normal", "fungus"}
    assert evaluation._kind_findings(groups, "mine", "Mine") == []   # one kind of pneumonia

def test_no_members_make_an_empty_table(stage):
    assert len(evaluation.member_table(evaluation._load_members(stage), "test")) == 0

def move_films_away(stage, explored):
    "A run whose films have moved away."
    images = films("test").assign(width=100, height=80, bytes=9, sha1="a0")
    write_csv(stage.path("images.csv"), images)
    write_json(stage.path("metrics/data.json"), dict(root="/nowhere", source="folder", fingerprint="f"))
    if not explored: return
    write_csv(stage.path("appearance.csv"), images[["path", "sha1"]].assign(marker=.08, weight=.5))

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
    assert [f.name for f in stage.folder.iterdir()] == ["provenance.json"]   # no phantoms were drawn

def test_what_cannot_be_judged_is_refused(stage):
    with pytest.raises(StudyError, match="found none; run a model stage first"):
        evaluation.load_predictions(stage)
    write_csv(stage.path("predictions/a.csv"), both())
    write_csv(stage.path("predictions/b.csv"), films("validation"))
    with pytest.raises(StudyError, match="Expected test films in the predictions of b, found none"):
        compared(stage)
