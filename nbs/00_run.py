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
# # The run
#
# > What a stage declares, the folder it works in, and the record of what was done

# %%
#| default_exp run

# %%
#| export
import ast, csv, hashlib, io, json, operator, os, platform, re, reprlib, shutil, subprocess, sys
import tempfile, time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cache
from numbers import Integral, Real
from pathlib import Path

# %%
#| hide
from unittest import mock
from fastcore.test import test_eq, test_fail


# %% [markdown]
# A study is only as good as its bookkeeping. Every stage reads what earlier stages left in one **run
# directory** and writes its own results there. Nothing travels any other way. So each result can be traced to
# the parameters and the films that gave it.
#
# ```
# runs/NAME/
#   params.yaml       what was asked             cache/        phantoms
#   provenance.json   what was done              models/       trained networks
#   images.csv        every film and its split   history/      one row an epoch
#   appearance.csv    how each film looks        predictions/  one row a film
#   comparison.csv    the models side by side    members/      trainings that differ by seed
#   figures/   metrics/   notebooks/   site/
# ```
#
# ## One kind of error
#
# Whatever a reader can mend raises `StudyError`: a wrong folder, say, or a misspelled parameter. Its message
# is one sentence: what was expected, what was found, and what to do. The command line prints that sentence
# and nothing else.

# %%
#| export
class StudyError(ValueError):
    "Input that its user can mend; the message says what was expected, what was found, and what to do."


# %% [markdown]
# ## Where the project is
#
# What runs are the notebooks, and pages need the scripts and templates beside them. In a checkout they lie
# beside the package. A wheel brings them inside it, in `pneumo_nb/project`, so an installed package needs no
# checkout.

# %%
#| export
def project_folder(
    package: Path | None = None, # where a package lies; this one's folder if None
) -> Path: # holds nbs/, params/, settings.ini and _quarto.yml
    "The checkout that the package lies in, or what a wheel brought of it, or the current folder."
    here = Path(__file__).resolve().parent if "__file__" in globals() else Path.cwd().parent/"pneumo_nb"
    package = package or here
    for folder in (package.parent, package/"project", Path.cwd()):
        if (folder/"nbs/30_data.ipynb").exists(): return folder
    raise StudyError("Expected the notebooks in nbs/, found none beside the package, in it or here; "
                     "install pneumo_nb from a wheel, or run it in a clone of the project.")


# %%
def pretend(file): # make an empty file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()

with tempfile.TemporaryDirectory() as folder:
    package = Path(folder)/"pneumo_nb"
    with mock.patch.object(Path, "cwd", lambda: Path(folder)/"empty"):
        test_fail(lambda: project_folder(package), contains="found none beside the package, in it or here")
        pretend(package/"project/nbs/30_data.ipynb")
        test_eq(project_folder(package), package/"project")
        pretend(package.parent/"nbs/30_data.ipynb")
        test_eq(project_folder(package), package.parent)


# %% [markdown]
# Only a checkout has the percent scripts. What writes into the sources asks for one.

# %%
#| export
def checkout_folder(
    package: Path | None = None, # as for `project_folder`
) -> Path:
    "The project's folder, refused if it is not a checkout."
    folder = project_folder(package)
    if (folder/"nbs/30_data.py").exists(): return folder
    raise StudyError(f"Expected a clone of the project, found an installed package in {folder.parent}; "
                     "do this in a clone.")


# %%
with tempfile.TemporaryDirectory() as folder:
    package = Path(folder)/"pneumo_nb"
    pretend(package/"project/nbs/30_data.ipynb")
    test_fail(lambda: checkout_folder(package), contains="Expected a clone of the project")


# %% [markdown]
# ## Files that are whole or absent
#
# A process may be killed at any moment. A file written in place would then be cut short and yet look
# finished. So everything is written beside its final name and renamed when complete: a rename either happens
# or does not.

# %%
#| export
@contextmanager
def atomic_path(
    path: str | Path, # final place of the file; its folder is made if need be
):
    "Yield a temporary path beside `path`; rename it to `path` only if the block ends without an error."
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as e:
        if e.filename is None: e.filename = str(path)  # a full disk does not say where
        raise
    finally:
        partial.unlink(missing_ok=True)


# %% [markdown]
# An error half way leaves the old file as it was, and no debris:

# %%
def write_half(path):
    with atomic_path(path) as partial:
        partial.write_text("half a resu")
        raise OSError(28, "disk full")  # as a full disk says it, without a name

with tempfile.TemporaryDirectory() as folder:
    target = Path(folder)/"result.csv"
    target.write_text("old")
    test_fail(lambda: write_half(target), contains="disk full: '" + str(target))
    test_eq(target.read_text(), "old")
    test_eq(os.listdir(folder), ["result.csv"])


# %% [markdown]
# JSON has no way to write "undefined", such as a precision without any positive call. `write_json` stores
# such values as `null` rather than as the invalid token `NaN`.

# %%
#| export
def jsonable(
    value, # NumPy scalars and arrays, paths, nested containers
):
    "`value` made of what JSON knows; NaN and infinities become None."
    if isinstance(value, dict): return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)): return [jsonable(v) for v in value]
    if hasattr(value, "tolist"): return jsonable(value.tolist())
    if isinstance(value, float) and (value != value or abs(value) == float("inf")): return None
    return str(value) if isinstance(value, Path) else value


# %%
test_eq(jsonable({"precision": float("nan"), "counts": (1, 2)}), {"precision": None, "counts": [1, 2]})


# %%
#| export
def write_json(path, value):
    "Write `value` to `path` whole or not at all."
    text = json.dumps(jsonable(value), indent=1) + "\n"
    with atomic_path(path) as partial: partial.write_text(text, encoding="utf-8")


# %%
#| export
def read_json(path):
    "What `write_json` wrote; anything else is refused by its name."
    try: return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError): raise StudyError(
        f"Expected JSON in {path}, found something else; make that file anew.") from None

def write_csv(path, table):
    "Write a DataFrame without its index, with `\\n` line ends, whole or not at all."
    with atomic_path(path) as partial: table.to_csv(partial, index=False, lineterminator="\n")


# %% [markdown]
# Tables may also come from other hands, such as another model's predictions. One reader names the file that
# is no table, lacks a column, or holds text where a number belongs.

# %%
#| export
def read_table(
    path,       # a CSV file
    columns=(), # that it must have
    numbers=(), # those among them that hold numbers
): # data frame
    "A table; what is none is refused by its name."
    import pandas as pd
    try: table = pd.read_csv(path)
    except ValueError: raise StudyError(  # empty, cut short, or not text at all
        f"Expected a CSV table in {path}, found something else; make that file anew.") from None
    missing = [c for c in columns if c not in table]
    wrong = [c for c in numbers if c in table and not pd.api.types.is_numeric_dtype(table[c])]
    what = f"no {', '.join(missing)}" if missing else f"no numbers in {', '.join(wrong)}"
    if missing or wrong: raise StudyError(
        f"Expected a table with {', '.join(columns)} in {path}, found {what}; make that file anew.")
    return table


