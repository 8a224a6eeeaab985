"""What is fuzzed: each target takes the bytes of a file and may raise the documented errors only.

``TARGETS[NAME](folder)`` makes one in an empty folder: ``check(data)`` and the sound inputs to start from. Targets that read
a folder take two bytes before the content: which of its files is replaced, and whether the checksums that name it are
made to fit, as an enemy would, or left as they are, as rot would.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image, PngImagePlugin

from alexnet.core.config import fingerprint, from_json
from alexnet.core.errors import AlexNetError, DataError, ImageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.data.archives import image_archive
from alexnet.data.cifar import cifar10
from alexnet.data.decode import MAX_PIXELS, decode_image
from alexnet.data.idx import idx_set
from alexnet.data.imagenet import imagenet
from alexnet.data.lists import csv_list
from alexnet.data.named import read_source
from alexnet.data.packed import PackedSet, open_packed, seal
from alexnet.data.prepare import prepare
from alexnet.data.shards import Store
from alexnet.data.sources import Record, Source, SplitName
from alexnet.evaluation.probabilities import Probabilities, load_probabilities
from alexnet.interop.deep_compression import CompressedLayer, read_deep_compression
from alexnet.interop.state_dict import read_weights
from alexnet.interop.torchvision import from_torchvision
from alexnet.models import build_model, model_config
from alexnet.models.folder import ModelFolder, load_model_folder, save_model_folder
from alexnet.probes.kernels import read_conv1
from alexnet.report.tables import read_result, read_thumbnails
from alexnet.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from containers import mutate_parts, take_apart
from mutations import Campaign, Damage, campaign, mutate

SIZE, TRAIN_IMAGES, VAL_IMAGES = 16, 10, 4
CLASSES = ("cat", "dog", "emu")


@dataclass(frozen=True)
class Target:
    check: Callable[[bytes], object]
    seeds: list[bytes]
    allowed: type[AlexNetError] = AlexNetError
    kept: int = 0
    """Bytes at the start of a seed that say where the rest goes."""
    damage: Damage = mutate

    def campaign(self, count: int, seed: int) -> Campaign:
        options: dict[str, Any] = {"kept": self.kept, "allowed": self.allowed, "damage": self.damage}
        return campaign(self.check, self.seeds, count, seed, **options)


# --- sound files ------------------------------------------------------------------------------------------------------


def pixels(seed: int, side: int = SIZE) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A smooth picture with a little noise, so that it is not alike under JPEG."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((side, side))
    return np.clip(np.asarray(coarse, dtype=int) + draw.integers(-9, 10, (side, side, 3)), 0, 255).astype(np.uint8)


def packed_set(
    folder: Path, store: Store, side: int = SIZE, num_train: int = TRAIN_IMAGES, first_image: int = 0
) -> PackedSet:
    """Three classes, two splits, images of ``side`` pixels, drawn by their numbers from ``first_image`` on."""
    records = []
    num: dict[SplitName, int] = {"train": num_train, "val": VAL_IMAGES}
    for split, count in num.items():
        for i in range(count):
            name = f"{split}/{CLASSES[i % 3]}/{first_image + i:03d}.png"
            records.append(Record(split, i % 3, name, data=pixels(1000 * (split == "val") + first_image + i, side)))
    source = Source(classes=CLASSES, records=records, fingerprint="drawn")
    return prepare(source, folder, size=side, store=store, workers=1)


def tiny_model(seed: int = 0, mean: str = "image", num_classes: int = 3) -> tuple[Any, Preprocessing]:
    """A network of the paper's shape with some 3,000 weights, and its preprocessing."""
    config = model_config(
        "alexnet_2012",
        input_size=12,
        num_classes=num_classes,
        conv_channels=(4, 4, 4, 4, 4),
        conv_kernels=(3, 3, 3, 3, 3),
        conv_strides=(1, 1, 1, 1, 1),
        conv_padding=(1, 1, 1, 1, 1),
        stages=("act norm pool", "act pool", "act", "act", "act"),
        fc_units=(8, 8),
    )
    preprocessing = Preprocessing(resize=SIZE, crop=12, mean=mean, scale=1 / 64)  # type: ignore[arg-type]
    return build_model(config, name="alexnet_2012", seed=seed), preprocessing


def model_folder(path: Path, seed: int = 0, classes: tuple[str, ...] = CLASSES) -> Path:
    model, preprocessing = tiny_model(seed, num_classes=len(classes))
    mean = np.random.default_rng(seed).uniform(0, 255, (SIZE, SIZE, 3)).astype(np.float32)
    save_model_folder(path, model, "alexnet_2012", preprocessing, classes, mean)
    return path


