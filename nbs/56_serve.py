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
# # A page to try it
#
# > `pneumo serve` answers for films that are dropped on a local page, and for programs by HTTP

# %%
#| default_exp serve

# %%
#| export
import asyncio, base64, hmac, io, ipaddress, logging, math, re, secrets, socket, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Literal
from urllib.parse import urlsplit

import cv2
import numpy as np
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from pneumo_nb.run import StudyError, project_folder
from pneumo_nb.films import FILM_ENDINGS, MOST_PIXELS, decode_film, dicom_remarks, film_format, in_words
from pneumo_nb.explanation import METHODS
from pneumo_nb.pages import fill

# %%
#| hide
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pandas as pd
from fastapi.testclient import TestClient
from fastcore.test import test_eq, test_fail
from pneumo_nb.phantom import draw_anatomy, draw_film
from pneumo_nb.run import rng_for


# %% [markdown]
# A detector can be tried without writing a line of code. `pneumo serve FILE.pneumo` opens a page on this
# machine. Films are dropped on it, and it shows what the networks say and how far they agree. It also shows
# which checks object to a film, and where covering it changes the answer. The same answers are there for
# programs, at `/api/predict` and `/api/explain`.
#
# Three rules hold throughout. Nothing that is uploaded is stored, on disk or in a log. The page loads nothing
# from elsewhere. Every upload is bounded, and what is refused is refused in one sentence.
#
# ## How much is taken
#
# A request holds some films, of some bytes, and has a time to arrive. A few requests may be in the house at
# once, so memory has a bound: their number times their bytes, and one decoded film, whose pixels the reader
# bounds.

# %%
#| export
@dataclass(frozen=True)
class Limits:
    "What one request may hold, and how many may be in the house at once."
    bytes: int = 64 * 2 ** 20 # of a request
    films: int = 16           # of a request
    places: int = 8           # requests that are read, waiting or answered
    seconds: float = 60.      # for a request to arrive


# %% [markdown]
# What is refused has a status and a sentence. `Refused` is FastAPI's own error. So it can be raised wherever
# a request is read or answered, and becomes `{"detail": "Expected …"}`.

# %%
#| export
class Refused(HTTPException):
    "A request that gets no other answer than why."


# %% [markdown]
# ## The body of a request
#
# The size that a request announces may be wrong or missing, as in a chunked upload. So bytes are counted as
# they come, and the one beyond the limit ends the reading.
#
# A client that is answered while it still sends may never read the answer, since the connection breaks. So
# what is left of a refused body is read and dropped, up to the limit once more. That ends after five seconds,
# or when half a second brings nothing. A client that asks first (`Expect: 100-continue`) has not begun to
# send.

# %%
#| export
class _Body:
    "The body of a request, counted while it is read."
    def __init__(self, scope: dict, receive, limit: int):
        headers = Headers(scope=scope)
        self.source, self.limit, self.read = receive, limit, 0
        self.announced = int(headers.get("content-length") or 0)
        self.ended = not (self.announced or "transfer-encoding" in headers)
        self.is_asking = "expect" in headers

    async def receive(self) -> dict: # an ASGI message
        message = await self.source()
        self.ended = self.ended or not message.get("more_body", False)
        self.read += len(message.get("body", b""))
        if self.read > self.limit: raise _too_large(self.limit)
        return message

    async def discard(self):
        "Read what is left, and keep none of it."
        if self.is_asking and not self.read: return
        self.read, end = 0, time.monotonic() + 5
        while not self.ended and self.read <= self.limit and (left := end - time.monotonic()) > 0:
            try: message = await asyncio.wait_for(self.source(), min(left, .5))
            except asyncio.TimeoutError: return
            self.ended = not message.get("more_body", False)
            self.read += len(message.get("body", b""))


# %%
#| export
def _too_large(
    limit: int, # bytes
) -> Refused:
    "The answer to a request that is too large."
    return Refused(413, f"Expected at most {limit / 2 ** 20:,.4g} MB in a request, found more; "
                        "send fewer films, or smaller ones.")


