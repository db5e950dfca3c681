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
# # The report
#
# > A run's executed notebooks as web pages, with an index made from the run's own files

# %%
#| default_exp report

# %%
#| export
import html, re
from pathlib import Path

from pneumo_nb.run import STAGES, StudyError, atomic_path, read_json, read_provenance

# %%
#| hide
import nbformat, tempfile
from fastcore.test import test_eq, test_fail

# %% [markdown]
# Most readers never open a notebook. `render_report` turns those that a run executed into plain pages: prose and
# figures first, code folded away, nothing loaded from anywhere else, so the folder can be mailed or opened from a
# disk. nbconvert does the conversion; what stands here is the page around it.
#
# ## From notebook to page
#
# nbdev's directives (`#| export`) are for tools, not readers, and so are cells marked `#| hide`. TensorFlow's start-up
# chatter goes too, and only that: a warning about a film stays.

# %%
#| export
DIRECTIVE = re.compile(r"^#\|.*\n?", re.M)
CHATTER = re.compile(r"^(?:[IWE]\d{4} |\d{4}-\d\d-\d\d .*tensorflow|WARNING: All log messages|To enable the following instructions).*\n?", re.M)

def clean_cells(
    notebook, # nbformat notebook, changed in place
):
    "Keep what a reader wants: no directives, no hidden cells, no start-up chatter."
    keep = []
    for cell in notebook.cells:
        words = re.findall(r"^#\|\s*(\w+)", cell.source, re.M) if cell.cell_type == "code" else []
        if "hide" in words or "default_exp" in words: continue
        cell.source = DIRECTIVE.sub("", cell.source) if words else cell.source
        for output in cell.get("outputs", []):
            if output.output_type == "stream": output.text = CHATTER.sub("", output.text)
        if "outputs" in cell: cell.outputs = [o for o in cell.outputs if o.output_type != "stream" or o.text.strip()]
        keep.append(cell)
    notebook.cells = keep


# %%
import nbformat.v4 as nb
cells = [nb.new_code_cell("#| default_exp x"), nb.new_code_cell("#| hide\nimport secret"),
         nb.new_code_cell("#| export\ndef f(): pass", outputs=[nb.new_output("stream", name="stderr", text="I0000 00:00 port.cc\nleft out a film\n")])]
notebook = nb.new_notebook(cells=cells)
clean_cells(notebook)
test_eq([c.source for c in notebook.cells], ["def f(): pass"])
test_eq(notebook.cells[0].outputs[0].text, "left out a film\n")

# %%
#| export
CELLS = """{%- extends 'basic/index.html.j2' -%}
{% block input_group %}<details class="code"><summary>{{ cell.source.strip().splitlines()[0] | escape_html }}</summary>{{ super() }}</details>{% endblock %}
{% block in_prompt %}{% endblock %}{% block output_area_prompt %}{% endblock %}
{% block data_png %}<img src="data:image/png;base64,{{ output.data['image/png'] | replace('\\n', '') }}"
 alt="{{ output | get_metadata('alt', 'image/png') or '' | escape_html }}"
 {% set width = output | get_metadata('width', 'image/png') %}{% if width %}width="{{ width }}"{% endif %}>{% endblock %}
"""

def notebook_body(
    file: Path, # an executed notebook
) -> tuple[str, str, str]: # title, blurb, HTML of the cells
    "Convert one notebook."
    import nbformat
    from nbconvert import HTMLExporter
    notebook = nbformat.read(file, as_version=4)
    clean_cells(notebook)
    first = notebook.cells[0].source.splitlines() if notebook.cells else [""]
    exporter = HTMLExporter(raw_template=CELLS, exclude_anchor_links=True)
    blurb = next((line[1:].strip() for line in first if line.startswith(">")), "")
    return first[0].lstrip("# "), blurb, exporter.from_notebook_node(notebook)[0]


# %% [markdown]
# ## The page
#
# One style for all pages, readable on a phone and on paper, in light and dark.

