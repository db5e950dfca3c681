"""The report of a real run, opened in a real browser: nothing broken, nothing fetched, numbers that agree."""
import base64, functools, http.server, importlib, json, os, re, shutil, subprocess, sys, threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup

from pneumo_nb.docs import render_docs
from pneumo_nb.measures import classification_metrics
from pneumo_nb.pages import front_matter, render, stage_pages
from pneumo_nb.report import report_pages
from pneumo_nb.run import StudyError, models, stages
from pneumo_nb.style import model_title

ROOT, PNEUMO = Path(__file__).parents[1], str(Path(sys.executable).with_name("pneumo"))
SMALL = [word for value in (
    "data.phantom_train=80", "data.phantom_test=24", "common.image_size=48", "mlp.epochs=1", "cnn.epochs=2",
    "resnet.frozen_epochs=1", "resnet.finetune_epochs=1", "compact.epochs=2", "compact.widths=[4, 8]",
    "compact.seeds=2", "compact.only_folds=[0]", "transfer.refits=0", "transfer.epochs=1",
    "transfer.head_epochs=2", "shift.folds=2", "evaluation.draws=100", "xai.patch_size=12", "xai.stride=12",
    "xai.pointing_films=4", "xai.measured_films=2", "xai.rise_masks=60", "xai.films_shown=2")
    for word in ("-p", value)]
CHAPTERS = [f"{name}.html" for name in stages()]
PAGES = ["index.html", *CHAPTERS, "operating_point.html", "methods.html", "checklists.html", "cards.html"]

@pytest.fixture(scope="session", autouse=True)
def without_quarto(tmp_path_factory):
    "These tests are of the pages that nbconvert renders, also where Quarto is installed."
    program = tmp_path_factory.mktemp("bin")/"quarto"
    program.write_text("#!/bin/sh\necho 1.0.0\n")
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        yield

@pytest.fixture(scope="session")
def run(tmp_path_factory, without_quarto):
    "A quick run on phantoms, with its report, and a copy of it with another parameter."
    home = tmp_path_factory.mktemp("study")
    env = os.environ | dict(PNEUMO_CACHE=str(home/"cache"))
    call = functools.partial(subprocess.run, cwd=home, env=env, capture_output=True, text=True)
    done = call([PNEUMO, "run", "--run", "first", *SMALL])
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copytree(home/"runs/first", home/"runs/second")
    provenance = json.loads((home/"runs/second/provenance.json").read_text())
    provenance["stages"]["cnn"]["parameters"]["epochs"] = 9
    (home/"runs/second/provenance.json").write_text(json.dumps(provenance))
    done = call([PNEUMO, "report", "first"])
    assert done.returncode == 0 and "Rendered by " in done.stdout, done.stdout + done.stderr
    return home/"runs/first"

@pytest.fixture(scope="session")
def staging(run, tmp_path_factory):
    "What either renderer is given."
    folder = tmp_path_factory.mktemp("staging")
    pages, sources = report_pages(run, folder)
    stage_pages(folder, ROOT, "Run first", pages, sources)
    return folder

@pytest.fixture(scope="session")
def docs(run, tmp_path_factory):
    "The documentation, from the notebooks of the run and, for brevity, the others as they are."
    executed = {f.name: f for f in (run/"notebooks").glob("*.ipynb")}
    chapters = [executed.get(f.name, f) for f in sorted((ROOT/"nbs").glob("[0-9]*.ipynb"))]
    index, by = render_docs(chapters, tmp_path_factory.mktemp("documentation")/"site")
    assert "nbconvert" in by
    return index.parent

@pytest.fixture(params=["report", "documentation"])
def site(request, run):
    "Either site."
    return run/"site" if request.param == "report" else request.getfixturevalue("docs")

@functools.cache
def soups(site):
    return {f.name: BeautifulSoup(f.read_text(), "html.parser") for f in sorted(site.glob("*.html"))}

