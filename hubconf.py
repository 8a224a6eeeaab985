"""Entry points of ``torch.hub``: every network by its name, and trained ones.

torch.hub.load("path/to/clone", "alexnet_2012", source="local", num_classes=10)
torch.hub.load("path/to/clone", "alexnet_owt", source="local", pretrained=True)
torch.hub.load("path/to/clone", "from_pretrained", "hf-hub:owner/name", source="local")
"""

import sys as _sys
from functools import partial as _partial
from pathlib import Path as _Path

_SOURCES = str(_Path(__file__).parent / "src")
if _SOURCES not in _sys.path:
    _sys.path.insert(0, _SOURCES)

from alexnet import create_model as _create_model  # noqa: E402
from alexnet import from_pretrained as from_pretrained  # noqa: E402
from alexnet import list_models as _list_models  # noqa: E402
from alexnet.models import about_model as _about_model  # noqa: E402

dependencies = ["torch", "numpy", "PIL", "safetensors", "rich"]


def _entry(name):  # type: ignore[no-untyped-def]
    entry = _partial(_create_model, name)
    entry.__doc__ = (
        f"{_about_model(name)}. Random weights of `seed`, or with `pretrained` those that `alexnet weights get` has fetched; "
        "other fields, such as num_classes, are its configuration's."
    )
    return entry


globals().update({name: _entry(name) for name in _list_models()})
