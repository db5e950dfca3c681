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
# # Pages
#
# > Executed notebooks become a site, with numbered figures, by Quarto or by nbconvert

# %%
#| default_exp pages

# %%
#| export
import base64, html, io, json, os, re, shutil, subprocess, tempfile, time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, reduce
from pathlib import Path

import yaml

from pneumo_nb.run import StudyError, project_folder, stages

# %%
#| hide
import nbformat
import nbformat.v4 as nb
from unittest import mock
from PIL import Image
from fastcore.test import test_eq, test_fail


# %% [markdown]
# Most readers never open a notebook. They read a site, and there are two: the report of a run, and the
# documentation. Both are made the same way. First a **staging folder** is filled with everything that a
# renderer needs: the notebooks as nbdev prepares them for readers, their figures as files, scripts and
# styles, and the configuration. Then one renderer turns it into pages. That is Quarto where it is installed,
# and nbconvert elsewhere, from the same folder and under the same names.
#
# ## Templates
#
# What a page is filled into lies beside the notebooks, in `nbs/templates`.

# %%
#| export
@cache
def _templates(): # jinja2 Environment
    "The templates of pages; what is put into them is escaped unless it is markup already."
    from jinja2 import Environment, FileSystemLoader
    loader = FileSystemLoader(project_folder()/"nbs/templates")
    return Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)


# %%
#| export
def fill(
    template: str, # name of a file in nbs/templates, without `.html.j2`
    **values,      # text is escaped, `Markup` is taken as it is
): # markupsafe.Markup, a str
    "A template with its values."
    from markupsafe import Markup
    return Markup(_templates().get_template(f"{template}.html.j2").render(values).strip())


# %%
print(fill("image", name="eda_counts", alt='Two "bars"', width=4, height=2))


# %% [markdown]
# ## As nbdev prepares them
#
# nbdev's directives (`#| export`, `#| hide`) are for tools. Its own processors take them out, drop what is
# hidden, and turn the title and the line below it into front matter.

# %%
#| export
def default_exp_(cell, *names):
    "A directive's processor, by nbdev's naming: the cell that names the module is nothing for readers."
    del cell["source"]


# %% [markdown]
# The front matter names the page, too: `30_data.ipynb` becomes `data.html`, with either renderer.

# %%
#| export
def front_matter(
    notebook, # from `processed`, or any that begins with a raw YAML cell
) -> dict: # title, description, output-file
    "What a page says of itself."
    first = notebook.cells[0] if notebook.cells else None
    text = first.source if first is not None and first.cell_type == "raw" else ""
    return yaml.safe_load(text.strip().strip("-")) or {}


# %%
#| export
def _check_notebook(file: Path):
    "Refuse a file that is no executed notebook."
    import nbformat
    try: notebook = nbformat.read(file, as_version=4)
    except OSError: raise
    except Exception: notebook = None  # nbformat has no one error for what is damaged
    if notebook is None or not notebook.get("cells"): raise StudyError(
        f"Expected an executed notebook in {file}, found something else; "
        "remove that file and do `pneumo run`, which executes it again.")


# %%
#| export
def processed(
    file: Path, # an executed notebook
): # nbformat notebook
    "A notebook for readers: front matter first, no directives, nothing hidden, no start-up chatter."
    import nbformat
    from execnb.nbio import nb2str, read_nb
    from nbdev import processors as steps
    from nbdev.frontmatter import FrontmatterProc
    from nbdev.process import NBProcessor
    _check_notebook(file)
    notebook = read_nb(file)
    NBProcessor(nb=notebook, procs=[
        FrontmatterProc, steps.populate_language, steps.strip_ansi, steps.hide_line, steps.rm_header_dash,
        steps.hide_, default_exp_, steps.strip_hidden_metadata]).process()
    notebook = nbformat.reads(nb2str(notebook), as_version=4)
    drop_chatter(notebook)
    _drop_machinery(notebook)
    _fold_logs(notebook)
    about = front_matter(notebook)
    if about.get("title") and _is_file_name(about.get("output-file")): return notebook
    raise StudyError(f"Expected a title and the page {file.stem.partition('_')[2]}.html in the notebook "
                     f"{file}, found {about or 'neither'}; remove that file and do `pneumo run`.")


# %%
#| export
def _is_file_name(name: object) -> bool:
    "Whether a name that stands in a notebook is one of a file, and leads to no other folder."
    return isinstance(name, str) and bool(re.fullmatch(r"\w[\w.-]*", name))


# %%
test_eq([n for n in ("eda_counts", "../x", "/x", ".x", "a/b", "a\nb", 7, None) if _is_file_name(n)],
        ["eda_counts"])

# %% [markdown]
# TensorFlow's start-up messages go too, and the line with which a stage ends. A warning about a film stays.
# Lines that a cell printed one after the other become one block.

