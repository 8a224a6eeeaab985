"""The server of the page: who is answered with what, and that the worker behind it may die at any moment."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rooms import SMALL, room_of
from serving import PLACE, Client, Fake, Message, client_of, listening

from alexnet.cli import main
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.decode import MAX_FILE_BYTES
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from alexnet.page import desk as desks
from alexnet.page import server as servers
from alexnet.page.desk import BusyError, Desk, LostError
from alexnet.page.room import Room
from alexnet.page.server import Place, Server, application, assets, bound
from alexnet.page.worker import LOOK, QUESTIONS, Done, Look, Refused, look


def png(seed: int = 0, height: int = 80, width: int = 60) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


# --- the desk -----------------------------------------------------------------------------------------------------------


class Gate:
    """A worker that answers each question with its number, notes what it was asked together, and waits at the number 0 until it
    is opened. It dies over the numbers in ``deadly``, and hangs over those in ``slow``."""

    def __init__(self, *, deadly: tuple[int, ...] = (), slow: tuple[int, ...] = ()) -> None:
        self.deadly, self.slow, self.opened, self.entered = deadly, slow, threading.Event(), threading.Event()
        self.asked: list[tuple[str, list[int]]] = []
        self.started = 0

    def start(self) -> Fake:
        self.started += 1
        return Fake(self.respond)

    def respond(self, worker: Fake, message: Message) -> list[Done]:
        name, several = message
        numbers = [one["n"] for one in several]
        self.asked.append((name, numbers))
        if 0 in numbers:
            self.entered.set()
            self.opened.wait(30)
        if set(numbers) & set(self.deadly):
            raise EOFError
        if set(numbers) & set(self.slow):
            worker.hang()
        return [Done(n) for n in numbers]

    def desk(self, **seconds: float) -> Desk:
        return Desk(
            self.start, seconds={**QUESTIONS, **{name.replace("_", "."): limit for name, limit in seconds.items()}}
        )


def asked(desk: Desk, n: int, name: str = LOOK) -> Any:
    return desk.ask(name, {"n": n}, key=f"{name} {n}")


@pytest.fixture
def gate() -> Iterator[tuple[Gate, Desk]]:
    """A desk whose worker is busy with the number 0."""
    gate = Gate(deadly=(13,))
    desk = gate.desk()
    first = asked(desk, 0, "see.maps")
    assert gate.entered.wait(30)
    yield gate, desk
    gate.opened.set()
    assert first.result(30) == Done(0)
    desk.close()


def test_pictures_that_wait_at_the_same_moment_are_asked_together(gate):
    held, desk = gate
    futures = [asked(desk, n) for n in (1, 2)] + [asked(desk, 3, "see.maps")] + [asked(desk, n) for n in (4, 5)]
    held.opened.set()
    assert [future.result(30) for future in futures] == [Done(n) for n in (1, 2, 3, 4, 5)]
    assert held.asked == [("see.maps", [0]), (LOOK, [1, 2, 4, 5]), ("see.maps", [3])]


def test_those_who_were_answered_together_are_waited_for(gate, monkeypatch):
    held, desk = gate
    monkeypatch.setattr(desks, "GATHER_SECONDS", 20.0)
    futures = [asked(desk, n) for n in (1, 2, 3)]
    held.opened.set()
    wait(futures, 30)
    futures = [asked(desk, 4)]
    time.sleep(0.05)
    futures += [asked(desk, 5), asked(desk, 6)]
    began = time.monotonic()
    wait(futures, 30)
    assert time.monotonic() - began < 10
    monkeypatch.setattr(desks, "GATHER_SECONDS", 0.01)
    for n in (7, 8):
        assert asked(desk, n).result(30) == Done(n)
    assert held.asked == [("see.maps", [0]), (LOOK, [1, 2, 3]), (LOOK, [4, 5, 6]), (LOOK, [7]), (LOOK, [8])]


def test_a_batch_has_a_limit_and_so_has_the_queue(gate):
    held, desk = gate
    futures = [asked(desk, n + 100) for n in range(desks.MAX_WAITING)]
    with pytest.raises(BusyError):
        asked(desk, 1)
    held.opened.set()
    wait(futures, 30)
    assert [len(numbers) for _, numbers in held.asked] == [1, desks.BATCH, desks.MAX_WAITING - desks.BATCH]


def test_quick_questions_go_first_but_none_waits_for_ever(gate, monkeypatch):
    held, desk = gate
    futures = [asked(desk, n, name) for n, name in ((1, "units.unit"), (2, "see.views"), (3, "see.maps"))]
    held.opened.set()
    wait(futures, 30)
    assert [numbers for _, numbers in held.asked] == [[0], [3], [2], [1]]
    monkeypatch.setattr(desks, "PATIENCE_SECONDS", -1.0)
    held.opened.clear()
    held.entered.clear()
    futures = [asked(desk, n, name) for n, name in ((0, "see.maps"), (1, "units.unit"), (2, "see.maps"))]
    held.opened.set()
    wait(futures, 30)
    assert [numbers for _, numbers in held.asked[4:]] == [[0], [1], [2]]


def test_a_question_that_nobody_waits_for_is_never_asked(gate):
    held, desk = gate
    left, stayed = asked(desk, 1, "see.maps"), asked(desk, 2, "see.maps")
    assert left.cancel()
    held.opened.set()
    assert stayed.result(30) == Done(2)
    assert [numbers for _, numbers in held.asked] == [[0], [2]]


def test_of_a_batch_over_which_a_worker_died_only_the_guilty_one_is_lost(gate):
    held, desk = gate
    futures = {n: asked(desk, n) for n in (1, 13, 2)}
    held.opened.set()
    assert futures[1].result(30) == Done(1)
    assert futures[2].result(30) == Done(2)
    with pytest.raises(LostError):
        futures[13].result(30)
    assert held.asked[1:] == [(LOOK, [1, 13, 2]), (LOOK, [1]), (LOOK, [13]), (LOOK, [2])]
    assert held.started == 3
    with pytest.raises(LostError):
        asked(desk, 13)
    assert asked(desk, 3).result(30) == Done(3)
    assert held.asked[5:] == [(LOOK, [3])], "what killed a worker was asked again"


def test_the_same_question_waiting_thrice_kills_no_more_workers_than_one(gate):
    held, desk = gate
    futures = [asked(desk, 13, "see.views") for _ in range(3)]
    held.opened.set()
    for future in futures:
        with pytest.raises(LostError):
            future.result(30)
    assert [numbers for _, numbers in held.asked] == [[0], [13], [13]], "once more, in case it was not to blame"


def test_a_question_that_takes_too_long_is_given_up_and_the_next_is_answered():
    gate = Gate(slow=(7,))
    desk = gate.desk(see_maps=0.05)
    slow, next_one = asked(desk, 7, "see.maps"), asked(desk, 8, "see.maps")
    with pytest.raises(LostError):
        slow.result(30)
    assert next_one.result(30) == Done(8)
    assert (gate.started, desk.status) == (2, "ready")
    desk.close()


def test_a_worker_that_dies_with_nothing_to_do_is_replaced(monkeypatch):
    monkeypatch.setattr(desks, "LOOK_SECONDS", 0.01)
    gate = Gate()
    workers: list[Fake] = []

    def start() -> Fake:
        workers.append(gate.start())
        return workers[-1]

    desk = Desk(start)
    desk.ready.result(30)
    workers[0].alive = False
    for _ in range(1000):
        if len(workers) > 1:
            break
        time.sleep(0.01)
    assert asked(desk, 1).result(30) == Done(1)
    assert gate.started == 2
    desk.close()


def test_a_first_worker_that_cannot_start_ends_the_desk_and_a_later_one_is_tried_again(monkeypatch, capsys):
    desk = Desk(lambda: Fake(lambda *_: [], UsageError("no such model")))
    with pytest.raises(UsageError, match="no such model"):
        desk.ready.result(30)
    with pytest.raises(BusyError):
        asked(desk, 1)
    desk.close()
    monkeypatch.setattr(desks, "RESTART_SECONDS", 0.0)
    gate, refusals = Gate(deadly=(1,)), iter([False, True, True, False, False])
    desk = Desk(lambda: Fake(gate.respond, AlexNetError("no memory")) if next(refusals) else gate.start())
    lost, found = asked(desk, 1, "see.maps"), asked(desk, 2, "see.maps")
    with pytest.raises(LostError):
        lost.result(30)
    assert found.result(30) == Done(2)
    assert capsys.readouterr().err.count("cannot be started again: no memory") == 2
    desk.close()


def test_a_worker_that_cannot_be_made_or_understood_is_replaced(monkeypatch, capsys):
    monkeypatch.setattr(desks, "RESTART_SECONDS", 0.0)
    gate = Gate()
    made = iter([lambda: Fake(lambda *_: "nonsense"), OSError, OSError, gate.start])

    def start() -> Fake:
        how = next(made)
        if how is OSError:
            raise OSError("no more processes")
        return how()

    desk = Desk(start)
    assert asked(desk, 1).result(30) == Done(1)
    assert capsys.readouterr().err.count("no more processes") == 2
    desk.close()


def test_whoever_waits_when_the_desk_closes_is_let_go(gate):
    held, desk = gate
    waiting = asked(desk, 1)
    threading.Timer(0.05, held.opened.set).start()
    desk.close()
    assert waiting.cancelled()


def test_whoever_waits_to_be_asked_again_is_let_go_as_well():
    workers = iter([Gate(deadly=(13,)).start(), Fake(lambda worker, _: worker.hang(), first=("a long start", []))])
    desk = Desk(lambda: next(workers))
    lost = asked(desk, 13)
    for _ in range(3000):
        if desk.status == "restarting":
            break
        time.sleep(0.01)
    desk.close()
    with pytest.raises(LostError):
        lost.result(30)


# --- the worker ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Room:
    return room_of("alexnet_2012", tmp_path_factory.mktemp("cache"), **SMALL)


def test_a_batch_has_the_answers_of_the_command_line_and_one_bad_picture_spoils_its_own(room):
    contents = [png(0), b"no picture", png(1, 300, 90), png(2)]
    outcomes = look(room, [(content, i != 3) for i, content in enumerate(contents)])
    for i in (0, 2):
        found = outcomes[i]
        assert isinstance(found, Done)
        assert isinstance(found.value, Look)
        predicted = room.predictor.predict(contents[i]).answers
        assert [one["label"] for one in found.value.answers or []] == [one.label for one in predicted]
        assert [one["probability"] for one in found.value.answers or []] == pytest.approx(
            [one.probability for one in predicted]
        )
        assert (found.value.width, found.value.height) == ((60, 80), (0, 0), (90, 300))[i]
        assert np.array_equal(found.value.pixels.array(), room.predictor.pixels(contents[i]))
    assert outcomes[1] == Refused("not-an-image", "the picture: not an image (begins with b'no pictu')")
    assert isinstance(outcomes[3], Done)
    assert outcomes[3].value.answers is None


def test_a_network_that_cannot_tell_classes_is_not_asked_for_them(tmp_path):
    trunk = room_of("alexnet_2012", tmp_path, new=("fc6", "fc7", "fc8"), **SMALL)
    (found,) = look(trunk, [(png(), True)])
    assert isinstance(found, Done)
    assert found.value.answers is None


def test_a_network_of_grey_pictures_is_shown_colored_ones(tmp_path):
    grey = room_of("lenet", tmp_path, preprocessing=Preprocessing(resize=28, crop=28, mean="none", channels=1))
    (found,) = look(grey, [(png(), True)])
    assert isinstance(found, Done)
    assert found.value.pixels.shape == (28, 28, 1)
    assert [one["label"] for one in found.value.answers] == [one.label for one in grey.predictor.predict(png()).answers]


# --- requests -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(room) -> Iterator[Client]:
    with client_of(room) as client:
        yield client


def error(response: Any) -> tuple[int, str]:
    document = response.json()
    assert document.keys() == {"error", "kind"}
    return response.status_code, document["kind"]


def test_a_picture_is_answered_and_can_then_be_asked_about(client, room):
    sent = client.post("/api/pictures", content=png(3))
    document = sent.json()
    best = room.predictor.predict(png(3)).answers[0]
    assert (document["width"], document["height"], len(document["answers"])) == (60, 80, 5)
    assert document["answers"][0] == {
        "label": best.label,
        "name": best.name,
        "probability": pytest.approx(best.probability),
    }
    address = f"/api/pictures/{document['picture']}"
    assert client.get(f"{address}/input.png").content[:8] == b"\x89PNG\r\n\x1a\n"
    assert client.get(f"{address}/maps/conv1").json()["shape"] == [8, 31, 31]
    assert client.get(f"{address}/maps/conv1.png").headers["content-type"] == "image/png"
    assert client.get(f"{address}/window/conv1/2/3/4").status_code == 200
    assert client.get(f"{address}/answers?off=conv1.5,conv5.7&without=normalization").json()["after"]
    assert error(client.get(f"{address}/maps/conv9")) == (404, "unknown")
    assert error(client.get(f"{address}/maps/conv1/8")) == (404, "unknown")
    assert error(client.get(f"{address}/saliency.png")) == (404, "unknown")


def test_the_last_64_pictures_are_kept(client):
    sent = [client.post("/api/pictures", content=png(i, 20, 20)).json()["picture"] for i in range(100, 165)]
    assert len(set(sent)) == 65
    assert error(client.get(f"/api/pictures/{sent[0]}/input.png")) == (404, "forgotten")
    assert all(client.get(f"/api/pictures/{one}/input.png").status_code == 200 for one in sent[1:])


@pytest.mark.parametrize(
    ("content", "status", "kind"),
    [
        (b"", 400, "bad-request"),
        (b"hello", 422, "not-an-image"),
        (png()[:200], 422, "not-an-image"),
        (b"%PDF-1.4\n", 415, "unsupported"),
        (b"P6\n999999999 999999999\n255\n", 413, "too-large"),
        (bytes(MAX_FILE_BYTES + 1), 413, "too-large"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_kind(client, content, status, kind):
    assert error(client.post("/api/pictures", content=content)) == (status, kind)


def test_the_server_takes_as_much_as_the_decoder():
    assert servers.MAX_FILE_BYTES == MAX_FILE_BYTES


def test_too_much_at_once_is_refused_and_forgotten(client, monkeypatch):
    monkeypatch.setattr(servers, "MAX_HELD_BYTES", 1000)
    response = client.post("/api/pictures", content=bytes(2000))
    assert error(response) == (503, "busy")
    assert response.headers["retry-after"] == "3"
    assert client.post("/api/pictures", content=png(0, 10, 8)).status_code == 200


def test_a_fault_of_ours_is_503_and_told_on_the_terminal(capsys):
    desk = Desk(lambda: Fake(lambda *_: [Done({"number": float("nan")})]))
    assert error(Client(application(desk, PLACE)).get("/api/model")) == (503, "failed")
    desk.close()
    assert "ValueError: Out of range float values are not JSON compliant" in capsys.readouterr().err


def test_a_fault_that_cannot_be_told_is_503_as_well(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    desk = Desk(lambda: Fake(lambda *_: [Done({"number": float("nan")})]))
    monkeypatch.setattr(sys, "stderr", Gone())
    assert error(Client(application(desk, PLACE)).get("/api/model")) == (503, "failed")
    desk.close()


def test_a_question_that_kills_the_worker_is_503_once_and_422_then():
    gate = Gate(deadly=(5,))

    def respond(worker: Fake, message: Message) -> Any:
        return gate.respond(worker, (message[0], [{"n": one.get("channel", 1)} for one in message[1]]))

    desk = Desk(lambda: Fake(respond))
    client = Client(application(desk, PLACE))
    response = client.get("/api/units/conv1/5/kernel.png")
    assert error(response) == (503, "too-slow")
    assert response.headers["retry-after"] == "3"
    assert error(client.get("/api/units/conv1/5/kernel.png")) == (422, "too-slow")
    assert client.get("/api/units/conv1/6").json() == 6
    desk.close()


def test_a_question_does_not_wait_for_ever_for_its_turn(gate, monkeypatch):
    held, desk = gate
    monkeypatch.setattr(servers, "WAIT_SECONDS", 0.05)
    client = Client(application(desk, PLACE))
    assert error(client.get("/api/model")) == (503, "busy")
    assert client.get("/health").json()["status"] == "ready"
    held.opened.set()
    assert asked(desk, 1).result(30) == Done(1)
    assert held.asked == [("see.maps", [0]), (LOOK, [1])], "a question was asked that nobody waited for"


def test_health_says_that_the_worker_starts_and_a_question_is_told_so(monkeypatch):
    monkeypatch.setattr(servers, "WAIT_SECONDS", 0.05)
    desk = Desk(lambda: Fake(lambda worker, _: worker.hang(), first=("a long start", [])))
    client = Client(application(desk, PLACE))
    assert client.get("/health").json()["status"] == "starting"
    assert error(client.get("/api/model")) == (503, "starting")
    desk.close()


def test_piles_reach_the_network_and_a_head_is_kept():
    """By the server alone: the worker is one that gives back what it was asked."""
    seen: list[Message] = []

    def respond(_: Fake, message: Message) -> Any:
        seen.append(message)
        name, several = message
        if name == LOOK:
            pixels = [servers.Pixels(f"{len(one['content']):016}", (1, 1, 1), b"p") for one in several]
            return [Done(Look(one, 4, 3, None)) for one in pixels]
        return [
            Done({"teach.features": b"row", "teach.teach": ({"layer": "pool5"}, b"a head")}.get(name, {"said": name}))
        ]

    desk = Desk(lambda: Fake(respond))
    client = Client(application(desk, PLACE))
    ids = [client.post("/api/teach/pictures", content=b"x" * n).json()["picture"] for n in (1, 2, 3)]
    piles = [{"name": "cats 猫 👩‍🚀", "pictures": ids[:1]}, {"name": "dogs", "pictures": ids[1:]}]
    taught = client.post("/api/teach", json={"piles": piles}).json()
    assert seen[-1] == ("teach.teach", [{"piles": [("cats 猫 👩‍🚀", [b"row"]), ("dogs", [b"row", b"row"])]}])
    assert taught == {"head": servers.digest(b"a head"), "layer": "pool5"}
    answered = client.post(f"/api/teach/{taught['head']}/answers", content=b"y" * 9).json()
    assert answered == {"picture": f"{9:016}", "said": "teach.head_answers"}
    assert seen[-1][1][0]["head"] == b"a head"
    shown = f"/api/teach/{taught['head']}/saliency.png?picture={9:016}&label=1"
    assert client.get(shown).status_code == 503  # it was no bytes
    assert seen[-1][1][0].keys() == {"head", "pixels", "label"}
    assert client.post(f"/api/teach/{taught['head']}/keep").json() == {"said": "teach.keep_head"}
    assert error(client.post("/api/teach/0/keep")) == (404, "forgotten")
    assert error(client.post("/api/teach", json={"piles": [{"name": "a", "pictures": ["0"]}]})) == (404, "forgotten")
    assert client.post("/api/search", content=b"z").json()["said"] == "search.matches"
    assert client.post("/api/frames", content=b"z").json()["said"] == "motion.frame"
    desk.close()


def test_an_act_that_is_not_there_is_404(client, monkeypatch):
    monkeypatch.setattr("alexnet.page.worker.find_spec", lambda name: None)
    assert error(client.get("/api/model")) == (404, "unknown")
    monkeypatch.undo()
    assert client.get("/api/model").status_code == 200


def test_only_the_files_of_the_table_are_served(tmp_path):
    (tmp_path / "static" / "js").mkdir(parents=True)
    (tmp_path / "secret.js").write_text("secret")
    (tmp_path / "static" / "index.html").write_text("<title>page</title>")
    (tmp_path / "static" / "js" / "main.js").write_text("export const a = 1;")
    (tmp_path / "static" / "notes.txt").write_text("notes")
    desk = Desk(lambda: Fake(lambda *_: []))
    client = Client(application(desk, PLACE, assets(tmp_path / "static")))
    for path in ("/", "/see", "/unit/conv5/117", "/teach", "/search"):
        assert client.get(path).text == "<title>page</title>"
    script = client.get("/static/js/main.js")
    assert (script.text, script.headers["content-type"]) == ("export const a = 1;", "text/javascript; charset=utf-8")
    for path in (
        "/static/notes.txt",
        "/static/js",
        "/static/%2e%2e/secret.js",
        "/static//js/main.js",
        "/static/js%2f..%2findex.html",
    ):
        assert error(client.get(path)) == (404, "unknown"), path
    desk.close()


def test_the_headers_forbid_what_the_page_does_not_need(client):
    for path in ("/", "/health", "/nothing", "/api/model"):
        headers = client.get(path).headers
        assert "script-src 'self';" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("served", "host", "named"),
    [
        ("127.0.0.1", "127.0.0.1:2012", True),
        ("127.0.0.1", "localhost:2012", True),
        ("127.0.0.1", "LOCALHOST:2012", True),
        ("127.0.0.1", "[::1]:2012", True),
        ("::1", "[::1]:2012", True),
        ("127.0.0.1", "localhost", False),
        ("127.0.0.1", "127.0.0.1:2013", False),
        ("127.0.0.1", "192.168.1.5:2012", False),
        ("127.0.0.1", "evil.example:2012", False),
        ("127.0.0.1", "127.0.0.1.evil.example:2012", False),
        ("127.0.0.1", "", False),
        ("0.0.0.0", "192.168.1.5:2012", True),
        ("0.0.0.0", "localhost:2012", True),
        ("0.0.0.0", "lab-7:2012", True),
        ("0.0.0.0", "lab-7.local:2012", True),
        ("0.0.0.0", "evil.example:2012", False),
        ("127.0.0.1", "lab-7:2012", False),
    ],
)
def test_a_server_is_asked_by_its_own_names_alone(served, host, named, monkeypatch):
    """A name that somebody else decides about could be made to mean this machine."""
    monkeypatch.setattr("socket.gethostname", lambda: "Lab-7")
    assert Place(served, 2012).is_named(host) is named


def test_other_pages_may_link_here_but_not_ask(client):
    elsewhere = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/unit/conv5/117", headers=elsewhere).status_code != 403
    for headers in (
        elsewhere,
        {"sec-fetch-site": "same-site"},
        {"origin": "http://localhost:3000"},
        {"origin": "null"},
    ):
        assert error(client.get("/api/model", headers=headers)) == (403, "refused")
    own = {"sec-fetch-site": "same-origin", "origin": PLACE.url.rstrip("/")}
    assert client.post("/api/pictures", content=png(), headers=own).status_code == 200


# --- a server that listens ----------------------------------------------------------------------------------------------


def test_health_answers_while_the_worker_computes(gate):
    _, desk = gate
    with listening(desk) as place:
        began = time.monotonic()
        connection = http.client.HTTPConnection(place.host, place.port, timeout=30)
        connection.request("GET", "/health")
        assert json.loads(connection.getresponse().read())["status"] == "ready"
        assert time.monotonic() - began < 3
        connection.close()
        gate[0].opened.set()


def test_a_server_that_is_told_to_end_while_it_greets_ends(gate):
    _, desk = gate
    greeted = threading.Event()
    with bound("127.0.0.1", 0) as listens:
        place = Place(*listens.getsockname()[:2])

        def greet(_ready) -> bool:
            server.should_exit = True  # as a signal would
            greeted.set()
            return True

        server = Server(application(desk, place), desk, greet)
        thread = threading.Thread(target=server.run, args=([listens],), daemon=True)
        thread.start()
        gate[0].opened.set()
        thread.join(30)
        assert greeted.is_set()
        assert not thread.is_alive()


def test_a_server_ends_within_a_second_whatever_it_is_doing():
    # As Ctrl-C has it: the worker computes, another question waits, a body comes slowly, and a browser keeps its connection.
    desk = Desk(lambda: Fake(lambda worker, _: worker.hang()))
    with bound("127.0.0.1", 0) as listens:
        place = Place(*listens.getsockname()[:2])
        server = Server(application(desk, place), desk)
        thread = threading.Thread(target=server.run, args=([listens],), daemon=True)
        thread.start()
        idle = http.client.HTTPConnection(place.host, place.port, timeout=30)
        idle.request("GET", "/health")
        idle.getresponse().read()
        open_ones = [socket.create_connection((place.host, place.port)) for _ in range(3)]
        host = f"Host: {place.host}:{place.port}\r\n"
        open_ones[0].sendall(f"GET /api/units/conv1/0 HTTP/1.1\r\n{host}\r\n".encode())
        open_ones[1].sendall(f"GET /api/samples HTTP/1.1\r\n{host}\r\n".encode())
        open_ones[2].sendall(f"POST /api/pictures HTTP/1.1\r\n{host}Content-Length: 9000\r\n\r\nhalf".encode())
        for _ in range(1000):
            if desk.waiting:
                break
            time.sleep(0.01)
        began = time.monotonic()
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
        assert time.monotonic() - began < 1
        for connection in (idle, *open_ones):
            connection.close()


def test_a_client_that_leaves_takes_its_question_along(gate):
    held, desk = gate
    with listening(desk) as place:
        connection = http.client.HTTPConnection(place.host, place.port, timeout=30)
        connection.request("GET", "/api/model")
        for _ in range(1000):
            if desk.waiting:
                break
            time.sleep(0.01)
        connection.close()
        for _ in range(1000):
            if desk.waiting[0].outcome.cancelled():
                break
            time.sleep(0.01)
        held.opened.set()
        assert asked(desk, 1).result(30) == Done(1)
    assert held.asked == [("see.maps", [0]), (LOOK, [1])]


# --- the verb -----------------------------------------------------------------------------------------------------------


def test_a_missing_extra_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("alexnet.page.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as exit:
        main(["serve", "runs/mine"])
    assert exit.value.code == 1
    assert capsys.readouterr().err == 'alexnet: serve needs Starlette and uvicorn: pip install "alexnet[serve]"\n'


def test_a_port_that_is_taken_is_one_line(capsys):
    with servers.bound("127.0.0.1", 0) as taken, pytest.raises(SystemExit) as exit:
        main(["serve", "runs/mine", "--port", str(taken.getsockname()[1])])
    assert exit.value.code == 1
    assert re.fullmatch(
        r"alexnet: port \d+ is taken by another program; take another --port, .*\n", capsys.readouterr().err
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "model"
    usual = Preprocessing(resize=70, crop=64, mean="none", scale=1 / 64)
    save_model_folder(
        folder, create_model("alexnet_2012", **SMALL), "alexnet_2012", usual, [f"class {k}" for k in range(7)]
    )
    return folder


def workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for thread in children for child in thread.read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_server_from_its_first_line_to_ctrl_c(model, tmp_path):
    """The one test with real processes: it answers, outlives its worker, and leaves nothing behind."""
    (tmp_path / "torch.py").write_text("raise SystemExit('a file of the working folder was run')")
    command = [sys.executable, "-P", "-m", "alexnet", "serve", str(model), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        try:
            first, second = server.stdout.readline(), server.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", first)
            assert found, first
            assert second == "Open this address in a browser on this machine; Ctrl-C ends it.\n"
            connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)

            def answers() -> Any:
                connection.request("POST", "/api/pictures", png())
                return json.loads(connection.getresponse().read())["answers"]

            before = answers()
            assert len(before) == 5
            mapped = Path(f"/proc/{server.pid}/maps").read_text()
            assert not re.search(r"libtorch|numpy", mapped), "the server itself has no use for torch"
            (worker,) = workers_of(server.pid)
            os.kill(worker, signal.SIGKILL)
            assert answers() == before
            connection.close()
            (worker,) = workers_of(server.pid)
            server.send_signal(signal.SIGINT)
            assert server.wait(30) == 0
            assert (server.stdout.read(), server.stderr.read()) == ("", "")
            assert not is_running(worker)
            assert [file.name for file in tmp_path.iterdir()] == ["torch.py"]
        finally:
            server.kill()


def test_a_worker_does_not_outlive_a_server_that_is_killed():
    parent = (
        "from alexnet.page.desk import Process; from alexnet.page.worker import Opening; import time\n"
        "print(Process(Opening(model='nowhere')).process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        worker = int(server.stdout.readline())
        assert is_running(worker)
        server.kill()
    for _ in range(3000):
        if not is_running(worker):
            return
        time.sleep(0.01)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker goes on")
