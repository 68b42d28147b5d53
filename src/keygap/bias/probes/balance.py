"""Where do image and text weigh the same?

A model follows the text more often the less certain the image alone leaves it and the more certain
the text alone does (arXiv 2511.02243). Both certainties are varied here: noise covers more and more
of the image, and hints are worded more and less firmly. ``keygap.bias.balance_point`` fits the
probability of following the text against the difference of the two unimodal entropies; the
difference at which it is one half is the balance point, the model's own preference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from keygap.benchmarks import Sample
from keygap.bias.balance import balance_of
from keygap.bias.condition import UNCHANGED, Condition, Probe, Samples, Variant
from keygap.bias.probes.hint import hinted
from keygap.bias.probes.noise import checked_levels, noisy
from keygap.bias.probes.prompts import HINTS, checked_phrasings

FIRM_AND_WEAK = (HINTS[1], "The answer may be {answer}, but nobody knows.")


def balance(
    *, levels: Sequence[float] = (0.5, 0.75, 1.0), phrasings: Sequence[str] = FIRM_AND_WEAK
) -> Probe:
    """Hints of different firmness, with images under different amounts of noise.

    Args:
        levels: shares of noise, above 0 and at most 1; the image without noise is added.
        phrasings: texts that contain ``{answer}`` once.

    Raises:
        UserError: a setting that does not exist.
    """
    shares, texts = checked_levels(levels), checked_phrasings(phrasings)
    conditions = [UNCHANGED]
    conditions += [Condition(f"image_{level:g}", partial(noisy, level=level)) for level in shares]
    for number, text in enumerate(texts):
        alone = f"text_{number}"
        make = partial(hinted, text=text, position="after", separator="\n", right=False)
        conditions.append(Condition(alone, make, pictures="absent"))
        conditions.append(
            Condition("together", make, f"0 {number}", image_only="as_is", text_only=alone)
        )
        conditions += [
            Condition(
                "together",
                partial(_hinted_and_noisy, text=text, level=level),
                f"{level:g} {number}",
                image_only=f"image_{level:g}",
                text_only=alone,
            )
            for level in shares
        ]
    settings = {"levels": shares, "phrasings": texts}
    return Probe("balance", tuple(conditions), settings, balance_of)


def _hinted_and_noisy(sample: Sample, samples: Samples, *, text: str, level: float) -> Variant:
    variant = hinted(sample, samples, text=text, position="after", separator="\n", right=False)
    covered = noisy(variant.sample, samples, level=level).sample
    return replace(variant, sample=covered)
