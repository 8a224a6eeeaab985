"""Numbers that must be exact: counts of an evaluation, the formula of §3.3, the same bytes twice, the same losses on ranks.

Shape suffixes: N images, B images of a batch, C channels, H rows, W columns, S rows or columns of a square, K classes.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet.core.preprocessing import Preprocessing
from alexnet.distributed.launch import run_local
from alexnet.evaluation.error_rate import evaluate_split
from alexnet.evaluation.views import CENTER
from alexnet.models.lrn import LocalResponseNorm, kernels_in_use, reference
from alexnet.models.lrn.compiled import KERNELS
from alexnet.selftest.checks import NotHereError, require
from alexnet.selftest.faults import train_in_rank
from alexnet.selftest.scene import HANG_SECONDS, Scene, final, finish, last_line, rows, unlike

RANKS_AGREE = 1e-10
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2.0**-8}
"""Largest difference from float64 that is rounding, as a share of the largest value."""
BATCH_SIZES = (1, 3, 8)


class PlantedSplit:
    """23 images that say their number, of 7 classes."""

    labels = np.arange(23) * 3 % 7
    paths = tuple(f"{i}.png" for i in range(23))

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index_B: NDArray[np.int64]) -> NDArray[np.uint8]:
        number_B111 = index_B.astype(np.uint8)[:, None, None, None]
        return np.broadcast_to(number_B111, (len(index_B), 4, 4, 3)).copy()


class PlantedNetwork(nn.Module):
    """Ranks i mod 7 classes before the class of image i: their scores are 1 above its own, which is 1 above the rest."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        number_B1 = x_BCHW[:, :1, 0, 0].round().long()
        behind_BK = (torch.arange(7) - number_B1 * 3) % 7  # 0: its own class; 1 .. : those after it, in a circle
        score_BK = (behind_BK == 0) + 2 * ((behind_BK > 0) & (behind_BK <= number_B1 % 7))
        return score_BK.float()


def counts(scene: Scene) -> str:
    # Ranks 0 1 2 3 4 5 6, three times, then 0 1: the class comes first for 4 of 23 images, and sixth or last for 6.
    n, top1, top5 = 23, 19, 6
    loss = sum(_loss(i % 7) for i in range(n)) / n
    for batch_size in BATCH_SIZES:
        result = evaluate_split(
            PlantedNetwork(),
            PlantedSplit(),
            Preprocessing(resize=4, crop=4, mean="none"),
            None,
            classes=[f"class {k}" for k in range(7)],
            views=CENTER,
            batch_size=batch_size,
        )
        seen = (result.n, result.top1_errors, result.top5_errors)
        require(seen == (n, top1, top5), f"in batches of {batch_size}: {seen} images and errors, not {(n, top1, top5)}")
        by_class = [sum(getattr(c, name) for c in result.classes) for name in ("n", "top1_errors", "top5_errors")]
        require(by_class == list(seen), f"in batches of {batch_size}: the classes add up to {by_class}, not {seen}")
        confused = sum(times for own, predicted, times in result.confusion if own != predicted)
        require(confused == top1, f"in batches of {batch_size}: {confused} confusions for {top1} errors")
        close = abs(result.loss_nats - loss) < 1e-6
        require(close, f"in batches of {batch_size}: the loss is {result.loss_nats}, not {loss}")
    sizes = ", ".join(map(str, BATCH_SIZES))
    return f"{n} images in batches of {sizes}: each counted once, {top1} and {top5} errors as by hand"


def _loss(before: int) -> float:
    """-ln of the softmax of e for one class, e² for ``before``, 1 for the rest of seven."""
    return float(np.log(np.e + before * np.e**2 + (6 - before)) - 1)


def normalization(scene: Scene) -> str:
    device = torch.device("cpu")
    kernels = kernels_in_use(device, build=True)
    why = f" ({KERNELS.failure})" if kernels == "torch" and KERNELS.failure else ""
    return f"kernels: {kernels}{why}; {_normalization(device)}"


