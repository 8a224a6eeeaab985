"""Workers that live in the process of the test, and a server in a thread of it."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
from starlette.types import ASGIApp

from alexnet.page.desk import Desk
from alexnet.page.room import Room
from alexnet.page.server import Place, Server, application, bound
from alexnet.page.worker import Ready, answer, ready

PLACE = Place("127.0.0.1", 2012)
READY = Ready("net", 2, True)
Message = tuple[str, list[dict[str, Any]]]


class Fake:
    """A worker that answers by ``respond``, dies where that raises EOFError, and is killed by whoever calls :meth:`kill`."""

    def __init__(self, respond: Callable[[Fake, Message], Any], first: Any = READY) -> None:
        self.respond, self.alive, self.killed = respond, True, threading.Event()
        self.said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.said.put(first)

    def send(self, message: Message) -> None:
        if not self.alive:
            raise BrokenPipeError
        self.said.put(message)

    def receive(self) -> Any:
        message = self.said.get()
        if not isinstance(message, tuple):
            return message
        try:
            return self.respond(self, message)
        except EOFError:
            self.alive = False
            raise

    def hang(self) -> None:
        self.killed.wait(30)
        raise EOFError

    def is_alive(self) -> bool:
        return self.alive

    def kill(self) -> None:
        self.alive = False
        self.killed.set()


class Client:
    """Sends requests to an application in this process."""

    def __init__(self, app: ASGIApp) -> None:
        self.transport = httpx.ASGITransport(app)  # type: ignore[arg-type]

    def get(self, path: str, headers: Mapping[str, str] = {}) -> httpx.Response:
        return self.send(httpx.Request("GET", PLACE.url[:-1] + path, headers=headers))

    def post(self, path: str, headers: Mapping[str, str] = {}, **body: Any) -> httpx.Response:
        return self.send(httpx.Request("POST", PLACE.url[:-1] + path, headers=headers, **body))

    def send(self, request: httpx.Request) -> httpx.Response:
        return self.send_together([request])[0]

    def send_together(self, requests: Sequence[httpx.Request]) -> list[httpx.Response]:
        """The answers to requests that are sent at the same moment."""

        async def answered(request: httpx.Request) -> httpx.Response:
            response = await self.transport.handle_async_request(request)
            await response.aread()
            return response

        async def all_answered() -> list[httpx.Response]:
            return await asyncio.gather(*map(answered, requests))

        return asyncio.run(all_answered())


@contextmanager
def desk_of(room: Room) -> Iterator[Desk]:
    """A desk whose worker answers for a room as the process would."""
    desk = Desk(lambda: Fake(lambda _, message: answer(room, *message), ready(room)))
    try:
        yield desk
    finally:
        desk.close()


@contextmanager
def client_of(room: Room) -> Iterator[Client]:
    with desk_of(room) as desk:
        yield Client(application(desk, PLACE))


@contextmanager
def listening(desk: Desk) -> Iterator[Place]:
    """A server that takes connections, in a thread."""
    with bound("127.0.0.1", 0) as socket:
        place = Place(*socket.getsockname()[:2])
        server = Server(application(desk, place), desk)
        thread = threading.Thread(target=server.run, args=([socket],))
        thread.start()
        try:
            yield place
        finally:
            server.should_exit = True
            thread.join()
