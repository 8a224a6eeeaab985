"""Errors in words: of which images, how many, how surely, and of which classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alexnet.core.errors import printable
from alexnet.core.intervals import TOP5_FROM, UNEVEN, in_words

if TYPE_CHECKING:
    from alexnet.evaluation.error_rate import ClassCounts, Evaluation, WeightSearch

SHOWN_CLASSES = 30


def images_line(n: int, protocol: Mapping[str, Any], called: str | None = None) -> str:
    """Which images a result is of, said before the result; ``called``: how the user called the data."""
    split, data = protocol.get("split"), printable(called or protocol.get("data", "unnamed data"))
    images = f"{n:,} image{'s' if n != 1 else ''} of {data}"
    return f"all {images}" if split == "all" else f"{images} ({printable(split or 'of an unnamed split')})"


def error_lines(what: str, errors: Mapping[str, Any], classes: int, precision: str | None = None) -> list[str]:
    """The errors of a result or a summary in lines: counts, rates, and Wilson's 95 % intervals."""
    title = {"1": "center view", "10": "ten views"}.get(what, what)
    title += f", {precision}" if precision else ""
    lines = [f"{title}: {_rate('top-1', errors)}"]
    if classes >= TOP5_FROM:
        lines.append(f"{' ' * len(title)}  {_rate('top-5', errors)}")
    return lines


def _rate(name: str, errors: Mapping[str, Any]) -> str:
    n, count = errors["n"], errors[f"{name.replace('-', '')}_errors"]
    return f"{name} error {count / n:.2%} ({count:,} of {n:,}), 95 % interval {in_words(count, n)}"


def evaluation_lines(evaluation: Evaluation, called: str | None = None) -> list[str]:
    """All that is said of an evaluation; ``called``: how the user called the data."""
    classes, protocol = evaluation.classes, evaluation.protocol
    lines = [images_line(evaluation.n, protocol, called)]
    lines += error_lines(evaluation.views, evaluation.to_json(), len(classes), protocol.get("precision"))
    for number, member in enumerate(evaluation.members, start=1):
        counts = {"n": evaluation.n, "top1_errors": member.top1_errors, "top5_errors": member.top5_errors}
        what = f"  member {number}, {printable(member.name)}, weight {member.weight:.3g}"
        lines += error_lines(what, counts, 0, None if "precision" in protocol else member.precision)
    if (search := evaluation.search) is not None:
        lines.append(_search_line(search, len(classes)))
    lines += uneven_line([c.n for c in classes if c.n], evaluation.balanced_top1_error)
    return [*lines, f"loss {evaluation.loss_nats:.4f} nats", *class_lines(classes)]


def uneven_line(images: Sequence[int], balanced_top1_error: float) -> list[str]:
    """The mean of the errors of the classes, where some have many more ``images`` than others; else nothing."""
    smallest, largest = min(images), max(images)
    if largest < UNEVEN * smallest:
        return []
    each = f"{smallest:,} to {largest:,} images each"
    return [f"mean of the errors of the classes, which have {each}: {balanced_top1_error:.2%}"]


def _search_line(search: WeightSearch, classes: int) -> str:
    equal, found = f"{search.equal_top1_errors:,} top-1", f"{search.top1_errors:,}"
    if classes >= TOP5_FROM:
        equal, found = f"{search.equal_top5_errors:,} top-5 and {equal}", f"{search.top5_errors:,} and {found}"
    where = f"{search.n:,} images of the split {printable(search.split)}"
    return f"the weights were searched on {where}, with {found} errors there; equal weights make {equal} errors"


def class_lines(classes: Sequence[ClassCounts]) -> list[str]:
    """A line for each class, the worst first; of many classes the worst, and how many are left out."""
    top5 = len(classes) >= TOP5_FROM
    width = max(len(printable(c.name)) for c in classes)
    ordered = sorted(classes, key=lambda c: (not c.n, -c.top1_errors / max(c.n, 1)))
    lines = [f"{'class':<{width}} {'n':>6}  top-1" + ("  top-5 errors" if top5 else " errors")]
    for c in ordered[:SHOWN_CLASSES]:
        fifth = f" {c.top5_errors:>6}" if top5 else ""
        lines.append(f"{printable(c.name):<{width}} {c.n:>6} {c.top1_errors:>6}{fifth}")
    if (more := len(ordered) - SHOWN_CLASSES) > 0:
        lines.append(f"and {more:,} more classes, none of them worse; --json and --out list all")
    return lines
