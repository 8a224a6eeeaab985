"""`alexnet baseline`: what came before, on the same data and counted the same way (tables 1 and 2)."""

# No `from __future__ import annotations`: tyro must see the types of options.
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alexnet.cli.helptext import listing
from alexnet.cli.shared import check_folder, check_threads, parse, tell
from alexnet.core.errors import UsageError, printable

if TYPE_CHECKING:
    from alexnet.baselines.trial import Trial
    from alexnet.evaluation.finding import Finding

KINDS = {
    "pixels": "the nearest training images, or a linear classifier, by raw pixels",
    "sift-fisher": "Fisher vectors of dense SIFT and of colors, and linear machines: what led before 2012",
    "kernel-svm": "support vector machines with a Gaussian kernel on raw pixels, fitted to a part of the images",
}


@dataclass(frozen=True, kw_only=True)
class BaselineOptions:
    data: str
    """Packed directory, folder, archive, Parquet files, CSV or named set."""
    data_root: str | None = None
    """Where named sets are; by default $ALEXNET_DATA."""
    train_images: int | None = None
    """Use at most this many training images, the same number of each class; by default all."""
    seed: int = 0
    """Seed for all random choices."""
    threads: int | None = None
    """CPU threads; by default one for each core. On a busy machine 1 is fastest."""
    out: str | None = None
    """Write the result to this JSON file."""
    json: bool = False
    """One JSON document on stdout."""


@dataclass(frozen=True, kw_only=True)
class PixelOptions(BaselineOptions):
    """The held-out errors of a classifier of raw pixels.

    alexnet baseline pixels --data photos/ --classifier linear
    """

    classifier: Literal["nearest", "linear"] = "nearest"
    """The nearest training images, or logistic regression."""
    side: int = 32
    """Average larger images down to this many pixels a side."""


@dataclass(frozen=True, kw_only=True)
class FisherOptions(BaselineOptions):
    """The held-out errors of linear machines on Fisher vectors of dense descriptors.

    alexnet baseline sift-fisher --data photos/
    """

    gaussians: int = 32
    """Number of Gaussians in the mixture that descriptors are encoded by."""
    bands: int = 3
    """Number of horizontal bands to encode besides the whole image; 1 means the whole image alone."""
    sift_only: bool = False
    """Leave out the second classifier, which reads colors."""


@dataclass(frozen=True, kw_only=True)
class KernelOptions(BaselineOptions):
    """The held-out errors of kernel machines on raw pixels, fitted to a part of the training images.

    alexnet baseline kernel-svm --data photos/ --train-images 5000
    """

    train_images: int | None = 5000
    """Use at most this many training images, the same number of each class: time and memory grow with the square."""
    side: int = 32
    """Average larger images down to this many pixels a side."""


CLASSES: dict[str, type] = {"pixels": PixelOptions, "sift-fisher": FisherOptions, "kernel-svm": KernelOptions}
"""What declares the options of each kind."""


def baseline(arguments: list[str]) -> int:
    """`alexnet baseline KIND ...`"""
    if not arguments or arguments[0].startswith("-"):
        last = "`alexnet baseline KIND --help` shows the options."
        print(listing("baseline KIND --data DATA [options]", "kinds", KINDS, last), end="")
        return 0 if set(arguments) & {"-h", "--help", "--help-all"} else 2
    kind, rest = arguments[0], arguments[1:]
    if kind not in KINDS:
        raise UsageError(f"no baseline is called {printable(kind)!r}; the baselines are {', '.join(KINDS)}")
    measures: dict[str, Callable[[Any], Finding]] = {
        "pixels": _pixels,
        "sift-fisher": _sift_fisher,
        "kernel-svm": _kernel_svm,
    }
    options: Any = parse(CLASSES[kind], f"baseline {kind}", rest)
    finding = measures[kind](options)
    if options.out is not None:
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    tell(finding, options, options.out)
    return 0


def _pixels(options: PixelOptions) -> "Finding":
    _at_least_one("side", options.side)
    from alexnet.baselines.pixels import linear, nearest_neighbors
    from alexnet.baselines.trial import found

    trial, data = _open(options)
    answers = (linear if options.classifier == "linear" else nearest_neighbors)(trial, options.side)
    return found(f"pixels, {options.classifier}", trial, answers, data)


def _sift_fisher(options: FisherOptions) -> "Finding":
    _at_least_one("gaussians", options.gaussians)
    _at_least_one("bands", options.bands)
    from alexnet.baselines.sift_fisher import sift_fisher
    from alexnet.baselines.trial import found

    trial, data = _open(options)
    answers = sift_fisher(trial, gaussians=options.gaussians, num_bands=options.bands, color=not options.sift_only)
    return found("sift-fisher", trial, answers, data)


def _kernel_svm(options: KernelOptions) -> "Finding":
    _at_least_one("side", options.side)
    from alexnet.baselines.kernel_svm import kernel_svm
    from alexnet.baselines.trial import found

    trial, data = _open(options)
    return found("kernel-svm", trial, kernel_svm(trial, options.side), data)


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise UsageError(f"--{name} is {value}; it must be at least 1")


def _open(options: BaselineOptions) -> tuple["Trial", dict[str, Any]]:
    import torch

    from alexnet.baselines.trial import require_scikit_learn, trial_on
    from alexnet.core.console import Bar
    from alexnet.data.prepare import resolve
    from alexnet.evaluation.subject import provenance

    check_threads(options.threads)
    if options.out is not None and Path(options.out).is_dir():
        raise UsageError(f"{printable(options.out)} is a folder; --out names a file")
    if options.out is not None:
        check_folder(Path(options.out).parent, "--out")
    require_scikit_learn()
    if options.threads is not None:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        torch.set_num_threads(options.threads)
        threadpool_limits(options.threads)
    with Bar(f"prepare {printable(options.data)}", 0, quiet=options.json) as bar:
        packed = resolve(options.data, data_root=options.data_root, progress=bar)
    trial = trial_on(packed, train_images=options.train_images, seed=options.seed, quiet=options.json)
    return trial, provenance(options.data, packed, packed.held_out)