# %%
#| export
_CHATTER = re.compile(
    r"^(?:[IWE]\d{4} |\d{4}-\d\d-\d\d .*tensorflow|WARNING: All log messages"
    r"|WARNING:tensorflow:\d+ out of the last|To enable the following instructions"
    r"|\w+: \d+ files in [\d.]+ s$).*\n?", re.M)


# %%
#| export
def drop_chatter(
    notebook, # nbformat notebook, changed in place
):
    "Drop start-up messages and closing lines from the outputs, and join what was printed in pieces."
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream": output.text = _CHATTER.sub("", output.text)
        if "outputs" in cell: cell.outputs = _joined(cell.outputs)


# %%
#| export
def _joined(outputs: list) -> list:
    "Outputs with neighbouring streams of one kind as one, and without empty ones."
    kept = []
    for output in outputs:
        last = kept[-1] if kept else None
        if output.output_type != "stream": kept.append(output)
        elif last is not None and last.output_type == "stream" and last.name == output.name:
            last.text += output.text
        elif output.text.strip(): kept.append(output)
    return kept


# %% [markdown]
# A report is read for what came out. A cell without an output (an import, a definition, a check that held)
# stands in the executed notebook and in the documentation, and is left out here. So is the paragraph that
# introduces only such cells, and a section that has nothing else.

# %%
#| export
def _blocks(cells: list, begins) -> list[list]: # of cells; `begins`: does a block begin with this cell?
    "Cells in blocks."
    blocks = []
    for cell in cells:
        if not blocks or begins(cell): blocks.append([])
        blocks[-1].append(cell)
    return blocks

def _has_heading(cell) -> bool:
    return cell.cell_type == "markdown" and bool(re.search("^#+ ", cell.source, re.M))

def _shows(block: list) -> bool:
    "Whether a block shows what came out, is text alone, or is the head of the page."
    code = [cell for cell in block if cell.cell_type == "code"]
    return block[0].cell_type == "raw" or not code or any(cell.outputs for cell in code)


# %%
#| export
def _drop_machinery(
    notebook, # nbformat notebook, changed in place
):
    "Keep what shows something, with the text that belongs to it."
    sections = [block for block in _blocks(notebook.cells, _has_heading) if _shows(block)]
    blocks = [block for section in sections for block in _blocks(section, lambda c: c.cell_type != "code")]
    kept = [cell for block in blocks if _shows(block) or _has_heading(block[0]) for cell in block]
    notebook.cells = [cell for cell in kept if cell.cell_type != "code" or cell.outputs]


# %%
printed = nb.new_output("stream", text="1")
text, code = nb.new_markdown_cell, nb.new_code_cell
cells = [text("## A"), code("def f(): pass"), text("Words on g."), code("def g(): pass"), text("Look:"),
         code("h()"), code("g()", outputs=[printed]), text("## Only g"), code("g()"), text("## Words"),
         text("More.")]
short = nb.new_notebook(cells=cells)
_drop_machinery(short)
test_eq([cell.source for cell in short.cells], ["## A", "Look:", "g()", "## Words", "More."])

# %% [markdown]
# Quarto takes HTML as it is from a fenced block. For an HTML output it would call a page interactive and
# fetch scripts from another host.

# %%
#| export
_FENCE = "``````"

def _raw_html(text: str) -> dict: # data of an output
    "HTML as Quarto takes it without calling a page interactive."
    return {"text/markdown": f"{_FENCE}{{=html}}\n{text}\n{_FENCE}"}

def html_cell(text: str): # nbformat cell
    "A cell that shows HTML as it is, whichever program renders it."
    from nbformat import v4
    return v4.new_code_cell("#| echo: false", outputs=[v4.new_output("display_data", data=_raw_html(text))])

def figure_cell(png: bytes, name: str, caption: str, alt: str): # nbformat cell
    "A cell that shows a chart, as an executed one of `show_figure` does."
    from nbformat import v4
    about = dict(name=name, caption=caption, alt=alt, pictures=[])
    data = {"image/png": base64.b64encode(png).decode()}
    shown = v4.new_output("display_data", data=data, metadata={"image/png": about})
    return v4.new_code_cell("#| echo: false", outputs=[shown])


# %% [markdown]
# The log of a training is folded, too.

# %%
#| export
_LOG_LINES = 6  # of epochs, from which a log is folded

def _fold_logs(
    notebook, # nbformat notebook, changed in place
):
    "Put printed logs of epochs behind a line to click on."
    for output in (o for cell in notebook.cells for o in cell.get("outputs", [])):
        text = output.get("text", "")
        if output.output_type != "stream" or len(re.findall(r"^ *epoch ", text, re.M)) < _LOG_LINES: continue
        head = f"Log of the training, {text.count(chr(10))} lines"
        folded = f"<details><summary>{head}</summary><pre>{html.escape(text)}</pre></details>"
        output.clear()
        output.update(output_type="display_data", data=_raw_html(folded), metadata={})