NOT_FOR_PEOPLE = re.compile(
    r"\b(nan|NaN|NaT|True|False|auroc|roc_auc)\b|^None$|^(swapped|bands)$|\(s\)"
    r"|(?<![./\w])[a-z]+_[a-z_]+(?![./\w])"
    r"|\b1 (films|patients|times|looks|networks|models|runs)\b")

def test_sentences_of_a_report_are_for_people(run):
    "No raw keys, values of Python or wrong plurals, but for parameters and names of files."
    for page in [*(run/"site").glob("*.html"), run.parent/"index.html"]:
        main = BeautifulSoup(page.read_text(), "html.parser").main
        for part in main.select("code, pre, script, style, td.words, .parameter"): part.decompose()
        parts = main.find_all(["p", "li", "th", "td", "figcaption", "caption", "h1", "h2", "h3", "dt", "dd"])
        texts = [" ".join(part.get_text(" ").split()).replace("pneumo_nb", "") for part in parts]
        assert [text for text in texts if NOT_FOR_PEOPLE.search(text)] == [], page.name

# ---- what a renderer is given

def test_both_renderers_get_and_name_the_same_pages(run, staging):
    config = yaml.safe_load((staging/"_quarto.yml").read_text())
    order = yaml.safe_load((staging/"sidebar.yml").read_text())["website"]["sidebar"]["contents"]
    named = [front_matter(nbformat.read(staging/name, as_version=4))["output-file"] for name in order]
    assert named == PAGES and sorted(f.name for f in staging.glob("*.ipynb")) == sorted(order)
    assert sorted(f.name for f in (run/"site").glob("*.html")) == sorted(PAGES)
    assert config["project"]["render"] == ["/*.ipynb"]
    assert config["metadata-files"] == ["nbdev.yml", "sidebar.yml"]
    written = "".join(f.read_text() for f in staging.glob("*.ipynb")).replace('\\"', '"')
    wanted = re.findall(r"assets/[\w.]+", (staging/"_quarto.yml").read_text())
    wanted += re.findall(r'(?:src|href)="(assets/[^"]+)', written)
    assert wanted and all((staging/name).exists() for name in wanted)

def test_staged_pages_are_fit_for_quarto(staging):
    "No directive for tools, no fence, no HTML output: for that Quarto would fetch scripts from another host."
    for file in staging.glob("*.ipynb"):
        for cell in json.loads(file.read_text())["cells"]:
            text = "".join(cell["source"])
            assert not re.search(r"^#\|(?!\s*[\w-]+:)", text, re.M) and ":::" not in text, (file.name, text)
            assert not any("text/html" in o.get("data", {}) for o in cell.get("outputs", [])), file.name
    assert "//" not in re.sub("#.*", "", (staging/"_quarto.yml").read_text())

QUARTO = """#!/bin/sh
[ "$1" = --version ] && { echo ${VERSION:-1.8.27}; exit; }
[ "$1" = render ] && [ -e "$2/_quarto.yml" ] && mkdir "$2/_docs" && echo made > "$2/_docs/index.html"
"""
BROKEN_QUARTO = '#!/bin/sh\n[ "$1" = --version ] && { echo 1.8.27; exit; }\necho "no pandoc" >&2; exit 1\n'

def test_quarto_is_called_where_there_is_one(staging, tmp_path, monkeypatch):
    "The call is one line; a stand-in answers it, since Quarto itself cannot be had everywhere."
    shutil.copytree(staging, tmp_path/"staging")
    program = tmp_path/"bin/quarto"
    program.parent.mkdir()
    program.write_text(QUARTO)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path/"site").mkdir()
    (tmp_path/"site/old.html").write_text("old")
    assert render(tmp_path/"staging", tmp_path/"site") .startswith("Quarto 1.8.27, whose search needs")
    assert [f.name for f in (tmp_path/"site").iterdir()] == ["index.html"]
    monkeypatch.setenv("VERSION", "1.3.450")
    assert "too old (1.3.450; 1.4 is needed)" in render(tmp_path/"staging", tmp_path/"site")
    assert (tmp_path/"site/methods.html").exists()
    program.write_text(BROKEN_QUARTO)
    with pytest.raises(StudyError, match="no pandoc"): render(tmp_path/"staging", tmp_path/"site")
    assert (tmp_path/"site/methods.html").exists()

