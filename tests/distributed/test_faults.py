"""Ranks under torchrun that are killed, stopped, told to stop, started again: nothing is lost, and someone says who it was."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.numpy import load_file

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

TINY = (
    "--size 36 --preprocessing.resize 36 --preprocessing.crop 32 --model.input-size 32 --model.fc-units 16 16 "
    "--model.conv-channels 8 8 8 8 8 --model.conv-kernels 5 3 3 3 3 --model.conv-padding 2 1 1 1 1 "
    "--epochs 25 --batch-size 8 --checkpoint-steps 5 --threads 1 --device cpu"
)
STEPS = 25 * 7


class Job:
    """torchrun with a run of 175 steps, dropout and all augmentation on; ``host``: words before the command."""

    def __init__(
        self,
        data: Path,
        out: Path,
        *options: str,
        layout: str = "data",
        nproc: int = 2,
        host: Sequence[str] = (),
    ) -> None:
        self.out, self.said = out, out.with_suffix(f".{time.monotonic_ns()}.txt")
        command = [*host, sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(nproc), *options]
        command += ["-m", "alexnet", "train", "quickstart", "--data", str(data), "--out", str(out), "--resume"]
        command += ["--layout", layout, *TINY.split()]
        surroundings = {**os.environ, "OMP_NUM_THREADS": "1"} | ({} if host else {"GLOO_SOCKET_IFNAME": "lo"})
        with open(self.said, "wb") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=surroundings, start_new_session=True
            )

    def wait_for_step(self, step: int, timeout: float = 120) -> None:
        deadline = time.monotonic() + timeout
        while self.step() < step:
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.02)

    def step(self) -> int:
        log = self.out / "log.jsonl"
        rows = log.read_text().splitlines() if log.is_file() else []
        return max((json.loads(row).get("step", 0) for row in rows if row.endswith("}")), default=0)

    def ranks(self) -> dict[int, int]:
        """The process of each rank, by rank."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                environment = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(self.out).encode() in words and b"torch.distributed.run" not in words:
                rank = next((word for word in environment if word.startswith(b"RANK=")), None)
                if rank is not None:
                    found[int(rank[5:])] = int(folder.name)
        return found

    def end(self, within: float) -> int:
        return self.process.wait(within)

    def text(self) -> str:
        return self.said.read_text(errors="replace")


@contextmanager
def job(*args: object, **options: object) -> Iterator[Job]:
    running = Job(*args, **options)  # type: ignore[arg-type]
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)
        for process in running.ranks().values():  # torchrun gives ranks sessions of their own
            os.kill(process, signal.SIGKILL)
        running.process.wait()


def final(out: Path) -> tuple[dict[str, bytes], list[dict[str, object]]]:
    """Weights, velocities, and the rows of the log, without what depends on the clock."""
    last = out / "checkpoint" / (out / "checkpoint" / "last").read_text().strip()
    weights = {p.name: p.read_bytes() for p in [*last.glob("*.safetensors"), out / "model" / "model.safetensors"]}
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    clock = ("images_per_second", "data_seconds", "seconds")
    return weights, [{k: v for k, v in row.items() if k not in clock} for row in rows]


