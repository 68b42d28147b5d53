"""The gap beside itself with one thing changed: the rows of the report's table of confounds.

Confounds are rows of ``gap.csv``. Whether position is one of them is seen by comparing two sites of
one layer, a projection's output with what attention makes of it by norm and RoPE, so where a run
has both, they stand side by side.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pandas as pd

AFTER_ROPE = {"k_proj": "key", "q_proj": "query"}  # what attention multiplies


def rows(frame: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """``image_text`` as it is, after RoPE, and with each confound switched; ``switch`` says which.

    A row after RoPE stands under the site before it, and again under its own.
    """
    whole = frame[(frame["head"] == "all") & (frame["rung"] == "between")]
    found: list[dict[Hashable, Any]] = []
    for (site, layer), table in whole.groupby(["site", "layer"], sort=False):
        plain = table["confound"] == ""
        found += table[plain].assign(switch="as it is").to_dict("records")
        after = AFTER_ROPE.get(str(site), "")
        same_layer = (whole["layer"] == layer) & (whole["confound"] == "")
        found += (
            whole[same_layer & (whole["site"] == after)]
            .assign(site=str(site), switch=f"after norm and RoPE ({after})")
            .to_dict("records")
        )
        switched = table[~plain]
        found += switched.assign(switch=switched["confound"]).to_dict("records")
    return found
