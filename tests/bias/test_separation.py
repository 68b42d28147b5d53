"""The separation of image and text against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from keygap.bias.separation import separation
from keygap.store import LabelledVectors

QUESTION = ["question"]


def labelled(modality, values, sample="a"):
    """Tokens of one dimension and one head."""
    labels = pd.DataFrame(
        {
            "sample_id": sample,
            "position": np.arange(len(modality)),
            "modality": modality,
            "attention": 1.0,
            "role": ["question" if each == "text" else "image" for each in modality],
        }
    )
    return LabelledVectors(np.array(values, np.float32)[:, None, None], labels)


def test_distance_of_the_means_over_the_spread():
    """Means 1 and 6, variances 2 and 8: the distance is 5, the spread the root of 5."""
    found = separation(labelled(["image"] * 2 + ["text"] * 2, [0, 2, 4, 8]), QUESTION)
    assert found["separation"].tolist() == [pytest.approx(5 / np.sqrt(5))]


@pytest.mark.parametrize("modality", [["text"] * 4, ["image"] * 4, ["image"] * 3 + ["text"]])
def test_a_side_without_two_tokens_has_no_separation(modality):
    found = separation(labelled(modality, [0, 1, 2, 3]), QUESTION)
    assert len(found) == 1
    assert found["separation"].isna().all()