# %%
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder)/"cnn.csv"
    for text, problem in [
        ("", "cnn.csv, found something else"), ("\0\1", "cnn.csv, found no probability"),
        ("path\n", "cnn.csv, found no probability"), ("probability\nhigh\n", "no numbers in probability")]:
        file.write_text(text)
        test_fail(lambda: read_table(file, ["probability"], ["probability"]), contains=problem)
        test_fail(lambda: read_json(file), contains="cnn.csv, found something else")


# %% [markdown]
# Tables that people write by hand come out of spreadsheets: with commas, semicolons or tabs, and maybe with a
# byte order mark. Every cell of such a table is text, and every row keeps the number of its line.

# %%
#| export
def _utf8_text(file: Path) -> str:
    "The text of a file; refused if it is not there, or not UTF-8."
    if not file.is_file(): raise StudyError(
        f"Expected a table in {file}, found no such file; check the path.")
    content = file.read_bytes()
    try: return content.decode("utf-8-sig")
    except UnicodeDecodeError as e: raise StudyError(
        f"Expected UTF-8 in {file}, found something else in line {content.count(10, 0, e.start) + 1}; "
        "save it as CSV in UTF-8.") from None


# %%
#| export
def read_cells(
    path: str | Path, # of a CSV file
) -> tuple[list[str], list[tuple[int, list[str]]]]: # columns in small letters; line and cells of each row
    "A table written by hand, row by row; what is none is refused by its line."
    text, numbered = _utf8_text(Path(path)), []
    separator = max(",;\t", key=text.lstrip().partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try: numbered = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as e: raise StudyError(
        f"Expected a CSV table in {path}, found in line {reader.line_num}: {e}; mend that line.") from None
    numbered = [(line, row) for line, row in numbered if any(row)]
    if not numbered: raise StudyError(f"Expected a CSV table in {path}, found nothing; fill it in.")
    header = [name.lower() for name in numbered.pop(0)[1]]
    for line, row in numbered:
        if len(row) != len(header): raise StudyError(
            f"Expected {len(header)} cells a line in {path}, found {len(row)} in line {line}; "
            "mend that line.")
    return header, numbered


# %%
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder)/"films.csv"
    for text in ("Path,label\na b.png,0\n", "\ufeffpath;label\r\n\r\n a b.png;0\r\n",
                 "path\tlabel\na b.png\t0"):
        file.write_text(text, encoding="utf-8")
        header, rows = read_cells(file)
        test_eq((header, [row for _, row in rows]), (["path", "label"], [["a b.png", "0"]]))
    for content, problem in [
        (b"path,label\n\xe9.png,0", "found something else in line 2"), (b"\n", "found nothing"),
        (b"path,label\na.png", "Expected 2 cells a line"), (b'path\n"a.png', "found in line 2")]:
        file.write_bytes(content)
        test_fail(lambda: read_cells(file), contains=problem)
test_fail(lambda: read_cells(file), contains="found no such file")


# %% [markdown]
# ## What a stage declares
#
# A stage is a chapter of the study, and declares itself in one exported cell: `STAGE = {...}`. There stand
# the files that it reads and writes, as patterns inside the run directory, and the models that it trains.
# Titles, colours, the order of models, cards of a report and the rules of the command line all follow from
# these declarations.
#
# | key | what it holds |
# | --- | --- |
# | `reads`, `writes` | patterns of files; `figures/STAGE_*.png` is added, and each model's own files |
# | `models` | model → `title`, `colour` and `dash` of its lines |
# | `card` | figures of which the first there is stands for the chapter on a report's landing page |
# | `methods` | a template: how the models were made, for a report's methods page |
# | `remark` | a template: what a reader must know beside the models' names in a table |
# | `caution`, `data_remark` | templates: sentences for the landing page, on the results and on the films |
# | `paths` | parameters that name a file, each with the words it may hold instead |
# | `examinations` | the file with what the stage found on films that are not test |
# | `ranges_of` | an instrument whose `RANGES` hold for this stage's parameters, too |
# | `reads_of` | such an instrument: what the stages write that have its `RANGES` is read, too |
# | `at_least` | how many of these stages must be in the run |
#
# A second literal, `RANGES = {...}`, stands beside the parameters and says which values each of them may
# have.

# %%
#| export
@dataclass(frozen=True)
class Declaration:
    "What a stage says of itself."
    name: str      # of the stage and of its module
    notebook: str  # file name without ending, such as 33_mlp
    reads: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    models: dict[str, dict] = field(default_factory=dict)
    card: list[str] = field(default_factory=list)
    methods: str = ""  # Jinja templates: `p` are the stage's parameters
    remark: str = ""
    caution: str = ""
    data_remark: str = ""
    paths: dict[str, list[str]] = field(default_factory=dict)
    examinations: str = ""
    ranges_of: str = ""
    reads_of: str = ""
    at_least: int = 1
    ranges: dict[str, str | list[str]] = field(default_factory=dict) # parameter → its rule

    @property
    def outputs(self) -> list[str]:
        "Patterns of all files that the stage writes."
        each = ("models/{}.keras", "history/{}.csv", "predictions/{}.csv")
        return [*self.writes, f"figures/{self.name}_*.png", *(e.format(m) for m in self.models for e in each)]


# %% [markdown]
# A declaration is **read, not run**: its text is taken from the module, so that no command waits for
# TensorFlow to learn a title. The module's first line names its notebook, and notebooks' numbers give the
# order of the study.

# %%
#| export
def _package_folder() -> Path:
    "Where the package's modules lie."
    from importlib.util import find_spec
    return Path(find_spec("pneumo_nb").submodule_search_locations[0])


# %%
#| export
def read_declaration(
    source: str, # of a module
    name: str = "STAGE",
) -> dict | None: # None without such a literal
    "The literal that a module assigns to `STAGE`, or to another name."
    found = re.search(rf"^{name} = (\{{.*?^\}})", source, re.M | re.S)
    return ast.literal_eval(found[1]) if found else None


# %%
#| export
_OF_ALL = {"seed": "whole number from 0 to 4294967295"}  # Keras takes no other

def read_ranges(
    source: str,      # of a stage's module
    shared: str = "", # of an instrument's module, if its rules hold as well
) -> dict[str, str | list[str]]: # parameter → rule
    "The rules of a stage's parameters; parameters that share one stand together in `RANGES`."
    rules = (read_declaration(shared, "RANGES") or {}) | (read_declaration(source, "RANGES") or {})
    return _OF_ALL | {name: rule for names, rule in rules.items() for name in names.split(", ")}


# %% [markdown]
# A stage may build on several others without naming them, such as all that share the rules of one instrument.
# What these write is then among what it reads, and nothing else is, least of all its own files.

