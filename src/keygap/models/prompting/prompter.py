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
from itertools import product
from typing import Any

import numpy as np
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from keygap.benchmarks.sample import BadSample, Part, Sample, as_rgb
from keygap.errors import UserError
from keygap.models.batch import Batch
from keygap.models.patches.charts import Charts
from keygap.models.patches.layout import ImageFacts
from keygap.models.prompting.image_inputs import grids_of, image_positions, sizes_of
from keygap.models.prompting.labelling import VideoFacts, label_prompt
from keygap.models.prompting.marks import (
    MarkedTokenizer,
    aligned,
    marked,
    text_parts,
    with_image_marks,
    without_marks,
)

Shown = Image.Image | tuple[np.ndarray, ...]  # an image, or a video's frames (height, width, 3)


@dataclass(frozen=True)
class ImageTokens:
    """What the model says of its image positions.

    Attributes:
        ids: token ids that vision features replace; none where an input of the model says so.
        placeholder: what stands for an image in a prompt's text.
        video_ids, video_placeholder: the same of videos; none where the processor takes none.
        in_prompt: whether features stand in the prompt, or are attended across to from a mark.
        types: whether the model reads each position's modality from its inputs.
        limit: the positions that the model knows, where it says so.
        row_ends, begin, end, side, mixed: see ``ImageFacts``.
    """

    ids: tuple[int, ...]
    placeholder: str
    video_ids: tuple[int, ...] = ()
    video_placeholder: str = ""
    in_prompt: bool = True
    types: bool = False
    limit: int | None = None
    row_ends: bool = False
    begin: int = 0
    end: int = 0
    side: int | None = None
    mixed: bool = False


