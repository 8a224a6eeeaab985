"""Archives are read as the folder that they were made of, and nothing in them is believed that cannot be checked."""

from __future__ import annotations

import errno
import io
import os
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from alexnet.core.errors import DataError, ImageError
from alexnet.data import archives
from alexnet.data.archives import image_archive, list_archive
from alexnet.data.check import check
from alexnet.data.named import find_pictures, find_source
from alexnet.data.pictures import image_files, is_one, pictures
from alexnet.data.pool import in_processes
from alexnet.data.prepare import prepare
from odd_images import RGB, png

PICTURES = {
    f"{label}/{i}.png": png(np.roll(RGB, i + 5 * (label == "dog"), 0), 2) for label in ("cat", "dog") for i in range(4)
}
KINDS = ["zip", "zip stored", "zip bzip2", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"]


def pack(path: Path, kind: str, files: dict[str, bytes]) -> Path:
    path = path / f"photos.{kind.split()[0]}"
    if kind.startswith("zip"):
        method = {"zip": zipfile.ZIP_DEFLATED, "zip stored": zipfile.ZIP_STORED, "zip bzip2": zipfile.ZIP_BZIP2}[kind]
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path
    compression = {"tar": "", "tar.gz": "gz", "tgz": "gz", "tar.bz2": "bz2", "tar.xz": "xz"}[kind]
    with tarfile.open(path, f"w:{compression}") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_gives_the_set_of_its_folder(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    for name, data in PICTURES.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    packed = pack(tmp_path, kind, PICTURES)
    source = find_source(packed)
    assert [record.name for record in source.records] == [r.name for r in find_source(tmp_path / "folder").records]
    ours = prepare(source, tmp_path / "a", size=8, workers=2)
    theirs = prepare(tmp_path / "folder", tmp_path / "b", size=8, workers=1)
    assert ours.fingerprint == theirs.fingerprint
    assert ours.meta["source"]["contents"] == theirs.meta["source"]["contents"]
    assert check(packed)["faults"] == check(tmp_path / "folder")["faults"] == []
    assert not any(scratch.iterdir())  # nothing was extracted


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_members_are_read_by_threads_and_processes_in_any_order(kind: str, tmp_path: Path):
    records = image_archive(pack(tmp_path, kind, PICTURES)).records
    for record, data in in_processes(lambda i: records[i].read(), [5, 0, 7, 1], 2):
        assert data == PICTURES[records[record].name]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.xz"])
def test_the_pictures_of_an_archive_are_many_pictures(kind: str, tmp_path: Path):
    path = pack(tmp_path, kind, {**PICTURES, "readme.txt": b"hello", "loose": PICTURES["cat/1.png"]})
    assert not is_one(path)
    found = list(pictures([path]))
    assert [picture.name for picture in found] == [f"{path}/{name}" for name in sorted([*PICTURES, "loose"])]
    assert np.array_equal(found[1].decode(), np.roll(RGB, 1, 0))
    with pytest.raises(DataError, match="no image files in this archive; name another one"):
        list(pictures(pack(tmp_path, kind, {"readme.txt": b"hello"})))
    with pytest.raises(DataError, match=r"unpack it and name more/inner\.zip, which lies in it"):
        list(pictures(pack(tmp_path, kind, {"more/inner.zip": b"PK"})))


def test_a_picture_in_an_archive_has_a_path(tmp_path: Path):
    path = pack(tmp_path, "zip", PICTURES)
    (picture,) = pictures(path / "cat" / "1.png")
    assert np.array_equal(picture.decode(), np.roll(RGB, 1, 0))
    assert list(image_files([path]))[1] == picture.name == f"{path}/cat/1.png"
    for name, said in (("cat/9.png", "photos.zip holds no such picture"), ("cat", "photos.zip holds no such picture")):
        with pytest.raises(ImageError, match=said) as caught:
            next(pictures(path / name)).decode()
        assert caught.value.reason == "missing"
    (tmp_path / "a.png").write_bytes(PICTURES["cat/1.png"])
    with pytest.raises(ImageError, match=r"a\.png/x\.png: missing \(no such file\)"):
        next(pictures(tmp_path / "a.png" / "x.png")).decode()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ImageError, match=r"damaged .*not a readable zip archive"):
        picture.decode()


def test_a_network_answers_to_them(tmp_path: Path):
    from alexnet.core.preprocessing import Preprocessing
    from alexnet.evaluation.predict import Predictor

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2)).eval()
    predictor = Predictor(
        "linear", model, Preprocessing(resize=8, crop=8, mean="none"), ("a", "b"), None, torch.device("cpu")
    )
    answers = predictor.predict(pack(tmp_path, "zip", PICTURES), top_k=1)
    assert [len(prediction.answers) for prediction in answers] == [1] * 8


