"""What belongs to a network besides its weights, as text: a file of another format carries it in its metadata, and the network,
its input and its classes stay together.

```
alexnet_model    the version of these entries, 1
network          name of the network
config           its configuration, JSON
preprocessing    how pixels become its input, JSON
classes          names of the outputs in order, JSON
mean_image       a file of NumPy (S, S, C) float32 in base64; only where the preprocessing subtracts a mean image
```
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from alexnet.core.config import from_json, to_json
from alexnet.core.errors import AlexNetError, UsageError, as_text, printable
from alexnet.core.preprocessing import Preprocessing
from alexnet.core.runs import MAX_SETTINGS_BYTES, parse_json, read_array
from alexnet.models import build_model, model_config
from alexnet.models.folder import MAX_MEAN_BYTES, ClassNames, ModelFolder, check_fit

MARK = "alexnet_model"
VERSION = "1"


def description(
    model: nn.Module,
    name: str,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    mean: NDArray[np.float32] | None,
) -> dict[str, str]:
    """The entries for a network and what belongs to it. Names of classes that are not UTF-8 are made text."""
    entries = {
        MARK: VERSION,
        "network": name,
        "config": _json(to_json(model.config)),
        "preprocessing": _json(to_json(preprocessing)),
        "classes": _json([as_text(one) for one in classes]),
    }
    if mean is not None:
        file = io.BytesIO()
        np.save(file, mean, allow_pickle=False)
        entries["mean_image"] = base64.b64encode(file.getvalue()).decode()
    return entries


def described(entries: Mapping[str, str], where: Path) -> ModelFolder:
    """What the metadata of the file ``where`` describes: a network without memory for its weights. Raises
    :class:`AlexNetError` naming the file and the entry that is missing, too long, or does not fit."""
    if (version := entries.get(MARK)) != VERSION:
        raise AlexNetError(f"{printable(where)}: {_whose(version)}")
    try:
        name = printable(entries.get("network"))[:80]
        config = from_json(type(model_config(name)), _read(entries, "config", where), "config")
        preprocessing = from_json(Preprocessing, _read(entries, "preprocessing", where), "preprocessing")
        classes = list(from_json(ClassNames, {"names": _read(entries, "classes", where)}, "classes").names)
        model = build_model(config, name=name, seed=None)
    except UsageError as error:
        raise AlexNetError(f"{printable(where)}: its metadata do not describe a network ({error})") from error
    mean = _mean(entries["mean_image"], where) if "mean_image" in entries else None
    check_fit(str(where), model, preprocessing, classes, mean)
    return ModelFolder(model, name, preprocessing, classes, mean)


def _whose(version: str | None) -> str:
    if version is None:
        return "its metadata do not say what network it is, so it was not exported by `alexnet export`"
    return f"exported by another version of this program ({printable(version)[:20]}); export it again"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _read(entries: Mapping[str, str], name: str, where: Path) -> Any:
    text = entries.get(name, "")
    if len(text) > MAX_SETTINGS_BYTES:
        raise AlexNetError(f"{printable(where)}: {name} in its metadata has {len(text):,} characters; export it again")
    return parse_json(text.encode("utf-8", "surrogatepass"), Path(f"{where}: {name} in its metadata"))


def _mean(text: str, where: Path) -> NDArray[np.float32]:
    wrong = f"{printable(where)}: mean_image in its metadata is no image of float32; export it again"
    try:
        content = base64.b64decode(text, validate=True) if len(text) <= 2 * MAX_MEAN_BYTES else b""
    except (ValueError, binascii.Error) as error:
        raise AlexNetError(wrong) from error
    mean = read_array(io.BytesIO(content), where)
    if mean.dtype != np.float32:
        raise AlexNetError(wrong)
    return mean
