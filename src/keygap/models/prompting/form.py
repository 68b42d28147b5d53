"""The form of one model's prompts: how they are written, and how the processor is called.

A form is immutable. Which form a model takes is found once (``Prompter.form``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin

from keygap.benchmarks.sample import BadSample, Piece
from keygap.models.batch import Batch
from keygap.models.patches.charts import Charts
from keygap.models.patches.layout import ImageFacts
from keygap.models.prompting.facts import Shown, facts_of
from keygap.models.prompting.image_inputs import ImageTokens, image_positions, is_pixels
from keygap.models.prompting.labelling import (
    VideoFacts,
    in_order,
    label_prompt,
    written_order,
)
from keygap.models.prompting.marks import with_image_marks, without_marks
from keygap.models.prompting.own_ids import (
    REFUSALS,
    OwnCall,
    refuse_other_ids,
    without_padding,
)
from keygap.models.prompting.processing import pixels_once, reuse
from keygap.models.prompting.template import Template
from keygap.models.prompting.tokenizer import TOKENIZING, Marked, aligned, recorded
from keygap.text import LONGEST, first_line
from keygap.tokens import TokenLabels

_REFUSALS = (ValueError, IndexError, RuntimeError, ZeroDivisionError, OSError)


@dataclass(frozen=True)
class Form:
    """How prompts are written for one model, and how its processor is called.

    Attributes:
        template: writes the text of a prompt.
        processor: the model's processor as ``processing.prepared`` gives it.
        image_tokens: what the model reports about image positions.
        image_marks: whether placeholders are enclosed in marks. Some processors depend on what
            is next to a placeholder.
        nested: whether images are given in one list for each prompt, or all in one list.
        own: calls the processor as its users do, to compare ids with.
    """

    template: Template
    processor: ProcessorMixin = field(repr=False)
    image_tokens: ImageTokens
    image_marks: bool
    nested: bool
    own: OwnCall = field(repr=False)

    @cached_property
    def charts(self) -> Charts:
        """How the processor cuts images, by their size."""
        return Charts(self._of_equal_images)

    def batch(self, prompts: Sequence[Sequence[Piece]], shown: Sequence[Sequence[Shown]]) -> Batch:
        """Model inputs of some prompts, and the label of every token.

        Args:
            prompts: the pieces of each prompt.
            shown: images and videos of each prompt.

        Raises:
            BadSample: the template or the processor refuses a prompt, or its tokens cannot be
                labelled.
        """
        plain = [self.template.render(prompt) for prompt in prompts]
        marked = [self.template.render_marked(prompt) for prompt in prompts]
        try:
            inputs, tokenized = self._processed(prompts, plain, marked, shown)
        except BadSample:
            raise
        except _REFUSALS as error:
            said = first_line(error, LONGEST)
            raise BadSample(f"the processor refuses the sample: {said}") from error
        known = self.image_tokens
        ids = inputs["input_ids"].numpy()
        mask = inputs["attention_mask"].bool().numpy()
        is_visual = image_positions(inputs, ids, (*known.ids, *known.video_ids))
        facts = facts_of(inputs, shown, known, self.charts, int((is_visual & mask).sum()))
        labels = []
        for row, (own, text) in enumerate(zip(facts, plain, strict=True)):
            # one text for each prompt, or several in an order that is not known
            texts_of_row = tokenized[row : row + 1] if len(tokenized) == len(facts) else tokenized
            here = mask[row]
            order = written_order(text, own, known)
            ordered = [own[number] for number in order]
            found = self._labels(ids[row][here], is_visual[row][here], texts_of_row, ordered)
            labels.append(in_order(found, order))
        return Batch(inputs, tuple(labels))

    def _processed(
        self,
        prompts: Sequence[Sequence[Piece]],
        plain: Sequence[str],
        marked: Sequence[str],
        shown: Sequence[Sequence[Shown]],
    ) -> tuple[BatchFeature, list[Marked]]:
        """Model inputs of the plain texts, and what the marked texts say about the same ids.

        Image marks are left out where the processor makes other ids with them.

        Raises:
            BadSample: the ids differ with and without marks, or from the processor's own.
        """
        with pixels_once() as pixels:
            inputs = self.inputs(plain, shown)
            reuse(pixels)
            self._refuse_other_ids(inputs, prompts, plain, shown)
            for image_marks in dict.fromkeys((self.image_marks, False)):
                reuse(pixels)
                with recorded() as tokenized:
                    other = self.inputs(self._with_image_marks(marked, image_marks), shown)
                if _same_ids(inputs, other):
                    return inputs, tokenized
        raise BadSample(
            "the processor makes other tokens where roles are marked, so they cannot be labelled"
        )

    def _refuse_other_ids(
        self,
        inputs: BatchFeature,
        prompts: Sequence[Sequence[Piece]],
        plain: Sequence[str],
        shown: Sequence[Sequence[Shown]],
    ) -> None:
        """Compare ids with those that the processor makes of the same messages.

        Raises:
            BadSample: they differ.
        """
        same = [self.own.comparable(prompt) for prompt in prompts]
        if not any(same):
            return
        films = any(not isinstance(one, Image.Image) for images in shown for one in images)
        if self.own_call_refused or films:
            called = replace(self, processor=self.own.processor)
            with TOKENIZING:
                own = without_padding(called.inputs(plain, shown))
        else:
            own = self.own.ids(prompts, shown)
        made = without_padding(inputs)
        refuse_other_ids(
            [ids for ids, kept in zip(made, same, strict=True) if kept],
            [ids for ids, kept in zip(own, same, strict=True) if kept],
        )

    @cached_property
    def own_call_refused(self) -> str:
        """Why the processor's own ``apply_chat_template`` makes no ids; empty if it does.

        The processor is then called with the rendered text.
        """
        if self.template.style != "chat":
            return "the prompt is not a list of pieces"
        probe = (Piece("image"), Piece("text", text="What colour?"))
        try:
            with pixels_once():  # apart from those of the prompt at hand
                self.own.ids([probe], [[Image.new("RGB", (96, 64), (200, 30, 30))]])
        except REFUSALS as error:
            return f"{type(error).__name__}: {first_line(error)}"
        return ""

    def _with_image_marks(self, texts: Sequence[str], wanted: bool) -> list[str]:
        known = self.image_tokens
        placeholders = (known.placeholder, known.video_placeholder) if wanted else ()
        return [with_image_marks(text, placeholders) for text in texts]

    def image_marks_keep_ids(self, prompt: Sequence[Piece], shown: Sequence[Shown]) -> bool:
        """Whether the processor makes the same ids of a prompt with and without image marks."""
        marked = self._with_image_marks([self.template.render(prompt)], True)
        with pixels_once() as pixels:
            inputs = self.inputs([self.template.render(prompt)], [shown])
            reuse(pixels)
            return _same_ids(inputs, self.inputs(marked, [shown]))

    def _labels(
        self,
        ids: np.ndarray,
        visual: np.ndarray,
        tokenized: Sequence[Marked],
        facts: Sequence[ImageFacts | VideoFacts],
    ) -> TokenLabels:
        """Labels of one prompt, padding left out."""
        known = self.image_tokens
        if known.limit and len(ids) > known.limit:
            raise BadSample(
                f"the prompt has {len(ids)} positions and the model knows {known.limit}: "
                "smaller or fewer images are needed"
            )
        tokenizer = self.processor.tokenizer
        tokens = tokenizer.convert_ids_to_tokens(ids.tolist())
        for text in tokenized:
            if text.special.any():
                (found, *_) = tokenizer.convert_ids_to_tokens(text.ids[text.special].tolist())
                raise BadSample(
                    f"the text spells {found!r}, which the tokenizer reads as a special token"
                )
        roles, spans = aligned(ids, tokenized, ignore=visual)
        # a processor may put the first token of the text after the image, between its marks
        spans[(ids == tokenizer.bos_token_id) & ~visual] = -1
        labels = label_prompt(ids, tokens, visual, roles, spans, facts, known.in_prompt)
        of_videos = [one for one in known.video_ids if one not in known.ids]
        if (np.isin(ids, of_videos) & (labels.modality == "image")).any():
            raise BadSample(
                "the prompt has a video where the sample has an image: its chat template writes "
                "them in another order"
            )
        return labels

    def inputs(self, texts: Sequence[str], shown: Sequence[Sequence[Shown]]) -> BatchFeature:
        """Model inputs of some prompts, as the processor's own ``apply_chat_template`` makes them.

        Args:
            texts: the text of each prompt.
            shown: images and videos of each prompt.

        Raises:
            ValueError: the processor ignores the pictures; it may raise anything else.
        """
        known = self.image_tokens
        images = [[one for one in own if isinstance(one, Image.Image)] for own in shown]
        videos = [one for own in shown for one in own if not isinstance(one, Image.Image)]
        options: dict[str, Any] = {"return_mm_token_type_ids": True} if known.types else {}
        if videos:  # the maker of the sample has chosen the frames
            options |= {"videos": [np.stack(frames) for frames in videos]}
            options |= {"do_sample_frames": False}
        if any(images):
            options |= {"images": images if self.nested else [i for own in images for i in own]}
        bos = self.processor.tokenizer.bos_token
        if self.template.is_chat and bos and without_marks(texts[0]).startswith(bos):
            options["add_special_tokens"] = False  # the template has written the first token
        inputs = self.processor(text=list(texts), padding=True, return_tensors="pt", **options)
        if (videos or any(images)) and not any(map(is_pixels, inputs)):
            raise ValueError("it makes no model input of the picture")
        return inputs

    def _of_equal_images(self, image: Image.Image, images: int) -> tuple[BatchFeature, int]:
        """Model inputs of one prompt of equal images, and the number of their positions."""
        text = self.template.render([*[Piece("image")] * images, Piece("text", text="?")])
        inputs = self.inputs([text], [[image] * images])
        ids = inputs["input_ids"].numpy()
        return inputs, int(image_positions(inputs, ids, self.image_tokens.ids).sum())


def _same_ids(one: BatchFeature, other: BatchFeature) -> bool:
    return all(torch.equal(one[name], other[name]) for name in ("input_ids", "attention_mask"))
