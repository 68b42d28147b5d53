"""Many questions about one image in one sequence, for training and evaluating the embedded model.

The questions of an image share its tokens: they follow one prefix, and each of them attends only to
the prefix and to itself (a block mask, and positions that start again after the prefix). This
halves the computation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers import LlavaProcessor

from keygap.benchmarks.sources.easy_vqa import EasyVQA
from keygap.micro.checkpoint import IMAGE_TOKEN
from keygap.micro.connectors import IMAGE_TOKENS

IGNORED = -100  # label of a position that is no answer's
PREFIX, PADDING = 0, -1  # segments; questions are numbered from 1
Pairs = list[tuple[str, str]]  # questions about one image with their answers
Items = list[tuple[int, Pairs]]  # images by number with their questions


def questions_by_image(split: str) -> tuple[list[Path], dict[int, Pairs]]:
    """Return easy-VQA's image files in the order of their numbers, and each image's questions."""
    source = EasyVQA(split)
    by_image: dict[int, Pairs] = {}
    for question, answer, image in source.questions:
        by_image.setdefault(image, []).append((question, answer))
    return [source.image_paths[image] for image in sorted(source.image_paths)], by_image


@dataclass
class Pack:
    """Several questions about each image, after that image's tokens.

    Attributes:
        input_ids: tokens.
        position_ids: positions, which start again after the prefix for each question.
        mask: True where a position (third axis) may attend to another (last axis).
        labels: the next token where it is part of an answer, elsewhere ``IGNORED``.
        first: True where the next token is the first of an answer.
        image_index: number of each image.
    """

    input_ids: Int[Tensor, "images length"]
    position_ids: Int[Tensor, "images length"]
    mask: Bool[Tensor, "images 1 length length"]
    labels: Int[Tensor, "images length"]
    first: Bool[Tensor, "images length"]
    image_index: list[int]


@dataclass
class _Row:
    """One image's sequence before padding; one number for each position."""

    tokens: list[int]
    positions: list[int]
    labels: list[int]
    segments: list[int]


class Packer:
    """Turns images with their questions and answers into a ``Pack``, by the model's chat template.

    Args:
        processor: the model's processor.
        with_image: whether the prefix shows the image.
    """

    def __init__(self, processor: LlavaProcessor, with_image: bool = True) -> None:
        self.tokenizer = processor.tokenizer
        content: list[Any] = [{"type": "image"}] * with_image + [{"type": "text", "text": "\0"}]
        turn: list[Any] = [{"role": "user", "content": content}]
        template = processor.apply_chat_template(turn, add_generation_prompt=True)
        head, self.tail = template.split("\0")
        self.prefix = self.ids(head.replace(IMAGE_TOKEN, IMAGE_TOKEN * IMAGE_TOKENS))

    def ids(self, text: str) -> list[int]:
        """Tokenize a text without special tokens around it."""
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def __call__(self, items: Items) -> Pack:
        """Pack images with their questions, one sequence for each image."""
        rows = [self._row(pairs) for _, pairs in items]
        segments = _padded([row.segments for row in rows], PADDING)
        length = segments.shape[1]
        same = segments[:, :, None] == segments[:, None, :]
        of_prefix = segments[:, None, :] == PREFIX
        mask = (same | of_prefix) & torch.ones(length, length).tril().bool()
        labels = _padded([row.labels for row in rows], IGNORED)
        before = F.pad(labels, (1, 0), value=IGNORED)[:, :-1]
        return Pack(
            input_ids=_padded([row.tokens for row in rows], self.tokenizer.eos_token_id),
            position_ids=_padded([row.positions for row in rows], 0),
            mask=mask[:, None],
            labels=labels,
            first=(labels != IGNORED) & (before == IGNORED),
            image_index=[image for image, _ in items],
        )

    def _row(self, pairs: Pairs) -> _Row:
        shared = len(self.prefix)
        row = _Row(list(self.prefix), list(range(shared)), [IGNORED] * shared, [PREFIX] * shared)
        for number, (question, answer) in enumerate(pairs, start=1):
            ask = self.ids(question + self.tail)
            reply = [*self.ids(answer), self.tokenizer.eos_token_id]
            length = len(ask) + len(reply)
            row.tokens += ask + reply
            row.positions += range(shared, shared + length)
            row.labels += [IGNORED] * (len(ask) - 1) + reply + [IGNORED]
            row.segments += [number] * length
        return row


def answer_logits(
    model: Any, image_tokens: Float[Tensor, "images tokens width"] | None, pack: Pack
) -> tuple[Float[Tensor, "answer_tokens vocabulary"], Int[Tensor, " answer_tokens"]]:
    """Compute the logits of all answers' tokens.

    Args:
        model: the embedded model.
        image_tokens: the connector's output for the images of the pack; None without images.
        pack: questions and answers.

    Returns:
        Logits of the answers' tokens, and the tokens themselves.
    """
    embeddings = model.get_input_embeddings()(pack.input_ids)
    of_image = (pack.input_ids == model.config.image_token_id)[..., None]
    if image_tokens is not None:
        embeddings = embeddings.masked_scatter(of_image, image_tokens.to(embeddings.dtype))
    bias = torch.zeros(pack.mask.shape, dtype=embeddings.dtype)
    bias.masked_fill_(~pack.mask, torch.finfo(bias.dtype).min)
    hidden = model.model.language_model(
        inputs_embeds=embeddings,
        attention_mask=bias,
        position_ids=pack.position_ids,
        use_cache=False,
    ).last_hidden_state
    wanted = pack.labels != IGNORED
    return model.lm_head(hidden[wanted]).float(), pack.labels[wanted]


def _padded(rows: list[list[int]], value: int) -> Int[Tensor, "rows length"]:
    """Stack rows of different lengths, filled up with a value on the right."""
    length = max(map(len, rows))
    return torch.tensor([row + [value] * (length - len(row)) for row in rows])