# %%
log = nb.new_output("stream", text="".join(f"epoch {n}\n" for n in range(9)))
logged = nb.new_notebook(cells=[code("train()", outputs=[log])])
_fold_logs(logged)
assert "Log of the training, 9 lines" in logged.cells[0].outputs[0].data["text/markdown"]

# %%
printed = nb.new_output("stream", name="stderr", text="I0000 00:00 port.cc\nleft out a film\n")
cells = [nb.new_markdown_cell("# Data\n\n> Which films there are"), nb.new_code_cell("#| default_exp x"),
         nb.new_code_cell("#| hide\nimport secret"),
         nb.new_code_cell("#| export\ndef f(): pass", outputs=[printed])]
with tempfile.TemporaryDirectory() as folder:
    nbformat.write(nb.new_notebook(cells=cells), Path(folder)/"30_data.ipynb")
    notebook = processed(Path(folder)/"30_data.ipynb")
test_eq([c.source for c in notebook.cells[1:]], ["def f(): pass"])
test_eq(notebook.cells[1].outputs[0].text, "left out a film\n")
print(notebook.cells[0].source)

# %% [markdown]
# A notebook that was damaged since it was executed is refused by its name:

# %%
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder)/"30_data.ipynb"
    for text in ("", "{}", "[]", '{"cells": [', nbformat.writes(nb.new_notebook()),
                 nbformat.writes(nb.new_notebook(cells=[nb.new_code_cell("1")]))):
        file.write_text(text)
        test_fail(lambda: processed(file), contains=f"{file}, found")


# %%
#| export
def with_front_matter(
    cells: list,      # nbformat cells
    title: str,
    description: str, # one line
    page: str,        # file name, such as data.html
): # nbformat notebook
    "A page that no notebook stands for."
    from nbformat import v4
    about = {"title": title, "description": description, "output-file": page}
    head = yaml.safe_dump(about, allow_unicode=True, sort_keys=False)
    kernel = dict(kernelspec=dict(name="python3", display_name="Python 3", language="python"))
    return v4.new_notebook(cells=[v4.new_raw_cell(f"---\n{head}---"), *cells], metadata=kernel)


# %%
about = front_matter(notebook)
test_eq(about, {"title": "Data", "description": "Which films there are", "output-file": "data.html"})

# %%
page = with_front_matter([html_cell("<p>x</p>")], "Methods: all", "How", "methods.html")
test_eq(front_matter(page)["title"], "Methods: all")


# %% [markdown]
# ## Figures
#
# Each figure becomes a file of the site, with its caption, its alternative text and a number: the chapter's,
# then its own. Charts are kept without loss, and pictures of films compressed as photographs are. A chapter
# refers to a figure by a link to its name after `#fig-`; the site adds the number. On a narrow screen a wide
# figure scrolls, and it links to itself at full size.
#
# A page that is dark gets a second file. There light and dark are turned and hues kept, so that a white box
# becomes a dark one and blue stays blue. Films stay as they are.

# %%
#| export
@dataclass
class Figure:
    "A figure of a site."
    name: str     # of its file, without ending
    number: str   # such as 3.1
    page: str     # that shows it, such as eda.html
    caption: str
    alt: str      # what is seen
    width: int    # pixels, as drawn: half of what the file has
    height: int

    def image(self) -> str:
        "The picture alone, as HTML."
        return fill("image", name=self.name, alt=self.alt, width=self.width, height=self.height)

    def html(self) -> str:
        "The figure with its caption."
        return fill("figure", figure=self)


# %%
#| export
_PAGE = 18  # gray of a dark page

def turned(
    image,               # PIL image, RGB
    pictures: list[list[float]], # left, top, right, bottom, as shares; what lies there stays
): # PIL image
    "A figure for a dark page: lightness turned, hues kept, and colours never darker than half."
    import numpy as np
    from PIL import Image
    pixels = np.asarray(image, np.float32)
    channels = np.split(pixels, 3, axis=-1)
    high, low = reduce(np.maximum, channels), reduce(np.minimum, channels)
    turn = 255 - high - low                                  # takes lightness L to 1 - L
    least = np.minimum(3 * (high - low), 255) * .55 - (high + low) / 2
    lit = np.clip(pixels + np.maximum(turn, least), 0, 255)
    dark = Image.fromarray((_PAGE + lit * (255 - _PAGE) / 255 + .5).astype(np.uint8))
    for box in pictures:
        place = tuple(round(share * side) for share, side in zip(box, image.size * 2))
        dark.paste(image.crop(place), place)
    return dark


