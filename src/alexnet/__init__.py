"""AlexNet, the system of Krizhevsky, Sutskever and Hinton (2012), on PyTorch.

The names below are imported when they are first used, so that ``import alexnet`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from alexnet.core.device import Machine as Machine
    from alexnet.core.preprocessing import Preprocessing as Preprocessing
    from alexnet.data.check import check as check
    from alexnet.data.dataset import ImageDataset as ImageDataset
    from alexnet.data.packed import open_packed as open_packed
    from alexnet.data.prepare import prepare as prepare
    from alexnet.data.transforms import Augmentation as Augmentation
    from alexnet.evaluation.predict import load as load
    from alexnet.evaluation.subject import evaluate as evaluate
    from alexnet.evaluation.video import predict_video as predict_video
    from alexnet.interop.exporting import export as export
    from alexnet.interop.hub import from_pretrained as from_pretrained
    from alexnet.interop.hub import push_to_hub as push_to_hub
    from alexnet.interop.importing import import_weights as import_weights
    from alexnet.interop.pretrained import create_model as create_model
    from alexnet.interop.pretrained import list_models as list_models
    from alexnet.models.alexnet import AlexNetConfig as AlexNetConfig
    from alexnet.page import serve as serve
    from alexnet.probes import probe as probe
    from alexnet.probes.features import features as features
    from alexnet.probes.features import open_features as open_features
    from alexnet.probes.library import index as index
    from alexnet.probes.library import search as search
    from alexnet.probes.search import open_index as open_index
    from alexnet.recipes import recipe as recipe
    from alexnet.recipes.auto import train_photos as train_photos
    from alexnet.recipes.run import pretrain as pretrain
    from alexnet.recipes.run import train as train
    from alexnet.report.page import write_report as write_report
    from alexnet.training.config import TrainConfig as TrainConfig
    from alexnet.training.optimizer import OptimizerConfig as OptimizerConfig
    from alexnet.training.schedule import Cosine as Cosine
    from alexnet.training.schedule import Plateau as Plateau
    from alexnet.training.schedule import Staged as Staged
    from alexnet.training.schedule import Steps as Steps

_HOMES = {
    "AlexNetConfig": "alexnet.models.alexnet",
    "Augmentation": "alexnet.data.transforms",
    "Cosine": "alexnet.training.schedule",
    "ImageDataset": "alexnet.data.dataset",
    "Machine": "alexnet.core.device",
    "OptimizerConfig": "alexnet.training.optimizer",
    "Plateau": "alexnet.training.schedule",
    "Preprocessing": "alexnet.core.preprocessing",
    "Staged": "alexnet.training.schedule",
    "Steps": "alexnet.training.schedule",
    "TrainConfig": "alexnet.training.config",
    "check": "alexnet.data.check",
    "create_model": "alexnet.interop.pretrained",
    "evaluate": "alexnet.evaluation.subject",
    "export": "alexnet.interop.exporting",
    "features": "alexnet.probes.features",
    "from_pretrained": "alexnet.interop.hub",
    "import_weights": "alexnet.interop.importing",
    "index": "alexnet.probes.library",
    "list_models": "alexnet.interop.pretrained",
    "load": "alexnet.evaluation.predict",
    "open_features": "alexnet.probes.features",
    "open_index": "alexnet.probes.search",
    "open_packed": "alexnet.data.packed",
    "predict_video": "alexnet.evaluation.video",
    "prepare": "alexnet.data.prepare",
    "pretrain": "alexnet.recipes.run",
    "probe": "alexnet.probes",
    "push_to_hub": "alexnet.interop.hub",
    "recipe": "alexnet.recipes",
    "search": "alexnet.probes.library",
    "serve": "alexnet.page",
    "train": "alexnet.recipes.run",
    "train_photos": "alexnet.recipes.auto",
    "write_report": "alexnet.report.page",
}
"""Each public name, and the module that it is of."""

__all__ = [*_HOMES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
