"""Numbers of one trained arm: functions of its result file, the lower the better; and what such a number cannot show."""

from __future__ import annotations

import math
from collections.abc import Callable

from alexnet.claims.results import Result


def center_error(result: Result) -> float:
    """Top-1 error of the held-out images at the center."""
    return float(result["views"]["1"]["top1_error"])


def center_error_top5(result: Result) -> float:
    """Top-5 error of the held-out images at the center."""
    return float(result["views"]["1"]["top5_error"])


def ten_view_error(result: Result) -> float:
    """Top-1 error of the held-out images with ten views (§4.1)."""
    return float(result["views"]["10"]["top1_error"])


def ten_view_error_top5(result: Result) -> float:
    """Top-5 error of the held-out images with ten views (§4.1)."""
    return float(result["views"]["10"]["top5_error"])


def _random_views_error(num: int) -> Callable[[Result], float]:
    """Top-1 error of the held-out images with this many random crops."""

    def random_views_error(result: Result) -> float:
        return float(result["views"][f"random:{num}"]["top1_error"])

    random_views_error.__name__ = f"random_{num}_error"
    random_views_error.__doc__ = f"Top-1 error of the held-out images with {num} random crops, each mirrored or not."
    return random_views_error


def members_error(result: Result) -> float:
    """Mean top-1 error of the held-out images over the members of an ensemble, each alone."""
    return _mean([member["top1_error"] for member in result["members"]])


def members_error_top5(result: Result) -> float:
    """Mean top-5 error of the held-out images over the members of an ensemble, each alone."""
    return _mean([member["top5_error"] for member in result["members"]])


def training_error(result: Result) -> float:
    """Top-1 error of training images at the center, without dropout, after the last step."""
    return float(result["training"]["top1_error"])


def training_loss(result: Result) -> float:
    """Loss of training images at the center, without dropout, after the last step, in nats."""
    return float(result["training"]["loss_nats"])


def gap(result: Result) -> float:
    """Overfitting: top-1 error of held-out images less that of training images, both at the center."""
    return center_error(result) - training_error(result)


def early_loss(result: Result) -> float:
    """Mean training loss over the first tenth of the steps, in nats."""
    losses = [float(point["loss"]) for point in result["curve"]]
    return sum(losses[: math.ceil(len(losses) / 10)]) / math.ceil(len(losses) / 10)


def epochs_to_goal(result: Result) -> float:
    """Epochs until the training error, as the network saw the images and over the last tenth of an epoch, is 25 % (figure
    1). A run that never got there (:func:`cut_off`) has all its epochs, which is too few."""
    for point in result["curve"]:
        if point["error"] <= GOAL:
            return float(point["epoch"])
    return float(result["epochs"][-1]["epoch"])


def _epochs_to_loss(share: float) -> Callable[[Result], float]:
    """Epochs until the training loss, as the network saw the images, is this share of that of guessing."""

    def epochs_to_loss(result: Result) -> float:
        reached = time_to_loss(result, share)
        return float(result["curve"][-1]["epoch"]) if reached is None else reached

    epochs_to_loss.__name__ = f"epochs_to_loss_{round(100 * share)}"
    epochs_to_loss.__doc__ = (
        f"Epochs until the mean training loss of half an epoch, as the network saw the images, is {round(100 * share)} % of that "
        "of guessing. A run that never got there has all its epochs, which is too few."
    )
    return epochs_to_loss


def time_to_loss(result: Result, share: float) -> float | None:
    """Epochs until the mean over half an epoch of the training loss is this share of that of guessing, ln(classes); None if it
    never was."""
    classes = num_classes(result)
    assert classes is not None, "a result that says its number of classes"
    goal = share * math.log(classes)
    points = [(float(point["epoch"]), float(point["loss"])) for point in result["curve"]]
    for now, _ in points:
        began = now - WINDOW + 1e-6  # a point belongs to the steps before it
        if began > 0 and _mean([loss for epoch, loss in points if began <= epoch <= now]) <= goal:
            return now
    return None


def epochs_to_converge(result: Result) -> float:
    """Epochs until the held-out loss is within 5 % of the lowest that this run reaches."""
    losses = [row["val_loss"] for row in result["epochs"]]
    return float(next(i + 1 for i, loss in enumerate(losses) if loss <= 1.05 * min(losses)))


def tower_difference(result: Result) -> float:
    """How far the mean color selectivities of the two towers' first kernels are apart (§6.1)."""
    return float(result["towers"]["difference"])


