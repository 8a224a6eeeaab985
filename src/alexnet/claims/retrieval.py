"""§6.1: the last hidden layer against pixels: neighbors, short codes, a linear classifier, a map.

The network is the plain one of the scale. What is searched or learned from are the images it was trained on, what is asked
are all held-out images.

Shape suffixes: N training images, Q held-out images, D units, W bytes of a code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alexnet.claims.experiment import Arm, Experiment, lower
from alexnet.claims.laboratory import Laboratory, asked_of_the_network
from alexnet.claims.results import Result
from alexnet.core import rng
from alexnet.core.intervals import Errors
from alexnet.data.packed import PackedSet, Subset
from alexnet.evaluation.layers import PIXELS
from alexnet.evaluation.predict import Predictor
from alexnet.probes import codes
from alexnet.probes.linear import linear_probe, pooled_features, require_scikit_learn
from alexnet.probes.neighbors import PixelRows, knn_error
from alexnet.probes.scan import Rows
from alexnet.probes.tsne import tsne_map
from alexnet.training.config import TrainConfig
from alexnet.training.trainer import training_images

Space = Literal["fc7", "pixels"]
MOST_IMAGES = 20_000
"""Most images searched, of those the network was trained on; if there are more, this many are drawn."""
BITS = 32
"""Length of a code: four bytes for an image."""
MAP_POINTS = 2_000
"""Held-out images on a map, at most."""

Probe = Callable[[Laboratory, TrainConfig, Predictor, PackedSet, Space], Result]


def probe(function: Probe, space: Space) -> Callable[[Laboratory, TrainConfig], Result]:
    """The result of a probe of the plain network of a configuration, which is trained unless it was."""

    def ask(lab: Laboratory, config: TrainConfig, predictor: Predictor) -> Result:
        return {"space": space, **function(lab, config, predictor, lab.open_data(config), space)}

    def result(lab: Laboratory, config: TrainConfig) -> Result:
        require_scikit_learn()
        return asked_of_the_network(ask)(lab, config)

    return result


def database(data: PackedSet, config: TrainConfig) -> NDArray[np.int64]:
    """The images that the network was trained on, or :data:`MOST_IMAGES` of them, drawn."""
    image_N = training_images(len(data.split("train")), config)
    order_N = rng.permutation(config.seed, "claims/database", 0, len(image_N))
    return np.sort(image_N[order_N[:MOST_IMAGES]])


def nearest_class(lab: Laboratory, config: TrainConfig, predictor: Predictor, data: PackedSet, space: Space) -> Result:
    """Each held-out image gets the class of the nearest training image, by the Euclidean distance of fc7, or of the pixels that
    the network sees."""
    train, test, image_N = data.split("train"), data.split(data.held_out), database(data, config)
    all_Q = np.arange(len(test))
    base: Rows = PixelRows(train, config.preprocessing, image_N)
    query: Rows = PixelRows(test, config.preprocessing, all_Q)
    if space != PIXELS:
        base, query = (_features(lab, predictor, split, number) for split, number in ((train, image_N), (test, all_Q)))
    found = knn_error(base, train.labels[image_N], query, test.labels, ks=(1,))[1]
    return _errors(found, len(image_N)) | {"protocol": {"distance": "Euclidean, exact", "neighbors": 1}}


def linear_classifier(
    lab: Laboratory, config: TrainConfig, predictor: Predictor, data: PackedSet, space: Space
) -> Result:
    """Logistic regression on the standardized numbers of fc7, or of the input averaged down to as many."""
    train, test, image_N = data.split("train"), data.split(data.held_out), database(data, config)
    rows_ND = _features(lab, predictor, train, image_N, space)
    rows_QD = _features(lab, predictor, test, np.arange(len(test)), space)
    found = linear_probe(rows_ND, train.labels[image_N], rows_QD, test.labels, seed=config.seed)
    return _errors(found.held_out, len(image_N)) | {
        "training": _top1(found.train),
        "protocol": {"C": found.strength, "converged": found.converged},
    }


def short_codes(lab: Laboratory, config: TrainConfig, predictor: Predictor, data: PackedSet, space: Space) -> Result:
    """The mean average precision of a search by the codes of an autoencoder, :data:`BITS` long, of fc7, or of the pixels
    averaged down to 32 x 32. Relevant is what has the query's class; queries of a class that no training image has are left
    out."""
    codes.load_faiss()
    train, test, image_N = data.split("train"), data.split(data.held_out), database(data, config)
    label_N = train.labels[image_N]
    image_Q = np.flatnonzero(np.isin(test.labels, label_N))
    if space == PIXELS:
        vector_ND = codes.thumbnails(Subset(train, image_N, train.labels[image_N]))
        vector_QD = codes.thumbnails(Subset(test, image_Q, test.labels[image_Q]))
    else:
        vector_ND, vector_QD = (
            _features(lab, predictor, split, number) for split, number in ((train, image_N), (test, image_Q))
        )
    coder = codes.fit("autoencoder", codes.TrainingVectors(vector_ND), BITS, config.seed)
    index, task = codes.code_index(coder.encode(vector_ND)), codes.Task(label_N, test.labels[image_Q])
    index.use_heap = False  # counts distances, which is faster when everything is ranked
    return {
        "n": len(image_Q),
        "n_train": len(image_N),
        "mean_average_precision": codes.quality(index, coder.encode(vector_QD), task)["mean_average_precision"],
        "protocol": {
            "coder": "autoencoder",
            "bits": BITS,
            "chance": task.chance,
            "search": "Hamming distance, exhaustive",
        },
    }


def flat_map(lab: Laboratory, config: TrainConfig, predictor: Predictor, data: PackedSet, space: Space) -> Result:
    """How far the classes keep together on a map of held-out images by t-SNE, from fc7, or from the input averaged down."""
    test = data.split(data.held_out)
    image_Q = np.sort(rng.permutation(config.seed, "claims/map", 0, len(test))[:MAP_POINTS])
    found = tsne_map(_features(lab, predictor, test, image_Q, space), test.labels[image_Q], seed=config.seed)
    return {"n": len(image_Q), "map": found.to_json(), "protocol": {"perplexity": 30}}


def _features(
    lab: Laboratory, predictor: Predictor, split: Any, image_N: NDArray[np.int64], space: Space = "fc7"
) -> NDArray[np.float32]:
    return pooled_features(predictor, split, [space], image_N, workers=lab.machine.workers)[space]


def _errors(held_out: Errors, n_train: int) -> Result:
    return {"n": held_out.n, "n_train": n_train, "views": {"1": _top1(held_out)}}


def _top1(counted: Errors) -> Result:
    return {"n": counted.n, "top1_errors": counted.errors, "top1_error": counted.error}


def _arms(name: str, function: Probe) -> Callable[[TrainConfig], Sequence[Arm]]:
    def arms(_base: TrainConfig) -> Sequence[Arm]:
        return tuple(
            Arm(name=f"{name}-{space}", result=probe(function, space), same_training=True)
            for space in ("fc7", "pixels")
        )

    return arms


EXPERIMENTS = (
    Experiment(
        id="neighbors",
        title="The nearest training image by the last hidden layer, and by pixels",
        arms=_arms("nearest", nearest_class),
        comparisons=(
            lower(
                "center_error",
                "C36",
                "the nearest image by fc7 is of another class less often than the nearest by pixels",
                arm="nearest-fc7",
                than="nearest-pixels",
            ),
        ),
    ),
    Experiment(
        id="codes",
        title="Codes of 32 bits by an autoencoder, from the last hidden layer and from pixels",
        arms=_arms("codes", short_codes),
        comparisons=(
            lower(
                "code_miss",
                "C37",
                "a search by codes from fc7 misses less than one by codes from pixels (1 less mean average precision)",
                arm="codes-fc7",
                than="codes-pixels",
            ),
        ),
    ),
    Experiment(
        id="linear-classifier",
        title="A linear classifier on the last hidden layer, on pixels, and the network itself",
        arms=lambda base: (Arm(name="base"), *_arms("linear", linear_classifier)(base)),
        comparisons=(
            lower(
                "center_error",
                "N24",
                "the error of a linear classifier on fc7 is lower than on pixels",
                arm="linear-fc7",
                than="linear-pixels",
            ),
            lower(
                "center_error",
                "N24",
                "the error of a linear classifier on fc7 is lower than the network's own",
                arm="linear-fc7",
                than="base",
            ),
        ),
    ),
    Experiment(
        id="map",
        title="Maps by t-SNE of the last hidden layer and of pixels",
        arms=_arms("map", flat_map),
        comparisons=(
            lower(
                "stranger_share",
                "N25",
                "neighbors on a map of fc7 are of another class less often than on one of pixels",
                arm="map-fc7",
                than="map-pixels",
            ),
        ),
    ),
)
