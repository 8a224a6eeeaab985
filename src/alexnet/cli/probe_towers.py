"""`alexnet probe towers`."""

# No `from __future__ import annotations`: tyro must see the types of options.
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alexnet.cli.probe_kernels import KernelOptions, read_kernels
from alexnet.cli.shared import clear_probe, parse, print_json, probe_folder
from alexnet.core.errors import printable

if TYPE_CHECKING:
    from alexnet.probes.towers import TowerMeter


@dataclass(frozen=True, kw_only=True)
class Options(KernelOptions):
    """The tower meter: do the kernels of one tower look for color, and those of the other not (§6.1)?

    alexnet probe towers runs/mine

    alexnet probe towers caffenet.npz --towers 2 --channel-order bgr --out towers/
    """

    seed: int = 0
    """Seed for the permutations of the test."""


def run(arguments: list[str]) -> int:
    options = parse(Options, "probe towers", arguments)
    from alexnet.core.runs import environment, write_json
    from alexnet.probes.towers import CHANCE, COLORFUL, DEFINITIONS, MEASURES, PERMUTATIONS, tower_meter
    from alexnet.report.pictures import save_pictures
    from alexnet.report.pictures.towers import draw_towers

    folder = probe_folder(options)
    kernels, source = read_kernels(options)
    meter = tower_meter(kernels.kernels_KCRS, kernels.num_towers, options.seed)
    test = f"two-sided permutation test of the difference of means, {PERMUTATIONS:,} permutations of the kernels of this network"
    document = {
        "probe": "towers",
        **source,
        "layer": kernels.layer,
        "n": len(kernels.kernels_KCRS),
        "summary": _summary(meter),
        "chance": CHANCE,
        **meter.to_json(),
        "data": None,
        "seed": options.seed,
        "protocol": {
            "kernels": kernels.how,
            "definitions": DEFINITIONS,
            "colorful_share": f"share of kernels with a color selectivity above {COLORFUL}",
            "tests": f"{test}, p not corrected for the number of measures"
            if meter.tests
            else "none: there is one tower",
        },
        "environment": environment(),
    }
    clear_probe(folder, "towers.json", "towers.png")
    document["numbered"] = save_pictures(folder, {"towers.png": draw_towers(document)})
    write_json(folder / "towers.json", document)
    if options.json:
        print_json(document)
        return 0
    print(f"{kernels.layer} of {printable(source['of'])}: {kernels.how}")
    print("                    color selectivity   above   preferred frequency   orientation selectivity")
    print("         kernels      median     mean     0.5    median, cycles/pixel                    median")
    for tower in meter.towers:
        color, frequency, orientation = (tower[name] for name in MEASURES)
        print(
            f"tower {tower['tower']} {tower['kernels']:>8} {color['median']:>11.3f} {color['mean']:>8.3f} "
            f"{tower['colorful_share']:>7.0%} {frequency['median']:>23.3f} {orientation['median']:>25.3f}"
        )
    for name, result in meter.tests.items():
        print(
            f"{name.replace('_', ' ')}: difference of means {result.difference:+.3f}, p = {result.p:.2g}, "
            f"AUC {result.auc:.3f}, Cliff's delta {result.cliffs_delta:+.3f}"
        )
    if not meter.tests:
        print("the network has one tower: there is nothing to compare")
    print(f"{printable(folder / 'towers.png')}\n{printable(folder / 'towers.json')}")
    return 0


def _summary(meter: "TowerMeter") -> dict[str, float | str]:
    """The figures of the report."""
    summary: dict[str, float | str] = {
        f"color selectivity, median, tower {tower['tower']}": tower["color_selectivity"]["median"]
        for tower in meter.towers
    }
    for name, test in meter.tests.items():
        summary[f"{name.replace('_', ' ')}, difference of means"] = f"{test.difference:+.3f}, p = {test.p:.2g}"
    return summary
