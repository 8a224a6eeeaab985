"""What all networks have in common."""

from __future__ import annotations

from typing import Any

from torch import nn


class Network(nn.Module):
    """A network that gives logits."""

    def __init_subclass__(cls, **fields: Any) -> None:
        super().__init_subclass__(**fields)
        # torch.fx copies the annotations into its programs; as the texts that they are here it could not pickle those.
        cls.forward.__annotations__ = {}
