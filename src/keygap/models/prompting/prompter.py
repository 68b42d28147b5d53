"""Prompts with a label on every token, for any processor.

A prompt is what the processor makes of it: with the chat template if there is one (content as a
list or as one string), and plain text for models that were not tuned to chat. A chat template that
cannot be used is an error. The form is found once, with an image of one colour, so that a processor
that cannot be used is reported before a benchmark is opened. ``marks`` describes how labels are
found.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from keygap.benchmarks.sample import BadSample, Piece, Sample
from keygap.errors import UserError
from keygap.models.batch import Batch
from keygap.models.prompting.answers import with_answers
from keygap.models.prompting.facts import shown_by
from keygap.models.prompting.form import Form
from keygap.models.prompting.image_inputs import ImageTokens
from keygap.models.prompting.own_ids import OwnCall
from keygap.models.prompting.pictures import without_pictures, without_pixels
from keygap.models.prompting.processing import prepared, with_pixels
from keygap.models.prompting.special import specials_of
from keygap.models.prompting.template import (
    Style,
    Template,
    check_arguments,
    template_source,
)
from keygap.text import first_line
from keygap.tokens import Pictures

logger = logging.getLogger("keygap")

__all__ = ["ImageTokens", "Prompter"]

_NO_PROMPT = "makes no prompt of an image and a text"


PROBE = (Piece("image"), Piece("text", text="What colour?"))
_AFTER_IMAGE = (Piece("image"), Piece("text", text="\nWhat colour?"))


class Prompter:
    """Samples in, labelled batches out, for one model's processor.

    Calls share nothing that changes, so one prompter can serve several threads. The processor that
    it is made of is not changed.

    Args:
        processor: the model's processor.
        image_tokens: what the model reports about image positions.
        system: the text of a system message before every prompt.
        template_arguments: further arguments of the chat template, such as ``enable_thinking``.

    Raises:
        UserError: the processor's tokenizer cannot be used, or the chat template takes no such
            arguments.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        image_tokens: ImageTokens,
        system: str | None = None,
        template_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer: PreTrainedTokenizerBase = processor.tokenizer
        self.image_tokens = image_tokens
        self.system = system
        self.template_arguments = dict(template_arguments or {})
        self._source = template_source(processor)
        check_arguments(self._source, self.template_arguments, system)
        ids = [*image_tokens.ids, *image_tokens.video_ids]
        texts = [text for text in self.tokenizer.convert_ids_to_tokens(ids) if text is not None]
        texts += [image_tokens.placeholder, image_tokens.video_placeholder]
        self._specials = specials_of(processor, self._source, texts)
        self._processor = prepared(processor, self._specials)
        self._own = with_pixels(processor)

    def __call__(
        self,
        samples: Sequence[Sample],
        *,
        pictures: Pictures = "shown",
        answers: Sequence[str] | None = None,
    ) -> Batch:
        """Model inputs and labels of some samples.

        Args:
            samples: what the prompts are made of.
            pictures: ``shown``: prompts with their images. ``absent``: images and videos are left
                out of the prompt, and none are given. ``marker``: the prompt is that of ``shown``
                with the same labels, but the model gets no pixels, so that it embeds the
                placeholder tokens as words.
            answers: a text for each prompt, whose tokens follow the prompt with the role
                ``answer``. They are tokenized apart from the prompt (see ``answers``).

        Raises:
            BadSample: one of the samples cannot be used (give them one by one to learn which).
            UserError: the processor makes no prompt of an image and a text.
        """
        prompts = [self._checked(sample) for sample in samples]
        if pictures == "absent":
            prompts = [without_pictures(prompt) for prompt in prompts]
        shown = [
            [shown_by(sample, piece) for piece in prompt if piece.kind != "text"]
            for sample, prompt in zip(samples, prompts, strict=True)
        ]
        batch = self.form.batch(prompts, shown)
        if pictures != "shown":
            batch = without_pixels(batch, pictures)
        if answers is not None:
            batch = with_answers(batch, [self.ids_of(text) for text in answers], self.tokenizer)
        return batch

    def ids_of(self, text: str) -> list[int]:
        """The ids of a text that a model would say, which is never read as a special token.

        Raises:
            BadSample: the text has private-use characters that keygap uses itself.
        """
        tokenizer = self._processor.tokenizer
        replaced = self._specials.replaced(text)
        return [int(one) for one in tokenizer(replaced, add_special_tokens=False)["input_ids"]]

    @property
    def identity(self) -> dict[str, Any]:
        """What decides how prompts are written, as plain values.

        Returns:
            ``form``: ``chat`` or ``chat-string`` (the chat template, with the content of a message
            as a list or as one string), ``plain`` (no template: text with image placeholders) or
            ``bare`` (no template: the processor puts the image before the text);
            ``template_sha256``: the first 16 digits of the hash of the chat template, None without
            one; ``system`` and ``template_arguments`` as given.

        Raises:
            UserError: the processor makes no prompt of an image and a text.
        """
        return {
            "form": self.form.template.style,
            "template_sha256": self.form.template.digest,
            "system": self.system,
            "template_arguments": dict(self.template_arguments),
        }

    def description(self) -> dict[str, Any]:
        """The identity, with the text and the ids of a prompt with one image as ``example``.

        ``refused_forms`` has the reason for each form that was tried before the one that is used,
        and ``ids_compared_with`` says how the processor's own ids are made.

        Raises:
            UserError: the processor makes no prompt of an image and a text.
        """
        text = self.form.template.render(PROBE)
        ids = self.form.inputs([text], [[_picture()]])["input_ids"][0]
        return {
            **self.identity,
            "refused_forms": dict(self._found[1]),
            "ids_compared_with": (
                f"a call with the rendered text ({why})"
                if (why := self.form.own_call_refused)
                else "apply_chat_template"
            ),
            "example": {"text": text, "ids": ids.tolist()},
        }

    @property
    def form(self) -> Form:
        """The form of this model's prompts.

        Raises:
            UserError: the chat template cannot be used, or no form gives image positions; says why.
        """
        return self._found[0]

    @cached_property
    def _found(self) -> tuple[Form, dict[str, str]]:
        """The form, and the reason for each style that was tried before it."""
        found: dict[str, Form] = {}
        reasons: dict[str, None] = {}
        refused: dict[str, str] = {}
        for style in ("chat", "chat-string") if self._source else ("plain", "bare"):
            for form in self._forms(style):
                reason = _objection(form)
                if reason is None:
                    found[style] = form
                    break
                reasons[reason] = None
                refused.setdefault(style, reason)
            if self._source and found:
                break
        if not found:
            what = "has a chat template that cannot be used" if self._source else _NO_PROMPT
            raise UserError(f"{type(self._processor).__name__} {what}: {'; '.join(reasons)}")
        if len(found) == 2 and not _same_prompts(found["plain"], found["bare"]):
            del found["plain"]  # the processor has put in the image beside the placeholder
        form = next(iter(found.values()))
        refused = {style: why for style, why in refused.items() if style not in found}
        if why := refused.get("chat"):
            logger.info("the chat template takes no list of pieces (%s): one text is given", why)
        return form, refused

    def _forms(self, style: Style) -> Iterator[Form]:
        """The ways to call the processor with prompts of one style."""
        system = None if self.system is None else self._specials.replaced(self.system)
        lists = (True,) if system is None else (True, False)
        for as_list, image_marks, nested in product(lists, (True, False), (True, False)):
            template = Template(
                processor=self._processor,
                image_tokens=self.image_tokens,
                style=style,
                source=self._source,
                system=system,
                system_as_list=as_list,
                arguments=self.template_arguments,
            )
            own = OwnCall(self._own, template, self._specials)
            yield Form(template, self._processor, self.image_tokens, image_marks, nested, own)

    def _checked(self, sample: Sample) -> tuple[Piece, ...]:
        """The pieces of a sample's prompt.

        Raises:
            BadSample: the prompt has no text or no image, or shows an image that is not there.
        """
        if not sample.images and not sample.videos:
            raise BadSample("the sample has no image")
        texts = [piece.text for piece in sample.prompt if piece.kind == "text"]
        if not any(text.strip() for text in texts):
            raise BadSample("the sample has no text")
        for kind, given in (("image", sample.images), ("video", sample.videos)):
            places = [piece.image for piece in sample.prompt if piece.kind == kind]
            if any(place >= len(given) for place in places):
                raise BadSample(
                    f"the prompt names {kind} {max(places) + 1} of {len(given)} {kind}s"
                )
        if all(piece.kind == "text" for piece in sample.prompt):
            raise BadSample("the prompt shows none of the sample's images")
        known = self.image_tokens
        if any(piece.kind == "video" for piece in sample.prompt) and not known.video_placeholder:
            raise BadSample("the model's processor takes no video")
        return tuple(
            replace(piece, text=self._specials.replaced(piece.text)) for piece in sample.prompt
        )


def _picture() -> Image.Image:
    """A small image of one colour."""
    return Image.new("RGB", (96, 64), (200, 30, 30))


def _objection(form: Form) -> str | None:
    """Why a form cannot be used for a prompt of an image and a text, None if it can."""
    try:
        labels = form.batch([PROBE], [[_picture()]]).labels[0]
    except BadSample as error:
        return str(error)
    # a processor may object to a form with any exception; the user gets the reasons together
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}"
    if not (labels.role == "question").any():
        return "the text of a question did not come through"
    if form.image_marks and not form.image_marks_keep_ids(_AFTER_IMAGE, [_picture()]):
        return "marks around an image change the tokens beside it"
    return None


def _same_prompts(one: Form, other: Form) -> bool:
    """Whether two forms give the same ids for a prompt of an image and a text."""
    made = [form.inputs([form.template.render(PROBE)], [[_picture()]]) for form in (one, other)]
    return torch.equal(*(inputs["input_ids"] for inputs in made))