def checkpoint(folder: Path, step: int) -> Path:
    """A checkpoint of ``step``, whose tensors and state say which step it is."""
    draw = torch.Generator().manual_seed(step)
    tensors = {
        "model": {"w": torch.randn(8, 4, generator=draw), "b": torch.full((4,), float(step))},
        "optimizer": {"w/velocity": torch.randn(8, 4, generator=draw)},
    }
    save_checkpoint(
        folder, step, tensors, {"step": step, "history": [{"epoch": 1, "loss": 0.5}], "text": "é"}, best=False
    )
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class _Replaced:
    """A folder of sound files in which one is replaced at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sound = folder, contents(folder)
        self.names, self.changed = list(self.sound), set[str]()

    def put(self, files: Mapping[str, bytes]) -> None:
        for name in self.changed - files.keys():
            (self.folder / name).write_bytes(self.sound[name])
        for name, content in files.items():
            (self.folder / name).write_bytes(content)
        self.changed = set(files)

    def seeds(self) -> list[bytes]:
        return [bytes((i, sealed)) + self.sound[name] for i, name in enumerate(self.names) for sealed in (0, 1)]

    def chosen(self, data: bytes) -> tuple[str, bool, bytes]:
        """The file that is replaced, whether checksums are made to fit, and its content."""
        data = data.ljust(2, b"\0")
        return self.names[data[0] % len(self.names)], bool(data[1] & 1), data[2:]


# --- decode -----------------------------------------------------------------------------------------------------------


def image_files() -> list[bytes]:
    """One file of each kind that is read, and of variants that take other ways through a decoder; small ones."""
    rgb = Image.fromarray(pixels(1)).resize((20, 16))
    grey, palette, rgba = rgb.convert("L"), rgb.quantize(16), rgb.convert("RGBA")
    rgba.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "<script>alert(1)</script>\x1b[31m\n"
    frames, notes = [rgb.rotate(90 * i) for i in range(3)], PngImagePlugin.PngInfo()
    notes.add_text("Comment", "x" * 300, zip=True)
    notes.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (rgb, "JPEG", {"quality": 90}),
        (rgb, "JPEG", {"progressive": True, "exif": exif, "comment": b"<b>"}),
        (rgb, "JPEG", {"restart_marker_blocks": 1, "subsampling": 0}),
        (grey, "JPEG", {}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb, "PNG", {"exif": exif}),
        (palette, "PNG", {"transparency": 3}),
        (rgba, "PNG", {}),
        (deep, "PNG", {}),
        (grey.convert("1"), "PNG", {}),
        (palette, "GIF", {"transparency": 2}),
        (
            rgb.convert("1"),
            "PNG",
            {"icc_profile": bytes(200), "pnginfo": notes, "save_all": True, "append_images": frames[:1]},
        ),
        (rgba.convert("LA"), "PNG", {"bits": 4}),
        (frames[0], "GIF", {"save_all": True, "append_images": frames[1:]}),
        (frames[0], "WEBP", {"save_all": True, "append_images": frames[1:]}),
        (rgb, "WEBP", {"lossless": True, "exif": exif}),
        (rgba, "WEBP", {"quality": 50}),
        (rgb, "BMP", {}),
        (palette, "BMP", {}),
        (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (rgb, "TIFF", {"compression": "tiff_adobe_deflate", "exif": exif}),
        (deep, "TIFF", {}),
        (rgb.convert("CMYK"), "TIFF", {"compression": "packbits"}),
        (grey.convert("1"), "TIFF", {"compression": "group4"}),
        (rgb.convert("LAB"), "TIFF", {}),
        (grey.convert("F"), "TIFF", {}),
        (rgb, "TIFF", {"compression": "jpeg"}),
        (rgb, "PPM", {}),
        (deep.convert("I"), "PPM", {}),
        (grey.convert("1"), "PPM", {}),
    ]
    return [*_encoded(kinds), b"P3\n2 2\n255\n1 2 3 4 5 6 7 8 9 10 11 12\n", b"P1\n2 2\n0 1 1 0\n"]


def newer_files() -> list[bytes]:
    """One file of each kind that is decoded in a process of its own, of those whose encoders are installed."""
    rgb, exif = Image.fromarray(pixels(1)).resize((20, 16)), Image.Exif()
    exif[0x0112] = 6
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (rgb.convert("RGBA"), "AVIF", {"quality": 90, "exif": exif})
    ]
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
        kinds.append((rgb, "HEIF", {"quality": 90, "exif": exif}))
    with suppress(ImportError):
        import pillow_jxl  # noqa: F401

        kinds.append((rgb, "JXL", {"lossless": True}))
    return _encoded(kinds)


def _encoded(kinds: list[tuple[Image.Image, str, dict[str, Any]]]) -> list[bytes]:
    files = []
    for image, kind, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return files


def decode_target(_folder: Path) -> Target:
    def check(data: bytes) -> None:
        image = decode_image(data)
        assert image.mode == "RGB", image.mode
        assert 1 <= image.width * image.height <= MAX_PIXELS, image.size
        image.tobytes()[:1]

    return Target(check, image_files(), ImageError)


def containers_target(folder: Path) -> Target:
    """The same with damage that keeps checksums right, for the formats that are made of parts."""
    target = decode_target(folder)
    return replace(target, seeds=[seed for seed in target.seeds if take_apart(seed).parts], damage=mutate_parts)


def newer_target(folder: Path) -> Target:
    """The same for the formats whose decoders have a process of their own, which takes a hundred times as long to begin."""
    return replace(decode_target(folder), seeds=newer_files(), damage=mutate_parts)


# --- packed -----------------------------------------------------------------------------------------------------------


def packed_target(folder: Path) -> Target:
    stores: list[Store] = ["pixels", "jpeg"]
    sets = [_Replaced(packed_set(folder / store, store, side=8, num_train=5).path) for store in stores]

    def check(data: bytes) -> None:
        data = data.ljust(3, b"\0")
        store = sets[data[0] % 2]
        name, sealed, content = store.chosen(data[1:])
        files = {name: content}
        if sealed:
            files["meta.json"] = sealed_meta(store.sound["meta.json"], name, content)
        store.put(files)
        found = read_all(store.folder)
        assert sealed or found == sound[data[0] % 2], "other images without a word"

    sound = [read_all(store.folder) for store in sets]

    return Target(check, [bytes((i,)) + seed for i, store in enumerate(sets) for seed in store.seeds()], DataError, 3)


def read_all(folder: Path) -> dict[str, Any]:
    """Everything that training and evaluation read of a packed set."""
    packed = open_packed(folder)
    found: dict[str, Any] = {
        "classes": packed.classes,
        "mean": packed.mean.tobytes() if "train" in packed.splits else b"",
    }
    if "train" in packed.splits:
        found["color"] = [np.asarray(value).tobytes() for value in vars(packed.color).values()]
    for name, split in packed.splits.items():
        if len(split) > 100_000:
            raise DataError("more images than fit into the file")
        found[name] = [split.read(np.arange(len(split))).tobytes(), split.labels.tobytes(), split.paths]
    return found


def sealed_meta(meta: bytes, name: str, content: bytes) -> bytes:
    try:
        value = json.loads((content if name == "meta.json" else meta).decode("utf-8", "surrogatepass"))
        value.pop("sha256", None)
        if name != "meta.json":
            value["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return json.dumps(seal(value)).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return content if name == "meta.json" else meta


# --- model folders and weights ----------------------------------------------------------------------------------------


def weights_target(folder: Path) -> Target:
    """A model folder; weights in other formats; arrays of kernels."""
    saved = _Replaced(model_folder(folder / "model"))
    layers = (CompressedLayer("conv1", (2, 1, 3, 3), 8), CompressedLayer("fc2", (3, 8), 4))
    other = folder / "other"
    other.mkdir()
    tensors = {"features.0.weight": torch.ones(4, 3, 2, 2), "classifier.6.bias": torch.zeros(3)}
    kernels = np.ones((4, 3, 5, 5), dtype=np.float32)
    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, kernels)
    np.savez_compressed(npz, conv1_weight=kernels, other=np.arange(5))
    formats: list[tuple[str, bytes, Callable[[Path], object]]] = [
        ("a.safetensors", safetensors.torch.save(tensors), from_torchvision),
        ("zip.pth", _torch_file({"state_dict": tensors, "epoch": 1}, zipped=True), read_weights),
        ("older.pth", _torch_file(tensors, zipped=False), read_weights),
        ("k.safetensors", safetensors.torch.save({"conv1.weight": torch.ones(4, 3, 2, 2)}), read_conv1),
        ("a.net", _compressed(layers), lambda path: read_deep_compression(path, layers)),
        ("k.npy", npy.getvalue(), read_conv1),
        ("k.npz", npz.getvalue(), read_conv1),
    ]

    def check(data: bytes) -> None:
        data = data.ljust(3, b"\0")
        if data[0] % 4 == 0:
            name, _, read = formats[data[1] % len(formats)]
            (other / name).write_bytes(data[3:])
            read(other / name)
            return
        name, sealed, content = saved.chosen(data[1:])
        files = {name: content}
        if sealed:
            files["config.json"] = sealed_config(saved.sound["config.json"], name, content)
        saved.put(files)
        found = load_model_folder(saved.folder)
        assert sealed or model_bytes(found) == sound, "other weights without a word"

    sound = model_bytes(load_model_folder(saved.folder))
    seeds = [bytes((0, i, 0)) + content for i, (_, content, _) in enumerate(formats)]
    return Target(check, seeds + [b"\x01" + seed for seed in saved.seeds()], kept=3)


def model_bytes(found: ModelFolder) -> list[object]:
    """All that a model folder says."""
    tensors = {name: tensor.numpy().tobytes() for name, tensor in found.model.state_dict().items()}
    mean = None if found.mean is None else found.mean.tobytes()
    return [tensors, found.model.config, found.name, found.preprocessing, found.classes, mean]


def sealed_config(config: bytes, name: str, content: bytes) -> bytes:
    try:
        value = json.loads((content if name == "config.json" else config).decode("utf-8", "surrogatepass"))
        if name != "config.json":
            value["sha256"][name] = hashlib.sha256(content).hexdigest()
        else:
            kind = type(model_config(value["name"]))
            value["fingerprint"] = fingerprint([value["name"], from_json(kind, value["config"])])
        return json.dumps(value).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, AlexNetError):
        return content if name == "config.json" else config


def _torch_file(value: object, *, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _compressed(layers: tuple[CompressedLayer, ...]) -> bytes:
    """A sound file of these layers in Deep Compression's format."""
    counts, body = [], b""
    for layer in layers:
        n = 6
        counts.append(n)
        codebook = np.linspace(0, 1, 2**layer.bits, dtype="<f4")
        codes = bytes(range(1, n + 1)) if layer.bits == 8 else bytes((0x21, 0x43, 0x65))
        body += codebook.tobytes() + np.zeros(layer.shape[0], "<f4").tobytes() + codes + bytes((0x10, 0x02, 0x00))
    return np.array(counts, dtype="<u4").tobytes() + body