def tower_difference_by_chance(result: Result) -> float:
    """What that difference stays below in 95 % of all ways to deal the same kernels to two towers."""
    return float(result["towers"]["by_chance"])


def own_p(measure: str, result: Result) -> float | None:
    """The p of the test that a run makes of a measure by itself; None where there is none, or it was not kept."""
    p = result.get("towers", {}).get("p") if measure == "tower_difference" else None
    return None if p is None else float(p)


def gradient_drop(result: Result) -> float:
    """How much smaller, compared with the weights, the gradient is in the first layer than in the last, before any step."""
    layers = list(result["gradients"].values())
    return float(layers[-1]["relative"] / layers[0]["relative"])


def halves_differ(result: Result) -> float:
    """Share of the held-out images to which half of the dropout masks gives another answer than the other half."""
    return float(result["differ"]["halves"])


def factor_differs(result: Result) -> float:
    """Share of the held-out images to which the factor of 0.5 gives another answer than all dropout masks."""
    return float(result["differ"]["factor"])


def dead_at_start(result: Result) -> float:
    """Share of the units of fc6 and fc7 that give 0 for every training image, before the first step."""
    return _dead(result, "start")


def dead_at_end(result: Result) -> float:
    """Share of the units of fc6 and fc7 that give 0 for every training image, after the last step."""
    return _dead(result, "end")


def _dead(result: Result, when: str) -> float:
    return float(sum(result["dead"][when].values()) / sum(result["units"].values()))


def code_miss(result: Result) -> float:
    """1 less the mean average precision of a search by codes, over the held-out images."""
    return 1 - float(result["mean_average_precision"])


def stranger_share(result: Result) -> float:
    """Share of the ten nearest points on a map that are of another class than their point."""
    return 1 - float(result["map"]["neighbor_purity"])


def _selectivity(layer: str) -> Callable[[Result], float]:
    def selectivity(result: Result) -> float:
        found = result["selectivity"][layer]
        return float(found["mean"] - found["by_chance"])

    selectivity.__name__ = f"selectivity_{layer}"
    selectivity.__doc__ = (
        f"How far the units of {layer} answer to one class alone beyond what shuffled labels give, 0 to 1, in the mean."
    )
    return selectivity


def _rise_without(percent: int) -> Callable[[Result], float]:
    def rise(result: Result) -> float:
        return float(result["percent_removed"][str(percent)]) - center_error(result)

    rise.__name__ = f"rise_without_{percent}"
    rise.__doc__ = f"By how much the top-1 error rises when {percent} % of the units of fc7 are removed at test."
    return rise


def error_by_color(result: Result) -> float:
    """Mean top-1 error of the held-out images under light of other colors."""
    return _mean([counts["top1_error"] for counts in result["lights"]["color"].values()])


def error_by_intensity(result: Result) -> float:
    """Mean top-1 error of the held-out images in more and in less light."""
    return _mean([counts["top1_error"] for counts in result["lights"]["intensity"].values()])


def rise_by_color(result: Result) -> float:
    """By how much the top-1 error rises under light of other colors."""
    return error_by_color(result) - center_error(result)


def rise_by_intensity(result: Result) -> float:
    """By how much the top-1 error rises in more and in less light."""
    return error_by_intensity(result) - center_error(result)


def cost_of_wrong_settings(result: Result) -> float:
    """Mean over settings that are wrong by two and by four times, either way, of the error on images held out for choices, less
    that at the chosen settings: the area between the curve of the error against the logarithm of the setting and its value
    there."""
    return _mean([error for of_one in result["wrong"].values() for error in of_one.values()]) - center_error(result)


def seconds(result: Result) -> float:
    """Seconds of training for a thousand images."""
    return 1000 * float(result["seconds"]) / float(result["images_seen"])


# What a number cannot show ------------------------------------------------------------------------------------------


def cut_off(measure: str, result: Result) -> bool:
    """Whether the run ended before it got to what is measured, so that its number is only a lower bound."""
    if measure in LOSS_SHARES:
        return time_to_loss(result, LOSS_SHARES[measure]) is None
    return measure == "epochs_to_goal" and all(point["error"] > GOAL for point in result["curve"])


def blindness(measure: str, result: Result) -> str:
    """Why this measure could not have told one arm from another in a run like this; empty if it could."""
    classes = num_classes(result)
    if measure.endswith("_top5") and classes is not None and classes < LEAST_CLASSES:
        return f"five answers out of {classes} classes leave little to get wrong"
    if measure == "early_loss":
        return "the mean over the first tenth is mostly the loss of the first steps, when nothing has been learned"
    if measure == "epochs_to_converge":
        rows = result["epochs"]
        if rows[round(epochs_to_converge(result)) - 1].get("lr", 0) < rows[0].get("lr", 0):
            return 'every run "converges" where the schedule lowers the rate, which is at the same time in all arms'
    return ""


