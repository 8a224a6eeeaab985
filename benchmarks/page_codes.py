"""What codes of 64 bits lose against those of an index, when they alone decide, as on the page: writes results/page-codes.json.

Of each picture of an index of the kind `codes` the twelve nearest others: how many of those that the features find the codes
find too, how many are of its folder, and how long it takes to compare a code with all. Beside the codes of the index their first
64 bits, and 64 that are learned for this number by ITQ.

python benchmarks/page_codes.py INDEX [--out results/page-codes.json]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet.core.runs import environment, write_json
from alexnet.page.search import SHOWN
from alexnet.probes.codes import TrainingVectors, fit
from alexnet.probes.search import Codes, bits_in, open_index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index")
    parser.add_argument("--out", type=Path, default=Path("results/page-codes.json"))
    options = parser.parse_args()
    index = open_index(options.index)
    folder_N = np.array([Path(path).parent.name for path in index.paths])
    vector_ND = np.concatenate([np.load(file) for file in sorted(index.folder.glob("vectors-*.npy"))])
    vector_ND = vector_ND.astype(np.float32)
    vector_ND /= np.linalg.norm(vector_ND, axis=1, keepdims=True)
    distance_NN = -vector_ND @ vector_ND.T
    itq = fit("itq", TrainingVectors(vector_ND.astype(np.float16)), 64, seed=0)
    word_NW = index.codes._word_NW
    coded = {
        f"{index.codes.coder.num_bits} bits of the index": word_NW,
        "the first 64 of them": np.ascontiguousarray(word_NW[:, :1]),
        "64 bits by ITQ": Codes(itq, itq.encode(vector_ND))._word_NW,
    }
    near_Nk = nearest(distance_NN)
    rows = {"features": {"of_its_folder": same(folder_N, near_Nk)}}
    for name, word_NW in coded.items():
        start = time.perf_counter()
        bits_NN = np.stack([bits_in(word_NW ^ word_W) for word_W in word_NW])
        seconds = (time.perf_counter() - start) / len(word_NW)
        found_Nk = nearest(bits_NN)
        both = [len(set(a) & set(b)) for a, b in zip(near_Nk.tolist(), found_Nk.tolist(), strict=True)]
        rows[name] = {
            "of_the_nearest": float(np.mean(both)) / SHOWN,
            "of_its_folder": same(folder_N, found_Nk),
            "seconds": seconds,
        }
        print(name, rows[name])
    about = {"network": index.meta["network"], "layer": index.meta["layer"], "images": len(index), "nearest": SHOWN}
    write_json(options.out, about | {"rows": rows, "environment": environment()})


def nearest(distance_NN: NDArray[np.number]) -> NDArray[np.int64]:
    """The other pictures that are nearest to each; of equally near ones the first."""
    np.fill_diagonal(distance_NN, np.iinfo(np.int32).max)
    return np.argsort(distance_NN, axis=1, kind="stable")[:, :SHOWN]


def same(folder_N: NDArray[np.str_], near_Nk: NDArray[np.int64]) -> float:
    return float((folder_N[near_Nk] == folder_N[:, None]).mean())


if __name__ == "__main__":
    main()
