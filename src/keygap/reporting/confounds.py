"""The report's table of confounds: each gap as it is, and again without one possible explanation.

``gap.csv`` has a row for every confound. Position is a further one: it shows in the difference
between a projection's output and what attention makes of it by norm and RoPE. If a run has both
sites, the second is listed as a variant of the first.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import pandas as pd

AFTER_ROPE = {"k_proj": "key", "q_proj": "query"}  # the same vectors as attention multiplies them


def rows(frame: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """Rows of the table, from ``gap.csv``.

    For each site, layer and contrast between modalities: the contrast as it is, after RoPE, and
    with each confound. The added key ``variant`` says which, ``difference`` is MMD squared less
    that of the gap as it is, and ``relative`` the same as a share of it. A site after RoPE also has
    rows of its own.
    """
    whole = frame[(frame["head"] == "all") & (frame["rung"] == "between")]
    plain = whole[whole["confound"] == ""]
    found: list[dict[Hashable, Any]] = []
    for (site, layer, contrast), table in whole.groupby(["site", "layer", "contrast"], sort=False):
        as_is = table[table["confound"] == ""]
        found += as_is.assign(variant="as it is").to_dict("records")
        site_after = AFTER_ROPE.get(str(site))
        after = plain[
            (plain["site"] == site_after)
            & (plain["layer"] == layer)
            & (plain["contrast"] == contrast)
        ]
        variant = f"after norm and RoPE ({site_after})"
        found += after.assign(site=str(site), variant=variant).to_dict("records")
        without = table[table["confound"] != ""]
        found += without.assign(variant=without["confound"]).to_dict("records")
        _compare(found[-1 - len(after) - len(without) :])
    return found


def _compare(rows: list[dict[Hashable, Any]]) -> None:
    """Add to every row its difference from the first, which is the gap as it is, in place."""
    base = rows[0]["mmd2"]
    for row in rows:
        row["difference"] = row["mmd2"] - base
        row["relative"] = row["difference"] / base if base > 0 else math.nan
