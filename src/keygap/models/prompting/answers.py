"""Answers after their prompts, so that one pass gives the likelihood of every token of them.

The likelihood of an answer is that of its tokens after the tokens of the prompt, as generation
would choose them. So an answer is tokenized apart from its prompt: in one text a tokenizer may join
the end of the prompt with the beginning of the answer, and the joined tokens are not those that the
model continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase

from keygap.models.batch import Batch
from keygap.models.prompting.image_inputs import POSITION_MASK
from keygap.tokens import TokenLabels

# Model inputs with a value for each position of the prompt, by the end of their names.
_BY_POSITION = ("input_ids", "attention_mask", "token_type_ids", "labels", POSITION_MASK)
_OF_IMAGES = ("qformer", "pixel")
_NO_LOSS = -100


def with_answers(
    batch: Batch, answers: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase
) -> Batch:
    """A batch in which each prompt is followed by the tokens of an answer.

    Args:
        batch: prompts, padded on the right.
        answers: token ids for each prompt.
        tokenizer: the model's tokenizer.
    """
    rows, width = batch.inputs["input_ids"].shape
    lengths = [len(labels) for labels in batch.labels]
    ends = [length + len(ids) for length, ids in zip(lengths, answers, strict=True)]
    wider = max(*ends, width)
    made: dict[str, Any] = {}
    for name, value in batch.inputs.items():
        if not _is_by_position(name, value, rows, width):
            made[name] = value
            continue
        longer = _padded(name, value, wider, tokenizer)
        for row, (start, end, ids) in enumerate(zip(lengths, ends, answers, strict=True)):
            if end > start:
                longer[row, start:end] = _of_answer(name, value[row], start, ids, batch)
        made[name] = longer
    labels = [
        _with_answer(own, ids, tokenizer) for own, ids in zip(batch.labels, answers, strict=True)
    ]
    return replace(batch, inputs=BatchFeature(made), labels=tuple(labels), answered=True)


def _is_by_position(name: str, value: Any, rows: int, width: int) -> bool:
    """Whether a model input has a value for each position of each prompt."""
    if not torch.is_tensor(value) or value.shape[:2] != (rows, width):
        return False
    return name.endswith(_BY_POSITION) and not name.startswith(_OF_IMAGES)


def _padded(name: str, value: Tensor, width: int, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """A model input with padding up to a width."""
    fill = 0
    if name == "input_ids":
        pad = tokenizer.pad_token_id
        fill = 0 if pad is None else int(pad)
    elif name == "labels":
        fill = _NO_LOSS
    more = value.new_full((value.shape[0], width - value.shape[1], *value.shape[2:]), fill)
    return torch.cat([value, more], dim=1)


def _of_answer(
    name: str, prompt: Tensor, length: int, ids: Sequence[int], batch: Batch
) -> Tensor | int:
    """The values of a model input at the positions of one answer."""
    if name == "input_ids":
        return prompt.new_tensor(ids)
    if name == "attention_mask":
        return 1
    if name == "labels":
        return _NO_LOSS
    if name == "cross_attention_mask":  # an answer sees the images that the end of its prompt sees
        return prompt[length - 1]
    # a processor that writes the labels of a loss tells the prompt (0), which may read ahead in
    # itself, from the text that follows (1), which may not
    return int(name == "token_type_ids" and "labels" in batch.inputs)


def _with_answer(
    labels: TokenLabels, ids: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> TokenLabels:
    """The labels of a prompt and of the answer that follows."""
    count = len(ids)
    none = np.full(count, -1, np.int32)
    added: dict[str, Any] = {
        "token_id": np.asarray(ids, dtype=labels.token_id.dtype),
        "token": np.asarray(tokenizer.convert_ids_to_tokens(list(ids)), dtype=str),
        "modality": np.full(count, "text"),
        "role": np.full(count, "answer"),
    }
    longer: dict[str, Any] = {
        name: np.concatenate([value, added.get(name, none)])
        for name, value in vars(labels).items()
        if name != "grids"
    }
    return replace(labels, **longer)
