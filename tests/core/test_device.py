from __future__ import annotations

import os

import pytest
import torch

from alexnet.core.device import choose_device, emulates, usable_cores
from alexnet.core.errors import UsageError


def test_where_the_system_does_not_tell_which_cores_may_be_used_it_is_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3, 4}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert usable_cores() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


@pytest.mark.parametrize(
    ("name", "cuda", "said"),
    [
        ("mps", 0, "--device mps: there is no Apple GPU here that torch can use; use auto or cpu"),
        ("cuda", 0, "--device cuda: there is no CUDA device here that torch can use"),
        ("cuda:7", 0, "--device cuda:7: there is no CUDA device here that torch can use"),
        ("cuda:7", 1, "--device cuda:7: there is only one here, and numbers begin at 0; use auto or cuda:0 or cpu"),
        (
            "cuda:2",
            2,
            "--device cuda:2: there are only 2 here, and numbers begin at 0; use auto or cuda:0 or cuda:1 or cpu",
        ),
        ("cuda:x", 1, "--device cuda:x: no such device; use auto, cpu, cuda, cuda:N or mps"),
        ("meta", 0, "--device meta: no such device; use auto, cpu, cuda, cuda:N or mps"),
        ("gpu", 0, "--device gpu: no such device; use auto, cpu, cuda, cuda:N or mps"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(name, cuda, said, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError) as caught:
        choose_device(name)
    assert str(caught.value).startswith(said)
    assert "aten" not in str(caught.value)


def test_the_processor_is_always_there():
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("supported", [True, False])
def test_a_device_without_instructions_for_bfloat16_is_known_by_what_torch_asks(supported, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported, raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported or including_emulation)
    for device in ("cpu", "cuda:0"):
        assert emulates(torch.device(device), "bfloat16") is not supported
        assert not any(emulates(torch.device(device), precision) for precision in ("float32", "tf32", "float64"))
