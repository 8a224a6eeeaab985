from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import random
import resource
import shlex
import shutil
import signal
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.cli import main
from alexnet.core.errors import AlexNetError, DataError, UsageError
from alexnet.data import prepare as preparing
from alexnet.data import shards
from alexnet.data.named import read_source
from alexnet.data.packed import open_packed, seal
from alexnet.data.prepare import prepare, resolve
from alexnet.data.shards import Store
from alexnet.data.sources import Record, Source
from alexnet.recipes import recipe
from alexnet.recipes.run import open_data
from shared import content, in_child

MakeFolder = Callable[..., Path]
COUNTS = {"train/cat": 7, "train/dog": 9, "val/cat": 3, "val/dog": 2}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "SHARD_IMAGES", 4)


def reference(path: Path, size: int) -> np.ndarray:
    """What §2 says, in four lines of Pillow."""
    image = Image.open(path).convert("RGB")
    short = min(image.size)
    image = image.resize((image.width * size // short, image.height * size // short), Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("workers", [1, 2])
def test_images_labels_and_names_are_those_of_the_source(image_folder_of: MakeFolder, tmp_path: Path, workers: int):
    source = image_folder_of(COUNTS)
    packed = prepare(source, tmp_path / "packed", size=12, workers=workers)
    assert packed.classes == ["cat", "dog"]
    for name, split in packed.splits.items():
        paths = sorted(source.glob(f"{name}/*/*.png"))
        assert split.paths == [str(path.relative_to(source)) for path in paths]
        assert split.labels.tolist() == [("cat", "dog").index(path.parent.name) for path in paths]
        assert np.array_equal(split.read(np.arange(len(split))), np.stack([reference(path, 12) for path in paths]))
    assert packed.meta["found"] == {"files": 21, "accepted": 21, "rejected": 0, "not_images": 0}
    assert not (tmp_path / "packed" / ".unfinished").exists()


def test_mean_image_and_color_covariance_are_exact(image_folder_of: MakeFolder, tmp_path: Path):
    packed = prepare(image_folder_of(COUNTS), tmp_path / "packed", size=12, workers=1)
    train = packed.split("train").read(np.arange(16)).astype(np.float64)
    assert np.array_equal(packed.mean, train.mean(axis=0).astype(np.float32))
    pixel_PC = train.reshape(-1, 3)
    assert packed.color.mean_C == pytest.approx(pixel_PC.mean(axis=0), rel=1e-14)
    assert packed.color.covariance_CC == pytest.approx(np.cov(pixel_PC.T, bias=True), rel=1e-12)
    values, vectors = packed.color.eigenvalues_C, packed.color.eigenvectors_CC
    assert vectors @ np.diag(values) @ vectors.T == pytest.approx(packed.color.covariance_CC, rel=1e-12)
    assert (np.diff(values) >= 0).all()
    assert packed.color.standard_deviations_C == pytest.approx(np.sqrt(values))
    assert all(vectors[np.abs(vectors[:, i]).argmax(), i] > 0 for i in range(3))


def test_the_covariance_does_not_overflow_at_the_largest_values(tmp_path: Path):
    white = np.full((300, 300, 3), 255, dtype=np.uint8)
    records = [Record("train", i % 2, str(i), data=white - np.uint8(i % 2)) for i in range(6)]
    packed = prepare(
        Source(classes=["a", "b"], records=records, fingerprint=""), tmp_path / "packed", size=300, workers=1
    )
    assert packed.color.mean_C == pytest.approx([254.5] * 3)
    assert packed.color.covariance_CC == pytest.approx(np.full((3, 3), 0.25))


def test_result_does_not_depend_on_workers_and_a_second_call_changes_nothing(
    image_folder_of: MakeFolder, tmp_path: Path
):
    source = image_folder_of(COUNTS)
    prepare(source, tmp_path / "one", size=12, workers=1)
    prepare(source, tmp_path / "two", size=12, workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").iterdir()}
    prepare(source, tmp_path / "two", size=12)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "two").iterdir()} == before


def test_progress_ends_at_all_images(image_folder_of: MakeFolder, tmp_path: Path):
    calls: list[tuple[int, int]] = []
    prepare(image_folder_of(COUNTS), tmp_path / "packed", size=12, workers=1, progress=lambda *c: calls.append(c))
    assert calls[0] == (0, 21)
    assert calls[-1] == (21, 21)
    assert calls == sorted(calls)


# --- images that cannot be read -------------------------------------------------------------------------------------


def spoil(source: Path, *names: str) -> None:
    for name in names:
        (source / name).write_bytes(b"not an image at all")


def test_rejected_images_are_named_and_the_last_of_the_split_take_their_places(
    image_folder_of: MakeFolder, tmp_path: Path
):
    source = image_folder_of({"train/cat": 11, "train/dog": 12, "val/cat": 2, "val/dog": 2})
    (source / "train" / "cat" / "notes.txt").write_text("no image")
    spoil(source, "train/cat/001.png", "train/dog/000.png", "train/dog/011.png")
    with pytest.raises(DataError, match=r"2 of the 14 files of class dog cannot be read, more than 10 %"):
        prepare(source, tmp_path / "packed", size=12, workers=1)
    packed = prepare(source, tmp_path / "packed", size=12, workers=1, max_bad=3)
    names = [f"train/{name}/{i:03d}.png" for name, count in (("cat", 11), ("dog", 12)) for i in range(count)]
    # 23 listed, 3 bad: rows 0..19, the holes 1 and 11 filled by the good ones among 20..22, which are 20 and 21.
    names[1], names[11] = names[20], names[21]
    split = packed.split("train")
    assert split.paths == names[:20]
    assert np.array_equal(split.read(np.arange(20)), np.stack([reference(source / name, 12) for name in names[:20]]))
    assert split.labels.tolist() == [("cat", "dog").index(name.split("/")[1]) for name in names[:20]]
    assert packed.meta["found"] == {"files": 28, "accepted": 24, "rejected": 3, "not_images": 1}
    assert [(r["path"], r["class"], r["reason"]) for r in packed.meta["rejected"]] == [
        ("train/cat/001.png", "cat", "not an image"),
        ("train/dog/000.png", "dog", "not an image"),
        ("train/dog/011.png", "dog", "not an image"),
    ]
    assert np.array_equal(packed.mean, split.read(np.arange(20)).astype(np.float64).mean(axis=0).astype(np.float32))
    assert packed.meta["counts"]["train"] == {"images": 20, "per_class": [11 - 1, 12 - 2]}


def test_ten_unreadable_files_are_put_up_with_and_eleven_are_not(image_folder_of: MakeFolder, tmp_path: Path):
    source = image_folder_of({"train/cat": 110, "train/dog": 110, "val/cat": 10, "val/dog": 10})
    spoil(source, *(f"train/{name}/{i:03d}.png" for name in ("cat", "dog") for i in range(5)))
    assert prepare(source, tmp_path / "ten", size=4, workers=1).meta["found"]["rejected"] == 10
    spoil(source, "train/dog/109.png")
    with pytest.raises(
        DataError, match=r"11 of 240 files cannot be read, more than 10 .*001.png: not an image; .*; \.\.\."
    ):
        prepare(source, tmp_path / "eleven", size=4, workers=1)
    with pytest.raises(DataError, match="unfinished: run prepare again"):
        open_packed(tmp_path / "eleven")
    assert prepare(source, tmp_path / "eleven", size=4, workers=1, max_bad=0.05).meta["found"]["rejected"] == 11


@pytest.mark.parametrize("size", [16, None])
def test_the_advice_for_unreadable_files_names_the_users_folder_and_works(
    image_folder_of: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None
):
    photos = image_folder_of({"train/cat": 12, "train/dog": 12, "val/cat": 2, "val/dog": 2}, "my photos")
    for i in range(4):
        (photos / f"train/cat/{i:03d}.png").write_text("<!DOCTYPE html><title>404</title>")
    with pytest.raises(DataError, match=r"4 of the 14 files of class cat cannot be read, more than 10 %") as caught:
        resolve(photos, cache=tmp_path / "cache", size=size, workers=1)
    message = str(caught.value)
    assert message.startswith(f"{photos}: ")
    assert str(tmp_path / "cache") not in message
    command = shlex.split(message.partition("`")[2].partition("`")[0])
    assert command[:2] == ["alexnet", "prepare"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="0"):
        main([*command[1:], "--workers", "1"])
    assert len(resolve("PACKED", size=size).split("train")) == 20


def test_a_class_of_which_nothing_can_be_read_is_not_to_be_put_up_with(image_folder_of: MakeFolder, tmp_path: Path):
    photos = image_folder_of({"train/cat": 2, "train/dog": 12})
    for i in range(2):
        (photos / f"train/cat/{i:03d}.png").write_text("")
    with pytest.raises(DataError, match=r"no (train|val) file of class cat can be read .*; replace them$"):
        resolve(photos, cache=tmp_path / "cache", workers=1)


def test_a_single_picture_is_no_set_and_a_single_bad_file_is_it(image_folder_of: MakeFolder, tmp_path: Path):
    photos = image_folder_of({"train/cat": 1, "train/dog": 3})
    (raw := tmp_path / "IMG_1.CR2").write_bytes(b"II*\0\x10\0\0\0CR" + bytes(200))
    (untold := tmp_path / "picture").write_bytes(next(photos.glob("train/dog/*")).read_bytes())
    for picture in (raw, untold):
        with pytest.raises(
            DataError, match=r": a single picture is no set of images; name the folder .* `alexnet predict`"
        ):
            resolve(picture, cache=tmp_path / "cache", workers=1)
    for path in photos.glob("train/cat/*"):
        path.unlink()
    raw.rename(photos / "train" / "cat" / raw.name)
    with pytest.raises(DataError) as caught:
        resolve(photos, cache=tmp_path / "cache", workers=1)
    assert str(caught.value).endswith(
        "cat can be read (train/cat/IMG_1.CR2: unsupported format (camera raw; export it from its program as JPEG or TIFF)); "
        "replace it"
    )


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (
            {"cat": 1, "dog": 1},
            "source: one image in each class leaves none to hold out for validation; add images, or",
        ),
        ({"val/cat": 2, "test/dog": 2}, "source: only val and test images, none to train on; put class folders"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused_in_a_sentence(
    image_folder_of: MakeFolder, tmp_path: Path, counts: dict[str, int], message: str
):
    prepare(image_folder_of(counts), tmp_path / "packed" / "source", size=8, workers=1)
    with pytest.raises(DataError, match=message):
        open_data(replace(recipe("quickstart"), data=str(tmp_path / "packed" / "source"), size=None), quiet=True)


def test_faults_of_classes_name_the_set(image_folder_of: MakeFolder, tmp_path: Path):
    photos = image_folder_of({"train/cat": 2, "train/dog": 0})
    with pytest.raises(DataError, match=f"^{photos}: train/dog: class folder without images"):
        resolve(photos, cache=tmp_path / "cache", workers=1)


def test_a_class_of_which_nothing_can_be_read_is_an_error(image_folder_of: MakeFolder, tmp_path: Path):
    source = image_folder_of(COUNTS)
    spoil(source, "val/dog/000.png", "val/dog/001.png")
    with pytest.raises(DataError, match="no val file of class dog can be read"):
        prepare(source, tmp_path / "packed", size=12, workers=1, max_bad=10)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train/cat": 2}, "cat: the only class"),
        ({"train/cat": 2, "train/dog": 2, "val/eel": 1}, "eel: a class without training images"),
        ({"train/cat": 2, "train/dog": 0}, "train/dog: class folder without images"),
    ],
)
def test_classes_that_cannot_be_learned_end_before_anything_is_written(
    image_folder_of: MakeFolder, tmp_path: Path, counts: dict[str, int], message: str
):
    with pytest.raises(DataError, match=message):
        prepare(image_folder_of(counts), tmp_path / "packed", size=12)
    assert not (tmp_path / "packed").exists()


