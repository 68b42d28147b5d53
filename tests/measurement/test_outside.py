"""A statistic and a contrast between modalities, added from outside by one registration each."""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any

import numpy as np
import pandas as pd
import pytest

import keygap as kg
from keygap.contrasts import CONTRASTS
from keygap.errors import UserError
from keygap.gap import STATISTICS, Statistic
from keygap.measurement.tables import GapTable
from keygap.reporting import read_run
from keygap.reporting import shape as shape_section
from measurement.outside import IMAGE_TEMPLATE, NORM_RATIO

FEW: dict[str, Any] = {"layers": [15], "n_permutations": 9, "n_bootstraps": 9}


@pytest.fixture
def folder(store, tmp_path):
    shutil.copytree(store.root, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def statistic():
    STATISTICS.register("norm_ratio", NORM_RATIO)
    yield "norm_ratio"
    STATISTICS.unregister("norm_ratio")


@pytest.fixture
def contrast():
    CONTRASTS.register("image_template", IMAGE_TEMPLATE)
    yield "image_template"
    CONTRASTS.unregister("image_template")


def test_a_registered_statistic_is_in_the_long_table_for_every_comparison(folder, store, statistic):
    kg.measure(kg.Store(folder), contrasts=["image_text", "image_region"], **FEW).save(folder)
    long = pd.read_parquet(folder / "statistics.parquet")
    found = long[long["statistic"] == "norm_ratio"]
    assert len(found) == len(long[long["statistic"] == "mmd2"])
    assert set(found["contrast"]) == {"image_text", "image_region"}
    assert set(found["head"]) == {"all", "0", "1", "2"}

    vectors = store.vectors("k_proj", 15)
    lengths = np.sqrt((vectors.array.astype(float) ** 2).sum((1, 2)))
    image = vectors.labels["modality"] == "image"
    question = vectors.labels["role"] == "question"
    row = found.query("layer == '15' and head == 'all' and contrast == 'image_text'")
    plain = row[row["confound"] == ""]
    assert plain["value"].item() == pytest.approx(lengths[image].mean() / lengths[question].mean())
    by_side = long[(long["statistic"] == "norm") & (long["contrast"] == "image_text")]
    assert set(by_side["side"]) == {"image", "text"}


def test_a_registered_statistic_reaches_the_report(folder, statistic):
    kg.measure(kg.Store(folder), contrasts=["image_text"], **FEW).save(folder)
    (table,) = shape_section.tables(read_run(folder))
    assert "norm_ratio" in [row["name"] for row in table["rows"]]


def test_a_statistic_that_vectors_do_not_have_is_a_note(store):
    def missing(x, y, sides):
        raise UserError("no such thing here")

    STATISTICS.register("missing", Statistic("never there", missing))
    try:
        table = kg.measure(store, contrasts=["image_text"], **FEW)
    finally:
        STATISTICS.unregister("missing")
    note = "micro:linear, k_proj, layer 15: no missing of image_text, head all: no such thing here"
    assert note in table.notes
    assert "frechet" in set(table.statistics["statistic"])


def test_two_statistics_with_one_name_for_a_number_are_refused(store):
    STATISTICS.register("again", dataclasses.replace(STATISTICS["frechet"], what="again"))
    try:
        with pytest.raises(UserError, match="two statistics have a number named 'frechet'"):
            kg.measure(store, contrasts=["image_text"], **FEW)
    finally:
        STATISTICS.unregister("again")


def test_a_registered_contrast_between_modalities_is_a_gap_like_image_text(folder, contrast):
    kg.measure(kg.Store(folder), **FEW).save(folder)
    table = GapTable.read(folder)
    long = table.statistics.query("contrast == 'image_template'")
    statistics = set(long["statistic"])
    assert {"mmd2", "jsd", "mmd2_ratio", "frechet", "mir"} <= statistics
    assert statistics == set(table.statistics.query("contrast == 'image_text'")["statistic"])
    assert set(long["side"]) == {"", "image", "template"}

    gap = table.frame.query("contrast == 'image_template'")
    assert set(gap["rung"]) == {"between"}
    assert "equal_counts" in set(gap["confound"])
    assert gap.query("confound == ''")["ratio"].notna().all()
    assert set(table.shape.frame["contrast"]) == {"image_text", "image_template"}
    assert set(table.shape.dimensions["contrast"]) == {"image_text", "image_template"}
    summary = table.summary()
    assert summary["contrast"].tolist() == ["image_text", "image_template"]
    assert (summary["ratio_kind"] > 0).all()
    assert table.settings["contrasts"][-1]["name"] == "image_template"


def test_a_contrast_between_modalities_that_a_run_lacks_is_a_note(store, contrast):
    table = kg.measure(store, contrasts=["image_template"], text_roles=["question"], **FEW)
    note = "no image_template with_template: there is no template token to add"
    assert any(note in line for line in table.notes)