# %%
#| export
def _with_reads_of(
    stage: Declaration,
    declared: list[Declaration], # of all stages
) -> Declaration:
    "A declaration that reads, too, what the stages of its `reads_of` write, but for their figures."
    others = [other for other in declared if stage.reads_of and other.ranges_of == stage.reads_of]
    files = [file for other in others for file in other.outputs if not file.startswith("figures/")]
    return replace(stage, reads=[*stage.reads, *files])


# %%
#| export
@cache
def stages() -> dict[str, Declaration]: # stage → declaration, in the study's order
    "Every stage of the study."
    declared, files = [], sorted(_package_folder().glob("[a-z]*.py"))
    sources = {file.stem: file.read_text(encoding="utf-8") for file in files}
    for name, source in sources.items():
        if stage := read_declaration(source):
            notebook = re.search(r"File to edit: .*?([\w.]+)\.ipynb", source)[1]
            ranges = read_ranges(source, sources.get(stage.get("ranges_of"), ""))
            declared.append(Declaration(name, notebook, **stage, ranges=ranges))
    in_order = sorted(declared, key=lambda d: d.notebook)
    return {d.name: _with_reads_of(d, in_order) for d in in_order}


# %%
#| export
def models() -> dict[str, dict]: # model → title, colour, dash, stage; in the study's order
    "Every model that a stage trains."
    return {name: look | dict(stage=d.name) for d in stages().values() for name, look in d.models.items()}


# %%
module = 'import keras\nSTAGE = {\n    "reads": ["images.csv"],\n}\n'
test_eq(read_declaration(module), {"reads": ["images.csv"]})
both = 'RANGES = {\n    "width, height": "whole number from 1 to 9",\n}\n'
test_eq(read_ranges(both), _OF_ALL | dict.fromkeys(["width", "height"], "whole number from 1 to 9"))
test_eq(read_ranges("", both)["width"], "whole number from 1 to 9")
toy = Declaration("toy", "39_toy", models={"toy": dict(title="Toy")})
test_eq(toy.outputs, ["figures/toy_*.png", "models/toy.keras", "history/toy.csv", "predictions/toy.csv"])
recipe = Declaration("recipe", "37_recipe", writes=["recipe.csv"], ranges_of="toys")
judge = Declaration("judge", "38_judge", reads=["images.csv"], writes=["judge.csv"], reads_of="toys")
test_eq(_with_reads_of(judge, [recipe, judge, toy]).reads, ["images.csv", "recipe.csv"])
test_eq(_with_reads_of(recipe, [recipe, judge, toy]).reads, [])
print(*stages(), sep=", ")
print(", ".join(m["title"] for m in models().values()))

# %% [markdown]
# ## Which values a parameter may have
#
# A value that makes no sense is refused before anything starts, not by whatever breaks hours later. The rule
# of a parameter is a phrase, and the same phrase stands in the message. Such a message shows a value of any
# size in at most 60 characters.

# %%
#| export
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxstring, _SHORT.maxlong, _SHORT.maxother = 2, 5, 60, 40, 60

def shortened(value) -> str:
    "A value for a message, in at most 60 characters."
    try: text = _SHORT.repr(value)
    except ValueError: return "a huge value"  # Python refuses to write more than 4,300 digits
    return text if len(text) <= 60 else text[:59] + "…"


# %%
test_eq([shortened(v) for v in (-3, "foo", [1, 2], 10**5000)], ["-3", "'foo'", "[1, 2]", "a huge value"])
assert len(shortened("9" * 10_000)) == len(shortened([["many"] * 20] * 20)) == 60

# %% [markdown]
# A phrase is a kind of value and, for numbers, two limits. A list has such elements, and perhaps a least and
# largest length. Choices are written as a list of words. "At most" another parameter is checked where that
# one is known.

# %%
#| export
_RULE = re.compile(
    r"(?P<list>list of (?:(?P<least>\d+) to (?P<most>\d+) )?)?"
    r"(?P<kind>whole number|finite number|number|plain text|true or false|value)s?"
    r"(?: (?P<low>from|above) (?P<first>[\d.]+) (?P<high>to|and up to|and below) (?P<last>[\d.]+))?"
    r"(?:, at most (?P<other>\w+)|, each below (?P<count>\w+) if (?P<key>\w+) is (?P<word>\w+))?")
_LIMITS = {"from": operator.ge, "above": operator.gt, "to": operator.le,
           "and up to": operator.le, "and below": operator.lt}


# %%
#| export
def _is_number(value) -> bool: return isinstance(value, Real) and not isinstance(value, bool)

def _is_plain(text) -> bool:
    "Whether a text is UTF-8 and has no zero byte, so that it can name a file."
    return isinstance(text, str) and "\0" not in text and text == text.encode(errors="replace").decode()

_KINDS = {  # a number is finite, and one that YAML can hold
    "whole number": lambda v: _is_number(v) and isinstance(v, Integral) and abs(v) < 2 ** 63,
    "number": lambda v: _is_number(v) and abs(v) <= sys.float_info.max,
    "finite number": lambda v: _KINDS["number"](v),
    "true or false": lambda v: isinstance(v, bool),
    "plain text": _is_plain,
    "value": lambda v: any(_KINDS[kind](v) for kind in ("number", "true or false", "plain text"))}


# %%
#| export
def _fits(value, words: re.Match) -> bool: # a match of `_RULE`
    "Whether a value, or each element of a list, is what a rule says."
    if words["list"]:
        least, most = (words["least"] or 0, words["most"] or sys.maxsize)
        return (isinstance(value, (list, tuple)) and int(least) <= len(value) <= int(most)
                and all(_fits(element, _RULE.fullmatch(words[0][len(words["list"]):])) for element in value))
    if not _KINDS[words["kind"]](value): return False
    ends = ("low", "first"), ("high", "last")
    return all(_LIMITS[words[word]](value, float(words[limit])) for word, limit in ends if words[word])


# %%
#| export
def check_value(
    name: str,             # as the message shall call it: STAGE.NAME
    value,
    rule: str | list[str], # a phrase such as "whole number from 1 to 9", or a list of words to choose from
):
    "Refuse a value that is not what its rule says."
    choices = isinstance(rule, list)
    fits = isinstance(value, str) and value in rule if choices else _fits(value, _RULE.fullmatch(rule))
    if fits: return
    article = "" if rule in ("true or false", "plain text") else "a "
    by_itself = "" if choices else re.sub(", (at most|each below) .*", "", rule)  # without what relates it
    wanted = f"one of {', '.join(rule)}" if choices else article + by_itself
    raise StudyError(f"Expected {name} to be {wanted}, found {shortened(value)}.")


# %%
for value, rule in [(3, "whole number from 1 to 9"), (.5, "number above 0 and below 1"),
                    (0, "number from 0 to 1"), (False, "true or false"), ("film", ["local", "film"]),
                    ([], "list of plain texts"), ([8, 16], "list of 1 to 4 whole numbers from 1 to 99")]:
    check_value("toy.value", value, rule)

