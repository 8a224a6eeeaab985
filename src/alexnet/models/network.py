"""What all networks have in common: the functions that users of timm know, beside `forward`.

Shape suffixes: B images, C channels, H rows, W columns, D units, K classes.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from alexnet.core.errors import UsageError
from alexnet.core.preprocessing import Preprocessing
from alexnet.core.rng import DropoutDraw


class Network(nn.Module):
    """A network that gives logits: ``forward_head(forward_features(x))`` is ``forward(x)``."""

    HEAD: ClassVar[str]
    """Name of the last layer."""
    config: Any  # each network's own
    """The configuration; it stays true after :meth:`reset_classifier`."""
    name: str
    num_features: int
    """Units that the last layer reads: 4096 in the paper. `forward` gives them where ``num_classes`` is 0."""
    preprocessing: Preprocessing | None = None
    """What stands between a picture and the input of this network."""

    def __init_subclass__(cls, **fields: Any) -> None:
        super().__init_subclass__(**fields)
        # torch.fx copies the annotations into its programs; as the texts that they are here it could not pickle those.
        cls.forward.__annotations__ = {}

    @property
    def num_classes(self) -> int:
        """Outputs of the last layer; 0 if there is none."""
        return int(self.config.num_classes)

    @property
    def head_hidden_size(self) -> int:
        """The same as ``num_features``: newer versions of timm call it so."""
        return self.num_features

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """For each stage of maps, in order: channels (``num_chs``), pixels of the input for one of its own (``reduction``), and
        the ``module`` that gives it."""
        raise NotImplementedError

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """The input and the ends of the network in timm's words, for its `resolve_model_data_config`. Where a mean image is
        subtracted, `mean` is the average of ImageNet's colors."""
        read = self.preprocessing or Preprocessing(crop=self.config.input_size, channels=self.config.in_channels)
        channels, side = self.config.in_channels, self.config.input_size
        usual = (0.485, 0.456, 0.406)[:channels] if channels <= 3 else (0.456,) * channels
        if read.mean == "none":
            usual = (0.0,) * channels
        elif read.mean == "channel":
            usual = _for_channels([mean / 255 for mean in read.channel_mean], channels)
        return {
            "architecture": self.name,
            "num_classes": self.num_classes,
            "input_size": (channels, side, side),
            "fixed_input_size": True,
            "interpolation": "bilinear",
            "crop_pct": side / read.resize,
            "crop_mode": "center",
            "mean": usual,
            "std": _for_channels([std / read.scale / 255 for std in read.std or (1.0,)], channels),
            "channel_order": read.channel_order,
            "pool_size": None,
            "first_conv": next(name for name, _ in self.named_children()),
            "classifier": self.HEAD,
        }

    def forward_features(self, x_BCHW: Tensor) -> Tensor:
        """The last maps (B, C, H, W)."""
        raise NotImplementedError

    def forward_head(self, x_BCHW: Tensor, pre_logits: bool = False, draw: DropoutDraw | None = None) -> Tensor:
        """Logits (B, K) for the last maps; with ``pre_logits`` what the last layer reads, (B, num_features)."""
        raise NotImplementedError

    def get_classifier(self) -> nn.Module:
        """The last layer; nn.Identity where ``num_classes`` is 0."""
        return self.get_submodule(self.HEAD)

    def reset_classifier(self, num_classes: int, *, seed: int = 0) -> None:
        """Put another last layer in the place of the present one, with ``num_classes`` outputs and initial weights that depend on
        the configuration and ``seed`` alone; or none with 0, and `forward` gives what it would read. All other weights stay."""
        self.config = replace(self.config, num_classes=operator.index(num_classes))
        like = next(self.parameters())
        setattr(self, self.HEAD, self.new_head())
        if self.num_classes and not like.is_meta:
            self.draw_head(torch.Generator().manual_seed(seed))
            self.get_classifier().to(like)
        self.get_classifier().train(self.training)

    def new_head(self) -> nn.Module:
        """A last layer without memory."""
        if not self.num_classes:
            return nn.Identity()
        return nn.Linear(self.num_features, self.num_classes, device="meta")

    def draw_head(self, generator: torch.Generator) -> None:
        """Give the last layer initial weights."""
        raise NotImplementedError


def _for_channels(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """One value for each channel: these, or where there are more or fewer channels their average."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels


class FeatureInfo:
    """What the maps of :class:`FeatureMaps` are, as timm says it."""

    def __init__(self, info: Sequence[dict[str, Any]], out_indices: tuple[int, ...]) -> None:
        self.info = [{**entry, "index": i} for i, entry in enumerate(info)]
        self.out_indices = out_indices

    def channels(self) -> list[int]:
        """Channels of each of the maps."""
        return self._of("num_chs")

    def reduction(self) -> list[int]:
        """Pixels of the input, along a side, for one pixel of each of the maps."""
        return self._of("reduction")

    def module_name(self) -> list[str]:
        """The module that gives each of the maps."""
        return self._of("module")

    def get_dicts(self) -> list[dict[str, Any]]:
        """All of it, for each of the maps."""
        return [self.info[i] for i in self.out_indices]

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.info[i]

    def __len__(self) -> int:
        return len(self.info)

    def _of(self, key: str) -> list[Any]:
        return [self.info[i][key] for i in self.out_indices]


class FeatureMaps(nn.ModuleDict):
    """The stages of a network up to the last that is asked for, under their names: a backbone. Gives a list of maps, of images of
    any size that the stages take."""

    def __init__(self, network: Network, out_indices: int | Sequence[int] | None = None) -> None:
        info = network.feature_info
        num = len(info)
        if out_indices is None:
            out_indices = range(num)
        asked = list(range(-out_indices, 0)) if isinstance(out_indices, int) else [*out_indices]
        if not asked or any(type(i) is not int or not -num <= i < num for i in asked):
            raise UsageError(
                f"{network.name}: out_indices is {out_indices!r}; its maps are 0 to {num - 1}, or -{num} to -1"
            )
        chosen = tuple(sorted({i % num for i in asked}))
        modules, last = dict(network.named_children()), info[chosen[-1]]["module"]
        names = list(modules)
        super().__init__({name: modules[name] for name in names[: names.index(last) + 1]})
        self.feature_info = FeatureInfo(info, chosen)
        self.pretrained_cfg = {
            key: value for key, value in network.pretrained_cfg.items() if key not in ("num_classes", "classifier")
        }

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        maps, wanted = [], set(self.feature_info.module_name())
        for name, module in self.items():
            x_BCHW = module(x_BCHW)
            if name in wanted:
                maps.append(x_BCHW)
        return maps