# ---- what a reader is given

def test_no_link_anchor_or_image_is_broken(site):
    pages = soups(site)
    for name, soup in pages.items():
        ids = [e["id"] for e in soup.find_all(id=True)]
        assert len(ids) == len(set(ids)), (name, [i for i in ids if ids.count(i) > 1])
        addressed = [(e, k) for k in ("href", "src", "srcset") for e in soup.find_all(attrs={k: True})]
        for element, key in addressed:
            target = urlsplit(element[key])
            if target.scheme == "data": continue
            outside_is_fine = element.name == "a" and not target.netloc.endswith(".example")
            assert not target.netloc or outside_is_fine, (name, element)
            if target.netloc: continue
            page = unquote(target.path) or name
            assert (site/page).exists(), (name, element)
            if target.fragment and page.endswith(".html"):
                assert pages[page].find(id=unquote(target.fragment)), (name, element)

def test_every_image_says_what_is_seen_and_every_figure_is_numbered_and_referred_to(run):
    for name, soup in soups(run/"site").items():
        images = soup.find_all("img")
        alts = [image.get("alt", "") for image in images]
        assert all(image.get("width") and image.get("height") for image in images), name   # nothing jumps
        assert all(len(alt) > 15 and alt != "A figure without a description." for alt in alts), name
        captions = [c.get_text() for c in soup.find_all("figcaption")] if name in CHAPTERS else []
        numbers = [[f"Figure {CHAPTERS.index(name) + 1}", str(n)] for n in range(1, len(captions) + 1)] \
            if captions else []
        assert [c.split(".")[:2] for c in captions] == numbers
        for figure in soup.find_all("figure", id=True):
            number = re.match(r"Figure [\dbS.]+\d", figure.figcaption.get_text())[0]
            link = soup.find("a", href=f"#{figure['id']}", string=number)
            assert link, f"{name}: no text refers to {figure['id']}"

def test_the_first_screen_says_what_came_out(run):
    "A sentence, a film with its map, ROC curves, four numbers; and the list of runs shows the same film."
    index = soups(run/"site")["index.html"]
    headline = index.find(class_="headline").text
    assert re.match(r"On 24 phantoms the .+ tells pneumonia from normal with AUROC [01]\.\d{3} \(", headline)
    hero = index.find(class_="hero")
    assert [Path(image["src"]).stem for image in hero.find_all("img")] == ["xai_first", "evaluation_roc"]
    assert len(hero.find_all("dd")) == 4 and hero.find("a", href="../../index.html")
    runs = BeautifulSoup((run.parent/"index.html").read_text(), "html.parser")
    card = runs.find("a", href="first/site/index.html").find_parent(class_="card")
    assert "drawn phantoms" in card.text and card.img["src"] == "first/site/figures/xai_first.webp"

def test_a_report_shows_what_came_out_and_no_definitions(run):
    for page in CHAPTERS:
        for fold in soups(run/"site")[page].find_all("details", class_="code"):
            assert not re.search(r"^(def|class) ", fold.text, re.M), page

def test_every_model_has_its_figures(run):
    "They follow from the registry, in the explanations."
    trained = [file.stem for file in (run/"predictions").glob("*.csv")]
    assert set(models()) - set(trained) == {"transfer_ensemble"}   # of one network there is no ensemble
    for name in trained:
        assert soups(run/"site")["xai.html"].find(id=f"fig-xai_{name}"), name

def test_chapters_stand_in_the_order_of_the_study(run):
    for name, soup in soups(run/"site").items():
        assert [a["href"] for a in soup.select("nav.chapters a")] == PAGES
        assert soup.select_one("nav.chapters a[aria-current]")["href"] == name
    turn = [a["href"] for a in soups(run/"site")["cnn.html"].select(".page-turn a")]
    assert turn == ["mlp.html", "resnet.html"]

