"""Search over 1,000,000 vectors of 4,096 dimensions, exactly and by binary codes: writes results/search.json.

The vectors are generated (clusters on planes of few dimensions, as features of photographs are; float16, 8.2 GB in $TMPDIR or
--folder, deleted afterwards). Exact: a scan of the file in blocks. Codes: the signs of 256 random projections, compared by
faiss's IndexBinaryFlat, the first few hundred compared exactly. Some five minutes on two cores; the speed of the exact scan
is that of the disk where memory does not hold the file.

python benchmarks/search.py [--n 1000000] [--folder /var/tmp] [--out results/search.json]
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.core.runs import environment, write_json
from alexnet.probes.neighbors import nearest, squared_distances

DIM, BITS, CLUSTERS, PLANE = 4096, 256, 2000, 24
BLOCK = 10_000
K, QUERIES = 10, 20
RERANKED = (10, 100, 300, 1000)


class Generator:
    """Vectors around cluster centers: a point of the cluster's plane and a little noise, nothing below zero, as after ReLU."""

    def __init__(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.center_KD = torch.randn(CLUSTERS, DIM, generator=self.random)
        self.plane_PD = torch.randn(4, PLANE, DIM, generator=self.random) * 0.25

    def block(self, num: int) -> torch.Tensor:
        cluster_B = torch.randint(CLUSTERS, (num,), generator=self.random)
        x_BD = self.center_KD[cluster_B]
        for plane in range(4):
            of_plane_B = cluster_B % 4 == plane
            z_BP = torch.randn(int(of_plane_B.sum()), PLANE, generator=self.random)
            x_BD[of_plane_B] += z_BP @ self.plane_PD[plane]
        return x_BD.add_(torch.randn(num, DIM, generator=self.random), alpha=0.1).relu_().half()


class Memory:
    """Peak memory of the process while open, without pages of files, which the system takes back when it needs them."""

    def __enter__(self) -> Memory:
        self.peak, self.done = 0, threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.done.set()
        self.thread.join()

    def _watch(self) -> None:
        while True:
            status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            self.peak = max(self.peak, int(status["RssAnon"].split()[0]) * 1024)
            if self.done.wait(0.05):
                return


def timed(rows: list[dict[str, Any]], what: str, queries: int, work: Any) -> Any:
    with Memory() as memory:
        start = time.perf_counter()
        value = work()
        seconds = time.perf_counter() - start
    row = {"what": what, "queries": queries, "seconds": seconds, "peak_anonymous_bytes": memory.peak}
    rows.append(row)
    print(f"{what}: {seconds:.2f} s, {memory.peak / 1e9:.2f} GB", flush=True)
    return value


def recall(found_Qk: NDArray[np.int64], true_Qk: NDArray[np.int64]) -> float:
    hits = sum(len(set(found) & set(true)) for found, true in zip(found_Qk.tolist(), true_Qk.tolist(), strict=True))
    return hits / true_Qk.size


def measure(n: int, folder: Path, seed: int) -> dict[str, Any]:
    import faiss

    rows: list[dict[str, Any]] = []
    generator, path = Generator(seed), folder / "vectors.npy"
    query_QD = generator.block(QUERIES).numpy()
    center_D = generator.block(min(BLOCK, n)).float().mean(dim=0)
    projection_DT = torch.randn(DIM, BITS, generator=generator.random)

    def codes_of(x_BD: torch.Tensor) -> NDArray[np.uint8]:
        return np.packbits(((x_BD.float() - center_D) @ projection_DT).numpy() > 0, axis=1)

    code_NC = np.empty((n, BITS // 8), np.uint8)

    def generate() -> None:
        matrix_ND = np.lib.format.open_memmap(path, "w+", np.float16, (n, DIM))
        for start in range(0, n, BLOCK):
            x_BD = generator.block(min(BLOCK, n - start))
            matrix_ND[start : start + len(x_BD)] = x_BD.numpy()
            code_NC[start : start + len(x_BD)] = codes_of(x_BD)
        matrix_ND.flush()

    timed(rows, "generate the vectors, write them, compute their codes", 0, generate)
    base_ND = np.load(path, mmap_mode="r")
    exact = timed(rows, "exact scan, all queries at once", QUERIES, lambda: nearest(query_QD, base_ND, K))
    timed(rows, "exact scan, one query", 1, lambda: nearest(query_QD[:1], base_ND, K))

    codes = faiss.IndexBinaryFlat(BITS)
    codes.add(code_NC)
    query_code_QC = codes_of(torch.from_numpy(query_QD))
    timed(rows, "binary codes, one query, first 10", 1, lambda: codes.search(query_code_QC[:1], K))
    recalls = []
    for num in RERANKED:

        def search(num: int = num) -> NDArray[np.int64]:
            _, index_Qm = codes.search(query_code_QC, num)
            found = []
            for query_D, index_m in zip(query_QD, index_Qm, strict=True):
                squared_m = squared_distances(query_D.astype(np.float64), base_ND[np.sort(index_m)])
                found.append(np.sort(index_m)[np.argsort(squared_m, kind="stable")[:K]])
            return np.stack(found)

        found_Qk = timed(rows, f"binary codes, first {num} compared exactly, all queries", QUERIES, search)
        recalls.append({"compared_exactly": num, "recall_at_10": recall(found_Qk, exact.index_Qk)})
        print(f"recall@{K} {recalls[-1]['recall_at_10']:.3f}", flush=True)
    return {
        "n": n,
        "dimensions": DIM,
        "dtype": "float16",
        "bits": BITS,
        "k": K,
        "queries": QUERIES,
        "seed": seed,
        "vectors": f"generated: {CLUSTERS} clusters on planes of {PLANE} dimensions, noise 0.1, values below 0 cut off",
        "file_bytes": path.stat().st_size,
        "code_bytes": code_NC.nbytes,
        "rows": rows,
        "recall": recalls,
        "memory_bytes_of_the_machine": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "peak_rss_bytes_with_pages_of_the_file": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "environment": {**environment(), "faiss": faiss.__version__},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default=None, help="where the vectors are written for the time being")
    default = Path(__file__).resolve().parents[1] / "results" / "search.json"
    parser.add_argument("--out", type=Path, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write_json(options.out, measure(options.n, Path(folder), options.seed))


if __name__ == "__main__":
    main()
