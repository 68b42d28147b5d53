"""The link of a run: which text it is of, what a larger answer means, and what is kept of it."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from keygap import defaults
from keygap.benchmarks import InMemory
from keygap.benchmarks.sample import Entry
from keygap.bias import PROBES
from keygap.bias.link_table import COLUMNS, LinkTable
from keygap.errors import UserError
from keygap.study import bias

OUTCOME = "right minus best other answer in nats; larger is surer of the right answer"


def table(roles: list[str]) -> LinkTable:
    row = {
        "layer": 0, "head": "all", "link": "separation -> answer", "measure": "spearman",
        "value": 0.5, "ci_low": 0.3, "ci_high": 0.7, "p_value": 0.01, "p_holm": 0.01,
        "found": True, "detectable": 0.4, "n_samples": 60, "outcome": OUTCOME,
        "text_roles": ", ".join(roles),
    }  # fmt: skip
    return LinkTable(pd.DataFrame([row])[list(COLUMNS)])


@pytest.fixture
def linked(vlm, easy_vqa, tmp_path, monkeypatch):
    """Links one run, again and again; returns the roles that ``link`` was asked for each time."""
    asked: list[list[str]] = []

    def link(*arguments, text_roles, **keywords):
        asked.append(list(text_roles))
        if "hint" in text_roles:
            raise UserError("there is nothing to link")
        return table(list(text_roles))

    monkeypatch.setattr(bias, "link", link)
    arguments: dict[str, Any] = {
        "attention": True, "batch_size": 2, "n_bootstraps": 2, "store": object(), "resume": True,
    }  # fmt: skip

    def run(source=None, **keywords):
        source = easy_vqa.choose(2) if source is None else source
        bias.bias_of_run(vlm, source, tmp_path, [PROBES["absent"]()], **{**arguments, **keywords})
        return asked

    return run


def test_a_run_is_linked_with_its_roles_and_again_with_others(linked, tmp_path, caplog):
    with caplog.at_level("INFO", logger="keygap"):
        assert linked() == [list(defaults.TEXT_ROLES)]
    assert f"answer: {OUTCOME}" in caplog.text
    usual = list(defaults.TEXT_ROLES)
    assert linked(text_roles=usual) == [usual]  # kept
    both = ["question", "option"]
    assert linked(text_roles=both) == [usual, both]
    assert pd.read_csv(tmp_path / "link.csv")["text_roles"].tolist() == ["question, option"]
    assert linked(text_roles=both[::-1]) == [usual, both]  # the same text


def test_a_link_of_other_roles_is_not_left_where_there_is_none(linked, tmp_path):
    linked()
    assert (tmp_path / "link.csv").exists()
    linked(text_roles=["hint"])
    assert not (tmp_path / "link.csv").exists()


def test_samples_of_one_image_are_said_to_share_it(linked, easy_vqa, caplog):
    chosen = easy_vqa.choose(3)
    samples = [chosen.sample(number) for number in range(3)]

    class Shared(InMemory):
        answers = easy_vqa.answers

        def index(self):
            keys = ("a", "b", "a")
            return [Entry(s.id, s.subject, key) for s, key in zip(samples, keys, strict=True)]

    said = "samples show only"
    with caplog.at_level("INFO", logger="keygap"):
        linked(attention=False)
        assert said not in caplog.text
        linked(Shared("easy-vqa", samples).choose(), attention=False)
    assert f"3 {said} 2 images and count as independent: intervals may be too narrow" in caplog.text