def normalization_cuda(scene: Scene) -> str:
    if not torch.cuda.is_available():
        raise NotHereError("no CUDA device that this torch can use")
    device = torch.device("cuda")
    name = torch.cuda.get_device_name(device)
    return f"kernels: {kernels_in_use(device)} on {name}; {_normalization(device)}"


def _normalization(device: torch.device) -> str:
    """The paper's constants, values and gradients, in either memory format, on outputs as large as conv1's."""
    draws, worst = torch.Generator().manual_seed(0), dict.fromkeys(ROUNDING, 0.0)
    size, alpha, beta, k = 5, 1e-4, 0.75, 2.0
    for dtype in ROUNDING:
        for towers in (1, 2):
            for memory in (torch.contiguous_format, torch.channels_last):
                x_BCHW = (torch.randn(2, 96, 13, 13, generator=draws) * 100).to(dtype)
                g_BCHW = torch.randn(2, 96, 13, 13, generator=draws).to(dtype)
                exact_BCHW = x_BCHW.double().requires_grad_()
                formula_BCHW = reference(
                    exact_BCHW, size=size, alpha=alpha, alpha_times="sum", beta=beta, k=k, towers=towers
                )
                (slope_BCHW,) = torch.autograd.grad(formula_BCHW, exact_BCHW, g_BCHW.double())
                ours_BCHW = x_BCHW.to(device, memory_format=memory).requires_grad_()
                norm = LocalResponseNorm(size=size, alpha=alpha, beta=beta, k=k, towers=towers)
                y_BCHW = norm(ours_BCHW)
                (dx_BCHW,) = torch.autograd.grad(y_BCHW, ours_BCHW, g_BCHW.to(device))
                for got, right in ((y_BCHW, formula_BCHW), (dx_BCHW, slope_BCHW)):
                    difference = (got.detach().cpu().double() - right.detach()).abs().max() / right.detach().abs().max()
                    worst[dtype] = max(worst[dtype], float(difference))
    said = ", ".join(f"{value:.1e} in {str(dtype).removeprefix('torch.')}" for dtype, value in worst.items())
    for dtype, limit in ROUNDING.items():
        require(worst[dtype] <= limit, f"{said} from the formula in float64, more than rounding ({limit:.0e})")
    return f"at most {said} from the formula in float64, values and gradients"


def repeat(scene: Scene) -> str:
    found = []
    for name in ("once", "again"):
        out = scene.folder / name
        code, text = finish([*scene.wide_training(out), "--epochs", "1", "--batch-size", "16"], out)
        require(code == 0, f"train ended with {code}: {last_line(text)}")
        found.append((final(out), json.loads((out / "environment.json").read_text())["threads"], len(rows(out)) - 1))
    (once, threads, steps), (again, _, _) = found
    differs = unlike(once, again)
    require(not differs, f"two runs of the same {steps} steps with {threads} threads differ in {differs}")
    return f"{steps} steps of the network of `quickstart` twice, {threads} threads: no byte differs"


def ranks_agree(scene: Scene) -> str:
    losses = []
    for world in (1, 2):
        out = scene.folder / f"world-{world}"
        run_local(train_in_rank, world, scene.config, str(out), timeout=HANG_SECONDS)
        names = ("loss", "val_loss", "val_n", "val_top1_errors")
        losses.append([float(str(row[name])) for row in rows(out) for name in names if name in row])
    one, two = np.array(losses[0]), np.array(losses[1])
    require(one.shape == two.shape, f"one process logged {len(one)} numbers, two ranks {len(two)}")
    difference = float((np.abs(one - two) / np.maximum(np.abs(one), 1e-300)).max())
    require(difference <= RANKS_AGREE, f"the losses of two ranks differ from those of one by {difference:.1e}")
    return f"{len(one)} losses and counts in float64: two ranks differ from one by at most {difference:.0e}"
