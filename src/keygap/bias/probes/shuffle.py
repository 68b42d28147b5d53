"""How much of the answer comes from the image and how much from the question?

Images and questions are shuffled across samples (arXiv 2509.23499), because a blank image is
unlike anything that a model was trained on. ``as_is`` is the true pair, ``image_only`` has the true
image and the question of another sample, ``text_only`` the true question and the image of another
sample, and ``neither`` has both from other samples. All are scored against the answer of the true
pair, among the candidates of the true question.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from keygap.benchmarks import Sample
from keygap.bias.condition import Condition, Probe, Samples, Unfit, Variant
from keygap.bias.condition import as_is as unchanged
from keygap.bias.probes.prompts import decoded_images, with_images


def shuffle() -> Probe:
    """Images and questions of other samples, so that one of them or both say nothing."""
    changed = partial(shuffled, image=True, question=False)
    return Probe(
        "shuffle",
        (
            Condition("as_is", unchanged, image_only="image_only", text_only="text_only"),
            Condition("image_only", partial(shuffled, image=False, question=True)),
            Condition("text_only", changed),
            Condition("neither", partial(shuffled, image=True, question=True)),
        ),
    )


def shuffled(sample: Sample, samples: Samples, *, image: bool, question: bool) -> Variant:
    """The sample with the image of another sample, the question of another one, or both.

    Options stay, because they are what is chosen among.

    Raises:
        Unfit: no other sample shows another image or asks another question, the sample shows a
            video, or its prompt has no question.
        BadSample: an image of the sample cannot be decoded.
    """
    changed = sample
    if image:
        decoded_images(sample)  # refuses a video
    if question:
        changed = _with_question(changed, samples.other_question(sample, "question"))
    if image:
        other = samples.partner(sample, "image")
        changed = with_images(changed, other.images[: len(sample.images)])
    return Variant(changed)


def _with_question(sample: Sample, question: str) -> Sample:
    """The sample with another one's question in place of its own.

    Images in the question divide it into pieces. The first one that has words gets the new
    question. The others lose their words and keep the white space around them, such as the line
    break before the options.
    """
    pieces = list(sample.prompt)
    places = [
        number
        for number, piece in enumerate(pieces)
        if piece.kind == "text" and piece.role == "question" and piece.text.strip()
    ]
    if not places:
        raise Unfit("the prompt has no question")
    for number in places:
        own = pieces[number].text
        before, _, after = own.partition(own.strip())
        words = question if number == places[0] else ""
        pieces[number] = replace(pieces[number], text=before + words + after)
    kept = tuple(piece for piece in pieces if piece.kind != "text" or piece.text)
    return replace(sample, question=question, prompt=kept)
