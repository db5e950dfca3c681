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
# > Executed notebooks become a site: figures numbered, tables that scroll and sort, rendered by Quarto or by nbconvert

# %%
#| default_exp pages

# %%
#| export
import html, json, os, re, shutil, subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml

from pneumo_nb.run import StudyError

# %%
#| hide
import base64, io, tempfile
import nbformat
import nbformat.v4 as nb
from PIL import Image
from fastcore.test import test_eq, test_fail


# %% [markdown]
# Most readers never open a notebook. They read a site, and there are two: the report of a run, and the documentation. Both
# are made the same way. First a **staging folder** is filled with everything that a renderer needs: the notebooks as
# nbdev prepares them for readers, their figures as files, scripts and styles, and the configuration. Then one renderer
# turns it into pages: Quarto where it is installed, and nbconvert elsewhere, from the same folder and under the same names.
#
# ## As nbdev prepares them
#
# nbdev's directives (`#| export`, `#| hide`) are for tools. Its own processors take them out, drop what is hidden, and turn
# the title and the line below it into front matter.

# %%
#| export
def default_exp_(cell, *names):
    "A directive's processor, by nbdev's naming: the cell that names the module is nothing for readers."
    del cell["source"]

def processed(
    file: Path, # an executed notebook
): # nbformat notebook
    "A notebook for readers: front matter first, no directives, nothing hidden, no start-up chatter."
    import nbformat
    from execnb.nbio import nb2str, read_nb
    from nbdev.frontmatter import FrontmatterProc
    from nbdev.process import NBProcessor
    from nbdev.processors import hide_, hide_line, populate_language, rm_header_dash, strip_ansi, strip_hidden_metadata
    notebook = read_nb(file)
    NBProcessor(nb=notebook, procs=[FrontmatterProc, populate_language, strip_ansi, hide_line, rm_header_dash, hide_, default_exp_, strip_hidden_metadata]).process()
    notebook = nbformat.reads(nb2str(notebook), as_version=4)
    drop_chatter(notebook)
    return notebook


# %% [markdown]
# TensorFlow's start-up messages go too, and the line with which a stage ends: a warning about a film stays. Lines that a cell
# printed one after the other become one block.

# %%
#| export
CHATTER = re.compile(r"^(?:[IWE]\d{4} |\d{4}-\d\d-\d\d .*tensorflow|WARNING: All log messages|To enable the following instructions|WARNING:tensorflow:\d+ out of the last|\w+: \d+ files in [\d.]+ s$).*\n?", re.M)

def drop_chatter(
    notebook, # nbformat notebook, changed in place
):
    "Drop start-up messages and closing lines from the outputs, and join what was printed in pieces."
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream": output.text = CHATTER.sub("", output.text)
        kept = []
        for output in cell.get("outputs", []):
            if output.output_type != "stream": kept.append(output)
            elif kept and kept[-1].output_type == "stream" and kept[-1].name == output.name: kept[-1].text += output.text
            elif output.text.strip(): kept.append(output)
        if "outputs" in cell: cell.outputs = kept


# %%
cells = [nb.new_markdown_cell("# Data\n\n> Which films there are"), nb.new_code_cell("#| default_exp x"), nb.new_code_cell("#| hide\nimport secret"),
         nb.new_code_cell("#| export\ndef f(): pass", outputs=[nb.new_output("stream", name="stderr", text="I0000 00:00 port.cc\nleft out a film\n")])]
with tempfile.TemporaryDirectory() as folder:
    nbformat.write(nb.new_notebook(cells=cells), Path(folder)/"02_data.ipynb")
    notebook = processed(Path(folder)/"02_data.ipynb")
test_eq([c.source for c in notebook.cells[1:]], ["def f(): pass"])
test_eq(notebook.cells[1].outputs[0].text, "left out a film\n")
print(notebook.cells[0].source)


# %% [markdown]
# The front matter names the page, too: `02_data.ipynb` becomes `data.html`, with either renderer.

# %%
#| export
def front_matter(
    notebook, # from `processed`, or any that begins with a raw YAML cell
) -> dict: # title, description, output-file
    "What a page says of itself."
    first = notebook.cells[0].source if notebook.cells and notebook.cells[0].cell_type == "raw" else ""
    return yaml.safe_load(first.strip().strip("-")) or {}