# %%
def body_of(*chunks, limit=8, **headers):
    messages = iter([*(dict(body=chunk, more_body=True) for chunk in chunks), dict(body=b"")])
    async def receive(): return next(messages)
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return _Body(dict(headers=raw), receive, limit)

def finished(coroutine): # in a thread of its own, since Jupyter's already has a loop
    return ThreadPoolExecutor(1).submit(asyncio.run, coroutine).result()

body = body_of(b"12345", b"6789", b"more", transfer_encoding="chunked")
test_eq(finished(body.receive())["body"], b"12345")
test_fail(lambda: finished(body.receive()), contains="found more; send fewer films")
finished(body.discard())
assert body.ended

# %% [markdown]
# Every answer carries headers for the browser. The page may load and ask nothing but this server, stand in no
# frame of another site, and nothing of it is kept in a cache.

# %%
#| export
_HEADERS = {
    "Content-Security-Policy":
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin"}


# %%
#| export
class _Frame:
    "Around the whole app (ASGI): bodies are counted, answers carry headers."
    def __init__(self, app, limit: int): self.app, self.limit = app, limit

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http": return await self.app(scope, receive, send)
        body = _Body(scope, receive, self.limit)
        scope["body"] = body

        async def answer(message):
            if message["type"] == "http.response.start":
                await body.discard()
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)
        await self.app(scope, body.receive, answer)


# %% [markdown]
# ## Films in a form
#
# Films come as a form with files, as browsers send it. The parser at hand would write a part of more than a
# megabyte to disk. Told to spool nothing, it keeps all in memory, which the limit bounds.

# %%
#| export
class _Parser(MultiPartParser):
    "Reads a form and writes nothing to disk."
    spool_max_size = 0   # which `SpooledTemporaryFile` takes for no limit


# %%
#| export
@dataclass(frozen=True)
class Upload:
    "A film as it came."
    name: str                         # of the file, without folders
    content: bytes = field(repr=False)


# %%
#| export
def base_name(
    name: str | None, # as a client sent it
) -> str:
    "A file's own name: no folders, no control characters, not endless."
    last = re.split(r"[/\\]", name or "")[-1].strip() or "film"
    return in_words(last if len(last) <= 120 else f"{last[:80]} … {last[-37:]}")


# %%
test_eq([base_name(name) for name in ("/home/x/a.png", r"C:\x\b.dcm", "c\n.png", None)],
        ["a.png", "b.dcm", r"c\n.png", "film"])


# %%
#| export
async def _read_form(request: Request, limits: Limits): # FormData
    "The form of a request, within its limits."
    if not request.headers.get("content-type", "").startswith("multipart/form-data"): raise Refused(
        415, "Expected a form with films (multipart/form-data), found another type of content.")
    if request.scope["body"].announced > limits.bytes: raise _too_large(limits.bytes)
    parser = _Parser(request.headers, request.stream(), max_files=limits.films, max_fields=4)
    try: return await asyncio.wait_for(parser.parse(), limits.seconds)
    except MultiPartException as e:
        if "Too many" in e.message: raise Refused(
            413, f"Expected at most {limits.films} films in a request, found more; send fewer.") from None
        raise Refused(422, "Expected a form with films (multipart/form-data), found a damaged one.") from None
    except (asyncio.TimeoutError, ClientDisconnect): raise Refused(
        408, f"Expected a whole request within {limits.seconds:g} s, found a part; send it again.") from None


# %%
#| export
async def read_uploads(
    request: Request,
    field: str, # of the form
    limits: Limits,
) -> list[Upload]:
    "The films of a request."
    form = await _read_form(request, limits)
    try: uploads = [Upload(base_name(part.filename), await part.read())
                    for part in form.getlist(field) if hasattr(part, "filename")]
    finally: await form.close()
    if uploads: return uploads
    raise Refused(422, f"Expected films in the field `{field}` of the form, found none.")


# %% [markdown]
# A file that is no film by its content is refused as a type (415), whatever its name says. One that is a film
# but cannot be read, or has too many pixels, is refused for its content (422). Both are said in the words of
# the reader that the study uses.