# %%
white = Image.new("RGB", (2, 1), "white")
white.putpixel((0, 0), (0, 114, 178))
test_eq([turned(white, []).getpixel((x, 0)) for x in (0, 1)], [(90, 196, 255), (18, 18, 18)])
test_eq(turned(white, [[0, 0, .5, 1]]).getpixel((0, 0)), (0, 114, 178))


# %%
#| export
def _write_picture(png: bytes, file: Path, pictures: list | None): # PIL image; None: not noted where
    "Write a PNG as WebP, charts without loss, and beside it the one for dark pages."
    from PIL import Image
    image = Image.open(io.BytesIO(png)).convert("RGB")
    file.parent.mkdir(exist_ok=True)
    keep = dict(lossless=pictures == [], quality=88, method=4)
    image.save(file, **keep)
    whole = [[0, 0, 1, 1]]
    turned(image, whole if pictures is None else pictures).save(file.with_suffix(".dark.webp"), **keep)
    return image


# %%
#| export
def _execute_again(page: str) -> str:
    "What to do about a page whose notebook was damaged since it was executed."
    stage = stages().get(Path(page).stem)
    return f"remove notebooks/{stage.notebook if stage else '…'}.ipynb of that run and do `pneumo run`"


# %%
test_eq(_execute_again("eda.html"), "remove notebooks/31_eda.ipynb of that run and do `pneumo run`")


# %%
#| export
def _decoded(output, number: int, page: str) -> bytes: # PNG
    "The picture of an output; what is none is refused."
    from PIL import Image
    try:
        png = base64.b64decode(output.data["image/png"])
        Image.open(io.BytesIO(png)).load()
    except (ValueError, OSError, SyntaxError): raise StudyError(
        f"Expected a PNG picture for figure {number} of {page}, found something else; "
        f"{_execute_again(page)}.") from None
    return png


# %%
#| export
def place_figures(
    notebook,           # changed in place
    chapter: int | str, # its number
    folder: Path,       # the staging folder
) -> list[Figure]:
    "Write every figure of a notebook into `figures/`, and put the numbered figure where it was."
    page, figures = front_matter(notebook).get("output-file", "index.html"), []
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    for number, output in enumerate(pictures, 1):
        about = output.metadata.get("image/png", {})
        name = about.get("name") or f"{Path(page).stem}_{number}"
        alt = about.get("alt") or "A figure without a description."
        if not _is_file_name(name): raise StudyError(
            f"Expected a file's name for figure {number} of {page}, such as eda_counts, found {name!r}; "
            f"{_execute_again(page)}.")
        png, pictures = _decoded(output, number, page), about.get("pictures")
        image = _write_picture(png, folder/"figures"/f"{name}.webp", pictures)
        size = image.width // 2, image.height // 2
        figures.append(Figure(name, f"{chapter}.{number}", page, about.get("caption") or alt, alt, *size))
        output.data, output.metadata = _raw_html(figures[-1].html()), {}
    return figures


# %%
#| export
def _refer(
    text: str, # markdown with `[words](#fig-NAME)`
    page: str, # on which it stands
    figures: dict[str, Figure],
) -> str: # markdown
    "Put numbers where figures are referred to; words alone where this run has no such figure."
    def number(match):
        words, name = match.groups()
        if name not in figures: return words
        figure = figures[name]
        link = f"[Figure {figure.number}]({'' if figure.page == page else figure.page}#fig-{name})"
        return link if " ".join(words.lower().split()) == "the figure" else f"{words} ({link})"
    return re.sub(r"\[([^\]]+)\]\(#fig-(\w+)\)", number, text)


# %%
drawn = io.BytesIO()
Image.new("RGB", (4, 2)).save(drawn, "PNG")
dot = base64.b64encode(drawn.getvalue()).decode()
about = dict(alt="Two <bars>", name="eda_counts", caption="Films by split")
shown = nb.new_output("display_data", data={"image/png": dot}, metadata={"image/png": about})
chapter = with_front_matter([nb.new_code_cell("plot()", outputs=[shown])], "Data", "Films", "data.html")
with tempfile.TemporaryDirectory() as folder:
    figures = {figure.name: figure for figure in place_figures(chapter, 1, Path(folder))}
print(chapter.cells[1].outputs[0].data["text/markdown"])
prose = "[The figure](#fig-eda_counts), [bars](#fig-eda_counts) and [dots](#fig-nowhere)."
test_eq(_refer(prose, "eda.html", figures),
        "[Figure 1.1](data.html#fig-eda_counts), bars ([Figure 1.1](data.html#fig-eda_counts)) and dots.")

# %% [markdown]
# ## Tables
#
# A wide table scrolls by itself, so that the page does not, and can be reached with the keyboard. A long one
# sorts by any column, and by the value of numbers: 62 s comes before 1,601 s.

# %%
#| export
_LONG_TABLE = 8  # rows
_WIDE_TABLE = 7  # columns; a wider one is set smaller


