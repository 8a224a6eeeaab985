"""Files that want to be run, or to fill the memory, in every place where a verb opens one: nothing is executed, the answer is
soon there, on one line. And the source has no call that could execute a file."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet.cli import main
from alexnet.evaluation.probabilities import Probabilities
from alexnet.probes.search import SEAL as INDEX_SEAL
from targets import CLASSES, model_folder, packed_set, pixels, sealed_config, sealed_meta

MAX_SECONDS, MAX_GROWTH_BYTES = 15.0, 500_000_000
"""Of computing, and beyond what the process has: the whole page of the claims, with every curve, takes half of it."""
SIDE = 36
TINY = (
    f"--size {SIDE} --preprocessing.resize {SIDE} --preprocessing.crop 32 --model.input-size 32 --model.fc-units 16 16 "
    "--model.conv-channels 8 8 8 8 8 --model.conv-kernels 5 3 3 3 3 --model.conv-padding 2 1 1 1 1 "
    "--epochs 1 --batch-size 4 --checkpoint-steps 1 --device cpu"
).split()


# Twelve kinds ---------------------------------------------------------------------------------------------------------


class _Call:
    """Pickled, a call of ``function``."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


ARRAYS = ("text", "label", "log_probability", "pixels", "paths", "data", "offsets", "labels", "conv1_weight")
"""The names under which this program looks for arrays."""


def _system(canary: Path) -> bytes:
    return pickle.dumps(_Call(os.system, f"touch {canary}"), protocol=2)


def _evaluated(canary: Path) -> bytes:
    return pickle.dumps(_Call(eval, f"__import__('pathlib').Path({str(canary)!r}).touch()"))


def _nested(canary: Path) -> bytes:
    import torch

    return pickle.dumps(_Call(torch.storage._load_from_bytes, _system(canary)))


def _torch_zip(canary: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        code = f"import os\nos.system('touch {canary}')\n"
        for name, content in (("data.pkl", _system(canary)), ("version", b"3\n"), ("code/__torch__.py", code)):
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def _legacy_tar(canary: Path) -> bytes:
    file, content = io.BytesIO(), _system(canary)
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def _objects(canary: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([_Call(os.system, f"touch {canary}")], dtype=object), allow_pickle=True)
    return file.getvalue()


def _objects_in_npz(canary: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ARRAYS:
            archive.writestr(f"{name}.npy", _objects(canary))
    return file.getvalue()


def _zip_bomb(_canary: Path) -> bytes:
    """600 MB of zeros, under the name that a CIFAR-10 set in ``.npz`` has for its images."""
    file, header = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (600 << 20,)})
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("data.npy", "w") as member:
            member.write(header.getvalue())
            for _ in range(60):
                member.write(bytes(10 << 20))
        numbers = io.BytesIO()
        np.save(numbers, np.zeros(1, dtype=np.int64))
        for name in ARRAYS:
            if name != "data":
                archive.writestr(f"{name}.npy", numbers.getvalue())
    return file.getvalue()


def _overlapping(_canary: Path) -> bytes:
    tensors = {name: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for name in ("conv1.weight", "fc8.bias")}
    header = json.dumps(tensors).encode()
    return len(header).to_bytes(8, "little") + header + bytes(16)


def _climbing(canary: Path) -> bytes:
    """The fields in which this program's JSON files name files, all leading out of their folder."""
    outside = "../" * 12 + str(canary).lstrip("/")
    value = {
        "format": "alexnet-model",
        "version": 1,
        "name": outside,
        "config": {"kind": outside},
        "model": outside,
        "sha256": {outside: "0" * 64, "model.safetensors": "0" * 64},
        "train": {"data": outside, "network": outside},
        "files": {outside: {"bytes": 1, "sha256": "0" * 64}},
        "faiss": {"file": outside},
        "step": 3,
        "store": outside,
        "parts": [{"vectors": outside, "images": outside, "rows": 1}],
        "data": {"path": outside},
        "classes": [outside],
        "experiment": outside,
        "scale": outside,
        "command": outside,
        "arms": {outside: {"results": [outside]}},
        "comparisons": [],
    }
    return json.dumps(value).encode()