class Prompter:
    """Samples in, labelled batches out, for one model's processor."""

    def __init__(self, processor: ProcessorMixin, image_tokens: ImageTokens) -> None:
        self.tokenizer: PreTrainedTokenizerBase = processor.tokenizer
        self.image_tokens = image_tokens
        self._processor = copy.copy(processor)  # the caller's own processor stays as it was
        self._nested = True  # images in one list for each prompt, or all in one
        self._image_marks = (
            True  # unless the processor insists on what stands next to a placeholder
        )
        self._one_image = ""  # a prompt of one image, to see charts with
        self._charts = Charts(self._of_equal_pictures)
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
        shown = [
            [_shown(sample, part) for part in prompt if part.kind != "text"]
            for sample, prompt in zip(samples, parts, strict=True)
        ]
        return self._batch([self._render(prompt) for prompt in parts], shown)

    def _checked(self, sample: Sample) -> tuple[Part, ...]:
        if not sample.images and not sample.videos:
            raise BadSample("the sample has no image")
        texts = [part.text for part in sample.prompt if part.kind == "text"]
        if not any(text.strip() for text in texts):
            raise BadSample("the sample has no text")
        for kind, given in (("image", sample.images), ("video", sample.videos)):
            places = [part.image for part in sample.prompt if part.kind == kind]
            if any(place >= len(given) for place in places):
                raise BadSample(
                    f"the prompt names {kind} {max(places) + 1} of {len(given)} {kind}s"
                )
        if all(part.kind == "text" for part in sample.prompt):
            raise BadSample("the prompt shows none of the sample's images")
        known = self.image_tokens
        if any(part.kind == "video" for part in sample.prompt) and not known.video_placeholder:
            raise BadSample("the model's processor takes no video")
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
        for form, self._image_marks, self._nested in product(forms, (True, False), (True, False)):
            try:
                text = form(
                    [(p, marked(p.text, p.role) if p.kind == "text" else "") for p in parts]
                )
                self._one_image = text
                self._charts.forget()
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
            {"type": "text", "text": text} if part.kind == "text" else {"type": part.kind}
            for part, text in texts
        ]
        return self._template([{"role": "user", "content": content}])

    def _chat_string(self, texts: Sequence[tuple[Part, str]]) -> str:
        return self._template([{"role": "user", "content": self._plain(texts)}])

    def _plain(self, texts: Sequence[tuple[Part, str]]) -> str:
        known = self.image_tokens
        spelled = {"image": known.placeholder, "video": known.video_placeholder}
        return "".join(spelled.get(part.kind, text) for part, text in texts)

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

    def _batch(self, texts: Sequence[str], shown: Sequence[Sequence[Shown]]) -> Batch:
        self._marked.calls = []
        try:
            inputs = self._inputs(texts, shown)
        except (ValueError, IndexError, RuntimeError, ZeroDivisionError, OSError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BadSample(f"the processor refuses the sample: {first}") from error
        calls, self._marked.calls = self._marked.calls, []
        ids = inputs["input_ids"].numpy()
        mask = inputs["attention_mask"].bool().numpy()
        known = self.image_tokens
        is_visual = image_positions(inputs, ids, (*known.ids, *known.video_ids))
        facts = self._facts(inputs, shown, int((is_visual & mask).sum()))
        labels = []
        for row, own in enumerate(facts):
            # one call for each prompt, or pieces in no order that is known
            own_calls = calls[row : row + 1] if len(calls) == len(facts) else calls
            here = mask[row]
            visual, token_id = is_visual[row][here], ids[row][here]
            if known.limit and len(token_id) > known.limit:
                raise BadSample(
                    f"the prompt has {len(token_id)} positions and the model knows {known.limit}: "
                    "smaller or fewer images are needed"
                )
            roles, spans = aligned(token_id, own_calls, ignore=visual)
            tokens = self.tokenizer.convert_ids_to_tokens(token_id.tolist())
            labels.append(
                label_prompt(token_id, tokens, visual, roles, spans, own, known.in_prompt)
            )
        return Batch(inputs, tuple(labels))

    def _inputs(self, texts: Sequence[str], shown: Sequence[Sequence[Shown]]) -> BatchFeature:
        known = self.image_tokens
        if self._image_marks:
            texts = [
                with_image_marks(text, (known.placeholder, known.video_placeholder))
                for text in texts
            ]
        images = [[one for one in own if isinstance(one, Image.Image)] for own in shown]
        videos = [one for own in shown for one in own if not isinstance(one, Image.Image)]
        options: dict[str, Any] = {"return_mm_token_type_ids": True} if known.types else {}
        if videos:  # frames were chosen by whoever made the sample
            options |= {"videos": [np.stack(frames) for frames in videos]}
            options |= {"do_sample_frames": False}
        if any(images):
            options |= {"images": images if self._nested else [i for own in images for i in own]}
        inputs = self._processor(
            text=list(texts),
            padding=True,
            return_tensors="pt",
            # templates spell their own first token
            add_special_tokens=not self._starts_with_bos(without_marks(texts[0])),
            **options,
        )
        if (videos or any(images)) and not any("pixel" in n or "patches" in n for n in inputs):
            raise ValueError("it makes no model input of the picture")
        return inputs

    def _of_equal_pictures(self, picture: Image.Image, images: int) -> tuple[BatchFeature, int]:
        """Model inputs of one prompt of so many equal pictures, and its image positions."""
        text = self._one_image
        if images > 1:
            text = self._form([(Part("image"), "")] * images + [(Part("text"), "?")])
        try:
            inputs = self._inputs([text], [[picture] * images])
        finally:
            self._marked.calls = []
        ids = inputs["input_ids"].numpy()
        return inputs, int(image_positions(inputs, ids, self.image_tokens.ids).sum())

    def _starts_with_bos(self, text: str) -> bool:
        bos = self.tokenizer.bos_token
        return bos is not None and text.startswith(bos)

    def _facts(
        self, inputs: BatchFeature, shown: Sequence[Sequence[Shown]], positions: int
    ) -> list[list[ImageFacts | VideoFacts]]:
        """What is known of every image and video of every prompt, of so many positions together."""
        known = self.image_tokens
        every = [one for own in shown for one in own]
        images = sum(isinstance(one, Image.Image) for one in every)
        grids, seen = grids_of(inputs, images), iter(sizes_of(inputs, images))
        of_images, films = iter(grids), iter(grids_of(inputs, len(every) - images, "video"))
        charted = images and known.in_prompt and None in grids
        fixed = self._charts.fixed(inputs, images, positions) if charted else None
        facts: list[list[ImageFacts | VideoFacts]] = []
        for own in shown:
            facts.append([])
            pictures = sum(isinstance(one, Image.Image) for one in own)
            for one in own:
                if not isinstance(one, Image.Image):
                    facts[-1].append(VideoFacts(len(one), next(films)))
                    continue
                grid, views, count = next(of_images), None, None
                if grid is None and known.in_prompt:
                    views, count = fixed or self._charts.cut(one.size, pictures)
                facts[-1].append(
                    ImageFacts(
                        height=one.height,
                        width=one.width,
                        grid=grid,
                        views=views,
                        count=count,
                        row_ends=known.row_ends,
                        begin=known.begin,
                        end=known.end,
                        side=known.side,
                        pixels=next(seen),
                        mixed=known.mixed,
                    )
                )
        return facts


def _shown(sample: Sample, part: Part) -> Shown:
    if part.kind == "image":
        return as_rgb(sample.images[part.image])
    return tuple(np.asarray(as_rgb(frame)) for frame in sample.videos[part.image])