# %%
#| export
def _sortable(table: str) -> str: # HTML
    "A table that sorts, its numbers by their value; not one with two lines of heads, or measures as rows."
    head = table.partition("</thead>")[0]
    is_bare = re.search(r"<th[^>]*>(?:\s|&nbsp;)*</th>", head)
    if head.count("<tr") > 1 or "rowspan" in table or is_bare: return table
    has_class = re.match(r'<table[^>]* class="', table)
    if has_class: table = re.sub(r'^<table([^>]*) class="', r'<table\1 class="sortable ', table)
    else: table = table.replace("<table", '<table class="sortable"', 1)
    value = lambda cell: f'<td{cell[1]} data-sort="{cell[2].replace(",", "")}">{cell[2]}'
    return re.sub(r"<td([^>]*)>([-+]?[\d,]*\.?\d+)(?=[ %<])", value, table)


# %%
#| export
def _unbroken(table: str) -> str: # HTML
    "A table whose intervals are not broken at their dash, nor beside their `to`."
    table = re.sub(r"(?<=\d)–(?=\d)", "\u2060–\u2060", table)
    return re.sub(r"(?<=\d) to (?=[-+−]?[\d.])", "\u00a0to\u00a0", table)


# %%
test_eq(_unbroken("<td>0.9 (0.85–0.95)</td>"), "<td>0.9 (0.85\u2060–\u20600.95)</td>")
test_eq(_unbroken("<td>+0.1 (-0.1 to +0.3)</td>"), "<td>+0.1 (-0.1\u00a0to\u00a0+0.3)</td>")
test_eq(_unbroken("<td>what to do – or not</td>"), "<td>what to do – or not</td>")


# %%
#| export
def _frame_tables(
    text: str,                     # HTML
    sort_from: int = _LONG_TABLE,  # rows from which a table sorts
) -> str: # HTML
    "Put each table into a frame that scrolls."
    def frame(match):
        table = _unbroken(re.sub(r' border="\d"', "", match[0]))
        kind = "scroll fit" if table.partition("</tr>")[0].count("<th") > _WIDE_TABLE else "scroll"
        if table.count("<tr") > sort_from: table = _sortable(table)
        return f'<div class="{kind}" tabindex="0">{table}</div>'
    return re.sub(r"<table.*?</table>", frame, text, flags=re.S)


# %%
#| export
def table_html(
    rows: list[dict],    # cells as text, or HTML where `escape` is False
    caption: str = "",
    escape: bool = True,
    sort_from: int = _LONG_TABLE,
) -> str: # HTML
    "Rows as a table in its frame."
    import pandas as pd
    text = pd.DataFrame(rows).to_html(index=False, border=0, na_rep="–", escape=escape, justify="left")
    if caption: text = text.replace(">\n", f"><caption>{html.escape(caption)}</caption>\n", 1)
    return _frame_tables(text, sort_from)


# %%
test_eq(_frame_tables('<p>a</p><table border="1" class="dataframe"><tr><td>1</td></tr></table>'),
        '<p>a</p><div class="scroll" tabindex="0"><table class="dataframe"><tr><td>1</td></tr></table></div>')
assert 'class="scroll fit"' in table_html([dict.fromkeys("abcdefgh", 1)])
assert '<td data-sort="1601">1,601 s</td>' in table_html([dict(training="1,601 s")] * 9)
assert "data-sort" not in table_html([dict(begun="2026-11-23 12:00")] * 9)
assert "sortable" not in _frame_tables("<table><thead><tr><th>&nbsp;</th></tr></thead></table>", 0)
assert 'class="sortable dataframe"' in table_html([dict(film=n) for n in range(9)], "Nine films")
assert "<caption>Nine films" in table_html([dict(film=1)], "Nine films")

# %% [markdown]
# ## The staging folder
#
# It lies where temporary files do, since Quarto passes over hidden folders and a run is no place for others.
# While a command works in it, it holds a lock. A killed command lets go of its lock, so the next one knows
# which folders are left over and removes them.

# %%
#| export
_STAGING = "pneumo-site-"


# %%
#| export
@contextmanager
def staging_folder():
    "An empty folder to stage pages in, gone afterwards; what killed commands left of theirs goes, too."
    from filelock import FileLock
    with tempfile.TemporaryDirectory(prefix=_STAGING) as folder, FileLock(Path(folder)/".lock"):
        _remove_left_over(Path(folder))
        (Path(folder)/"pages").mkdir()
        yield Path(folder)/"pages"


# %%
#| export
def _remove_left_over(folder: Path):
    "Remove the staging folders beside this one that are of the same user, and that nobody works in."
    from filelock import FileLock, Timeout
    for other in folder.parent.glob(f"{_STAGING}*"):
        with suppress(OSError, Timeout):
            about = other.lstat()
            is_new = time.time() - about.st_mtime < 60  # and perhaps about to be locked
            if other.is_symlink() or about.st_uid != folder.lstat().st_uid or is_new: continue
            with FileLock(other/".lock", timeout=0): shutil.rmtree(other)


