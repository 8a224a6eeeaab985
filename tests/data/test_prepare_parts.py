"""`prepare` in parts: the same bytes as by one process, whatever is killed, doubled, missing or brought together."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet.cli import main
from alexnet.core.errors import AlexNetError, DataError, UsageError
from alexnet.core.parts import Part
from alexnet.data import prepare as preparing
from alexnet.data import shards
from alexnet.data.packed import open_packed
from alexnet.data.prepare import prepare, prepare_part
from alexnet.data.shards import Store
from alexnet.data.sources import Record, Source, SplitName
from shared import content, in_child

SIZE = 8
BAD = (1, 10)
"""Training images that cannot be read: the last of the split take their places."""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "SHARD_IMAGES", 3)


def source_of(train: int = 14, val: int = 5, bad: tuple[int, ...] = BAD) -> Source:
    """Pictures in memory; all different."""
    random, records = np.random.default_rng(0), []
    splits: list[SplitName] = ["train"] * train + ["val"] * val
    for i, split in enumerate(splits):
        pixels = random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        records.append(Record(split, i % 2, f"{split}/{i}.png", data=b"no image" if i in bad else pixels))
    return Source(classes=["cat", "dog"], records=records, fingerprint="photos")


def part(folder: Path, number: int, total: int, **settings: Any) -> list[Part]:
    options = {"size": SIZE, "workers": 1, "max_bad": 2} | settings
    return prepare_part(options.pop("source", None) or source_of(), folder, Part(number, total), **options)


def whole(folder: Path, **settings: Any) -> dict[str, str]:
    prepare(source_of(), folder, **({"size": SIZE, "workers": 1, "max_bad": 2} | settings))
    return content(folder)


@pytest.mark.parametrize("store", ["pixels", "jpeg"])
@pytest.mark.parametrize("total", [1, 2, 3, 5, 40])
def test_parts_one_after_another_write_what_one_process_writes(tmp_path: Path, total: int, store: Store) -> None:
    # 19 images: of 40 parts most have nothing to do, and say so
    expected = whole(tmp_path / "whole", store=store)
    order = list(range(1, total + 1))
    random.Random(total).shuffle(order)
    for i, number in enumerate(order):
        with_work = [Part(n, total) for n in sorted(order[i + 1 :]) if n <= 19]
        assert part(tmp_path / "parts", number, total, store=store) == with_work
    assert content(tmp_path / "parts") == expected
    assert len(open_packed(tmp_path / "parts").split("train")) == 12


@pytest.mark.parametrize("twice", [False, True])
def test_parts_at_the_same_time_and_each_of_them_twice_decode_every_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twice: bool
) -> None:
    expected = whole(tmp_path / "whole")
    original, log = shards.load_image, tmp_path / "log"

    def logged(record: Record, *arguments: Any) -> Any:
        with open(log, "a") as file:
            file.write(f"{record.name}\n")
        time.sleep(0.03)  # so that two processes would be at the same image
        return original(record, *arguments)

    monkeypatch.setattr(shards, "load_image", logged)
    numbers = [1, 2, 3] * (1 + twice)
    children = [in_child(lambda number=number: part(tmp_path / "parts", number, 3)) for number in numbers]
    assert {os.waitpid(child, 0)[1] for child in children} == {0}
    assert content(tmp_path / "parts") == expected
    assert sorted(log.read_text().split()) == sorted(record.name for record in source_of().records)


def killed_at_call(function: str, n: int, work: Callable[[], object]) -> bool:
    """Whether a fork that does ``work`` got to the n-th call of ``os.function``, at which it is killed."""

    def dying() -> None:
        calls, original = itertools.count(1), getattr(os, function)

        def die(*arguments: object, **options: object) -> object:
            if next(calls) == n:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        setattr(os, function, die)
        work()

    status = os.waitpid(in_child(dying), 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


@pytest.mark.parametrize(
    ("store", "step"),
    [
        ("pixels", 9),
        ("jpeg", 13),
        pytest.param("pixels", 1, marks=pytest.mark.long),
        pytest.param("jpeg", 1, marks=pytest.mark.long),
    ],
)
def test_a_part_killed_anywhere_goes_on_and_so_does_the_join(tmp_path: Path, store: Store, step: int) -> None:
    expected = whole(tmp_path / "whole", store=store)
    part(tmp_path / "begun", 1, 2, store=store)
    kills = 0
    for function in ("fsync", "replace", "unlink"):
        for n in itertools.count(1, step):
            folder = tmp_path / "killed"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(tmp_path / "begun", folder)
            if not killed_at_call(function, n, lambda folder=folder: part(folder, 2, 2, store=store)):
                break
            kills += 1
            assert part(folder, 1 + n % 2, 2, store=store) in ([], [Part(2, 2)])  # the other may join what is done
            assert part(folder, 2, 2, store=store) == []
            assert content(folder) == expected, (function, n)
    assert kills * step > 40


def test_a_missing_part_is_named_and_what_is_there_is_kept(tmp_path: Path) -> None:
    expected = whole(tmp_path / "whole")
    part(tmp_path / "parts", 3, 4)
    before = content(tmp_path / "parts")
    with pytest.raises(AlexNetError, match=r"parts: parts 1/4, 2/4, 4/4 not done; run prepare with --part") as error:
        whole(tmp_path / "parts")
    assert error.value.exit_code == 1
    assert content(tmp_path / "parts") == before
    with pytest.raises(DataError, match="unfinished"):
        open_packed(tmp_path / "parts")
    part(tmp_path / "parts", 1, 4)
    assert part(tmp_path / "parts", 4, 4) == [Part(2, 4)]
    assert part(tmp_path / "parts", 2, 4) == []
    assert content(tmp_path / "parts") == expected


def test_folders_of_hosts_that_share_none_are_brought_together_and_joined(tmp_path: Path) -> None:
    expected = whole(tmp_path / "whole")
    for number in (1, 2, 3):
        part(tmp_path / f"host{number}", number, 3)
        shutil.copytree(tmp_path / f"host{number}", tmp_path / "joined", dirs_exist_ok=True)
    calls: list[tuple[int, int]] = []
    assert whole(tmp_path / "joined", progress=lambda *call: calls.append(call)) == expected
    assert calls[-1] == (19, 19)


def test_a_folder_begun_otherwise_is_refused_and_says_how_to_go_on(tmp_path: Path) -> None:
    part(tmp_path / "parts", 1, 2)
    before = content(tmp_path / "parts")
    with pytest.raises(UsageError, match="begun in 2 parts; go on with --part I/2"):
        part(tmp_path / "parts", 1, 3)
    for other in ({"size": 4}, {"store": "jpeg"}, {"source": source_of(train=15)}):
        with pytest.raises(DataError, match="begun with another source or other settings"):
            part(tmp_path / "parts", 2, 2, **other)
    assert content(tmp_path / "parts") == before
    with pytest.raises(DataError, match="cannot be read"):
        prepare(source_of(), tmp_path / "one", size=SIZE, workers=1)
    with pytest.raises(UsageError, match="begun in one; go on without --part"):
        part(tmp_path / "one", 1, 2)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="neither empty nor a packed set"):
        part(tmp_path / "home", 1, 2)
    assert list(content(tmp_path / "home")) == ["letter.txt"]


def test_on_a_finished_set_a_part_does_nothing_if_it_is_the_same(tmp_path: Path) -> None:
    whole(tmp_path / "whole")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert part(tmp_path / "whole", 2, 3) == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with pytest.raises(UsageError, match="holds a set prepared from another source"):
        part(tmp_path / "whole", 2, 3, source=source_of(train=15))


def test_too_many_unreadable_images_are_found_at_the_join_which_can_be_done_again(tmp_path: Path) -> None:
    expected = whole(tmp_path / "whole")
    assert part(tmp_path / "parts", 1, 2, max_bad=None) == [Part(2, 2)]
    with pytest.raises(DataError, match=r"of class dog cannot be read, more than 10 %"):
        part(tmp_path / "parts", 2, 2, max_bad=None)
    assert whole(tmp_path / "parts") == expected  # joins, with --max-bad 2


def test_what_another_part_is_writing_is_not_cleared_away(tmp_path: Path) -> None:
    part(tmp_path / "parts", 3, 3)
    leftover = tmp_path / "parts" / ".unfinished" / ".train-00000001.npz.tmp-7"  # the second shard: each has one image
    leftover.write_bytes(b"half")
    part(tmp_path / "parts", 1, 3)
    assert leftover.exists()
    shutil.copytree(tmp_path / "parts", tmp_path / "seen")
    with pytest.raises(DataError, match="cannot be read"):
        part(tmp_path / "parts", 2, 3, max_bad=0)
    assert not leftover.exists()


def test_a_shard_cut_short_on_its_way_is_not_joined(tmp_path: Path) -> None:
    part(tmp_path / "parts", 1, 2)
    shard = tmp_path / "parts" / ".unfinished" / "train-00000000.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"train-00000000.bin: 191 bytes, not those of its images"):
        part(tmp_path / "parts", 2, 2)


def test_all_parts_have_equal_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "SHARD_IMAGES", 256)
    source, totals = source_of(train=1000, val=200, bad=()), []
    for number in (1, 2, 3, 4, 5):
        calls: list[tuple[int, int]] = []
        part(tmp_path / "parts", number, 5, source=source, progress=lambda *call, calls=calls: calls.append(call))  # type: ignore[misc]
        totals.append(calls[0][1])
    assert sum(totals) == 1200
    shard = 1200 // (5 * preparing.SHARDS)
    assert max(totals) - min(totals) <= 2 * shard  # one, and the last of each split are smaller


@pytest.mark.long
def test_parts_killed_at_random_moments_with_workers_still_write_the_same_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for i in range(240):
        path = folder / ("train" if i < 200 else "val") / ("cat", "dog")[i % 2] / f"{i:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    prepare(folder, tmp_path / "whole", size=64, workers=2)
    draw = random.Random(0)
    for _ in range(10):
        shutil.rmtree(tmp_path / "parts", ignore_errors=True)
        for _ in range(4):
            work = [
                (lambda n=n: prepare_part(folder, tmp_path / "parts", Part(n, 3), size=64, workers=2))
                for n in (1, 2, 3)
            ]
            children = [in_child(one) for one in work]
            time.sleep(draw.uniform(0.01, 0.5))
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        for n in (1, 2, 3):
            left = prepare_part(folder, tmp_path / "parts", Part(n, 3), size=64, workers=2)
        assert left == []
        assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def alexnet(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit:
            main([str(a) for a in arguments])
        return int(exit.value.code or 0), *capsys.readouterr()

    for i in range(8):
        path = tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIZE, SIZE), (20 * i, 0, 0)).save(path)
    command = ("prepare", tmp_path / "photos", tmp_path / "packed", "--size", SIZE, "--workers", 1)
    for wrong in ("0/2", "3/2", "x"):
        code, out, err = alexnet(*command, "--part", wrong)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert wrong in err
        assert "as in 2/4" in err
    assert not (tmp_path / "packed").exists()
    code, out, _ = alexnet(*command, "--part", "2/3")
    assert (code, out) == (0, "part 2/3 is done, not yet parts 1/3, 3/3; the last to end joins them\n")
    code, _, err = alexnet(*command)
    assert (code, err.count("\n")) == (1, 1)
    assert "parts 1/3, 3/3 not done" in err
    code, out, _ = alexnet(*command, "--part", "3/3", "--json")
    assert (code, json.loads(out)["not_done"]) == (0, ["1/3"])
    code, out, _ = alexnet(*command, "--part", "1/3")
    assert code == 0
    assert "2 classes " in out
    assert "; 0 files rejected" in out
    code, out, _ = alexnet("prepare", "--help")
    assert code == 0
    assert "--part 2/4" in out