for value, rule in [(0, "whole number from 1 to 9"), (3., "whole number from 1 to 9"),
                    (True, "number from 0 to 1"), (1, "number above 0 and below 1"),
                    (float("nan"), "number"), (float("inf"), "number"), (10 ** 400, "number"),
                    (1, "true or false"), (["film"], ["local", "film"]), ("a\0b", "plain text"),
                    ([1], "list of plain texts"), ([], "list of 1 to 4 whole numbers from 1 to 99"),
                    ([0], "list of 1 to 4 whole numbers from 1 to 99"), (8, "list of whole numbers")]:
    test_fail(lambda: check_value("toy.value", value, rule), contains="Expected toy.value to be")
test_fail(lambda: check_value("cnn.epochs", -3, "whole number from 1 to 9"),
          contains="Expected cnn.epochs to be a whole number from 1 to 9, found -3.")
test_fail(lambda: check_value("toy.contrast", "foo", ["local", "film"]),
          contains="to be one of local, film, found 'foo'.")


# %% [markdown]
# The other parameter that a value may not exceed is the stage's own. If the stage has none of that name, it
# is that of each stage that trains models: a patch fits into the films of all models.

# %%
#| export
def _check_relations(stage: str, params: dict[str, dict]):
    "Refuse a value that is larger than another, which its rule names."
    for name, rule in stages()[stage].ranges.items():
        words = isinstance(rule, str) and _RULE.fullmatch(rule)
        if not words or not words["other"] or name not in params[stage]: continue
        other, value = words["other"], params[stage][name]
        holders = [stage] if other in params[stage] else [s for s in params if stages()[s].models]
        for holder in holders:
            if value > params[holder].get(other, value): raise StudyError(
                f"Expected {stage}.{name} to be at most {holder}.{other}, "
                f"which is {params[holder][other]}, found {value}.")


# %% [markdown]
# The elements of a list may have to stay below a number of things, if another parameter has them counted.

# %%
#| export
def _check_elements(stage: str, params: dict):
    "Refuse elements of a list that count beyond what there is."
    for name, rule in stages()[stage].ranges.items():
        words = isinstance(rule, str) and _RULE.fullmatch(rule)
        if not words or not words["count"] or params.get(words["key"]) != words["word"]: continue
        count = params.get(words["count"], sys.maxsize)
        beyond = [value for value in params.get(name, []) if value >= count]
        if beyond: raise StudyError(f"Expected {stage}.{name} to be below {stage}.{words['count']}, "
                                    f"which is {count}, found {shortened(beyond)}.")


# %%
#| export
def check_parameters(
    params: dict[str, dict], # stage → its parameters, of the stages that run
):
    "Refuse values outside the ranges that the stages declare."
    declared = {name: values for name, values in params.items() if name in stages()}
    for stage, values in declared.items():
        for name, rule in stages()[stage].ranges.items():
            if name in values: check_value(f"{stage}.{name}", values[name], rule)
    for stage, values in declared.items():
        _check_relations(stage, declared)
        _check_elements(stage, values)


# %% [markdown]
# ## Unchanged, by content
#
# These declarations are enough to know what must run again. A stage has nothing to do if its parameters and
# input files are unchanged, and its outputs are still what it wrote. Content decides, not dates: a run copied
# to another disk is not stale.

# %%
#| export
def file_digest(
    path: str | Path,
) -> str: # SHA-1 of the bytes, in hex
    "Fingerprint of a file's content."
    digest = hashlib.sha1()
    with open(path, "rb") as f:
        while block := f.read(1 << 20): digest.update(block)
    return digest.hexdigest()


# %%
#| export
def digests(
    folder: Path,        # run directory
    patterns: list[str], # globs relative to it
) -> dict[str, str]: # file → SHA-1, hidden (unfinished) files left out
    "Fingerprints of all files that match, by their path inside `folder`."
    files = {f for p in patterns for f in Path(folder).glob(p) if not f.name.startswith(".")}
    return {f.relative_to(folder).as_posix(): file_digest(f) for f in sorted(files)}


# %% [markdown]
# `git hash-object` would give another value (it adds a header), but the plain SHA-1 of three bytes is known:

# %%
with tempfile.TemporaryDirectory() as folder:
    (Path(folder)/"abc.csv").write_text("abc")
    test_eq(digests(folder, ["*.csv"]), {"abc.csv": "a9993e364706816aba3e25717850c26c9cd0d89d"})

# %% [markdown]
# The data stage reads no file of the run. It watches the names, sizes and dates in the data folder instead.
# One walker lists that folder for everybody: for this comparison, and for the notebook on films. It follows
# links and enters each real folder once, so that a link to a folder above makes no film count twice. Hidden
# folders, and those that Macs and storage boxes add, are not entered.
#
# Films may also be listed in a table, `films.csv`. Then the table itself is watched, and every film in it.

# %%
#| export
_SYSTEM_FOLDERS = {"__MACOSX", "@eaDir"}

def is_hidden(
    path: Path,
    root: Path, # above `path`
) -> bool:
    "Whether a file, or a folder between it and `root`, is hidden or a system's own."
    parts = Path(path).relative_to(root).parts
    return any(part.startswith(".") or part in _SYSTEM_FOLDERS for part in parts)


# %%
#| export
def walk_files(
    *folders: str | Path, # where to begin
) -> list[Path]: # sorted; a folder that is hidden or cannot be read stands there itself
    "All that lies below some folders, through links, each real folder once."
    real, links, seen, listed = [Path(f) for f in folders], [], set(), []
    while real or links:  # links last, so that a film is listed where it really lies
        folder = real.pop() if real else links.pop(0)
        place = os.path.realpath(folder)
        if place in seen: continue
        seen.add(place)
        try: below = sorted(folder.iterdir())
        except OSError: below = [folder]
        for path in below:
            enter = path != folder and os.path.isdir(path) and not is_hidden(path, folder)
            (listed if not enter else links if path.is_symlink() else real).append(path)
    return sorted(listed)


# %%
with tempfile.TemporaryDirectory() as folder:
    films = Path(folder)/"films"
    for name in ("films/a.png", "films/.cache/b.png", "films/@eaDir/a.png", "store/c.png"):
        (Path(folder)/name).parent.mkdir(parents=True, exist_ok=True)
        (Path(folder)/name).touch()
    (films/"self").symlink_to(".")
    for name in ("more", "once_more"): (films/name).symlink_to("../store")
    listed = [path.relative_to(films).as_posix() for path in walk_files(films)]
test_eq(listed, [".cache", "@eaDir", "a.png", "more/c.png"])


# %%
#| export
def _folder_digest(root: Path) -> str: # of a set of films
    "Fingerprint of the names, sizes and dates of the files in a data folder."
    listed = walk_files(*(root/split for split in ("train", "val", "test")))
    files = [f for f in listed if os.path.isfile(f) and not is_hidden(f, root)]
    sizes = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.sha1(repr(sorted(sizes)).encode()).hexdigest()