# --- interruptions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["pixels", "jpeg"])
def test_killed_at_any_point_of_its_writing_it_goes_on_to_the_same_bytes(
    image_folder_of: MakeFolder, tmp_path: Path, store: Store
):
    source = image_folder_of({"train/cat": 3, "train/dog": 3, "val/cat": 1, "val/dog": 1})
    spoil(source, "train/cat/001.png")
    settings = {"size": 12, "store": store, "workers": 1, "max_bad": 1}
    prepare(source, tmp_path / "whole", **settings)
    expected = content(tmp_path / "whole")

    def killed_at_call(function: str, n: int) -> None:
        calls = itertools.count(1)
        original = getattr(os, function)

        def dying(*arguments: object) -> object:
            if next(calls) == n:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)

        setattr(os, function, dying)
        prepare(source, tmp_path / "killed", **settings)

    kills = 0
    for function in ("fsync", "replace"):
        for n in itertools.count(1):
            shutil.rmtree(tmp_path / "killed", ignore_errors=True)
            status = os.waitpid(in_child(lambda function=function, n=n: killed_at_call(function, n)), 0)[1]
            if status == 0:
                break
            assert os.WTERMSIG(status) == signal.SIGKILL
            kills += 1
            if not (tmp_path / "killed" / "meta.json").exists():
                with pytest.raises(DataError, match=r"unfinished|not a packed set"):
                    open_packed(tmp_path / "killed")
            prepare(source, tmp_path / "killed", **settings)
            assert content(tmp_path / "killed") == expected, (function, n)
    assert kills > 40