# %%
#| export
STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; --link: #0b62a3 }
@media (prefers-color-scheme: dark) { :root { --link: #6db6ee } }
body { font: 17px/1.6 system-ui, sans-serif; margin: 0 auto; max-width: 66rem; padding: 0 1.2rem 4rem }
nav { border-bottom: 1px solid var(--line); padding: .8rem 0; display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .85em }
nav a[aria-current] { font-weight: 700; color: inherit; text-decoration: none }
a { color: var(--link) } h1 { line-height: 1.2; margin: 1.6rem 0 .4rem } h2 { margin-top: 2.4rem }
blockquote { margin: 0 0 1.6rem; padding: 0; font-size: 1.1em; opacity: .8 }
img { max-width: 100%; height: auto; background: white; border-radius: 3px }
pre { overflow-x: auto; font-size: .82em; line-height: 1.45; background: var(--soft); padding: .6rem .8rem; border-radius: 4px; margin: .4rem 0 }
details.code { margin: .3rem 0 } details.code > summary { cursor: pointer; font: .78em/1.6 monospace; opacity: .75; white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
table { border-collapse: collapse; font-size: .76em; margin: .8rem 0; display: block; overflow-x: auto; font-variant-numeric: tabular-nums }
td { white-space: nowrap } td:last-child { white-space: normal } th, td { padding: .3rem .35rem; border-bottom: 1px solid var(--line); text-align: left } caption { text-align: left; font-weight: 600; padding: .3rem 0 }
@media print { details.code, nav { display: none } }
"""

def page(
    heading: str, # text
    body: str,    # HTML
    chapters: list[tuple[str, str]], # file name and title of every page
    current: str, # file name of this one
) -> str: # HTML
    "A whole page with its navigation."
    links = " ".join(f'<a href="{name}"{" aria-current=page" if name == current else ""}>{html.escape(text)}</a>' for name, text in chapters)
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(heading)} · pneumo_nb</title><style>{STYLE}{code_style()}</style></head>"
            f'<body><nav aria-label="chapters">{links}</nav><main>{body}</main></body></html>')

def code_style() -> str: # CSS
    "Colours of code, for light and dark."
    from pygments.formatters import HtmlFormatter
    light, dark = (HtmlFormatter(style=s).get_style_defs(".highlight") for s in ("friendly", "github-dark"))
    return f"{light}@media (prefers-color-scheme: dark) {{ {dark} }}.highlight{{background:none!important}}"


# %% [markdown]
# ## The index
#
# What was asked, what came out, and where it came from, all read from the run's files.

# %%
#| export
def table_html(rows: list[dict]) -> str: # HTML
    "Rows as a table."
    import pandas as pd
    return pd.DataFrame(rows).to_html(index=False, border=0, na_rep="–", escape=True)

def results_section(folder: Path) -> str: # HTML
    "The comparison, if the run has one."
    if not (folder/"comparison.csv").exists(): return "<p>This run has not been evaluated.</p>"
    import pandas as pd
    from pneumo_nb.evaluation import comparison_table
    table = comparison_table(pd.read_csv(folder/"comparison.csv"))
    return (f"<h2>Results</h2>{table_html(table.to_dict('records'))}<p>In brackets the 95 % intervals: patients redrawn for the AUROC, "
            'Wilson\'s formula for the others. The chapter on <a href="09_evaluation.html">evaluation</a> says which differences the films support.</p>')

def stages_section(folder: Path) -> str: # HTML
    "What ran, when, how long, with which parameters."
    stages = read_provenance(folder)["stages"]
    rows = [{"stage": name, "seconds": f"{r['seconds']:,.1f}", "peak memory": f"{r['peak_memory_mb']:,} MB" if r["peak_memory_mb"] else "–",
             "parameters": ", ".join(f"{k}={v}" for k, v in r["parameters"].items())} for name, r in stages.items()]
    if not rows: return ""
    last = list(stages.values())[-1]
    notes = "".join(f"<li>{html.escape(name)}: {html.escape(text)}</li>" for name, r in stages.items() for text in r["notes"])
    return (f"<h2>What ran</h2>{table_html(rows)}" + (f"<h3>Notes</h3><ul>{notes}</ul>" if notes else "")
            + f"<p>Code: {html.escape(last['git_commit'])}. Machine: {html.escape(last['machine']['processor'])}, {last['machine']['cores']} cores, "
            + f"{html.escape(last['machine']['system'])}. Packages: " + ", ".join(f"{k} {v}" for k, v in last["versions"].items()) + ".</p>")


# %%
#| export
def index_body(
    folder: Path,
    chapters: list[tuple[str, str, str]], # file name, title, blurb
) -> str: # HTML
    "The first page of a report."
    facts = read_json(folder/"metrics/data.json") if (folder/"metrics/data.json").exists() else {}
    source = {"phantoms": "drawn <strong>phantoms</strong>: these numbers say nothing about real films",
              "folder": f"films from a folder named <code>{html.escape(Path(facts.get('root', '')).name)}</code>"}.get(facts.get("source"), "unknown films")
    links = "".join(f'<li><a href="{name}">{html.escape(text)}</a>: {html.escape(blurb)}</li>' for name, text, blurb in chapters)
    figure = folder/"figures/evaluation_comparison.png"
    picture = f'<p><img src="evaluation_comparison.png" alt="Curves and bars comparing the models; the table above has the numbers."></p>' if figure.exists() else ""
    closing = ("<h2>Conclusion</h2><p>" + html.escape(" ".join(conclusion(folder))) + "</p>") if (folder/"metrics/evaluation.json").exists() else ""
    return (f"<h1>Pneumonia on chest X-rays: run “{html.escape(folder.name)}”</h1><blockquote>A multilayer perceptron, a convolutional and a residual "
            f"network, trained and explained on {source}.</blockquote>{results_section(folder)}{picture}{closing}<h2>Chapters</h2><ol>{links}</ol>{stages_section(folder)}"
            f"<h2>Limits</h2><p>{LIMITS if facts.get('source') == 'folder' else ''}One split and one seed, films squashed to a square, no outside test. "
            "This is a study, not a medical device.</p>")

LIMITS = ("Which films show the same child is inferred from their names. If these are the public films, they show children of one to five years from "
          "one hospital, and the published test films differ from the train films in ways that validation does not feel. ")

def render_report(
    folder: str | Path, # a run directory
) -> Path: # the index page
    "Write `site/index.html` and a page for every executed notebook of the run."
    folder = Path(folder)
    files = [f for s in STAGES.values() if (f := folder/"notebooks"/f"{s['notebook']}.ipynb").exists()]
    if not files: raise StudyError(f"Expected executed notebooks in {folder/'notebooks'}, found none; do `pneumo run` first.")
    bodies = {f"{f.stem}.html": notebook_body(f) for f in files}
    chapters = [("index.html", "Overview")] + [(name, text) for name, (text, _, _) in bodies.items()]
    pages = {name: page(text, body, chapters, name) for name, (text, _, body) in bodies.items()}
    pages["index.html"] = page(f"Run {folder.name}", index_body(folder, [(n, t, b) for n, (t, b, _) in bodies.items()]), chapters, "index.html")
    for name, text in pages.items():
        with atomic_path(folder/"site"/name) as partial: partial.write_text(text, encoding="utf-8")
    if (figure := folder/"figures/evaluation_comparison.png").exists():
        with atomic_path(folder/"site"/figure.name) as partial: partial.write_bytes(figure.read_bytes())
    return folder/"site/index.html"


# %% [markdown]
# ## The conclusion
#
# A few sentences, each made from a number in the run's files.

# %%
#| export
def conclusion(
    folder: Path, # an evaluated run
) -> list[str]: # sentences
    "What the run as a whole shows."
    from pneumo_nb.run import MODEL_TITLES
    facts = read_json(folder/"metrics/evaluation.json")
    rows = sorted(facts["comparison"], key=lambda r: -r["roc_auc"])
    name = lambda model: MODEL_TITLES.get(model, model)
    lines = ["From the highest AUROC to the lowest: " + ", ".join(f"{name(r['model'])} {r['roc_auc']:.3f}" for r in rows) + "."]
    sure = [p for p in facts["pairs"] if p["p_holm"] < .05]
    if facts["pairs"]: lines.append(f"Of {len(facts['pairs'])} pairs of models, {len(sure)} differ by more than chance at the threshold of {facts['threshold']:g} (McNemar, Holm); "
                                    "the order of the others should not be read as a ranking.")
    slowest = max(rows, key=lambda r: r["training_seconds"] or 0)
    lines.append(f"Training took from {min(r['training_seconds'] or 0 for r in rows):,.0f} to {slowest['training_seconds'] or 0:,.0f} seconds ({name(slowest['model'])}).")
    if (folder/"metrics/eda_sizes.json").exists() and not (size := read_json(folder/"metrics/eda_sizes.json"))["constant"] and size["auroc"]:
        lines.append(f"Size and shape of the films alone reach an AUROC of {size['auroc']:.3f} on train and validation films, "
                     + ("the part of a score that needs no lung." if size["low"] > .5 else "which cannot be told from guessing."))
    if facts["judged"] != "test": lines.append("There were no test films: these numbers come from validation films, which also chose the epoch, and are too kind.")
    return lines


# %% [markdown]
# A run with one executed chapter gives two pages that link to each other and to nothing outside:

# %%
with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    test_fail(lambda: render_report(folder), contains="do `pneumo run` first")
    chapter = nb.new_notebook(cells=[nb.new_markdown_cell("# Data\n\n> Which films there are"), nb.new_code_cell("1 + 1")])
    (folder/"notebooks").mkdir(); nbformat.write(chapter, folder/"notebooks/02_data.ipynb")
    index = render_report(folder)
    test_eq(sorted(p.name for p in (folder/"site").iterdir()), ["02_data.html", "index.html"])
    assert "Which films there are" in index.read_text()
    for text in map(Path.read_text, (folder/"site").iterdir()): test_eq(re.findall(r'(?:src|href)="(?:https?:)?//', text), [])

# %% [markdown]
# ## Results for a README
#
# Numbers typed by hand grow stale. `results_markdown` makes the table from a run's files, and `write_between` puts it
# between two markers of a text.

# %%
#| export
MARKERS = "<!-- results: written by `pneumo results RUN --write FILE` -->", "<!-- end of results -->"

def results_markdown(
    folder: Path, # an evaluated run
) -> str: # markdown
    "A run's comparison with what it was made from."
    import pandas as pd
    from pneumo_nb.evaluation import comparison_table
    if not (folder/"comparison.csv").exists(): raise StudyError(f"Expected comparison.csv in {folder}, found none; run the evaluation first.")
    table, provenance = comparison_table(pd.read_csv(folder/"comparison.csv")), read_provenance(folder)
    facts, stages = read_json(folder/"metrics/data.json"), provenance["stages"]
    rows = [table.columns, ["---"] * table.shape[1], *table.to_numpy().tolist()]
    films = "drawn phantoms" if facts["source"] == "phantoms" else f"`{Path(facts['root']).name}`"
    cores = stages["evaluation"]["machine"]["cores"]
    commits = ", ".join(dict.fromkeys(r["git_commit"][:10] for r in stages.values()))
    return ("\n".join("| " + " | ".join(map(str, r)) + " |" for r in rows) + f"\n\nRun `{folder.name}` on {films}, films of "
            f"{stages['preprocessing']['parameters']['image_size']} pixels, {cores} cores, commit {commits}. In brackets 95 % intervals."
            + "".join(f" {name}: {text}" for name, r in stages.items() for text in r["notes"]))

def write_between(
    file: Path, # a Markdown file or percent script
    text: str,
    markers: tuple[str, str] = MARKERS,
) -> Path: # `file`
    "Replace what stands between two markers."
    before, found, rest = file.read_text(encoding="utf-8").partition(markers[0])
    _, end, after = rest.partition(markers[1])
    if not (found and end): raise StudyError(f"Expected the lines {markers[0]!r} and {markers[1]!r} in {file}, found no such pair; add them where the table shall go.")
    prefix = "# " if file.suffix == ".py" else ""
    block = "".join(f"{prefix}{line}".rstrip() + "\n" for line in ["", *text.splitlines(), ""])
    with atomic_path(file) as partial: partial.write_text(f"{before}{found}\n{block}{prefix}{end}{after}", encoding="utf-8")
    return file


# %%
with tempfile.TemporaryDirectory() as folder:
    readme = Path(folder)/"README.md"
    readme.write_text(f"before\n{MARKERS[0]}\nold\n{MARKERS[1]}\nafter\n")
    test_eq(write_between(readme, "| new |").read_text(), f"before\n{MARKERS[0]}\n\n| new |\n\n{MARKERS[1]}\nafter\n")
    test_eq(write_between(readme, "| new |").read_text().count("| new |"), 1)
    readme.write_text("no markers")
    test_fail(lambda: write_between(readme, "x"), contains="add them")