# %%
#| export
def decode_upload(upload: Upload) -> np.ndarray: # (H, W) uint8
    "A film's pixels."
    try: return decode_film(upload.content, upload.name)
    except StudyError as e:
        is_no_film = upload.content and not film_format(upload.content)
        raise Refused(415 if is_no_film else 422, str(e)) from None


# %%
film, _ = draw_film(draw_anatomy(rng_for(3, "virus", 1)), "virus", rng_for(3, "virus", 1, 1))
png = Upload("film.png", cv2.imencode(".png", film)[1].tobytes())
test_eq(decode_upload(png), film)
for content in (b"<html>", b"", png.content[:300]):
    try: decode_upload(Upload("a.dcm", content))
    except Refused as e: print(e.status_code, e.detail)


# %% [markdown]
# ## One at a time
#
# A prediction uses all threads that it is given, so two at once would only share them. One thread makes all
# predictions, in the order in which they came. A request that finds no place left is answered at once with
# 503, and `Retry-After` says when a place should be free.

# %%
#| export
class _Line:
    "Requests in the house, and the one thread that answers them."
    def __init__(self, places: int):
        self.places, self.taken, self.seconds = places, 0, 1.
        self.worker = ThreadPoolExecutor(1, "detector")

    @asynccontextmanager
    async def place(self):
        "A place, from the first byte of a request to its answer."
        if self.taken >= self.places: raise Refused(
            503, f"Expected fewer than {self.places} requests at once, found that many; send it again later.",
            {"Retry-After": str(math.ceil(self.seconds * self.places))})
        self.taken += 1
        try: yield
        finally: self.taken -= 1

    async def run(self, function, *values):
        "Have the thread do something."
        return await asyncio.get_running_loop().run_in_executor(self.worker, self._timed, function, *values)

    def _timed(self, function, *values):
        began = time.monotonic()
        try: return function(*values)
        except Refused: raise
        except StudyError as e: raise Refused(422, str(e)) from None
        except Exception as e:  # its text might tell of a film
            logging.getLogger("pneumo").error("a film could not be answered: %s", type(e).__name__)
            raise Refused(500, "The film was read but not answered; this is a fault of the server.") from None
        finally: self.seconds = .8 * self.seconds + .2 * (time.monotonic() - began)


# %%
async def overlong(line):
    async with line.place():
        test_eq(await line.run(math.sqrt, 9), 3)
        async with line.place(): pass

line = _Line(places=1)
test_fail(lambda: finished(overlong(line)), contains="503: Expected fewer than 1 requests")
test_eq(line.taken, 0)


# %% [markdown]
# ## Answers
#
# What an answer looks like stands in models, from which the OpenAPI schema at `/openapi.json` is made.

# %%
#| export
class FilmAnswer(BaseModel):
    "What the detector says of one film."
    file: str = Field(description="the file's own name")
    probability: float = Field(ge=0, le=1, description="of pneumonia, after the bundle's calibration")
    low: float = Field(description="the lowest probability of any network")
    high: float = Field(description="the highest probability of any network")
    call: Literal["pneumonia", "normal"] = Field(description="at the rule's threshold")
    conformal: Literal["pneumonia", "normal", "both", "neither"] = Field(
        description="the classes that the film can be at the detector's level")
    flags: list[str] = Field(description="why this answer should not be relied on")
    seconds: float = Field(description="that the answer took")
    width: int
    height: int
    picture: str | None = Field(None, description="the film as it was read, a PNG as a data address")


# %%
#| export
class Answer(BaseModel):
    "What the detector says of the films of a request, in their order."
    films: list[FilmAnswer]
    rule: str
    threshold: float = Field(description="a film is called pneumonia from this probability on")
    detector: str = Field(description="digest of the bundle")
    statement: str = Field(description="what the answer is not")


# %%
#| export
class Problem(BaseModel):
    "Why there is no other answer."
    detail: str = Field(description="one sentence")


# %%
#| export
class Explanation(BaseModel):
    "A map for one film."
    file: str
    title: str = Field(description="what the map is called")
    unit: str = Field(description="what its values mean")
    red: str = Field(description="what a value above 0 says")
    least: float
    most: float
    is_faint: bool = Field(description="whether no single place counts for much")
    picture: str = Field(description="the film as it was read, a PNG as a data address")
    map: str = Field(description="the map in red and blue, a PNG of the same size, transparent at 0")


