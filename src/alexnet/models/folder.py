"""A model folder: a network, its weights, and what must not be separated from them.

```
config.json         format, version, name and configuration of the network with a fingerprint, SHA-256 of the other files; of
                    weights that were imported, where they come from
preprocessor.json   how pixels become the network's input
classes.json        names of the outputs, in order
mean.npy            (S, S, C) float32 on 0..255: the mean image; only where the preprocessing subtracts one
model.safetensors   the weights
```

Nothing in it is executable, and nothing is unpickled. Files are read once, and what is used is what was checked.
"""

from __future__ import annotations

import io
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from alexnet.core.config import fingerprint, from_json, to_json
from alexnet.core.errors import AlexNetError, UsageError, in_short, printable, refused
from alexnet.core.preprocessing import Preprocessing
from alexnet.core.runs import (
    MAX_SETTINGS_BYTES,
    fsync_folder,
    open_regular,
    parse_json,
    read_array,
    read_json,
    write_atomic,
    write_json,
)
from alexnet.core.sealed import Seal
from alexnet.models import build_model, model_config

FORMAT = "alexnet-model"
DESCRIPTION = "alexnet-model-without-weights"
SEAL = Seal(
    what="a model folder",
    head="config.json",
    formats=(FORMAT,),
    version=1,
    files="sha256",
    max_bytes=MAX_SETTINGS_BYTES,
    error=AlexNetError,
    again="save it again",
)
MAX_WEIGHTS_BYTES = 4 << 30
"""Limit of a file of weights; those of torchvision's alexnet have 244 MB, a checkpoint with Adam's state three times as much."""
MAX_HEADER_BYTES = 16 << 20
"""Limit of the header of a safetensors file from elsewhere."""
MAX_TENSORS = 10_000
"""Limit of the tensors of a file from elsewhere."""
MAX_MEAN_BYTES = 1 << 28
"""Limit of mean.npy; a mean image of 4096 pixels a side fits."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the weights of a model come from that was not trained here."""

    file: str
    """Name of the file that they were in."""
    sha256: str
    taken: tuple[str, ...]
    """Layers that the file holds."""
    new: tuple[str, ...]
    """Layers that it does not hold, which have random weights."""
    seed: int
    """Seed of these random weights."""

    @property
    def lack(self) -> str:
        """That layers are new, in words."""
        return f"{', '.join(self.new)} {'has' if len(self.new) == 1 else 'have'} random weights"

    def __str__(self) -> str:
        return f"{self.lack}, for {printable(self.file)} holds only {', '.join(self.taken)}"


@dataclass(frozen=True)
class ModelFolder:
    """What a model folder holds."""

    model: nn.Module
    """The network, in evaluation mode and on the CPU."""
    name: str
    preprocessing: Preprocessing
    classes: list[str]
    mean: NDArray[np.float32] | None
    origin: Origin | None = None
    """Where the weights come from, if they were imported."""


def save_model_folder(
    path: Path,
    model: nn.Module,
    name: str,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    mean: NDArray[np.floating[Any]] | None = None,
    *,
    weights: bool = True,
    origin: Origin | None = None,
) -> None:
    """Write a model folder; or, without ``weights``, what it holds besides, for weights that are kept elsewhere: those of
    checkpoints.

    It is complete, as ``.NAME.new`` beside ``path``, before it takes that name. An existing model folder is replaced:
    no file system does that in one step, so it becomes ``.NAME.old`` first and is removed last. Anything else at
    ``path`` is refused. Raises :class:`AlexNetError` for that, for weights that are not finite, for ``preprocessing``,
    ``classes`` or ``mean`` that do not fit the network, and when the disk does not take it."""
    path = path.absolute()
    check_fit(str(path), model, preprocessing, classes, mean)
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()} if weights else {}
    if bad := _not_finite(tensors):
        raise AlexNetError(f"{printable(path)}: not saved, {bad} holds values that are not finite")
    if path.exists() and not is_model_folder(path):
        raise AlexNetError(f"{printable(path)}: exists and is not a model folder; choose another name or remove it")

    new, old = path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")
    format = FORMAT if weights else DESCRIPTION
    config: dict[str, Any] = {"format": format, "version": SEAL.version, "name": name, "config": to_json(model.config)}
    try:
        shutil.rmtree(new, ignore_errors=True)  # left by a run that was killed
        new.mkdir(parents=True)
        write_json(new / "preprocessor.json", to_json(preprocessing))
        write_json(new / "classes.json", list(classes))
        if weights:
            content = safetensors.torch.save(tensors)
            write_atomic(new / "model.safetensors", lambda file: file.write(content))
        if mean is not None:
            mean_image = np.asarray(mean, dtype=np.float32)
            write_atomic(new / "mean.npy", lambda file: np.save(file, mean_image, allow_pickle=False))
        config["fingerprint"] = fingerprint([name, model.config])
        if origin is not None:
            config["origin"] = to_json(origin)
        config["sha256"] = SEAL.list_files(new, sorted(file.name for file in new.iterdir()))
        SEAL.write(new, config)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        new.rename(path)
        fsync_folder(path.parent)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise AlexNetError(f"{printable(path)}: not saved, {error.strerror}") from error
    shutil.rmtree(old, ignore_errors=True)