PAYLOADS: dict[str, Callable[[Path], bytes]] = {
    "os.system": _system,
    "eval": _evaluated,
    "nested pickle": _nested,
    "torch zip": _torch_zip,
    "legacy tar": _legacy_tar,
    "object .npy": _objects,
    "objects in .npz": _objects_in_npz,
    "zip bomb": _zip_bomb,
    "safetensors header of 2^63": lambda _: (1 << 63).to_bytes(8, "little") + b"{}",
    "overlapping tensors": _overlapping,
    "deep JSON of 100 MB": lambda _: b'{"a":' * 20_000_000,
    "paths out of the folder": _climbing,
}
"""What a file may hold that wants to be executed, or to take more room than there is. Executed, each of the first seven leaves
a file, the canary."""


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # by Python 3.12 and later, of how torch unpacks its old archives
def test_the_payloads_would_do_what_they_are_for(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    import torch

    def loaded(data: bytes) -> None:
        (tmp_path / "file").write_bytes(data)
        torch.load(tmp_path / "file", weights_only=False)

    ways: dict[str, Callable[[bytes], object]] = {
        "os.system": pickle.loads,
        "eval": pickle.loads,
        "object .npy": lambda data: np.load(io.BytesIO(data), allow_pickle=True),
        "objects in .npz": lambda data: np.load(io.BytesIO(data), allow_pickle=True)["text"],
        "nested pickle": pickle.loads,
        "torch zip": loaded,
        "legacy tar": loaded,
    }
    for kind, execute in ways.items():
        with suppress(Exception):  # after the damage was done
            execute(PAYLOADS[kind](canary))
        assert canary.exists(), kind
        canary.unlink()


# Where verbs open files -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slot:
    """A place for a payload, and the verb that meets it there."""

    file: str
    """Below the kit; ``*`` is every file of that name."""
    arguments: str
    """Of the command line; KIT is the folder."""
    seal: Callable[[Path, Path], None] | None = None
    """Makes checksums fit."""
    exits: tuple[int, ...] = (1, 2, 4)
    """0 where the verb goes on with what is sound, and names the rest."""


def seal_model(file: Path, _kit: Path) -> None:
    config = file.parent / "config.json"
    sealed = sealed_config(config.read_bytes(), file.name, file.read_bytes())
    config.unlink()
    config.write_bytes(sealed)


def seal_packed(file: Path, _kit: Path) -> None:
    meta = file.parent / "meta.json"
    sealed = sealed_meta(meta.read_bytes(), file.name, file.read_bytes())
    meta.unlink()
    meta.write_bytes(sealed)


def seal_checkpoint(file: Path, _kit: Path) -> None:
    manifest = file.parent / "manifest.json"
    value, content = json.loads(manifest.read_bytes()), file.read_bytes()
    value["files"][file.name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest.unlink()
    manifest.write_text(json.dumps(value))


def seal_index(file: Path, _kit: Path) -> None:
    meta = file.parent / "meta.json"
    value, content = json.loads(meta.read_bytes()), file.read_bytes()
    del value["check"]
    value["files"][file.name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    meta.unlink()
    meta.write_text(json.dumps(INDEX_SEAL.sealed(value)))


PREDICT = "predict KIT/model KIT/photo.png --device cpu"
EVALUATE = "evaluate KIT/model --data KIT/packed --device cpu"
TRAIN = "train quickstart --data KIT/run-data --out KIT/new"
RESUME = "train quickstart --data KIT/run-data --out KIT/run --resume"
LOADED = (
    *(
        "alexnet.cli.train",
        "alexnet.cli.evaluate",
        "alexnet.cli.predict",
        "alexnet.cli.info",
        "alexnet.cli.features",
        "alexnet.cli.search",
        "alexnet.cli.data",
        "alexnet.cli.claims",
        "alexnet.cli.weights",
        "alexnet.interop.importing",
    ),
    *(
        "alexnet.cli.baseline",
        "alexnet.cli.probe",
        "alexnet.probes.kernels",
        "alexnet.probes.towers",
        "alexnet.recipes.run",
    ),
    *("alexnet.probes.search", "alexnet.claims.page", "alexnet.report.page", "alexnet.report.comparison"),
    *("alexnet.baselines.pixels", "alexnet.evaluation.describe", "torch._dynamo", "safetensors.torch"),
)
QUICK = (
    Slot("payload.pth", "import KIT/payload.pth --out KIT/new-model"),
    Slot("model/model.safetensors", "info KIT/model", seal_model),
    Slot("answers.npz", "evaluate KIT/answers.npz --data KIT/packed --device cpu"),
)
SLOTS = (
    *QUICK,
    Slot("model/model.safetensors", PREDICT, seal_model),
    Slot("model/config.json", PREDICT),
    Slot("packed/train.labels.npy", "check KIT/packed", seal_packed),
    Slot("model/mean.npy", PREDICT, seal_model),
    Slot("model/classes.json", PREDICT, seal_model),
    Slot("model/preprocessor.json", PREDICT, seal_model),
    Slot("model/model.safetensors", EVALUATE, seal_model),
    Slot("model/model.safetensors", "features KIT/model --data KIT/packed --out KIT/f --device cpu", seal_model),
    Slot("model/model.safetensors", "index KIT/model KIT/photos --out KIT/i --device cpu", seal_model),
    Slot("model/config.json", "info alexnet_2012 --diff KIT/model"),
    Slot("model/model.safetensors", f"{TRAIN} --init-from KIT/model", seal_model),
    Slot("payload.pth", f"{TRAIN} --init-from KIT/payload.pth"),
    Slot("payload.pth", "predict KIT/payload.pth KIT/photo.png --device cpu"),
    Slot("photo.png", PREDICT),
    Slot("photo.png", "search KIT/index KIT/photo.png --device cpu"),
    Slot("photos/cat/*", "index KIT/model KIT/photos/cat --out KIT/i --device cpu"),
    Slot("index/meta.json", "search KIT/index KIT/photo.png --device cpu"),
    Slot("index/vectors-0.npy", "search KIT/index KIT/photo.png --device cpu", seal_index),
    Slot("index/images-0.jsonl", "search KIT/index KIT/photo.png --device cpu", seal_index),
    Slot("index/meta.json", "index KIT/model KIT/photos --out KIT/index --add --device cpu"),
    Slot("kernels.npy", "probe kernels KIT/kernels.npy --out KIT/p"),
    Slot("kernels.npz", "probe kernels KIT/kernels.npz --out KIT/p"),
    Slot("kernels.safetensors", "probe kernels KIT/kernels.safetensors --out KIT/p"),
    Slot("model/model.safetensors", "probe towers KIT/model --out KIT/p --device cpu", seal_model),
    Slot("packed/meta.json", EVALUATE),
    Slot("packed/val.images.npy", EVALUATE, seal_packed),
    Slot("packed/val.labels.npy", EVALUATE, seal_packed),
    Slot("packed/val.crc32.npy", "baseline pixels --data KIT/packed --threads 1", seal_packed),
    Slot("packed/mean.npy", "train quickstart --data KIT/packed --out KIT/new", seal_packed),
    Slot("packed/color.json", "train quickstart --data KIT/packed --out KIT/new", seal_packed),
    Slot("packed/meta.json", "check KIT/packed"),
    Slot("packed/val.images.npy", "check KIT/packed", seal_packed),
    Slot("jpeg/train.images.bin", "check KIT/jpeg", seal_packed),
    Slot("jpeg/train.offsets.npy", "check KIT/jpeg", seal_packed),
    Slot("photos/cat/*", "check KIT/photos --workers 1"),
    Slot("photos/cat/*", "prepare KIT/photos KIT/new --size 16 --workers 1"),
    Slot("list.csv", "prepare KIT/list.csv KIT/new --size 16 --workers 1"),
    Slot("set.tar", "check KIT/set.tar --workers 1"),
    Slot("cifar-python/data_batch_1", "prepare KIT/cifar-python KIT/new --workers 1"),
    Slot("cifar-npz/train.npz", "prepare KIT/cifar-npz KIT/new --workers 1"),
    Slot("idx/train-images-idx3-ubyte", "check KIT/idx --workers 1"),
    Slot("imagenet/meta.mat", "check KIT/imagenet --workers 1"),
    Slot("payload.data", "check KIT/payload.data"),
    Slot("run/checkpoint/step-*/model.safetensors", RESUME, seal_checkpoint),
    Slot("run/checkpoint/step-*/optimizer.safetensors", RESUME, seal_checkpoint),
    Slot("run/checkpoint/step-*/state.json", RESUME, seal_checkpoint),
    Slot("run/checkpoint/step-*/manifest.json", RESUME),
    Slot("run/config.json", RESUME),
    Slot("run/config.json", "evaluate KIT/run --device cpu"),
    Slot("run/config.json", "report KIT/run", exits=(0,)),
    Slot("run/log.jsonl", "report KIT/run", exits=(0,)),
    Slot("run/results/final-ten.json", "report KIT/run", exits=(0,)),
    Slot("run/results/conv1.npy", "report KIT/run", exits=(0,)),
    Slot("run/results/mistakes.npz", "report KIT/run", exits=(0,)),
    Slot("run/probes/maps.json", "report KIT/run", exits=(0,)),
    Slot("run/probes/maps.png", "report KIT/run", exits=(0,)),
    Slot("run/results/final-ten.json", "report KIT/run KIT/other-run --out KIT/c.html", exits=(0,)),
    Slot("claims/smoke/lrn.json", "claims report --results KIT/claims --out KIT/c.html", exits=(0, 1)),
    Slot("claims/smoke/lrn.json", "claims list --out KIT/claims", exits=(0, 1)),
)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Sound files of every kind, small; without the run, which has to be trained."""
    memory = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path_factory.mktemp("kit")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        kit = Path(folder) / "sound"
        kit.mkdir()
        for module in LOADED:  # once, and not in every child
            import_module(module)
        model_folder(kit / "model")
        packed_set(kit / "packed", "pixels")
        packed_set(kit / "jpeg", "jpeg")
        labels = np.arange(4) % 3
        answers = np.log(np.full((4, 3), 1 / 3, dtype=np.float32))
        Probabilities(answers, labels, tuple("abcd"), CLASSES, {}).save(kit / "answers.npz")
        for name in CLASSES:
            (kit / "photos" / name).mkdir(parents=True)
            for i in range(5):
                Image.fromarray(pixels(i)).save(kit / "photos" / name / f"{i}.png")
        Image.fromarray(pixels(9)).save(kit / "photo.png")
        yield kit


@pytest.fixture(scope="module")
def whole_kit(kit: Path) -> Path:
    """And the files that only verbs make."""
    packed_set(kit / "run-data", "pixels", side=SIDE)
    for arguments in (
        ["train", "quickstart", "--data", str(kit / "run-data"), "--out", str(kit / "run"), *TINY],
        ["index", str(kit / "model"), str(kit / "photos"), "--out", str(kit / "index"), "--device", "cpu"],
    ):
        done = command(arguments, kit.parent)
        assert done.code == 0, done.said
    shutil.copytree(kit / "run", kit / "other-run")
    for file in (kit / "run" / "results").glob("final-*.json"):
        if file.name != "final-ten.json":
            file.unlink()  # else a resumed run were a finished one
    shutil.rmtree(kit / "run" / "model")
    for name in ("cifar-python", "cifar-npz", "idx", "imagenet/val", "claims/smoke", "run/probes"):
        (kit / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(kit / "photo.png", kit / "imagenet" / "val" / "ILSVRC2012_val_00000001.JPEG")
    (kit / "imagenet" / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n")
    (kit / "idx" / "train-labels-idx1-ubyte").write_bytes(bytes((0, 0, 8, 1, 0, 0, 0, 1, 0)))
    return kit


@dataclass(frozen=True)
class Done:
    code: int
    said: str
    """On stderr."""
    printed: str
    """On stdout."""
    seconds: float
    """Of computing."""
    growth_bytes: int


def command(arguments: list[str], scratch: Path) -> Done:
    """One invocation in a forked child, with what it took beyond what the parent has."""
    with open(scratch / "out", "w+b") as out, open(scratch / "err", "w+b") as err:
        child = os.fork()
        if child == 0:
            _run(arguments, out.fileno(), err.fileno(), scratch)
        deadline = time.monotonic() + 120
        while True:
            done, status, usage = os.wait4(child, os.WNOHANG)
            if done:
                break
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.002)
        said, printed = (os.pread(file.fileno(), 1 << 20, 0).decode("utf-8", "replace") for file in (err, out))
    growth = usage.ru_maxrss * 1024 - int((scratch / "before").read_text())
    return Done(os.waitstatus_to_exitcode(status), said, printed, usage.ru_utime + usage.ru_stime, growth)


def _run(arguments: list[str], out: int, err: int, scratch: Path) -> None:
    """In the child; does not return."""
    try:
        (scratch / "before").write_text(str(_resident()))  # of a fork, less than its parent's: files are not mapped yet
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        os.environ["ALEXNET_CACHE"] = str(scratch / "cache")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        main(arguments)
    except SystemExit as exit:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(exit.code or 0))
    finally:
        os._exit(99)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def place(slot: Slot, payload: Path, sound: Path, kit: Path) -> list[str]:
    """A copy of the sound kit with the payload in its slot; the command line for it."""
    if kit.exists():
        shutil.rmtree(kit)
    shutil.copytree(sound, kit, copy_function=os.link)
    folder = (kit / slot.file.partition("*")[0]).parent if "*" in slot.file else (kit / slot.file).parent
    files = sorted(kit.glob(slot.file)) or [folder / Path(slot.file).name]
    for file in files:
        file.unlink(missing_ok=True)
        os.link(payload, file)
        if slot.seal is not None:
            slot.seal(file, kit)
    words = slot.arguments.replace("KIT", str(kit)).split()
    if words[0] == "train":
        words += TINY if "run-data" in slot.arguments else [*TINY, "--size", "16", "--preprocessing.resize", "16"][:-4]
    return words


def refused(kind: str, slots: tuple[Slot, ...], sound: Path) -> dict[str, Any]:
    """Each slot with a payload of this kind. What is wrong, and the most it took."""
    scratch = sound.parent
    canary, payload = scratch / "canary", scratch / "payload"
    payload.unlink(missing_ok=True)
    payload.write_bytes(PAYLOADS[kind](canary))
    wrong: list[str] = []
    seconds, growth = 0.0, 0
    for slot in slots:
        done = command(place(slot, payload, sound, scratch / "kit"), scratch)
        where = f"{kind} in {slot.file}, {slot.arguments}"
        lines = [line for line in done.said.splitlines() if line.startswith("alexnet: ")]
        lines += [line for line in done.printed.splitlines() if line.startswith(("fault: ", "  rejected "))]
        if canary.exists():
            canary.unlink()
            wrong.append(f"{where}: executed")
        if done.code not in slot.exits or (done.code != 0 and not lines):
            wrong.append(f"{where}: exit {done.code}, {done.said[-500:]}")
        if "Traceback" in done.said or "weights_only" in done.said or "--debug" in done.said:
            wrong.append(f"{where}: {done.said[-500:]}")
        if done.seconds > MAX_SECONDS or done.growth_bytes > MAX_GROWTH_BYTES:
            wrong.append(f"{where}: {done.seconds:.1f} s, {done.growth_bytes / 1e6:.0f} MB")
        seconds, growth = max(seconds, done.seconds), max(growth, done.growth_bytes)
    return {"wrong": wrong, "cases": len(slots), "seconds": seconds, "growth_bytes": growth}


@pytest.mark.parametrize("kind", [kind for kind in PAYLOADS if kind != "zip bomb"])  # which takes seconds to make
def test_no_file_is_executed(kind: str, kit: Path) -> None:
    assert refused(kind, QUICK, kit)["wrong"] == []


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", PAYLOADS)
def test_no_file_is_executed_by_any_verb(kind: str, whole_kit: Path) -> None:
    assert refused(kind, SLOTS, whole_kit)["wrong"] == []


@pytest.mark.long
def test_sound_files_are_not_refused(whole_kit: Path) -> None:
    """Else the tests above would pass for any program that refuses everything."""
    for arguments in (
        PREDICT,
        EVALUATE,
        "check KIT/packed",
        "check KIT/jpeg",
        "report KIT/run",
        "info KIT/model",
        RESUME,
    ):
        words = arguments.replace("KIT", str(whole_kit)).split()
        done = command(words + (TINY if words[0] == "train" else []), whole_kit.parent)
        assert done.code == 0, done.said


# The source -----------------------------------------------------------------------------------------------------------

SOURCE = Path(__file__).resolve().parents[2] / "src"
UNSAFE_MODULES = {
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml", "code"),
    *("jsonpickle", "hickle", "pty", "imp"),
}
UNSAFE_CALLS = {
    *(
        "eval",
        "exec",
        "compile",
        "__import__",
        "os.system",
        "os.popen",
        "os.exec*",
        "os.spawn*",
        "torch.load",
        "torch.save",
    ),
    *("torch.jit.load", "torch.hub.load", "torch.package.*", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("np.loads", "np.fromstring", "pd.read_pickle", "runpy.run_path"),
}
"""None stands in the source but what ``ALLOWED`` names. torch.load is not needed: nothing that this program reads is a pickle."""
UNSAFE_NAMES = {"yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader", "yaml.unsafe_load", "yaml.full_load"}
ALLOWED = {
    "alexnet/cli/settings.py": {"imports yaml"},  # its SafeLoader, which makes text, numbers, lists and tables
    "alexnet/interop/exporting.py": {"calls torch.save"},  # which reads nothing
}


def unsafe(source: str) -> list[str]:
    """The calls and imports in a program that could execute what is in a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found += [
                f"line {node.lineno}: imports {name}" for name in names if name.partition(".")[0] in UNSAFE_MODULES
            ]
        if isinstance(node, ast.Attribute) and ast.unparse(node) in UNSAFE_NAMES:
            found.append(f"line {node.lineno}: names {ast.unparse(node)}")
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in UNSAFE_CALLS or any(u.endswith("*") and name.startswith(u[:-1]) for u in UNSAFE_CALLS):
            found.append(f"line {node.lineno}: calls {name}")
        loads = name in ("np.load", "numpy.load") or name.endswith("lib.format.read_array")
        if loads and keywords.get("allow_pickle") != "False":
            found.append(f"line {node.lineno}: calls {name} without allow_pickle=False")
        if keywords.get("shell", "False") != "False":
            found.append(f"line {node.lineno}: calls {name} with a shell")
        if keywords.get("allow_pickle", "False") != "False":
            found.append(f"line {node.lineno}: calls {name} with allow_pickle")
        if keywords.get("weights_only", "True") != "True":
            found.append(f"line {node.lineno}: calls {name} with weights_only")
    return found


def test_the_source_has_no_unsafe_load() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 100
    found = {str(file.relative_to(SOURCE)): unsafe(file.read_text("utf-8")) for file in files}
    what = {name: {line.partition(": ")[2] for line in lines} for name, lines in found.items() if lines}
    assert what == ALLOWED


@pytest.mark.parametrize(
    "line",
    [
        *(
            "import pickle",
            "from pickle import loads",
            "import numpy as np; np.load(f)",
            "np.load(f, allow_pickle=True)",
        ),
        *("torch.load(f)", "torch.load(f, weights_only=False)", "eval(x)", "exec(x)", "subprocess.run(x, shell=True)"),
        *(
            "os.system(x)",
            "import yaml",
            "import joblib",
            "import shelve",
            "np.lib.format.read_array(f)",
            "import marshal",
            "yaml.load(x, yaml.UnsafeLoader)",
            "yaml.full_load(x)",
        ),
    ],
)
def test_the_check_of_the_source_sees(line: str) -> None:
    assert unsafe(line)


def test_the_check_of_the_source_passes_what_is_safe() -> None:
    assert (
        unsafe("model.eval()\nimport pickletools\nnp.load(f, allow_pickle=False)\nsubprocess.run([x])\nre.compile(x)")
        == []
    )