# %% [markdown]
# Films are shown as they were read, since browsers show neither DICOM nor TIFF. A picture is at most 768
# pixels on its longer side.

# %%
#| export
_SHOWN = 768  # pixels

def _shrunk(
    values: np.ndarray, # (H, W)
) -> np.ndarray: # (h, w), of the same kind
    "Values at the size at which they are shown."
    scale = _SHOWN / max(values.shape)
    if scale >= 1: return values
    size = [max(1, round(side * scale)) for side in values.shape[::-1]]
    return cv2.resize(values, size, interpolation=cv2.INTER_AREA)


# %%
#| export
def png_address(
    pixels: np.ndarray, # (H, W) or (H, W, 4) BGRA, uint8
) -> str: # `data:image/png;base64,…`
    "A picture as an address that holds it."
    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", pixels)[1]).decode()


# %%
assert png_address(film).startswith("data:image/png;base64,iVBOR")
test_eq(_shrunk(np.zeros((1000, 3000), np.uint8)).shape, (256, 768))
test_eq(_shrunk(np.zeros((2, 30000), np.uint8)).shape, (1, 768))


# %% [markdown]
# A map lies over its film in red and blue, and is transparent where it is zero. The strongest place has the
# full colour, unless even that is faint.

# %%
#| export
def tint(
    change: np.ndarray, # (H, W) a map
    limit: float,       # value of the full colour
) -> np.ndarray: # (H, W, 4) BGRA uint8
    "Red where a map is above zero, blue where it is below, transparent at zero."
    import matplotlib.pyplot as plt
    share = np.clip(change / limit, -1, 1)
    colours = plt.get_cmap("RdBu_r")((share + 1) / 2, bytes=True)
    colours[..., 3] = np.round(255 * np.abs(share))
    return np.ascontiguousarray(colours[..., [2, 1, 0, 3]])


# %%
blue, green, red, alpha = np.moveaxis(tint(np.array([[1., 0, -1]]), 1), -1, 0)
assert red[0, 0] > blue[0, 0] and blue[0, 2] > red[0, 2]
test_eq(alpha.tolist(), [[255, 0, 255]])


# %% [markdown]
# One film, answered. A DICOM film's own tags may object as well, for instance to another part of the body.

# %%
#| export
def answer_film(
    detector, # with `predict`
    upload: Upload,
    rule: str,
    has_picture: bool,
) -> FilmAnswer:
    "What the detector says of one film."
    began = time.monotonic()
    film = decode_upload(upload)
    row = detector.predict(film, rule=rule).iloc[0]
    flags = [flag for flag in str(row["flags"] or "").split("; ") if flag]
    flags += [remark for remark in dicom_remarks(upload.content) if remark not in flags]
    said = {name: row[name] for name in ("probability", "low", "high", "call", "conformal")}
    return FilmAnswer(file=upload.name, **said, flags=flags, seconds=round(time.monotonic() - began, 4),
                      width=film.shape[1], height=film.shape[0],
                      picture=png_address(_shrunk(film)) if has_picture else None)


# %%
#| export
def explain_film(
    detector, # with `explain`
    upload: Upload,
    method: str, # a key of `METHODS`
) -> tuple[np.ndarray, np.ndarray]: # film (H, W) uint8, map (H, W) float32
    "A film and its map."
    film = decode_upload(upload)
    return film, np.asarray(detector.explain(film, method=method), np.float32)


# %%
#| export
def explanation(
    upload: Upload,
    method: str,
    film: np.ndarray,
    change: np.ndarray, # (H, W) float32, its map
) -> Explanation:
    "A map as the page shows it."
    about, largest = METHODS[method], float(np.abs(change).max())
    drawn = tint(_shrunk(change), max(largest, about.floor))
    return Explanation(
        file=upload.name, title=about.title, unit=about.unit, red=about.red, least=float(change.min()),
        most=float(change.max()), is_faint=largest < about.faint_below,
        picture=png_address(_shrunk(film)), map=png_address(drawn))


# %% [markdown]
# The examples use a detector whose answer is known: the mean gray of the film.

