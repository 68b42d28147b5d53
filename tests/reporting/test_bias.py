"""Text bias in the report: what the tables say is in the page and in the figures."""

from __future__ import annotations

import html
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import keygap as kg
from keygap.bias import read_bias
from keygap.errors import UserError
from keygap.reporting import bias, read_run
from keygap.reporting.bias_findings import attention_ratio

from .conftest import LAST
from .made_bias import OUTCOME, attention_rows, save_bias


@pytest.fixture
def probed(run_folder):
    save_bias(run_folder, (0, LAST))
    return run_folder


@pytest.mark.usefixtures("not_drawn")
def test_the_page_has_conditions_figures_and_what_was_left_out(probed):
    page = kg.report(probed).read_text()
    run = read_run(probed)
    for sentence in bias.findings(run, bias.read(probed)):
        assert f"<li>{html.escape(sentence)}.</li>" in page
    words = {one.name: html.escape(one.alt) for one in bias.drawn(run, bias.read(probed))}
    for name in ("conditions", "attention", "link"):
        assert f'aria-label="{words[name]}"' in page
    assert "<td>32 / 0 / 0 / 0</td>" not in page
    pooled = "<td>16 / 16 / 0 / 0</td>"  # four phrasings of eight samples
    assert pooled in page
    assert html.escape("hint: 2 samples left out: <b>odd</b>") in page
    assert "<b>odd" not in page


@pytest.mark.usefixtures("not_drawn")
def test_an_analysis_is_a_finding_and_no_sample_that_was_left_out(probed):
    table = read_bias(probed)
    analyses = {"balance": {"summary": "balance point 0.31 nats"}}
    replace(table, settings={**table.settings, "analyses": analyses}).save(probed)
    page = kg.report(probed).read_text()
    before, _, left_out = page.partition("<summary>What was left out")
    assert "<li>balance: balance point 0.31 nats.</li>" in before
    assert "2 samples left out" in left_out
    assert "balance point" not in left_out


@pytest.mark.usefixtures("not_drawn")
def test_without_probes_the_page_has_no_such_section(run_folder):
    assert "image or the text?" not in kg.report(run_folder).read_text()


def test_attention_is_per_token_and_without_sinks(probed):
    ratio = attention_ratio(attention_rows())
    assert ratio.shape == (4, 2)
    assert ratio.loc[3, 1] == pytest.approx(4)
    assert np.allclose(ratio.to_numpy().ravel()[:-1], 1)


def test_the_chain_says_what_a_larger_answer_means(probed):
    run, files = read_run(probed), bias.read(probed)
    (one,) = (each for each in bias.drawn(run, files) if each.name == "link")
    assert f"answer: {OUTCOME}." in one.caption
    assert "Text is" not in one.caption
    assert f"answer in the links: {OUTCOME}" in bias.findings(run, files)
    assert files.link is not None
    other = replace(files, link=files.link.assign(text_roles="question, option"))
    (one,) = (each for each in bias.drawn(run, other) if each.name == "link")
    assert "Text is of the roles question, option." in one.caption
    former = replace(files, link=files.link.assign(outcome="", text_roles=""))
    (one,) = (each for each in bias.drawn(run, former) if each.name == "link")
    assert "answer:" not in one.caption


def test_conditions_are_drawn_with_their_values(probed):
    run = read_run(probed)
    (figure,) = (
        one.figure for one in bias.drawn(run, bias.read(probed)) if one.name == "conditions"
    )
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["hint: as_is", "hint: conflict", "hint: conflict_absent", "hint: agree"]
    container: Any = figure.axes[0].containers[0]
    assert list(container.lines[0].get_xdata()) == [1.0, 0.5, 0.0, 1.0]


@pytest.mark.parametrize("name", ["bias.csv", "attention.parquet", "link.csv", "bias.yaml"])
def test_a_damaged_file_is_refused_in_one_line(probed, name):
    (probed / name).write_bytes(b"")
    with pytest.raises(UserError, match=name):
        kg.report(probed)