def with_front_matter(
    cells: list,      # nbformat cells
    title: str,
    description: str, # one line
    page: str,        # file name, such as data.html
): # nbformat notebook
    "A page that no notebook stands for."
    from nbformat import v4
    head = yaml.safe_dump({"title": title, "description": description, "output-file": page}, allow_unicode=True, sort_keys=False)
    return v4.new_notebook(cells=[v4.new_raw_cell(f"---\n{head}---"), *cells], metadata=dict(kernelspec=dict(name="python3", display_name="Python 3", language="python")))

FENCE = "``````"

def raw_html(text: str) -> dict: # data of an output
    "HTML as Quarto takes it without calling a page interactive, for which it would fetch scripts from another host."
    return {"text/markdown": f"{FENCE}{{=html}}\n{text}\n{FENCE}"}

def html_cell(text: str): # nbformat cell
    "A cell that shows HTML as it is, whichever program renders it."
    from nbformat import v4
    return v4.new_code_cell("#| echo: false", outputs=[v4.new_output("display_data", data=raw_html(text))])


# %%
test_eq(front_matter(notebook), {"title": "Data", "description": "Which films there are", "output-file": "data.html"})
test_eq(front_matter(with_front_matter([html_cell("<p>x</p>")], "Methods: all", "How", "methods.html"))["title"], "Methods: all")


# %% [markdown]
# ## Figures
#
# Each figure becomes a file of the site (charts without loss, pictures of films compressed as photographs are) with its caption, its alternative text and a number: the chapter's, then its own. A
# chapter refers to a figure by a link to its name after `#fig-`; the site adds the number.

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
        return f'<img src="figures/{self.name}.webp" alt="{html.escape(self.alt)}" width="{self.width}" height="{self.height}" loading="lazy">'

    def html(self) -> str:
        "The figure with its caption."
        return f'<figure id="fig-{self.name}">{self.image()}<figcaption><strong>Figure {self.number}.</strong> {html.escape(self.caption)}</figcaption></figure>'


# %%
#| export
CHART_BYTES = 250_000  # a larger PNG shows films