# --- zip archives of others -------------------------------------------------------------------------------------------


def raw_zip(path: Path, members: dict[bytes, bytes], flags: int = 0, system: int = 0) -> Path:
    """Stored members with names of any bytes."""
    body, directory = b"", b""
    for name, data in members.items():
        crc = zipfile.crc32(data)
        fields = struct.pack("<HHHHIIIHH", flags, 0, 0, 0, crc, len(data), len(data), len(name), 0)
        directory += (
            b"PK\1\2"
            + struct.pack("<BBH", 20, system, 20)
            + fields
            + struct.pack("<HHHII", 0, 0, 0, 0, len(body))
            + name
        )
        body += b"PK\3\4" + struct.pack("<H", 20) + fields + name + data
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, len(members), len(members), len(directory), len(body), 0)
    path.write_bytes(body + directory + end)
    return path


@pytest.mark.parametrize(
    ("coding", "names", "flags"),
    [
        ("utf-8", ("猫/一.png", "狗/二.png"), 0x800),
        ("utf-8", ("猫/一.png", "狗/二.png"), 0),  # as macOS writes them
        ("gbk", ("猫/一.png", "狗/二.png"), 0),  # as Windows in China does
        ("gbk", ("猫/镕镕镕.png", "狗狗狗/二.png"), 0),  # a character that GB 2312 lacks
        ("cp437", ("chat/café.png", "Zürich/fédé.png"), 0),
        ("utf-8", ("train/cat/1.png", "train/dog/2.png"), 0),
    ],
)
def test_names_are_read_in_the_coding_that_they_have(coding: str, names: tuple[str, ...], flags: int, tmp_path: Path):
    members = {name.encode(coding): data for name, data in zip(names, PICTURES.values(), strict=False)}
    listing = list_archive(raw_zip(tmp_path / "a.zip", members, flags))
    assert [found.name for found in listing.files] == sorted(names)


