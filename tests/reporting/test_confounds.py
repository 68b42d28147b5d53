"""The report's rows of confounds."""

from __future__ import annotations

import pandas as pd

from keygap.reporting import confounds


def test_before_and_after_rope_are_side_by_side():
    row = {"head": "all", "rung": "between", "contrast": "image_text", "layer": 3, "confound": ""}
    frame = pd.DataFrame(
        [
            {**row, "site": "k_proj", "mmd2": 0.3},
            {**row, "site": "k_proj", "mmd2": 0.2, "confound": "equal_counts"},
            {**row, "site": "k_proj", "mmd2": 0.9, "head": "0"},
            {**row, "site": "key", "mmd2": 0.1},
        ]
    )
    found = [(row["site"], row["variant"], row["mmd2"]) for row in confounds.rows(frame)]
    assert found == [
        ("k_proj", "as it is", 0.3),
        ("k_proj", "after norm and RoPE (key)", 0.1),
        ("k_proj", "equal_counts", 0.2),
        ("key", "as it is", 0.1),
    ]
