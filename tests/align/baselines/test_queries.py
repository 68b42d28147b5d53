"""Chosen queries are the same whichever part of a prompt a pass covers, and for every beam."""

from __future__ import annotations

import pytest
import torch

from keygap.align.baselines.queries import Queries, Rows
from keygap.models.positions import PromptLabels, Tokens
from keygap.models.prompting.answers import with_answers
from keygap.selfcheck.samples import check_samples

from .by_hand import chosen, tiny

CPU = torch.device("cpu")
ANSWER = (5, 6, 7)


@pytest.fixture(scope="module")
def batch():
    vlm = tiny("llava")
    return with_answers(vlm.prompter(check_samples()), [ANSWER] * 2, vlm.prompter.tokenizer)


def expected(batch, name):
    """Which positions of the padded batch are chosen, prompt by prompt."""
    found = torch.zeros(batch.inputs["input_ids"].shape, dtype=torch.bool)
    for row, labels in zip(found, batch.labels, strict=True):
        if name == "current":
            row[len(labels) - len(ANSWER) - 1 : len(labels)] = True
        elif name == "all":
            row[:] = True
        else:
            row[chosen(labels, name)] = True
    return found


@pytest.mark.parametrize("name", ["current", "all", "text", "question"])
def test_parts_of_a_pass_choose_what_the_whole_does(batch, name):
    prompts, queries, whole = PromptLabels.of(batch), Queries(name), expected(batch, name)
    for start, count in (
        (0, prompts.width),
        (0, 9),
        (9, prompts.width - 9),
        (prompts.width - 4, 2),
    ):
        part = queries.among(Tokens(prompts, 2, start, count, CPU))
        assert torch.equal(part, whole[:, start : start + count])
    beams = queries.among(Tokens(prompts, 6, 3, 7, CPU))
    assert torch.equal(beams, whole[:, 3:10].repeat_interleave(3, 0))


def test_generated_tokens_are_current(batch):
    prompts = PromptLabels.of(batch)
    found = Queries("current").among(Tokens(prompts, 2, prompts.width, 2, CPU))
    assert found.all()


def test_rows_hold_each_chosen_query_once():
    mask = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 0, 0]], dtype=torch.bool)
    rows = Rows.of(mask)
    assert rows.used.tolist() == [[True, True, True], [True, False, False]]
    assert rows.places[0].tolist() == [1, 3, 4]
    assert rows.places[1].tolist()[:1] == [0]
    assert len(set(rows.places[1].tolist())) == 3
