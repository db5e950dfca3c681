"""The page of `pneumo serve`: the detector's own answers, one sentence for what is refused, nothing kept."""
import base64, io, json, logging, re, signal, socket, subprocess, tempfile, threading, time

import cv2
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from conftest import PNEUMO, variables
from pneumo_nb.detector import Detector
from pneumo_nb.films import read_film
from pneumo_nb.phantom import draw_anatomy, draw_film
from pneumo_nb.run import rng_for
from pneumo_nb.serve import Limits, bound_socket, make_app
from test_site import AXE, browser, needs_browser, opened, serious_violations, width_on_a_phone

PATIENT = "Doe^Jane"

def dicom(film):
    "A film as a DICOM file that names its patient."
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation as kind, ExplicitVRLittleEndian
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, kind
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    data.PatientName, data.PatientID, data.PatientBirthDate = PATIENT, "4711-0815", "20200101"
    data.Modality, data.BodyPartExamined, data.ViewPosition = "DX", "CHEST", "PA"
    data.Rows, data.Columns = film.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PixelData = film.tobytes() + b"\0" * (film.size % 2)
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()

def drawn(kind, number):
    return draw_film(draw_anatomy(rng_for(5, kind, number)), kind, rng_for(5, kind, number, 1))[0]

def encoded(film, ending): return cv2.imencode(ending, film)[1].tobytes()

FILMS = {kind: drawn(kind, 1) for kind in ("normal", "bacteria")}
SICK = encoded(FILMS["bacteria"], ".png")
FILES = {f"film{ending}": encoded(FILMS["bacteria"], ending) for ending in (".png", ".tiff", ".jpeg")}
FILES |= {"normal.png": encoded(FILMS["normal"], ".png"), "film.dcm": dicom(FILMS["bacteria"])}
def claims(png, side):
    "A PNG whose header says that it is as wide and as high as that."
    return png[:16] + side.to_bytes(4, "big") * 2 + png[24:]

COLUMNS = ["file", "probability", "low", "high", "call", "conformal", "flags"]

@pytest.fixture(scope="module")
def detector(bundle): return Detector.load(bundle)

def client_of(detector, **more): return TestClient(make_app(detector, **more), base_url="http://localhost")

@pytest.fixture(scope="module")
def client(detector):
    with client_of(detector) as client: yield client

def sent(client, files, path="/api/predict", field="films", **headers):
    return client.post(path, files=[(field, pair) for pair in dict(files).items()], headers=headers)

# ---- answers

def test_answers_are_the_detectors_own_for_every_format(client, detector, tmp_path):
    answer = sent(client, FILES).json()
    assert answer["detector"] == detector.digest and answer["statement"]
    for name, content in FILES.items(): (tmp_path/name).write_bytes(content)
    expected = detector.predict([str(tmp_path/name) for name in FILES])
    assert [film["file"] for film in answer["films"]] == list(FILES)
    for film, row in zip(answer["films"], expected.to_dict("records")):
        shown = [film[name] for name in ("probability", "low", "high")]
        assert np.allclose(shown, [row[name] for name in ("probability", "low", "high")], atol=1e-6)
        assert [film["call"], film["conformal"]] == [row["call"], row["conformal"]]
        assert "; ".join(film["flags"]) == row["flags"]
        assert (film["height"], film["width"]) == read_film(tmp_path/film["file"]).shape

def test_the_call_is_that_of_the_rule(client, detector):
    calls = {}
    for rule, threshold in detector.card["thresholds"].items():
        answer = sent(client, FILES, f"/api/predict?rule={rule}").json()
        assert answer["threshold"] == threshold
        calls = {film["probability"] >= threshold: film["call"] for film in answer["films"]} | calls
    assert calls.items() <= {True: "pneumonia", False: "normal"}.items()

def test_a_map_is_the_detectors_own(client, detector):
    film = {"film.png": SICK}
    map_of = sent(client, film, "/api/explain?form=npy", "film")
    expected = detector.explain(FILMS["bacteria"], method="occlusion")
    assert np.allclose(np.load(io.BytesIO(map_of.content)), expected, atol=1e-6)
    shown = sent(client, film, "/api/explain", "film").json()
    assert shown["least"] == pytest.approx(expected.min()) and shown["most"] == pytest.approx(expected.max())
    assert shown["map"].startswith("data:image/png;base64,") and shown["red"]

def test_the_schema_names_what_is_sent_and_answered(client):
    schema = client.get("/openapi.json").json()
    asked = schema["paths"]["/api/predict"]["post"]
    assert "multipart/form-data" in asked["requestBody"]["content"]
    assert {"200", "401", "413", "415", "422", "503"} <= set(asked["responses"])
    assert set(COLUMNS) <= set(schema["components"]["schemas"]["FilmAnswer"]["properties"])
    assert client.get("/docs").status_code == 404   # which would load scripts from elsewhere