# %%
class Gray:
    card = dict(title="mean gray", thresholds=dict(half=.5, low=.1), conformal=dict(level=.9),
                trained_on="nothing", intended="examples", **{"not": "a detector"})
    digest = "0" * 64

    def predict(self, film, rule):
        p = film.mean() / 255
        call = "pneumonia" if p >= self.card["thresholds"][rule] else "normal"
        return pd.DataFrame([dict(file="", probability=p, low=p, high=p, call=call, conformal="both",
                                  flags="gray; not tried", seconds=0.)])

    def explain(self, film, method): return film.astype(np.float32) - film.mean()

said = answer_film(Gray(), png, "low", has_picture=False)
test_eq((said.file, said.call, said.flags), ("film.png", "pneumonia", ["gray", "not tried"]))
test_eq((said.height, said.width), film.shape)
drawn = explanation(png, "occlusion", *explain_film(Gray(), png, "occlusion"))
assert drawn.least < 0 < drawn.most and drawn.map.startswith("data:image/png")


# %% [markdown]
# ## Who may ask
#
# Bound to this machine alone, the server answers without a token. Pages of other sites are kept out: their
# requests are refused by the browser's own mark, and a foreign host name is refused. That defends against a
# name that is turned to this machine after its page was loaded (DNS rebinding).
#
# Bound elsewhere, a token is needed. It is compared in constant time. The page has it behind `#` in its
# address, which browsers send to nobody.

# %%
#| export
def is_loopback(
    host: str, # name or address
) -> bool:
    "Whether a host is this machine and can be reached from no other."
    try: return ipaddress.ip_address(host).is_loopback
    except ValueError: return host == "localhost"

def _host_of(header: str) -> str: # of a Host header, without its port
    try: return urlsplit(f"//{header}").hostname or ""
    except ValueError: return ""


# %%
test_eq([is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "a.example")],
        [True, True, True, False, False, False])
test_eq([_host_of(h) for h in ("localhost:8000", "[::1]:80", "a.example", "[")],
        ["localhost", "::1", "a.example", ""])


# %%
#| export
def _check_neighbour(request: Request):
    "Refuse what another site's page asks, and a foreign host name where no token is asked for."
    if request.headers.get("sec-fetch-site") == "cross-site" and request.method != "GET": raise Refused(
        403, "Expected a request of this server's own page, found one of another site.")
    host = _host_of(request.headers.get("host", ""))
    if request.app.state.desk.token is None and not is_loopback(host): raise Refused(
        403, "Expected this machine's own name as host, such as localhost, found another.")


# %%
#| export
_BEARER = HTTPBearer(auto_error=False, description="the token that `pneumo serve` printed, if there is one")

def _check_token(
    request: Request,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
):
    "Refuse a request without the token."
    token = request.app.state.desk.token
    found = given.credentials if given else ""
    if token is None or hmac.compare_digest(found.encode(), token.encode()): return
    raise Refused(401, "Expected the token that `pneumo serve` printed, found "
                       f"{'another' if found else 'none'}; open the address with its token.",
                  {"WWW-Authenticate": "Bearer"})


# %% [markdown]
# ## Routes
#
# The desk is what all requests share.

# %%
#| export
@dataclass
class _Desk:
    "What all requests share."
    detector: object
    token: str | None
    limits: Limits
    line: _Line
    files: dict[str, bytes] # of the page

def _desk(request: Request) -> _Desk: return request.app.state.desk

_API = APIRouter(prefix="/api", dependencies=[Depends(_check_token)])
_OPEN = APIRouter()


# %% [markdown]
# `/api/card` tells what the detector is, which rules it knows, and what may be sent.

# %%
#| export
class Card(BaseModel):
    "What the detector is, and what may be sent."
    title: str
    digest: str
    trained_on: str
    intended: str
    not_for: str
    level: float = Field(description="of the conformal sets, such as .9")
    rules: dict[str, float] = Field(description="rule and its threshold")
    methods: dict[str, str] = Field(description="ways to explain and what their maps are called")
    endings: list[str]
    most_bytes: int
    most_films: int
    most_pixels: int