def folder_of(weights: Path) -> Path | None:
    """The model folder or checkpoint that a file of weights is the part of that means little without the others."""
    heads = (weights.parent / name for name in ("config.json", "manifest.json"))
    return weights.parent if weights.name == "model.safetensors" and any(head.is_file() for head in heads) else None


def load_model_folder(path: Path) -> ModelFolder:
    """Read a model folder. Raises :class:`AlexNetError` naming file and fault: a missing file, one whose SHA-256 is not
    the recorded one, a newer version, a field, shape or key that does not fit, weights that are not finite."""
    found, head = _described(path, SEAL)
    weights = path / "model.safetensors"
    where = printable(weights)
    tensors = SEAL.made(path, head, weights.name, lambda content: _parse(content, where), 2 * _room(found.model))
    load_tensors(found.model, _single(tensors), where)
    return replace(found, model=found.model.eval())


def load_described(path: Path, tensors: Mapping[str, Tensor], where: str) -> ModelFolder:
    """The network that a model folder, or one without weights, describes, with other weights: those read
    from ``where``. Raises what :func:`load_model_folder` raises."""
    found, _ = _described(path, replace(SEAL, formats=(DESCRIPTION, FORMAT)))
    load_tensors(found.model, _single(tensors), where)
    return replace(found, model=found.model.eval())


def _described(path: Path, seal: Seal) -> tuple[ModelFolder, dict[str, Any]]:
    """Everything but the weights, and config.json."""
    where = printable(path)
    if not path.is_dir():
        raise AlexNetError(f"{where}: no such model folder; name one, or a run, the --out of `alexnet train`")
    if not (path / "config.json").is_file():
        raise AlexNetError(
            f"{where}: holds no model (no config.json); name a run, the --out of `alexnet train`, or its model"
        )
    head = seal.read(path)
    name = printable(head.get("name"))[:80]
    try:
        config = model_config(name)
        config = from_json(type(config), head.get("config"), "config")
    except UsageError as error:
        raise AlexNetError(f"{where}/config.json: {error}") from error
    if head.get("fingerprint") != fingerprint([name, head.get("config")]):
        raise AlexNetError(f"{where}/config.json: damaged or edited, not what its fingerprint says; save it again")
    try:
        preprocessing = from_json(Preprocessing, _read_json(path, head, "preprocessor.json"), "preprocessor")
        model = build_model(config, name=name, seed=None)
        classes = cast(list[str], list(from_json(ClassNames, {"names": _read_json(path, head, "classes.json")}).names))
        origin = from_json(Origin, head["origin"], "origin") if "origin" in head else None
    except UsageError as error:
        raise AlexNetError(f"{where}: {error}") from error
    mean = _read_mean(path, head) if "mean.npy" in head[SEAL.files] else None
    check_fit(where, model, preprocessing, classes, mean)
    model.preprocessing = preprocessing
    return ModelFolder(model, name, preprocessing, classes, mean, origin), head


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Make ``tensors`` the weights of ``model``, which must have the same keys, shapes and dtypes. Otherwise, and for
    values that are not finite, :class:`AlexNetError` with the first three faults; the model is then unchanged."""
    expected = model.state_dict()
    faults = []
    for key in [*expected, *sorted(tensors.keys() - expected.keys())]:
        if key not in tensors:
            faults.append(f"{key}: not in the file")
        elif key not in expected:
            faults.append(f"{printable(key)}: not in the model")
        elif (ours := _kind(expected[key])) != (theirs := _kind(tensors[key])):
            faults.append(f"{key}: file {theirs}, model {ours}")
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise AlexNetError(f"{where}: these weights are of another network: {'; '.join(faults[:3])}{more}")
    if bad := _not_finite(tensors):
        raise AlexNetError(f"{where}: {bad} holds values that are not finite")
    model.load_state_dict(dict(tensors), assign=next(model.parameters()).is_meta)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and its metadata. What the header says must be what is there before the rest is read.
    Raises :class:`AlexNetError` naming the file."""
    where = printable(path)
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_WEIGHTS_BYTES:
                raise AlexNetError(f"{where}: {size:,} bytes; at most {MAX_WEIGHTS_BYTES:,} are read")
            if (num := int.from_bytes(file.read(8), "little")) > MAX_HEADER_BYTES:
                raise AlexNetError(
                    f"{where}: a safetensors header of {num:,} bytes; at most {MAX_HEADER_BYTES:,} are read. Get the file again "
                    "from where it came from"
                )
            with safetensors.safe_open(_name(path, file.fileno()), "pt") as opened:
                metadata, num = opened.metadata() or {}, len(opened.keys())
            if num > MAX_TENSORS:
                raise AlexNetError(f"{where}: {num:,} tensors; at most {MAX_TENSORS:,} are read")
            file.seek(0)
            return _parse(file.read(), where), metadata
    except (OSError, ValueError, SafetensorError) as error:  # ValueError: a NUL byte in the name
        if isinstance(error, OSError):
            raise AlexNetError(refused(error, path)) from error
        raise AlexNetError(f"{where}: not a sound safetensors file ({in_short(error)})") from error


