"""The probes on real weights: conv1 and conv2 of BVLC's CaffeNet, two towers in one stream.

python benchmarks/caffenet.py DATA OUT    (DATA: the folder of real data; writes the model folder OUT, results/caffenet-conv1.json
                                           and two pictures in docs/pictures/)

Then `alexnet probe maps OUT --layer conv2 --image cat.jpg --out maps/` shows what its layers answer. The layers after conv2 are
not in the data folder: they are random, and narrow.

Shape suffixes: N images, S rows and columns of an image, C channels, D units.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet.core.runs import environment, sha256_file, write_json
from alexnet.evaluation.layers import find_layers
from alexnet.evaluation.predict import Predictor, load, model_fingerprint
from alexnet.models import create_model, default_preprocessing
from alexnet.models.folder import save_model_folder
from alexnet.probes.kernels import kernels_of
from alexnet.probes.maps import maps_of
from alexnet.probes.towers import CHANCE, DEFINITIONS, PERMUTATIONS, tower_meter
from alexnet.report.pictures import save_figure
from alexnet.report.pictures.kernels import draw_kernels
from alexnet.report.pictures.towers import draw_towers

ROOT = Path(__file__).resolve().parents[1]
BATCH = 50


def build(folder: Path, out: Path) -> None:
    """A model folder with the weights in ``folder``: real up to the second normalization, random after it."""
    with np.load(folder / "caffenet_conv1_conv2.npz", allow_pickle=False) as file:
        weights = dict(file)
    model = create_model("caffenet", fc_units=(2, 2), num_classes=2)
    with torch.no_grad():
        for name in ("conv1", "conv2"):
            model.get_parameter(f"{name}.weight").copy_(torch.from_numpy(weights[f"{name}_weight"]))
            model.get_parameter(f"{name}.bias").copy_(torch.from_numpy(weights[f"{name}_bias"]))
    mean_SSC = np.load(folder / "ilsvrc_2012_mean.npy", allow_pickle=False)[::-1].transpose(1, 2, 0)  # it is blue first
    save_model_folder(out, model, "caffenet", default_preprocessing("caffenet"), ["random 0", "random 1"], mean_SSC)


def grey_change(predictor: Predictor, files: list[Path]) -> dict[str, list[float]]:
    """By layer, for each tower: how much its activations change when the photographs lose their color, as a share of their
    length. Color lost: each pixel's channels are replaced by their mean."""
    names = ["conv1", "conv2"]
    layers = find_layers(predictor.model, names)
    change, length = ({name: np.zeros(2) for name in names} for _ in range(2))
    for start in range(0, len(files), BATCH):
        pixels_NSSC = np.stack([predictor.pixels(str(file)) for file in files[start : start + BATCH]])
        grey_NSS1 = np.rint(pixels_NSSC.mean(3, keepdims=True)).astype(np.uint8)
        color, grey = (
            predictor.activations(torch.from_numpy(np.broadcast_to(x_NSSC, pixels_NSSC.shape).copy()), layers)
            for x_NSSC in (pixels_NSSC, grey_NSS1)
        )
        for name in names:
            for tower in range(2):
                a_ND, b_ND = (np.split(x[name].astype(np.float64), 2, axis=1)[tower] for x in (color, grey))
                change[name][tower] += np.square(a_ND - b_ND).sum()
                length[name][tower] += np.square(a_ND).sum()
    return {name: np.sqrt(change[name] / length[name]).tolist() for name in names}


def main(data: Path, out: Path) -> None:
    folder = data / "weights" / "caffenet-conv1-conv2"
    build(folder, out)
    predictor = load(out)
    document: dict[str, Any] = {
        "probe": "towers",
        "network": "CaffeNet",
        "weights": {"file": "caffenet_conv1_conv2.npz", "sha256": sha256_file(folder / "caffenet_conv1_conv2.npz")},
        "model": model_fingerprint(predictor),
        "chance": CHANCE,
        "seed": 0,
        "protocol": {
            "definitions": DEFINITIONS,
            "tests": f"two-sided permutation test of the difference of means, {PERMUTATIONS:,} permutations of the kernels",
        },
        "environment": environment(),
    }
    for layer in ("conv1", "conv2"):
        kernels = kernels_of(predictor.model, predictor.preprocessing, layer)
        meter = tower_meter(kernels.kernels_KCRS, 2).to_json()
        if layer == "conv1":
            drawn = document | meter | {"layer": layer, "n": len(kernels.kernels_KCRS)}
            save_figure(draw_towers(drawn), ROOT / "docs" / "pictures" / "caffenet-towers.png")
            figure = draw_kernels(kernels.kernels_KCRS, 2, layer="CaffeNet's conv1", how=kernels.how)
            save_figure(figure, ROOT / "docs" / "pictures" / "caffenet-conv1.png")
        meter["kernels"] = {"color_selectivity": [kernel["color_selectivity"] for kernel in meter["kernels"]]}
        document[layer] = {"n": len(kernels.kernels_KCRS), "kernels_are": kernels.how, **meter}
    files = sorted((data / "imagenet-samples" / "images").iterdir())
    document["grey_change"] = {
        "data": "imagenet-samples",
        "n": len(files),
        "what": "|activations of a photograph - those of it with each pixel's channels replaced by their mean| / |activations|, "
        "all images together, tower 1 and tower 2, after the ReLU",
        **grey_change(predictor, files),
    }
    document["maps"] = {}
    for layer in ("conv1", "conv2"):
        maps = maps_of(predictor, folder / "cat.jpg", layer)
        towers = np.split(maps.activation_CHW, 2)
        document["maps"][layer] = {
            "image": "cat.jpg",
            "shape": list(maps.activation_CHW.shape),
            "channels_above_zero": [int((tower.max((1, 2)) > 0).sum()) for tower in towers],
            "largest": [float(tower.max()) for tower in towers],
            "strongest_channels": maps.strongest(10),
        }
    write_json(ROOT / "results" / "caffenet-conv1.json", document)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
