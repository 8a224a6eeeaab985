"""The server: which request is which question, who may ask, how much they may send. Whatever is sent to it, the answer has a
status of 2xx, 4xx or 503.

It decodes nothing and imports neither torch nor NumPy: that is done by the worker behind the :class:`~alexnet.page.desk.Desk`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import json
import re
import signal
import socket
import threading
import time
import traceback
import unicodedata
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM
from typing import Any, Generic, TypeVar

import uvicorn
from h11 import LocalProtocolError
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from alexnet.core.errors import printable
from alexnet.page.desk import BusyError, Desk, LostError
from alexnet.page.worker import LOOK, Done, Look, Outcome, Pixels, Ready

Kept = TypeVar("Kept")

MAX_FILE_BYTES = 64 << 20
"""Of a picture: what the decoder takes."""
MAX_JSON_BYTES = 1 << 20
MAX_HELD_BYTES = 256 << 20
"""Of all bodies that are received or wait for the worker."""
MAX_ADDRESS_BYTES, MAX_HEADER_BYTES = 8 << 10, 16 << 10
MAX_CONNECTIONS = 512
HEADER_SECONDS, BODY_SECONDS, WRITE_SECONDS = 10.0, 60.0, 30.0
"""In which a client must have sent the head of a request and its body, and take some of an answer."""
END_SECONDS = 0.5
"""How long requests may go on when the server ends: who has said so does not wait."""
WAIT_SECONDS = 60.0
"""How long a question waits for its turn."""
KEPT_PICTURES, KEPT_FEATURES, KEPT_HEADS = 64, 3000, 16
MAX_NAME = 100
"""Characters of the name of a pile."""
PAGES = ("/", "/see", "/unit/{layer}/{channel}", "/teach", "/search", "/motion")
STATIC = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
}
"""The files that are served, and as what."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}
STATUS = {
    "bad-request": 400,
    "refused": 403,
    "unknown": 404,
    "forgotten": 404,
    "too-large": 413,
    "unsupported": 415,
    "not-an-image": 422,
    "busy": 503,
    "starting": 503,
    "too-slow": 503,
    "failed": 503,
}


class Rejected(Exception):
    """A request that gets no answer: the kind, a sentence for people, and the status where it is not that of the kind."""

    def __init__(self, kind: str, text: str, status: int | None = None, **headers: str) -> None:
        super().__init__(text)
        self.kind, self.text, self.status, self.headers = kind, text, status or STATUS[kind], headers


class Recent(Generic[Kept]):
    """The last few things, by name: the one that was not wanted for longest goes first."""

    def __init__(self, most: int) -> None:
        self.most, self.things = most, OrderedDict[str, Kept]()

    def keep(self, name: str, thing: Kept) -> str:
        self.things[name] = thing
        self.things.move_to_end(name)
        if len(self.things) > self.most:
            self.things.popitem(last=False)
        return name

    def get(self, name: str, what: str) -> Kept:
        if name not in self.things:
            raise Rejected("forgotten", f"this {what} is no longer kept; send it again")
        self.things.move_to_end(name)
        return self.things[name]


