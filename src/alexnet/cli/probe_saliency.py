"""`alexnet probe saliency`."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass
from typing import Any, Literal

from alexnet.cli.shared import (
    ModelOptions,
    Word,
    Words,
    clear_probe,
    machine_of,
    parse,
    print_json,
    probe_folder,
    subject_of,
)
from alexnet.core.errors import UsageError, printable


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """Which pixels an answer rests on: gradient, integrated gradients, guided backpropagation, Grad-CAM and occlusion, with
    deletion and insertion scores, and a check with random weights.

    alexnet probe saliency runs/mine
    alexnet probe saliency runs/mine cat.jpg dog.jpg --scored 0 --sanity 0
    """

    model: Word
    """Run directory, checkpoint of a run, or model folder."""
    images: Words = ()
    """Files or folders to draw the maps of; by default random held-out images."""
    out: str | None = None
    """Folder to write; by default `probes` in the run."""
    data: str | None = None
    """Packed directory, folder, CSV or named set; by default that of the run."""
    count: int = 8
    """Held-out images to draw, where none are given."""
    scored: int = 50
    """Held-out images to score by deletion and insertion; 0 for none."""
    sanity: int = 8
    """How many of the scored images to check with random weights; 0 for none."""
    seed: int = 0
    """Seed for choosing images, for random orders and for random weights."""
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    """Number format to compute in. bfloat16 has three digits: too few for small differences of logits."""


def run(arguments: list[str]) -> int:
    options = parse(Options, "probe saliency", arguments)
    if options.count < 1 or min(options.scored, options.sanity) < 0:
        raise UsageError("--count needs at least 1; --scored and --sanity need at least 0")
    if options.sanity > options.scored:
        raise UsageError(f"--sanity is {options.sanity}, but only {options.scored} images are scored; raise --scored")
    import numpy as np

    from alexnet.core import rng
    from alexnet.core.config import to_json
    from alexnet.core.console import Bar
    from alexnet.core.runs import environment, write_json
    from alexnet.evaluation.classes import by_name
    from alexnet.evaluation.predict import image_files, model_fingerprint
    from alexnet.evaluation.subject import provenance
    from alexnet.models.lrn import kernels_in_use
    from alexnet.probes import saliency as probe
    from alexnet.report.pictures import save_pictures
    from alexnet.report.pictures.saliency import draw_maps, draw_sanity, draw_scores

    folder = probe_folder(options)
    machine = machine_of(options)
    subject = subject_of(options, machine)
    predictor = subject.predictor
    kernels_in_use(machine.device, build=True)
    files = list(image_files(options.images))
    document: dict[str, Any] = {"probe": "saliency", "data": None}
    if files:
        drawn = _explain(predictor, np.stack([predictor.pixels(file) for file in files]), "maps", options.json)
        names: list[tuple[str, int | None]] = [(file, None) for file in files]
    if options.scored or not files:
        packed, split = subject.packed, subject.images
        name = packed.source
        known = by_name(split, packed.classes, predictor.classes, where=name, model=options.model)
        order_N = rng.permutation(options.seed, "saliency/images", 0, len(split))
        order_N = order_N[: max(options.scored, 0 if files else options.count)]
        held_out = _explain(predictor, split.read(order_N), "maps of held-out images", options.json)
        document["data"] = provenance(name, packed, split.name)
        if not files:
            order = order_N[: options.count].tolist()
            drawn, names = held_out.first(options.count), [(split.paths[i], int(known.labels[i])) for i in order]
    document["images"] = [
        {
            "path": path,
            "class": None if label is None else printable(predictor.classes[label]),
            "predicted": printable(predictor.classes[int(target)]),
            "probability": float(probability),
        }
        for (path, label), target, probability in zip(names, drawn.target_B, drawn.probability_B, strict=True)
    ]
    if options.scored:
        some = held_out.first(options.scored)
        chosen_N = order_N[: options.scored]
        with Bar("deletion and insertion", len(chosen_N), quiet=options.json) as bar:
            curves = probe.deletion_insertion(
                predictor,
                some.x_BCHW,
                some.target_B,
                some.map_of,
                seed=options.seed,
                image_B=chosen_N,
                progress=lambda done, _total: bar.update(done),
            )
        integrated = some.map_of["integrated_gradients"]
        document["scores"] = {
            "n": len(chosen_N),
            "mean_probability": float(some.probability_B.mean()),
            "share_right": float((some.target_B.numpy() == known.labels[chosen_N]).mean()),
            "integrated_gradients_off": probe.incompleteness(predictor, some.x_BCHW, some.target_B, integrated),
            "orders": probe.scores(curves),
        }
    if options.sanity:
        some = held_out.first(options.sanity)
        with Bar("random weights", 1, "layers", quiet=options.json) as bar:
            document["sanity"] = probe.sanity(
                predictor,
                some.x_BCHW,
                some.target_B,
                some.map_of,
                seed=options.seed,
                progress=lambda done, total: bar.update(done, total=total),
            )
    document |= {
        "n": len(names),
        "seed": options.seed,
        "protocol": {
            **probe.explained(predictor.preprocessing, predictor.model),
            "precision": options.precision,
            "preprocessing": to_json(predictor.preprocessing),
        },
        "model": model_fingerprint(predictor),
        "network": predictor.name,
        "environment": environment(),
    }
    document["summary"] = _summary(document)
    clear_probe(folder, "saliency.json", "saliency.png", "saliency-scores.png", "saliency-sanity.png")
    answers = [
        f"{image['predicted']}, {image['probability']:.0%}"
        + (f"\n(is {image['class']})" if image["class"] not in (None, image["predicted"]) else "")
        for image in document["images"]
    ]
    pictures = {"saliency.png": draw_maps(drawn.seen_BHWC, drawn.map_of, answers, document)}
    if options.scored:
        pictures["saliency-scores.png"] = draw_scores(document["scores"])
    if options.sanity:
        pictures["saliency-sanity.png"] = draw_sanity(document["sanity"])
    document["numbered"] = save_pictures(folder, pictures)
    write_json(folder / "saliency.json", document)
    if options.json:
        print_json(document)
        return 0
    _print(document)
    for file in (*pictures, "saliency.json"):
        print(printable(folder / file))
    return 0


@dataclass(frozen=True)
class Explained:
    """Images, the network's answers, and the maps of all methods for these answers."""

    x_BCHW: Any
    seen_BHWC: Any
    target_B: Any
    probability_B: Any
    map_of: dict[Any, Any]

    def first(self, num: int) -> "Explained":
        return Explained(
            self.x_BCHW[:num],
            self.seen_BHWC[:num],
            self.target_B[:num],
            self.probability_B[:num],
            {method: map_BHW[:num] for method, map_BHW in self.map_of.items()},
        )


