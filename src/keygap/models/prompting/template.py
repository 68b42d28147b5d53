"""A sample's pieces as the text that a processor takes, with a mark around every piece.

A model that was tuned to chat has a chat template, which takes the content of a message as a list
of pieces or as one string. Other models take plain text, with a placeholder for every image, or
without one where the processor puts the image in by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import jinja2
from transformers import ProcessorMixin

from keygap.benchmarks.sample import BadSample, Piece
from keygap.models.prompting.image_inputs import ImageTokens
from keygap.models.prompting.marks import marked, marked_pieces, without_marks

Style = Literal["chat", "chat-string", "placeholders", "text"]
_SYSTEM = marked("system", "system")


@dataclass(frozen=True)
class Template:
    """Writes prompts in one style.

    Attributes:
        processor: has the chat template, if there is one.
        image_tokens: how a prompt spells an image and a video.
        style: ``chat`` and ``chat-string`` use the chat template, with the content of a message
            as a list or as one string; ``placeholders`` and ``text`` are plain text, with and
            without placeholders.
    """

    processor: ProcessorMixin
    image_tokens: ImageTokens
    style: Style

    def render(self, pieces: Sequence[Piece]) -> str:
        """The text of one prompt, without marks."""
        content = self._content(pieces)
        return self._chat(content) if self._is_chat else content

    def render_marked(self, pieces: Sequence[Piece]) -> str:
        """The text of one prompt, with marks; without them it equals that of ``render``.

        Raises:
            BadSample: the template changes the text, so that marks are lost or change it.
        """
        plain = self.render(pieces)
        texts = sum(piece.kind == "text" for piece in pieces)
        for around_space in (True, False):  # a template may strip white space
            rendered = self.render([_marked(piece, around_space) for piece in pieces])
            if without_marks(rendered) == plain and marked_pieces(rendered) == texts:
                return self._with_system_mark(rendered)
        raise BadSample("the chat template changes this text, so its tokens cannot be labelled")

    @property
    def _is_chat(self) -> bool:
        return self.style in ("chat", "chat-string")

    def _content(self, pieces: Sequence[Piece]) -> Any:
        """The content of the user's message, or the whole plain text."""
        if self.style == "chat":
            return _as_list(pieces)
        known = self.image_tokens
        spelled = {"image": known.placeholder, "video": known.video_placeholder}
        if self.style == "text":
            spelled = {"image": "", "video": ""}
        return "".join(spelled.get(piece.kind, piece.text) for piece in pieces)

    def _chat(self, content: Any, system: Any = None) -> str:
        messages = [{"role": "user", "content": content}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        return self.processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )

    def _with_system_mark(self, rendered: str) -> str:
        before, prompt = self._default_system
        if prompt and rendered.startswith(before + prompt):
            return before + marked(prompt, "system") + rendered[len(before) + len(prompt) :]
        return rendered

    @cached_property
    def _default_system(self) -> tuple[str, str]:
        """The text before the system prompt that the template writes by itself, and that prompt.

        It is the text that a system message replaces. Both are empty where there is none.
        """
        if not self._is_chat:
            return "", ""
        question = self._content([_marked(Piece("text", text="question"))])
        plain = self._chat(question)
        # the content of a system message may have to be a list or a string
        for system in (_as_list([Piece("text", text=_SYSTEM)]), _SYSTEM):
            try:
                given = self._chat(question, system)
            except (jinja2.TemplateError, TypeError):  # the template takes no such system message
                continue
            before, found, after = given.partition(_SYSTEM)
            if found and plain.startswith(before) and plain.endswith(after):
                prompt = plain[len(before) : len(plain) - len(after)]
                if prompt.strip() and not marked_pieces(prompt):
                    return before, prompt
        return "", ""


def _as_list(pieces: Sequence[Piece]) -> list[dict[str, str]]:
    return [
        {"type": "text", "text": piece.text} if piece.kind == "text" else {"type": piece.kind}
        for piece in pieces
    ]


def _marked(piece: Piece, around_space: bool = True) -> Piece:
    if piece.kind != "text":
        return piece
    return replace(piece, text=marked(piece.text, piece.role, around_space))