def test_killed_twice_in_a_row_while_closing_holes(
    image_folder_of: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = image_folder_of({"train/cat": 40, "train/dog": 40, "val/cat": 2, "val/dog": 2})
    spoil(source, "train/cat/001.png", "train/cat/002.png", "train/dog/039.png")
    prepare(source, tmp_path / "whole", size=12, workers=1)

    def killed_after_closing() -> None:
        def die(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(preparing, "_save_lines", die)
        prepare(source, tmp_path / "killed", size=12, workers=1)

    for _ in range(2):
        assert os.WTERMSIG(os.waitpid(in_child(killed_after_closing), 0)[1]) == signal.SIGKILL
    prepare(source, tmp_path / "killed", size=12, workers=1)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


@pytest.mark.long
def test_killed_at_random_moments_with_workers_it_goes_on_to_the_same_bytes(
    image_folder_of: MakeFolder, tmp_path: Path
):
    source = image_folder_of({"train/cat": 150, "train/dog": 150, "val/cat": 20, "val/dog": 20})
    spoil(source, "train/cat/001.png")
    prepare(source, tmp_path / "whole", size=64, workers=2)
    draw = random.Random(0)
    for _ in range(20):
        shutil.rmtree(tmp_path / "killed", ignore_errors=True)
        for _ in range(3):
            child = os.fork()
            if child == 0:
                os.setpgid(0, 0)
                prepare(source, tmp_path / "killed", size=64, workers=2)
                os._exit(0)
            time.sleep(draw.uniform(0.01, 0.4))
            os.kill(child, signal.SIGKILL)  # its workers follow by themselves
            os.waitpid(child, 0)
        prepare(source, tmp_path / "killed", size=64, workers=2)
        assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_a_source_that_changed_since_is_noticed(image_folder_of: MakeFolder, tmp_path: Path):
    source = image_folder_of(COUNTS)
    spoil(source, "train/cat/001.png", "train/cat/002.png")
    with pytest.raises(DataError, match="more than 10 %"):
        prepare(source, tmp_path / "packed", size=12, workers=1)
    (source / "train" / "cat" / "001.png").unlink()
    with pytest.raises(DataError, match="begun with another source or other settings, or the source has changed"):
        prepare(source, tmp_path / "packed", size=12, workers=1, max_bad=5)
    shutil.rmtree(tmp_path / "packed")
    prepare(source, tmp_path / "packed", size=12, workers=1, max_bad=5)
    with pytest.raises(UsageError, match="holds a set prepared from another source or with other settings"):
        prepare(source, tmp_path / "packed", size=16, workers=1, max_bad=5)


def test_a_folder_that_holds_something_else_is_left_alone(image_folder_of: MakeFolder, tmp_path: Path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="neither empty nor a packed set"):
        prepare(image_folder_of(COUNTS), tmp_path / "home", size=12)
    assert content(tmp_path / "home").keys() == {"letter.txt"}


def test_a_file_that_vanishes_while_reading_is_a_fault_with_its_name(image_folder_of: MakeFolder, tmp_path: Path):
    source = read_source(image_folder_of(COUNTS))
    Path(source.records[2].file).unlink()
    Path(source.records[10].file).write_bytes(Path(source.records[10].file).read_bytes()[:300])
    packed = prepare(source, tmp_path / "packed", size=12, workers=1, max_bad=2)
    assert [(r["path"], r["reason"]) for r in packed.meta["rejected"]] == [
        ("train/cat/002.png", "missing"),
        ("train/dog/003.png", "truncated"),
    ]


def test_a_full_disk_is_one_line_and_can_be_gone_on_from(image_folder_of: MakeFolder, tmp_path: Path):
    source = image_folder_of(COUNTS)
    prepare(source, tmp_path / "whole", size=40, workers=1)
    message = tmp_path / "message"

    def without_space() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            prepare(source, tmp_path / "full", size=40, workers=1)
        except AlexNetError as error:
            message.write_text(f"{error.exit_code} {error}")

    assert os.waitpid(in_child(without_space), 0)[1] == 0
    assert "\n" not in message.read_text()
    assert message.read_text().startswith("1 no space left in ")
    prepare(source, tmp_path / "full", size=40, workers=1)
    assert content(tmp_path / "full") == content(tmp_path / "whole")


def test_too_little_space_is_found_before_the_work(
    image_folder_of: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("usage", (), {"free": 1000}))
    with pytest.raises(AlexNetError, match=r"no space left in .*: needs 0 MB, 0 MB free"):
        prepare(image_folder_of(COUNTS), tmp_path / "packed", size=12, workers=1)


def test_a_set_that_does_not_say_what_it_was_made_from_is_another(image_folder_of: MakeFolder, tmp_path: Path):
    source = image_folder_of(COUNTS)
    folder = prepare(source, tmp_path / "packed", size=12, workers=1).path
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(
        json.dumps(seal({k: v for k, v in meta.items() if k not in ("plan", "source", "sha256")}))
    )
    with pytest.raises(UsageError, match="prepared from another source"):
        prepare(source, folder, size=12, workers=1)


# --- JPEG records ---------------------------------------------------------------------------------------------------


def test_jpeg_records_are_close_to_the_pixels_and_smaller(tmp_path: Path):
    y, x = np.mgrid[0:80, 0:100]
    smooth = np.dstack([x * 2, y * 3, 100 + x + y]).clip(0, 255).astype(np.uint8)
    records = [Record("train", i % 2, f"{i}.png", data=np.roll(smooth, i * 7, axis=1)) for i in range(10)]
    source = Source(classes=["a", "b"], records=records, fingerprint="")
    pixels = prepare(source, tmp_path / "pixels", size=64, workers=1).split("train").read(np.arange(10))
    packed = prepare(source, tmp_path / "jpeg", size=64, store="jpeg", workers=1)
    stored = packed.split("train").read(np.array([9, 0, 3]))
    assert stored.shape == (3, 64, 64, 3)
    assert np.abs(stored.astype(int) - pixels[[9, 0, 3]]).mean() < 3
    assert (tmp_path / "jpeg" / "train.images.bin").stat().st_size < 10 * 64 * 64 * 3 / 2
    every = packed.split("train").read(np.arange(10)).astype(np.float64)
    assert np.array_equal(packed.mean, every.mean(axis=0).astype(np.float32))  # of what is read, not of what was coded


def test_both_decoders_read_the_same_pixels_from_our_records(tmp_path: Path):
    simplejpeg = pytest.importorskip("simplejpeg")
    for seed in range(3):
        rough = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(rough).resize((64, 64), Image.Resampling.BICUBIC))
        for channels, colorspace in ((3, "RGB"), (1, "GRAY")):
            jpeg = shards._encode(smooth[:, :, :channels])
            by_pillow = np.asarray(Image.open(io.BytesIO(jpeg))).reshape(64, 64, channels)
            assert np.array_equal(simplejpeg.decode_jpeg(jpeg, colorspace), by_pillow)


# --- forms and named sets -------------------------------------------------------------------------------------------


def test_grey_sets_have_one_channel_and_keep_their_size(tmp_path: Path):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)
    records = [Record("train", i % 2, str(i), data=image) for i in range(4)]
    source = Source(classes=["a", "b"], records=records, fingerprint="", size=8, channels=1)
    packed = prepare(source, tmp_path / "packed", workers=1)
    assert packed.split("train").read(np.arange(4)).shape == (4, 8, 8, 1)
    assert np.array_equal(packed.split("train").read(np.array([2]))[0], image)
    assert packed.mean.shape == (8, 8, 1)
    assert packed.color.standard_deviations_C == pytest.approx([image.std()])
    assert prepare(source, tmp_path / "larger", size=16, workers=1).split("train").read(np.arange(1)).shape == (
        1,
        16,
        16,
        1,
    )