def place_figures(
    notebook,      # changed in place
    chapter: int,  # its number
    folder: Path,  # the staging folder
) -> list[Figure]:
    "Write every figure of a notebook into `figures/`, and put the numbered figure where it was."
    import base64, io
    from PIL import Image
    page, found = front_matter(notebook).get("output-file", "index.html"), []
    for output in (o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})):
        about, number = output.metadata.get("image/png", {}), len(found) + 1
        name, alt = about.get("name") or f"{Path(page).stem}_{number}", about.get("alt") or "A figure without a description."
        png = base64.b64decode(output.data["image/png"])
        image, file = Image.open(io.BytesIO(png)).convert("RGB"), folder/"figures"/f"{name}.webp"
        file.parent.mkdir(exist_ok=True)
        image.save(file, lossless=len(png) < CHART_BYTES, quality=88, method=4)
        figure = Figure(name, f"{chapter}.{number}", page, about.get("caption") or alt, alt, image.width // 2, image.height // 2)
        output.data, output.metadata = raw_html(figure.html()), {}
        found.append(figure)
    return found


# %%
#| export
def refer(
    text: str, # markdown with `[words](#fig-NAME)`
    page: str, # on which it stands
    figures: dict[str, Figure],
) -> str: # markdown
    "Put numbers where figures are referred to; words alone where this run has no such figure."
    def number(found):
        words, name = found.groups()
        if name not in figures: return words
        figure = figures[name]
        link = f"[Figure {figure.number}]({'' if figure.page == page else figure.page}#fig-{name})"
        return link if " ".join(words.lower().split()) == "the figure" else f"{words} ({link})"
    return re.sub(r"\[([^\]]+)\]\(#fig-(\w+)\)", number, text)


# %%
drawn = io.BytesIO()
Image.new("RGB", (4, 2)).save(drawn, "PNG")
dot = base64.b64encode(drawn.getvalue()).decode()
shown = nb.new_output("display_data", data={"image/png": dot}, metadata={"image/png": dict(alt="Two <bars>", name="eda_counts", caption="Films by split")})
chapter = with_front_matter([nb.new_code_cell("plot()", outputs=[shown])], "Data", "Films", "data.html")
with tempfile.TemporaryDirectory() as folder: figures = {f.name: f for f in place_figures(chapter, 1, Path(folder))}
print(chapter.cells[1].outputs[0].data["text/markdown"])
test_eq(refer("[The figure](#fig-eda_counts), [bars](#fig-eda_counts) and [dots](#fig-nowhere).", "eda.html", figures),
        "[Figure 1.1](data.html#fig-eda_counts), bars ([Figure 1.1](data.html#fig-eda_counts)) and dots.")

# %% [markdown]
# ## Tables
#
# A wide table scrolls by itself, so that the page does not, and can be reached with the keyboard. A long one sorts by any column.

# %%
#| export
LONG_TABLE = 8 # rows

def frame_tables(
    text: str,             # HTML
    sort_from: int = LONG_TABLE,  # rows from which a table sorts
) -> str: # HTML
    "Put each table into a frame that scrolls."
    def frame(found):
        table = re.sub(r' border="\d"', "", found[0])
        if table.count("<tr") > sort_from:
            table = re.sub(r'^<table([^>]*) class="', r'<table\1 class="sortable ', table) if re.match(r'<table[^>]* class="', table) else table.replace("<table", '<table class="sortable"', 1)
            table = re.sub(r"<td([^>]*)>([-+]?[\d,]*\.?\d+)(?=[ %<])", lambda cell: f'<td{cell[1]} data-sort="{cell[2].replace(",", "")}">{cell[2]}', table)  # 62 s before 1,601 s
        return f'<div class="scroll" tabindex="0">{table}</div>'
    return re.sub(r"<table.*?</table>", frame, text, flags=re.S)

def table_html(
    rows: list[dict], # cells as text, or HTML where `escape` is False
    caption: str = "",
    escape: bool = True,
    sort_from: int = LONG_TABLE,
) -> str: # HTML
    "Rows as a table in its frame."
    import pandas as pd
    text = pd.DataFrame(rows).to_html(index=False, border=0, na_rep="–", escape=escape, justify="left")
    return frame_tables(text.replace(">\n", f"><caption>{html.escape(caption)}</caption>\n", 1) if caption else text, sort_from)


# %%
test_eq(frame_tables('<p>a</p><table border="1" class="dataframe"><tr><td>1</td></tr></table>'),
        '<p>a</p><div class="scroll" tabindex="0"><table class="dataframe"><tr><td>1</td></tr></table></div>')
assert '<td data-sort="1601">1,601 s</td>' in table_html([dict(training="1,601 s")] * 9) and "data-sort" not in table_html([dict(begun="2026-11-23 12:00")] * 9)
assert 'class="sortable dataframe"' in table_html([dict(film=n) for n in range(9)], "Nine films") and "<caption>Nine films" in table_html([dict(film=1)], "Nine films")


# %% [markdown]
# ## The project
#
# The notebooks, the configuration and the scripts of a site lie in the checkout, not in the package.

# %%
#| export
def project_folder() -> Path: # holds nbs/, params/ and _quarto.yml
    "The checkout this package belongs to, or the current folder."
    for folder in (Path(__file__).resolve().parents[1] if "__file__" in globals() else Path.cwd().parent, Path.cwd()):
        if (folder/"nbs/02_data.ipynb").exists(): return folder
    raise StudyError("Expected the notebooks in nbs/, found none beside the package or here; run pneumo in a clone of the project.")


# %% [markdown]
# ## The staging folder
#
# `stage_pages` fills it: pages in their order, `sidebar.yml` and `nbdev.yml` as nbdev would write them beside the one
# `_quarto.yml`, scripts and styles in `assets/`, and the notebooks themselves, for those who want to run what they read.

# %%
#| export
def stage_pages(
    staging: Path,               # an empty folder
    project: Path,               # the checkout, with _quarto.yml and nbs/assets
    title: str,                  # of the site
    pages: dict,                 # file name such as 02_data.ipynb → notebook, in the order of the sidebar
    sources: dict | None = None, # file name → executed notebook to offer beside its page
):
    "Write all that a renderer needs."
    import nbformat
    shutil.copytree(project/"nbs/assets", staging/"assets")
    shutil.copy(project/"_quarto.yml", staging/"_quarto.yml")
    (staging/"nbdev.yml").write_text(yaml.safe_dump(dict(project={"output-dir": "_docs"}, website=dict(title=title)), allow_unicode=True), encoding="utf-8")
    (staging/"sidebar.yml").write_text(yaml.safe_dump(dict(website=dict(sidebar=dict(contents=list(pages)))), sort_keys=False), encoding="utf-8")
    for name, source in (sources or {}).items():
        (staging/"notebooks").mkdir(exist_ok=True)
        shutil.copy(source, staging/"notebooks"/name)
    for name, notebook in pages.items(): nbformat.write(notebook, staging/name)

def finish_pages(
    pages: dict[object, object], # chapter number → notebook; changed in place
    staging: Path,
) -> dict[str, Figure]: # figures by name
    "Number chapters and figures, put the numbers where chapters refer to figures, frame the tables."
    figures = {f.name: f for number, notebook in pages.items() for f in place_figures(notebook, number, staging)}
    for number, notebook in pages.items():
        about = front_matter(notebook)
        notebook.cells[0] = with_front_matter([], f"{number}. {about['title']}", about.get("description", ""), about["output-file"]).cells[0]
        for cell in notebook.cells:
            if cell.cell_type == "markdown": cell.source = refer(cell.source, about["output-file"], figures)
            for output in (o for o in cell.get("outputs", []) if "data" in o):
                if "text/html" in output.data: output.data = raw_html(frame_tables("".join(output.data["text/html"])))
                elif "text/markdown" in output.data: output.data["text/markdown"] = refer("".join(output.data["text/markdown"]), about["output-file"], figures)
    return figures


# %% [markdown]
# ## With Quarto
#
# Quarto reads the folder as a project and leaves the site in `_docs`.

# %%
#| export
def quarto_version() -> tuple[int, ...] | None: # None where it is not on the PATH
    "Which Quarto there is."
    if not shutil.which("quarto"): return None
    said = subprocess.run(["quarto", "--version"], capture_output=True, text=True).stdout
    return tuple(map(int, re.findall(r"\d+", said)[:3])) or None

def render_with_quarto(staging: Path):
    "Let Quarto render a staging folder."
    done = subprocess.run(["quarto", "render", str(staging)], capture_output=True, text=True)
    if done.returncode: raise StudyError(f"quarto render failed in {staging}: {' '.join(done.stderr.split())[-300:]}")


# %% [markdown]
# ## Without it
#
# nbconvert converts the cells of each page; the frame around them (chapters on the left, contents on the right, search,
# the way to the next page) is made here, as much like Quarto's as needed for a reader to feel at home.

# %%
#| export
CELLS = """{%- extends 'basic/index.html.j2' -%}
{% block input_group %}{% if 'echo: false' not in cell.source %}<details class="code"><summary>Code{{ cell.metadata.get("defines", "") }}</summary>{{ super() }}</details>{% endif %}{% endblock %}
{% block in_prompt %}{% endblock %}{% block output_area_prompt %}{% endblock %}
"""

def page_body(
    notebook, # of a staging folder
) -> tuple[dict, str]: # front matter, HTML
    "The cells of one page, converted."
    from nbconvert import HTMLExporter
    about = front_matter(notebook)
    notebook.cells = notebook.cells[1:] if about else notebook.cells
    for cell in notebook.cells:
        if names := re.findall(r"^(?:def|class) (\w+)", cell.source, re.M): cell.metadata["defines"] = ": " + ", ".join(names)
    for data in (o.data for c in notebook.cells for o in c.get("outputs", []) if "data" in o):
        if found := re.fullmatch(rf"{FENCE}{{=html}}\n(.*)\n{FENCE}", data.get("text/markdown", ""), re.S): data.clear(), data.update({"text/html": found[1]})
    body = HTMLExporter(raw_template=CELLS).from_notebook_node(notebook)[0]
    body = re.sub(r'<a class="anchor-link".*?</a>', "", body, flags=re.S)
    body = re.sub(r'(?<!<div class="scroll" tabindex="0">)<table.*?</table>', lambda found: frame_tables(found[0]), body, flags=re.S)  # those of prose
    return about, body.replace("<pre>", '<pre tabindex="0">')

def code_style() -> str: # CSS
    "Colours of code, for light and dark, with enough contrast for weak eyes."
    from pygments.formatters import HtmlFormatter
    light, dark = (HtmlFormatter(style=s).get_style_defs(".highlight") for s in ("xcode", "github-dark"))
    return f"{light}\n.highlight .c1, .highlight .sd {{ color: #555 }}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n.highlight, .highlight pre {{ background: none !important }}\n"


# %%
#| export
FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="description" content="{description}">
<title>{heading} · {site}</title><link rel="icon" href="data:,"><link rel="stylesheet" href="assets/code.css"><link rel="stylesheet" href="assets/layout.css"><link rel="stylesheet" href="assets/study.css">
<script defer src="assets/sortable.auto.min.js"></script><script defer src="assets/minisearch.js"></script><script defer src="assets/sections.js"></script><script defer src="assets/pages.js"></script></head>
<body><a class="skip" href="#content">To the text</a>
<header class="top"><a href="index.html">{site}</a><a class="to-chapters" href="#chapters-list">Chapters</a><div class="find" role="search"><input id="search" type="search" placeholder="Search" aria-label="Search this site" autocomplete="off"><ol id="found" hidden></ol></div></header>
<div class="frame"><nav class="chapters" id="chapters-list" aria-label="Chapters"><ol>{chapters}</ol></nav>
<main id="content"><h1>{heading}</h1><p class="blurb">{blurb}</p>{tools}{body}<nav class="page-turn" aria-label="Previous and next">{turn}</nav></main>
<nav class="contents" aria-label="On this page">{contents}</nav></div>
<footer>Rendered by nbconvert. A study, not a medical device.</footer></body></html>
"""

def page_html(
    site: str,        # title of the site
    about: dict,      # the page's front matter
    body: str,        # HTML
    order: list[tuple[str, str]], # page and title of all pages
) -> str: # HTML
    "A whole page."
    page, link = about["output-file"], lambda name, text, words="": f'<a href="{name}"{words}>{html.escape(text)}</a>'
    place = [name for name, _ in order].index(page)
    chapters = "".join(f"<li>{link(name, text, ' aria-current=page' if name == page else '')}</li>" for name, text in order)
    before, after = (order[n] if 0 <= n < len(order) else None for n in (place - 1, place + 1))
    turn = (f"<span>← {link(*before)}</span>" if before else "<span></span>") + (f"<span>{link(*after)} →</span>" if after else "")
    headings = re.findall(r'<h([23])[^>]* id="([^"]+)"[^>]*>(.*?)</h\1>', body, re.S)
    contents = "".join(f'<li{" class=deeper" if level == "3" else ""}>{link("#" + where, strip_tags(text))}</li>' for level, where, text in headings)
    tools = '<p><button type="button" class="codes">Show all code</button></p>' if "details class=\"code\"" in body else ""
    return FRAME.format(site=html.escape(site), heading=html.escape(about["title"]), description=html.escape(about.get("description", "").replace("`", "")), blurb=as_html(about.get("description", "")), chapters=chapters,
                        tools=tools, body=body, turn=turn, contents=f"<p>On this page</p><ul>{contents}</ul>" if contents else "")

def as_html(text: str) -> str: # HTML
    "A line of text, with `code` as code."
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))

def strip_tags(text: str) -> str:
    "The words of some HTML."
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", text, flags=re.S))).strip()


# %%
#| export
def search_sections(
    pages: dict[str, tuple[dict, str]], # page → front matter, HTML
) -> list[dict]: # id, title, section, href, text
    "What the search looks through: every section of every page, without its code."
    sections = []
    for page, (about, body) in pages.items():
        parts = re.split(r'<h[23][^>]* id="([^"]+)"[^>]*>(.*?)</h[23]>', re.sub(r"<details.*?</details>", " ", body, flags=re.S), flags=re.S)
        for where, section, text in [("", "", about.get("description", "") + " " + parts[0]), *zip(parts[1::3], parts[2::3], parts[3::3])]:
            sections.append(dict(id=len(sections), title=about["title"], section=strip_tags(section), href=f"{page}#{where}" if where else page, text=strip_tags(text)[:4000]))
    return sections

def render_with_nbconvert(staging: Path):
    "Render a staging folder into its `_docs` without Quarto."
    import nbformat
    site = yaml.safe_load((staging/"nbdev.yml").read_text(encoding="utf-8"))["website"]["title"]
    names = yaml.safe_load((staging/"sidebar.yml").read_text(encoding="utf-8"))["website"]["sidebar"]["contents"]
    converted = [page_body(nbformat.read(staging/name, as_version=4)) for name in names]
    pages = {about["output-file"]: (about, body) for about, body in converted}
    order, out = [(page, about["title"]) for page, (about, _) in pages.items()], staging/"_docs"
    out.mkdir()
    for folder in ("assets", "figures", "notebooks"):
        if (staging/folder).exists(): shutil.copytree(staging/folder, out/folder, ignore=shutil.ignore_patterns("*.scss"))
    (out/"assets/code.css").write_text(code_style(), encoding="utf-8")
    (out/"assets/sections.js").write_text(f"window.searchSections = {json.dumps(search_sections(pages), ensure_ascii=False)};\n", encoding="utf-8")
    for page, (about, body) in pages.items(): (out/page).write_text(page_html(site, about, body, order), encoding="utf-8")


# %% [markdown]
# ## Either way
#
# Whichever program renders, the finished site replaces the old one as a whole, and which one it was is said.

# %%
#| export
def render(
    staging: Path, # from `stage_pages`
    site: Path,    # where the site shall be
) -> str: # what rendered it
    "Render a staging folder and put the site in its place."
    version = quarto_version()
    fit = version is not None and version >= (1, 4)
    render_with_quarto(staging) if fit else render_with_nbconvert(staging)
    if not (staging/"_docs/index.html").exists(): raise StudyError(f"Expected a site from Quarto in {staging}, found none; run `quarto render` there to see why.")
    site.parent.mkdir(parents=True, exist_ok=True)
    new, old = (site.with_name(f".partial-{os.getpid()}-{age}-{site.name}") for age in ("new", "old"))
    shutil.move(staging/"_docs", new)
    if site.exists(): os.replace(site, old)
    os.replace(new, site)
    shutil.rmtree(old, ignore_errors=True)
    if fit: return f"Quarto {'.'.join(map(str, version))}"
    return "nbconvert, since Quarto is " + ("not on the PATH" if version is None else f"too old ({'.'.join(map(str, version))}; 1.4 is needed)")


# %% [markdown]
# A site of two pages. They link to each other and to nothing outside:

# %%
with tempfile.TemporaryDirectory() as folder:
    project, staging = Path(folder)/"project", Path(folder)/"staging"
    staging.mkdir(); (project/"nbs/assets").mkdir(parents=True); (project/"_quarto.yml").write_text("project:\n  type: website\n")
    words = nb.new_markdown_cell("## Counts\n\nSee [the figure](#fig-eda_counts).\n\n| film |\n| --- |\n| 1 |")
    pages = {"index.ipynb": with_front_matter([words], "Overview", "A run", "index.html"),
             "02_data.ipynb": with_front_matter([nb.new_code_cell("plot()", outputs=[nb.new_output("display_data", data={"image/png": dot}, metadata={"image/png": dict(name="eda_counts")})])], "Data", "Films", "data.html")}
    finish_pages(dict(enumerate(pages.values())), staging)
    stage_pages(staging, project, "Run", pages)
    render_with_nbconvert(staging)
    test_eq(sorted(p.name for p in (staging/"_docs").iterdir()), ["assets", "data.html", "figures", "index.html"])
    index = (staging/"_docs/index.html").read_text()
    assert '<a href="data.html#fig-eda_counts">Figure 1.1</a>' in index and '<a href="#Counts">Counts</a>' in index and '<div class="scroll" tabindex="0"><table>' in index
    for file in (staging/"_docs").glob("*.html"): test_eq(re.findall(r'(?:src|href)="(?:https?:)?//', file.read_text()), [])
