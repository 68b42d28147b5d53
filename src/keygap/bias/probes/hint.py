"""Does the model follow a hint that names an answer, and what does a right one add?

``conflict`` names a wrong answer of the same kind, ``agree`` the right one, and ``conflict_absent``
is the conflicting prompt without the image, whose answers are those to the text alone. Phrasing,
position and separator move the result more than many interventions do, so several are asked and
the spread over them is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

from keygap.benchmarks import Sample
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
from keygap.bias.probes.prompts import (
    HINTS,
    POSITIONS,
    SEPARATORS,
    checked_names,
    checked_phrasings,
    with_text,
)


def hint(
    *,
    phrasings: Sequence[str] = HINTS,
    positions: Sequence[str] = POSITIONS,
    separators: Sequence[str] = ("newline",),
) -> Probe:
    """Hints that name a wrong or the right answer, in several phrasings and positions.

    Args:
        phrasings: texts that contain ``{answer}`` once.
        positions: ``before`` the question, ``after`` the prompt, or both.
        separators: ``space``, ``newline``, or both: what is between the hint and the prompt.

    Raises:
        UserError: a setting that does not exist.
    """
    texts = checked_phrasings(phrasings)
    places = checked_names(positions, POSITIONS, "positions")
    between = checked_names(separators, tuple(SEPARATORS), "separators")
    conditions = [UNCHANGED]
    for (number, text), place, separator in product(enumerate(texts), places, between):
        make = partial(hinted, text=text, position=place, separator=SEPARATORS[separator])
        variant = f"{number} {place} {separator}"
        wrong = partial(make, right=False)
        conditions += [
            Condition("conflict", wrong, variant, image_only=AS_IS, text_only="conflict_absent"),
            Condition("conflict_absent", wrong, variant, pictures="absent"),
            Condition("agree", partial(make, right=True), variant),
        ]
    settings = {"phrasings": texts, "positions": places, "separators": between}
    return Probe("hint", tuple(conditions), settings)


def hinted(
    sample: Sample, samples: Samples, *, text: str, position: Any, separator: str, right: bool
) -> Variant:
    """The sample with a hint.

    Args:
        sample: the sample.
        samples: the samples of the probe.
        text: the phrasing.
        position: ``before`` or ``after``.
        separator: what is between the hint and the prompt.
        right: whether the hint names the right answer. Every phrasing names the same wrong one.

    Raises:
        Unfit: the sample has no published answer, or no wrong one of the same kind.
    """
    if sample.answer is None:
        raise Unfit("the right answer is not published")
    answer = right_answers(sample)[0] if right else samples.wrong_answer(sample, "hint")
    said = text.replace("{answer}", answer)
    return Variant(with_text(sample, said, position, separator), answer)
