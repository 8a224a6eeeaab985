"""The local page: a network to look into, to teach and to search with, in a browser on the same machine."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet.core.console import say
from alexnet.core.errors import AlexNetError, UsageError, printable

if TYPE_CHECKING:
    from alexnet.page.worker import Ready

PORT, KEEP = 2012, "taught"


def serve(
    model: str | Path,
    *,
    data: str | Path | None = None,
    index: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = PORT,
    keep: str | Path = KEEP,
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    best: bool = False,
    data_root: str | Path | None = None,
    on_ready: Callable[[str, Ready], Any] | None = None,
) -> None:
    """Serve the page of a model until SIGINT, SIGTERM or SIGHUP.

    ``data``: images whose crops show what a unit looks for, by default those of the run. ``index``: of ``alexnet index``, to
    search in. ``keep``: the folder that model folders of taught classifiers are kept in, made when the first is. ``port``: 0 for
    any that is free. ``device``, ``threads``, ``workers``, ``best`` and ``data_root`` are those of the other verbs.

    ``on_ready`` is given the address and what the worker says of the model, once questions can be answered, in a thread of its
    own; it ends the server by returning False. What it raises is raised here.

    Raises :class:`UsageError` for a host or port that cannot be, :class:`AlexNetError` for a port that is taken, and what opening
    the model, its data or the index raises."""
    _require_libraries()
    from alexnet.page.desk import Desk, Process
    from alexnet.page.server import Place, Server, application
    from alexnet.page.worker import Opening

    opening = Opening(
        model=str(model),
        data=None if data is None else str(data),
        index=None if index is None else str(index),
        keep=str(keep),
        device=device,
        threads=threads,
        workers=workers,
        best=best,
        data_root=None if data_root is None else str(data_root),
    )
    with _listening(host, port) as listening:
        place = Place(*listening.getsockname()[:2])
        if not place.is_loopback:
            say(
                "warning: everybody who can reach this machine can use this page, without a password; leave out --host to "
                "serve this machine alone"
            )
        desk = Desk(lambda: Process(opening))
        server = Server(
            application(desk, place), desk, lambda ready: on_ready is None or on_ready(place.url, ready) is not False
        )
        try:
            server.run(sockets=[listening])
        finally:
            desk.close()
    if server.failure is not None:
        raise server.failure


def _require_libraries() -> None:
    if not (find_spec("starlette") and find_spec("uvicorn")):
        raise AlexNetError('serve needs Starlette and uvicorn: pip install "alexnet[serve]"')


def _listening(host: str, port: int) -> socket.socket:
    from alexnet.page.server import bound

    if not 0 <= port < 1 << 16:
        raise UsageError(f"--port is {port}; it must be at least 0 and at most 65535")
    try:
        return bound(host, port)
    except (socket.gaierror, UnicodeError):
        raise UsageError(
            f"--host {printable(host)[:60]}: no such address; leave it out, or name one of this machine"
        ) from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AlexNetError(
                f"port {port} is taken by another program; take another --port, or 0 for any that is free"
            ) from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(
                f"--host {printable(host)[:60]} is not an address of this machine; leave it out, or name one"
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise AlexNetError(f"port {port} may not be used by this user; take a --port from 1024 on") from None
        raise


def check(url: str) -> float:
    """Ask a server that is ready as a browser would: the page, the model, a picture and its maps. The seconds that it took, or
    :class:`AlexNetError` that says which answer is wrong."""
    import http.client
    import io
    import json
    from urllib.parse import urlsplit

    from PIL import Image

    buffer = io.BytesIO()
    Image.linear_gradient("L").save(buffer, "PNG")
    began = time.monotonic()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    document: dict[str, Any] = {}
    for method, path, body in (
        ("GET", "/health", None),
        ("GET", "/", None),
        ("GET", "/api/model", None),
        ("POST", "/api/pictures", buffer.getvalue()),
        ("GET", "/api/pictures/{picture}/input.png", None),
    ):
        connection.request(method, path.format(**document), body)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise AlexNetError(
                f"{method} {path} was answered with {answer.status}: {printable(content.decode(errors='replace'))[:200]}"
            )
        document = json.loads(content) if method == "POST" else document
    connection.close()
    return time.monotonic() - began