# %%
#| export
def card_of(detector, limits: Limits) -> Card:
    "A detector's card for the page."
    card = detector.card
    methods = {name: method.title for name, method in METHODS.items() if not method.is_control}
    return Card(title=card["title"], digest=detector.digest, trained_on=_in_text(card["trained_on"]),
                intended=_in_text(card["intended"]), not_for=_in_text(card["not"]),
                level=card["conformal"]["level"], rules=card["thresholds"], methods=methods,
                endings=list(FILM_ENDINGS), most_bytes=limits.bytes, most_films=limits.films,
                most_pixels=MOST_PIXELS)

def _in_text(
    value, # of a card: text, or a table of facts
) -> str:
    "A fact of a card as text."
    if isinstance(value, dict): return ", ".join(f"{key}: {_in_text(part)}" for key, part in value.items())
    return ", ".join(map(_in_text, value)) if isinstance(value, (list, tuple)) else str(value)


# %%
told = card_of(Gray(), Limits())
test_eq((told.title, told.rules, told.level), ("mean gray", dict(half=.5, low=.1), .9))
test_eq(_in_text(dict(films=3, kinds=["a", "b"])), "films: 3, kinds: a, b")

# %%
#| export
_PROBLEMS = {status: dict(model=Problem, description=words) for status, words in {
    401: "no token, or another", 408: "the films did not arrive in time", 413: "too many bytes or films",
    415: "no form, or a file that is no film",
    422: "a film that cannot be read, or an unknown rule or method",
    503: "too many requests; Retry-After says when to come back"}.items()}

def _form_of(field: str, schema: dict) -> dict: # for OpenAPI
    "A form with films, as the schema says it."
    schema = dict(type="object", required=[field], properties={field: schema})
    return dict(requestBody=dict(required=True, content={"multipart/form-data": dict(schema=schema)}))

_FILE = dict(type="string", format="binary")


# %%
#| export
@_API.get("/card", name="card", responses={401: _PROBLEMS[401]})
async def _card(request: Request) -> Card:
    "What the detector is, and what may be sent."
    return card_of(_desk(request).detector, _desk(request).limits)


# %% [markdown]
# A request to `/api/predict` is answered film by film. So its films are never all decoded at once, and the
# films of another request come in between. If one cannot be read, that is the answer to the request.

# %%
#| export
def _check_rule(detector, rule: str) -> float: # its threshold
    "Refuse a rule that the detector does not know."
    rules = detector.card["thresholds"]
    if rule in rules: return rules[rule]
    raise Refused(422, f"Expected a rule of {', '.join(rules)}, found {in_words(rule[:40])!r}.")


# %%
#| export
@_API.post("/predict", name="predict", responses=_PROBLEMS,
           openapi_extra=_form_of("films", dict(type="array", items=_FILE)))
async def _predict(
    request: Request,
    rule: Annotated[str, Query(description="a rule of the card")] = "sensitivity95",
    picture: Annotated[bool, Query(description="whether to send each film back as a PNG")] = False,
) -> Answer:
    "The probability of pneumonia on each film, and when not to believe it."
    desk = _desk(request)
    threshold = _check_rule(desk.detector, rule)
    async with desk.line.place():
        uploads = await read_uploads(request, "films", desk.limits)
        films = [await desk.line.run(answer_film, desk.detector, upload, rule, picture)
                 for upload in uploads]
    return Answer(films=films, rule=rule, threshold=threshold, detector=desk.detector.digest,
                  statement=_in_text(desk.detector.card["not"]))


# %% [markdown]
# `/api/explain` takes one film. It answers with pictures for the page, or with the map itself: an array of
# NumPy's format at the film's own size, which `numpy.load` reads.

# %%
#| export
def _npy_bytes(values: np.ndarray) -> bytes:
    "An array in NumPy's file format."
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


# %%
#| export
def _check_method(method: str):
    "Refuse a method that there is not."
    if method not in METHODS: raise Refused(
        422, f"Expected a method of {', '.join(METHODS)}, found {in_words(method[:40])!r}.")


# %%
#| export
@_API.post("/explain", name="explain", responses=_PROBLEMS | {200: dict(model=Explanation, content={
               "application/octet-stream": dict(schema=_FILE)})},
           response_model=Explanation, openapi_extra=_form_of("film", _FILE))
