"""What `alexnet serve` answers, and how soon, also to many clients and to hostile ones: writes results/serve.json.

python benchmarks/serve.py MODEL FOLDER [--requests 1000] [--clients 16] [--out results/serve.json]

MODEL is a run or a model folder that can tell classes, FOLDER holds photographs. The server is a process of its own, as a user
would start it; the clients are threads of this one. Rates are compared with `alexnet evaluate` on the same photographs, packed,
in turns. Hostile requests and files are those of the tests.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "page"), str(ROOT / "tests" / "data")]

from hostile import faults_of, hostile_requests, sent  # noqa: E402

from alexnet.cli import OPENMP_SPINS  # noqa: E402
from alexnet.core.device import Machine, choose_device  # noqa: E402
from alexnet.core.memory import keep_freed_memory  # noqa: E402
from alexnet.core.runs import environment, write_json  # noqa: E402
from alexnet.data.pictures import image_files  # noqa: E402
from alexnet.data.prepare import prepare  # noqa: E402
from alexnet.evaluation.subject import Subject, answers  # noqa: E402
from alexnet.evaluation.views import CENTER  # noqa: E402
from alexnet.page.server import HEADER_SECONDS  # noqa: E402
from alexnet.page.worker import IDLE_SECONDS  # noqa: E402
from odd_images import kinds  # noqa: E402

PILES, IN_A_PILE = 3, 30


class Client:
    """One connection, kept open."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        self.connection.request("GET" if body is None else "POST", path, body)
        response = self.connection.getresponse()
        return response.status, response.read()

    def json(self, path: str, body: bytes | None = None) -> Any:
        status, content = self.ask(path, body)
        if status != 200:
            raise SystemExit(f"{path} was answered with {status}: {content[:300]!r}")
        return json.loads(content)