def test_backslashes_and_leading_slashes_are_those_of_folders(tmp_path: Path):
    members = {b"photos\\cat\\1.png": PICTURES["cat/1.png"], b"/photos/./dog/2.png": PICTURES["dog/2.png"]}
    source = image_archive(raw_zip(tmp_path / "a.zip", members))
    assert source.classes == ["cat", "dog"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("root", ["./", "/"])
def test_the_folder_around_everything_is_no_hidden_one(kind: str, root: str, tmp_path: Path):
    files = {f"{root}{name}": data for name, data in PICTURES.items()}
    if kind == "zip":
        path = raw_zip(tmp_path / "a.zip", {name.encode(): data for name, data in {"./": b"", **files}.items()})
    else:
        path = pack(tmp_path, kind, files)
        with tarfile.open(path, "a") as tar:
            folder = tarfile.TarInfo(".")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
    listing = list_archive(path)
    assert [found.name for found in listing.files] == sorted(PICTURES)
    assert (listing.folders, listing.skipped.total()) == ([], 0)


def test_what_is_odd_is_counted_or_named_and_the_rest_is_read(tmp_path: Path):
    path = tmp_path / "a.zip"
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in PICTURES.items():
            archive.writestr(name, data)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("cat/1.png", PICTURES["cat/2.png"])
        archive.writestr(link, "/etc/passwd")
        archive.writestr("__MACOSX/cat/._1.png", b"x")
        archive.mkdir("emu")
    source = image_archive(path)
    assert {record.name: record.read() for record in source.records} == {**PICTURES, "cat/1.png": PICTURES["cat/2.png"]}
    assert "earlier file of the same name in the archive: 1 skipped" in source.notes
    assert "link or special file in the archive: 1 skipped" in source.notes
    assert "hidden file or folder: 1 skipped" in source.notes
    assert [fault.path for fault in source.empty] == ["emu"]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("name", ["../../cat/x.png", "cat/../../x.png"])
def test_a_name_that_leads_out_is_a_fault_by_name(kind: str, name: str, tmp_path: Path):
    path = pack(tmp_path, kind, {**PICTURES, name: PICTURES["cat/1.png"]})
    said = f"{name}: its name leads out of the archive; pack the folder again"
    with pytest.raises(DataError, match=said.replace(".", r"\.")):
        prepare(path, tmp_path / "packed", size=8, workers=1)
    assert {"path": name, "reason": said.split(": ")[1]} in check(path)["faults"]
    with pytest.raises(DataError, match="leads out"):
        list(pictures(path))


def damaged(path: Path, change: Callable[[bytearray], object]) -> Path:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    return path


def set_everywhere(field_local: int, field_central: int, form: str, value: int) -> Callable[[bytearray], None]:
    """One field of the headers of the first member of a zip archive, in both places where it stands."""

    def change(data: bytearray) -> None:
        struct.pack_into(form, data, field_local, value)
        struct.pack_into(form, data, data.index(b"PK\1\2") + field_central, value)

    return change


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        (set_everywhere(6, 8, "<H", 1), "unsupported format", "encrypted; unpack the archive with its password"),
        (set_everywhere(8, 10, "<H", 9), "unsupported format", "compressed by method 9 of zip"),
        (set_everywhere(22, 24, "<I", 90 << 20), "too large", "94,371,840 bytes; at most 67,108,864"),
        (set_everywhere(22, 24, "<I", 10), "damaged", "not the size or the checksum"),
        (set_everywhere(14, 16, "<I", 10), "damaged", "not the size or the checksum"),
        (set_everywhere(0, 0, "<I", 0), None, "not a readable zip archive|get it again"),
        (lambda data: data.__setitem__(slice(60, 64), b"\xff" * 4), "damaged", "cat/0"),
    ],
)
def test_a_member_that_lies_is_refused_by_name(change, reason, said, tmp_path: Path):
    path = damaged(pack(tmp_path, "zip", PICTURES), change)
    if reason is None:
        with pytest.raises(DataError, match=said):
            image_archive(path)
        return
    by_name = {record.name: record for record in image_archive(path).records}
    with pytest.raises(ImageError, match=said) as caught:
        by_name["cat/0.png"].read()
    assert (caught.value.path, caught.value.reason) == ("cat/0.png", reason)
    assert by_name["cat/1.png"].read() == PICTURES["cat/1.png"]


def test_a_member_that_unpacks_to_more_than_it_says_is_not_unpacked_further(tmp_path: Path):
    path = pack(tmp_path, "zip", {"cat/0.png": bytes(60 << 20), "dog/0.png": b"x"})
    damaged(path, set_everywhere(22, 24, "<I", 1000))
    with pytest.raises(ImageError, match="not the size"):
        next(r for r in image_archive(path).records if r.name == "cat/0.png").read()


def test_an_archive_of_encrypted_files_alone_is_refused_in_one_line(tmp_path: Path):
    path = raw_zip(tmp_path / "a.zip", {name.encode(): data for name, data in PICTURES.items()}, flags=1)
    for read in (image_archive, lambda path: list(pictures(path))):
        with pytest.raises(DataError, match=r"a\.zip: encrypted; unpack it with its password, and name the folder$"):
            read(path)


