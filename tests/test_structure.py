"""What holds the notebooks together: order of imports, parameter cells, clean sources, portable builders."""
import ast, json, re
from pathlib import Path

import pytest

from pneumo_nb.run import STAGES

NBS = Path(__file__).parents[1]/"nbs"
NOTEBOOKS = sorted(NBS.glob("[0-9]*.ipynb"))
MODULES = {f.stem.partition("_")[2]: n for n, f in enumerate(NOTEBOOKS)}

def code_cells(file): return [c for c in json.loads(file.read_text())["cells"] if c["cell_type"] == "code"]

def imported(cell):
    "Modules of the package that a cell imports."
    for node in ast.walk(ast.parse("".join(cell["source"]))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pneumo_nb."): yield node.module.split(".")[1]
        if isinstance(node, ast.ImportFrom) and node.module == "pneumo_nb": yield from (a.name for a in node.names)
        if isinstance(node, ast.Import): yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("pneumo_nb."))

def test_there_are_notebooks(): assert len(NOTEBOOKS) == 15

@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda f: f.stem)
def test_a_notebook_imports_only_from_lower_numbers(file):
    number, names = NOTEBOOKS.index(file), [m for c in code_cells(file) for m in imported(c)]
    assert file.stem == "00_run" or names
    assert [m for m in names if MODULES[m] >= number] == []

@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda f: f.stem)
def test_opens_with_title_blurb_and_module(file):
    first, second = json.loads(file.read_text())["cells"][:2]
    assert re.match(r"# .+\n\n> .+$", "".join(first["source"]))
    assert "".join(second["source"]) == f"#| default_exp {file.stem.partition('_')[2]}"

@pytest.mark.parametrize("file", [*NOTEBOOKS, NBS/"index.ipynb"], ids=lambda f: f.stem)
def test_sources_carry_no_outputs(file):
    assert all(not c["outputs"] and c["execution_count"] is None for c in code_cells(file))

@pytest.mark.parametrize("stage", STAGES)
def test_stage_has_one_parameters_cell_with_run_dir_and_seed(stage):
    cells = [c for c in code_cells(NBS/f"{STAGES[stage]['notebook']}.ipynb") if "parameters" in c["metadata"].get("tags", [])]
    names = {t.id for c in cells for n in ast.parse("".join(c["source"])).body for t in n.targets}
    assert len(cells) == 1 and {"run_dir", "seed"} <= names

@pytest.mark.parametrize("name", ["06_mlp", "07_cnn", "08_resnet"])
def test_builders_use_no_tensorflow(name):
    assert not re.search(r"\btf\.|tensorflow", "".join("".join(c["source"]) for c in code_cells(NBS/f"{name}.ipynb")))

def test_exported_cells_are_short():
    long = {f.stem: n for f in NOTEBOOKS for c in code_cells(f) if "".join(c["source"]).startswith("#| export") and (n := len(c["source"])) > 40}
    assert long == {}