# %%
with tempfile.TemporaryDirectory() as place, mock.patch("tempfile.tempdir", place):
    left, fresh = Path(place)/"pneumo-site-left", Path(place)/"pneumo-site-fresh"
    for folder in (left, fresh): (folder/"pages").mkdir(parents=True)
    os.utime(left, (0, 0))
    with staging_folder() as staging:
        os.utime(staging.parent, (0, 0))
        with staging_folder(): assert staging.exists() and fresh.exists() and not left.exists()
    test_eq(os.listdir(place), ["pneumo-site-fresh"])


# %% [markdown]
# `stage_pages` fills it. Pages come in their order, `sidebar.yml` and `nbdev.yml` as nbdev would write them
# beside the one `_quarto.yml`, scripts and styles in `assets/`. The notebooks themselves are for those who
# want to run what they read.

# %%
#| export
def _write_yaml(file: Path, value: dict):
    file.write_text(yaml.safe_dump(value, allow_unicode=True, sort_keys=False), encoding="utf-8")


# %%
#| export
def stage_pages(
    staging: Path,               # an empty folder
    project: Path,               # holds _quarto.yml and nbs/assets
    title: str,                  # of the site
    pages: dict,                 # file name such as 30_data.ipynb → notebook, in the order of the sidebar
    sources: dict | None = None, # file name → executed notebook to offer beside its page
):
    "Write all that a renderer needs."
    import nbformat
    shutil.copytree(project/"nbs/assets", staging/"assets")
    shutil.copy(project/"_quarto.yml", staging/"_quarto.yml")
    _write_yaml(staging/"nbdev.yml", dict(project={"output-dir": "_docs"}, website=dict(title=title)))
    _write_yaml(staging/"sidebar.yml", dict(website=dict(sidebar=dict(contents=list(pages)))))
    for name, source in (sources or {}).items():
        (staging/"notebooks").mkdir(exist_ok=True)
        shutil.copy(source, staging/"notebooks"/name)
    for name, notebook in pages.items(): nbformat.write(notebook, staging/name)


# %% [markdown]
# Before that, `finish_pages` numbers chapters and figures, and puts the numbers where chapters refer to
# figures.

# %%
#| export
def finish_pages(
    pages: dict[object, object], # chapter number → notebook; changed in place
    staging: Path,
) -> dict[str, Figure]: # figures by name
    "Number chapters and figures, refer to figures by number, frame the tables."
    placed = [place_figures(notebook, number, staging) for number, notebook in pages.items()]
    figures = {figure.name: figure for page_figures in placed for figure in page_figures}
    for number, notebook in pages.items():
        about = front_matter(notebook)
        page, title = about["output-file"], f"{number}. {about['title']}"
        notebook.cells[0] = with_front_matter([], title, about.get("description", ""), page).cells[0]
        for cell in notebook.cells: _finish_cell(cell, page, figures)
    return figures


# %% [markdown]
# What has no value is a dash on a page, however a chapter's table wrote it.

# %%
#| export
def _without_nan(table: str) -> str: # HTML
    "A table with a dash in each cell that has no value."
    return re.sub(r"(<t[dh][^>]*>)\s*(?:nan|NaN|NaT|None|&lt;NA&gt;)\s*(?=</t[dh]>)", r"\1–", table)


# %%
test_eq(_without_nan("<td>nan</td><td class='a'>None</td><td>None of them</td>"),
        "<td>–</td><td class='a'>–</td><td>None of them</td>")


# %%
#| export
def _finish_cell(cell, page: str, figures: dict[str, Figure]): # `cell`, changed in place
    "References to figures and frames of tables, in the text and in the outputs of a cell."
    if cell.cell_type == "markdown": cell.source = _refer(cell.source, page, figures)
    for output in (o for o in cell.get("outputs", []) if "data" in o):
        table, text = ("".join(output.data.get(f"text/{kind}", "")) for kind in ("html", "markdown"))
        if table: output.data = _raw_html(_frame_tables(_without_nan(table)))
        elif text: output.data["text/markdown"] = _refer(text, page, figures)


# %% [markdown]
# ## With Quarto
#
# Quarto reads the folder as a project and leaves the site in `_docs`.

# %%
#| export
def _quarto_version() -> tuple[int, ...] | None: # None where it is not on the PATH
    "Which Quarto there is."
    if not shutil.which("quarto"): return None
    printed = subprocess.run(["quarto", "--version"], capture_output=True, text=True).stdout
    return tuple(map(int, re.findall(r"\d+", printed)[:3])) or None