@dataclass(frozen=True)
class Place:
    """Where a server listens, and by which names it may be asked."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def url(self) -> str:
        address = ipaddress.ip_address(self.host)
        host = "localhost" if address.is_unspecified else f"[{address}]" if address.version == 6 else str(address)
        return f"http://{host}:{self.port}/"

    def is_named(self, host: str) -> bool:
        """Whether a Host header names this server. Names that others decide about are not taken, or a page of theirs could
        reach it through them: only localhost, addresses, and what this machine calls itself."""
        found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?", host)
        if found is None or int(found[2] or 80) != self.port:
            return False
        name = found[1].strip("[]").lower().rstrip(".")
        if name == "localhost":
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            own = socket.gethostname().lower()
            return not self.is_loopback and name in (own, f"{own}.local")
        return address.is_loopback or not self.is_loopback


@dataclass(frozen=True)
class Asset:
    content: bytes
    type: str


def assets(folder: Path = STATIC) -> dict[str, Asset]:
    """The files of the page by their names below ``folder``, read once: no request ever becomes a path."""
    files = sorted(file for file in folder.rglob("*") if file.suffix in TYPES and file.is_file())
    return {file.relative_to(folder).as_posix(): Asset(file.read_bytes(), TYPES[file.suffix]) for file in files}


@dataclass(eq=False)
class Service:
    """What the requests share: the desk, and what was sent lately."""

    desk: Desk
    place: Place
    files: Mapping[str, Asset]
    began: float = field(default_factory=time.monotonic)
    pictures: Recent[Pixels] = field(default_factory=lambda: Recent(KEPT_PICTURES))
    features: Recent[bytes] = field(default_factory=lambda: Recent(KEPT_FEATURES))
    heads: Recent[bytes] = field(default_factory=lambda: Recent(KEPT_HEADS))
    samples: dict[str, Pixels] = field(default_factory=dict)
    """Pictures to begin with, from when they are first asked for on."""
    held: int = 0
    """Bytes of bodies in memory."""

    # --- the page -------------------------------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        return self._file("index.html")

    async def static(self, request: Request) -> Response:
        return self._file(request.path_params["name"])

    def _file(self, name: str) -> Response:
        if name not in self.files:
            raise Rejected("unknown", "there is no such file")
        file = self.files[name]
        return Response(file.content, headers={"content-type": file.type, "cache-control": "no-cache"})

    async def health(self, request: Request) -> Response:
        return as_json({"status": self.desk.status, "uptime": round(time.monotonic() - self.began, 3)})

    # --- see ------------------------------------------------------------------------------------------------------

    async def model(self, request: Request) -> Response:
        return as_json(await self.ask(request, "see.model"))

    async def new_picture(self, request: Request) -> Response:
        began = time.monotonic()
        look = await self.look(request, answer=True)
        document = {"picture": look.pixels.id, "width": look.width, "height": look.height}
        return as_json({**document, "seconds": time.monotonic() - began, "answers": look.answers})

    def picture(self, name: str) -> Pixels:
        return self.samples.get(name) or self.pictures.get(name, "picture")

    async def sample_pictures(self, request: Request) -> Response:
        found: list[tuple[Pixels, str]] = await self.ask(request, "samples.samples")
        self.samples = {pixels.id: pixels for pixels, _ in found}
        return as_json({"samples": [{"picture": pixels.id, "label": label} for pixels, label in found]})

    async def known_picture(self, request: Request) -> Response:
        began, pixels = time.monotonic(), self.picture(request.path_params["picture"])
        document = await self.ask(request, "samples.about", pixels=pixels)
        return as_json({"picture": pixels.id, "seconds": time.monotonic() - began, **document})

    def about_picture(self, name: str, kind: str, *numbers: str) -> Callable[[Request], Awaitable[Response]]:
        """A route that asks about a picture that is kept: with the layer and the numbers that stand in its address."""

        async def respond(request: Request) -> Response:
            arguments: dict[str, Any] = {n: number(request.path_params[n]) for n in numbers}
            if "layer" in request.path_params:
                arguments["layer"] = request.path_params["layer"]
            pixels = self.picture(request.path_params["picture"])
            return as_answer(await self.ask(request, name, pixels=pixels, **arguments), kind)

        return respond

    async def switched(self, request: Request) -> Response:
        off = [
            (layer, number(channel))
            for layer, _, channel in (one.rpartition(".") for one in listed(request.query_params.get("off", "")))
        ]
        without = listed(request.query_params.get("without", ""))
        pixels = self.picture(request.path_params["picture"])
        return as_json(await self.ask(request, "see.answers", pixels=pixels, off=off, without=without))

    async def saliency(self, request: Request) -> Response:
        pixels = self.picture(request.path_params["picture"])
        method = request.query_params.get("method", "gradient")
        label = number(request.query_params.get("label", ""))
        return as_answer(await self.ask(request, "see.saliency", pixels=pixels, label=label, method=method), PNG)

    async def occlusion(self, request: Request) -> Response:
        pixels = self.picture(request.path_params["picture"])
        label = number(request.query_params.get("label", ""))
        return as_answer(await self.ask(request, "see.occlusion", pixels=pixels, label=label), PNG)

    def about_unit(self, name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            layer, channel = request.path_params["layer"], number(request.path_params["channel"])
            return as_answer(await self.ask(request, name, layer=layer, channel=channel), kind)

        return respond

    # --- teach ----------------------------------------------------------------------------------------------------

    async def teach_picture(self, request: Request) -> Response:
        began = time.monotonic()
        look = await self.look(request, answer=False, keep=False)
        features = await self.ask(request, "teach.features", about=look.pixels.id, pixels=look.pixels)
        self.features.keep(look.pixels.id, features)
        return as_json({"picture": look.pixels.id, "seconds": time.monotonic() - began})

    async def teach(self, request: Request) -> Response:
        async with self.body(request, MAX_JSON_BYTES) as content:
            named, about = piles_of(content), digest(content)
        piles = [(name, [self.features.get(one, "picture") for one in pictures]) for name, pictures in named]
        document, head = await self.ask(request, "teach.teach", about=about, wrong="bad-request", piles=piles)
        return as_json({"head": self.heads.keep(digest(head), head), **document})

    async def head_answers(self, request: Request) -> Response:
        head = self.heads.get(request.path_params["head"], "classifier")
        look = await self.look(request, answer=False)
        document = await self.ask(request, "teach.head_answers", about=look.pixels.id, head=head, pixels=look.pixels)
        return as_json({"picture": look.pixels.id, **document})

    async def head_saliency(self, request: Request) -> Response:
        head = self.heads.get(request.path_params["head"], "classifier")
        pixels = self.picture(request.query_params.get("picture", ""))
        label = number(request.query_params.get("label", ""))
        return as_answer(await self.ask(request, "teach.head_saliency", head=head, pixels=pixels, label=label), PNG)

    async def keep_head(self, request: Request) -> Response:
        head = self.heads.get(request.path_params["head"], "classifier")
        return as_json(await self.ask(request, "teach.keep_head", head=head))

    # --- search, motion -------------------------------------------------------------------------------------------

    async def search(self, request: Request) -> Response:
        return await self._picture_to(request, "search.matches", keep=True)

    async def frame(self, request: Request) -> Response:
        return await self._picture_to(request, "motion.frame", keep=False)

    async def _picture_to(self, request: Request, name: str, *, keep: bool) -> Response:
        look = await self.look(request, answer=False, keep=keep)
        document = await self.ask(request, name, about=look.pixels.id, pixels=look.pixels)
        return as_json({"picture": look.pixels.id, **document})

    async def thumbnail(self, request: Request) -> Response:
        shown = number(request.path_params["number"])
        return as_answer(await self.ask(request, "search.thumbnail", number=shown), "image/jpeg")

    # --- what they have in common ---------------------------------------------------------------------------------

    async def look(self, request: Request, *, answer: bool, keep: bool = True) -> Look:
        """The picture in the body of a request, decoded and kept, unless there will be many that nobody asks about."""
        async with self.body(request, MAX_FILE_BYTES) as content:
            key = f"picture:{await asyncio.to_thread(digest, content)}"
            outcome = await self._outcome(request, LOOK, {"content": content, "answer": answer}, key)
        look: Look = value_of(outcome, "unknown")
        if keep:
            self.pictures.keep(look.pixels.id, look.pixels)
        return look

    async def ask(
        self, request: Request, name: str, *, about: str = "", wrong: str = "unknown", **arguments: Any
    ) -> Any:
        """The answer of the worker. ``about``: what of the question its address does not say. ``wrong``: the kind of error
        that an argument is which does not exist."""
        key = f"{name} {request.scope['path']}?{request.scope['query_string']} {about}"
        return value_of(await self._outcome(request, name, arguments, key), wrong)

    async def _outcome(self, request: Request, name: str, arguments: Mapping[str, Any], key: str) -> Outcome:
        try:
            asked = self.desk.ask(name, arguments, key=key)
        except BusyError:
            raise Rejected("busy", "too many questions wait already; ask again in some seconds") from None
        except LostError:
            raise Rejected("too-slow", ASKED_BEFORE, 422) from None
        outcome = asyncio.wrap_future(asked)
        gone = asyncio.create_task(left(request))
        both: set[asyncio.Future[Any]] = {outcome, gone}
        try:
            await asyncio.wait(both, timeout=WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not outcome.done():
                asked.cancel()
                raise ClientDisconnect
            if not outcome.done() and asked.cancel():
                kind = "busy" if self.desk.status == "ready" else "starting"
                raise Rejected(kind, "the worker has not come to this question; ask again in some seconds")
            return await outcome
        except LostError as error:
            if error.again:
                raise Rejected("too-slow", ASKED_BEFORE, 422) from None
            text = "the worker took too long over this question or crashed, and is started again; try another picture"
            raise Rejected("too-slow", text) from None
        except asyncio.CancelledError:
            if outcome.cancelled():  # the desk was closed
                raise Rejected("busy", "the server ends") from None
            raise
        finally:
            gone.cancel()
            outcome.cancel()  # nobody looks at it any more

    @contextlib.asynccontextmanager
    async def body(self, request: Request, most: int) -> AsyncIterator[bytes]:
        """What a client sends, at most so many bytes and in good time. Held against the limit of all until it is used."""
        size = request.headers.get("content-length", "")
        if size.isdecimal() and (len(size) > 12 or int(size) > most):
            raise Rejected("too-large", f"this is larger than {most >> 20} MiB; send a smaller file")
        content = bytearray()
        try:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    async for part in request.stream():
                        content += part
                        self.held += len(part)
                        if len(content) > most:
                            raise Rejected("too-large", f"this is larger than {most >> 20} MiB; send a smaller file")
                        if self.held > MAX_HELD_BYTES:
                            raise Rejected("busy", "too much is being sent at once; try again in some seconds")
            except TimeoutError:
                text = f"the file did not arrive in {BODY_SECONDS:.0f} s; send a smaller one"
                raise Rejected("bad-request", text, 408, connection="close") from None
            if not content:
                raise Rejected("bad-request", "the body of this request is empty; it must be the content of a file")
            yield bytes(content)
        finally:
            self.held -= len(content)


PNG, JSON = "image/png", "application/json"
ASKED_BEFORE = "a worker did not live to answer this before, so it is not asked again; try another picture"


async def left(request: Request) -> None:
    """Until the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def value_of(outcome: Outcome, wrong: str) -> Any:
    if isinstance(outcome, Done):
        return outcome.value
    kind = wrong if outcome.kind == "unknown" else outcome.kind
    raise Rejected(kind, outcome.text)