def films_at(
    data_dir: str | Path = "",  # folder of films; "" for the table's own, or for phantoms
    films_csv: str | Path = "", # table of films; "" for films.csv in the folder, if there is one
) -> tuple[Path | None, Path | None]: # folder, None for phantoms; table, None where folders and names tell
    "Where the films lie that two parameters of the data stage name."
    table = Path(films_csv).expanduser() if films_csv else None
    folder = Path(data_dir).expanduser() if data_dir else table.parent if table else None
    if table is None and folder is not None and (folder/"films.csv").exists(): table = folder/"films.csv"
    return folder, table

def _table_digest(table: Path, root: Path) -> str: # of a set of films
    "Fingerprint of a table of films, and of the sizes and dates of the films in it."
    header, rows = read_cells(table)
    paths = [row[header.index("path")] for _, row in rows] if "path" in header else []
    states = [(path, os.stat(root/path)) for path in paths if os.path.exists(root/path)]
    sizes = [(path, state.st_size, state.st_mtime_ns) for path, state in states]
    return hashlib.sha1(repr([file_digest(table), *sizes]).encode()).hexdigest()


# %%
test_eq(films_at(), (None, None))
test_eq(films_at("", "mine/films.csv"), (Path("mine"), Path("mine/films.csv")))
test_eq(films_at("set", "mine/films.csv"), (Path("set"), Path("mine/films.csv")))


# %%
#| export
def _inputs_digest(
    folder: Path, # run directory
    name: str,    # stage
    params: dict,
) -> dict[str, str]:
    "Fingerprints of what a stage reads: files of the run, and the listing of a data folder."
    inputs = digests(folder, stages()[name].reads)
    root, table = films_at(params.get("data_dir", ""), params.get("films_csv", ""))
    if root: inputs["data_dir"] = _table_digest(table, root) if table else _folder_digest(root)
    return inputs


# %%
with tempfile.TemporaryDirectory() as folder:
    root, store = Path(folder)/"set", Path(folder)/"store"
    for path in (root/"train", store): path.mkdir(parents=True)
    (root/"train/NORMAL").symlink_to(store)
    before = _folder_digest(root)
    (store/".DS_Store").touch()
    test_eq(_folder_digest(root), before)
    (store/"IM-0001-0001.png").touch()   # behind a link
    assert _folder_digest(root) != before

# %% [markdown]
# ## Where, when and with what
#
# Provenance is written by the stage itself, so that a notebook run by hand leaves the same trace as a batch.

# %%
#| export
_VERSIONED = ["tensorflow", "keras", "numpy", "pandas", "scikit-learn", "opencv-python", "matplotlib",
              "papermill"]

def _package_versions() -> dict[str, str]:
    "Installed versions of the packages that results depend on."
    from importlib.metadata import PackageNotFoundError, version
    versions = {"python": platform.python_version()}
    for name in _VERSIONED:
        try: versions[name] = version(name)
        except PackageNotFoundError: versions[name] = "not installed"
    return versions


# %%
#| export
def git_commit(
    folder: str | Path = ".",
) -> str: # e.g. "3f2a… with local changes", or "not in a git checkout"
    "Commit of the code that runs; a wheel says which one it was built from."
    built_from = Path(folder)/"project/commit.txt"
    if built_from.exists(): return built_from.read_text(encoding="utf-8").strip()
    def git(*words): return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True)
    try: head, tracked, status = git("rev-parse", "HEAD"), git("ls-files"), git("status", "--porcelain")
    except FileNotFoundError: return "git is not installed"
    if head.returncode or not tracked.stdout: return "not in a git checkout"
    return head.stdout.strip() + (" with local changes" if status.stdout.strip() else "")


# %%
#| export
def short_commit(commit: str) -> str: # from `git_commit`
    "The beginning of a commit, or why there is none."
    found = re.match(r"[0-9a-f]{10}", commit)
    return found[0] if found else f"unknown ({commit})"


# %%
test_eq(short_commit("3f2a" * 10 + " with local changes"), "3f2a3f2a3f")
test_eq(short_commit("not in a git checkout"), "unknown (not in a git checkout)")

# %% [markdown]
# An environment may lie in the checkout of something else, whose commit says nothing about this code. So git
# must know the files in the folder. Here is a package in a folder that git does not follow:

# %%
with tempfile.TemporaryDirectory() as folder:
    if shutil.which("git"): subprocess.run(["git", "init", "--quiet", folder])
    package = Path(folder)/"site-packages/pneumo_nb"
    pretend(package/"run.py")
    print(git_commit(package))
    pretend(package/"project/commit.txt")
    (package/"project/commit.txt").write_text("3f2a\n", encoding="utf-8")
    test_eq(git_commit(package), "3f2a")


# %% [markdown]
# ## Threads, workers and devices
#
# `PNEUMO_THREADS` says how many threads decode, augment and compute. Without it, it is as many as the cores
# that this process may use. `PNEUMO_WORKERS` says how many networks are trained at the same time where a
# stage trains several. With `PNEUMO_DEVICES`, several GPUs share each batch of one training. None is a
# parameter: to change one makes nothing stale. But sums are added up in another order on another number of
# threads or devices, and a training makes much of little. So each stage's record holds all three: the same
# numbers need the same number of threads and of devices.

# %%
#| export
def _whole_number(variable: str) -> int | None: # None where it is not set
    "An environment variable that must be a whole number above 0."
    asked = os.environ.get(variable, "")
    if asked and not (asked.isdecimal() and int(asked)):
        raise StudyError(f"Expected {variable} to be a whole number above 0, found {asked!r}.")
    return int(asked) if asked else None


# %%
#| export
def threads() -> int:
    "How many threads to work with."
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return _whole_number("PNEUMO_THREADS") or cores

def workers() -> int:
    "How many networks to train at the same time."
    return _whole_number("PNEUMO_WORKERS") or 1

def devices() -> int:
    "How many GPUs share each batch of a training, or parts of the processor where there is no GPU."
    return _whole_number("PNEUMO_DEVICES") or 1

if os.environ.get("PNEUMO_THREADS", "").isdecimal():  # TensorFlow reads these once, when it starts
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", os.environ["PNEUMO_THREADS"])
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", os.environ["PNEUMO_THREADS"])

# %%
with mock.patch.dict(os.environ, PNEUMO_DEVICES=""): test_eq(devices(), 1)
for asked in ("0", "x"):
    with mock.patch.dict(os.environ, PNEUMO_DEVICES=asked):
        test_fail(devices, contains=f"PNEUMO_DEVICES to be a whole number above 0, found '{asked}'")


# %%
#| export
def machine() -> dict:
    "Processor, cores and system this process runs on, and how much of that it uses."
    processor = platform.processor() or platform.machine()
    return dict(system=platform.platform(), processor=processor, cores=os.cpu_count(),
                threads=threads(), workers=workers(), devices=devices())


# %%
#| export
def _peak_memory_mb() -> int | None: # None where the system does not tell (Windows)
    "Largest resident memory of this process so far, in megabytes."
    try: import resource
    except ImportError: return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))


