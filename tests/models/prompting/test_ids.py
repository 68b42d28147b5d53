"""Ids with labels equal those of the processor called directly, in all families of the zoo."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keygap.benchmarks import BadSample, Piece, Sample
from keygap.models.load import wrap

from ..zoo import BY_FAMILY, ZOO

FAST = [entry.family for entry in ZOO if not entry.slow]
SLOW = [entry.family for entry in ZOO if entry.slow]
BARE = {"blip-2", "instructblip", "florence2", "kosmos-2", "kosmos-2.5"}  # no placeholder in text
BOS = "{{ bos_token }}"
LONG = " ".join(
    ["Wie heißt das? 这是什么颜色？ Какого цвета? ما هذا؟ 🟥 naïve", "What  colour\n\nis\tit?"] * 12
)
ONE = BARE | {"perception_lm"}  # a prompt has one image, or images of one size
FLAT = {"got_ocr2"}  # its processor takes no images in lists for each prompt


def picture(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(width)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def asked(several: bool) -> list[Sample]:
    """One image; two of different size with text between them, where there can be; a long text."""

    def sample(name: str, images: tuple[Image.Image, ...], *pieces: Piece) -> Sample:
        return Sample(name, images, "q", pieces)

    one = sample("one", (picture(64, 48),), Piece("image"), Piece("text", text="What colour?"))
    two = sample(
        "two",
        (picture(64, 48), picture(90, 33)),
        Piece("text", text="First "),
        Piece("image"),
        Piece("text", text=" then\n"),
        Piece("image", image=1),
        Piece("text", text="\nWhich is red?\n"),
        Piece("text", "option", "A. this\n"),
        Piece("text", "option", "B. that"),
    )
    long = sample(
        "long",
        (picture(48, 64),),
        Piece("image"),
        Piece("text", "hint", LONG + "\n"),
        Piece("text", text="Which one?"),
    )
    return [one, two if several else replace(one, id="again", prompt=one.prompt[:2]), long]


def direct(processor, sample: Sample, family: str) -> list[int]:
    """What a user gets who calls the processor."""
    images = [sample.images[piece.image] for piece in sample.prompt if piece.kind == "image"]
    if processor.chat_template:
        content: list[dict[str, Any]] = [
            {"type": "image", "image": sample.images[piece.image]}
            if piece.kind == "image"
            else {"type": "text", "text": piece.text}
            for piece in sample.prompt
        ]
        messages = [{"role": "user", "content": content}]
        if family in FLAT:
            text = processor.apply_chat_template(messages, add_generation_prompt=True)
            bos = {"add_special_tokens": False} if text.startswith("<s>") else {}
            made = processor(text=[text], images=images, return_tensors="pt", **bos)
        else:
            made = processor.apply_chat_template(
                [messages],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        return made["input_ids"][0].tolist()
    placeholder = "" if family in BARE else "<image>"
    text = "".join(placeholder if piece.kind == "image" else piece.text for piece in sample.prompt)
    return processor(text=[text], images=[images], return_tensors="pt")["input_ids"][0].tolist()


def assert_same_ids(family: str) -> None:
    entry = BY_FAMILY[family]
    model, processor = entry.build()
    template = processor.chat_template
    bare = template and template.removeprefix(BOS)
    for own in [bare, BOS + bare] if template else [template]:
        processor.chat_template = own
        untouched = copy.deepcopy(processor)
        samples = asked(entry.images and family not in ONE)
        batch = wrap(model, processor, name=f"tiny {family}").prompter(samples)
        mask = batch.inputs["attention_mask"].bool()
        for row, (sample, labels) in enumerate(zip(samples, batch.labels, strict=True)):
            expected = direct(untouched, sample, family)
            assert batch.inputs["input_ids"][row][mask[row]].tolist() == expected, sample.id
            assert labels.token_id.tolist() == expected, sample.id
            roles = [piece.role for piece in sample.prompt if piece.kind == "text"]
            found = [role for role in labels.role if role in ("hint", "question", "option")]
            assert list(dict.fromkeys(found)) == list(dict.fromkeys(roles)), sample.id


@pytest.mark.parametrize("family", FAST)
def test_ids_are_those_of_the_processor(family):
    assert_same_ids(family)


@pytest.mark.slow
@pytest.mark.parametrize("family", SLOW)
def test_ids_are_those_of_the_processor_in_further_families(family):
    assert_same_ids(family)


@pytest.mark.parametrize("family", ["florence2", "blip-2"])
def test_a_processor_that_puts_images_first_refuses_another_order(family):
    vlm = wrap(*BY_FAMILY[family].build(), name="tiny")
    sample = asked(True)[1]
    prompt = (Piece("text", text="Look: "), Piece("image"), Piece("text", text="Which?"))
    with pytest.raises(BadSample, match="puts images before all text"):
        vlm.prompter([replace(sample, prompt=prompt)])
