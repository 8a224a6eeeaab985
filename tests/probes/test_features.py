"""Features: every image exactly once, equal to the forward pass written out, whole or not there."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from alexnet.cli import main
from alexnet.core.errors import AlexNetError, DataError, UsageError
from alexnet.core.parts import Part
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.packed import PackedSet
from alexnet.data.prepare import prepare
from alexnet.data.sources import Record, Source
from alexnet.evaluation.layers import find_layers
from alexnet.evaluation.predict import Predictor, model_fingerprint
from alexnet.models import create_model
from alexnet.models.folder import save_model_folder
from alexnet.probes import features
from alexnet.probes.features import cached_features, extract, extract_part, open_features
from shared import content, in_child

SIZE, CROP = 72, 64
MEAN = np.random.default_rng(1).uniform(90, 150, (SIZE, SIZE, 3)).astype(np.float32)
INPUT = Preprocessing(resize=SIZE, crop=CROP, mean="image")
CLASSES = tuple("abcd")


def make_predictor(seed: int = 0, **fields: Any) -> Predictor:
    """A narrow network with the layers of the paper, on pictures of 64 pixels."""
    narrow: dict[str, Any] = {"conv_channels": (8, 8, 8, 8, 8), "fc_units": (16, 12), "num_classes": 4}
    model = create_model("alexnet_2012", seed=seed, input_size=CROP, **(narrow | fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # the paper's start is so small that all features would be nearly equal
            if parameter.ndim > 1:
                parameter.mul_(4)
    return Predictor("alexnet_2012", model, INPUT, CLASSES, MEAN, torch.device("cpu"))


@dataclass
class Squares:
    """A split in memory."""

    pixels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        self.labels = np.arange(len(self.pixels), dtype=np.int64) % len(CLASSES)
        self.paths = [f"photo\n{i}.png" for i in range(len(self.pixels))]

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index_B: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.pixels[index_B]


def squares(n: int) -> Squares:
    return Squares(np.random.default_rng(n).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8))


forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
"""Python 3.12 warns of threads: those of the loader have ended their work."""


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return make_predictor()


def local_response_norm(x_BCHW: torch.Tensor) -> torch.Tensor:
    """§3.3 within each tower; torch divides alpha by the size of the window, the paper does not."""
    return torch.cat([F.local_response_norm(half, 5, alpha=5e-4, beta=0.75, k=2) for half in x_BCHW.chunk(2, 1)], 1)


@torch.no_grad()
def written_out(predictor: Predictor, pixels_NSSC: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """pool5, fc6 and fc7 after their nonlinearity and before the halving of §4.2, and what is halved, one image at a time."""
    weights = predictor.model.state_dict()

    def conv(number: int, x_BCHW: torch.Tensor, **options: int) -> torch.Tensor:
        name = f"conv{number}"
        return F.relu(F.conv2d(x_BCHW, weights[f"{name}.weight"], weights[f"{name}.bias"], **options))

    rows: dict[str, list[NDArray[np.float32]]] = {"pool5": [], "fc6": [], "fc7": [], "dropout7": []}
    border = (SIZE - CROP) // 2
    for pixels_SSC in pixels_NSSC:
        crop_SSC = (pixels_SSC.astype(np.float32) - MEAN)[border : border + CROP, border : border + CROP]
        x_BCHW = F.pad(torch.from_numpy(crop_SSC.transpose(2, 0, 1).copy())[None], (0, 3, 0, 3))
        x_BCHW = F.max_pool2d(local_response_norm(conv(1, x_BCHW, stride=4)), 3, 2)
        x_BCHW = F.max_pool2d(local_response_norm(conv(2, x_BCHW, padding=2, groups=2)), 3, 2)
        x_BCHW = conv(3, x_BCHW, padding=1)
        x_BCHW = conv(4, x_BCHW, padding=1, groups=2)
        pool5 = F.max_pool2d(conv(5, x_BCHW, padding=1, groups=2), 3, 2)
        fc6 = F.relu(F.linear(pool5.flatten(1), weights["fc6.weight"], weights["fc6.bias"]))
        fc7 = F.relu(F.linear(0.5 * fc6, weights["fc7.weight"], weights["fc7.bias"]))
        for name, row in [("pool5", pool5), ("fc6", fc6), ("fc7", fc7), ("dropout7", 0.5 * fc7)]:
            rows[name].append(row.flatten().numpy())
    return {name: np.stack(found) for name, found in rows.items()}


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_every_image_is_there_once_and_in_its_place_whatever_the_batch(
    predictor: Predictor, tmp_path: Path, batch_size: int
) -> None:
    # 1 to 70 images: full and partial last batches, fewer images than a batch holds
    everything = squares(70)
    expected_ND = extract(predictor, everything, ["fc7"], tmp_path / "all", classes=CLASSES).matrix("fc7")[:]
    assert len(np.unique(np.asarray(expected_ND), axis=0)) == 70  # so that a row in the wrong place is seen
    for n in [*range(1, 18), 23, 24, 25, 69, 70]:
        done: list[tuple[int, int]] = []
        found = extract(
            predictor,
            Squares(everything.pixels[:n]),
            ["fc7"],
            tmp_path / "some",
            classes=CLASSES,
            batch_size=batch_size,
            workers=0,
            progress=lambda images, total, done=done: done.append((images, total)),  # type: ignore[misc]
        )
        assert len(found) == n == len(found.labels) == len(found.paths)
        np.testing.assert_allclose(found.matrix("fc7")[:], expected_ND[:n], rtol=1e-4, atol=1e-5 * expected_ND.max())
        assert found.labels.tolist() == everything.labels[:n].tolist()
        assert found.paths == everything.paths[:n]
        assert done[-1] == (n, n)
        assert all(earlier < later for earlier, later in itertools.pairwise(done))


def test_rows_are_those_of_the_forward_pass_written_out(predictor: Predictor, tmp_path: Path) -> None:
    split = squares(7)
    layers = ["pool5", "fc6", "fc7", "dropout7"]
    found = extract(predictor, split, layers, tmp_path / "f", classes=CLASSES, batch_size=3)
    for layer, expected_ND in written_out(predictor, split.pixels).items():
        assert expected_ND.max() > 0
        np.testing.assert_allclose(found.matrix(layer)[:], expected_ND, rtol=1e-4, atol=1e-5 * expected_ND.max())


def test_fc7_is_before_the_halving_and_dropout7_after_it(predictor: Predictor, tmp_path: Path) -> None:
    found = extract(predictor, squares(5), ["fc7", "dropout7"], tmp_path / "f", classes=CLASSES)
    assert found.matrix("fc7")[:].max() > 0
    assert np.array_equal(found.matrix("dropout7")[:], 0.5 * found.matrix("fc7")[:])


def test_the_layer_pixels_is_the_input_of_the_network(predictor: Predictor, tmp_path: Path) -> None:
    split = squares(2)
    found = extract(predictor, split, ["pixels"], tmp_path / "f", classes=CLASSES)
    border = (SIZE - CROP) // 2
    inner = slice(border, border + CROP)
    expected_NSSC = (split.pixels.astype(np.float32) - MEAN)[:, inner, inner]
    assert np.array_equal(found.matrix("pixels")[:], expected_NSSC.transpose(0, 3, 1, 2).reshape(2, -1))


def test_half_precision_files_are_the_rounded_values(predictor: Predictor, tmp_path: Path) -> None:
    wide = extract(predictor, squares(5), ["fc7"], tmp_path / "wide", classes=CLASSES)
    half = extract(predictor, squares(5), ["fc7"], tmp_path / "half", classes=CLASSES, dtype="float16")
    assert half.matrix("fc7")[:].dtype == np.float16
    assert np.array_equal(half.matrix("fc7")[:], wide.matrix("fc7")[:].astype(np.float16))


def test_values_beyond_half_precision_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    predictor = make_predictor()
    with torch.no_grad():
        predictor.model.get_submodule("fc7").bias.fill_(1e5)  # type: ignore[operator, union-attr]
    assert np.isfinite(extract(predictor, squares(2), ["fc7"], tmp_path / "f", classes=CLASSES).matrix("fc7")[:]).all()
    with pytest.raises(AlexNetError, match=r"fc7: activations are not finite as float16"):
        extract(predictor, squares(2), ["fc7"], tmp_path / "half", classes=CLASSES, dtype="float16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f"]


def test_an_unknown_layer_lists_the_names(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no layer is called 'fc9'; the layers are pixels, conv1, .*fc7, dropout7, fc8"
    ):
        extract(predictor, squares(2), ["fc9"], tmp_path / "f", classes=CLASSES)
    found = extract(predictor, squares(2), ["fc6", "fc7"], tmp_path / "f", classes=CLASSES)
    with pytest.raises(UsageError, match=r"holds no layer 'fc8', only fc6, fc7"):
        found.matrix("fc8")[:]


@pytest.mark.parametrize(
    ("n", "layers", "batch_size", "message"),
    [(0, ["fc7"], 4, "no images"), (2, [], 4, "at least one layer"), (2, ["fc7"], 0, "batch_size is 0")],
)
def test_nothing_to_compute_is_said(
    predictor: Predictor, tmp_path: Path, n: int, layers: list[str], batch_size: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        extract(predictor, squares(n), layers, tmp_path / "f", classes=CLASSES, batch_size=batch_size)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["fc7.npy", "labels.npy", "paths.jsonl"])
def test_one_flipped_bit_is_found(predictor: Predictor, tmp_path: Path, name: str) -> None:
    folder = extract(predictor, squares(3), ["fc7"], tmp_path / "f", classes=CLASSES).folder
    assert len(open_features(folder)) == 3
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: damaged, its SHA-256 is not that in meta.json"):
        open_features(folder)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (None, "holds no features"),
        ("{", "not valid JSON"),
        ('{"format": "alexnet packed set"}', "not that of features"),
    ],
)
def test_other_folders_are_no_features(tmp_path: Path, meta: str | None, message: str) -> None:
    if meta is not None:
        (tmp_path / "meta.json").write_text(meta)
    with pytest.raises(DataError, match=message):
        open_features(tmp_path)


def test_a_file_that_is_missing_is_named(predictor: Predictor, tmp_path: Path) -> None:
    folder = extract(predictor, squares(3), ["fc7"], tmp_path / "f", classes=CLASSES).folder
    (folder / "labels.npy").unlink()
    with pytest.raises(DataError, match=r"labels.npy: missing"):
        open_features(folder)


def test_the_files_are_those_that_numpy_writes(predictor: Predictor, tmp_path: Path) -> None:
    for dtype in ("float32", "float16"):
        found = extract(predictor, squares(5), ["fc7"], tmp_path / "f", classes=CLASSES, dtype=dtype, batch_size=2)  # type: ignore[arg-type]
        np.save(tmp_path / "again.npy", found.matrix("fc7")[:])
        assert (tmp_path / "again.npy").read_bytes() == (tmp_path / "f" / "fc7.npy").read_bytes()


def test_a_list_of_names_that_cannot_be_read_is_found_before_the_work(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Damaged(Squares):
        @property
        def paths(self) -> list[str]:
            raise DataError("val.paths.jsonl: damaged")

        @paths.setter
        def paths(self, _: list[str]) -> None: ...

    monkeypatch.delattr(Predictor, "activations")
    with pytest.raises(DataError, match=r"paths\.jsonl: damaged"):
        extract(predictor, Damaged(squares(3).pixels), ["fc7"], tmp_path / "f", classes=CLASSES)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["holiday.jpg", "meta.json"])
def test_a_folder_with_other_files_is_left_alone(predictor: Predictor, tmp_path: Path, name: str) -> None:
    # a packed set has a meta.json too
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text('{"format": "alexnet packed set"}')
    with pytest.raises(UsageError, match="exists and holds no features"):
        extract(predictor, squares(2), ["fc7"], tmp_path / "mine", classes=CLASSES)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "when"),
    [
        ("notes.txt", "before"),
        ("fc6.npy", "before"),
        ("folder/holiday.jpg", "before"),
        ("notes.txt", "while computing"),
        ("notes.txt", "before the join"),
    ],
)
def test_features_with_other_files_beside_them_are_left_alone(
    predictor: Predictor, tmp_path: Path, name: str, when: str
) -> None:
    folder = extract(predictor, squares(3), ["fc7"], tmp_path / "f", classes=CLASSES).folder

    def add(*_: int) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("of hours")

    def write() -> None:
        if when == "before the join":
            part(predictor, folder, 2, 2, progress=lambda done, total: add() if done == total else None)
        else:
            extract(predictor, squares(5), ["fc7"], folder, classes=CLASSES, progress=add)

    if when == "before the join":
        part(predictor, folder, 1, 2)
    if when == "before":
        add()
    with pytest.raises(UsageError, match=rf"f: holds {Path(name).parts[0]}, which is no file of features; take an"):
        write()
    assert when == "before the join" or [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (folder / name).read_text() == "of hours"
    (folder / name).unlink()
    assert len(open_features(folder)) == 3


def test_a_meta_file_that_is_damaged_or_names_other_files_makes_nothing_deletable(
    predictor: Predictor, tmp_path: Path
) -> None:
    folder = extract(predictor, squares(3), ["fc7"], tmp_path / "f", classes=CLASSES).folder
    (folder / "holiday.jpg").touch()
    meta = json.loads((folder / "meta.json").read_text())
    digests = meta["sha256"] | {"holiday.jpg": "0"}
    for text in (
        "{",
        json.dumps(meta | {"sha256": None}),
        json.dumps(meta | {"layers": None}),
        json.dumps(meta | {"sha256": digests}),
    ):
        (folder / "meta.json").write_text(text)
        before = content(folder)
        with pytest.raises(AlexNetError, match=r"not valid JSON|which is no file of features"):
            extract(predictor, squares(5), ["fc7"], folder, classes=CLASSES)
        assert content(folder) == before
        with pytest.raises(DataError, match=r"meta\.json: not"):
            open_features(folder)


@pytest.mark.parametrize("parts", [0, 1])
def test_a_link_to_a_folder_is_followed_and_the_working_folder_refused(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    def write(folder: Path) -> None:
        if parts:
            assert part(predictor, folder, 1, 1) == []
        else:
            whole(predictor, folder)

    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far")
    for _ in range(2):  # an empty folder, and features
        write(tmp_path / "link")
        assert len(open_features(tmp_path / "far")) == 11
    assert (tmp_path / "link").is_symlink()
    monkeypatch.chdir(tmp_path / "far")
    with pytest.raises(UsageError, match=r"far: this is the working folder or a mounted one, which cannot be replaced"):
        write(Path())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far", "link"]


def test_features_are_replaced_by_new_ones(predictor: Predictor, tmp_path: Path) -> None:
    extract(predictor, squares(3), ["fc6", "fc7"], tmp_path / "f", classes=CLASSES)
    extract(predictor, squares(5), ["fc7"], tmp_path / "f", classes=CLASSES)
    found = open_features(tmp_path / "f")
    assert (len(found), found.layers) == (5, ["fc7"])
    assert not (tmp_path / "f" / "fc6.npy").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interruption_leaves_nothing_half_and_the_old_as_it_was(
    predictor: Predictor, tmp_path: Path, error: type[BaseException]
) -> None:
    def stop(images: int, _total: int) -> None:
        if images >= 4:
            raise error

    for before in (0, 1):
        if before:
            extract(predictor, squares(3), ["fc7"], tmp_path / "f", classes=CLASSES)
        with pytest.raises(error):
            extract(predictor, squares(8), ["fc7"], tmp_path / "f", classes=CLASSES, batch_size=2, progress=stop)
        assert len(list(tmp_path.iterdir())) == before
    assert len(open_features(tmp_path / "f")) == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    (tmp_path / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(tmp_path / "disk")]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    yield tmp_path / "disk"
    subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=True)


def fill_up(disk: Path, left: int = 0) -> None:
    """Another program fills the disk, but for these bytes."""
    with open(disk / "other", "ab", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(file.tell() - left)


@forks
@pytest.mark.parametrize("when", ["before", "while computing", "before the join"])
def test_a_full_disk_is_an_error_and_leaves_nothing_half(
    predictor: Predictor, small_disk: Path, tmp_path: Path, when: str
) -> None:
    expected = whole(predictor, tmp_path / "whole", layers=["conv1"])
    folder = small_disk / "f"

    def fill(done: int, total: int) -> None:
        if when != "before the join" or done == total:
            fill_up(small_disk, 8192)

    def write(progress: Any = None) -> None:
        if when == "before the join":
            part(predictor, folder, 2, 2, layers=["conv1"], progress=progress)
        else:
            whole(predictor, folder, layers=["conv1"], progress=progress)

    def work() -> None:
        shutil.disk_usage = lambda _: SimpleNamespace(free=1 << 40)  # type: ignore[assignment]  # it fills up afterwards
        if when == "while computing":
            del os.posix_fallocate  # as on macOS
        elif when == "before":
            fill_up(small_disk, 16384)
        else:
            part(predictor, folder, 1, 2, layers=["conv1"])
        with pytest.raises(OSError, match="No space left") as error:
            write(fill)
        assert error.value.errno == errno.ENOSPC
        assert str(error.value.filename).startswith(str(small_disk))
        left = {path.name for path in small_disk.iterdir()}
        assert left == ({"other", ".f.parts"} if when == "before the join" else {"other"})

    assert os.waitpid(in_child(work), 0)[1] == 0  # a memory map would have ended it by SIGBUS
    (small_disk / "other").unlink()
    if when == "before the join":
        write()
        assert content(folder) == expected


@forks
def test_a_disk_that_fills_up_meanwhile_does_not_matter(
    predictor: Predictor, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "META_BYTES", 12 << 10)
    expected = whole(predictor, tmp_path / "whole")

    def write() -> None:
        assert whole(predictor, small_disk / "f", progress=lambda *_: fill_up(small_disk)) == expected

    assert os.waitpid(in_child(write), 0)[1] == 0
    assert sorted(path.name for path in small_disk.iterdir()) == ["f", "other"]


def test_what_a_killed_command_left_is_no_obstacle(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / ".f.new").mkdir()
    (tmp_path / ".f.new" / "fc6.npy").write_bytes(b"half of a matrix")
    folder = extract(predictor, squares(3), ["fc7"], tmp_path / "f", classes=CLASSES).folder
    assert sorted(file.name for file in folder.iterdir()) == ["fc7.npy", "labels.npy", "meta.json", "paths.jsonl"]
    assert len(open_features(folder)) == 3


def test_a_folder_is_written_by_one_process_at_a_time(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / ".f.new").mkdir()
    descriptor = os.open(tmp_path / ".f.new", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(AlexNetError, match="another process is writing to it"):
            extract(predictor, squares(3), ["fc7"], tmp_path / "f", classes=CLASSES)
    finally:
        os.close(descriptor)


def test_meta_says_what_was_computed_with_what(predictor: Predictor, tmp_path: Path) -> None:
    data = {"split": "val", "fingerprint": "1234"}
    folder = extract(predictor, squares(3), ["pool5"], tmp_path / "f", classes=CLASSES, data=data).folder
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["layers"] == {"pool5": list(find_layers(predictor.model, ["pool5"])[0].shape)}
    assert meta["model"] == model_fingerprint(predictor)
    assert meta["protocol"]["split"] == "val"
    assert "before the test-time halving" in meta["protocol"]["positions"]


def packed_set(split: Squares, fingerprint: str = "f00d") -> PackedSet:
    return PackedSet(Path("nowhere"), {"fingerprint": fingerprint}, list(CLASSES), {"val": split})  # type: ignore[dict-item]


def test_the_cache_computes_once_for_each_network_precision_and_data(predictor: Predictor, tmp_path: Path) -> None:
    passes: list[str] = []

    def compute(predictor: Predictor, data: PackedSet) -> NDArray[Any]:
        found = cached_features(
            predictor, data, "val", ["fc7"], cache=tmp_path, progress=lambda *_: passes.append("pass")
        )
        return np.asarray(found["fc7"].matrix("fc7")[:])

    data = packed_set(squares(4))
    first_ND = compute(predictor, data)
    assert len(passes) == 1
    assert np.array_equal(compute(predictor, data), first_ND)
    assert np.array_equal(compute(make_predictor(), data), first_ND)  # the same weights, loaded again
    assert len(passes) == 1
    others = [
        (make_predictor(seed=1), data),
        (replace(predictor, precision="bfloat16"), data),
        (predictor, packed_set(squares(5), "beef")),
    ]
    for number, (other, other_data) in enumerate(others, start=2):
        compute(other, other_data)
        assert len(passes) == number


def test_rot_in_the_cache_is_found(predictor: Predictor, tmp_path: Path) -> None:
    def compute() -> None:
        cached_features(predictor, packed_set(squares(4)), "val", ["fc7"], cache=tmp_path)

    compute()
    (matrix,) = tmp_path.rglob("fc7.npy")
    rotten = bytearray(matrix.read_bytes())
    rotten[200] ^= 64
    matrix.write_bytes(rotten)
    with pytest.raises(DataError, match=r"fc7.npy: damaged, .*; remove the folder and run the command"):
        compute()
    shutil.rmtree(matrix.parent)
    compute()


def test_the_fingerprint_is_of_all_that_decides_a_feature_and_of_nothing_else(predictor: Predictor) -> None:
    same = model_fingerprint(predictor)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert model_fingerprint(make_predictor()) == same
    finally:
        torch.set_num_threads(threads)
    doubled = make_predictor()
    assert model_fingerprint(replace(doubled, model=doubled.model.double(), precision="float64")) == same
    swapped = make_predictor()  # the same sums of the weights and of their squares
    with torch.no_grad():
        weight = swapped.model.get_submodule("fc7").weight
        weight.copy_(weight.flip(0))  # type: ignore[operator, arg-type, union-attr]
    others = [
        swapped,
        make_predictor(lrn_k=1.0),
        replace(predictor, mean=MEAN + 1),
        replace(predictor, preprocessing=replace(INPUT, scale=0.5)),
    ]
    assert len({same, *map(model_fingerprint, others)}) == 5


def test_the_fingerprint_survives_a_setting_that_a_later_version_adds() -> None:
    predictor = make_predictor()
    same, config = model_fingerprint(predictor), predictor.model.config
    later = make_dataclass("Later", [("added", int, 0)], bases=(type(config),), frozen=True, kw_only=True)
    predictor.model.config = later(**vars(config))
    assert model_fingerprint(predictor) == same
    predictor.model.config = later(**vars(config), added=1)
    assert model_fingerprint(predictor) != same


def test_embed_is_a_row_of_extract(predictor: Predictor, tmp_path: Path) -> None:
    split = squares(3)
    found = extract(predictor, split, ["fc7"], tmp_path / "f", classes=CLASSES)
    rows_BD = predictor.activations(torch.from_numpy(split.pixels[1:2]), find_layers(predictor.model, ["fc7"]))["fc7"]
    np.testing.assert_allclose(rows_BD[0], found.matrix("fc7")[1], rtol=1e-5)


# --- parts ----------------------------------------------------------------------------------------------------------


def part(predictor: Predictor, folder: Path, number: int, total: int, n: int = 11, **settings: Any) -> list[Part]:
    options = {"classes": CLASSES, "batch_size": 2, "workers": 0} | settings
    layers = options.pop("layers", ["pool5", "fc7"])
    return extract_part(predictor, squares(n), layers, folder, Part(number, total), **options)


def whole(predictor: Predictor, folder: Path, n: int = 11, **settings: Any) -> dict[str, bytes]:
    options = {"classes": CLASSES, "batch_size": 2, "workers": 0} | settings
    extract(predictor, squares(n), options.pop("layers", ["pool5", "fc7"]), folder, **options)
    return content(folder)


@pytest.mark.parametrize("total", [1, 2, 3, 5, 20])
def test_parts_write_what_one_process_writes(predictor: Predictor, tmp_path: Path, total: int) -> None:
    # 11 images in 6 passes, the last of one image: of 20 parts most have nothing to do
    expected = whole(predictor, tmp_path / "whole")
    order = list(range(1, total + 1))
    random.Random(total).shuffle(order)
    for i, number in enumerate(order):
        with_work = [Part(n, total) for n in sorted(order[i + 1 :]) if n <= 6]
        assert part(predictor, tmp_path / "parts", number, total) == with_work
    assert content(tmp_path / "parts") == expected
    assert list(expected) == ["fc7.npy", "labels.npy", "meta.json", "paths.jsonl", "pool5.npy"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "whole"]


def test_a_piece_is_several_passes_where_there_are_many(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "PIECES", 2)
    expected = whole(predictor, tmp_path / "whole", n=29)
    done: list[tuple[int, int]] = []
    part(predictor, tmp_path / "parts", 1, 2, n=29, progress=lambda *call: done.append(call))
    assert done == [(0, 17), (6, 17), (12, 17), (17, 17)]  # pieces of 6 images, of which the last has 5
    assert len(list((tmp_path / ".parts.parts").glob("*.npz"))) == 3
    part(predictor, tmp_path / "parts", 2, 2, n=29)
    assert content(tmp_path / "parts") == expected


@forks
def test_parts_at_the_same_time_and_each_twice_compute_every_image_once(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, original = whole(predictor, tmp_path / "whole"), Predictor.activations

    def logged(*arguments: Any) -> Any:
        with open(tmp_path / "log", "a") as log:
            log.write("pass\n")
        return original(*arguments)

    monkeypatch.setattr(Predictor, "activations", logged)
    children = [in_child(lambda n=n: part(predictor, tmp_path / "parts", n, 3)) for n in (1, 2, 3, 1, 2, 3)]  # type: ignore[misc]
    assert {os.waitpid(child, 0)[1] for child in children} == {0}
    assert content(tmp_path / "parts") == expected
    assert len((tmp_path / "log").read_text().split()) == 6


@forks
@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.long)])
def test_a_part_killed_anywhere_goes_on_and_so_does_the_join(predictor: Predictor, tmp_path: Path, step: int) -> None:
    expected, kills = whole(predictor, tmp_path / "whole"), 0
    part(predictor, tmp_path / "begun", 1, 2)
    place = tmp_path / "work"
    for function in ("fsync", "replace", "unlink", "rename"):
        for call in itertools.count(1, step):
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(tmp_path / ".begun.parts", place / ".parts.parts")

            def killed(function: str = function, call: int = call) -> None:
                numbers, original = itertools.count(1), getattr(os, function)

                def die(*arguments: Any, **options: Any) -> Any:
                    if next(numbers) == call:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return original(*arguments, **options)

                setattr(os, function, die)
                part(predictor, place / "parts", 2, 2)

            status = os.waitpid(in_child(killed), 0)[1]
            assert status in (0, signal.SIGKILL)
            if status == 0:
                break
            kills += 1
            assert part(predictor, place / "parts", 1 + call % 2, 2) in ([], [Part(2, 2)])
            assert part(predictor, place / "parts", 2, 2) == []
            assert content(place / "parts") == expected, (function, call)
            assert [path.name for path in place.iterdir()] == ["parts"], (function, call)
    assert kills * step > 40


def test_a_missing_part_is_named_and_the_old_features_stay(predictor: Predictor, tmp_path: Path) -> None:
    expected = whole(predictor, tmp_path / "whole")
    before = whole(predictor, tmp_path / "f", n=3)
    part(predictor, tmp_path / "f", 2, 4)
    with pytest.raises(
        AlexNetError, match=r"\.f\.parts: parts 1/4, 3/4, 4/4 not done; run features with --part"
    ) as error:
        whole(predictor, tmp_path / "f")
    assert error.value.exit_code == 1
    assert part(predictor, tmp_path / "f", 1, 4) == [Part(3, 4), Part(4, 4)]
    part(predictor, tmp_path / "f", 4, 4)
    assert content(tmp_path / "f") == before
    assert part(predictor, tmp_path / "f", 3, 4) == []
    assert content(tmp_path / "f") == expected


def test_folders_of_hosts_that_share_none_are_brought_together_and_joined(predictor: Predictor, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        part(predictor, tmp_path / f"host{number}" / "f", number, 3)
        shutil.copytree(tmp_path / f"host{number}" / ".f.parts", tmp_path / ".f.parts", dirs_exist_ok=True)
    assert whole(predictor, tmp_path / "f") == whole(predictor, tmp_path / "whole")


def test_parts_of_other_work_are_refused(predictor: Predictor, tmp_path: Path) -> None:
    part(predictor, tmp_path / "f", 1, 2)
    before = content(tmp_path / ".f.parts")
    with pytest.raises(UsageError, match=r"\.f\.parts: begun in 2 parts; go on with --part I/2, or remove this folder"):
        part(predictor, tmp_path / "f", 1, 3)
    others: list[dict[str, Any]] = [
        {"layers": ["fc7"]},
        {"batch_size": 3},
        {"dtype": "float16"},
        {"data": {"split": "val"}},
    ]
    for other in others:
        with pytest.raises(UsageError, match="begun with another model, data or options"):
            part(predictor, tmp_path / "f", 2, 2, **other)
    with pytest.raises(UsageError, match="begun with another model, data or options"):
        part(make_predictor(seed=1), tmp_path / "f", 2, 2)
    assert content(tmp_path / ".f.parts") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.jpg").touch()
    with pytest.raises(UsageError, match="exists and holds no features"):
        part(predictor, tmp_path / "mine", 1, 2)


def test_where_the_same_features_are_a_part_computes_nothing(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = whole(predictor, tmp_path / "f")
    with monkeypatch.context() as patch:
        patch.delattr(Predictor, "activations")
        assert part(predictor, tmp_path / "f", 2, 3) == []
    assert content(tmp_path / "f") == before
    assert part(predictor, tmp_path / "f", 1, 2, n=5) == [Part(2, 2)]  # others are computed anew
    assert part(predictor, tmp_path / "f", 2, 2, n=5) == []
    assert len(open_features(tmp_path / "f")) == 5


def test_a_damaged_piece_is_named_with_its_part(predictor: Predictor, tmp_path: Path) -> None:
    expected = whole(predictor, tmp_path / "whole")
    part(predictor, tmp_path / "f", 2, 2)
    piece = tmp_path / ".f.parts" / "000000006.npz"  # images 6 and 7: the fourth piece
    damaged = bytearray(piece.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    piece.write_bytes(damaged)
    with pytest.raises(DataError, match=r"000000006.npz: damaged; remove it and run part 2/2 again"):
        part(predictor, tmp_path / "f", 1, 2)
    piece.unlink()
    assert part(predictor, tmp_path / "f", 2, 2) == []
    assert content(tmp_path / "f") == expected


@pytest.mark.parametrize("damage", ["cut short", "missing"])
def test_a_join_goes_on_only_with_what_it_left(predictor: Predictor, tmp_path: Path, damage: str) -> None:
    part(predictor, tmp_path / "f", 1, 2)
    place = tmp_path / ".f.parts"
    (piece := place / "000000002.npz").write_bytes(b"x")  # the second piece, which the join finds damaged
    with pytest.raises(DataError, match=r"000000002\.npz: damaged"):
        part(predictor, tmp_path / "f", 2, 2)
    assert (place / "000000000.placed").exists()
    matrix = place / "joined" / "fc7.npy"
    if damage == "missing":
        matrix.unlink()
    else:
        os.truncate(matrix, matrix.stat().st_size - 4)
    piece.unlink()
    with pytest.raises((DataError, FileNotFoundError), match=r"fc7\.npy: cut short; remove|No such file"):
        part(predictor, tmp_path / "f", 2, 2)
    assert not (tmp_path / "f").exists()


def test_different_machines_are_listed(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part(predictor, tmp_path / "f", 2, 2)
    original = features.environment()
    monkeypatch.setattr(features, "environment", lambda: original | {"processor": "another"})
    part(predictor, tmp_path / "f", 1, 2)
    meta = json.loads((tmp_path / "f" / "meta.json").read_text())
    assert [machine["processor"] for machine in meta["machines"]] == ["another", original["processor"]]
    assert meta["environment"] == original | {"processor": "another"}  # of the first rows


def test_too_little_room_is_found_before_the_work(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("usage", (), {"free": 100}))
    with pytest.raises(AlexNetError, match=r"needs 0 MB, 0 MB are free; take fewer layers or float16"):
        part(predictor, tmp_path / "f", 1, 2)
    with pytest.raises(AlexNetError, match=r"needs 0 MB, 0 MB are free; take fewer layers or float16"):
        whole(predictor, tmp_path / "g")


@pytest.mark.parametrize("text", ["0/2", "3/2", "x"])
def test_what_is_no_part_ends_the_command_before_the_model_is_read(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["features", "/nowhere", "--out", "f", "--part", text])
    out, err = capsys.readouterr()
    assert (exit.value.code, out, err.count("\n")) == (2, "", 1)
    assert "as in 2/4" in err


def test_parts_by_the_command_line(predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def alexnet(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit:
            main([str(a) for a in arguments])
        return int(exit.value.code or 0), *capsys.readouterr()

    save_model_folder(tmp_path / "model", predictor.model, predictor.name, INPUT, CLASSES, MEAN)
    records = [Record("val", i % 4, f"{i}.png", data=image) for i, image in enumerate(squares(8).pixels)]
    prepare(Source(classes=CLASSES, records=records, fingerprint=""), tmp_path / "packed", size=SIZE, workers=0)
    command = ("features", tmp_path / "model", "--data", tmp_path / "packed", "--batch-size", 2, "--device", "cpu")
    said = f"8 images of {tmp_path}/packed (val)\nfc7: 8 x 12 float32\nin {tmp_path}/whole\n"
    assert alexnet(*command, "--out", tmp_path / "whole")[:2] == (0, said)
    command += ("--out", tmp_path / "parts")
    code, out, _ = alexnet(*command, "--part", "2/3")
    assert (code, out) == (0, "part 2/3 is done, not yet parts 1/3, 3/3; the last to end joins them\n")
    code, out, _ = alexnet(*command, "--part", "3/3", "--json")
    assert (code, json.loads(out)["not_done"]) == (0, ["1/3"])
    code, out, err = alexnet(*command)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "part 1/3 not done" in err
    assert alexnet(*command, "--part", "1/3")[0] == 0
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
