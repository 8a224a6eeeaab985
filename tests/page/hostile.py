"""What strangers send to a server: malformed, cut, slow, enormous and misdirected requests, as they go down the wire."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Hostile:
    """Bytes sent one after the other over one connection, with a pause between them, and what may come back: one of ``statuses``,
    or, with ``silent``, nothing as well."""

    name: str
    parts: tuple[bytes, ...]
    statuses: tuple[int, ...] = (400,)
    silent: bool = False
    hang_up: bool = False
    """Whether the client leaves without waiting for an answer."""
    slow: bool = False
    """Whether the server has to wait until its patience ends."""


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A well-formed request; ``headers`` with ``_`` for ``-``, and those of the length and host unless they are given."""
    given = {"host": "HOST", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if body or method == "POST":
        given.setdefault("content-length", str(len(body)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items() if value)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "surrogateescape") + body


def piles(value: object) -> bytes:
    return request("POST", "/api/teach", value if isinstance(value, bytes) else json.dumps(value).encode())


def hostile_requests() -> Iterator[Hostile]:
    """``HOST`` in their bytes is the address of the server."""
    ok = request("GET", "/health")
    # --- what is no HTTP
    yield Hostile("nothing at all", (), silent=True, hang_up=True)
    yield Hostile("a line without end", (b"GET /" + b"a" * 200_000,))
    yield Hostile("text", (b"hello\r\n\r\n",))
    yield Hostile("zeros", (bytes(4096),))
    yield Hostile("TLS", (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),))
    yield Hostile("HTTP/2", (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",), (400, 421))
    yield Hostile("another version", (ok.replace(b"HTTP/1.1", b"HTTP/9.9"),))
    yield Hostile("no version", (b"GET /health\r\n\r\n",))
    yield Hostile("bytes in the path", (b"GET /\xff\xfe HTTP/1.1\r\nhost: HOST\r\n\r\n",))
    yield Hostile("a blank in the path", (request("GET", "/a b"),))
    yield Hostile("a null in a header", (request("GET", "/", x="a\0b"),))
    yield Hostile("a header without a colon", (b"GET / HTTP/1.1\r\nhost: HOST\r\nnonsense\r\n\r\n",))
    yield Hostile("a folded header", (b"GET /health HTTP/1.1\r\nhost: HOST\r\nx: a\r\n b\r\n\r\n",), (200, 400))
    yield Hostile("a huge header", (request("GET", "/", cookie="a" * 100_000),), (400, 431))
    yield Hostile("ten thousand headers", (request("GET", "/", **{f"x{i}": "1" for i in range(10_000)}),), (400, 431))
    yield Hostile("a huge query", (request("GET", "/?" + "a=1&" * 20_000),), (400, 414))
    # --- wrong hosts and origins
    for host in (
        "evil.example",
        "evil.example:PORT",
        "HOST.evil.example",
        "127.0.0.1:1",
        "localhost",
        "HOST:80",
        "@HOST",
        "a b",
        "[::1",
    ):
        yield Hostile(f"host {host}", (request("GET", "/", host=host),), (400, 421))
    yield Hostile("host of digits", (request("GET", "/", host="1" * 500),), (400, 421))
    yield Hostile("no host", (request("GET", "/health", host=""),), (400, 421))
    yield Hostile("no host, HTTP/1.0", (b"GET /health HTTP/1.0\r\n\r\n",), (421,))
    yield Hostile("two hosts", (b"GET /health HTTP/1.1\r\nhost: HOST\r\nhost: evil.example\r\n\r\n",), (400, 421))
    for origin in (
        "http://evil.example",
        "null",
        "https://HOST",
        "http://HOST.evil.example",
        "http://localhost:1",
        "file://",
    ):
        yield Hostile(f"origin {origin}", (request("POST", "/api/pictures", b"x", origin=origin),), (403,))
    yield Hostile(
        "an image on another page",
        (request("GET", "/api/model", sec_fetch_site="cross-site", sec_fetch_mode="no-cors"),),
        (403,),
    )
    yield Hostile(
        "a form on another page",
        (request("POST", "/api/frames", b"x", sec_fetch_site="same-site", sec_fetch_mode="navigate"),),
        (403,),
    )
    yield Hostile("a proxy", (b"GET http://evil.example/ HTTP/1.1\r\nhost: evil.example\r\n\r\n",), (400, 421))
    yield Hostile("a proxy to here", (b"GET http://HOST/health HTTP/1.1\r\nhost: HOST\r\n\r\n",), (400, 404))
    yield Hostile(
        "a tunnel", (b"CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example:443\r\n\r\n",), (400, 404, 405, 421)
    )
    # --- addresses
    for path in (
        "/static/../server.py", "/static/..%2fserver.py", "/static/%2e%2e/%2e%2e/page/server.py",
        "/static//etc/passwd", "/static/%2fetc%2fpasswd", "/static/..\\server.py", "/static/index.html%00.png",
        "/static/", "/static", "//evil.example/", "/../../etc/passwd", "/api", "/api/", "/api/nothing", "/index.html",
        "/see/", "/see/deeper", "/unit/conv1", "/api/pictures/../model", "/api/pictures/%2e%2e/views", "/%", "/%zz",
        "/api/units/conv1/-1", "/api/units/conv1/1e3", "/api/units/conv1/1.5", "/api/units/conv1/NaN",
        "/api/units/conv1/" + "9" * 5000, "/api/units/conv1/999999999", "/api/units/conv1/%D9%A3",
        "/api/units/none/0", "/api/units/..%2f..%2fetc/0", "/api/units/conv1.weight/0",
        "/api/units/" + "a" * 8000 + "/0", "/api/units/%00/0", "/api/units/%ff%fe/0", "/api/units/__class__/0",
        "/api/index/0.jpg", "/api/index/-1.jpg", "/api/index/..%2f0.jpg", "/api/index/99999999999.jpg",
        "/api/pictures/0000000000000000/views", "/api/pictures/x/maps/conv1", "/api/pictures/%F0%9F%98%80/input.png",
        "/api/pictures/0/window/conv1/0/0/0", "/api/pictures/0/saliency.png?label=x",
        "/api/teach/0000000000000000/saliency.png?picture=0&label=0", "/api/pictures/0/answers?off=conv1", "*",
    ):  # fmt: skip
        yield Hostile(f"GET {path[:60]}", (request("GET", path),), (400, 404, 414))
    # --- methods
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "get", "A" * 500):
        yield Hostile(f"{method[:20]} /api/pictures", (request(method, "/api/pictures"),), (400, 405))
    yield Hostile("POST /", (request("POST", "/", b"x"),), (405,))
    yield Hostile("GET /api/pictures", (request("GET", "/api/pictures"),), (405,))
    yield Hostile("HEAD /api/pictures", (request("HEAD", "/api/pictures", connection="close"),), (405,))
    yield Hostile("a web socket", (request("GET", "/api/frames", upgrade="websocket", connection="upgrade"),), (405,))
    # --- bodies
    upload = "/api/pictures"
    yield Hostile("no body", (request("POST", upload),))
    yield Hostile("no length", (request("POST", upload, content_length=""),))
    for length in ("-1", "1e3", "0x10", "9" * 30, "5, 6", "٣", ""):
        yield Hostile(
            f"length {length[:9]}",
            (f"POST {upload} HTTP/1.1\r\nhost: HOST\r\ncontent-length: {length}\r\n\r\nabc".encode(),),
            (400, 413, 422),
        )
    yield Hostile(
        "two lengths",
        (f"POST {upload} HTTP/1.1\r\nhost: HOST\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".encode(),),
    )
    yield Hostile("a length of a terabyte", (request("POST", upload, content_length=str(1 << 40)),), (413,))
    yield Hostile(
        "a length of a terabyte, and some of it",
        (request("POST", upload, content_length=str(1 << 40)), b"x" * 100_000),
        (413,),
    )
    yield Hostile("a cut body", (request("POST", upload, content_length="1000"), b"x" * 10), silent=True, hang_up=True)
    yield Hostile("a cut head", (b"POST /api/pictures HT",), silent=True, hang_up=True)
    yield Hostile("left before the answer", (request("POST", upload, b"\xff\xd8\xff"),), silent=True, hang_up=True)
    chunked = f"POST {upload} HTTP/1.1\r\nhost: HOST\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    yield Hostile("chunks of no number", (chunked, b"zz\r\nabc\r\n"))
    yield Hostile("a chunk of a terabyte", (chunked, b"10000000000\r\nabc"), silent=True, hang_up=True)
    yield Hostile("a chunk that is longer than it says", (chunked, b"1\r\nabc\r\n"))
    yield Hostile("empty chunks", (chunked, b"0\r\n\r\n"))
    yield Hostile(
        "length and chunks",
        (chunked.replace(b"\r\n\r\n", b"\r\ncontent-length: 3\r\n\r\n"), b"1\r\na\r\n0\r\n\r\n"),
        (400, 422),
    )
    yield Hostile("another encoding", (chunked.replace(b"chunked", b"gzip"), b"x"), (400, 501))
    yield Hostile(
        "one after a body that is too large",
        (request("POST", upload, content_length=str(1 << 40)), ok, b"\0" * 1000),
        (413,),
    )
    yield Hostile("a body for GET", (request("GET", "/health", b"x" * 1000),), (200,))
    yield Hostile(
        "a form",
        (
            request(
                "POST",
                upload,
                b"--x\r\ncontent-disposition: form-data\r\n\r\n",
                content_type="multipart/form-data; boundary=x",
            ),
        ),
        (422,),
    )
    # --- JSON
    for name, value in (
        ("no JSON", b"{"),
        ("a number", 1),
        ("null", None),
        ("a list", []),
        ("no piles", {}),
        ("piles of a text", {"piles": "ab"}),
        ("a pile of a number", {"piles": [1]}),
        ("a pile without pictures", {"piles": [{"name": "a"}]}),
        ("pictures of a text", {"piles": [{"name": "a", "pictures": "abc"}]}),
        ("pictures of numbers", {"piles": [{"name": "a", "pictures": [1, 2]}]}),
        ("an empty name", {"piles": [{"name": "", "pictures": []}]}),
        ("a name of lines", {"piles": [{"name": "a\nb", "pictures": []}]}),
        ("a name of half a character", {"piles": [{"name": "\ud800", "pictures": []}]}),
        ("a long name", {"piles": [{"name": "a" * 100_000, "pictures": []}]}),
        ("a name that is a path", {"piles": [{"name": "../../x", "pictures": ["../../etc/passwd"]}]}),
        ("pictures that are gone", {"piles": [{"name": "a", "pictures": ["0"]}, {"name": "b", "pictures": ["1"]}]}),
        ("ten thousand piles", {"piles": [{"name": str(i), "pictures": []} for i in range(10_000)]}),
        ("no pile", {"piles": []}),
        ("one pile", {"piles": [{"name": "a", "pictures": []}]}),
        ("NaN", b'{"piles": NaN}'),
        ("infinity", b'{"piles": [{"name": "a", "pictures": [-Infinity]}]}'),
        ("deep lists", b"[" * 200_000),
        ("deep objects", b'{"piles":' * 50_000),
        ("a long number", b'{"piles": ' + b"9" * 100_000 + b"}"),
        ("no UTF-8", b'{"piles": "\xff\xfe"}'),
        ("UTF-16", '{"piles": []}'.encode("utf-16")),
        ("huge", b" " * ((1 << 20) + 1)),
    ):
        yield Hostile(f"JSON: {name}", (piles(value),), (400, 404, 413))
    # --- slow
    yield Hostile("silent for ever", (b"",), silent=True, slow=True)
    yield Hostile("a head that does not end", (b"GET / HTTP/1.1\r\n", b"host: HOST\r\n"), silent=True, slow=True)
    yield Hostile("a second head that does not end", (ok, b"GET / HT"), (200,), slow=True)
    yield Hostile("a body that does not end", (request("POST", upload, content_length="1000"), b"x"), (408,), slow=True)


def sent(hostile: Hostile, host: str, port: int, *, patience: float = 30.0) -> tuple[int, bytes]:
    """Status and body of the answer; 0 where there is none, because the server or the client has hung up."""
    address = f"{host}:{port}".encode()
    with socket.create_connection((host, port), patience) as wire:
        try:
            for part in hostile.parts:
                wire.sendall(part.replace(b"HOST", address).replace(b"PORT", str(port).encode()))
                time.sleep(0.05 if hostile.slow else 0.0)
            if hostile.hang_up:
                return 0, b""
            answer = _read(wire, to_the_end=hostile.slow)
        except (ConnectionResetError, BrokenPipeError):
            return 0, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head.startswith(b"HTTP/") else 0), body


def _read(wire: socket.socket, *, to_the_end: bool) -> bytes:
    """One answer, or all that comes until the server hangs up."""
    answer = b""
    while to_the_end or not _is_whole(answer):
        try:
            part = wire.recv(1 << 16)
        except ConnectionResetError:
            return answer
        if not part:
            return answer
        answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return answer if to_the_end else head + b"\r\n\r\n" + body[: _length(head)]


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = _length(head)
    return bool(end) and length is not None and len(body) >= length


def _length(head: bytes) -> int | None:
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    return int(lengths[0]) if lengths else None


def faults_of(hostile: Hostile, status: int) -> list[str]:
    """What is wrong with a status."""
    if status == 0:
        return [] if hostile.silent else ["no answer"]
    return [] if status in hostile.statuses else [f"answered with {status}"]