def test_a_set_without_training_images_can_only_be_evaluated_on(image_folder_of: MakeFolder, tmp_path: Path):
    packed = prepare(image_folder_of({"val/cat": 2, "val/dog": 2}), tmp_path / "packed", size=12, workers=1)
    assert packed.held_out == "val"
    with pytest.raises(DataError, match="no training images, so no mean"):
        _ = packed.mean
    with pytest.raises(DataError, match="no split 'train'; there is val"):
        packed.split("train")


def test_resolve_prepares_once_and_again_when_the_source_changes(image_folder_of: MakeFolder, tmp_path: Path):
    source, cache = image_folder_of(COUNTS), tmp_path / "cache"
    first = resolve(source, cache=cache, size=12)
    assert resolve(source, cache=cache, size=12).path == first.path
    assert resolve(first.path).fingerprint == first.fingerprint
    assert resolve(source, cache=cache, size=16).path != first.path
    with pytest.raises(UsageError, match="packed at 12 pixels, and this command asks for 16"):
        resolve(first.path, size=16)
    (source / "train" / "cat" / "000.png").unlink()
    assert resolve(source, cache=cache, size=12).path != first.path


def test_resolve_takes_a_csv_list(image_folder_of: MakeFolder, tmp_path: Path):
    source = image_folder_of(COUNTS)
    rows = [f"{p.relative_to(source)},{p.parent.name},{p.parts[-3]}" for p in sorted(source.glob("*/*/*.png"))]
    (source / "list.csv").write_text("path,label,split\n" + "\n".join(rows))
    by_list = resolve(source / "list.csv", cache=tmp_path / "cache", size=12)
    by_folder = resolve(source, cache=tmp_path / "cache", size=12)
    assert by_list.fingerprint == by_folder.fingerprint  # the same classes, pixels and order


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("no-such-set", "no-such-set: no such file, folder or named set; the sets are shapes, digits"),
        ("imagenette", r"imagenette: not found in .* \(looked for photos/imagenette-224.tar.*get it from https://"),
        ("README.md", r"README.md: not a folder, \.tar, \.tar\.gz, \.zip, \.parquet, \.csv, \.tsv, \.txt or IDX file"),
        ("nul\0byte", r"nul\\x00byte: no such file"),
    ],
)
def test_data_that_is_not_found_says_where_it_was_looked_for(
    data: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("read me")
    monkeypatch.delenv("ALEXNET_DATA", raising=False)
    with pytest.raises(DataError, match=message):
        resolve(data, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_size_out_of_range_is_a_usage_error(image_folder_of: MakeFolder, tmp_path: Path):
    with pytest.raises(UsageError, match="size is 5000"):
        prepare(image_folder_of(COUNTS), tmp_path / "packed", size=5000)


@pytest.mark.long
def test_the_real_sets_are_complete(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(preparing, "SHARD_IMAGES", 256)
    expected = {
        "imagenette": (256, 3, {"train": 7000, "val": 2500}),
        "cifar10": (32, 3, {"train": 50000, "test": 10000}),
    }
    for name, (size, channels, counts) in expected.items():
        packed = resolve(name, data_root=data_root, cache=tmp_path)
        assert (packed.size, packed.channels) == (size, channels)
        assert {split: len(packed.split(split)) for split in packed.splits} == counts
        assert len(set(np.bincount(packed.split("train").labels))) == 1
        assert packed.meta["found"]["rejected"] == 0
    assert packed.classes[:3] == ["airplane", "automobile", "bird"]


def test_meta_says_how_the_pixels_were_made(image_folder_of: MakeFolder, tmp_path: Path):
    packed = prepare(image_folder_of(COUNTS), tmp_path / "packed", size=12, workers=1)
    meta = json.loads((tmp_path / "packed" / "meta.json").read_text())
    assert meta["complete"] is True
    assert meta["protocol"]["resampling"] == "Pillow bilinear, antialiased"
    assert meta["protocol"]["decoder"]["pillow"] == Image.__version__
    assert set(meta["files"]) == {path.name for path in packed.path.iterdir()} - {"meta.json"}
    for name, file in meta["files"].items():
        assert file["sha256"] == hashlib.sha256((packed.path / name).read_bytes()).hexdigest()


def test_a_cache_that_may_only_be_read_gives_what_it_holds_and_names_the_remedy_for_the_rest(
    image_folder_of: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = image_folder_of({"train/cat": 3, "train/dog": 3, "val/cat": 1, "val/dog": 1})
    packed = resolve(source, cache=tmp_path / "cache", size=16, workers=1)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert resolve(source, cache=tmp_path / "cache", size=16).path == packed.path
    with pytest.raises(
        AlexNetError, match=rf"prepared of {source} .* set ALEXNET_CACHE .* \(alexnet prepare {source} PACKED\)"
    ):
        resolve(source, cache=tmp_path / "cache", size=8)


@pytest.fixture
def photos(image_folder_of: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose set is in the cache; to decode anything again is an error until :func:`changed`."""
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    source = image_folder_of({"photos/cat": 6, "photos/dog": 6}, "parent") / "photos"
    resolve(source, size=16, workers=1)
    monkeypatch.setattr(shards, "load_image", lambda *_: pytest.fail("an image was decoded again"))
    return source


def touched(photos: Path) -> Path:
    os.utime(photos / "cat" / "000.png", ns=(1, 1))
    return photos


def copied(photos: Path) -> Path:
    return Path(shutil.copytree(photos, photos.parent / "elsewhere" / "bilder", copy_function=shutil.copyfile))


def renamed(photos: Path) -> Path:
    parent = photos.parent.rename(photos.parent.with_name("renamed"))
    return (parent / "photos").rename(parent / "pictures")


def linked(photos: Path) -> Path:
    (photos.parent / "link").symlink_to(photos)
    return photos.parent / "link"


def in_a_tar(photos: Path) -> Path:
    with tarfile.open(photos.with_suffix(".tar"), "w") as tar:
        tar.add(photos, "wrapped")
    return photos.with_suffix(".tar")


def listed(photos: Path) -> Path:
    (photos / "list.csv").write_text(
        "".join(f"{f.relative_to(photos)},{f.parent.name}\n" for f in sorted(photos.rglob("*.png")))
    )
    return photos / "list.csv"


@pytest.mark.parametrize("other", [touched, copied, renamed, linked, in_a_tar, listed])
def test_the_same_images_under_another_name_are_not_prepared_again(photos: Path, other: Callable[[Path], Path]):
    first = resolve(photos, size=16)
    source = other(photos)
    for _ in range(2):  # found by contents, then by times
        assert resolve(source, size=16, workers=1).path == first.path
    assert (first.path / ".used.json").is_file()


def test_other_bytes_of_the_same_name_size_and_time_are_prepared(photos: Path, monkeypatch: pytest.MonkeyPatch):
    first, file = resolve(photos, size=16), photos / "cat" / "001.png"
    monkeypatch.undo()
    monkeypatch.setenv("ALEXNET_CACHE", str(first.path.parent))
    status, content = file.stat(), bytearray(file.read_bytes())
    content[-20] ^= 1  # inside the pixels: now it cannot be read
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = resolve(photos, size=16, workers=1, max_bad=1)
    assert second.path != first.path
    assert [fault["path"] for fault in second.meta["rejected"]] == ["cat/001.png"]
    assert resolve(photos, size=16).path == second.path


def test_another_decoder_prepares_the_same_images_again(photos: Path, monkeypatch: pytest.MonkeyPatch):
    first, original = resolve(photos, size=16), preparing.decoder_versions()
    monkeypatch.undo()
    monkeypatch.setenv("ALEXNET_CACHE", str(first.path.parent))
    monkeypatch.setattr(preparing, "decoder_versions", lambda: original | {"pillow": "0.1"})
    assert resolve(photos, size=16, workers=1).path != first.path


def test_a_packed_folder_knows_its_source_after_it_was_touched(image_folder_of: MakeFolder, tmp_path: Path):
    source = image_folder_of({"train/cat": 3, "train/dog": 3, "val/cat": 1, "val/dog": 1})
    packed = prepare(source, tmp_path / "packed", size=16, workers=1)
    for file in source.rglob("*.png"):
        os.utime(file)
    assert prepare(source, tmp_path / "packed", size=16, workers=1).fingerprint == packed.fingerprint
    (source / "train/cat/000.png").write_bytes((source / "train/cat/001.png").read_bytes())
    with pytest.raises(UsageError, match="another source or with other settings, or the source has changed since"):
        prepare(source, tmp_path / "packed", size=16, workers=1)
