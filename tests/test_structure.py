"""What holds the notebooks together: floors, declarations, clean sources, and how they read."""
import ast, json, re
from pathlib import Path
from statistics import mean, median

import pytest

from pneumo_nb.run import models, stages

ROOT = Path(__file__).parents[1]
NBS = ROOT/"nbs"
NOTEBOOKS = sorted(NBS.glob("[0-9]*.ipynb"))
SCRIPTS = [f.with_suffix(".py") for f in [*NOTEBOOKS, NBS/"index.ipynb"]]
MODULES = {f.stem.partition("_")[2]: n for n, f in enumerate(NOTEBOOKS)}
TRAINING = [stage.notebook for stage in stages().values() if stage.models]
WIDTH, LONGEST_CELL, MEDIAN_CELL, LONGEST_SENTENCE, MEAN_SENTENCE = 110, 40, 12, 35, 17

def cells(file, kind="code"):
    found = [c for c in json.loads(file.read_text())["cells"] if c["cell_type"] == kind]
    return found if kind == "code" else ["".join(c["source"]) for c in found]

def source(cell): return "".join(cell["source"])

def exported(file): return [c for c in cells(file) if source(c).startswith("#| export")]

def imported(cell):
    "Modules of the package that a cell imports."
    for node in ast.walk(ast.parse(source(cell))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pneumo_nb."):
            yield node.module.split(".")[1]
        if isinstance(node, ast.ImportFrom) and node.module == "pneumo_nb":
            yield from (a.name for a in node.names)
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("pneumo_nb."))

def has_parameters(file): return any("parameters" in c["metadata"].get("tags", []) for c in cells(file))

# ---- floors

@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda f: f.stem)
def test_a_notebook_imports_only_from_lower_numbers(file):
    names = [m for c in cells(file) for m in imported(c)]
    assert [m for m in names if MODULES[m] >= NOTEBOOKS.index(file)] == []

@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda f: f.stem)
def test_a_notebook_is_on_its_floor(file):
    "Instruments, and what is in people's hands, are no stages; the study is stages, and findings."
    floor, stage = max(0, int(file.stem[:2]) - 10) // 20, stages().get(file.stem.partition("_")[2])
    assert floor in (0, 1, 2) and has_parameters(file) == (stage is not None)
    assert stage is None or floor == 1 and stage.notebook == file.stem

@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda f: f.stem)
def test_opens_with_title_blurb_and_module(file):
    first, *rest = cells(file, "markdown")
    assert re.match(r"# .+\n\n> .+$", first) and rest
    if exported(file): assert source(cells(file)[0]) == f"#| default_exp {file.stem.partition('_')[2]}"

@pytest.mark.parametrize("file", [*NOTEBOOKS, NBS/"index.ipynb"], ids=lambda f: f.stem)
def test_sources_carry_no_outputs(file):
    assert all(not c["outputs"] and c["execution_count"] is None for c in cells(file))

# ---- declarations

@pytest.mark.parametrize("stage", stages())
def test_stage_has_one_parameters_cell_with_run_dir_and_seed(stage):
    file = NBS/f"{stages()[stage].notebook}.ipynb"
    tagged = [c for c in cells(file) if "parameters" in c["metadata"].get("tags", [])]
    names = {t.id for c in tagged for n in ast.parse(source(c)).body for t in n.targets}
    assert len(tagged) == 1 and {"run_dir", "seed"} <= names and set(stages()[stage].paths) <= names

def test_every_model_has_a_look_of_its_own():
    looks = [(m["colour"], str(m["dash"])) for m in models().values()]
    assert len(looks) >= 6 and len(set(looks)) == len(looks)
    assert all(set(m) == {"title", "colour", "dash", "stage"} for m in models().values())

def test_no_module_but_its_own_names_a_model_family():
    families = [name for name, stage in stages().items() if stage.models]
    named = {}
    for file in (ROOT/"pneumo_nb").glob("[a-z]*.py"):
        others = "|".join(name for name in families if name != file.stem)
        lines = [line for line in file.read_text().splitlines() if not line.startswith("# ")]
        name = re.compile(rf"\b(?:{others})(?:_\w+)?\b(?! learning|-encoding)")   # of the language, of HTTP
        found = [match[0] for line in lines for match in name.finditer(line)]
        if found: named[file.stem] = found
    assert named == {}

@pytest.mark.parametrize("name", TRAINING)
def test_builders_use_no_tensorflow(name):
    assert not re.search(r"\btf\.|tensorflow", "".join(map(source, cells(NBS/f"{name}.ipynb"))))

# ---- how they read

@pytest.mark.parametrize("file", [f for f in NOTEBOOKS if exported(f)], ids=lambda f: f.stem)
def test_exported_cells_are_short(file):
    sizes = [len(c["source"]) - 1 for c in exported(file)]
    assert max(sizes) <= LONGEST_CELL and median(sizes) <= MEDIAN_CELL

@pytest.mark.parametrize("file", [*SCRIPTS, *(ROOT/"tests").glob("*.py"), *(ROOT/"benchmarks").glob("*.py")],
                         ids=lambda f: f.stem)
def test_lines_are_short(file):
    lines = file.read_text().splitlines()
    assert [n for n, line in enumerate(lines, 1) if len(line) > WIDTH and not line.startswith("# |")] == []

def sentences(markdown):
    "Sentences of prose: no code, no headings, no tables, nothing that a command wrote."
    markdown = re.sub(r"```.*?```|<!--.*?<!-- end of \w+ -->", "", markdown, flags=re.S)
    for block in re.split(r"\n\s*\n|\n(?=[-*] |\d+\. )", markdown):
        if block.lstrip().startswith(("#", "|", "<", "!")): continue
        text = re.sub(r"`[^`]*`", "code", re.sub(r"\]\([^)]*\)", "]", block.strip().removeprefix("> ")))
        split = re.split(r"(?<=[.:;!?])[*_)\"”]*\s+(?=[A-Z*_\[(“\"])", " ".join(text.split()))
        yield from (s for s in split if len(s.split()) > 1)

@pytest.mark.parametrize("file", [*NOTEBOOKS, NBS/"index.ipynb"], ids=lambda f: f.stem)
def test_sentences_are_of_a_readers_length(file):
    lengths = {s: len(s.split()) for text in cells(file, "markdown") for s in sentences(text)}
    assert {s: n for s, n in lengths.items() if n > LONGEST_SENTENCE} == {}
    assert mean(lengths.values()) <= MEAN_SENTENCE

def test_readme_is_for_a_first_minute():
    assert len((ROOT/"README.md").read_text().split()) <= 900