def as_json(document: Mapping[str, Any], status: int = 200, **headers: str) -> Response:
    content = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Response(content, status, {"cache-control": "no-store", "content-type": JSON, **headers})


def as_answer(value: Any, kind: str) -> Response:
    if kind == JSON:
        return as_json(value)
    return Response(value, headers={"content-type": kind, "cache-control": "no-store"})


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise Rejected("unknown", f"{printable(text)[:60]!r} is no number of a channel, place, class or picture")
    return int(text)


def listed(text: str) -> list[str]:
    return [one for one in text.split(",") if one]


def piles_of(content: bytes) -> list[tuple[str, list[str]]]:
    """The names and the pictures of piles. Raises :class:`Rejected` for anything else than a list of these."""

    def constant(name: str) -> None:
        raise ValueError(name)

    wanted = '{"piles": [{"name": text, "pictures": [IDs]}, ...]}'
    try:
        document = json.loads(content, parse_constant=constant)
        piles = [(pile["name"], pile["pictures"]) for pile in document["piles"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Rejected("bad-request", f"the body must be {wanted}") from None
    for name, pictures in piles:
        if not isinstance(pictures, list) or not all(isinstance(one, str) for one in pictures):
            raise Rejected("bad-request", f"the pictures of a pile must be a list of IDs: {wanted}")
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not is_text(name):
            raise Rejected(
                "bad-request", f"the name of a pile must be a text of 1 to {MAX_NAME} characters on one line"
            )
    if sum(len(pictures) for _, pictures in piles) > KEPT_FEATURES:
        raise Rejected("bad-request", f"these piles have more than {KEPT_FEATURES:,} pictures; take fewer")
    return piles


def is_text(name: str) -> bool:
    """Whether it is one line that can be written: no control characters, no halves of a pair."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name)


def routes(service: Service) -> list[Route]:
    """Every address there is."""
    picture, unit = "/api/pictures/{picture}", "/api/units/{layer}/{channel}"
    about, of_unit = service.about_picture, service.about_unit
    return [
        *(Route(path, service.page) for path in PAGES),
        Route("/static/{name:path}", service.static),
        Route("/health", service.health),
        Route("/api/model", service.model),
        Route("/api/pictures", service.new_picture, methods=["POST"]),
        Route("/api/samples", service.sample_pictures),
        Route(picture, service.known_picture),
        Route(f"{picture}/square.png", about("see.square_png", PNG)),
        Route(f"{picture}/input.png", about("see.input_png", PNG)),
        Route(f"{picture}/views", about("see.views", JSON)),
        Route(f"{picture}/answers", service.switched),
        Route(f"{picture}/maps/{{layer}}.png", about("see.maps_sheet", PNG)),
        Route(f"{picture}/maps/{{layer}}", about("see.maps", JSON)),
        Route(f"{picture}/maps/{{layer}}/{{channel}}", about("see.one_map", JSON, "channel")),
        Route(f"{picture}/window/{{layer}}/{{channel}}/{{y}}/{{x}}", about("see.window", JSON, "channel", "y", "x")),
        Route(f"{picture}/saliency.png", service.saliency),
        Route(f"{picture}/occlusion.png", service.occlusion),
        Route(unit, of_unit("units.unit", JSON)),
        Route(f"{unit}/optimal.png", of_unit("units.optimal_png", PNG)),
        Route(f"{unit}/crops.png", of_unit("units.crops_png", PNG)),
        Route(f"{unit}/kernel.png", of_unit("units.kernel_png", PNG)),
        Route("/api/teach/pictures", service.teach_picture, methods=["POST"]),
        Route("/api/teach", service.teach, methods=["POST"]),
        Route("/api/teach/{head}/answers", service.head_answers, methods=["POST"]),
        Route("/api/teach/{head}/saliency.png", service.head_saliency),
        Route("/api/teach/{head}/keep", service.keep_head, methods=["POST"]),
        Route("/api/search", service.search, methods=["POST"]),
        Route("/api/index/{number}.jpg", service.thumbnail),
        Route("/api/frames", service.frame, methods=["POST"]),
    ]


def application(desk: Desk, place: Place, files: Mapping[str, Asset] | None = None) -> ASGIApp:
    """All of it as one application, behind its :class:`Guard`."""
    service = Service(desk, place, assets() if files is None else files)
    handlers: Any = {Rejected: _rejected, HTTPException: _no_route}
    return Guard(ExceptionMiddleware(Router(routes(service), redirect_slashes=False), handlers), place)


async def _rejected(request: Request, error: Rejected) -> Response:
    return rejection(error)


async def _no_route(request: Request, error: HTTPException) -> Response:
    if error.status_code == 405:
        text = f"{printable(request.method)[:20]} is not understood at this address"
        return rejection(Rejected("bad-request", text, 405, **(error.headers or {})))
    return rejection(Rejected("unknown", "there is nothing at this address; docs/serving.md lists all"))


def rejection(error: Rejected) -> Response:
    again = {"retry-after": "3"} if error.status == 503 else {}
    return as_json({"error": error.text, "kind": error.kind}, error.status, **again, **error.headers)


@dataclass(frozen=True)
class Guard:
    """Before the routes: whether the request is meant for this server and comes from its own page. Behind them: headers that
    forbid the browser what the page does not need, and no status of 5xx but 503."""

    app: ASGIApp
    place: Place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        try:
            if (why := self.objection(scope)) is not None:
                await rejection(why)(scope, receive, send_guarded)
            else:
                await self.app(scope, receive, send_guarded)
        except ClientDisconnect:
            return
        except Exception:
            with contextlib.suppress(OSError, ValueError):  # nobody reads the terminal
                traceback.print_exc()
            if not started:
                failed = Rejected(
                    "failed", "this request could not be answered; the terminal of alexnet serve says why"
                )
                await rejection(failed)(scope, receive, send_guarded)

    def objection(self, scope: Scope) -> Rejected | None:
        """Why a request is not for this server, or not from its page."""
        if scope["http_version"] not in ("1.0", "1.1"):
            return Rejected("bad-request", "this server speaks HTTP/1.1")
        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_ADDRESS_BYTES:
            return Rejected("bad-request", "this address is too long", 414)
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
            return Rejected("bad-request", "the headers of this request are too long", 431)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        hosts = [value for name, value in headers if name == "host"]
        if len(hosts) != 1 or not self.place.is_named(hosts[0]):
            text = f"this is {self.place.url}, asked under another name; open this address itself"
            return Rejected("refused", text, 421)
        origins = [value for name, value in headers if name == "origin"]
        if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):
            return Rejected("refused", "a page of another address asks; only this server's own page may")
        found = dict(headers)
        elsewhere = found.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if elsewhere and not (found.get("sec-fetch-mode") == "navigate" and is_page(scope)):
            return Rejected("refused", "a page of another address asks; only this server's own page may")
        return None


def is_page(scope: Scope) -> bool:
    """Whether others may link to this address."""
    path = scope["path"]
    return scope["method"] == "GET" and (path in PAGES or path.startswith("/unit/"))


class Connection(H11Protocol):
    """Of uvicorn, with an eye on the time: a client that does not send the head of a request, or does not take its answer, is
    let go."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.patience: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect("head", HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        for what in list(self.patience):
            self._content_with(what)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except LocalProtocolError:  # what follows an answer that came before the end of the question is no HTTP
            self.transport.abort()
            return
        if self.cycle is None or self.cycle.response_complete:
            self._expect("head", HEADER_SECONDS)
        else:
            self._content_with("head")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect("answer", WRITE_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._content_with("answer")

    def _expect(self, what: str, seconds: float) -> None:
        if what not in self.patience:
            self.patience[what] = self.loop.call_later(seconds, self.transport.abort)

    def _content_with(self, what: str) -> None:
        if what in self.patience:
            self.patience.pop(what).cancel()


class Server(uvicorn.Server):
    """Of uvicorn, for an application and its desk: it ends with SIGINT, SIGTERM and SIGHUP, which then do not end the program as
    well, or when its desk fails."""

    def __init__(self, app: ASGIApp, desk: Desk, on_ready: Callable[[Ready], bool] = lambda ready: True) -> None:
        """``on_ready``: called in a thread of its own once the worker is ready; the server ends if it answers False."""
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=MAX_CONNECTIONS,
                h11_max_incomplete_event_size=MAX_HEADER_BYTES,
                timeout_graceful_shutdown=END_SECONDS,  # type: ignore[arg-type]  # halves of seconds do as well
            )
        )
        self.desk, self.on_ready = desk, on_ready
        self.failure: Exception | None = None
        """Why the server has ended by itself."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.greeting = asyncio.create_task(self._greet())

    async def _greet(self) -> None:
        try:
            ready = await asyncio.wrap_future(self.desk.ready)
            if not await asyncio.to_thread(self.on_ready, ready):  # never False again, whatever a signal said meanwhile
                self.should_exit = True
        except Exception as error:
            self.failure, self.should_exit = error, True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.to_thread(self.desk.close)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [n for n in (SIGINT, SIGTERM, SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
        before = {n: signal.signal(n, self.handle_exit) for n in numbers}
        try:
            yield
        finally:
            for n, handler in before.items():
                signal.signal(n, handler)


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens at ``host``."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(MAX_CONNECTIONS)
    except BaseException:
        listening.close()
        raise
    listening.setblocking(False)
    return listening
