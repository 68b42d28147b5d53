"""The report's rows of confounds."""

from __future__ import annotations

import pandas as pd

from keygap.reporting import confounds

ROW = {"head": "all", "rung": "between", "contrast": "image_text", "layer": 3, "confound": ""}


def test_before_and_after_rope_are_side_by_side():
    frame = pd.DataFrame(
        [
            {**ROW, "site": "k_proj", "mmd2": 0.3},
            {**ROW, "site": "k_proj", "mmd2": 0.2, "confound": "equal_counts"},
            {**ROW, "site": "k_proj", "mmd2": 0.9, "head": "0"},
            {**ROW, "site": "key", "mmd2": 0.1},
        ]
    )
    found = [(row["site"], row["variant"], row["mmd2"]) for row in confounds.rows(frame)]
    assert found == [
        ("k_proj", "as it is", 0.3),
        ("k_proj", "after norm and RoPE (key)", 0.1),
        ("k_proj", "equal_counts", 0.2),
        ("key", "as it is", 0.1),
    ]


def test_every_contrast_between_modalities_has_rows_of_its_own():
    frame = pd.DataFrame(
        [
            {**ROW, "site": "k_proj", "mmd2": 0.3},
            {**ROW, "site": "k_proj", "mmd2": 0.5, "contrast": "image_caption"},
            {**ROW, "site": "k_proj", "mmd2": 0.2, "confound": "equal_counts"},
            {**ROW, "site": "key", "mmd2": 0.4, "contrast": "image_caption"},
        ]
    )
    found = [(row["contrast"], row["variant"], row["mmd2"]) for row in confounds.rows(frame)]
    assert found == [
        ("image_text", "as it is", 0.3),
        ("image_text", "equal_counts", 0.2),
        ("image_caption", "as it is", 0.5),
        ("image_caption", "after norm and RoPE (key)", 0.4),
        ("image_caption", "as it is", 0.4),
    ]
