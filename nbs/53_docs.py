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
# # The documentation
#
# > Chapters executed on phantoms, an entry for every public symbol, and the README's pictures

# %%
#| default_exp docs

# %%
#| export
import os, re, shutil
from contextlib import contextmanager
from pathlib import Path

from pneumo_nb.run import StudyError, atomic_path, checkout_folder, project_folder
from pneumo_nb.pages import drop_chatter, finish_pages, render, stage_pages, staging_folder
from pneumo_nb.report import offer_notebook

# %%
#| hide
import tempfile
import nbformat.v4 as nb
from fastcore.test import test_eq, test_fail


# %% [markdown]
# The documentation shows all three floors. It has the chapters of a run, and the instruments and tools, which
# no run executes. In place of exported code stands the entry of each exported symbol, as nbdev makes it. It
# is staged from notebooks executed on phantoms, so its figures show no child.
#
# ## As nbdev documents

# %%
#| export
@contextmanager
def _working_in(folder: Path):
    "Do something in another working folder: nbdev looks for settings.ini from where it is called."
    before = os.getcwd()
    os.chdir(folder)
    try: yield
    finally: os.chdir(before)


# %%
#| export
def _documented(
    notebooks: list[Path], # executed, and index.ipynb
    project: Path,         # the checkout
) -> dict: # file name → page, in order
    "Notebooks as nbdev prepares them: exported code gives way to what each symbol takes and returns."
    import nbformat
    from nbdev.serve import proc_nbs
    with staging_folder() as folder, _working_in(project):
        for file in notebooks: shutil.copy(file, folder/file.name)
        cache = proc_nbs(folder, force=True, n_workers=2)
        pages = {file.name: nbformat.read(cache/file.name, as_version=4) for file in notebooks}
    for name, page in pages.items():
        drop_chatter(page)
        _mend_links(page)
        if name != "index.ipynb": offer_notebook(page, name)
    return pages


# %% [markdown]
# Links that nbdev makes to its own host lead to the page beside. Those to source lines go while settings.ini
# names no repository, and inside code there are none.

# %%
#| export
def _mend_links(page): # nbformat notebook, changed in place
    "Mend the links of one page."
    for cell in page.cells:
        if cell.cell_type == "markdown": cell.source = _mended(cell.source)
        datas = [output.data for output in cell.get("outputs", []) if "data" in output]
        for data in (d for d in datas if "text/markdown" in d):
            data["text/markdown"] = _mended("".join(data["text/markdown"]))


# %%
#| export
def _mended(text: str) -> str: # markdown
    "A text with links that work where the site lies."
    from nbdev.config import get_config
    settings = get_config(path=project_folder())
    host = re.escape(settings.doc_host + settings.doc_baseurl)
    text = re.sub(rf"\]\({host}/(\w+\.html)[^)]*\)", r"](\1)", text)
    if "github.com" not in settings.git_url:
        text = re.sub(r'<a[^>]*>source</a>|\[source\]\([^)]*\)(\{[^}]*\})?', "", text)
    text = re.sub(r"(\]\([^)]*\))\{target=[^}]*\}", r"\1", text)
    plain_code = lambda code: re.sub(r"\[(`[^`]+`)\]\([^)]*\)", r"\1", code[0])
    return re.sub(r"^```.*?^```", plain_code, text, flags=re.S | re.M)


# %%
linked = "```\n[`run`](run.html)\n```\n\n[`run`](run.html){target=_blank}"
page = nb.new_notebook(cells=[nb.new_markdown_cell(linked)])
_mend_links(page)
test_eq(page.cells[0].source, "```\n`run`\n```\n\n[`run`](run.html)")


# %% [markdown]
# ## The site
#
# A chapter's number in the documentation is that of its notebook.

# %%
#| export
def render_docs(
    notebooks: list[Path], # executed, in order
    site: Path,
) -> tuple[Path, str]: # the first page, what rendered it
    "Make the documentation: README, chapters, every exported symbol."
    project = checkout_folder()
    with staging_folder() as staging:
        pages = _documented([project/"nbs/index.ipynb", *notebooks], project)
        numbered = {name[:2]: page for name, page in pages.items() if name[:2].isdecimal()}
        finish_pages({number.lstrip("0") or "0": page for number, page in numbered.items()}, staging)
        sources = {file.name: file for file in notebooks}
        stage_pages(staging, project, "pneumo_nb, documentation", pages, sources)
        by = render(staging, site)
    return site/"index.html", by


# %% [markdown]
# ## The README's pictures
#
# The README shows the first screen of a report, and one film with its explanation. Both are written from the
# report of a run on phantoms, so that they never fall behind it.

# %%
#| export
_WIDTH, _HEIGHT = 1200, 1420  # of the browser's window, pixels
_CHROMIUM = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--hide-scrollbars", "--force-device-scale-factor=1")


# %%
#| export
def _screenshot(page: Path) -> bytes: # PNG
    "The first screen of a page, as Chromium shows it."
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
    options = webdriver.ChromeOptions()
    for word in (*_CHROMIUM, f"--window-size={_WIDTH},{_HEIGHT}"): options.add_argument(word)
    try: browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    except WebDriverException as e: raise StudyError(
        f"Expected Chromium and its driver on the PATH, found none that starts ({e.msg}); install chromium "
        "and chromium-driver.") from None
    try:
        browser.get(page.resolve().as_uri())
        return browser.get_screenshot_as_png()
    finally: browser.quit()


# %%
#| export
def _write_webp(picture, file: Path, width: int): # `picture`: PIL image
    "Write a small WebP file."
    small = picture.convert("RGB").resize((width, round(picture.height * width / picture.width)))
    with atomic_path(file) as partial: small.save(partial, "WEBP", quality=80, method=6)


# %%
#| export
def readme_pictures(
    folder: Path, # a run on phantoms
) -> list[Path]: # the files written
    "Write `nbs/assets/readme_report.webp` and `readme_film.webp` from a run's report."
    import io
    from PIL import Image
    site = folder/"site"
    landing = site/"index.html"
    text = landing.read_text(encoding="utf-8") if landing.exists() else ""
    explained = re.search(r"figures/(xai_\w+)\.webp", text)
    if not explained: raise StudyError(f"Expected a report with an explained film in {site}, found none; "
                                       f"do `pneumo report {folder.name}` first.")
    assets = checkout_folder()/"nbs/assets"
    files = [assets/"readme_report.webp", assets/"readme_film.webp"]
    _write_webp(Image.open(io.BytesIO(_screenshot(landing))), files[0], 900)
    _write_webp(Image.open(site/"figures"/f"{explained[1]}.webp"), files[1], 900)
    return files


# %%
with tempfile.TemporaryDirectory() as folder:
    test_fail(lambda: readme_pictures(Path(folder)), contains="found none; do `pneumo report")
