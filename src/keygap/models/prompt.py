"""Prompts with a label on every token, for any processor.

A prompt takes the first form that the processor can make: its chat template with content in parts,
the template with content as one string, or plain text with image placeholders, for models that were
never tuned to chat. The form is settled once, on a picture of our own, so that a processor that
cannot be used says so before a benchmark is opened. See ``marks`` for how labels get through.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from keygap.benchmarks.sample import BadSample, Part, Sample, as_rgb
from keygap.errors import UserError
from keygap.models.labels import MODALITIES, ROLES, Batch, TokenLabels
from keygap.models.layout import ImageFacts, places_of
from keygap.models.marks import (
    MarkedTokenizer,
    aligned,
    marked,
    text_parts,
    with_image_marks,
    without_marks,
)

__all__ = ["MODALITIES", "ROLES", "Batch", "Prompter", "TokenLabels"]


@dataclass(frozen=True)
class ImageTokens:
    """What the model says of its image positions.

    Attributes:
        ids: token ids that vision features replace.
        placeholder: what stands for an image in a prompt's text.
        in_prompt: whether features stand in the prompt, or are attended across to from a mark.
        limit: the positions that the model knows, where it says so.
        row_ends, side, mixed: see ``ImageFacts``.
    """

    ids: tuple[int, ...]
    placeholder: str
    in_prompt: bool = True
    limit: int | None = None
    row_ends: bool = False
    side: int | None = None
    mixed: bool = False


class Prompter:
    """Samples in, labelled batches out, for one model's processor."""

    def __init__(self, processor: ProcessorMixin, image_tokens: ImageTokens) -> None:
        self.tokenizer: PreTrainedTokenizerBase = processor.tokenizer
        self.image_tokens = image_tokens
        self._processor = copy.copy(processor)  # the caller's own processor stays as it was
        self._nested = True  # images in one list for each prompt, or all in one
        self._marked = MarkedTokenizer(processor.tokenizer)
        for name, part in vars(processor).items():
            if isinstance(part, PreTrainedTokenizerBase):  # a Q-Former may have one of its own
                other = self._marked if part is processor.tokenizer else MarkedTokenizer(part)
                setattr(self._processor, name, other)

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Model inputs and labels of some samples.

        Raises:
            BadSample: one of the samples cannot be used (give them one by one to learn which).
            UserError: the processor makes no prompt of an image and a text.
        """
        parts = [self._checked(sample) for sample in samples]
        images = [
            [as_rgb(sample.images[part.image]) for part in prompt if part.kind == "image"]
            for sample, prompt in zip(samples, parts, strict=True)
        ]
        return self._batch([self._render(prompt) for prompt in parts], images)

    def _checked(self, sample: Sample) -> tuple[Part, ...]:
        if not sample.images:
            raise BadSample("the sample has no image")
        texts = [part.text for part in sample.prompt if part.kind == "text"]
        if not any(text.strip() for text in texts):
            raise BadSample("the sample has no text")
        places = [part.image for part in sample.prompt if part.kind == "image"]
        if any(place >= len(sample.images) for place in places):
            raise BadSample(
                f"the prompt names image {max(places) + 1} of {len(sample.images)} images"
            )
        if not places:
            raise BadSample("the prompt shows none of the sample's images")
        for spelling in self._reserved:
            if any(spelling in text for text in texts):
                raise BadSample(f"the text has {spelling!r}, which stands for an image")
        return sample.prompt

    @cached_property
    def _reserved(self) -> tuple[str, ...]:
        """Spellings that the processor would take for an image, a video or a sound."""
        names = ("image_token", "video_token", "audio_token")
        found = [str(getattr(self._processor, name, None) or "") for name in names]
        found += self.tokenizer.convert_ids_to_tokens(list(self.image_tokens.ids))
        return tuple(dict.fromkeys(s for s in (*found, self.image_tokens.placeholder) if s))

    # --- text -------------------------------------------------------------------------------

    def _render(self, parts: Sequence[Part]) -> str:
        """The marked text of a prompt, the same as without marks once they are taken out.

        Raises:
            BadSample: the template does something to the text that marks change.
        """
        form = self._form
        plain = form([(part, part.text) for part in parts])
        for around_space in (True, False):  # a template may trim what it is given
            texts = [
                (part, marked(part.text, part.role, around_space) if part.kind == "text" else "")
                for part in parts
            ]
            rendered = form(texts)
            if without_marks(rendered) == plain and text_parts(rendered) == sum(
                part.kind == "text" for part in parts
            ):
                return self._with_system(rendered)
        raise BadSample("the chat template changes this text, so its tokens cannot be labelled")

    @cached_property
    def _form(self) -> Callable[[Sequence[tuple[Part, str]]], str]:
        """How prompts are written, settled on a picture of one colour.

        Raises:
            UserError: no form gives image positions; says why.
        """
        forms = [self._bare, self._plain]  # what a processor adds by itself is not to be doubled
        if getattr(self._processor, "chat_template", None):
            forms = [self._chat, self._chat_string, *forms]
        parts = (Part("image"), Part("text", text="What colour?"))
        picture = Image.new("RGB", (96, 64), (200, 30, 30))
        reasons = []
        for form, self._nested in ((f, nested) for f in forms for nested in (True, False)):
            try:
                text = form(
                    [(p, marked(p.text, p.role) if p.kind == "text" else "") for p in parts]
                )
                if text_parts(text) == 1:
                    labels = self._batch([text], [[picture]]).labels[0]
                    if (labels.role == "question").any():
                        return form
                reasons.append("the text of a question did not come through")
            # any processor may object to a form in any way; the reasons are reported together
            except Exception as error:
                reasons.append(f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")
        raise UserError(
            f"{type(self._processor).__name__} makes no prompt of an image and a text: "
            + "; ".join(dict.fromkeys(reasons))
        )

    def _chat(self, texts: Sequence[tuple[Part, str]]) -> str:
        content = [
            {"type": "image"} if part.kind == "image" else {"type": "text", "text": text}
            for part, text in texts
        ]
        return self._template([{"role": "user", "content": content}])

    def _chat_string(self, texts: Sequence[tuple[Part, str]]) -> str:
        return self._template([{"role": "user", "content": self._plain(texts)}])

    def _plain(self, texts: Sequence[tuple[Part, str]]) -> str:
        return "".join(
            self.image_tokens.placeholder if part.kind == "image" else text for part, text in texts
        )

    def _bare(self, texts: Sequence[tuple[Part, str]]) -> str:
        return "".join(text for part, text in texts if part.kind == "text")

    def _template(self, messages: list[dict[str, Any]]) -> str:
        return self._processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )

    def _with_system(self, rendered: str) -> str:
        before, prompt = self._system
        if prompt and rendered.startswith(before + prompt):
            return before + marked(prompt, "system") + rendered[len(before) + len(prompt) :]
        return rendered

    @cached_property
    def _system(self) -> tuple[str, str]:
        """The system prompt that the template puts in by itself, and what stands before it.

        It is what stands where a system prompt of the user's would: both empty if there is none.
        """
        if self._form not in (self._chat, self._chat_string):
            return "", ""
        user = [(Part("text"), marked("question", "question"))]
        plain = self._form(user)
        content: Any = [{"type": "text", "text": marked("system", "system")}]
        turn = {"role": "user", "content": [{"type": "text", "text": user[0][1]}]}
        try:
            given = self._template([{"role": "system", "content": content}, turn])
        except Exception:
            return "", ""
        mark = marked("system", "system")
        before, found, after = given.partition(mark)
        if not found or not plain.startswith(before) or not plain.endswith(after):
            return "", ""
        prompt = plain[len(before) : len(plain) - len(after)]
        return (before, prompt) if prompt.strip() and text_parts(prompt) == 0 else ("", "")

    # --- model inputs and labels --------------------------------------------------------------

    def _batch(self, texts: Sequence[str], images: Sequence[list[Image.Image]]) -> Batch:
        placeholder = self.image_tokens.placeholder
        if placeholder:
            texts = [with_image_marks(text, placeholder) for text in texts]
        self._marked.calls = []
        try:
            inputs = self._processor(
                text=list(texts),
                images=[list(p) for p in images]
                if self._nested
                else [i for p in images for i in p],
                padding=True,
                return_tensors="pt",
                # templates spell their own first token
                add_special_tokens=not self._starts_with_bos(without_marks(texts[0])),
            )
        except (ValueError, IndexError, RuntimeError, ZeroDivisionError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BadSample(f"the processor refuses the sample: {first}") from error
        calls, self._marked.calls = self._marked.calls, []
        ids = inputs["input_ids"].numpy()
        mask = inputs["attention_mask"].bool().numpy()
        sizes = [[picture.size for picture in pictures] for pictures in images]
        count = sum(map(len, images))
        grids, seen = _grids(inputs, count), _sizes(inputs, count)
        per_tile = self._positions_per_tile(inputs, ids, mask)
        labels, place = [], 0
        for row, own in enumerate(sizes):
            # one call for each prompt, or pieces in no order that is known
            own_calls = calls[row : row + 1] if len(calls) == len(sizes) else calls
            roles, spans = aligned(ids[row][mask[row]], own_calls)
            facts = [
                self._facts(size, grids[place + number], seen[place + number])
                for number, size in enumerate(own)
            ]
            place += len(own)
            labels.append(self._labels(ids[row][mask[row]], roles, spans, facts, per_tile))
        return Batch(inputs, tuple(labels))

    def _starts_with_bos(self, text: str) -> bool:
        bos = self.tokenizer.bos_token
        return bos is None or text.startswith(bos)

    def _facts(
        self,
        size: tuple[int, int],
        grid: tuple[int, int, int] | None,
        pixels: tuple[int, int] | None,
    ) -> ImageFacts:
        known = self.image_tokens
        return ImageFacts(
            height=size[1],
            width=size[0],
            grid=grid,
            row_ends=known.row_ends,
            side=known.side,
            pixels=pixels,
            mixed=known.mixed,
        )

    def _positions_per_tile(self, inputs: BatchFeature, ids: Any, mask: Any) -> int | None:
        """Image positions per view, where the vision tower sees a plain stack of views."""
        pixels: Any = inputs.get("pixel_values")
        count = int((np.isin(ids, self.image_tokens.ids) & mask).sum())
        if getattr(pixels, "ndim", 0) != 4 or len(pixels) == 0 or count % len(pixels):
            return None
        return count // len(pixels)

    def _labels(
        self,
        token_id: np.ndarray,
        role: np.ndarray,
        span: np.ndarray,
        facts: Sequence[ImageFacts],
        per_tile: int | None,
    ) -> TokenLabels:
        limit = self.image_tokens.limit
        if limit and len(token_id) > limit:
            raise BadSample(
                f"the prompt has {len(token_id)} positions and the model knows {limit}: smaller or "
                "fewer images are needed"
            )
        is_image = np.isin(token_id, self.image_tokens.ids)
        image = _image_of(is_image, span, len(facts))
        if not self.image_tokens.in_prompt:
            is_image = np.zeros(len(token_id), dtype=bool)
        tokens = np.asarray(self.tokenizer.convert_ids_to_tokens(token_id.tolist()), dtype=object)
        role = np.where(is_image, "", np.where(span >= 0, "separator", role)).astype(object)
        row = np.full(len(token_id), -1, np.int32)
        column = row.copy()
        for number, known in enumerate(facts):
            positions = np.flatnonzero(is_image & (image == number))
            starts = np.flatnonzero(np.diff(positions, prepend=-2) > 1)
            runs = np.diff(np.append(starts, len(positions)))
            ends: Any = np.append(-1, positions[starts[1:] - 1]) if len(starts) else []
            between = [
                "".join(tokens[max(end + 1, _span_start(span, number)) : positions[start]])
                for start, end in zip(starts, ends, strict=True)
            ]
            if per_tile and len(positions) % per_tile == 0:
                known = ImageFacts(**{**known.__dict__, "tiles": len(positions) // per_tile})
            places = places_of([int(run) for run in runs], between, known)
            role[positions] = places.role
            row[positions], column[positions] = places.row, places.column
        return TokenLabels(
            token_id=token_id,
            token=tokens.astype(str),
            modality=np.where(is_image, "image", "text"),
            role=role.astype(str),
            image=image.astype(np.int32),
            patch_row=row,
            patch_column=column,
        )


def _span_start(span: np.ndarray, image: int) -> int:
    found = np.flatnonzero(span == image)
    return int(found[0]) if len(found) else 0


def _image_of(is_image: np.ndarray, span: np.ndarray, images: int) -> np.ndarray:
    """The image of every position, -1 outside; by marks, else by equal shares.

    Raises:
        BadSample: an image without positions, positions without an image, or no equal shares.
    """
    if (span[is_image] >= 0).all() and is_image.any():
        counts = [int((is_image & (span == number)).sum()) for number in range(images)]
        if int(span.max()) >= images or not all(counts):
            raise BadSample(
                f"{images} images, but the prompt has positions for {int(span.max()) + 1}"
            )
        return np.where(span >= 0, span, -1)
    count = int(is_image.sum())
    if count == 0 or count % images:
        raise BadSample(f"{count} image positions cannot be shared by {images} images")
    image = np.full(len(is_image), -1)
    image[is_image] = np.arange(count) // (count // images)
    return image


def _grids(inputs: BatchFeature, images: int) -> list[tuple[int, int, int] | None]:
    """Frames, rows and columns of each image's vision patches, where the processor gives them."""
    for name, value in inputs.items():
        if "video" in name or not ("grid" in name or "spatial_shapes" in name):
            continue
        array = np.asarray(value)
        if array.shape == (images, 3):
            return [(int(t), int(h), int(w)) for t, h, w in array]
        if array.shape == (images, 2):
            return [(1, int(h), int(w)) for h, w in array]
    return [None] * images


def _sizes(inputs: BatchFeature, images: int) -> list[tuple[int, int] | None]:
    """Pixel height and width of each image as the vision tower sees it, where they are given."""
    array = np.asarray(inputs.get("image_sizes", ()))
    if array.shape == (images, 2):
        return [(int(height), int(width)) for height, width in array]
    return [None] * images
