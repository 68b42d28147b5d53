"""A sample's pieces as the text that a processor takes, with and without marks.

A model that was tuned to chat has a chat template, which takes the content of a message as a list
of pieces or as one string. Other models take plain text, with a placeholder for every image, or
without one where the processor itself puts the image before the text.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import jinja2
from transformers import ProcessorMixin

from keygap.benchmarks.sample import BadSample, Piece
from keygap.errors import UserError
from keygap.models.prompting.image_inputs import ImageTokens
from keygap.models.prompting.marks import marked, read_marks, without_marks
from keygap.text import first_line

Style = Literal["chat", "chat-string", "plain", "bare"]
_SYSTEM = marked("system", "system")
# what a template raises for messages that it does not take
_REFUSALS = (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError)


def template_source(processor: ProcessorMixin) -> str:
    """The source of a processor's chat template, or of its tokenizer's; empty without one.

    Raises:
        UserError: there are several templates, and none is named ``default``.
    """
    for owner in (processor, processor.tokenizer):
        source = getattr(owner, "chat_template", None)
        if isinstance(source, Mapping):
            if "default" not in source:
                raise UserError(
                    f"{type(processor).__name__} has the chat templates {', '.join(source)} and "
                    "none named default: set processor.chat_template to one of them"
                )
            source = source["default"]
        if source:
            return str(source)
    return ""


def check_arguments(source: str, arguments: Mapping[str, Any], system: str | None) -> None:
    """Refuse template arguments and a system prompt that the chat template cannot use.

    Raises:
        UserError: there is no template, or an argument that it does not read.
    """
    if not source and (arguments or system is not None):
        raise UserError(
            "the model has no chat template, so it takes no system prompt and no template arguments"
        )
    taken = inspect.signature(ProcessorMixin.apply_chat_template).parameters
    for name in arguments:
        if name in taken or name == "messages":
            raise UserError(f"template argument {name!r} is set by keygap: leave it out")
        if not re.search(rf"\b{re.escape(name)}\b", source):
            raise UserError(f"the chat template does not use the argument {name!r}: leave it out")


@dataclass(frozen=True)
class Template:
    """Writes prompts in one style.

    Attributes:
        processor: renders the chat template.
        image_tokens: how a prompt spells an image and a video.
        style: ``chat`` and ``chat-string`` use the chat template, with the content of a message
            as a list or as one string; ``plain`` and ``bare`` are plain text, with and without
            placeholders.
        source: the source of the chat template.
        system: the text of a system message, None: none is given.
        system_as_list: whether the content of that message is a list.
        arguments: further arguments of the chat template.
    """

    processor: ProcessorMixin = field(repr=False)
    image_tokens: ImageTokens
    style: Style
    source: str = field(default="", repr=False)
    system: str | None = None
    system_as_list: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_chat(self) -> bool:
        """Whether the chat template writes the prompt."""
        return self.style in ("chat", "chat-string")

    @property
    def digest(self) -> str | None:
        """The first 16 hexadecimal digits of the SHA-256 of the template's source."""
        if not self.is_chat:
            return None
        return hashlib.sha256(self.source.encode()).hexdigest()[:16]

    def render(self, pieces: Sequence[Piece]) -> str:
        """The text of one prompt, without marks.

        Raises:
            BadSample: the template refuses the prompt, or the processor cannot put its images
                where the prompt has them.
        """
        return self._render(pieces, self.system)

    def render_marked(self, pieces: Sequence[Piece]) -> str:
        """The text of one prompt, with marks; without them it equals that of ``render``.

        Raises:
            BadSample: the template leaves out, repeats or changes the text of a piece.
        """
        plain = self.render(pieces)
        given = [] if self.system is None else [Piece("text", "system", self.system)]
        for around_space in (True, False):  # a template may strip white space
            own = [_marked(piece, around_space) for piece in (*given, *pieces)]
            system = own[0].text if given else None
            rendered = self._render(own[len(given) :], system)
            read = read_marks(rendered)
            kept = [(role, read.text[start:stop]) for start, stop, role in read.pieces]
            wanted = _texts((*given, *pieces), around_space)
            if read.text == plain and sorted(kept) == sorted(wanted):
                return self._with_default_system(rendered)
        return self._searched(plain, _texts((*given, *pieces), around_space=False))

    def _render(self, pieces: Sequence[Piece], system: str | None) -> str:
        content = self._content(pieces)
        if not self.is_chat:
            return content
        try:
            return self._chat(content, system, self.system_as_list)
        except _REFUSALS as error:
            raise BadSample(f"the chat template raises {_line(error)}") from error

    def _content(self, pieces: Sequence[Piece]) -> Any:
        """The content of the user's message, or the whole plain text."""
        if self.style == "chat":
            return _as_list(pieces)
        known = self.image_tokens
        spelled = {"image": known.placeholder, "video": known.video_placeholder}
        if self.style == "bare":
            kinds = [piece.kind == "text" for piece in pieces if piece.text or piece.kind != "text"]
            if kinds != sorted(kinds):
                raise BadSample(
                    "the processor puts images before all text, and this prompt has an image "
                    "after text"
                )
            spelled = {"image": "", "video": ""}
        return "".join(spelled.get(piece.kind, piece.text) for piece in pieces)

    def messages(self, pieces: Sequence[Piece], images: Sequence[Any]) -> list[dict[str, Any]]:
        """The messages of one prompt, with its images in them, as a processor's users give them.

        Args:
            pieces: the pieces of the prompt.
            images: its images, in the order of the pieces.
        """
        content, remaining = self._content(pieces), iter(images)
        for item in content:
            if item["type"] == "image":
                item["image"] = next(remaining)
        return self._messages(content, self.system, self.system_as_list)

    def _messages(self, content: Any, system: str | None, as_list: bool) -> list[dict[str, Any]]:
        messages = [{"role": "user", "content": content}]
        if system is not None:
            text: Any = _as_list([Piece("text", text=system)]) if as_list else system
            messages.insert(0, {"role": "system", "content": text})
        return messages

    def _chat(self, content: Any, system: str | None, as_list: bool) -> str:
        return self.processor.apply_chat_template(
            self._messages(content, system, as_list),
            chat_template=self.source,
            add_generation_prompt=True,
            tokenize=False,
            **self.arguments,
        )

    def _searched(self, plain: str, texts: Sequence[tuple[str, str]]) -> str:
        """Marks in a prompt whose template writes another text where there are marks.

        A template may depend on the length of a text. Pieces that occur once are certain.
        """
        found, last = [], 0
        for role, text in texts:
            count = plain.count(text)
            start = plain.find(text, last)
            if count != 1 or start < 0:
                raise BadSample(
                    "the chat template "
                    + ("leaves out or changes the" if not count else f"has {count} times the")
                    + f" text of a {role}, so its tokens cannot be labelled"
                )
            found += [plain[last:start], marked(text, role)]
            last = start + len(text)
        return "".join([*found, plain[last:]])

    def _with_default_system(self, rendered: str) -> str:
        before, prompt = self._default_system
        if prompt and rendered.startswith(before + prompt):
            return before + marked(prompt, "system") + rendered[len(before) + len(prompt) :]
        return rendered

    @cached_property
    def _default_system(self) -> tuple[str, str]:
        """The text before the system prompt that the template writes by itself, and that prompt.

        It is the text that a system message replaces. Both are empty where there is none.
        """
        if not self.is_chat or self.system is not None:
            return "", ""
        question = self._content([_marked(Piece("text", text="question"))])
        plain = self._chat(question, None, True)
        # the content of a system message may have to be a list or a string
        for as_list in (True, False):
            try:
                given = self._chat(question, _SYSTEM, as_list)
            except _REFUSALS:  # the template takes no such system message
                continue
            before, found, after = given.partition(_SYSTEM)
            if found and plain.startswith(before) and plain.endswith(after):
                prompt = plain[len(before) : len(plain) - len(after)]
                if prompt.strip() and without_marks(prompt) == prompt:
                    return before, prompt
        return "", ""


def _line(error: Exception) -> str:
    """The type of an error and the first line of its text."""
    return f"{type(error).__name__}: {first_line(error)}"


def _as_list(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    return [
        {"type": "text", "text": piece.text} if piece.kind == "text" else {"type": piece.kind}
        for piece in pieces
    ]


def _texts(pieces: Sequence[Piece], around_space: bool) -> list[tuple[str, str]]:
    """Role and text of the pieces that have text."""
    found = [
        (piece.role, piece.text if around_space else piece.text.strip())
        for piece in pieces
        if piece.kind == "text"
    ]
    return [(role, text) for role, text in found if text]


def _marked(piece: Piece, around_space: bool = True) -> Piece:
    if piece.kind != "text":
        return piece
    return replace(piece, text=marked(piece.text, piece.role, around_space))
