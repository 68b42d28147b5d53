"""Scoring reads next-token answers from decided logits, and leaves others out with a reason."""

from __future__ import annotations

import math

import pytest
import torch

from keygap.bias.scoring import score
from keygap.models.interventions import Intervention
from keygap.models.load import wrap
from keygap.selfcheck.samples import check_samples
from models.zoo import BY_FAMILY

CITIES = ("New York", "New Delhi")


class Forced(Intervention):
    """Gives next-token logits that a test chose, and notes what it was told."""

    name, layers, sites = "forced", (), ()

    def __init__(self, change):
        self.change_logits, self.told = change, []

    def decide(self, vlm, samples, batch, logits):
        self.told.append(([sample.id for sample in samples], len(batch.labels), logits.shape))
        return self.change_logits(logits)


@pytest.fixture(scope="module")
def vlm():
    return wrap(*BY_FAMILY["llava"].build(), name="tiny llava")


def test_answers_are_read_from_the_decided_logits(vlm):
    samples = check_samples()
    plain, _ = score(vlm, samples, [("A", "B")] * 2)
    forced = Forced(lambda logits: logits * 3)
    with vlm.interventions.applied(forced):
        found, left_out = score(vlm, samples, [("A", "B")] * 2)
        with vlm.interventions.suspended():
            assert score(vlm, samples, [("A", "B")] * 2) == (plain, {})
    assert not left_out
    assert forced.told == [(["0", "1"], 2, (2, vlm.model.config.text_config.vocab_size))]
    batch = vlm.prompter(samples[:1])
    with torch.no_grad():
        own = (vlm.forward(batch).logits[0, -1] * 3).log_softmax(-1)
    tokenizer = vlm.processor.tokenizer
    ids = {tokenizer(text, add_special_tokens=False).input_ids[-1] for text in ("A", " A")}
    assert found[0].log_probability["A"] == pytest.approx(
        math.log(sum(math.exp(float(own[one])) for one in ids)), abs=1e-4
    )


def test_answers_of_several_tokens_are_left_out_with_the_reason(vlm):
    samples = [*check_samples(), *check_samples()[:1]]
    samples[2] = type(samples[2])(**{**vars(samples[2]), "id": "open"})
    asked = [("A", "B"), CITIES, ()]
    before, _ = score(vlm, samples, asked, max_new_tokens=2)
    assert len(before) == 3
    with vlm.interventions.applied(Forced(lambda logits: logits)):
        found, left_out = score(vlm, samples, asked, max_new_tokens=2)
    assert [one.sample_id for one in found] == ["0"]
    assert set(left_out) == {"1", "open"}
    assert all("can be had under forced" in reason for reason in left_out.values())


def test_a_sample_whose_answers_are_all_ruled_out_is_left_out(vlm):
    def rule_out(logits):
        logits = logits.clone()
        logits[1, 1:] = -math.inf
        return logits

    with vlm.interventions.applied(Forced(rule_out)):
        found, left_out = score(vlm, check_samples(), [("A", "B")] * 2)
    assert [one.sample_id for one in found] == ["0"]
    assert "likely enough" in left_out["1"]