@pytest.fixture(scope="module")
def whole(tiny_set, tmp_path_factory) -> Path:
    """The run without a fault, in two ranks."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with job(tiny_set.path, out) as running:
        assert running.end(180) == 0, running.text()
    return out


def test_a_killed_rank_ends_the_job_by_name_and_the_run_goes_on_identically(tiny_set, whole, tmp_path):
    moments = random.Random(5)
    out = tmp_path / "run"
    for killed in (0, 1, 1, 0):
        with job(tiny_set.path, out) as running:
            running.wait_for_step(running.step() + moments.randrange(10, 40))
            victim = running.ranks()[killed]
            os.kill(victim, signal.SIGKILL)
            start = time.monotonic()
            assert running.end(30) != 0
            assert time.monotonic() - start < 30
            assert not running.ranks()
            text = running.text()
            assert "SIGKILL" in text
            assert str(victim) in text
            assert f"rank      : {killed} (local_rank: {killed})" in text
    with job(tiny_set.path, out) as running:
        assert running.end(120) == 0, running.text()
    assert final(out) == final(whole)


def test_a_stopped_rank_ends_the_job_after_the_timeout_and_is_named(tiny_set, tmp_path):
    with job(tiny_set.path, tmp_path / "run") as running:
        running.wait_for_step(20)
        victim = running.ranks()[1]
        os.kill(victim, signal.SIGSTOP)
        start = time.monotonic()
        assert running.end(75) != 0
        assert time.monotonic() - start < 70
        assert f"rank 1 (process {victim}" in running.text()
        assert "was stopped, and is now killed" in running.text()
        assert not running.ranks()


def test_torchrun_starts_the_ranks_again_and_the_run_ends_identically(tiny_set, whole, tmp_path):
    out = tmp_path / "run"
    with job(tiny_set.path, out, "--max-restarts", "3") as running:
        for killed, step in ((1, 30), (0, 80)):
            running.wait_for_step(step)
            os.kill(running.ranks()[killed], signal.SIGKILL)
            time.sleep(1)
        assert running.end(180) == 0, running.text()
        assert running.text().count("resumed at step") == 2
    assert final(out) == final(whole)


@pytest.mark.parametrize("told", ["group", "launcher", "rank"])
def test_told_to_stop_all_ranks_save_once_and_leave_with_75(told, tiny_set, whole, tmp_path):
    out = tmp_path / "run"
    with job(tiny_set.path, out) as running:
        running.wait_for_step(33)
        ranks = running.ranks()
        if told == "group":
            for process in (*ranks.values(), running.process.pid):
                os.kill(process, signal.SIGTERM)
        else:
            os.kill(running.process.pid if told == "launcher" else ranks[1], signal.SIGTERM)
        assert running.end(40) != 0
        text = running.text()
        assert not running.ranks()
    assert text.count("stopped at step") == 1, text
    assert "checkpoint saved" in text
    stopped = int(text.partition("stopped at step ")[2].partition(",")[0])
    assert (out / "checkpoint" / "last").read_text().strip() == f"step-{stopped}"
    if told == "rank":
        assert text.count("exitcode  : 75") == 2
    with job(tiny_set.path, out) as running:
        assert running.end(120) == 0, running.text()
        assert f"resumed at step {stopped} " in running.text()
    assert final(out) == final(whole)


def test_an_elastic_job_goes_on_with_fewer_and_with_more_ranks(tiny_set, tmp_path):
    out = tmp_path / "run"
    for nproc, layout, step in ((3, "data", 20), (2, "towers", 60), (1, "data", 90)):
        with job(tiny_set.path, out, nproc=nproc, layout=layout) as running:
            running.wait_for_step(step)
            os.kill(next(iter(running.ranks().values())), signal.SIGKILL)
            assert running.end(30) != 0
    with job(tiny_set.path, out, nproc=4, layout="hybrid") as running:
        assert running.end(180) == 0, running.text()
        assert "for ranks" in running.text()  # not bit for bit, it says
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["event"] == "step"] == list(range(1, STEPS + 1))
    assert load_file(out / "model" / "model.safetensors")["fc6.weight"].shape[0] == 16


def test_two_launchers_on_one_machine_are_one_job(tiny_set, whole, tmp_path):
    """As on two hosts, over loopback."""
    out = tmp_path / "run"
    meet = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:29531", "--rdzv-id", "two"]
    with (
        job(tiny_set.path, out, *meet, nproc=1) as first,
        job(tiny_set.path, out, *meet, nproc=1) as second,
    ):
        assert first.end(180) == 0, first.text() + second.text()
        assert second.end(60) == 0
        assert (first.text() + second.text()).count("2 ranks in the layout data") == 1
    assert final(out) == final(whole)


# Two hosts: each a network namespace with a name and an address of its own, and a cable between them ---------------------


@dataclass(frozen=True)
class Hosts:
    first: tuple[str, ...]
    """What stands before a command that is to run there."""
    second: tuple[str, ...]
    cable: Callable[[str], object]
    """``up`` or ``down``."""


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    names = [f"alexnet-{os.getpid()}-{number}" for number in (1, 2)]
    table = tmp_path / "hosts"
    table.write_text("127.0.0.1 localhost\n" + "".join(f"10.77.0.{i} {name}\n" for i, name in enumerate(names, 1)))

    def ip(line: str) -> None:
        subprocess.run(["ip", *line.split()], check=True, capture_output=True, text=True)

    def before(name: str) -> tuple[str, ...]:
        setup = f'hostname {name} && mount --bind "{table}" /etc/hosts && exec "$@"'
        return ("ip", "netns", "exec", name, "unshare", "--uts", "--mount", "sh", "-c", setup, "sh")

    try:
        for name in names:
            ip(f"netns add {name}")
        ip(f"link add cable netns {names[0]} type veth peer name cable netns {names[1]}")
        for i, name in enumerate(names, 1):
            ip(f"-n {name} addr add 10.77.0.{i}/24 dev cable")
            ip(f"-n {name} link set lo up")
            ip(f"-n {name} link set cable up")
        subprocess.run([*before(names[0]), "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces cannot be made here ({getattr(error, 'stderr', '') or error})")
    else:
        yield Hosts(before(names[0]), before(names[1]), lambda state: ip(f"-n {names[1]} link set cable {state}"))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def test_two_hosts_train_as_one_and_when_the_cable_is_pulled_both_say_so_and_the_run_goes_on(
    hosts, tiny_set, whole, tmp_path
):
    out = tmp_path / "run"
    name = hosts.first[3]
    meet = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{name}:29541", "--rdzv-id", "hosts"]
    with (
        job(tiny_set.path, out, *meet, nproc=1, host=hosts.first) as first,
        job(tiny_set.path, out, *meet, nproc=1, host=hosts.second) as second,
    ):
        first.wait_for_step(60)
        hosts.cable("down")
        start = time.monotonic()
        while first.ranks() or second.ranks():  # the ranks of both, by the command that they share
            assert time.monotonic() - start < 90
            time.sleep(0.1)
        assert first.end(30) != 0
        assert re.search(
            r"rank 0 of 2: .* broke off .*; rank 1 \(process \d+ on alexnet-.*-2\) does not answer", first.text()
        )
        assert re.search(
            r"rank 1 of 2: .* broke off .*; the host through which the ranks meet does not answer", second.text()
        )
        hosts.cable("up")  # for which the launcher of the second host waits
        assert second.end(60) != 0
    with (
        job(tiny_set.path, out, *meet, nproc=1, host=hosts.first) as first,
        job(tiny_set.path, out, *meet, nproc=1, host=hosts.second) as second,
    ):
        assert first.end(180) == 0, first.text() + second.text()
        assert second.end(60) == 0
    assert final(out) == final(whole)