def test_numbers_on_the_landing_page_are_those_of_the_files(run):
    text = soups(run/"site")["index.html"].get_text()
    comparison = pd.read_csv(run/"comparison.csv")
    shown = [*comparison.roc_auc, *comparison.sensitivity, *comparison.specificity]
    assert all(f"{value:.3f}" in text for value in shown)
    assert json.loads((run/"provenance.json").read_text())["data_fingerprint"] in text
    assert "random weights" in text and "learned on photographs" in text

def test_methods_say_how_each_family_was_made(run):
    text = soups(run/"site")["methods.html"].get_text()
    assert all(words in text for words in ("48 pixels", "Adam", "AdamW", "naming series"))

def test_pages_are_light(run):
    def weight(soup):
        loaded = [e.get("src") or e.get("href") for e in soup.find_all(["img", "script", "link"])]
        files = [urlsplit(address).path for address in loaded if address and not address.startswith("data:")]
        return sum((run/"site"/file).stat().st_size for file in files)
    for name, soup in soups(run/"site").items():
        assert weight(soup) + (run/"site"/name).stat().st_size < 2.5e6, name
        assert all(s.get("defer") is not None for s in soup.head.find_all("script", src=True)), name

def test_a_report_without_notebooks_is_refused_in_one_sentence(tmp_path):
    (tmp_path/"runs/empty").mkdir(parents=True)
    (tmp_path/"runs/empty/provenance.json").write_text('{"stages": {}}')
    done = subprocess.run([PNEUMO, "report", "empty"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "do `pneumo run` first" in done.stderr and done.stderr.count("\n") == 1
    assert [f.name for f in (tmp_path/"runs/empty").iterdir()] == ["provenance.json"]
    assert not (tmp_path/"runs/index.html").exists()

def test_documentation_has_the_readme_and_every_exported_symbol(docs):
    pages = soups(docs)
    assert "Two commands" in pages["index.html"].get_text()
    for file in sorted((ROOT/"nbs").glob("[0-9]*.ipynb")):
        name = file.stem.partition("_")[2]
        shown = [h.get_text().strip("¶ ") for h in pages[f"{name}.html"].find_all(["h2", "h3", "h4"])]
        if not (ROOT/f"pneumo_nb/{name}.py").exists(): continue   # prose alone
        module = importlib.import_module(f"pneumo_nb.{name}")
        exported = {n: getattr(module, n) for n in module.__all__}
        here = lambda value: callable(value) and getattr(value, "__module__", "") == module.__name__
        wanted = [n for n, value in exported.items() if here(value) or hasattr(value, "callback")]
        assert [n for n in wanted if n not in shown] == [], file.stem

# ---- in a browser

OF_DOCS = ["index.html", "evaluation.html", "cli.html", "training.html", "findings.html"]
ALL = [*PAGES, "runs", *(f"documentation/{page}" for page in OF_DOCS)]
AXE = ROOT/".test-tools/node_modules/axe-core/axe.min.js"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage", "--hide-scrollbars")

def address(run, docs, page):
    if page == "runs": return (run.parent/"index.html").as_uri()
    site, name = (docs, page.partition("/")[2]) if page.startswith("documentation/") else (run/"site", page)
    return (site/name).as_uri()

def browser_program():
    return next((p for p in map(shutil.which, ("chromium", "google-chrome", "chrome")) if p), None)

needs_browser = pytest.mark.skipif(not (browser_program() and shutil.which("chromedriver")),
                                   reason="no chromium and chromedriver on the PATH")

@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    options = webdriver.ChromeOptions()
    options.binary_location = browser_program()
    for word in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"): options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    driver.set_window_size(1300, 900)
    yield driver
    driver.quit()

LOADED = """const done = arguments[0], soon = () => setTimeout(done, 50);
document.readyState === 'complete' ? soon() : addEventListener('load', soon)"""

def opened(browser, url):
    "Open a page; what it asked for, and what it complained about."
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(url)
    browser.execute_async_script(LOADED)
    events = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    failed = [e["params"] for e in events if e["method"] == "Network.loadingFailed"]
    complaints = [m["message"] for m in browser.get_log("browser") if m["level"] in ("SEVERE", "WARNING")]
    return asked, failed, complaints

def width_on_a_phone(browser):
    "How wide the page that is open comes out on a screen of 390 pixels."
    phone = dict(width=390, height=800, deviceScaleFactor=2, mobile=True)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try: return browser.execute_script("return document.documentElement.scrollWidth")
    finally: browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

UNFOLD = """const field = document.querySelector('#search');
if (field) { field.value = 'film'; field.dispatchEvent(new Event('input')) }
document.querySelectorAll('details').forEach(d => { d.open = true })"""
RUN_AXE = "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(done)"

CUT = """return [...document.querySelectorAll('main .scroll, main figure > a')].filter(
  e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText.slice(0, 60) || e.href)"""
PAST_PAPER = """return [...document.querySelectorAll('main img, main .scroll')].filter(
  e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.innerText || e.src)"""

def serious_violations(browser, scheme):
    "What axe finds on the page that is open, in a colour scheme."
    feature = dict(name="prefers-color-scheme", value=scheme)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dict(features=[feature]))
    violations = browser.execute_async_script(RUN_AXE)["violations"]
    serious = [v for v in violations if v["impact"] in ("serious", "critical")]
    return [(v["id"], [n["html"][:200] for n in v["nodes"]][:3]) for v in serious]

@needs_browser
@pytest.mark.parametrize("page", ALL)
def test_a_page_opens_without_complaint_fits_a_phone_and_is_accessible(run, docs, browser, page):
    "Each page is opened once: no outside request, no sideways scroll, nothing serious in light and dark."
    asked, failed, complaints = opened(browser, address(run, docs, page))
    assert asked and all(url.startswith(("file:", "data:")) for url in asked), asked
    assert failed == [] and complaints == []
    if not page.startswith(("runs", "documentation")): assert browser.execute_script(CUT) == []
    assert width_on_a_phone(browser) <= 390
    if not AXE.exists(): pytest.skip("axe-core is not in .test-tools; opening and width were tested")
    browser.execute_script(UNFOLD)
    browser.execute_script(AXE.read_text())
    for scheme in ("dark", "light"): assert serious_violations(browser, scheme) == [], scheme

PUT = """const e = document.querySelector(arguments[0]); e.value = arguments[1];
e.dispatchEvent(new Event('input'))"""
RATES = dict(sensitivity="recall_pneumonia", specificity="recall_normal", accuracy="accuracy",
             ppv="precision_pneumonia", npv="precision_normal")

@needs_browser
def test_the_operating_point_counts_as_the_package_does(run, browser):
    from selenium.webdriver.common.by import By
    opened(browser, (run/"site/operating_point.html").as_uri())
    put = lambda name, value: browser.execute_script(PUT, f"#op-{name}", str(value))
    read = lambda name: browser.find_element(By.ID, f"op-{name}").text
    percent = lambda value: "undefined" if value != value else f"{100 * value:.2f} %"
    shown, files = [], sorted((run/"predictions").glob("*.csv"))
    for file in files:
        table = pd.read_csv(file).query("split == 'test'")
        for threshold in (0, .25, float(table.probability.median()), .5, .9, 1):
            put("model", file.stem), put("threshold", threshold)
            metrics = classification_metrics(table.label, table.probability, threshold)
            counts = [int(read(k)) for k in ("tn", "fp", "fn", "tp")]
            assert counts == metrics["confusion_matrix"].ravel().tolist()
            for key, name in RATES.items(): assert read(key) == percent(metrics[name]), (file.stem, key)
            shown.append(browser.find_element(By.CSS_SELECTOR, "#op-roc svg").get_attribute("aria-label"))
    assert len(set(shown)) > len(files)
    put("threshold", .5), put("prevalence", 1)
    metrics = classification_metrics(table.label, table.probability, .5)
    sick, well = .01 * metrics["recall_pneumonia"], .99 * (1 - metrics["recall_normal"])
    assert read("ppv") == (percent(sick / (sick + well)) if sick + well else "undefined")

def test_the_numbers_stand_before_any_script_runs(run):
    soup = soups(run/"site")["operating_point.html"]
    best = soup.find(id="op-model").find("option")["value"]   # the first one
    table = pd.read_csv(run/f"predictions/{best}.csv").query("split == 'test'")
    counts = classification_metrics(table.label, table.probability, .5)["confusion_matrix"].ravel().tolist()
    assert [int(soup.find(id=f"op-{k}").get_text()) for k in ("tn", "fp", "fn", "tp")] == counts

def click_heading(browser, heading):
    browser.execute_script("arguments[0].click()", heading)
    browser.execute_async_script("setTimeout(arguments[0], 60)")

@needs_browser
def test_runs_side_by_side_sort_by_metric_and_parameter(run, browser):
    from selenium.webdriver.common.by import By
    opened(browser, (run.parent/"index.html").as_uri())
    find = lambda selector: browser.find_elements(By.CSS_SELECTOR, selector)
    headings = [h.text.strip() for h in find("table thead th")]
    assert "cnn.epochs" in headings and "mlp.epochs" not in headings
    models = len(pd.read_csv(run/"comparison.csv"))
    assert len(browser.find_elements(By.LINK_TEXT, "first")) == models + 1   # a row each, and the run's card
    for name in ("AUROC", "cnn.epochs"):
        column = headings.index(name)
        heading = find("table thead th")[column]
        for _ in range(2):
            click_heading(browser, heading)
            values = [float(r.find_elements(By.TAG_NAME, "td")[column].text) for r in find("table tbody tr")]
            falling = heading.get_attribute("aria-sort") == "descending"
            assert len(set(values)) > 1 and values == sorted(values, reverse=falling), (name, values)

@needs_browser
def test_results_sort_by_number_though_they_are_written_for_reading(run, browser):
    from selenium.webdriver.common.by import By
    opened(browser, (run/"site/index.html").as_uri())
    table = browser.find_element(By.CSS_SELECTOR, "table.sortable")
    headings = table.find_elements(By.CSS_SELECTOR, "thead th")
    names, compared = [h.text.strip() for h in headings], pd.read_csv(run/"comparison.csv")
    titles = compared.model.map(model_title)
    for name, key, digits in (("AUROC", "roc_auc", 3), ("specificity", "specificity", 3)):
        click_heading(browser, headings[names.index(name)])
        rows = browser.find_elements(By.CSS_SELECTOR, "table.sortable tbody tr")
        shown = [r.find_elements(By.TAG_NAME, "td")[0].text.partition(" (")[0] for r in rows]
        assert sorted(shown) == sorted(titles)
        values = compared[key].set_axis(titles)[shown].round(digits)  # as shown: ties stand either way
        assert values.is_monotonic_decreasing, (name, values.to_dict())

class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words): pass

