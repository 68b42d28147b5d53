"""The comparison over models and benchmarks, on tables small enough to work out by hand."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from keygap.errors import UserError
from keygap.measurement.tables import GapTable, ShapeTable
from keygap.reporting.comparison import Range, comparison
from keygap.reporting.run import Run

RUNGS = {"image_text": "between", "caption_image": "between"}  # any other: same
CITED = {
    "source": "somebody",
    "values": [
        {"kind": "cross-modal", "what": "gap", "value": 0.408},
        {"kind": "intra-modal", "what": "halves", "value": 0.012},
    ],
    "connectors": {"llava": "linear"},
    "unpublished": ["the kernel"],
}


def run(root: Path, model: str, n_layers: int, values: dict[str, float], **more: Any) -> Run:
    """A run of one layer, the last, with these values of MMD squared and intervals of 0.01."""
    rows = [
        {
            "site": "k_proj",
            "layer": n_layers - 1,
            "head": head,
            "contrast": contrast,
            "rung": RUNGS.get(contrast, "same"),
            "confound": confound,
            "mmd2": value + (head != "all") + (confound != ""),
            "mmd2_ci_low": value - 0.01,
            "mmd2_ci_high": value + 0.01,
            "mmd": max(value, 0.0) ** 0.5,
        }
        for contrast, value in values.items()
        for head, confound in (("all", ""), ("0", ""), ("all", "with_template"))
    ]
    manifest = {"model": model, "benchmark": "mmmu", "connector": "an MLP", "n_layers": n_layers}
    empty = pd.DataFrame()
    asked = [{"name": n, "rung": RUNGS.get(n, "same"), "what": n} for n in values]
    table = GapTable(pd.DataFrame(rows), empty, (), ShapeTable(empty, empty), {"contrasts": asked})
    return Run(root / model, manifest | more, table, None, None)


def values(found: Range | None) -> tuple[float, ...]:
    assert found is not None
    return astuple(found)


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return [
        run(tmp_path, "llava", 32, {"image_text": 0.36, "image_image": -0.02, "text_text": 0.0}),
        run(tmp_path, "qwen", 28, {"image_text": 0.16, "image_image": -0.02}),
    ]


def test_a_row_has_its_depth_and_the_gap_beside_both_baselines(runs: list[Run]) -> None:
    found = comparison(runs)
    assert found is not None
    first, second = found.rows
    assert [(row["layer"], row["n_layers"], row["depth"]) for row in found.rows] == [
        (31, 32, 1.0), (27, 28, 1.0)
    ]  # fmt: skip
    assert {name: row["mmd2"] for name, row in first["values"].items()} == {
        "image_text": 0.36, "image_image": -0.02, "text_text": 0.0
    }  # fmt: skip
    # the upper end of text_text is 0.01
    assert first["ratios"] == {"image_text": pytest.approx(0.36 / 0.01)}
    assert second["ratios"] == {"image_text": np.inf}  # the whole interval is below 0
    assert (found.contrasts, found.ratios) == (
        ("image_text", "image_image", "text_text"),
        ("image_text",),
    )
    assert "text_text" not in second["values"]
    assert found.published == []


def test_every_contrast_between_modalities_has_a_ratio(tmp_path: Path) -> None:
    gaps = {"caption_image": 0.2, "image_text": 0.4, "text_text": 0.0}
    found = comparison([run(tmp_path, name, 4, gaps) for name in ("a", "b")])
    assert found is not None
    assert found.contrasts == ("image_text", "caption_image", "text_text")
    assert found.ratios == ("image_text", "caption_image")
    for row in found.rows:
        assert row["ratios"] == {
            "image_text": pytest.approx(0.4 / 0.01),
            "caption_image": pytest.approx(0.2 / 0.01),
        }


def test_without_a_baseline_there_is_no_ratio(tmp_path: Path) -> None:
    found = comparison([run(tmp_path, name, 4, {"image_text": 0.4}) for name in ("a", "b")])
    assert found is not None
    assert np.isnan(found.rows[0]["ratios"]["image_text"])


def test_published_values_have_the_counterparts_of_their_kind(
    runs: list[Run], tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"published": CITED}))
    found = comparison(runs)
    assert found is not None
    ((source, (cross, intra)),) = found.published
    assert (source.source, cross.published.value, intra.published.value) == (
        "somebody", 0.408, 0.012
    )  # fmt: skip
    assert values(cross.mmd) == pytest.approx((0.5, 0.4, 0.6))
    assert values(cross.mmd2) == pytest.approx((0.26, 0.16, 0.36))
    assert values(intra.mmd2) == pytest.approx((-0.04 / 3, -0.02, 0.0))
    assert (cross.contrasts, intra.contrasts) == (("image_text",), ("image_image", "text_text"))
    assert [row["claimed"] for row in found.rows] == ["linear", None]
    alone = comparison(runs[:1])
    assert alone is not None
    assert len(alone.rows) == 1


def test_one_run_with_nothing_cited_has_no_comparison(runs: list[Run], tmp_path: Path) -> None:
    assert comparison(runs[:1]) is None
    (tmp_path / "study.yaml").write_text("name: mine\n")
    assert comparison(runs[:1]) is None


def test_a_broken_citation_is_one_line(runs: list[Run], tmp_path: Path) -> None:
    broken = CITED | {"values": [{"kind": "cross-modal", "what": "gap", "value": "much"}]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"published": broken}))
    with pytest.raises(UserError, match=r"published.values.0.value: ") as error:
        comparison(runs)
    assert "\n" not in str(error.value)
