"""Many questions about one image in one sequence, for training and scoring the embedded model.

The questions of one image share its tokens: they stand side by side behind one prefix, each seeing
the prefix and itself alone (a block mask, positions that restart). That halves what is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import LlavaProcessor

from keygap.micro.checkpoint import IMAGE_TOKEN
from keygap.micro.connectors import IMAGE_TOKENS

IGNORED = -100


def questions_by_image(split: str) -> tuple[list[Path], dict[int, list[tuple[str, str]]]]:
    """easy-VQA's image files in the order of their numbers, and each image's questions."""
    import easy_vqa

    paths = getattr(easy_vqa, f"get_{split}_image_paths")()
    by_image: dict[int, list[tuple[str, str]]] = {}
    for question, answer, image in zip(*getattr(easy_vqa, f"get_{split}_questions")(), strict=True):
        by_image.setdefault(image, []).append((question, answer))
    return [Path(paths[image]) for image in sorted(paths)], by_image


@dataclass
class Pack:
    """Several questions about each image, side by side behind that image's tokens."""

    input_ids: torch.Tensor  # (images, length)
    position_ids: torch.Tensor  # (images, length)
    mask: torch.Tensor  # (images, 1, length, length), True where a position may look
    labels: torch.Tensor  # (images, length), the next token where it is part of an answer
    first: torch.Tensor  # (images, length), True where the next token is an answer's first
    image_index: list[int]


class Packer:
    """Turns (image, [(question, answer)]) into a Pack, with the model's own chat template."""

    def __init__(self, processor: LlavaProcessor, with_image: bool = True) -> None:
        self.tokenizer = processor.tokenizer
        content: list[Any] = [{"type": "image"}] * with_image + [{"type": "text", "text": "\0"}]
        turn: list[Any] = [{"role": "user", "content": content}]
        template = processor.apply_chat_template(turn, add_generation_prompt=True)
        head, self.tail = template.split("\0")
        self.prefix = self.ids(head.replace(IMAGE_TOKEN, IMAGE_TOKEN * IMAGE_TOKENS))

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def __call__(self, items: list[tuple[int, list[tuple[str, str]]]]) -> Pack:
        rows: list[tuple[list[int], ...]] = []
        for _, pairs in items:
            shared = len(self.prefix)
            tokens, segment = list(self.prefix), [0] * shared
            positions, targets = list(range(shared)), [IGNORED] * shared
            for number, (question, answer) in enumerate(pairs, start=1):
                ask = self.ids(question + self.tail)
                reply = [*self.ids(answer), self.tokenizer.eos_token_id]
                length = len(ask) + len(reply)
                tokens += ask + reply
                positions += range(shared, shared + length)
                targets += [IGNORED] * (len(ask) - 1) + reply + [IGNORED]
                segment += [number] * length
            rows.append((tokens, positions, targets, segment))
        width = max(len(row[0]) for row in rows)

        def padded(column: int, value: int) -> torch.Tensor:
            return torch.tensor(
                [row[column] + [value] * (width - len(row[column])) for row in rows]
            )

        part = padded(3, -1)
        same = part[:, :, None] == part[:, None, :]
        mask = (same | (part[:, None, :] == 0)) & torch.ones(width, width).tril().bool()
        labels = padded(2, IGNORED)
        before = F.pad(labels, (1, 0), value=IGNORED)[:, :-1]
        first = (labels != IGNORED) & (before == IGNORED)
        index = [image for image, _ in items]
        end = self.tokenizer.eos_token_id
        return Pack(padded(0, end), padded(1, 0), mask[:, None], labels, first, index)


def answer_logits(
    model: Any, image_tokens: torch.Tensor | None, pack: Pack
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (answers' tokens, vocabulary) and their labels."""
    embeddings = model.get_input_embeddings()(pack.input_ids)
    place = (pack.input_ids == model.config.image_token_id)[..., None]
    if image_tokens is not None:
        embeddings = embeddings.masked_scatter(place, image_tokens.to(embeddings.dtype))
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
