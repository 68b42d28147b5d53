"""The comparison over models and benchmarks, on tables small enough to work out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from keygap.errors import UserError
from keygap.measurement.tables import GapTable
from keygap.measurement.tables import ShapeTable
from keygap.reporting.comparison import comparison
from keygap.reporting.run import Run

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
    table = GapTable(pd.DataFrame(rows), empty, (), ShapeTable(empty, empty), {})
    return Run(root / model, manifest | more, table, None, None)


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return [
        run(tmp_path, "llava", 32, {"image_text": 0.36, "image_image": -0.02, "text_text": 0.0}),
        run(tmp_path, "qwen", 28, {"image_text": 0.16, "image_image": -0.02}),
    ]


def test_layers_stand_by_depth_and_the_gap_by_both_baselines(runs: list[Run]) -> None:
    found = comparison(runs)
    assert found is not None
    first, second = found.rows
    assert [(row["layer"], row["n_layers"], row["depth"]) for row in found.rows] == [
        (31, 32, 1.0), (27, 28, 1.0)
    ]  # fmt: skip
    assert {name: row["mmd2"] for name, row in first["values"].items()} == {
        "image_text": 0.36, "image_image": -0.02, "text_text": 0.0
    }  # fmt: skip
    assert first["ratio"] == pytest.approx(0.36 / 0.01)  # to the upper end of text_text
    assert second["ratio"] == np.inf  # the baseline's whole interval is below 0
    assert "text_text" not in second["values"]
    assert found.published == []


def test_ours_stand_beside_what_the_experiment_cites(runs: list[Run], tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump({"published": CITED}))
    found = comparison(runs)
    assert found is not None
    ((source, (cross, intra)),) = found.published
    assert (source.source, cross.value, intra.value) == ("somebody", 0.408, 0.012)
    assert cross.mmd == pytest.approx((0.5, 0.4, 0.6))
    assert cross.mmd2 == pytest.approx((0.26, 0.16, 0.36))
    assert intra.mmd2 == pytest.approx((-0.04 / 3, -0.02, 0.0))
    assert [row["claimed"] for row in found.rows] == ["linear", None]
    alone = comparison(runs[:1])
    assert alone is not None
    assert len(alone.rows) == 1


def test_one_run_with_nothing_cited_has_no_comparison(runs: list[Run], tmp_path: Path) -> None:
    assert comparison(runs[:1]) is None
    (tmp_path / "experiment.yaml").write_text("name: mine\n")
    assert comparison(runs[:1]) is None


def test_a_broken_citation_is_one_line(runs: list[Run], tmp_path: Path) -> None:
    broken = CITED | {"values": [{"kind": "cross-modal", "what": "gap", "value": "much"}]}
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump({"published": broken}))
    with pytest.raises(UserError, match=r"published.values.0.value: ") as error:
        comparison(runs)
    assert "\n" not in str(error.value)