def _name(path: Path, descriptor: int) -> str:
    """A name by which the safetensors library finds an open file: it takes UTF-8 only, and a folder's name can be any bytes."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return f"/dev/fd/{descriptor}"
    return os.fspath(path)


@dataclass(frozen=True)
class ClassNames:
    """Names of classes in a file."""

    names: tuple[str, ...]


def check_fit(
    where: str,
    model: nn.Module,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    mean: NDArray[np.floating[Any]] | None,
) -> None:
    config: Any = model.config
    if len(classes) != config.num_classes:
        raise AlexNetError(f"{printable(where)}: {len(classes)} class names for {config.num_classes} outputs")
    if (preprocessing.channels, preprocessing.crop) != (config.in_channels, config.input_size):
        raise AlexNetError(
            f"{printable(where)}: the preprocessing gives {preprocessing.channels} channels of {preprocessing.crop} "
            f"pixels, the network reads {config.in_channels} of {config.input_size}"
        )
    if preprocessing.mean == "image":
        if mean is None:
            raise AlexNetError(
                f"{printable(where)}: preprocessor.json says that a mean image is subtracted, and config.json names no mean.npy"
            )
        side = mean.shape[0] if mean.ndim else 0
        if mean.shape != (side, side, config.in_channels) or side < config.input_size or not np.isfinite(mean).all():
            raise AlexNetError(
                f"{printable(where)}: the mean image has shape {mean.shape}; it must be a finite square of at least "
                f"{config.input_size} pixels and {config.in_channels} channels"
            )


def is_model_folder(path: Path) -> bool:
    """Whether there is a model folder, or one without weights, sound or not."""
    try:
        head = read_json(path / "config.json")
    except (AlexNetError, OSError):
        return False
    return isinstance(head, dict) and head.get("format") in (FORMAT, DESCRIPTION)


def _read_json(path: Path, head: Mapping[str, Any], file: str) -> Any:
    return parse_json(SEAL.content(path, head, file, MAX_SETTINGS_BYTES), path / file)


def _read_mean(path: Path, head: Mapping[str, Any]) -> NDArray[np.float32]:
    mean = read_array(io.BytesIO(SEAL.content(path, head, "mean.npy", MAX_MEAN_BYTES)), path / "mean.npy")
    if mean.dtype != np.float32:
        raise AlexNetError(f"{printable(path / 'mean.npy')}: holds {printable(mean.dtype)}; it must hold float32")
    return cast(NDArray[np.float32], mean)


def _room(model: nn.Module) -> int:
    """Most bytes that a file of the network's weights can have: a safetensors header is at most 100 MB."""
    tensors: Mapping[str, Tensor] = model.state_dict()
    return sum(tensor.nbytes for tensor in tensors.values()) + 100_000_008


def _parse(content: bytes, where: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content)
    except KeyError as error:
        raise AlexNetError(f"{where}: holds tensors of the type {printable(error)}, which is not read") from error
    except (SafetensorError, ValueError, RuntimeError, OverflowError) as error:
        raise AlexNetError(f"{where}: not a sound safetensors file ({in_short(error)})") from error


def _single(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as float32: a run in float64 saves float64."""
    return {key: tensor.float() if tensor.dtype == torch.float64 else tensor for key, tensor in tensors.items()}


def _kind(tensor: Tensor) -> str:
    shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    return f"{shape}" if dtype == "float32" else f"{shape} {dtype}"


def _not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a NaN or an infinity."""
    return next((key for key, tensor in tensors.items() if not _is_finite(tensor)), None)


def _is_finite(tensor: Tensor) -> bool:
    """By the least and the greatest value, which are NaN where any is: one pass that writes nothing, so that it costs a tenth of
    asking each value."""
    if tensor.numel() == 0 or not tensor.is_floating_point():
        return True
    return all(math.isfinite(end) for end in tensor.aminmax())
