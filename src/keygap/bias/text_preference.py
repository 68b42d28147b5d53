"""``kg.bias.tpr``: how often answers follow the text where image and text lead to different ones.

The text preference ratio (TPR) is that of Deng et al., "Words or Vision" (arXiv 2503.02199). It
needs three answers to each question: with the image alone, with the text alone, and with both. It
knows no model, so that anybody's outputs can be scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from keygap.benchmarks.scoring import normalised
from keygap.bias.intervals import Interval, proportion
from keygap.display import as_html, between, brief
from keygap.errors import UserError


@dataclass(frozen=True)
class TextPreference:
    """Answers to image and text together, compared with the answers to each alone.

    Attributes:
        text: the answer to both is that of the text alone, and not that of the image alone.
        image: it is that of the image alone, and not that of the text alone.
        both: it is that of the image alone and of the text alone, which are equal.
        neither: it is that of neither.
        tpr: text / (text + image), with a Wilson interval; NaN if there is no such case.
        coarse: (text + both) / (text + image + both), with a Wilson interval.
    """

    text: int
    image: int
    both: int
    neither: int
    tpr: Interval
    coarse: Interval

    def _repr_html_(self) -> str:
        counts = {name: getattr(self, name) for name in ("text", "image", "both", "neither")}
        rows = [
            {
                "number": name,
                "value (95 % interval)": between(found.value, found.low, found.high),
                "n": found.n,
                **counts,
            }
            for name, found in (("tpr", self.tpr), ("coarse_tpr", self.coarse))
        ]
        caption = (
            f"Which side {sum(counts.values())} answers follow: counts, and the text preference "
            "ratio, the share of text among the answers that follow one side (coarse: answers "
            "that follow both count as text), with Wilson intervals."
        )
        return as_html(caption, pd.DataFrame(rows))

    def __repr__(self) -> str:
        return brief(
            f"TPR {self.tpr.value:.3f} ({self.tpr.low:.3f} to {self.tpr.high:.3f}), coarse TPR "
            f"{self.coarse.value:.3f} ({self.coarse.low:.3f} to {self.coarse.high:.3f}); of "
            f"{self.text + self.image + self.both + self.neither} answers {self.text} follow the "
            f"text, {self.image} the image, {self.both} both and {self.neither} neither"
        )


def tpr(
    image_only: Sequence[str],
    image_and_text: Sequence[str],
    text_only: Sequence[str],
    *,
    sample_ids: Sequence[object] | None = None,
) -> TextPreference:
    """Compute the text preference ratio of answers.

    Answers are compared in lower case, without surrounding white space and without a final dot, as
    the authors do.

    Args:
        image_only: answers to the question with the image.
        image_and_text: answers to the same questions with the image and the text.
        text_only: answers to the same questions with the text and without the image.
        sample_ids: the sample of each answer, where a sample has several; intervals are then over
            samples.

    Returns:
        The four counts, the ratio and the coarse ratio, with 95 % intervals.

    Raises:
        UserError: the lists are empty or of different lengths, or hold something that is no text.
    """
    lists = {
        "image_only": image_only,
        "image_and_text": image_and_text,
        "text_only": text_only,
    }
    image, together, text = (_checked(name, answers) for name, answers in lists.items())
    sizes = {name: len(answers) for name, answers in lists.items()}
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise UserError(f"each question needs three answers, and {said}")
    if sample_ids is not None and len(sample_ids) != len(image):
        raise UserError(f"{len(image)} answers and {len(sample_ids)} sample_ids: give one for each")
    as_image, as_text = together == image, together == text
    counted = {
        "text": as_text & ~as_image,
        "image": as_image & ~as_text,
        "both": as_image & as_text,
        "neither": ~as_image & ~as_text,
    }
    clusters = None if sample_ids is None else np.asarray(sample_ids, dtype=object)
    decided = counted["text"] | counted["image"]
    usable = decided | counted["both"]
    return TextPreference(
        **{name: int(mask.sum()) for name, mask in counted.items()},
        tpr=_share(counted["text"], decided, clusters),
        coarse=_share(counted["text"] | counted["both"], usable, clusters),
    )


def _share(hits: np.ndarray, among: np.ndarray, clusters: np.ndarray | None) -> Interval:
    return proportion(hits[among], None if clusters is None else clusters[among])


def _checked(name: str, answers: Sequence[str]) -> np.ndarray:
    if isinstance(answers, (str, bytes)):
        raise UserError(f"{name} is one text: give a list of answers")
    found = list(answers)
    if not found:
        raise UserError(f"{name} has no answers")
    for place, answer in enumerate(found):
        if not isinstance(answer, str):
            missing = answer is None or answer is pd.NA or answer != answer
            what = "missing" if missing else f"{answer!r}, which is no text"
            raise UserError(f"answer {place} of {name} is {what}: give a text for every question")
    return np.asarray([normalised(answer) for answer in found], dtype=object)
