"""What `alexnet index --kind codes` finds of the exact neighbors, and how fast: writes results/index-codes.json.

python benchmarks/index_codes.py FOLDER WEIGHTS [--queries 500] [--out results/index-codes.json]

FOLDER holds train/ and val/ (published: Imagenette's 7,000 and 2,500 photographs at 224 pixels). train/ is indexed by pool5 of
the network of WEIGHTS (published: the ImageNet-trained convolutions of torchvision's alexnet, which have seen these photographs),
compared by cosine; images drawn from val/ are the queries. The ten nearest of a scan of all vectors are compared with the ten of
the nearest codes, and with the ten that a search gives, which orders the nearest codes' images by their vectors. Some ten
minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command line does

import numpy as np
from numpy.typing import NDArray

import alexnet
from alexnet.core import rng
from alexnet.core.memory import keep_freed_memory
from alexnet.core.runs import environment, write_json
from alexnet.data.pictures import image_files, pictures
from alexnet.probes.neighbors import nearest
from alexnet.probes.scan import Directions
from alexnet.probes.search import COMPARED, features_of, open_index

LAYER, K = "pool5", 10
SCANNED = 20
"""Queries by which the time of a scan is measured."""


def recall(found_Qk: NDArray[np.int64], true_Qk: NDArray[np.int64]) -> float:
    """What part of the true neighbors was found."""
    hits = sum(len(set(found) & set(true)) for found, true in zip(found_Qk.tolist(), true_Qk.tolist(), strict=True))
    return hits / true_Qk.size


def timed(
    work: Callable[[NDArray[np.float32]], NDArray[np.int64]], query_QD: NDArray[np.float32]
) -> tuple[NDArray[np.int64], float]:
    """What is found for each query (Q, k), asked one at a time, and the median of the seconds that one takes."""
    found, seconds = [], []
    for query_D in query_QD:
        start = time.perf_counter()
        found.append(work(query_D[None])[0])
        seconds.append(time.perf_counter() - start)
    return np.array(found), float(np.median(seconds))


def measure(folder: Path, weights: Path, queries: int, place: Path) -> dict[str, Any]:
    alexnet.import_weights(weights, place / "model")
    start = time.perf_counter()
    alexnet.index(place / "model", folder / "train", place / "index", layer=LAYER, metric="cosine", kind="codes")
    seconds = time.perf_counter() - start
    index = open_index(place / "index")
    files = list(image_files([str(folder / "val")]))
    drawn = [files[i] for i in np.sort(rng.permutation(0, "benchmark/queries", 0, len(files))[:queries])]
    rows = features_of(index, alexnet.load(place / "model"), pictures(drawn))
    query_QD = np.array([row for _, row in rows], np.float32)
    unit_QD = Directions(query_QD)[:]
    true_Qk = nearest(unit_QD, index._rows, K).index_Qk
    scan_seconds = timed(lambda unit_QD: nearest(unit_QD, index._rows, K).index_Qk, unit_QD[:SCANNED])[1]
    codes_Qk, codes_seconds = timed(lambda unit_QD: index.codes.nearest(unit_QD, K), unit_QD)
    found_Qk, found_seconds = timed(lambda query_QD: index.search(query_QD, K).index_Qk, query_QD)
    results = {
        "scan of all vectors": {"recall_at_10": 1.0, "median_seconds": scan_seconds, "queries": len(unit_QD[:SCANNED])},
        "codes alone": {
            "recall_at_10": recall(codes_Qk, true_Qk),
            "median_seconds": codes_seconds,
            "queries": len(unit_QD),
        },
        f"search: the images of the {COMPARED} nearest codes by their vectors": {
            "recall_at_10": recall(found_Qk, true_Qk),
            "median_seconds": found_seconds,
            "queries": len(unit_QD),
        },
    }
    for name, row in results.items():
        print(f"{name}: recall@{K} {row['recall_at_10']:.3f}, {1e3 * row['median_seconds']:.2f} ms a query")
    return {
        "indexed": len(index),
        "layer": LAYER,
        "dimensions": int(index.meta["dimension"]),
        "metric": index.metric,
        "network": index.meta["network"],
        "model": index.meta["model_fingerprint"],
        "seen": "the weights were trained on ImageNet, whose training set the photographs are of",
        "codes": dict(index.meta["codes"]),
        "seconds_to_index": seconds,
        "results": results,
        "environment": environment(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--queries", type=int, default=500)
    default = Path(__file__).resolve().parents[1] / "results" / "index-codes.json"
    parser.add_argument("--out", type=Path, default=default)
    options = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as place:
        write_json(options.out, measure(options.folder, options.weights, options.queries, Path(place)))


if __name__ == "__main__":
    main()
