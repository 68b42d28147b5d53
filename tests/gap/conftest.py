"""Planted data with a known answer lives with the benchmarks that also use it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "bench" / "statistics"))