# --- checkpoints ------------------------------------------------------------------------------------------------------


def checkpoint_target(folder: Path) -> Target:
    run = folder / "checkpoint"
    checkpoint(checkpoint(run, 3), 6)
    saved = _Replaced(run)
    asides = ("damaged-step-3", "damaged-step-6")
    sound = {}
    for step in (3, 6):
        (run / "last").write_text(f"step-{step}\n")
        found, _ = load_checkpoint(run)
        assert found is not None
        sound[step] = checkpoint_bytes(found)

    def check(data: bytes) -> None:
        name, sealed, content = saved.chosen(data)
        files = {name: content}
        if sealed and "/" in name:
            manifest = f"{Path(name).parent}/manifest.json"
            files[manifest] = _sealed_manifest(saved.sound[manifest], Path(name).name, content)
        saved.put(files)
        try:
            found, said = load_checkpoint(run)
            assert found is not None
            assert sealed or checkpoint_bytes(found) == sound[found.step], "another state without a word"
            assert all("\n" not in line for line in said)
        finally:
            for aside in asides:  # a damaged one was set aside: back with it, and everything sound again
                if (run / aside).exists():
                    (run / aside).rename(run / aside.removeprefix("damaged-"))
                    saved.changed.add("last")

    return Target(check, saved.seeds(), kept=2)


