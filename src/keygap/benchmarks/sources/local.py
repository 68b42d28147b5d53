"""Anyone's own images and questions: ``jsonl:PATH`` and ``folder:PATH``.

``jsonl:PATH``: one JSON object per line: ``image`` (a path) or ``images`` (a list of paths),
``question``, and if wanted ``options`` (a list of texts), ``answer`` (a letter or an option's text;
without options any text), ``hint``, ``id``, ``subject``, ``language`` ("en" or "zh"). Paths are
relative to the file's folder and stay inside it.

``folder:PATH``: images in a folder and its subfolders, which are the subjects; beside each
``NAME.jpg`` stands ``NAME.txt`` with the question, or ``NAME.json`` with an object as above.

The prompt: images, hint, question, each option on its line, and with options the request for a
letter.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from keygap.benchmarks.formats.files import origin
from keygap.benchmarks.formats.images import image_at, inside
from keygap.benchmarks.formats.options import (
    checked_answer,
    lettered,
    open_answer,
    option_lines,
    option_texts,
    text_of,
)
from keygap.benchmarks.sample import LETTERS, BadSample, Entry, Piece, Sample, unique_ids
from keygap.benchmarks.sample_set import Benchmark
from keygap.errors import UserError, unknown

CHOICE = {
    "en": "Answer with the option's letter from the given choices directly.",
    "zh": "请直接回答选项字母。",
}
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm")


class JsonLines(Benchmark):
    """A file of questions; images are opened from its folder when they are needed.

    Args:
        path: the file.
        language: of rows that do not say.
        data: where the file is, if ``path`` is only what it is called.

    Raises:
        UserError: no such file, or a language without a template.
    """

    split = "all"

    def __init__(
        self, path: str | Path, language: str = "en", data: str | Path | None = None
    ) -> None:
        self.path = Path(data or path)
        if not self.path.is_file():
            raise UserError(f"no file of questions at {self.path}")
        self.name = f"jsonl:{path}"
        self.data, self.language = origin(self.path), _known(language)

    @cached_property
    def _rows(self) -> tuple[list[Entry], array[int]]:
        """Every line that is not blank: its entry, and the byte at which it begins."""
        starts, found = array("Q"), []
        for start, line in self._lines():
            try:
                row = _object(line)
            except BadSample:  # told when the sample is asked for
                row = {}
            starts.append(start)
            texts = (row.get("id"), row.get("subject"), _key(row))
            found.append(tuple(text_of(text).encode(errors="replace").decode() for text in texts))
        ids = unique_ids(self.path.stem, (row[0] for row in found))
        rest = (row[1:] for row in found)
        return [Entry(name, *more) for name, more in zip(ids, rest, strict=True)], starts

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        start = 0
        with self.path.open("rb") as file:
            for line in file:
                if line.strip():
                    yield start, line
                start += len(line)

    def index(self) -> list[Entry]:
        return self._rows[0]

    def sample(self, number: int) -> Sample:
        entries, starts = self._rows
        with self.path.open("rb") as file:
            file.seek(starts[number])
            row = _object(file.readline())
        names = row.get("images", [row.get("image")])
        if not isinstance(names, list) or not names:
            raise BadSample("missing image: 'images' is not a list of paths")
        images = tuple(image_at(self.path.parent, name) for name in names)
        return _sample(entries[number], row, images, self.language or "en")


class ImageFolder(Benchmark):
    """A folder of images, each with its question in a file of the same name beside it.

    Args:
        path: the folder.
        language: of the questions; a .json file may say another.
        data: where the folder is, if ``path`` is only what it is called.

    Raises:
        UserError: no such folder, no image in it, or a language without a template.
    """

    split = "all"

    def __init__(
        self, path: str | Path, language: str = "en", data: str | Path | None = None
    ) -> None:
        self.path = Path(data or path)
        if not self.path.is_dir():
            raise UserError(f"no folder of images at {self.path}")
        self.name = f"folder:{path}"
        self.data, self.language = origin(self.path), _known(language)
        files = (p.relative_to(self.path) for p in self.path.rglob("*") if _picture(p))
        self._files = sorted(files, key=Path.as_posix)
        if not self._files:
            raise UserError(f"{self.path} has no image ({', '.join(PICTURES)})")

    @cached_property
    def _entries(self) -> list[Entry]:
        return [
            Entry(file.as_posix(), "" if file.parent == Path() else file.parent.as_posix())
            for file in self._files
        ]

    def index(self) -> list[Entry]:
        return self._entries

    def sample(self, number: int) -> Sample:
        file = self._files[number]
        image = image_at(self.path, file.as_posix())
        return _sample(self._entries[number], self._question(file), (image,), self.language or "en")

    def _question(self, file: Path) -> dict[str, Any]:
        for suffix in (".json", ".txt"):
            beside = file.with_suffix(suffix)
            if (self.path / beside).exists():
                data = inside(self.path, beside.as_posix()).read_bytes()
                return _object(data) if suffix == ".json" else {"question": _utf8(data)}
        raise BadSample(f"no question: neither {file.stem}.txt nor {file.stem}.json is beside it")


def _sample(
    entry: Entry, row: dict[str, Any], images: tuple[Image.Image, ...], language: str
) -> Sample:
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise BadSample("no question text")
    language = text_of(row.get("language")) or language
    if language not in CHOICE:
        raise BadSample(f"language {language!r} is none of {', '.join(CHOICE)}")
    hint = text_of(row.get("hint"))
    options = option_texts(row["options"]) if row.get("options") else ()
    letters = lettered(options)
    answer = open_answer(row.get("answer"))
    if options:
        if answer is not None and answer not in letters and options.count(answer) == 1:
            answer = LETTERS[options.index(answer)]
        answer = checked_answer(answer, letters)
    prompt = [Piece("image", image=place) for place in range(len(images))]
    prompt += [Piece("text", "hint", hint + "\n")] * bool(hint)
    prompt += [Piece("text", "question", question + "\n" * bool(options))]
    prompt += [Piece("text", "option", line) for line in option_lines(options, letters, "{}. {}")]
    prompt += [Piece("text", "template", CHOICE[language])] * bool(options)
    return Sample(
        id=entry.id,
        images=images,
        question=question,
        prompt=tuple(prompt),
        answer=answer,
        options=options,
        hint=hint or None,
        language=language,
        subject=entry.subject,
    )


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(_utf8(data))
    # the second: brackets nested beyond the stack
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadSample(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadSample(f"a JSON object is wanted, not {type(value).__name__}")
    return value


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadSample(f"not UTF-8: {error}") from error


def _key(row: dict[str, Any]) -> str:
    """What items of the same image share: its path."""
    names = row.get("images", [row.get("image")])
    return "\n".join(map(text_of, names)) if isinstance(names, list) else ""


def _picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES


def _known(language: str) -> str:
    if language not in CHOICE:
        raise unknown("language", language, CHOICE)
    return language
