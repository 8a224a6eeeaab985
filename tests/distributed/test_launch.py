from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from datetime import timedelta

import pytest
import rank_jobs
import torch
import torch.distributed as dist

from alexnet.cli import main
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.distributed import launch
from alexnet.distributed.launch import ExchangeError, Job, exchange_errors, in_job, join, run_local, whoami


def test_each_rank_knows_its_place_and_takes_its_share_of_the_threads():
    assert run_local(rank_jobs.who, 2) == [(0, 2, 0, "cpu", 1), (1, 2, 1, "cpu", 1)]


def test_a_failing_rank_is_named_with_its_reason_not_the_ranks_that_lost_it():
    with pytest.raises(AlexNetError) as caught:
        run_local(rank_jobs.fail_on_last, 3, "raises")
    assert str(caught.value) == "rank 2 of 3 failed: ValueError: label 12 of 10"


def test_a_killed_rank_is_named_with_its_signal_at_once():
    began = time.monotonic()
    with pytest.raises(AlexNetError, match=r"^rank 1 of 2 failed: was killed by SIGKILL$"):
        run_local(rank_jobs.fail_on_last, 2, "killed")
    assert time.monotonic() - began < 30


def test_ranks_that_do_not_end_are_named_and_ended():
    with pytest.raises(AlexNetError, match=r"^rank 0, 1 of 2 has not ended within 2 s$"):
        run_local(rank_jobs.fail_on_last, 2, "sleeps", timeout=2)


def test_a_rank_that_does_not_come_is_waited_for_no_longer_than_the_timeout():
    seconds, message = run_local(rank_jobs.wait_for_a_stopped_rank, 2)[0]
    assert 0.8 < seconds < 2.5
    assert message.startswith("the exchange of conv3 broke off (")


def environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_a_process_that_torchrun_did_not_start_is_told_how_to(monkeypatch):
    environment(monkeypatch, RANK="0")
    assert not in_job()
    with pytest.raises(UsageError, match=r"RANK=0, WORLD_SIZE=None.*start it with torchrun --nproc-per-node"):
        whoami()


@pytest.mark.parametrize(
    ("rank", "device", "words"), [("2", "cpu", "RANK=2 is not below"), ("0", "mps", "--device mps")]
)
def test_a_place_that_cannot_be_is_refused(monkeypatch, rank, device, words):
    environment(monkeypatch, RANK=rank, WORLD_SIZE="2", LOCAL_RANK="0")
    with pytest.raises(UsageError, match=words):
        whoami(device)