# %%
#| export
_FIELDS = dict(parameters=dict, notes=list, started=str, seconds=(int, float), peak_memory_mb=object,
               git_commit=str, versions=dict, machine=dict, inputs=dict, outputs=dict)

def _is_record(
    entry: object,            # of a stage, or a look
    fields: dict[str, type],
) -> bool:
    "Whether an entry of provenance.json has what `finish` or `look` writes."
    return isinstance(entry, dict) and all(isinstance(entry.get(k), kind) for k, kind in fields.items())

def _is_provenance(value: object) -> bool:
    "Whether a file's content is the record of a run."
    if not _is_record(value, dict(stages=dict)): return False
    looks, of_look = value.get("test_looks", []), dict(stage=str, at=str, time=str)
    return (all(_is_record(record, _FIELDS) for record in value["stages"].values())
            and isinstance(looks, list) and all(_is_record(look, of_look) for look in looks))


# %%
#| export
def read_provenance(
    folder: str | Path, # a run directory
) -> dict: # {"stages": {name: record}}
    "What is recorded of a run so far."
    file = Path(folder)/"provenance.json"
    if not file.exists(): return {"stages": {}}
    try: provenance = read_json(file)
    except ValueError: provenance = None
    if _is_provenance(provenance): return provenance
    raise StudyError(f"Expected the record of a run in {file}, found something else; remove that file, "
                     "and the run's stages are done again.")


# %% [markdown]
# ## Where a run is
#
# Runs write their files over older ones of the same names, so a folder must be a run beyond doubt. The first
# line of `params.yaml` says so, or the record of the stages does. In runs that were made before that line,
# the parameters begin with the stages, beside a lock.

# %%
#| export
RUN_MARK = "# The parameters of a run, written by `pneumo run`."

def _is_run(folder: Path) -> bool:
    "Whether a folder holds what only a run does."
    file = folder/"params.yaml"
    head = file.read_bytes()[:100].decode(errors="replace") if file.is_file() else ""
    if head.startswith(RUN_MARK) or head.startswith("stages:\n- ") and (folder/".lock").exists(): return True
    try: return bool(read_provenance(folder)) and (folder/"provenance.json").is_file()
    except StudyError: return False


# %%
#| export
def _is_free(folder: Path) -> bool:
    "Whether a folder is empty, but for what a run leaves that was killed at its very start."
    if not folder.exists(): return True
    ours = re.compile(r"\.lock|\.kernel\.log|\.partial-\d+-(params\.yaml|provenance\.json)")
    return folder.is_dir() and all(ours.fullmatch(file.name) for file in folder.iterdir())

def check_run_folder(
    folder: Path, # absolute; need not exist
):
    "Refuse a folder that is something else than a run."
    if not (_is_run(folder) or _is_free(folder)): raise StudyError(
        f"Expected a run or an empty folder at {folder}, found other files; choose another place.")


# %%
def is_taken(folder, **files):
    "Whether a folder with these files is taken for a run, or refused."
    endings = dict(params="yaml", provenance="json")
    for name, text in files.items(): (Path(folder)/f"{name}.{endings[name]}").write_text(text)
    try: return check_run_folder(Path(folder)) is None
    except StudyError: return "refused"

for files, taken in [
    ({}, True), (dict(params=RUN_MARK + "\nstages: []\n"), True), (dict(provenance='{"stages": {}}'), True),
    (dict(params="mine: 1\n"), "refused"), (dict(params="stages:\n- build\n"), "refused"),
    (dict(provenance='{"stages": []}'), "refused"), (dict(provenance='{"stages": {"b": {}}}'), "refused")]:
    with tempfile.TemporaryDirectory() as folder: test_eq(is_taken(folder, **files), taken)


# %% [markdown]
# A run also keeps its films. A training on real films may have taken days, and a forgotten data folder would
# put phantoms in their place. So a run on real films stays on them. `pneumo run --fresh` starts a run over,
# and writes into `params.yaml` which films that is for.

# %%
#| export
def films_folder(
    params: dict, # of the data stage
) -> str: # absolute; "" for phantoms
    "The folder of the films that parameters name."
    folder, _ = films_at(params.get("data_dir", ""), params.get("films_csv", ""))
    return str(folder.resolve()) if folder else ""

def films_of(
    folder: Path, # run directory
) -> str | None: # absolute; "" for phantoms, None where there are none yet
    "The folder of the films that a run was made on."
    record, facts = read_provenance(folder)["stages"].get("data"), folder/"metrics/data.json"
    if record: return films_folder(record["parameters"])
    try: films = dict(read_json(facts))
    except (OSError, TypeError, ValueError): return None  # not there, or damaged
    return films_folder(dict(data_dir="" if films.get("source") == "phantoms" else films.get("root", "")))


# %%
#| export
def check_films(
    folder: Path, # run directory
    params: dict, # of the data stage
):
    "Refuse to turn a run on real films into one on others."
    before, asked = films_of(folder), films_folder(params)
    if not before or before == asked: return
    raise StudyError(
        f"Expected the run {folder.name} to stay on the films in {before}, found "
        f"{f'the films in {asked}' if asked else 'phantoms'} asked for; "
        "choose another run, or start this one over with `pneumo run --fresh`.")

