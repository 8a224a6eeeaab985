"""Unsupervised pre-training of the convolutional layers. The paper did without, "even though we expect that it will help"
(§7), and says nothing of how; this is a convolutional autoencoder (Masci et al. 2011), trained as a whole.

Shape suffixes: B images, C channels, H rows, W columns, S rows or columns of a square.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.core.console import Bar
from alexnet.core.device import autocast
from alexnet.core.errors import AlexNetError, UsageError
from alexnet.data import transforms
from alexnet.data.loader import batches, epoch_order
from alexnet.data.packed import PackedSet
from alexnet.models import build_model
from alexnet.models.alexnet import AlexNetConfig
from alexnet.models.layers import activation, initialize
from alexnet.training.config import TrainConfig
from alexnet.training.initial import Initial
from alexnet.training.trainer import training_images

RATE = 5e-4
"""Learning rate of Adam, at the top of one cycle of warm-up and decay: the network's own rate is made for a classifier's
loss."""


def pretrain(
    config: TrainConfig,
    data: PackedSet,
    *,
    epochs: int,
    device: torch.device,
    workers: int | None = None,
    quiet: bool = False,
) -> Initial:
    """Train conv1 .. conv5 of ``config.network``, from its own initial weights, as the encoder of an autoencoder, and return
    them for :func:`~alexnet.training.trainer.fit` to start from. No label is read.

    The images are those of ``config`` (``train_images`` too), augmented and preprocessed as there; the loss is the mean
    squared error of the reconstruction. ``made`` of the answer records it for each epoch, as a share of the variance of the
    input: 1 is that of a constant answer. The same configuration and data give the same weights on a machine.
    Raises :class:`UsageError` for a network that is no AlexNet, :class:`AlexNetError` on a loss that is not finite.
    """
    require_convolutions(config)
    assert isinstance(config.model, AlexNetConfig)
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    model = build_model(config.model, name=config.network, seed=config.seed)
    autoencoder = Autoencoder(model, config.model, config.seed).train()
    autoencoder.to(device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    split, mean_SSC = data.split("train"), torch.from_numpy(data.mean).to(device)
    image_N = training_images(len(split), config)
    steps = epochs * math.ceil(len(image_N) / config.batch_size)
    optimizer = torch.optim.Adam(autoencoder.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=max(steps, 2), pct_start=0.1)
    errors: list[float] = []
    deviation: Tensor | None = None
    with Bar("pretrain", epochs * len(image_N), quiet=quiet) as bar:
        for epoch in range(epochs):
            order_N, error_sum = image_N[epoch_order(len(image_N), config.seed, epoch)], 0.0
            for batch in batches(split, order_N, config.batch_size, workers=workers, pin=device.type == "cuda"):
                draws = transforms.draw(
                    config.augmentation,
                    config.preprocessing,
                    seed=config.seed,
                    epoch=epoch,
                    image_B=batch.image_B,
                    position_B=batch.position_B,
                )
                pixels_BSSC = batch.pixels_BSSC.to(device, non_blocking=True)
                x_BCHW = transforms.augment(
                    pixels_BSSC, draws, config.augmentation, config.preprocessing, mean_SSC, data.color
                ).to(dtype)
                deviation = x_BCHW.std() if deviation is None else deviation
                with autocast(device, config.precision):
                    y_BCHW = autoencoder(x_BCHW)
                loss = F.mse_loss(y_BCHW.to(dtype), x_BCHW / deviation)
                if not math.isfinite(loss.item()):
                    raise AlexNetError(f"pre-training: the loss of epoch {epoch + 1} is {loss.item()}; use float32")
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                error_sum += loss.item() * len(batch.image_B)
                done = epoch * len(image_N) + int(batch.position_B[-1]) + 1
                bar.update(done, f"epoch {epoch + 1}/{epochs} reconstruction error {loss.item():.3f}")
            errors.append(error_sum / len(image_N))
    trained = {name for name, _ in model.named_children() if name.startswith(("conv", "stage"))}
    return Initial(
        source="a convolutional autoencoder",
        network=config.network,
        tensors={
            key: value.detach().cpu().contiguous().clone()
            for key, value in model.state_dict().items()
            if key.partition(".")[0] in trained
        },
        preprocessing=config.preprocessing,
        made={"epochs": epochs, "images": len(image_N), "rate": RATE, "reconstruction_error": errors},
    )


def require_convolutions(config: TrainConfig) -> None:
    """Raises :class:`UsageError` for a network that cannot be pre-trained."""
    if not isinstance(config.model, AlexNetConfig):
        raise UsageError(f"{config.network}: pre-training is for networks of conv1 .. conv5, such as alexnet_2012")
    if config.model.unshared:
        raise UsageError(
            f"the kernels of {config.model.unshared[0]} are not shared; pre-training is for convolutions: empty model.unshared"
        )


class Autoencoder(nn.Module):
    """The convolutional stages of an AlexNet, and their mirror image with random weights: where a stage pools, the maps are
    enlarged (nearest neighbor), and each convolution is transposed, with the same kernels, groups and nonlinearity, but
    weights of its own and no normalization. (B, C, H, W) to (B, C, H, W), in units of the input's deviation. The mirror reads
    the last maps over their root mean square in the first batch, which differs by orders of magnitude between recipes."""

    def __init__(self, model: nn.Module, config: AlexNetConfig, seed: int) -> None:
        super().__init__()
        layers = range(1, len(config.conv_channels) + 1)
        self.convs = nn.ModuleList([model.get_submodule(f"conv{i}") for i in layers])
        self.stages = nn.ModuleList([model.get_submodule(f"stage{i}") for i in layers])
        generator = torch.Generator().manual_seed(seed)
        self.mirrors = nn.ModuleList([_mirror(conv, generator) for conv in self.convs])
        self.acts = nn.ModuleList([activation(config.activation) for _ in self.convs])
        self.rms: Tensor | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        sides: list[tuple[int, int]] = []
        for conv, stage in zip(self.convs, self.stages, strict=True):
            y_BCHW = conv(x_BCHW)
            sides.append((x_BCHW.shape[-1], y_BCHW.shape[-1]))
            x_BCHW = stage(y_BCHW)
        if self.rms is None:
            self.rms = x_BCHW.detach().square().mean().sqrt()
        x_BCHW = x_BCHW / self.rms
        for i in reversed(range(len(sides))):
            before, after = sides[i]
            x_BCHW = F.interpolate(x_BCHW, (after, after))
            if isinstance(mirror := self.mirrors[i], nn.ConvTranspose2d):
                whole = before + getattr(self.convs[i], "overhang", 0)
                x_BCHW = mirror(x_BCHW, output_size=(whole, whole))[..., :before, :before]
                x_BCHW = self.acts[i](x_BCHW) if i > 0 else x_BCHW
        return x_BCHW


def _mirror(conv: nn.Module, generator: torch.Generator) -> nn.Module:
    """The transposed convolution, with standard deviation sqrt(2 / fan-in) and biases 0; what is left out stays so."""
    if not isinstance(conv, nn.Conv2d):
        return nn.Identity()
    k, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
    mirror = nn.ConvTranspose2d(
        conv.out_channels, conv.in_channels, k, stride, padding, groups=conv.groups, device="meta"
    )
    fan_in = conv.out_channels / conv.groups * (k / stride) ** 2
    initialize(mirror, generator, init="gaussian", std=math.sqrt(2 / fan_in))
    return mirror
