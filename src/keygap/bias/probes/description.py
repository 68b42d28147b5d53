"""Does the model believe a description more than the image?

The protocol is that of Deng et al., "Words or Vision" (arXiv 2503.02199): a description that
matches the image, that is corrupted, or that is irrelevant is given with the question, with the
image and without it. The prompt has their five parts, in keygap's words: a line that says that the
description may be wrong or irrelevant, the description, a rule, the question and a short-answer
instruction. The authors let a language model write the descriptions. Here a description is the
sample's own caption; in a corrupted one a wrong answer of the same kind replaces the right one, and
an irrelevant one is the caption of another sample.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import Any

from keygap.benchmarks import Piece, Sample
from keygap.bias.condition import (
    AS_IS,
    UNCHANGED,
    Condition,
    Probe,
    Samples,
    Unfit,
    Variant,
    right_answers,
)
from keygap.bias.probes.prompts import with_text

WARNING = "Below is a description that may help. It may also be wrong, or be about something else."
RULE = "Where the description and the image disagree, answer by the image."
INSTRUCTION = "Answer with a single word or phrase."
KINDS = ("matching", "corrupted", "irrelevant")


def description(
    *, warning: str = WARNING, rule: str = RULE, instruction: str = INSTRUCTION
) -> Probe:
    """A matching, a corrupted and an irrelevant description, with and without the image.

    Args:
        warning: the line before the description.
        rule: the line after it.
        instruction: the line after the question; not written where there are options.
    """
    words: dict[str, Any] = {"warning": warning, "rule": rule, "instruction": instruction}
    conditions = [UNCHANGED]
    for kind in KINDS:
        make = partial(described, kind=kind, **words)
        conditions += [
            Condition(kind, make, image_only=AS_IS, text_only=f"{kind}_absent"),
            Condition(f"{kind}_absent", make, pictures="absent"),
        ]
    return Probe("description", tuple(conditions), words)


def described(
    sample: Sample, samples: Samples, *, kind: str, warning: str, rule: str, instruction: str
) -> Variant:
    """The sample with a description before its question.

    Raises:
        Unfit: the sample has no caption, its caption does not name the right answer (corrupted),
            or no sample of another image has another caption (irrelevant).
    """
    caption, suggested = _caption(sample, samples, kind)
    text = f"{warning}\nDescription: {caption}\n{rule}"
    changed = with_text(sample, text, "before", "\n", "caption")
    if not sample.options:
        asked = Piece("text", "question", f"\n{instruction}")
        changed = replace(changed, prompt=(*changed.prompt, asked))
    return Variant(changed, suggested)


def _caption(sample: Sample, samples: Samples, kind: str) -> tuple[str, str | None]:
    """A description, and the answer that it suggests."""
    if not sample.caption:
        raise Unfit("the sample has no caption")
    if kind == "matching":
        return sample.caption, None if sample.answer is None else right_answers(sample)[0]
    if kind == "irrelevant":
        for other in samples.partners(sample, "description"):
            if other.caption and other.caption != sample.caption:
                return other.caption, None
        raise Unfit("no sample that shows another image has another caption")
    wrong = samples.wrong_answer(sample, "description")
    right = [re.escape(_spelled(sample, answer)) for answer in right_answers(sample)]
    right.sort(key=len, reverse=True)  # twenty-four before twenty
    word = re.compile(rf"\b(?:{'|'.join(right)})\b", re.IGNORECASE)
    if not word.search(sample.caption):
        raise Unfit("the caption does not name the right answer")
    instead = _spelled(sample, wrong)
    return word.sub(lambda _: instead, sample.caption), wrong


def _spelled(sample: Sample, answer: str) -> str:
    """The text of an answer, which is a letter where there are options."""
    return sample.options[sample.letters.index(answer)] if sample.options else answer