@contextmanager
def served(model: str) -> Iterator[tuple[subprocess.Popen[str], int, float]]:
    """The process, the port, and the time at which it was started."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "alexnet", "serve", model, "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    with (
        tempfile.TemporaryDirectory() as cwd,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=cwd) as server,
    ):
        try:
            assert server.stdout is not None
            found = re.search(r":(\d+)/", server.stdout.readline())
            if found is None:
                raise SystemExit("the server did not start")
            yield server, int(found[1]), began
            server.terminate()
            assert server.wait(60) == 0
        finally:
            server.kill()


def costs(server: subprocess.Popen[str]) -> dict[str, dict[str, int]]:
    """Memory (MB), open files and threads of the server and its worker, a moment after the last question."""
    time.sleep(2 * IDLE_SECONDS)
    children = Path(f"/proc/{server.pid}/task").glob("*/children")
    pids = [server.pid, *(int(pid) for file in children for pid in file.read_text().split())]
    found = {}
    for name, pid in zip(("server", "worker"), pids, strict=True):
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        memory, threads = int(status["VmRSS"].split()[0]) // 1024, int(status["Threads"])
        found[name] = {"memory_mb": memory, "files": len(os.listdir(f"/proc/{pid}/fd")), "threads": threads}  # noqa: PTH208
    return found


def growth(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    return {name: {key: after[name][key] - one[key] for key in one} for name, one in before.items()}


def timed(client: Client, *paths: str) -> float:
    began = time.perf_counter()
    for path in paths:
        status, content = client.ask(path)
        assert status == 200, (path, content[:300])
    return time.perf_counter() - began


def acts(client: Client, photographs: Sequence[bytes]) -> dict[str, float]:
    """Seconds of the ten views and of all maps, each the slowest of five pictures, and of a head."""
    stages = [stage["name"] for stage in client.json("/api/model")["stages"] if stage["has_maps"]]
    views, maps = [], []
    for photograph in photographs[:5]:
        address = f"/api/pictures/{client.json('/api/pictures', photograph)['picture']}"
        views.append(timed(client, f"{address}/views"))
        maps.append(timed(client, *(f"{address}/maps/{name}{end}" for name in stages for end in ("", ".png"))))
    began = time.perf_counter()
    ids = [client.json("/api/teach/pictures", one)["picture"] for one in photographs[: PILES * IN_A_PILE]]
    sent = time.perf_counter()
    piles = [{"name": f"pile {i}", "pictures": ids[i * IN_A_PILE : (i + 1) * IN_A_PILE]} for i in range(PILES)]
    client.json("/api/teach", json.dumps({"piles": piles}).encode())
    head = {"head_pictures": sent - began, "head_after_the_last_picture": time.perf_counter() - sent}
    return {"ten_views": max(views), "all_maps": max(maps), **head}


def load(port: int, photographs: Sequence[bytes], requests: int, clients: int) -> tuple[list[Any], float]:
    """The answers to so many uploads by as many clients, each of which waits for its answer, and the seconds."""
    found: list[Any] = [None] * requests
    numbers = iter(range(requests))
    lock = threading.Lock()

    def work(_: int) -> None:
        client = Client(port)
        while True:
            with lock:
                i = next(numbers, None)
            if i is None:
                return
            found[i] = client.json("/api/pictures", photographs[i % len(photographs)])["answers"]

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, range(clients)))
    return found, time.perf_counter() - began


def by_command_line(model: str, files: Sequence[str]) -> list[Any]:
    command = [sys.executable, "-m", "alexnet", "predict", model, *files, "--json"]
    return [
        one["predictions"] for one in json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    ]


def hostility(server: subprocess.Popen[str], port: int, photograph: bytes, clients: int) -> dict[str, Any]:
    """All hostile requests and odd files, by as many clients at a time, while one asks for /health and one for answers; then
    all but the slow ones once more, so that what grows each time is told from what is used once."""

    def labels() -> list[int]:
        return [one["label"] for one in Client(port).json("/api/pictures", photograph)["answers"]]

    good = labels()
    before, faults, statuses, ended = costs(server), [], {}, threading.Event()
    health: list[float] = []
    others = {"answered": 0, "wrong": 0}

    def watch() -> None:
        while not ended.is_set():
            began = time.perf_counter()
            Client(port).json("/health")
            health.append(time.perf_counter() - began)
            time.sleep(0.05)

    def ask() -> None:
        while not ended.is_set():
            others["wrong"] += labels() != good
            others["answered"] += 1
            time.sleep(0.2)

    def request(hostile: Any) -> None:
        status, _ = sent(hostile, "127.0.0.1", port, patience=120)
        statuses[status] = statuses.get(status, 0) + 1
        faults.extend(f"{hostile.name}: {fault}" for fault in faults_of(hostile, status))

    def upload(kind: Any) -> None:
        status, content = Client(port).ask("/api/pictures", kind.data)
        statuses[status] = statuses.get(status, 0) + 1
        if status >= 500 and status != 503:
            faults.append(f"{kind.file}: {content[:200]!r}")

    watchers = [threading.Thread(target=watch), threading.Thread(target=ask)]
    for thread in watchers:
        thread.start()
    requests, odd, between = list(hostile_requests()), list(kinds()), before
    with ThreadPoolExecutor(clients) as pool:
        for again in (False, True):
            list(
                pool.map(request, sorted((r for r in requests if not (again and r.slow)), key=lambda one: not one.slow))
            )
            list(pool.map(upload, odd))
            if not again:
                time.sleep(HEADER_SECONDS)
                between = costs(server)
    ended.set()
    for thread in watchers:
        thread.join()
    time.sleep(HEADER_SECONDS)  # connections that were left open are closed
    after = costs(server)
    return {
        "kinds": len(requests) + len(odd),
        "n": sum(statuses.values()),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "other_5xx_than_503": sum(count for status, count in statuses.items() if status >= 500 and status != 503),
        "faults": faults,
        "slowest_health_seconds": max(health),
        "health_asked": len(health),
        "good_pictures_between": others,
        "growth": growth(before, after),
        "growth_of_the_second_time": growth(between, after),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "serve.json")
    options = parser.parse_args()
    model = str(Path(options.model).resolve())
    files = list(image_files([options.folder]))
    files = [str(Path(file).resolve()) for file in files[:: max(1, len(files) // options.requests)][: options.requests]]
    photographs = [Path(file).read_bytes() for file in files]
    os.environ.setdefault("GOMP_SPINCOUNT", OPENMP_SPINS)
    keep_freed_memory()
    expected = by_command_line(model, files)

    starts = []
    for _ in range(3):
        with served(model) as (_, port, began):
            Client(port).json("/api/pictures", photographs[0])
            starts.append(time.perf_counter() - began)

    with tempfile.TemporaryDirectory() as folder, served(model) as (server, port, _):
        subject = Subject(model=model, machine=Machine(device=choose_device("cpu"), quiet=True), precision="float32")
        packed = prepare(options.folder, Path(folder) / "packed", size=subject.predictor.preprocessing.resize)
        asked = Subject(model=model, machine=subject.machine, data=str(packed.path), split="all", precision="float32")
        vars(asked)["predictor"] = subject.predictor
        seconds_of_acts = acts(Client(port), photographs)
        load(port, photographs, options.requests // 4, options.clients)  # caches, compilers
        before, rates, differences, wrong = costs(server), [], [], 0
        for _ in range(options.rounds):
            began = time.perf_counter()
            answers(asked, CENTER, None)
            evaluated = time.perf_counter() - began
            found, seconds = load(port, photographs, options.requests, options.clients)
            rates.append((options.requests / seconds, len(asked.images) / evaluated))
            for i, one in enumerate(found):
                told = expected[i % len(expected)]
                wrong += [each["label"] for each in one] != [each["label"] for each in told]
                pairs = zip(one, told, strict=True)
                differences.append(max(abs(a["probability"] - b["probability"]) for a, b in pairs))
        after = costs(server)
        hostile = hostility(server, port, photographs[0], options.clients)
    shares = [ours / theirs for ours, theirs in rates]
    document = {
        "network": subject.predictor.name,
        "n": options.requests,
        "clients": options.clients,
        "first_answer_seconds": starts,
        "acts_seconds": seconds_of_acts,
        "load": {
            "requests_per_second": [ours for ours, _ in rates],
            "evaluate_images_per_second": [theirs for _, theirs in rates],
            "share_of_evaluate": shares,
            "answers_of_other_labels": wrong,
            "largest_difference_of_a_probability": max(differences),
            "memory_mb": after,
            "growth": growth(before, after),
        },
        "hostile": hostile,
        "load_average": os.getloadavg(),
    }
    write_json(options.out, {**document, "environment": environment()})
    print(f"first answer after {max(starts):.1f} s; {', '.join(f'{k} {v:.2f} s' for k, v in seconds_of_acts.items())}")
    ours, theirs = rates[-1]
    print(
        f"{options.clients} clients: {ours:.0f} answers/s, evaluate {theirs:.0f} images/s ({min(shares):.0%} at least)"
    )
    print(
        f"{wrong} answers of other labels, probabilities differ by {max(differences):.1e}; {document['load']['growth']}"
    )
    print(json.dumps(hostile))


if __name__ == "__main__":
    main()
