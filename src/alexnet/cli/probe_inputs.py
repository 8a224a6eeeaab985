"""`alexnet probe inputs`."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alexnet.cli.shared import ModelOptions, Word, clear_probe, machine_of, parse, print_json, probe_folder, subject_of
from alexnet.core.errors import AlexNetError, UsageError, printable


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """Which inputs decide: the error by class and by property of the image, the worst confusions, how far probabilities can be
    believed, and what a mirror or a shift of 1 to 32 pixels changes.

    alexnet probe inputs runs/mine
    """

    model: Word
    """Run directory, checkpoint of a run, or model folder."""
    out: str | None = None
    """Folder to write; by default `probes` in the run."""
    data: str | None = None
    """Packed directory, folder, CSV or named set; by default that of the run."""
    split: str | None = None
    """all, train, val or test; by default the images that the run held out or, of other data, its val or test images, or all
    where it names no splits."""
    shifted: int = 1000
    """Images to shift, chosen at random: each takes 20 forward passes. 0 for none."""
    seed: int = 0
    """Seed for choosing images, splitting them and resampling."""
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    """Number format to compute in."""
    batch_size: int = 128
    """Images that are computed together."""


def run(arguments: list[str]) -> int:
    options = parse(Options, "probe inputs", arguments)
    if options.shifted < 0 or options.batch_size < 1:
        raise UsageError("--shifted needs at least 0, --batch-size at least 1")
    import numpy as np

    from alexnet.core import rng
    from alexnet.core.console import Bar
    from alexnet.core.runs import environment, write_json
    from alexnet.evaluation.classes import by_name
    from alexnet.evaluation.error_rate import evaluate_split
    from alexnet.evaluation.predict import model_fingerprint
    from alexnet.evaluation.subject import provenance
    from alexnet.evaluation.views import CENTER
    from alexnet.probes import inputs as probe
    from alexnet.report.pictures import save_pictures
    from alexnet.report.pictures.inputs import draw_classes, draw_properties, draw_reliability, draw_shift

    folder = probe_folder(options)
    machine = machine_of(options)
    subject = subject_of(options, machine)
    predictor = subject.predictor
    packed, split = subject.packed, subject.images
    name = packed.source
    known = by_name(split, packed.classes, predictor.classes, where=name, model=options.model)
    n = len(split)
    if n < 2:
        raise UsageError(f"the split {split.name} has {n} images; the probe needs 2 or more, take another --split")
    with Bar("answers", n, quiet=options.json) as bar:
        evaluation = evaluate_split(
            predictor.model,
            known,
            predictor.preprocessing,
            predictor.mean,
            classes=predictor.classes,
            views=CENTER,
            batch_size=options.batch_size,
            device=machine.device,
            precision=options.precision,
            workers=machine.workers,
            data=provenance(name, packed, split.name),
            keep_probabilities=True,
            progress=lambda done, _total: bar.update(done),
        )
    assert evaluation.probabilities is not None
    log_probability_NK, label_N = evaluation.probabilities.log_probability_NK, evaluation.probabilities.label_N
    predicted_N = log_probability_NK.argmax(1)
    wrong_N = predicted_N != label_N
    with Bar("properties", n, quiet=options.json) as bar:
        value_of = probe.stored_properties(
            split, workers=machine.workers, progress=lambda done, _total: bar.update(done)
        )
    sizes, why_not = _original_sizes(name, split, options.data_root)
    properties: dict[str, Any] = {
        key: probe.by_property(value_N, wrong_N, label_N, seed=options.seed, name=key)
        for key, value_N in (value_of | sizes).items()
    } | {key: {"unit": probe.UNITS[key], "not_known": why_not} for key in ("width", "height", "aspect") if why_not}

    with Bar("mirrored", n, quiet=options.json) as bar:
        (mirrored_NK,) = probe.answer_views(
            predictor,
            split,
            np.arange(n),
            [probe.MIRROR],
            workers=machine.workers,
            progress=lambda done, _total: bar.update(done),
        )
    mirror = probe.compare([(log_probability_NK, mirrored_NK)], label_N)
    right_N, mirrored_right_N = ~wrong_N, mirrored_NK.argmax(1) == label_N
    mirror["right_to_wrong"] = int((right_N & ~mirrored_right_N).sum())
    mirror["wrong_to_right"] = int((~right_N & mirrored_right_N).sum())

    pairs_of = probe.shift_pairs(predictor.preprocessing) if options.shifted else {}
    views = sorted({view for pairs in pairs_of.values() for pair in pairs for view in pair})
    chosen_N = np.sort(rng.permutation(options.seed, "inputs/shifted", 0, n)[: options.shifted])
    shift: list[dict[str, Any]] = []
    if views:
        with Bar("shifted", len(chosen_N), quiet=options.json) as bar:
            found_VNK = probe.answer_views(
                predictor,
                split,
                chosen_N,
                views,
                workers=machine.workers,
                progress=lambda done, _total: bar.update(done),
            )
        shift = probe.shift_effect(dict(zip(views, found_VNK, strict=True)), label_N[chosen_N], pairs_of)
    room = predictor.preprocessing.resize - predictor.preprocessing.crop
    document: dict[str, Any] = {
        "probe": "inputs",
        "n": n,
        "error": probe.share(int(wrong_N.sum()), n),
        "classes": probe.errors_by_class(wrong_N, label_N, predictor.classes),
        "properties": properties,
        "confusions": probe.confusions(predicted_N, label_N, predictor.classes),
        "calibration": probe.calibration(log_probability_NK, label_N, seed=options.seed),
        "temperature": probe.temperature(log_probability_NK, label_N, seed=options.seed),
        "mirror": mirror,
        "shift": shift,
        "shifts_without_room": [d for d in probe.SHIFTS if options.shifted and d not in pairs_of],
        "seed": options.seed,
        "protocol": {
            **evaluation.protocol,
            "properties": "of the stored pixels, the whole square; fifths by value; intervals by bootstrap over images, "
            f"{probe.RESAMPLES} resamples, 95 %, not corrected for the number of properties",
            "rates": "with Wilson's 95 % intervals",
            "calibration": f"of the center view, {probe.BINS} bins",
            "temperature": "fitted on a random half, tested on the other",
            "mirror": "the center crop, mirrored, with the mean image as for every mirrored training image",
            "shift": f"crops of the stored image, which leaves {room} pixels of room in all; {len(chosen_N)} random images"
            if shift
            else f"none: {room} pixels of room, {options.shifted} images asked for",
        },
        "model": model_fingerprint(predictor),
        "network": predictor.name,
        "data": {"name": Path(name).name, "split": split.name, "fingerprint": packed.fingerprint},
        "environment": environment(),
    }
    document["summary"] = _summary(document)
    clear_probe(
        folder,
        "inputs.json",
        "inputs-properties.png",
        "inputs-classes.png",
        "inputs-reliability.png",
        "inputs-shift.png",
    )
    pictures = {
        "inputs-properties.png": draw_properties(document),
        "inputs-classes.png": draw_classes(document),
        "inputs-reliability.png": draw_reliability(document["calibration"], document["temperature"]),
        "inputs-shift.png": draw_shift(mirror, shift),
    }
    document["numbered"] = save_pictures(folder, pictures)
    write_json(folder / "inputs.json", document)
    if options.json:
        print_json(document)
        return 0
    _print(document)
    for file in (*pictures, "inputs.json"):
        print(printable(folder / file))
    return 0


def _original_sizes(name: str, split: Any, data_root: str | None) -> tuple[dict[str, Any], str]:
    """Width, height and aspect of the original files, or why they are not known."""
    from alexnet.data.named import find_source
    from alexnet.data.packed import is_packed
    from alexnet.probes.inputs import original_sizes

    if is_packed(Path(name)):
        return {}, "a packed set does not keep them"
    try:
        return original_sizes(find_source(name, data_root=data_root), split.name, split.paths), ""
    except (AlexNetError, OSError) as error:
        return {}, printable(error)


def _summary(document: dict[str, Any]) -> dict[str, float | str]:
    """The figures of the report."""
    worst = max(document["classes"], key=lambda c: c["rate"])
    summary = {
        "top-1 error, center view": document["error"]["rate"],
        f"error of the hardest class, {printable(worst['name'])}": worst["rate"],
        "expected calibration error": document["calibration"]["ece"],
        "the same of a calibrated network": document["calibration"]["ece_if_calibrated"],
        "answers that a mirror changes": document["mirror"]["changed"]["rate"],
    }
    return summary | {f"answers that a shift by {s['pixels']} changes": s["changed"]["rate"] for s in document["shift"]}


def _print(document: dict[str, Any]) -> None:
    error, calibration, temperature, mirror = (document[k] for k in ("error", "calibration", "temperature", "mirror"))
    print(f"top-1 error {error['rate']:.2%} ({error['count']} of {error['n']})\n")
    worst = sorted(document["classes"], key=lambda c: -c["rate"])[:10]
    width = max(len(printable(c["name"])) for c in worst)
    for c in worst:
        print(f"{printable(c['name']):<{width}} {c['rate']:>7.1%}  [{c['low']:.1%}, {c['high']:.1%}]")
    print("\nerror by property        first fifth   last   difference [95 %], points   within classes")
    for name, about in document["properties"].items():
        if "groups" not in about:
            print(f"{name:<24} {'not known: ' + about['not_known'] if 'not_known' in about else 'all the same'}")
            continue
        first, last = about["groups"][0]["rate"], about["groups"][-1]["rate"]
        both = [about[key] for key in ("last_less_first", "last_less_first_within_class")]
        text = [f"{100 * d['value']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]" for d in both]
        print(f"{name:<24} {first:>11.1%} {last:>6.1%}   {text[0]:<25}   {text[1]}")
    print("\nmost frequent mistakes")
    for c in document["confusions"][:5]:
        print(
            f"{c['count']:>5}  {printable(c['class'])} taken for {printable(c['taken_for'])} ({c['rate']:.1%} of the class)"
        )
    print(
        f"\nECE {calibration['ece']:.2%} (a calibrated network: {calibration['ece_if_calibrated']:.2%}), equal mass "
        f"{calibration['ece_equal_mass']:.2%}, Brier score {calibration['brier']:.4f}\n"
        f"temperature {temperature['temperature']:.3f}: ECE {temperature['ece_before']:.2%} to {temperature['ece_after']:.2%} on "
        f"the other half, {temperature['tested_on']} images (a calibrated network: {temperature['ece_if_calibrated']:.2%})"
    )
    print("\n            predictions that change   error before, after   total variation")
    rows = [("mirror", mirror), *((f"{s['pixels']} pixels", s) for s in document["shift"])]
    for name, row in rows:
        print(
            f"{name:<12} {row['changed']['rate']:>22.1%}   {row['error_before']:>12.1%} {row['error_after']:>6.1%}   "
            f"{row['total_variation']:>15.3f}"
        )
    if document["shifts_without_room"]:
        print(f"no room for {', '.join(map(str, document['shifts_without_room']))} pixels")
