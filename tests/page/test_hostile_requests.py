"""Whatever a client sends, the answer is 4xx or 503, and the next client is answered as if nothing had been."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hostile import Hostile, faults_of, hostile_requests, sent
from rooms import SMALL, room_of
from serving import PLACE, Client, client_of, desk_of, listening

from alexnet.page import server
from alexnet.page.desk import MAX_WAITING
from alexnet.page.room import Room
from alexnet.page.server import Place

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from odd_images import kinds

REQUESTS = list(hostile_requests())
HEALTH_SECONDS = 3.0
"""On a machine that runs other tests as well; benchmarks/serve.py measures half a second."""
EXECUTOR_THREADS = 32
"""The most that asyncio starts for what would hold it up, and keeps."""
STATUS = {"": 200, "too large": 413, "unsupported format": 415, "empty": 400}


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Room:
    return room_of("alexnet_2012", tmp_path_factory.mktemp("cache"), **SMALL)


@pytest.fixture(scope="module")
def client(room: Room) -> Iterator[Client]:
    with client_of(room) as client:
        yield client


def test_every_odd_image_is_answered_as_by_predict_or_refused_by_its_kind(client: Client, room: Room):
    """Those of the decoder's tests, as many at the same moment as may wait, so that good and bad ones share batches."""
    url, odd, wrong = f"{PLACE.url}api/pictures", kinds(), []
    groups = [odd[first : first + MAX_WAITING] for first in range(0, len(odd), MAX_WAITING)]
    responses = [
        response
        for group in groups
        for response in client.send_together([httpx.Request("POST", url, content=kind.data) for kind in group])
    ]
    predictions = room.predictor.predict([kind.data for kind in odd])
    for kind, response, prediction in zip(odd, responses, predictions, strict=True):
        reason = prediction.error.reason if prediction.error else ""
        if response.status_code != STATUS.get(reason, 422):
            wrong.append((kind.file, response.status_code, response.text))
        elif not reason:
            labels = [one["label"] for one in response.json()["answers"]]
            assert labels == [one.label for one in prediction.answers], kind.file
    assert wrong == []
    assert len(predictions) > 300
    assert {prediction.error is None for prediction in predictions} == {True, False}


@pytest.fixture(scope="module")
def place(room: Room) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch, desk_of(room) as desk:
        for name in ("HEADER_SECONDS", "BODY_SECONDS"):
            patch.setattr(server, name, 0.3)
        with listening(desk) as place:
            yield place


@pytest.mark.parametrize("hostile", REQUESTS, ids=[hostile.name for hostile in REQUESTS])
def test_a_hostile_request_is_refused_and_the_next_is_answered(hostile: Hostile, place: Place, capsys):
    status, body = sent(hostile, place.host, place.port)
    assert faults_of(hostile, status) == [], body
    if body[:1] == b"{" and status != 200:
        assert json.loads(body).keys() == {"error", "kind"}
    assert b"Traceback" not in body
    connection = http.client.HTTPConnection(place.host, place.port, timeout=30)
    began = time.monotonic()
    connection.request("GET", "/health")
    assert json.loads(connection.getresponse().read())["status"] == "ready"
    assert time.monotonic() - began < HEALTH_SECONDS
    connection.close()
    assert capsys.readouterr().err == ""


def test_all_of_them_at_once_leave_nothing_behind(place: Place):
    before = threading.active_count()
    quick = [
        one for one in REQUESTS if 200 not in one.statuses
    ]  # the others wait for the end of a connection that is kept
    threads = [threading.Thread(target=sent, args=(hostile, place.host, place.port)) for hostile in quick]
    for thread in threads:
        thread.start()
    slowest = 0.0
    while any(thread.is_alive() for thread in threads):
        began = time.monotonic()
        connection = http.client.HTTPConnection(place.host, place.port, timeout=30)
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        connection.close()
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.05)
    assert slowest < HEALTH_SECONDS
    assert threading.active_count() <= before + EXECUTOR_THREADS


def test_a_client_that_does_not_take_its_answer_is_let_go(place: Place, monkeypatch):
    """It asks again and again over one connection and reads nothing, until the system takes no more for it."""
    monkeypatch.setattr(server, "WRITE_SECONDS", 0.2)
    with socket.create_connection((place.host, place.port), 30) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        largest = max(server.assets().items(), key=lambda item: len(item[1].content))[0]
        request = f"GET /static/{largest} HTTP/1.1\r\nhost: {place.host}:{place.port}\r\n\r\n".encode()
        with pytest.raises(OSError):
            wire.sendall(request * 100_000)