def checkpoint_bytes(found: Checkpoint) -> list[object]:
    tensors = {group: {k: v.numpy().tobytes() for k, v in named.items()} for group, named in found.tensors.items()}
    return [found.step, tensors, found.state]


def _sealed_manifest(manifest: bytes, name: str, content: bytes) -> bytes:
    if name == "manifest.json":
        return content
    value = json.loads(manifest)
    value["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return json.dumps(value).encode()


# --- JSON, arrays and sources -----------------------------------------------------------------------------------------


def results_target(folder: Path) -> Target:
    """What a report and an ensemble read: results, thumbnails, saved probabilities."""
    result = {
        "n": 6,
        "top1_errors": 3,
        "top5_errors": 1,
        "top1_error": 0.5,
        "top5_error": 1 / 6,
        "views": "1",
        "loss_nats": 0.7,
        "protocol": {"views": "1", "preprocessing": {"resize": 16, "std": []}},
        "classes": [{"name": name, "n": 2, "top1_errors": 1, "top5_errors": 0} for name in CLASSES],
        "confusion": [[0, 0, 1], [0, 1, 1], [1, 1, 2], [2, 2, 1], [2, 0, 1]],
        "mistakes": [{"path": "val/a.png", "label": 0, "predicted": 1, "probability": 0.9}],
    }
    thumbnails = io.BytesIO()
    np.savez(thumbnails, pixels=pixels(1)[None], paths=np.array(["val/a.png"]))
    answers = np.log(np.full((4, 3), 1 / 3, dtype=np.float32))
    Probabilities(answers, np.array([0, 1, 2, 0]), ("a", "b", "c", "d"), CLASSES, {"n": 4}).save(folder / "sound.npz")
    readers: list[tuple[str, bytes, Callable[[Path], object]]] = [
        ("result.json", json.dumps(result).encode(), read_result),
        ("mistakes.npz", thumbnails.getvalue(), read_thumbnails),
        ("answers.npz", (folder / "sound.npz").read_bytes(), load_probabilities),
    ]
    return _files_target(folder, readers, AlexNetError)


def sources_target(folder: Path) -> Target:
    """Sets as others publish them: IDX, CIFAR-10, archives, Parquet files, ImageNet's development kit."""
    images, labels = (
        bytes((0, 0, 8, 3)) + b"".join(n.to_bytes(4, "big") for n in (3, 4, 4)),
        bytes((0, 0, 8, 1, 0, 0, 0, 3)),
    )
    batch = np.zeros((2, 3073), dtype=np.uint8).tobytes()
    npz = io.BytesIO()
    png = image_files()[5]
    np.savez_compressed(
        npz,
        data=np.frombuffer(png * 2, np.uint8),
        offsets=np.array([0, len(png), 2 * len(png)]),
        labels=np.array([0, 1]),
    )
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name in ("train/cat/0.png", "train/dog/0.png", "val/cat/1.png", "val/dog/é.png"):
            member = tarfile.TarInfo(name)
            member.size = len(png)
            archive.addfile(member, io.BytesIO(png))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        for i, name in enumerate(("train/cat/0.png", "train/dog/0.png", "val/cat/1.png", "val/dog/é.png")):
            archive.writestr(
                zipfile.ZipInfo(name), png, compress_type=zipfile.ZIP_DEFLATED if i % 2 else zipfile.ZIP_STORED
            )
    for kit in ("mat", "kaggle"):
        (folder / kit / "val").mkdir(parents=True)
        (folder / kit / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(png)
    (folder / "mat" / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n")
    (folder / "idx").mkdir()
    (folder / "idx" / "train-labels-idx1-ubyte").write_bytes(labels + bytes((0, 1, 2)))
    (folder / "gz").mkdir()
    (folder / "gz" / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels + bytes((0, 1, 2)), mtime=0))
    solution = b"ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 1 2 3 4\n"

    def parent(read: Callable[[Path], Source]) -> Callable[[Path], object]:
        return lambda path: use(read(path.parent))

    readers: list[tuple[str, bytes, Callable[[Path], object]]] = [
        ("idx/train-images-idx3-ubyte", images + bytes(48), parent(idx_set)),
        ("gz/train-images-idx3-ubyte.gz", gzip.compress(images + bytes(48), mtime=0), parent(idx_set)),
        ("bin/data_batch_1.bin", batch, parent(cifar10)),
        ("python/data_batch_1", _cifar_pickle(), parent(cifar10)),
        ("npz/train.npz", npz.getvalue(), parent(cifar10)),
        ("tar/a.tar", tar.getvalue(), lambda path: use(image_archive(path))),
        ("zip/a.zip", zipped.getvalue(), lambda path: use(image_archive(path))),
        ("gz/a.tgz", gzip.compress(tar.getvalue(), mtime=0), lambda path: use(image_archive(path))),
        ("xz/a.txz", lzma.compress(tar.getvalue()), lambda path: use(image_archive(path))),
        *_parquet_readers(png),
        ("mat/meta.mat", _meta_mat(), parent(imagenet)),
        ("kaggle/LOC_val_solution.csv", solution, parent(imagenet)),
    ]
    return _files_target(folder, readers, DataError)


def _parquet_readers(png: bytes) -> list[tuple[str, bytes, Callable[[Path], object]]]:
    """A dataset as the library `datasets` writes it, where pyarrow is installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return []
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = pyarrow.array([{"bytes": png, "path": "a.png"}] * 4, kind)
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pyarrow.table({"image": images, "label": [0, 1, 0, 1]}).replace_schema_metadata(metadata)
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file, row_group_size=2)
    return [("parquet/train.parquet", file.getvalue(), lambda path: use(read_source(path)))]


def csv_target(folder: Path) -> Target:
    for name in ("a.png", "b.png", "c d.png", "é.png"):
        (folder / name).write_bytes(b"x")
    seeds = [
        b"a.png,cat\nb.png,dog\nc d.png,cat\n",
        'path,label,split\r\na.png,cat,train\r\nb.png,dog,val\r\n"c d.png","c,a""t",test\r\né.png,x,\r\n'.encode(),
        b"\xef\xbb\xbflabel,path\n3,a.png\n10,b.png\n",
    ]
    return _files_target(
        folder, [(f"{i}.csv", seed, lambda path: use(csv_list(path))) for i, seed in enumerate(seeds)], DataError
    )


def use(source: Source) -> None:
    """Read what a source lists, as far as it can be read."""
    assert source.classes
    for record in source.records[:20]:
        assert 0 <= record.label < len(source.classes)
        with suppress(ImageError):
            record.read()


def _files_target(
    folder: Path, readers: list[tuple[str, bytes, Callable[[Path], object]]], allowed: type[AlexNetError]
) -> Target:
    """The first byte says which reader gets the rest as its file."""
    for name, _, _ in readers:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)

    def check(data: bytes) -> None:
        name, _, read = readers[data[0] % len(readers) if data else 0]
        (folder / name).write_bytes(data[1:])
        read(folder / name)

    return Target(check, [bytes((i,)) + content for i, (_, content, _) in enumerate(readers)], allowed, 1)


def _cifar_pickle() -> bytes:
    """A batch as Python 2 wrote it, of one image, without pickling: protocol 2."""
    data = bytes(3072)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87R(K\x01K\x01M\x00\x0c\x86cnumpy\n"
        b"dtype\nq\x03U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + len(data).to_bytes(4, "little")
        + data
        + b"tb"
    )
    return b"\x80\x02}q\x00(U\x04data" + array + b"U\x06labels]K\x03au."


def _meta_mat() -> bytes:
    """A development kit's meta.mat with one class."""

    def element(kind: int, content: bytes) -> bytes:
        return kind.to_bytes(4, "little") + len(content).to_bytes(4, "little") + content + bytes(-len(content) % 8)

    def matrix(kind: int, name: str, *parts: bytes) -> bytes:
        flags = element(6, bytes((kind, 0, 0, 0, 0, 0, 0, 0)))
        return element(
            14, flags + element(5, bytes((1, 0, 0, 0, 1, 0, 0, 0))) + element(1, name.encode()) + b"".join(parts)
        )

    def text(value: str) -> bytes:
        return matrix(4, "", element(16, value.encode()))

    fields = element(5, (32).to_bytes(4, "little")) + element(
        1, b"".join(name.encode().ljust(32, b"\0") for name in ("ILSVRC2012_ID", "WNID", "words"))
    )
    struct = matrix(
        2, "synsets", fields, matrix(6, "", element(9, np.array([1.0]).tobytes())), text("n01440764"), text("tench")
    )
    return b"MATLAB 5.0 MAT-file".ljust(126) + b"\x00\x01IM"[2:] + element(15, zlib.compress(struct))


TARGETS: dict[str, Callable[[Path], Target]] = {
    "decode": decode_target,
    "containers": containers_target,
    "newer": newer_target,
    "packed": packed_target,
    "weights": weights_target,
    "checkpoint": checkpoint_target,
    "results": results_target,
    "sources": sources_target,
    "csv": csv_target,
}

CASES = {
    "decode": 20_000,
    "containers": 100_000,
    "newer": 3_000,
    "packed": 1700,
    "weights": 1300,
    "checkpoint": 800,
    "results": 700,
    "sources": 500,
    "csv": 500,
}
"""How many mutations a full campaign makes of each: 20,000 images, 100,000 whose checksums stay right, 3,000 of newer
formats, 5,000 headers of weights,
packed sets, checkpoints, results and published sets, 500 CSV lists."""
