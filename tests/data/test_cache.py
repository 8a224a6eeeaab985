"""What the cache holds, and what of it goes when: never anything that is in use or needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.cli import main
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.data.cache import REMOVING, Entry, entries, named, remove
from alexnet.data.packed import open_packed
from alexnet.data.prepare import decoder_versions, resolve

MakeFolder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def photos(image_folder_of: MakeFolder, folder: Path) -> Path:
    """A source whose set is in the cache."""
    source = image_folder_of({"cat": 5, "dog": 5}, "photos")
    resolve(source, size=8, workers=1)
    return source


def listed() -> list[Entry]:
    return entries(decoder_versions())


def alexnet(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit:
        main(["cache", *arguments])
    return (int(exit.value.code or 0), *capsys.readouterr())


def test_an_empty_cache_holds_nothing(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert listed() == []
    assert alexnet(capsys) == (0, f"0 entries, 0 bytes, in {folder}\n", "")
    assert alexnet(capsys, "--prune") == (0, "nothing to remove\n", "")
    assert not folder.exists()


def test_a_set_is_listed_with_its_size_its_sources_and_when_it_was_used(photos: Path, tmp_path: Path):
    (entry,) = listed()
    assert (entry.kind, entry.sources, entry.needless) == ("set", [str(photos)], "")
    assert entry.bytes >= (entry.path / "train.images.npy").stat().st_size
    assert abs(time.time() - entry.used) < 60
    os.utime(entry.path, (0, 0))
    assert listed()[0].used == 0
    link = tmp_path / "link"
    link.symlink_to(photos)
    resolve(link, size=8)
    (entry,) = listed()
    assert entry.sources == [str(link), str(photos)]
    assert abs(time.time() - entry.used) < 60


def test_a_set_is_needed_while_one_of_its_sources_is_there(photos: Path, tmp_path: Path):
    shutil.copytree(photos, tmp_path / "copy")
    resolve(tmp_path / "copy", size=8)
    shutil.rmtree(photos)
    assert listed()[0].needless == ""
    shutil.rmtree(tmp_path / "copy")
    assert listed()[0].needless == "its source is gone"


def test_the_latest_set_of_a_source_is_needed_in_each_size(photos: Path):
    first = resolve(photos, size=8).path
    other_size = resolve(photos, size=12, workers=1).path
    os.utime(first, (1, 1))
    (photos / "cat" / "000.png").unlink()
    second = resolve(photos, size=8, workers=1).path
    assert {entry.path: entry.needless for entry in listed()} == {
        second: "",
        other_size: "",
        first: "a newer one is there of the same source",
    }


def test_what_cannot_be_found_again_is_not_needed(photos: Path, folder: Path):
    (entry,) = entries({"pillow": "0.1"})
    assert entry.needless == "made by other versions of the decoders"
    os.truncate(entry.path / "mean.npy", 10)
    assert listed()[0].needless == "it is damaged, or of another version"
    for name in (
        "photos-1/.unfinished",
        f"{REMOVING}photos-2-1",
        "features/fc7-train-1",
        "features/fc7-val-1",
        "kernels",
    ):
        (folder / name).mkdir(parents=True)
    for name in (f"{REMOVING}photos-2-1", "features/fc7-val-1"):
        os.utime(folder / name, (1, 1))
    assert {e.name: (e.kind, e.needless) for e in listed() if e.path != entry.path} == {
        "photos-1": ("unfinished set", "its preparation was not finished"),
        f"{REMOVING}photos-2-1": ("remains", "left by a process that was killed"),
        "features/fc7-train-1": ("features", ""),
        "features/fc7-val-1": ("features", "not used for 90 days"),
        "kernels": ("kernels", ""),
    }


def test_what_a_process_has_opened_stays(photos: Path, capsys: pytest.CaptureFixture[str]):
    (entry,) = listed()
    shutil.rmtree(photos)
    before = sorted(path.name for path in entry.path.iterdir())
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from alexnet.data.packed import open_packed\n"
            "packed = open_packed(sys.argv[1]); print(flush=True); sys.stdin.read()",
            str(entry.path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(AlexNetError, match=f"{entry.name} is in use by another process, and stays"):
            remove(entry)
        code, out, err = alexnet(capsys, "--prune", "--yes")
        assert (code, out) == (1, "")
        assert err == f"alexnet: {entry.name} is in use by another process, and stays\n"
        assert sorted(path.name for path in entry.path.iterdir()) == before
        process.communicate(b"")
    remove(entry)
    assert listed() == []


def test_a_set_opened_here_stays_until_it_is_let_go(photos: Path):
    (entry,) = listed()
    packed = open_packed(entry.path)
    with pytest.raises(AlexNetError, match="in use"):
        remove(entry)
    del packed
    remove(entry)
    assert not entry.path.exists()


def test_prune_shows_first_and_removes_with_yes(photos: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "old-1" / ".unfinished").mkdir(parents=True)
    (entry,) = (entry for entry in listed() if entry.kind == "set")
    code, out, _ = alexnet(capsys, "--prune")
    assert (code, out.splitlines()) == (
        0,
        [
            "old-1, 0 bytes: its preparation was not finished",
            "nothing was removed; add --yes to remove these, 0 bytes",
        ],
    )
    assert (folder / "old-1").is_dir()
    assert alexnet(capsys, "--prune", "--yes") == (
        0,
        "removed old-1, 0 bytes: its preparation was not finished\n",
        "",
    )
    assert listed() == [entry]


def test_entries_are_removed_by_name_or_nothing_is(photos: Path, capsys: pytest.CaptureFixture[str]):
    (entry,) = listed()
    with pytest.raises(UsageError, match=f"the cache holds no photo \\(perhaps {entry.name}\\)"):
        named([entry.name, "photo"], [entry])
    code, _, err = alexnet(capsys, "--remove", entry.name, "photo")
    assert code == 2
    assert "the cache holds no photo" in err
    assert listed() == [entry]
    code, out, _ = alexnet(capsys, "--remove", entry.name)
    assert (code, out.startswith(f"removed {entry.name}, ")) == (0, True)
    assert listed() == []


def test_the_list_as_json(photos: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    _, out, _ = alexnet(capsys, "--json")
    document = json.loads(out)
    (entry,) = document["entries"]
    assert document | {"entries": []} == {"cache": str(folder), "entries": [], "removed": [], "kept": {}}
    assert entry["sources"] == [{"path": str(photos), "exists": True}]
    assert (entry["kind"], entry["needless"]) == ("set", "")