async def _explain(
    request: Request,
    method: Annotated[str, Query(description="a method of the card")] = "occlusion",
    form: Annotated[Literal["png", "npy"], Query(description="pictures, or the map's own numbers")] = "png",
):
    "Where a film speaks for or against pneumonia."
    desk = _desk(request)
    _check_method(method)
    async with desk.line.place():
        upload, *others = await read_uploads(request, "film", desk.limits)
        if others: raise Refused(413, "Expected one film to explain, found several; send one at a time.")
        film, change = await desk.line.run(explain_film, desk.detector, upload, method)
        if form == "npy": return Response(_npy_bytes(change), media_type="application/octet-stream")
        return await desk.line.run(explanation, upload, method, film, change)


# %% [markdown]
# The page, its styles and scripts, and `/healthz` are there for everybody. They tell nothing of the detector
# or of films.

# %%
#| export
class Health(BaseModel):
    "Whether films are answered."
    status: Literal["ok"] = "ok"
    requests: int = Field(description="in the house")
    places: int

@_OPEN.get("/healthz", name="healthz")
async def _healthz(request: Request) -> Health:
    "Whether the server answers, and how busy it is."
    return Health(requests=_desk(request).line.taken, places=_desk(request).line.places)


# %%
#| export
_TYPES = {".css": "text/css", ".js": "text/javascript", ".html": "text/html"}
_ASSETS = ("layout.css", "study.css", "serve.css", "serve.js")

def _page_files() -> dict[str, bytes]: # name → content
    "The page and what it loads."
    folder = project_folder()/"nbs/assets"
    return {"index.html": fill("serve").encode()} | {name: (folder/name).read_bytes() for name in _ASSETS}

def _file(request: Request, name: str) -> Response:
    "A file of the page."
    content = _desk(request).files.get(name)
    if content is None: raise Refused(404, "There is no such page.")
    return Response(content, media_type=_TYPES[name[name.rindex("."):]])


# %%
#| export
@_OPEN.get("/", name="page", response_class=HTMLResponse, include_in_schema=False)
async def _page(request: Request): return _file(request, "index.html")

@_OPEN.get("/assets/{name}", name="asset", include_in_schema=False)
async def _asset(request: Request, name: str): return _file(request, name)


# %% [markdown]
# ## The app
#
# FastAPI's own pages of documentation load scripts from elsewhere, so they are off. The schema is at
# `/openapi.json`. Its own errors name the input, which may be a patient's, so they are put in one sentence.

# %%
#| export
async def _say_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    "A wrong parameter of the address, in one sentence."
    names = ", ".join(dict.fromkeys(str(one["loc"][-1]) for one in error.errors()))
    words = f"Expected parameters as /openapi.json lists them, found another {names}."
    return JSONResponse(dict(detail=words), status_code=422)


# %%
#| export
def make_app(
    detector,                  # with `predict`, `explain`, `card` and `digest`, as from `Detector.load`
    token: str | None = None,  # which every request to /api/ must carry
    limits: Limits = Limits(),
) -> FastAPI:
    "The page and the API of a detector."
    app = FastAPI(title="pneumo serve", docs_url=None, redoc_url=None,
                  description="Pneumonia on chest films of children, by networks. Not a medical device.",
                  dependencies=[Depends(_check_neighbour)])
    app.state.desk = _Desk(detector, token, limits, _Line(limits.places), _page_files())
    app.add_exception_handler(RequestValidationError, _say_invalid)
    app.add_middleware(_Frame, limit=limits.bytes)
    app.include_router(_API)
    app.include_router(_OPEN)
    return app


# %%
def ask(path, *uploads, field="films", app=make_app(Gray()), **headers):
    files = [(field, (one.name, one.content)) for one in uploads]
    with TestClient(app, base_url="http://localhost") as client:
        return client.post(path, files=files, headers=headers) if files else client.get(path, headers=headers)

answer = ask("/api/predict?rule=low", png, Upload("/home/someone/b.png", png.content)).json()
test_eq([(one["file"], one["call"]) for one in answer["films"]],
        [("film.png", "pneumonia"), ("b.png", "pneumonia")])
