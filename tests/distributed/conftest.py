"""Ranks are forked from a server that has imported torch once; what they run stands in modules of this folder."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
multiprocessing.get_context("forkserver").set_forkserver_preload(
    ["alexnet.recipes.run", "alexnet.cli", "alexnet.parallelize", "torch._dynamo"]  # any optimizer imports the last
)