@needs_browser
def test_search_and_code_button_work_below_a_sub_path(run, browser):
    from selenium.webdriver.common.by import By
    folder = functools.partial(Quiet, directory=run.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = f"http://127.0.0.1:{server.server_port}/first/site/evaluation.html"
        _, failed, complaints = opened(browser, page)
        assert failed == [] and complaints == []
        browser.find_element(By.ID, "search").send_keys("pointing game")
        links = browser.find_elements(By.CSS_SELECTOR, "#found a")
        assert links and any("xai.html" in a.get_attribute("href") for a in links)
        assert not browser.execute_script("return document.querySelector('details.code').open")
        browser.find_element(By.CSS_SELECTOR, "button.codes").click()
        every = "return [...document.querySelectorAll('details.code')].every(d => d.open)"
        assert browser.execute_script(every)
        server.shutdown()

@needs_browser
def test_a_page_prints(run, browser):
    opened(browser, (run/"site/evaluation.html").as_uri())
    pdf = browser.execute_cdp_cmd("Page.printToPDF", dict(printBackground=True))["data"]
    assert base64.b64decode(pdf).startswith(b"%PDF") and len(pdf) > 70_000
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dict(media="print"))
    paper = dict(width=720, height=1000, deviceScaleFactor=1, mobile=False)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", paper)
    try: assert browser.execute_script(PAST_PAPER) == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dict(media=""))