test_eq((answer["threshold"], answer["statement"]), (.1, "a detector"))

# %%
refused = ask("/api/predict?rule=low", Upload("page.dcm", b"<html>"))
print(refused.status_code, refused.json()["detail"])
test_eq(ask("/api/predict?rule=high", png).status_code, 422)
test_eq(ask("/api/predict?rule=low", *[png] * 17).status_code, 413)
small = make_app(Gray(), limits=Limits(bytes=1000))
test_eq(ask("/api/predict?rule=low", png, app=small).status_code, 413)
test_eq(ask("/api/predict", png, field="x").status_code, 422)

# %%
change = np.load(io.BytesIO(ask("/api/explain?form=npy", png, field="film").content))
test_eq((change.shape, change.dtype), (film.shape, np.float32))
test_eq(ask("/api/explain", png, field="film").json()["title"], METHODS["occlusion"].title)
test_eq(ask("/api/explain?form=gif", png, field="film").json()["detail"],
        "Expected parameters as /openapi.json lists them, found another form.")

# %% [markdown]
# With a token, the page and `/healthz` are open, and the rest is not. Without one, only this machine's own
# names are answered.

# %%
locked = make_app(Gray(), token="secret")
test_eq([ask(path, app=locked).status_code for path in ("/", "/healthz", "/api/card")], [200, 200, 401])
test_eq([ask("/api/card", app=locked, authorization=f"Bearer {word}".encode()).status_code
         for word in ("secret", "secre", "sécret")], [200, 401, 401])
test_eq([ask("/healthz", host=host).status_code for host in ("localhost:80", "127.0.0.1", "rebound.example")],
        [200, 200, 403])
test_eq(ask("/api/predict?rule=low", png, **{"sec-fetch-site": "cross-site"}).status_code, 403)


# %% [markdown]
# ## Serving
#
# The socket is bound before anything is printed, so a port that is taken ends with a sentence. Requests are
# not logged: their addresses are, at most, `/api/predict`, and that says nothing worth keeping. There is no
# encryption here. Where others than this machine can reach the port, it belongs behind a server that
# encrypts.

# %%
#| export
def bound_socket(
    host: str, # name or address
    port: int, # 0 for any that is free
) -> socket.socket:
    "A socket that listens there."
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try: return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as e: raise StudyError(
        f"Expected a free port at {host}:{port}, found none ({getattr(e, 'strerror', None) or e}); "
        "choose another with --host and --port.") from None


# %%
taken = bound_socket("127.0.0.1", 0)
test_fail(lambda: bound_socket("127.0.0.1", taken.getsockname()[1]), contains="choose another with")
taken.close()


# %%
#| export
def address_of(
    host: str,
    port: int,
    token: str | None,
) -> str: # URL of the page
    "Where the page is; the token stands behind `#`, which browsers send to nobody."
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"#token={token}" if token else "")


# %%
#| export
def token_for(
    host: str,
    asked: str | None,
) -> str | None:
    "The token that was asked for; a new one where others can reach the server and none was."
    return asked or (None if is_loopback(host) else secrets.token_urlsafe(24))


# %%
test_eq(address_of("::1", 8000, "ab"), "http://[::1]:8000/#token=ab")
test_eq((token_for("127.0.0.1", None), token_for("0.0.0.0", "own")), (None, "own"))
test_eq(len(token_for("0.0.0.0", None)), 32)


# %%
#| export
def serve(
    detector,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None, # made and told where it is needed and not given
    say=print,                # called with the page's address
):
    "Serve a detector's page until it is stopped."
    import uvicorn
    token = token_for(host, token)
    listening = bound_socket(host, port)
    app = make_app(detector, token)
    app.state.desk.line.worker.submit(detector.predict, np.zeros((64, 64), np.uint8)).result()  # warm
    say(address_of(host, listening.getsockname()[1], token))
    uvicorn.Server(uvicorn.Config(
        app, access_log=False, log_level="warning", server_header=False, proxy_headers=False,
        limit_concurrency=128, timeout_keep_alive=5, timeout_graceful_shutdown=5)).run([listening])