def _was_asked(folder: Path, params: dict) -> bool:
    "Whether `pneumo run`, which checks that itself, asked for these films."
    import yaml
    try: asked = yaml.safe_load((folder/"params.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError): return False
    data = asked.get("data") if isinstance(asked, dict) else None
    return isinstance(data, dict) and films_folder(data) == films_folder(params)


# %%
with tempfile.TemporaryDirectory() as folder:
    run_folder = Path(folder)
    check_films(run_folder, dict(data_dir="/films"))   # nothing there yet
    write_json(run_folder/"metrics/data.json", dict(source="chest_xray", root="/films"))
    check_films(run_folder, dict(data_dir="/films"))
    test_fail(lambda: check_films(run_folder, dict(data_dir="")), contains="found phantoms asked for")


# %% [markdown]
# ## A stage at work
#
# `open_stage` comes early in every chapter. It makes or opens the run directory, notes the parameters, and
# forgets the stage's earlier record: from here until `finish` the stage counts as not done. Without a run
# directory it works in a temporary one and says so.

# %%
#| export
class Stage:
    "One stage at work in one run directory."
    def __init__(self,
        name: str,    # a key of `stages()`
        folder: Path, # the run directory
        params: dict, # the stage's parameters, `seed` among them
    ):
        self.name, self.folder, self.params, self.started = name, Path(folder), params, time.time()
        self.notes: list[str] = []
        provenance = read_provenance(self.folder)
        if provenance["stages"].pop(name, None): write_json(self.folder/"provenance.json", provenance)

    def path(self, *parts: str) -> Path:
        "A path inside the run directory."
        return self.folder.joinpath(*parts)

    @property
    def scratch(self) -> Path:
        "A hidden folder for what an interrupted stage needs to go on; `finish` removes it."
        return self.folder/f".scratch-{self.name}"


# %%
#| export
def open_stage(
    name: str,           # a key of `stages()`
    run_dir: str | Path, # the run directory; "" for a temporary one
    **params,            # the notebook's parameters
) -> Stage:
    "Begin a stage; its record is written by `finish`."
    check_parameters({name: params})
    check_value("run_dir", str(run_dir), "plain text")
    if run_dir == "":
        prefix = f"pneumo-{name}-"
        run_dir = _temporary_runs.setdefault(name, tempfile.TemporaryDirectory(prefix=prefix)).name
        print(f"No run_dir given: the {name} stage works in a temporary run directory, "
              "gone when this kernel ends.")
    folder = Path(str(run_dir)).resolve()  # papermill makes a number of -p run_dir 2024
    check_run_folder(folder)
    if "data_dir" in params and not _was_asked(folder, params): check_films(folder, params)
    if not _is_run(folder): write_json(folder/"provenance.json", dict(stages={}))
    return Stage(name, folder, params)

_temporary_runs: dict[str, tempfile.TemporaryDirectory] = {}


# %% [markdown]
# An upstream file may be missing when a notebook runs alone. Stages then make a quick one from phantoms, and
# a note stands in the notebook's output and in the provenance. Nobody shall mistake it for a result on real
# films.

# %%
#| export
def note(
    stage: Stage,
    text: str, # one sentence
):
    "Say something about this run in the output and keep it in the provenance."
    stage.notes.append(text)
    print(f"Note: {text}")


# %% [markdown]
# Films decoded once for all runs are kept in a folder of their own, `PNEUMO_CACHE`, or else the user's cache
# folder. What concerns all runs on the same films lies there, too.

# %%
#| export
def cache_folder() -> Path:
    "Where decoded films, features and the ledger of looks are kept for all runs."
    from platformdirs import user_cache_path
    folder = os.environ.get("PNEUMO_CACHE") or user_cache_path("pneumo_nb")
    return Path(folder).expanduser().resolve()


# %%
#| export
def check_cache() -> Path: # the folder, which is there now
    "Refuse a cache that cannot be written."
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as e: raise StudyError(
        f"Expected to write into the cache {folder}, found: {e.strerror}; "
        "set PNEUMO_CACHE to a folder that can be written.") from None
    return folder


# %%
with mock.patch.dict(os.environ, PNEUMO_CACHE="~/films"):
    test_eq(cache_folder(), Path.home().resolve()/"films")
with mock.patch.dict(os.environ, PNEUMO_CACHE="/dev/null/films"):
    test_fail(check_cache, contains="/dev/null/films, found: Not a directory; set PNEUMO_CACHE")


# %% [markdown]
# Test films are there for final numbers. Each time that a stage reads their labels or what they look like is
# one **look**. It stays in the run's record for good, through repeated and fresh runs, because every look is
# a chance to tune to them. A new run would begin to count anew, so each look stands in one **ledger** as
# well, kept with the cache under the films' fingerprint. A run may be removed, its looks not.

# %%
#| export
def look(
    stage: Stage,
    at: str, # what was looked at, a few words
):
    "Count one look at the test films in the run's record."
    provenance, now = read_provenance(stage.folder), datetime.now(timezone.utc).isoformat(timespec="seconds")
    seen, facts = dict(stage=stage.name, at=at, time=now), stage.path("metrics/data.json")
    provenance.setdefault("test_looks", []).append(seen)
    write_json(stage.folder/"provenance.json", provenance)
    if facts.exists():
        films = read_json(facts)
        _append_looks([dict(fingerprint=films["fingerprint"], source=films.get("source", ""),
                            run=stage.folder.name) | seen])


# %%
#| export
def enter_judged(
    fingerprint: str, # of the films
    source: str,      # what they are called
    digest: str,      # of the detector that was judged
):
    "Count the look of a detector at the films of another hospital."
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    _append_looks([dict(fingerprint=fingerprint, source=source, run=f"detector {digest[:12]}", stage="judge",
                        at="all films, by a detector as it is", time=now)])


# %%
#| export
def _append_looks(entries: list[dict]):
    "Add lines to the ledger, whole, also when several runs do so."
    from filelock import FileLock
    folder, lines = check_cache(), "".join(json.dumps(jsonable(entry)) + "\n" for entry in entries)
    with FileLock(folder/".looks.lock"), open(folder/"looks.jsonl", "ab") as ledger:
        ledger.write(lines.encode())


# %%
#| export
def read_looks(
    fingerprint: str | None = None, # of the films; None for all
) -> list[dict]: # fingerprint, source, run, stage, at, time of each look, the earliest first
    "The looks at test films of all runs that shared this cache, and those entered by hand."
    file = cache_folder()/"looks.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    looks = [_look_in(line) for line in lines]
    if None in looks: raise StudyError(f"Expected a look in line {looks.index(None) + 1} of {file}, "
                                       "found something else; remove that line.")
    return sorted((look for look in looks if fingerprint in (None, look["fingerprint"])),
                  key=operator.itemgetter("time"))

def _look_in(line: str) -> dict | None: # None where it holds none
    "A line of the ledger."
    try: entry = json.loads(line)
    except (ValueError, RecursionError): return None
    names = "fingerprint", "source", "run", "stage", "at", "time"
    return entry if _is_record(entry, dict.fromkeys(names, str)) else None


# %%
def look_twice(folder, run, fingerprint):
    stage = open_stage("evaluation", Path(folder)/run)
    write_json(stage.path("metrics/data.json"), dict(fingerprint=fingerprint))
    for _ in range(2): look(open_stage("evaluation", stage.folder), "predictions of 2 models")
    return read_provenance(stage.folder)["test_looks"]

with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, PNEUMO_CACHE=f"{folder}/cache"):
    looks = look_twice(folder, "a", "1ab")
    test_eq([l["stage"] for l in looks], ["evaluation"] * 2)   # opening a stage again forgets no look
    shutil.rmtree(Path(folder)/"a")
    look_twice(folder, "b", "1ab")
    look_twice(folder, "c", "2cd")
    test_eq([l["run"] for l in read_looks("1ab")], ["a", "a", "b", "b"])
    test_eq(len(read_looks()), 6)

# %% [markdown]
# Looks may have been made elsewhere, on another machine say, or before there was a ledger. They are entered
# by hand with the day on which they were made, and stay marked as such. A day without a time counts as its
# beginning, in UTC.

# %%
#| export
BY_HAND = "by hand"  # in place of the stage that looked

def enter_looks(
    films: dict, # fingerprint, source
    number: int, # 1 to 1000
    at: str,     # what was looked at, a few words
    on: str,     # the day in ISO form, and maybe the time
):
    "Enter looks at test films that no ledger counted."
    check_value("the number of looks", number, "whole number from 1 to 1000")
    seen = dict(run="", stage=BY_HAND, at=" ".join(at.split()), time=_moment(on))
    _append_looks([films | seen] * number)

def _moment(on: str) -> str: # as `look` writes it
    "A day or time that has been, in UTC."
    try:
        moment = datetime.fromisoformat(on)
        moment = moment.replace(tzinfo=moment.tzinfo or timezone.utc).astimezone(timezone.utc)
    except (ValueError, OverflowError): raise StudyError(
        f"Expected a day such as 2025-11-25, found {shortened(on)}.") from None
    if moment > datetime.now(timezone.utc): raise StudyError(f"Expected a day that has been, found {on}.")
    return moment.isoformat(timespec="seconds")


# %%
test_eq(_moment("2025-11-25"), "2025-11-25T00:00:00+00:00")
test_eq(_moment("2025-11-25T01:30+02:00"), "2025-11-24T23:30:00+00:00")
for on, problem in {"25.11.2025": "such as 2025-11-25", "9999-01-01": "has been"}.items():
    test_fail(lambda: _moment(on), contains=problem)
with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, PNEUMO_CACHE=f"{folder}/cache"):
    look_twice(folder, "a", "1ab")
    enter_looks(dict(fingerprint="1ab", source="folder"), 2, "trials on another machine", "2025-11-25")
    test_eq([(l["stage"], l["run"]) for l in read_looks()], [(BY_HAND, "")] * 2 + [("evaluation", "a")] * 2)
    test_fail(lambda: enter_looks({}, 0, "nothing", "2025-11-25"), contains="from 1 to 1000, found 0")
    (Path(folder)/"cache/looks.jsonl").write_text('{"fingerprint": "1ab"}\n')
    test_fail(read_looks, contains="Expected a look in line 1 of")