def _render_with_quarto(staging: Path):
    "Let Quarto render a staging folder."
    done = subprocess.run(["quarto", "render", str(staging)], capture_output=True, text=True)
    reason = " ".join(done.stderr.split())[-300:]
    if done.returncode: raise StudyError(f"quarto render failed in {staging}: {reason}")


# %% [markdown]
# ## Without it
#
# nbconvert converts the cells of each page. The frame around them is made here: chapters on the left,
# contents on the right, search, the way to the next page. It is as much like Quarto's as needed for a reader
# to feel at home.

# %%
#| export
_CELLS = """{%- extends 'basic/index.html.j2' -%}
{% block input_group %}{% if 'echo: false' not in cell.source %}<details class="code">
<summary>Code{{ cell.metadata.get("defines", "") }}</summary>{{ super() }}</details>{% endif %}{% endblock %}
{% block in_prompt %}{% endblock %}{% block output_area_prompt %}{% endblock %}
"""
_BARE_TABLE = re.compile(r'(?<!tabindex="0">)<table.*?</table>', re.S)


# %%
#| export
def _page_body(
    notebook, # of a staging folder
) -> tuple[dict, str]: # front matter, HTML
    "The cells of one page, converted."
    from nbconvert import HTMLExporter
    about = front_matter(notebook)
    notebook.cells = notebook.cells[1:] if about else notebook.cells
    for cell in notebook.cells:
        names = re.findall(r"^(?:def|class) ([a-zA-Z]\w*)", cell.source, re.M)
        if names: cell.metadata["defines"] = ": " + ", ".join(names)
        for output in (o for o in cell.get("outputs", []) if "data" in o): _unfence(output.data)
    body = HTMLExporter(raw_template=_CELLS).from_notebook_node(notebook)[0]
    body = re.sub(r'<a class="anchor-link".*?</a>', "", body, flags=re.S)
    body = _BARE_TABLE.sub(lambda table: _frame_tables(table[0]), body)  # tables of prose
    return about, body.replace("<pre>", '<pre tabindex="0">')


# %%
#| export
def _unfence(data: dict): # of an output; changed in place
    "HTML in place of the fenced block that Quarto takes."
    fenced = re.fullmatch(rf"{_FENCE}{{=html}}\n(.*)\n{_FENCE}", data.get("text/markdown", ""), re.S)
    if fenced:
        data.clear()
        data["text/html"] = fenced[1]

_CODE_STYLE = """{light}
.highlight .c1, .highlight .sd {{ color: #555 }}
@media (prefers-color-scheme: dark) {{ {dark} }}
.highlight, .highlight pre {{ background: none !important }}
"""


# %%
#| export
def _code_style() -> str: # CSS
    "Colours of code, for light and dark, with enough contrast for weak eyes."
    from pygments.formatters import HtmlFormatter
    light, dark = (HtmlFormatter(style=s).get_style_defs(".highlight") for s in ("xcode", "github-dark"))
    return _CODE_STYLE.format(light=light, dark=dark)


# %% [markdown]
# A page is the template `page.html.j2` around a body.

# %%
#| export
def _page_html(
    site: str,        # title of the site
    about: dict,      # the page's front matter
    body: str,        # HTML
    order: list[tuple[str, str]], # page and title of all pages
) -> str: # HTML
    "A whole page."
    from markupsafe import Markup
    page, blurb = about["output-file"], about.get("description", "")
    place = [name for name, _ in order].index(page)
    before, after = (order[n] if 0 <= n < len(order) else None for n in (place - 1, place + 1))
    headings = re.findall(r'<h([23])[^>]* id="([^"]+)"[^>]*>(.*?)</h\1>', body, re.S)
    return fill("page", site=site, page=page, heading=about["title"], description=blurb.replace("`", ""),
                blurb=Markup(as_html(blurb)), body=Markup(body), order=order, before=before, after=after,
                headings=[(level, where, _strip_tags(text)) for level, where, text in headings],
                has_code='details class="code"' in body)


# %%
#| export
def as_html(text: str) -> str: # HTML
    "A line of text, with `code` as code."
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


# %%
#| export
def _strip_tags(text: str) -> str:
    "The words of some HTML."
    words = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", text, flags=re.S)
    return html.unescape(re.sub(r"\s+", " ", words)).strip()


# %% [markdown]
# The search looks through every section of every page, without its code.

# %%
#| export
def _search_sections(
    pages: dict[str, tuple[dict, str]], # page → front matter, HTML
) -> list[dict]: # id, title, section, href, text
    "What the search looks through."
    sections = []
    for page, (about, body) in pages.items():
        without_code = re.sub(r"<details.*?</details>", " ", body, flags=re.S)
        first, *rest = re.split(r'<h[23][^>]* id="([^"]+)"[^>]*>(.*?)</h[23]>', without_code, flags=re.S)
        opening = ("", "", about.get("description", "") + " " + first)
        for where, section, text in [opening, *zip(rest[::3], rest[1::3], rest[2::3])]:
            href = f"{page}#{where}" if where else page
            words = dict(section=_strip_tags(section), text=_strip_tags(text)[:4000])
            sections.append(dict(id=len(sections), title=about["title"], href=href) | words)
    return sections