def test_every_answer_forbids_the_page_to_load_from_elsewhere(client):
    for path in ("/", "/healthz", "/assets/serve.js", "/api/card", "/assets/no.js", "/no"):
        answer = client.get(path)
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert answer.headers["cache-control"] == "no-store"
    page = client.get("/").text
    assert "http" not in page.replace('charset="utf-8"', "") and "<style" not in page
    assert all(client.get(f"/{name}").status_code == 200 for name in re.findall(r'assets/[\w.]+', page))

# ---- what is refused

REFUSED = {
    "no film": ({"page.dcm": b"<html><body>"}, 415), "nothing": ({"none.png": b""}, 422),
    "cut short": ({"half.png": SICK[:len(SICK) // 2]}, 422),
    "too many": ({f"{n}.png": SICK for n in range(17)}, 413),
    "many pixels": ({"wide.png": claims(SICK, 60_000)}, 422),
    "cut short DICOM": ({"half.dcm": FILES["film.dcm"][:2000]}, 422),
    "one of two": ({"film.png": SICK, "/home/jane/page.png": b"<html>"}, 415)}

@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_in_one_sentence(client, name):
    files, status = REFUSED[name]
    answer = sent(client, files)
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert detail.startswith("Expected ") and detail.endswith(".") and detail.count("\n") == 0
    assert "/" not in detail and "jane" not in detail

def test_other_requests_are_refused_by_status_and_sentence(client):
    form = {"content-type": "multipart/form-data; boundary=x"}
    answers = {
        415: client.post("/api/predict", json=dict(films=[])),
        422: client.post("/api/predict", content=b"--x\r\nno form", headers=form)}
    for status, answer in answers.items():
        assert answer.status_code == status
        assert answer.json()["detail"].startswith("Expected a form with films")
    for path in ("/api/predict?rule=guess", "/api/predict?picture=perhaps"):
        assert sent(client, {"film.png": SICK}, path).status_code == 422
    assert sent(client, {"film.png": SICK}, field="pictures").status_code == 422
    assert sent(client, {"film.png": SICK}, "/api/explain?method=gaze", "film").status_code == 422
    assert sent(client, {"a.png": SICK, "b.png": SICK}, "/api/explain", "film").status_code == 413

def test_with_a_token_only_the_page_and_health_are_open(detector):
    with client_of(detector, token="a-long-word") as client:
        assert [client.get(path).status_code for path in ("/", "/healthz", "/api/card")] == [200, 200, 401]
        assert sent(client, {"film.png": SICK}).status_code == 401
        assert sent(client, {"film.png": SICK}, authorization="Bearer a-long-wor").status_code == 401
        assert sent(client, {"film.png": SICK}, authorization="Bearer a-long-word").status_code == 200
        assert detector.card["title"] not in client.get("/").text

def test_without_a_token_only_this_machines_names_are_answered(client):
    assert client.get("/", headers=dict(host="rebound.example")).status_code == 403
    assert sent(client, {"film.png": SICK}, **{"sec-fetch-site": "cross-site"}).status_code == 403

# ---- nothing is kept

def test_nothing_of_a_film_is_written_or_told(client, detector, monkeypatch, caplog, capfd):
    "Uploads above a megabyte would be spooled to disk by the form's parser; here there is no place for that."
    noise = np.random.default_rng(1).integers(0, 256, (1400, 1400)).astype(np.uint8)
    caplog.set_level(logging.DEBUG)
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", "/nowhere")
        answers = [sent(client, {f"C:\\films\\{PATIENT}\\one.dcm": dicom(noise)}),
                   sent(client, {f"{PATIENT}/two.dcm": dicom(noise)[:1_500_000]})]
    assert [answer.status_code for answer in answers] == [200, 422]
    told = caplog.text + "".join(capfd.readouterr()) + "".join(answer.text for answer in answers)
    assert answers[0].json()["films"][0]["file"] == "one.dcm"
    assert not any(word in told for word in (PATIENT, "4711", "20200101", "C:"))

def test_a_fault_is_told_without_what_caused_it(client, detector, monkeypatch, caplog):
    def fail(self, *words, **more): raise KeyError(PATIENT)
    monkeypatch.setattr(Detector, "predict", fail)
    answer = sent(client, {"film.png": SICK})
    assert answer.status_code == 500 and PATIENT not in answer.text + caplog.text

# ---- over a socket

@pytest.fixture(scope="module")
def port(detector):
    "A server with two places, short patience and a small limit, in a thread."
    import uvicorn
    limits = Limits(bytes=2 ** 20, places=2, seconds=2)
    listening = bound_socket("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(make_app(detector, limits=limits), log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join()

HEAD = ("POST /api/predict HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n{}\r\n\r\n")
PART = b'--x\r\nContent-Disposition: form-data; name="films"; filename="film.png"\r\n\r\n'
FORM = PART + SICK + b"\r\n--x--\r\n"

def begun(port, headers, body=b""):
    "A request of which the head, and maybe a part of the body, is sent."
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    client.sendall(HEAD.format(headers).encode() + body)
    return client

def answered(client):
    "Status, headers and body of the answer."
    file = client.makefile("rb")
    status = int(file.readline().split()[1])
    lines = iter(lambda: file.readline().decode().strip(), "")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return status, headers, json.loads(file.read(int(headers["content-length"])))

def requests_in_the_house(port):
    import urllib.request
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
        return json.load(answer)["requests"]

def test_an_upload_is_read_up_to_the_limit_whether_it_says_its_size_or_not(port):
    told = begun(port, f"Content-Length: {2 ** 20 + 1000}", b"x" * (2 ** 20 + 1000))
    chunked = begun(port, "Transfer-Encoding: chunked")
    chunk = b"10000\r\n" + b"x" * 2 ** 16 + b"\r\n"
    start = b"10000\r\n" + FORM[:80] + b"x" * (2 ** 16 - 80) + b"\r\n"
    chunked.sendall(start + chunk * 20 + b"0\r\n\r\n")
    for client in (told, chunked):
        status, _, answer = answered(client)
        assert status == 413 and "at most 1 MB" in answer["detail"]

def test_an_overlong_queue_is_answered_503_and_places_come_back(port):
    length = f"Content-Length: {len(FORM)}"
    holding = [begun(port, length, FORM[:1000]) for _ in range(2)]
    while requests_in_the_house(port) < 2: time.sleep(.01)
    status, headers, answer = answered(begun(port, length, FORM))
    assert status == 503 and int(headers["retry-after"]) >= 1 and "at once" in answer["detail"]
    for client in holding: client.sendall(FORM[1000:])
    assert [answered(client)[0] for client in holding] == [200, 200]
    assert answered(begun(port, length, FORM))[0] == 200 and requests_in_the_house(port) == 0

def test_who_leaves_or_sends_too_slowly_gives_its_place_back(port, capfd):
    left, slow = (begun(port, f"Content-Length: {len(FORM)}", FORM[:1000]) for _ in range(2))
    while requests_in_the_house(port) < 2: time.sleep(.01)
    left.close()
    assert answered(slow)[0] == 408
    assert requests_in_the_house(port) == 0 and "Traceback" not in capfd.readouterr().err

# ---- the command

@pytest.fixture(scope="module", autouse=True)
def command(bundle, tmp_path_factory):
    "The command in a folder without the run, and that folder; it starts while other tests run."
    home = tmp_path_factory.mktemp("home")
    command = subprocess.Popen([PNEUMO, "serve", str(bundle), "--port", "0", "--host", "0.0.0.0"], cwd=home,
                               text=True, env=variables(home, PNEUMO_THREADS="1"),
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    yield command, home
    command.kill()
    command.communicate()

@pytest.fixture(scope="module")
def address(command):
    "Where the command says that its page is, with the token that it made."
    line = next((line for line in command[0].stdout if line.startswith("Open ")), "")
    return line.removeprefix("Open ").strip().replace("0.0.0.0", "127.0.0.1")

def test_a_taken_port_is_told_in_one_sentence(bundle, detector):
    from click.testing import CliRunner
    from pneumo_nb.cli import main
    with bound_socket("127.0.0.1", 0) as taken:
        done = CliRunner().invoke(main, ["serve", str(bundle), "--port", str(taken.getsockname()[1])])
    assert done.exit_code == 1 and "Expected a free port" in done.output and done.output.count("\n") == 1

# ---- in a browser

def until(browser, condition):
    "Wait until something holds on the page."
    from selenium.webdriver.support.ui import WebDriverWait
    WebDriverWait(browser, 30, .05).until(lambda b: b.execute_script(f"return {condition}"))

def pressed(browser, *keys):
    "Press keys where the focus is, as a person without a mouse does."
    from selenium.webdriver.common.action_chains import ActionChains
    for key in keys: ActionChains(browser).send_keys(key).perform()

def tabbed_to(browser, selector):
    "Press Tab until the focus is there."
    from selenium.webdriver.common.keys import Keys
    for _ in range(40):
        if browser.execute_script("return document.activeElement.matches(arguments[0])", selector): return
        pressed(browser, Keys.TAB)
    raise AssertionError(f"the keyboard does not reach {selector}")

@needs_browser
def test_the_page_in_a_browser_with_the_keyboard_alone(address, browser, detector, tmp_path):
    "Films are chosen, called by another rule, explained and downloaded; nothing is asked of anyone else."
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    files = FILES | {"page.dcm": b"<html>"}
    for name, content in files.items(): (tmp_path/name).write_bytes(content)
    asked, failed, complaints = opened(browser, address)
    until(browser, "document.querySelectorAll('#rule option').length")
    assert failed == [] and complaints == []
    got = tmp_path/"got"
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", dict(behavior="allow", downloadPath=str(got)))
    pressed(browser, Keys.TAB)   # the first stop leads past the header
    assert browser.switch_to.active_element.get_attribute("class") == "skip"
    tabbed_to(browser, "#files")
    browser.find_element(By.ID, "files").send_keys("\n".join(str(tmp_path/name) for name in files))
    until(browser, f"document.querySelectorAll('#answers > li').length === {len(files)}")

    tabbed_to(browser, "#rule")
    rules, called = detector.card["thresholds"], {}
    for _ in rules:
        rule = browser.execute_script("return document.querySelector('#rule').value")
        called[rule] = [e.text for e in browser.find_elements(By.CSS_SELECTOR, ".film .call")]
        pressed(browser, Keys.ARROW_DOWN)
        if rule == list(rules)[-1]: pressed(browser, Keys.HOME)
    table = detector.predict([str(tmp_path/name) for name in FILES])
    assert called == {rule: ["Called pneumonia" if p >= cut else "Called normal" for p in table.probability]
                      for rule, cut in rules.items()}

    tabbed_to(browser, ".below button")
    pressed(browser, Keys.ENTER)
    until(browser, "document.querySelector('.view img + img')?.complete")
    assert browser.execute_script("return document.activeElement.type") == "range"
    fade = "return document.querySelector('.view img + img').style.opacity"
    before = float(browser.execute_script(fade))
    pressed(browser, Keys.ARROW_RIGHT)
    assert float(browser.execute_script(fade)) == pytest.approx(before + .01)
    widths = "return [...document.querySelectorAll('.view img')].map(i => i.naturalWidth)"
    sizes = browser.execute_script(widths)
    assert len(sizes) == len(FILES) + 1 and min(sizes) > 50   # DICOM and TIFF are shown as well

    browser.execute_script("document.querySelector('#download').focus()")
    pressed(browser, Keys.ENTER)
    while not list(got.glob("*.csv")): time.sleep(.05)
    saved = pd.read_csv(*got.glob("*.csv"), keep_default_na=False)
    assert list(saved.columns)[:7] == COLUMNS and saved.file.tolist() == list(FILES)
    assert np.allclose(saved.probability, table.probability, atol=1e-6)

    events = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    asked += [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    own = address.partition("#")[0]
    assert all(url.startswith((own, "data:", "blob:" + own)) and "token" not in url.partition("#")[0]
               for url in asked), asked
    assert width_on_a_phone(browser) <= 390
    if not AXE.exists(): pytest.skip("axe-core is not in .test-tools; all but accessibility was tested")
    browser.execute_script(AXE.read_text())
    for scheme in ("dark", "light"): assert serious_violations(browser, scheme) == [], scheme

DROP = """const bytes = Uint8Array.from(atob(arguments[0]), c => c.charCodeAt(0)), held = new DataTransfer();
held.items.add(new File([bytes], 'dropped.png'));
document.querySelector('#drop').dispatchEvent(new DragEvent('drop', {dataTransfer: held, bubbles: true}))"""

@needs_browser
def test_a_film_dropped_before_the_token_is_known_is_answered_after(address, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    page, _, token = address.partition("#token=")
    browser.get("about:blank")
    browser.get(page)
    until(browser, "!document.querySelector('#ask-token').hidden")
    browser.execute_script(DROP, base64.b64encode(SICK).decode())
    browser.find_element(By.ID, "token").send_keys(token, Keys.ENTER)
    until(browser, "document.querySelectorAll('#answers > li').length")
    assert browser.execute_script("return document.querySelector('#ask-token').hidden")
    assert "dropped.png" in browser.find_element(By.CSS_SELECTOR, ".film h3").text

def test_the_command_needs_its_token_logs_nothing_and_stops_at_once(address, command):
    import urllib.request
    from urllib.error import HTTPError
    process, home = command
    page, _, token = address.partition("#token=")
    assert len(token) == 32
    asked = urllib.request.Request(f"{page}api/card", headers=dict(Authorization=f"Bearer {token}"))
    with urllib.request.urlopen(asked) as answer: assert json.load(answer)["title"]
    with pytest.raises(HTTPError) as refused: urllib.request.urlopen(f"{page}api/card")
    assert refused.value.code == 401
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=30)[0]
    assert "api" not in rest and token not in rest and "Traceback" not in rest
    assert [f for f in home.rglob("*") if f.is_file() and "cache" not in f.parts] == []