def _explain(predictor: Any, pixels_BSSC: Any, what: str, quiet: bool) -> Explained:
    import numpy as np

    from alexnet.core.console import Bar
    from alexnet.probes.saliency import METHODS, answers, center_inputs, saliency

    x_BCHW, seen_BHWC = center_inputs(predictor, pixels_BSSC)
    probability_B, target_B = answers(predictor, x_BCHW).max(1)
    parts: dict[Any, list[Any]] = {method: [] for method in METHODS}
    with Bar(what, len(x_BCHW), quiet=quiet) as bar:
        for start in range(0, len(x_BCHW), 8):
            some = slice(start, start + 8)
            for method in METHODS:
                parts[method].append(saliency(predictor, x_BCHW[some], target_B[some], method))
            bar.update(min(start + 8, len(x_BCHW)))
    maps = {method: np.concatenate(found) for method, found in parts.items()}
    return Explained(x_BCHW, seen_BHWC, target_B, probability_B, maps)


def _summary(document: dict[str, Any]) -> dict[str, float | str]:
    """The figures of the report: what the tests say of each method."""
    from alexnet.report.pictures.saliency import TITLES

    summary: dict[str, float | str] = {}
    for method, score in document.get("scores", {}).get("orders", {}).items():
        areas = (score[kind]["area"]["mean"] for kind in ("deletion", "insertion"))
        summary[f"deletion and insertion area, {TITLES[method]}"] = " and ".join(f"{area:.3f}" for area in areas)
    for method, rows in document.get("sanity", {}).get("correlation", {}).items():
        at = document["sanity"]["layers_of_the_verdict"] - 1
        verdict = ", not to be trusted" if method in document["sanity"]["fail"] else ""
        summary[f"rank correlation with half the layers random, {TITLES[method]}"] = f"{rows[at]['mean']:.2f}{verdict}"
    return summary


def _print(document: dict[str, Any]) -> None:
    from alexnet.report.pictures.saliency import TITLES, caption

    for image in document["images"]:
        print(f"{printable(image['path'])}: {image['predicted']} {image['probability']:.1%}")
    if scores := document.get("scores"):
        title = f"area under the curve, {scores['n']} images"
        print(f"\n{title:<38} deletion  minus random [95 %]        insertion  minus random [95 %]")
        for method, score in scores["orders"].items():
            cells = []
            for kind in ("deletion", "insertion"):
                area, d = score[kind]["area"]["mean"], score[kind].get("minus_random")
                against = f"{d['mean']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]" if d else ""
                cells.append(f"{area:>8.3f}  {against:<25}")
            print(f"{TITLES[method]:<38} {'  '.join(cells)}".rstrip())
    if sanity := document.get("sanity"):
        layers = "  ".join(f"{layer:>6}" for layer in sanity["layers"])
        title = f"rank correlation, {sanity['n']} images, random to"
        print(f"\n{title:<40} {layers}   other image")
        for method, rows in sanity["correlation"].items():
            means = "  ".join(f"{row['mean']:>6.2f}" for row in rows)
            other = sanity["other_image"].get(method)
            print(f"{TITLES[method]:<40} {means}   {other['mean'] if other else 0:>11.2f}")
    print(f"\n{caption(document)}")