# %% [markdown]
# `finish` closes the record: what went in, what came out, how long it took, on which machine and code.

# %%
#| export
def _record(stage: Stage) -> dict:
    "What is kept of a stage that is done."
    return dict(
        parameters=jsonable(stage.params), notes=stage.notes,
        started=datetime.fromtimestamp(stage.started, timezone.utc).isoformat(timespec="seconds"),
        seconds=round(time.time() - stage.started, 1), peak_memory_mb=_peak_memory_mb(),
        git_commit=git_commit(Path(__file__).parent if "__file__" in globals() else "."),
        versions=_package_versions(), machine=machine(),
        inputs=_inputs_digest(stage.folder, stage.name, stage.params),
        outputs=digests(stage.folder, stages()[stage.name].outputs))


# %%
#| export
def finish(
    stage: Stage,
) -> dict: # the record, as it stands in provenance.json
    "Write the stage's record; only now does the stage count as done."
    record, provenance, facts = _record(stage), read_provenance(stage.folder), stage.path("metrics/data.json")
    provenance["stages"][stage.name] = record
    if facts.exists(): provenance["data_fingerprint"] = read_json(facts)["fingerprint"]
    write_json(stage.path("provenance.json"), provenance)
    shutil.rmtree(stage.scratch, ignore_errors=True)
    print(f"{stage.name}: {len(record['outputs'])} files in {record['seconds']:.1f} s")
    return record


# %% [markdown]
# Whether a stage still stands is then a comparison of three things, and the answer names the one that
# differs.

# %%
#| export
def stale_reason(
    folder: str | Path, # run directory
    name: str,          # stage
    params: dict,       # the parameters it would run with
) -> str: # "" when the stage can be skipped
    "Why a stage has to run (again)."
    record = read_provenance(folder)["stages"].get(name)
    if record is None: return "not done yet"
    before, now = record["parameters"], jsonable(params)
    absent = object()
    changed = sorted(k for k in {*before, *now} if before.get(k, absent) != now.get(k, absent))
    if changed: return "changed " + ", ".join(changed)
    if _inputs_digest(folder, name, params) != record["inputs"]: return "its input files changed"
    outputs = digests(folder, stages()[name].outputs)
    if outputs != record["outputs"]: return "its files were changed or removed"
    return ""


# %% [markdown]
# A miniature life of a run: evaluated once, skipped while nothing changes, due again as soon as a threshold,
# an input or an output differs.

# %%
with tempfile.TemporaryDirectory() as folder:
    stage, half = open_stage("evaluation", folder, threshold=0.5), dict(threshold=0.5)
    test_eq(stale_reason(folder, "evaluation", half), "not done yet")
    stage.path("comparison.csv").write_text("model,accuracy\n")
    finish(stage)
    test_eq(stale_reason(folder, "evaluation", half), "")
    test_eq(stale_reason(folder, "evaluation", dict(threshold=0.4)), "changed threshold")
    stage.path("comparison.csv").write_text("cut sho")
    test_eq(stale_reason(folder, "evaluation", half), "its files were changed or removed")
    stage.path("predictions").mkdir()
    stage.path("predictions/cnn.csv").write_text("path\n")
    test_eq(stale_reason(folder, "evaluation", half), "its input files changed")


# %% [markdown]
# ## What a stage says in words
#
# Some sentences of a report belong to a stage, and say what it did in this run. They are templates in its
# declaration, filled in with the parameters that the record holds.

# %%
#| export
def stage_words(
    folder: str | Path, # run directory
    name: str,          # stage
    key: str,           # "methods", "remark", "caution" or "data_remark"
) -> str: # "" where the stage was not done in this run, or has nothing to say
    "A stage's sentence about this run."
    from jinja2 import Environment
    record, template = read_provenance(folder)["stages"].get(name), getattr(stages()[name], key)
    if record is None or not template: return ""
    text = Environment(autoescape=True).from_string(template).render(p=record["parameters"])
    return " ".join(text.split())


# %% [markdown]
# ## Seeds
#
# Two kinds of chance enter a study. What concerns a film is drawn from a generator made of the seed and the
# film's own numbers: its augmentation, its place in the epoch's order. So it does not depend on what was
# drawn before, and a resumed training sees exactly the films that an unbroken one would. Initial weights come
# from Keras's global seed.

# %%
#| export
def rng_for(
    *key: int | str, # seed, then what the numbers are for: `rng_for(42, "augment", epoch, film)`
): # numpy.random.Generator
    "An independent, reproducible random generator for one purpose."
    import numpy as np
    if any(isinstance(k, int) and k < 0 for k in key):
        raise StudyError(f"Expected a seed of 0 or more, found {key[0]}.")
    as_number = lambda k: k if isinstance(k, int) else int(hashlib.sha1(k.encode()).hexdigest()[:8], 16)
    return np.random.default_rng([as_number(k) for k in key])


# %%
#| export
def set_seed(seed: int):
    "Seed Python, NumPy and Keras, for initial weights and dropout."
    import keras
    keras.utils.set_random_seed(seed)


# %%
a, b = rng_for(42, "augment", 3, 17).random(), rng_for(42, "augment", 3, 17).random()
test_eq(a, b)
assert a != rng_for(42, "augment", 3, 18).random() and a != rng_for(42, "order", 3, 17).random()
