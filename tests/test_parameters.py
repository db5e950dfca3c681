"""Parameters: each has a range, is in it, and is refused outside it before anything starts."""
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from pneumo_nb.cli import main
from pneumo_nb.parameters import declared_parameters, load_params, resolve_params
from pneumo_nb.run import StudyError, check_parameters, check_value, open_stage, shortened, stages
from pneumo_nb.views import AUGMENTATION, RECIPE_RANGES, check_ranges, check_recipe

ROOT = Path(__file__).parents[1]
KNOWN = {name: declared_parameters(ROOT/f"nbs/{stage.notebook}.ipynb") for name, stage in stages().items()}

def run(folder, *words):
    "What the command says to these words: one sentence, and no run is begun."
    before = Path.cwd()
    os.chdir(folder)
    try: done = CliRunner().invoke(main, ["run", "--run", "x", *words])
    finally: os.chdir(before)
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.output
    assert done.output.count("\n") == 1 and not (folder/"runs").exists(), done.output
    return done.output

# ---- declarations

@pytest.mark.parametrize("stage", stages())
def test_every_parameter_has_a_range_and_its_default_lies_in_it(stage):
    assert set(stages()[stage].ranges) == set(KNOWN[stage])
    check_parameters({stage: KNOWN[stage]})
    for name, rule in stages()[stage].ranges.items():
        numeric = type(KNOWN[stage][name]) in (int, float)
        assert not numeric or " from " in rule or " above " in rule, f"{stage}.{name} has no limits"

@pytest.mark.parametrize("file", sorted((ROOT/"params").glob("*.yaml")), ids=lambda f: f.stem)
def test_parameter_files_lie_in_the_ranges(file):
    sections, chosen = load_params(file)
    params = resolve_params(sections, KNOWN)
    check_parameters({name: params[name] for name in chosen})

@pytest.mark.parametrize("stage, ranges, check", [
    ("preprocessing", AUGMENTATION, check_ranges),
    ("compact", dict.fromkeys(RECIPE_RANGES, 0), check_recipe)])
def test_functions_refuse_what_the_declarations_refuse(stage, ranges, check):
    for name in set(ranges) - {"flip"}:
        rule = stages()[stage].ranges[name]
        limit = float(rule.split()[-1])
        for value in (-.01, 0, 1 if "whole" in rule else .01, limit, limit + 1):
            answers = []
            for ask in (lambda: check_value(name, int(value) if value == int(value) else value, rule),
                        lambda: check(ranges | {name: value})):
                try: answers.append(ask())
                except StudyError: answers.append("refused")
            assert answers[0] == answers[1], (name, value)

# ---- refused at the start

WHOLE = [f"{stage}.{name}" for stage, known in KNOWN.items() for name, v in known.items() if type(v) is int]
REAL = [f"{stage}.{name}" for stage, known in KNOWN.items() for name, v in known.items() if type(v) is float]

@pytest.mark.parametrize("names, values", [
    (WHOLE, [-1, 10 ** 9 * 20251125, 2.5, True, "many", None, [1], 10 ** 5000, float("nan")]),
    (REAL, [-1, 1000, float("inf"), float("nan"), 10 ** 400, False, "much", None, [.1]])])
def test_no_number_takes_what_is_no_such_number(names, values):
    assert len(names) > 15
    for name in names:
        stage, key = name.split(".")
        for value in values:
            with pytest.raises(StudyError) as refused: check_parameters({stage: KNOWN[stage] | {key: value}})
            said = str(refused.value)
            assert said.startswith(f"Expected {name} to be a ") and len(said) < 200
            assert said.endswith(f", found {shortened(value)}.")

