"""The autoencoder that the paper proposes (§6.1): vectors to short binary codes and back.

Shape suffixes: N vectors, B vectors of a batch, P inputs, H hidden units, O outputs, K bits.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

HIDDEN = 512
STEPS = 1600
BATCH = 128
RATE = 1e-3
NOISE = 4.0
"""Standard deviation of what is added before the logistic. Only what is far from 0 gets through it, so codes become binary
though the logistic has a gradient (Salakhutdinov and Hinton 2009; they draw it once for each vector, here it is ever new)."""
DROPPED = 0.2
"""Share of the inputs that is set to zero: the vector must be found again from the others."""

SETTINGS = {
    "layers": f"inputs - {HIDDEN} - bits - {HIDDEN} - inputs, ReLU in the hidden ones",
    "loss": "mean squared error of the reconstruction",
    "optimizer": "Adam, one cycle of the learning rate",
    "learning_rate": RATE,
    "steps": STEPS,
    "batch_size": BATCH,
    "noise_before_logistic": NOISE,
    "inputs_dropped": DROPPED,
}
"""The settings as the protocol states them."""

Affine = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Weight (O, I) and bias (O,)."""


def train_encoder(input_NP: NDArray[np.float32], num_bits: int, seed: int) -> list[Affine]:
    """Two layers with a ReLU between them, whose outputs above 0 are the bits: the half of an autoencoder
    P - 512 - K - 512 - P that is kept. It minimizes the mean squared error of the reconstruction by Adam, on the CPU, for
    1,600 steps whatever N is. No label is seen. The same seed, inputs and number of threads give the same encoder."""
    num, num_inputs = input_NP.shape
    scale = float(np.sqrt(np.mean(np.square(input_NP, dtype=np.float64)))) or 1.0
    x_NP = torch.from_numpy(input_NP / np.float32(scale))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = _two_layers(num_inputs, num_bits)
        decoder = _two_layers(num_bits, num_inputs)
        optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()])
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.1)
        for index_B in torch.split(_order(num), min(BATCH, num)):
            x_BP = x_NP[index_B]
            score_BK = encoder(F.dropout(x_BP, DROPPED))
            code_BK = torch.sigmoid(score_BK + NOISE * torch.randn_like(score_BK))
            loss = F.mse_loss(decoder(2 * code_BK - 1), x_BP)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    weight_HP, bias_H, weight_KH, bias_K = (p.detach().numpy() for p in encoder.parameters())
    return [(weight_HP / np.float32(scale), bias_H), (weight_KH, bias_K)]


def _two_layers(num_inputs: int, num_outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(num_inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, num_outputs))


def _order(num: int) -> Tensor:
    """The numbers of the vectors of all steps: passes over all of them, each in an order of its own."""
    needed = STEPS * min(BATCH, num)
    return torch.cat([torch.randperm(num) for _ in range(math.ceil(needed / num))])[:needed]
