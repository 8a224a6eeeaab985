"""How long the steps of a run take on this machine, measured on random pixels."""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.nn.functional as F

from alexnet.core.device import Machine, Precision, autocast
from alexnet.core.rng import DropoutDraw
from alexnet.distributed.mesh import chunk_sizes
from alexnet.training.config import TrainConfig
from alexnet.training.optimizer import build_optimizer
from alexnet.training.trainer import network

# Shape suffixes: B images of a batch, C channels, H rows, W columns, K classes.


class Pace:
    """The network of a run and a batch of random pixels, whose steps are timed. The weights hardly move."""

    def __init__(self, config: TrainConfig, machine: Machine, num_classes: int) -> None:
        self.config, self.device = config, machine.device
        self.dtype = torch.float64 if config.precision == "float64" else torch.float32
        model = network(config, num_classes).to(self.device, self.dtype)
        self.model = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.parts = chunk_sizes(config.batch_size, min(machine.accumulate, config.batch_size))
        crop, num = config.preprocessing.crop, max(self.parts)
        shape = (num, config.preprocessing.channels, crop, crop)
        x_BCHW = torch.randn(shape, device=self.device, dtype=self.dtype)
        self.x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        self.label_B = torch.zeros(num, dtype=torch.long, device=self.device)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def step(self, precision: Precision) -> float:
        """Seconds of one training step."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        for num in self.parts:
            with autocast(self.device, precision):
                logits_BK = self.model(self.x_BCHW[:num], DropoutDraw(0, 0, np.arange(num)))
            loss = F.cross_entropy(logits_BK.to(self.dtype), self.label_B[:num], reduction="sum")
            (loss / self.config.batch_size).backward()  # type: ignore[no-untyped-call]
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-12
        self.optimizer.step()
        return self._since(start)

    def answer(self) -> float:
        """Seconds that the answer to one image takes, in a batch."""
        self.model.eval()
        start = time.perf_counter()
        with torch.no_grad(), autocast(self.device, self.config.precision):
            self.model(self.x_BCHW)
        self.model.train()
        return self._since(start) / len(self.x_BCHW)

    def _since(self, start: float) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start