@pytest.mark.parametrize("asked, says", [
    ("cnn.epochs=0", "Expected cnn.epochs to be a whole number from 1 to 10000, found 0."),
    ("cnn.epochs=-3", "Expected cnn.epochs to be a whole number from 1 to 10000, found -3."),
    ("cnn.batch_size=0", "Expected cnn.batch_size to be a whole number from 1 to 4096, found 0."),
    ("cnn.learning_rate=-1", "Expected cnn.learning_rate to be a number above 0 and up to 1, found -1."),
    ("cnn.learning_rate=1e999", "Expected cnn.learning_rate to be a finite number, found inf."),
    ("evaluation.threshold=40", "to be a number above 0 and below 1, found 40."),
    ("data.validation_fraction=20", "to be a number above 0 and below 1, found 20."),
    ("data.phantom_test=2", "Expected data.phantom_test to be a whole number from 3 to 100000, found 2."),
    ("xai.patch_size=500", "Expected xai.patch_size to be at most mlp.image_size, which is 64, found 500."),
    ("xai.stride=13", "Expected xai.stride to be at most xai.patch_size, which is 12, found 13."),
    ("xai.paths=[1]", "Expected xai.paths to be a list of plain texts, found [1]."),
    ("xai.films_shown=-1", "Expected xai.films_shown to be a whole number from 1 to 100, found -1."),
    ("xai.fill=256", "Expected xai.fill to be a number from 0 to 255, found 256."),
    ("eda.films_per_class=0", "Expected eda.films_per_class to be a whole number from 1 to 50, found 0."),
    ("compact.widths=[]", "to be a list of 1 to 8 whole numbers from 1 to 4096, found []."),
    ("compact.widths=[16, 0]", "to be a list of 1 to 8 whole numbers from 1 to 4096, found [16, 0]."),
    ("compact.precision=foo", "to be one of float32, mixed_bfloat16, found 'foo'."),
    ("compact.match=3", "Expected compact.match to be a number from 0 to 1, found 3."),
    ("resnet.finetune_blocks=17", "to be a whole number from 0 to 16, found 17."),
    ("resnet.compare_views=[0]", "to be a list of whole numbers from 1 to 100, found [0]."),
    ("common.image_size=100000", "image_size to be a whole number from 16 to 1024, found 100000."),
    ("common.seed=20251125141500", "to be a whole number from 0 to 4294967295, found 20251125141500."),
    ("common.seed=4294967296", "to be a whole number from 0 to 4294967295, found 4294967296."),
    ('data.data_dir="a\\0b"', "Expected data.data_dir to be plain text, found 'a\\x00b'."),
    ("compact.widths=&a [*a]", "Expected compact.widths to be a list of values, found [[[...]]]."),
    ("cnn.epochs=" + "9" * 4000, "found 99999999999999999"),
    ("cnn.epochs=" + "9" * 9000, "found '99999999999999999"),
    ("cnn.epochs=" + "[" * 3000, "found '[[[[[[[[[[[[[[[[["),
    ("cnn.epochs={a: 1, a: 2}", "behind -p cnn.epochs=, found '{a: 1, a: 2}'."),
    ("cnn.epochs=!!bool 3", "behind -p cnn.epochs=, found '!!bool 3'.")])
def test_a_value_out_of_range_is_refused_before_anything_starts(tmp_path, asked, says):
    said = run(tmp_path, "-p", asked)
    assert says in said and len(said) < 200

def test_folds_that_are_not_there_are_refused_where_they_are_counted(tmp_path):
    asked = "-p", "compact.only_folds=[0, 2]"
    assert "Expected compact.only_folds to be below compact.folds, which is 2, found [2]." in run(
        tmp_path, "-p", "compact.folds_by=numbers", *asked)
    params = resolve_params(dict(compact=dict(only_folds=[0, 2])), KNOWN)
    check_parameters({"compact": params["compact"]})   # by series, the films tell how many there are

def test_only_the_stages_that_run_count(tmp_path):
    "Films of 24 pixels are too small for ResNet50, and do where it is not trained."
    params = resolve_params(dict(common=dict(image_size=24)), KNOWN)
    check_parameters({name: params[name] for name in ("data", "compact", "evaluation", "xai")})
    assert "Expected resnet.image_size to be a whole number from 32" in run(
        tmp_path, "-p", "common.image_size=24", "--only", "data,preprocessing,resnet")

