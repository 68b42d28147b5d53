"""Text bias in the report: what the tables say is in the page and in the figures."""

from __future__ import annotations

import html
import itertools
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import keygap as kg
from keygap.bias import PROBES
from keygap.bias.table import SAMPLE_COLUMNS, bias_table
from keygap.errors import UserError
from keygap.reporting import bias, read_run
from keygap.store import save_results

PROBE = PROBES["hint"](positions=["after"])
SETTINGS = {"model": "made", "seed": 0, "n_bootstraps": 20}


def answers() -> pd.DataFrame:
    """Eight samples; the hint is followed by half of them, and without the image by all."""
    rows = []
    for condition, number in itertools.product(PROBE.conditions, range(8)):
        wrong = condition.name == "conflict_absent" or (condition.name == "conflict" and number < 4)
        rows.append(
            {
                "probe": "hint",
                "condition": condition.name,
                "variant": condition.variant,
                "sample_id": f"s{number}",
                "subject": "",
                "answer": "red",
                "chosen": "blue" if wrong else "red",
                "correct": not wrong,
                "suggested": None if condition.name == "as_is" else "blue",
                "followed": None if condition.name == "as_is" else wrong,
                "margin": -1.0 if wrong else 1.0,
            }
        )
    return pd.DataFrame(rows, columns=list(SAMPLE_COLUMNS)).astype({"entropy": float})


def attention_rows() -> pd.DataFrame:
    """At head 1 of layer 3 an image token gets four times what a text token gets, else as much."""
    rows = []
    for layer, head, modality, sink in itertools.product(
        range(4), range(2), ("image", "text"), (False, True)
    ):
        strong = (layer, head, modality, sink) == (3, 1, "image", False)
        relative = 1000.0 if sink else 10.0 * (4 if strong else 1)
        rows.append(
            {
                "sample_id": "s0", "layer": layer, "head": head, "queries": "last",
                "modality": modality, "role": "" if modality == "image" else "question",
                "image": 0, "frame": -1, "sink": sink, "first": False, "n_keys": 10.0,
                "mass": 0.1, "relative": relative, "logit": 0.0, "entropy": 0.1,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def probed(run_folder):
    left_out = {("hint", "agree", "", "<b>odd</b>"): 2}
    bias_table(answers(), left_out, [PROBE], SETTINGS).save(run_folder)
    table = pa.Table.from_pandas(attention_rows(), preserve_index=False)
    link = pd.DataFrame(
        {
            "layer": [0, 29], "head": "all", "link": "separation -> similarity",
            "measure": "spearman", "value": [0.5, 0.1], "ci_low": [0.3, -0.1],
            "ci_high": [0.7, 0.3], "p_value": [0.001, 0.3], "p_holm": [0.002, 0.3],
            "found": [True, False], "detectable": 0.4, "n_samples": 60,
        }
    )  # fmt: skip
    files = {"attention.parquet": table, "link.csv": link.to_csv(index=False)}
    save_results(run_folder, files)
    return run_folder


def test_the_page_has_conditions_figures_and_what_was_left_out(probed):
    page = kg.report(probed).read_text()
    for name in ("conditions", "attention", "link"):
        assert f'alt="{name}"' in page
        assert (probed / "figures" / f"{name}.svg").is_file()
    assert "<td>32 / 0 / 0 / 0</td>" not in page
    pooled = "<td>16 / 16 / 0 / 0</td>"  # four phrasings of eight samples
    assert pooled in page
    assert html.escape("hint: 2 samples left out: <b>odd</b>") in page
    assert "<b>odd" not in page


@pytest.mark.usefixtures("not_drawn")
def test_without_probes_the_page_has_no_such_section(run_folder):
    assert "image or the text?" not in kg.report(run_folder).read_text()


def test_attention_is_per_token_and_without_sinks(probed):
    ratio = bias.attention_ratio(attention_rows())
    assert ratio.shape == (4, 2)
    assert ratio.loc[3, 1] == pytest.approx(4)
    assert np.allclose(ratio.to_numpy().ravel()[:-1], 1)


def test_conditions_are_drawn_with_their_values(probed):
    run = read_run(probed)
    figure = bias.drawn(run, bias.read(probed))["conditions"]
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["hint: as_is", "hint: conflict", "hint: conflict_absent", "hint: agree"]
    container: Any = figure.axes[0].containers[0]
    assert list(container.lines[0].get_xdata()) == [1.0, 0.5, 0.0, 1.0]


@pytest.mark.parametrize("name", ["bias.csv", "attention.parquet", "link.csv", "bias.yaml"])
def test_a_damaged_file_is_refused_in_one_line(probed, name):
    (probed / name).write_bytes(b"")
    with pytest.raises(UserError, match=name):
        kg.report(probed)
