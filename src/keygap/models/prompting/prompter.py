"""Prompts with a label on every token, for any processor.

A prompt takes the first form that the processor can use: its chat template with content as a list,
the template with content as one string, or plain text with image placeholders, for models that were
not tuned to chat. The form is found once, with an image of one colour, so that a processor that
cannot be used is reported before a benchmark is opened. ``marks`` describes how labels are found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import product

from PIL import Image
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from keygap.benchmarks.sample import BadSample, Piece, Sample
from keygap.errors import UserError
from keygap.models.batch import Batch
from keygap.models.prompting.facts import shown_by
from keygap.models.prompting.form import Form
from keygap.models.prompting.image_inputs import ImageTokens
from keygap.models.prompting.marks import with_marked_tokenizers
from keygap.models.prompting.template import Style, Template

__all__ = ["ImageTokens", "Prompter"]


class Prompter:
    """Samples in, labelled batches out, for one model's processor.

    Calls share nothing that changes, so one prompter can serve several threads. The processor that
    it is made of is not changed.

    Args:
        processor: the model's processor.
        image_tokens: what the model reports about image positions.
    """

    def __init__(self, processor: ProcessorMixin, image_tokens: ImageTokens) -> None:
        self.tokenizer: PreTrainedTokenizerBase = processor.tokenizer
        self.image_tokens = image_tokens
        self._processor = with_marked_tokenizers(processor)

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Model inputs and labels of some samples.

        Raises:
            BadSample: one of the samples cannot be used (give them one by one to learn which).
            UserError: the processor makes no prompt of an image and a text.
        """
        prompts = [self._checked(sample) for sample in samples]
        shown = [
            [shown_by(sample, piece) for piece in prompt if piece.kind != "text"]
            for sample, prompt in zip(samples, prompts, strict=True)
        ]
        texts = [self.form.template.render_marked(prompt) for prompt in prompts]
        return self.form.batch(texts, shown)

    @cached_property
    def form(self) -> Form:
        """The form of this model's prompts.

        Raises:
            UserError: no form gives image positions; says why.
        """
        prompt = (Piece("image"), Piece("text", text="What colour?"))
        picture = Image.new("RGB", (96, 64), (200, 30, 30))
        reasons = []
        for form in self._forms():
            try:
                text = form.template.render_marked(prompt)
                labels = form.batch([text], [[picture]]).labels[0]
            # a processor may object to a form with any exception; the reasons are reported together
            except Exception as error:
                reasons.append(f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")
                continue
            if (labels.role == "question").any():
                return form
            reasons.append("the text of a question did not come through")
        raise UserError(
            f"{type(self._processor).__name__} makes no prompt of an image and a text: "
            + "; ".join(dict.fromkeys(reasons))
        )

    def _forms(self) -> Iterator[Form]:
        # without placeholders first: a processor may put images in by itself, and then twice
        styles: list[Style] = ["text", "placeholders"]
        if getattr(self._processor, "chat_template", None):
            styles = ["chat", "chat-string", *styles]
        for style, image_marks, nested in product(styles, (True, False), (True, False)):
            template = Template(self._processor, self.image_tokens, style)
            yield Form(template, self._processor, self.image_tokens, image_marks, nested)

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
        for spelling in self._reserved:
            if any(spelling in text for text in texts):
                raise BadSample(f"the text has {spelling!r}, which stands for an image")
        return sample.prompt

    @cached_property
    def _reserved(self) -> tuple[str, ...]:
        """Texts that the processor takes for an image, a video or a sound."""
        names = ("image_token", "video_token", "audio_token")
        found = [str(getattr(self._processor, name, None) or "") for name in names]
        found += self.tokenizer.convert_ids_to_tokens(list(self.image_tokens.ids))
        return tuple(dict.fromkeys(s for s in (*found, self.image_tokens.placeholder) if s))
