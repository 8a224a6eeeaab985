from __future__ import annotations

import io
import pickle
import pickletools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.core.errors import DataError
from alexnet.data.cifar import CLASSES, cifar10, is_cifar10, read_plain_pickle
from alexnet.data.sources import MAX_IMAGES

RNG = np.random.default_rng(0)
PLANES = RNG.integers(0, 256, (6, 3072), dtype=np.uint8)
LABELS = [3, 0, 9, 3, 0, 9]


def upright(planes: np.ndarray) -> np.ndarray:
    red, green, blue = planes[:1024], planes[1024:2048], planes[2048:]
    return np.dstack([plane.reshape(32, 32) for plane in (red, green, blue)])


def python2_pickle(batch: dict[str, object]) -> bytes:
    """The opcodes of the published files: protocol 2 by Python 2, so every text is a byte string (SHORT_BINSTRING)."""
    array = batch["data"]
    assert isinstance(array, np.ndarray)

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    def long(text: bytes) -> bytes:
        return b"T" + len(text).to_bytes(4, "little") + text

    dtype = (
        b"cnumpy\ndtype\nq\x05"
        + short(b"u1")
        + b"K\x00K\x01\x87Rq\x06(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    data = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87Rq\x04(K\x01"
        + b"K" + bytes([array.shape[0]]) + b"M\x00\x0c\x86" + dtype + b"\x89" + long(array.tobytes()) + b"tb"
    )  # fmt: skip
    labels = b"](" + b"".join(b"K" + bytes([label]) for label in LABELS) + b"e"
    return (
        b"\x80\x02}q\x01("
        + short(b"data")
        + data
        + short(b"labels")
        + labels
        + short(b"batch_label")
        + short(b"x")
        + b"u."
    )


def test_the_hand_written_pickle_is_one():
    # The test's own file is what Python's unpickler reads, so the reader below is tested on the real format.
    batch = pickle.loads(python2_pickle({"data": PLANES}), encoding="bytes")  # noqa: S301
    assert np.array_equal(batch[b"data"], PLANES)
    assert batch[b"labels"] == LABELS


def records_equal_the_batch(folder: Path) -> None:
    source = cifar10(folder)
    train = sorted(
        (r for r in source.records if r.name.startswith("data_batch_1")), key=lambda r: int(r.name.split("/")[1])
    )
    assert list(source.classes) == list(CLASSES)
    assert [r.label for r in train] == LABELS
    for record, planes in zip(train, PLANES, strict=True):
        assert np.array_equal(record.read(), upright(planes))


def test_binary_batches(tmp_path: Path):
    for name in ("data_batch_1.bin", "test_batch.bin"):
        rows = np.concatenate([np.array(LABELS, dtype=np.uint8)[:, None], PLANES], axis=1)
        (tmp_path / name).write_bytes(rows.tobytes())
    assert is_cifar10(tmp_path)
    records_equal_the_batch(tmp_path)
    assert [r.split for r in cifar10(tmp_path).records] == ["train"] * 6 + ["test"] * 6


@pytest.mark.parametrize("write", ["python 2", "protocol 2", "protocol 4", "protocol 5"])
def test_python_batches_without_unpickling(tmp_path: Path, write: str):
    batch = {"data": PLANES, "labels": LABELS, "filenames": ["a.png"] * 6}
    data = python2_pickle(batch) if write == "python 2" else pickle.dumps(batch, protocol=int(write[-1]))
    if write in ("protocol 2", "protocol 5"):  # re-pickled by Python 3: other opcodes, which are refused in one line
        with pytest.raises(DataError, match=r"binary version|refers to"):
            read_plain_pickle(data, "data_batch_1")
        return
    (tmp_path / "data_batch_1").write_bytes(data)
    (tmp_path / "batches.meta").write_bytes(b"\x80\x02}.")
    records_equal_the_batch(tmp_path)


def hostile(reduce: object) -> bytes:
    class Payload:
        def __reduce__(self) -> object:
            return reduce

    return pickle.dumps({"labels": [], "data": Payload()}, protocol=2)


