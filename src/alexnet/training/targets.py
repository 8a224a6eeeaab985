"""What the loss of a step is taken against: labels, or shares of classes where images are mixed or classes are weighted.

Shape suffixes: B images of a batch, N images of a split, K classes.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def class_weights(label_N: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    """A weight for each class, (K,), in inverse proportion to its number of images: all classes with images weigh the same, and
    the mean weight of the images is 1. A class without images has the weight 0."""
    count_K = np.bincount(label_N, minlength=num_classes)
    weight_K = np.zeros(num_classes)
    there_K = count_K > 0
    weight_K[there_K] = len(label_N) / (there_K.sum() * count_K[there_K])
    return weight_K


def target_shares(
    label_B: Tensor, weight_K: Tensor, smoothing: float, other_B: Tensor | None = None, share_B: Tensor | None = None
) -> Tensor:
    """What the cross-entropy of each image is taken against, (B, K): its class with ``share_B`` and, with the rest, the class
    ``other_B`` of the image it is mixed with; of each class the share ``smoothing`` is spread evenly over all; then each is
    weighted by its class."""
    num = len(weight_K)

    def shares_of(labels_B: Tensor) -> Tensor:
        smooth_BK = F.one_hot(labels_B, num).to(weight_K) * (1 - smoothing) + smoothing / num
        return smooth_BK * weight_K[labels_B][:, None]

    if other_B is None or share_B is None:
        return shares_of(label_B)
    share_B1 = share_B[:, None].to(weight_K)
    return share_B1 * shares_of(label_B) + (1 - share_B1) * shares_of(other_B)


def main_label(label_B: Tensor, other_B: Tensor, share_B: Tensor) -> Tensor:
    """The class of the greater part of each mixed image, by which its error is counted: (B,)."""
    return torch.where(share_B >= 0.5, label_B, other_B)