# ---- parameter files

@pytest.mark.parametrize("text, says", [
    (b"cnn:\n  epochs: 1\n  epochs: 2\n", "found: 'epochs' twice below line 2; leave one of them out."),
    (b"cnn: {epochs: 1}\ncnn: {epochs: 2}\n", "found: 'cnn' twice below line 1"),
    (b"stages: [[data]]\n", "`stages:` in mine.yaml to be a list of some of"),
    (b"stages: [{a: 1}]\n", "found [{'a': 1}]."),
    (b"[]\n", "found []; indent"), (b"false\n", "found False; indent"), (b"7\n", "found 7; indent"),
    (b"cnn:\n", "found ['cnn']; indent"),
    (b"cnn: " + b"[" * 3000 + b"]" * 3000, "found: values nested too deeply."),
    (b"cnn: &a\n  epochs: *a\n", "Expected"),
    (b"cnn: {epochs: " + b"9" * 9000 + b"}\n", "found: a value that cannot be read (ValueError)."),
    (b"cnn: {epochs: 2024-13-45}\n", "found: a value that cannot be read (ValueError)."),
    (b"\0\1\2", "Expected YAML in mine.yaml"), (b"\xff\xfe", "Expected YAML in mine.yaml"),
    (b"? [a]\n: 1\n", "Expected YAML in mine.yaml"),
    (None, "Expected a parameter file, found a folder at mine.yaml")])
def test_a_strange_parameter_file_is_refused_in_one_sentence(tmp_path, text, says):
    if text is None: (tmp_path/"mine.yaml").mkdir()
    else: (tmp_path/"mine.yaml").write_bytes(text)
    assert says in run(tmp_path, "-f", "mine.yaml")

def test_what_a_file_may_hold_besides(tmp_path):
    "Anchors, merged mappings and an empty file are no keys given twice."
    file = tmp_path/"mine.yaml"
    file.write_text("cnn: &net {epochs: 3, batch_size: 8}\nmlp:\n  <<: *net\n  epochs: 4\n")
    assert load_params(file)[0]["mlp"] == dict(epochs=4, batch_size=8)
    file.write_text("")
    assert load_params(file)[0] == {}

# ---- a notebook by itself

@pytest.mark.parametrize("run_dir", ["2024", 2024, Path("2024")])
def test_a_run_folder_may_be_called_by_a_number(tmp_path, monkeypatch, run_dir):
    monkeypatch.chdir(tmp_path)
    assert open_stage("data", run_dir, seed=1).folder == tmp_path/"2024"

@pytest.mark.parametrize("run_dir, params, says", [
    ("x", dict(epochs=0), "Expected cnn.epochs to be a whole number from 1 to 10000, found 0."),
    ("x", dict(seed=20251125141500), "Expected cnn.seed to be a whole number from 0 to 4294967295"),
    ("x", dict(jit_compile=1), "Expected cnn.jit_compile to be true or false, found 1."),
    ("a\0b", {}, "Expected run_dir to be plain text, found 'a\\x00b'.")])
def test_a_notebook_refuses_values_before_it_makes_anything(tmp_path, monkeypatch, run_dir, params, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError) as refused: open_stage("cnn", run_dir, **params)
    assert says in str(refused.value) and not list(tmp_path.iterdir())

def test_papermill_takes_a_number_for_the_run_folder(tmp_path, monkeypatch):
    import papermill
    monkeypatch.chdir(tmp_path)
    papermill.execute_notebook(
        str(ROOT/"nbs/30_data.ipynb"), "out.ipynb", dict(run_dir=2024, phantom_train=9, phantom_test=3),
        cwd=str(tmp_path), kernel_name="python3", progress_bar=False)
    assert (tmp_path/"2024/images.csv").exists()