@pytest.mark.parametrize(
    "data",
    [
        hostile((exec, ("open('canary', 'w')",))),
        hostile((eval, ("__import__('os').system('touch canary')",))),
        b"cos\nsystem\n(S'touch canary'\ntR.",
        b"(S'touch canary'\nios\nsystem\n.",
        b"\x80\x02}(X\x04\x00\x00\x00datacnumpy\nndarray\n)\x81u.",
        b"\x80\x04\x95\x00\x00",
        b"garbage",
        b"",
        b"\x80\x02]q\x00h\x00a.",
        b"\x80\x02h\x07.",
        b"u.",
    ],
)
def test_a_hostile_or_broken_pickle_runs_nothing(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(data)
    with pytest.raises(DataError):
        cifar10(tmp_path)
    assert not (tmp_path / "canary").exists()


def test_a_string_that_python_does_not_write_is_refused_without_a_warning():
    with pytest.raises(DataError, match="x: not a readable batch"):
        read_plain_pickle(b"S'\\q'\n.", "x")


def test_every_opcode_is_read_or_refused():
    for opcode in pickletools.opcodes:
        with pytest.raises(DataError):
            read_plain_pickle(b"\x80\x02" + opcode.code.encode("latin-1"), "x")


def test_npz_of_jpeg_files(tmp_path: Path):
    jpegs = []
    for i in range(4):
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), (i * 60, 0, 0)).save(buffer, "JPEG")
        jpegs.append(buffer.getvalue())
    arrays = {
        "data": np.frombuffer(b"".join(jpegs), dtype=np.uint8),
        "offsets": np.cumsum([0, *map(len, jpegs)]),
        "labels": np.array([0, 1, 0, 1], dtype=np.uint8),
    }
    for name in ("train", "test"):
        np.savez(tmp_path / f"{name}.npz", **arrays)
    records = cifar10(tmp_path).records
    assert [r.read() for r in records] == jpegs * 2
    assert [r.split for r in records] == ["train"] * 4 + ["test"] * 4
    np.savez(tmp_path / "train.npz", **(arrays | {"offsets": arrays["offsets"][:-1]}))
    with pytest.raises(DataError, match="do not belong together"):
        cifar10(tmp_path)
    np.savez(tmp_path / "train.npz", **(arrays | {"labels": np.array([{}] * 4)}))  # would need unpickling
    with pytest.raises(DataError, match=r"not an \.npz"):
        cifar10(tmp_path)


@pytest.mark.parametrize(("size", "label", "message"), [(3072, 0, "multiple of 3073"), (3073, 10, "0 to 9")])
def test_a_damaged_binary_batch_is_refused(tmp_path: Path, size: int, label: int, message: str):
    (tmp_path / "data_batch_1.bin").write_bytes(bytes([label]) + b"\0" * (size - 1))
    with pytest.raises(DataError, match=message):
        cifar10(tmp_path)


def test_files_that_macos_leaves_beside_the_batches_are_passed_over(tmp_path: Path):
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(3073))
    (tmp_path / "._data_batch_1.bin").write_bytes(b"\0\5\x16\7" + bytes(159))
    assert len(cifar10(tmp_path).records) == 1


@pytest.mark.parametrize(
    ("label", "said"), [((), "of type tuple"), (None, "of type NoneType"), (10**400, "1000"), (True, "bool")]
)
def test_a_label_that_is_none_is_named_shortly(tmp_path: Path, label: object, said: str):
    for _ in range(24):  # a value that shares its parts: written out, 2 to the 24 of them
        label = (label, label) if isinstance(label, tuple) else label
    batch = {"labels": [label], "data": np.zeros((1, 3072), np.uint8)}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=4))
    with pytest.raises(DataError, match=f"{said}.*(0 to 9|binary version)") as caught:
        cifar10(tmp_path)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("data", [b"S" + b"x" * 100_000 + b"\n.", b"c" + b"x" * 100_000 + b"\nsystem\n."])
def test_what_is_said_of_a_broken_pickle_is_short(data: bytes):
    with pytest.raises(DataError) as caught:
        read_plain_pickle(data, "data_batch_1")
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def npz_of(folder: Path, **arrays: np.ndarray) -> Path:
    """Three images of two bytes, but for ``arrays``."""
    usual = {"data": np.zeros(6, np.uint8), "offsets": np.arange(0, 8, 2), "labels": np.zeros(3, np.int8)}
    np.savez_compressed(folder / "train.npz", **(usual | arrays))
    return folder


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"names": np.array([10**12, 1, 2])}, "names are no byte strings"),  # bytes(10**12) would be so many zeros
        ({"names": np.array([[b"a"], [b"b"], [b"c"]])}, "names are no byte strings"),
        ({"names": np.array([b"a", b"b"])}, "do not belong together"),
        ({"names": np.array([b"a", b"b", b"a"])}, "two images of one name"),
        ({"offsets": np.array([0, 2, 2, 6])}, "offsets that do not go up"),
        ({"offsets": np.array([0, 4, 2, 6])}, "offsets that do not go up"),
        ({"offsets": np.array([-2, 2, 4, 6])}, "do not belong together"),
        ({"offsets": np.array([[0, 2, 4, 6]])}, "no whole numbers"),
        ({"labels": np.array([0.0, 1.0, 2.0])}, "no whole numbers"),
        ({"labels": np.array([0, 1, 255], np.uint8)}, "label 255; CIFAR-10 has 0 to 9"),
        ({"labels": np.zeros(0, np.int8), "offsets": np.zeros(1, np.int8), "data": b""}, "do not belong together"),
    ],
)
def test_an_npz_that_announces_something_else_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str):
    assert len(cifar10(npz_of(tmp_path)).records) == 3
    with pytest.raises(DataError, match=message):
        cifar10(npz_of(tmp_path, **arrays))


def test_millions_of_images_in_a_small_npz_are_refused_before_there_is_a_list_of_them(tmp_path: Path):
    many = MAX_IMAGES + 1
    offsets = np.zeros(many + 1, np.int8)
    npz_of(tmp_path, data=np.zeros(0, np.uint8), offsets=offsets, labels=np.zeros(many, np.int8))
    assert (tmp_path / "train.npz").stat().st_size < 10_000
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"{many:,} images; at most {MAX_IMAGES:,}"):
            cifar10(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