def test_more_ranks_than_gpus_are_refused(monkeypatch):
    environment(monkeypatch, RANK="1", WORLD_SIZE="2", LOCAL_RANK="1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="rank 1 of 2: this host has 1 GPUs for local rank 1"):
        whoami("cuda")


def test_a_rank_that_stays_alone_says_so_in_one_line(monkeypatch, tmp_path):
    environment(monkeypatch, RANK="0", WORLD_SIZE="2", LOCAL_RANK="0")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    with (
        pytest.raises(
            ExchangeError, match=r"^rank 0 of 2: the ranks did not find each other within 1 s \(.*\); check that all"
        ),
        join("cpu", store=tmp_path / "store", timeout=timedelta(seconds=1)),
    ):
        pass
    assert not dist.is_initialized()


def test_a_job_of_one_leaves_cleanly_and_its_own_error_stays_what_it_is(monkeypatch, tmp_path):
    environment(monkeypatch, RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    with join("cpu", store=tmp_path / "one") as job:
        assert (job.rank, job.world, job.first) == (0, 1, True)
        assert dist.is_initialized()
    assert not dist.is_initialized()
    with pytest.raises(ZeroDivisionError), join("cpu", store=tmp_path / "two"):
        _ = 1 // 0
    assert not dist.is_initialized()


def test_torchs_words_become_one_line():
    with pytest.raises(ExchangeError) as caught, exchange_errors("the exchange of conv3"):
        raise RuntimeError(
            "[../gloo/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1. This is typically\nstack"
        )
    assert str(caught.value) == "the exchange of conv3 broke off (Connection closed by peer [127.0.0.1]:1)"
    assert re.match(r"^[^\n]+$", launch._line(RuntimeError("")))


def test_what_the_first_rank_does_alone_may_take_longer_than_an_exchange_and_all_get_its_answer():
    (answer, said), *others = run_local(rank_jobs.first_alone, 3, 3.5)
    assert answer["rank"] == 0
    assert said == [0, 10, 20]
    assert others == [(answer, []), (answer, [])]


def test_a_process_of_another_host_or_container_is_not_judged_by_its_number(monkeypatch):
    """Each counts its processes by itself, and its name may be the same."""

    def named(host: str, processes: str) -> bytes:
        return json.dumps([host, os.getpid(), processes]).encode()

    here, own = socket.gethostname(), launch._processes()
    assert launch._state(named(here, own)) == ("running" if own else "elsewhere")
    assert launch._state(json.dumps([here, 2**31, own]).encode()) == ("gone" if own else "elsewhere")
    assert launch._state(named("another", own)) == "elsewhere"
    assert launch._state(named(here, "another boot, or another namespace")) == "elsewhere"
    monkeypatch.setattr(launch, "_processes", lambda: "")  # as where there is no /proc
    assert launch._state(named(here, "")) == "elsewhere"


def test_a_store_that_does_not_answer_is_not_waited_for():
    with pytest.raises(TimeoutError):
        launch._within(0.05, threading.Event().wait)
    with pytest.raises(KeyError, match="of the store"):
        launch._within(5, lambda: {}["of the store"])
    assert launch._within(5, lambda: 3) == 3


@pytest.mark.parametrize(
    ("rank", "world", "message"),
    [("x", "2", r"not part of a job \(RANK=x"), ("2", "2", "RANK=2 is not below WORLD_SIZE=2")],
)
def test_numbers_that_are_none_are_refused_in_one_line(rank, world, message, monkeypatch, capsys):
    for name, value in (("RANK", rank), ("WORLD_SIZE", world), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as exit:
        main(["train", "quickstart", "--out", "run"])
    assert exit.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_the_first_rank_fills_a_cache_once_before_the_others_look(tmp_path):
    assert run_local(rank_jobs.first_fills, 3, str(tmp_path)) == ["filled", "found", "found"]


def test_a_first_rank_that_fails_alone_is_named_by_its_own_reason():
    with pytest.raises(AlexNetError, match=r"^rank 0 of 2 failed: ValueError: no space left$"):
        run_local(rank_jobs.first_fails, 2)


def test_a_first_rank_that_is_stopped_alone_is_noticed_and_named(tmp_path):
    with pytest.raises(AlexNetError, match=r"^rank 0 of 2 failed: was killed by SIGKILL$"):
        run_local(rank_jobs.first_stops, 2, str(tmp_path), timeout=60)
    said = (tmp_path / "said").read_text()
    assert said.startswith(
        "waiting for the first rank (a save) broke off (no sign of life for 1.5 s); rank 0 (process "
    )
    assert said.endswith(" was stopped, and is now killed")


def test_ranks_that_start_again_do_not_meet_those_that_failed_in_the_same_store():
    """torchrun's static rendezvous keeps one store over all its restarts."""
    store, found = dist.HashStore(), {}

    def come(rank: int, attempt: int) -> None:
        job = Job(rank, 2, rank, torch.device("cpu"))
        met = launch._meet(store, job, timedelta(seconds=20))
        met.set(f"address/{rank}", str(attempt))
        deadline = time.monotonic() + 20
        while not met.check(["address/0", "address/1"]) and time.monotonic() < deadline:
            time.sleep(0.01)
        found[attempt, rank] = [met.get(f"address/{r}").decode() for r in (0, 1)]

    for attempt in range(3):
        ranks = [threading.Thread(target=come, args=(rank, attempt)) for rank in (1, 0)]
        ranks[0].start()
        time.sleep(0.1)  # the second rank finds what the attempt before has left
        ranks[1].start()
        for rank in ranks:
            rank.join()
    assert found == {(attempt, rank): [str(attempt)] * 2 for attempt in range(3) for rank in (0, 1)}