@pytest.mark.parametrize(
    "start", [b"7z\xbc\xaf\x27\x1c\0\4", b"Rar!\x1a\x07\1\0", b"\x28\xb5\x2f\xfd", b"\x1f\x9d\x90"]
)
def test_an_archive_of_another_kind_is_refused_with_the_way_out(start: bytes, tmp_path: Path):
    (tmp_path / "photos").write_bytes(start + bytes(500))
    for read in (find_source, lambda path: list(pictures(path))):
        with pytest.raises(DataError, match=r"which is not read; unpack it and name the folder, or pack it as \.zip"):
            read(tmp_path / "photos")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_pictures_without_classes_are_found_in_an_archive(kind: str, tmp_path: Path):
    loose = {**PICTURES, "loose.png": PICTURES["cat/1.png"]}
    source = find_pictures(pack(tmp_path, kind, loose))
    assert [record.name for record in source.records] == sorted(loose)
    source = find_pictures(pack(tmp_path, kind, {"a.png": png(RGB, 2)}))
    assert [(record.name, record.read()) for record in source.records] == [("a.png", png(RGB, 2))]
    assert source.name == str(tmp_path / f"photos.{kind}")
    with pytest.raises(DataError, match="no image"):
        find_pictures(pack(tmp_path, kind, {"a.txt": b""}))


def test_members_that_overlap_are_refused(tmp_path: Path):
    path = raw_zip(tmp_path / "a.zip", {name.encode(): data for name, data in PICTURES.items()})
    second = path.read_bytes().index(b"PK\1\2", path.read_bytes().index(b"PK\1\2") + 1)
    damaged(path, lambda data: struct.pack_into("<I", data, second + 42, 0))
    with pytest.raises(DataError, match=r"cat/0\.png and cat/1\.png in it overlap"):
        image_archive(path)


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        (kind, share) for kind in KINDS for share in (0.2, 0.6, 0.97) if (kind, share) != ("tar", 0.97)
    ],  # zeros may be missing
)
def test_an_archive_that_was_cut_is_refused_in_one_line(kind: str, share: float, tmp_path: Path):
    path = pack(tmp_path, kind, PICTURES)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match="get it again") as caught:
        image_archive(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz"])
def test_a_tar_that_unpacks_to_very_much_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archives, "ALWAYS_BYTES", 1 << 20)
    path = pack(tmp_path, kind, {"cat/0.png": bytes(20 << 20), "dog/0.png": b"x"})
    with pytest.raises(DataError, match=r"unpacks to more than .* bytes, 100 times its size"):
        image_archive(path)


def test_an_archive_that_changed_since_it_was_listed_is_refused(tmp_path: Path):
    record = image_archive(pack(tmp_path, "zip", PICTURES)).records[0]
    os.utime(tmp_path / "photos.zip", (1, 1))
    with pytest.raises(ImageError, match="changed since it was listed"):
        record.read()


def test_without_room_the_setting_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = pack(tmp_path, "tar.gz", PICTURES)
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda: full)
        with pytest.raises(DataError, match="set TMPDIR to a folder with more room"):
            image_archive(path)


@pytest.mark.parametrize(("kind", "free", "needed"), [("tar.gz", 20_000, "0 MB"), ("tar.xz", 100, "0 MB")])
def test_the_room_is_looked_at_before_anything_is_unpacked(
    kind: str, free: int, needed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = pack(tmp_path, kind, {**PICTURES, "cat/flat.png": bytes(20_000)})  # which shrinks, so that gzip alone knows
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(archives, "_unpack", None)
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_bavail=free, f_frsize=1))
    with pytest.raises(
        DataError, match=f"unpacked it has {needed} or more, and .* has 0 MB free; set TMPDIR to a folder"
    ):
        image_archive(path)


def test_what_a_tar_unpacks_to_has_no_name_so_that_a_kill_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    names: list[Path] = []
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    unpack = archives._unpack

    def seen(*given: object) -> None:
        unpack(*given)
        names.extend((tmp_path / "scratch").iterdir())

    monkeypatch.setattr(archives, "_unpack", seen)
    records = image_archive(pack(tmp_path, "tar.gz", PICTURES)).records
    assert records[0].read() == PICTURES[records[0].name]
    assert [*names, *(tmp_path / "scratch").iterdir()] == []


def test_a_file_that_may_not_be_read_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    locked = tmp_path / "locked.csv"  # of which the first bytes are looked at, as of any file
    locked.write_text("path,label\n")

    def denied(path: Path, *_: object) -> object:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(archives, "open", denied, raising=False)
    with pytest.raises(DataError, match=r"locked\.csv: Permission denied; change its rights, or name another"):
        find_source(locked)