def num_classes(result: Result) -> int | None:
    """Classes that the network of a result tells apart; None: not known."""
    if isinstance(classes := result.get("classes"), list):
        return len(classes)
    known = result.get("num_classes")
    return known if known is not None else CLASSES.get(result.get("config", {}).get("data"))


def at_chance(error: float, classes: int) -> bool:
    """Whether a top-1 error is hardly below that of guessing."""
    return error > CHANCE * (1 - 1 / classes)


def share_at_chance(result: Result) -> float:
    """The share of its passes that a network spent before its training error left that of guessing for good; 1 if its
    held-out error never did; 0 where nothing is known of it."""
    classes = num_classes(result)
    if classes is None:
        return 0.0
    if "1" in result.get("views", {}) and at_chance(center_error(result), classes):
        return 1.0
    if "share_at_chance" in result:  # published without its curve
        return float(result["share_at_chance"])
    guessing = [at_chance(float(point["error"]), classes) for point in result.get("curve", [])]
    return max((i for i, is_guess in enumerate(guessing, start=1) if is_guess), default=0) / max(1, len(guessing))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


RANDOM_VIEWS = (10, 30)
"""Random crops of an image whose answers are averaged: as many as the paper's ten views, and three times as many."""
SELECTIVE_LAYERS = ("conv1", "conv3", "conv5", "fc7")
"""Layers whose units are asked how far they answer to one class, after their nonlinearity."""
PERCENT_REMOVED = (25, 50, 75)
"""How many of the units of fc7 are removed at test, in percent."""
GOAL = 0.25
WINDOW = 0.5
"""Epochs over whose steps a training loss is averaged, to be timed."""
LOSS_SHARES = {f"epochs_to_loss_{round(100 * share)}": share for share in (0.9, 0.75, 0.5, 0.25)}
"""Losses that runs are timed to, as shares of that of guessing: from the first sign of learning to a good fit."""
LEAST_CLASSES = 20
"""Fewest classes for a top-5 error: with fewer, more than a quarter of all classes are among the best five."""
CHANCE = 0.9
"""Share of the error of guessing above which a network has learned next to nothing."""
CLASSES = {"cifar10": 10, "fashion-mnist": 10, "imagenette": 10, "shapes": 24, "imagenet": 1000}
"""Number of classes of the named sets, for results that do not say it."""
HELD_OUT = {
    *("center_error", "center_error_top5", "ten_view_error", "ten_view_error_top5"),
    *(f"random_{num}_error" for num in RANDOM_VIEWS),
    *("members_error", "members_error_top5", "gap"),
}
"""Measures that read the held-out images: what is chosen by them is chosen on the images that are counted."""

UNITS = {
    "early_loss": "nats",
    "training_loss": "nats",
    "epochs_to_goal": "times",
    "epochs_to_converge": "times",
    "gradient_drop": "times",
    "seconds": "times",
    **dict.fromkeys(LOSS_SHARES, "times"),
}
"""Units of measures that are not shares, which are compared in percentage points; ``times``: compared by their quotient."""

MEASURES: dict[str, Callable[[Result], float]] = {
    measure.__name__: measure
    for measure in (
        center_error,
        center_error_top5,
        ten_view_error,
        ten_view_error_top5,
        *map(_random_views_error, RANDOM_VIEWS),
        members_error,
        members_error_top5,
        training_error,
        training_loss,
        gap,
        early_loss,
        epochs_to_goal,
        epochs_to_converge,
        *map(_epochs_to_loss, LOSS_SHARES.values()),
        tower_difference,
        tower_difference_by_chance,
        gradient_drop,
        halves_differ,
        factor_differs,
        dead_at_start,
        dead_at_end,
        code_miss,
        stranger_share,
        *map(_selectivity, SELECTIVE_LAYERS),
        *map(_rise_without, PERCENT_REMOVED),
        error_by_color,
        error_by_intensity,
        rise_by_color,
        rise_by_intensity,
        cost_of_wrong_settings,
        seconds,
    )
}


def unit_of(measure: str) -> str:
    """The unit of the effect that is the difference, or the quotient, of two numbers of a measure."""
    return UNITS.get(measure, "points")
