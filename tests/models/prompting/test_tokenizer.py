"""A tokenizer that reads marks gives the ids of the text without them."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from keygap.models.prompting.marks import (
    marked,
    with_image_marks,
    without_marks,
)
from keygap.models.prompting.tokenizer import Marked, MarkedTokenizer, aligned, recorded

from ..offline import tokenizer_with


@pytest.fixture(scope="module")
def plain() -> PreTrainedTokenizerFast:
    return tokenizer_with({"image_token": "<image>"})


def test_ids_are_those_of_the_text_without_marks(plain):
    text = f"user {marked('What colour?', 'question')}{marked(' A. red', 'option')}"
    tokenizer = MarkedTokenizer(plain)
    assert tokenizer(text)["input_ids"] == plain("user What colour? A. red")["input_ids"]
    assert tokenizer.encode(text) == plain.encode("user What colour? A. red")


def test_roles_and_images_of_a_padded_batch(plain):
    texts = [
        marked("red", "question"),
        with_image_marks("<image>", ["<image>"]) + marked("Is it red or blue?", "question"),
    ]
    with recorded() as tokenized:
        MarkedTokenizer(plain)(texts, padding=True, return_tensors="pt")
    for one, text in zip(tokenized, texts, strict=True):
        assert one.ids.tolist() == plain(without_marks(text))["input_ids"]
    image = plain.convert_tokens_to_ids("<image>")
    short, long = tokenized
    assert short.roles.tolist() == ["template", *["question"] * (len(short.ids) - 1)]
    assert long.images.tolist() == [0 if one == image else -1 for one in long.ids]
    assert (long.roles[2:] == "question").all()


def test_records_belong_to_their_block(plain):
    tokenizer = MarkedTokenizer(plain)
    with recorded() as outer:
        tokenizer("red")
        with recorded() as inner:
            tokenizer("blue")
        tokenizer("green")
    tokenizer("black")
    assert [len(outer), len(inner)] == [2, 1]


def test_the_wrapped_tokenizer_is_not_changed(plain):
    plain.padding_side = "left"
    try:
        MarkedTokenizer(plain)(["red", "blue or green"], padding=True)
        assert plain.padding_side == "left"
    finally:
        plain.padding_side = "right"


def test_texts_are_placed_the_longest_first_and_once_each():
    def text(ids, role):
        size = len(ids)
        roles, images = np.array([role] * size), np.full(size, -1)
        return Marked(np.array(ids), roles, images, np.zeros(size, dtype=bool))

    ids = np.array([9, 1, 2, 1, 2, 3, 9])
    roles, _ = aligned(ids, [text([1, 2], "hint"), text([1, 2, 3], "question")], ids < 0)
    assert roles.tolist() == ["template", "hint", "hint", *["question"] * 3, "template"]


def test_characters_of_the_given_text_are_found_in_the_tokens(plain):
    text = with_image_marks(f"{marked('What?', 'hint')}<image>", ["<image>"])
    encoded = MarkedTokenizer(plain)([text, marked("red", "hint")], padding=True)
    token = encoded.char_to_token(0, text.index("<image>"))
    assert encoded["input_ids"][0][token] == plain.convert_tokens_to_ids("<image>")
    assert encoded.char_to_token(0, text.index(">")) == token