# %%
#| export
def _render_with_nbconvert(staging: Path):
    "Render a staging folder into its `_docs` without Quarto."
    import nbformat
    read_yaml = lambda name: yaml.safe_load((staging/name).read_text(encoding="utf-8"))["website"]
    site, names = read_yaml("nbdev.yml")["title"], read_yaml("sidebar.yml")["sidebar"]["contents"]
    converted = [_page_body(nbformat.read(staging/name, as_version=4)) for name in names]
    pages = {about["output-file"]: (about, body) for about, body in converted}
    order, out = [(page, about["title"]) for page, (about, _) in pages.items()], staging/"_docs"
    out.mkdir()
    for folder in ("assets", "figures", "notebooks"):
        ignored = shutil.ignore_patterns("*.scss")
        if (staging/folder).exists(): shutil.copytree(staging/folder, out/folder, ignore=ignored)
    sections = json.dumps(_search_sections(pages), ensure_ascii=False)
    (out/"assets/code.css").write_text(_code_style(), encoding="utf-8")
    (out/"assets/sections.js").write_text(f"window.searchSections = {sections};\n", encoding="utf-8")
    for page, (about, body) in pages.items():
        (out/page).write_text(_page_html(site, about, body, order), encoding="utf-8")


# %% [markdown]
# ## Either way
#
# Whichever program renders, the finished site replaces the old one as a whole, and which one it was is said.

# %%
#| export
_QUARTO = (1, 4)  # the oldest that renders these pages


# %%
#| export
def render(
    staging: Path, # from `stage_pages`
    site: Path,    # where the site shall be
) -> str: # what rendered it
    "Render a staging folder and put the site in its place."
    version = _quarto_version()
    if version is not None and version >= _QUARTO: _render_with_quarto(staging)
    else: _render_with_nbconvert(staging)
    if not (staging/"_docs/index.html").exists(): raise StudyError(
        f"Expected a site from Quarto in {staging}, found none; run `quarto render` there to see why.")
    _replace_folder(staging/"_docs", site)
    return _renderer(version)


# %%
#| export
def _replace_folder(made: Path, place: Path):
    "Put a finished folder in its place, whatever stood there."
    place.parent.mkdir(parents=True, exist_ok=True)
    new, old = (place.with_name(f".partial-{os.getpid()}-{age}-{place.name}") for age in ("new", "old"))
    shutil.move(made, new)
    if place.exists(): os.replace(place, old)
    os.replace(new, place)
    shutil.rmtree(old, ignore_errors=True)


# %%
#| export
def _renderer(version: tuple | None) -> str:
    "What rendered a site, and why."
    if version is None: return "nbconvert, since Quarto is not on the PATH"
    words = ".".join(map(str, version))
    if version >= _QUARTO: return f"Quarto {words}, whose search needs a server (python -m http.server)"
    return f"nbconvert, since Quarto is too old ({words}; 1.4 is needed)"


# %% [markdown]
# A site of two pages. They link to each other and to nothing outside:

# %%
words = nb.new_markdown_cell("## Counts\n\nSee [the figure](#fig-eda_counts).\n\n| film |\n| --- |\n| 1 |")
about = {"image/png": dict(name="eda_counts")}
shown = nb.new_output("display_data", data={"image/png": dot}, metadata=about)
data_page = with_front_matter([nb.new_code_cell("plot()", outputs=[shown])], "Data", "Films", "data.html")
pages = {"index.ipynb": with_front_matter([words], "Overview", "A run", "index.html"),
         "30_data.ipynb": data_page}

with tempfile.TemporaryDirectory() as folder:
    project, staging = Path(folder)/"project", Path(folder)/"staging"
    staging.mkdir()
    (project/"nbs/assets").mkdir(parents=True)
    (project/"_quarto.yml").write_text("project:\n  type: website\n")
    finish_pages(dict(enumerate(pages.values())), staging)
    stage_pages(staging, project, "Run", pages)
    _render_with_nbconvert(staging)
    there = sorted(file.name for file in (staging/"_docs").iterdir())
    test_eq(there, ["assets", "data.html", "figures", "index.html"])
    index = (staging/"_docs/index.html").read_text()
    for file in (staging/"_docs").glob("*.html"):
        test_eq(re.findall(r'(?:src|href)="(?:https?:)?//', file.read_text()), [])

for link in ('<a href="data.html#fig-eda_counts">Figure 1.1</a>', '<a href="#Counts">Counts</a>',
             '<div class="scroll" tabindex="0"><table>'): assert link in index, link
