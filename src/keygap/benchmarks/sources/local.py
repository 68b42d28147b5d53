"""The user's own images and questions: ``jsonl:PATH`` and ``folder:PATH``.

``jsonl:PATH`` is a file with one JSON object on each line. Required: ``question``, and ``image`` (a
path) or ``images`` (a list of paths). Optional: ``options`` (a list of texts), ``answer`` (a letter
or the text of an option; without options any text), ``hint``, ``id``, ``subject``, ``language``
("en" or "zh"). Paths are relative to the file's folder and may not leave it.

``folder:PATH`` is a folder of images. Beside each ``NAME.jpg`` there is ``NAME.txt`` with the
question, or ``NAME.json`` with an object as above. Subfolders are subjects.

The prompt is images, hint, question, each option on a line, and a request for the letter if there
are options.
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
    LETTER_REQUESTS,
    checked_answer,
    hinted_prompt,
    lettered,
    open_answer,
    option_texts,
    text_of,
)
from keygap.benchmarks.sample import BadSample, Entry, Sample, unique_ids
from keygap.benchmarks.sample_set import Benchmark
from keygap.errors import UserError, unknown

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm")


class JsonLines(Benchmark):
    """Your own questions in a file of JSON lines, with images in its folder.

    Args:
        path: the file.
        language: of rows that do not name one.
        data: where the file is, if ``path`` is only what it is called.

    Raises:
        UserError: there is no such file, or keygap has no prompt in this language.
    """

    split = "all"
    language: str

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
        """The entry of every line that is not blank, and the byte at which the line begins."""
        starts, found = array("Q"), []
        for start, line in self._lines():
            try:
                row = _object(line)
            except BadSample:  # sample() reports it
                row = {}
            starts.append(start)
            texts = (row.get("id"), row.get("subject"), _image_key(row))
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
        """List every line that is not blank."""
        return self._rows[0]

    def sample(self, number: int) -> Sample:
        """Open the item at this position of the index."""
        entries, starts = self._rows
        with self.path.open("rb") as file:
            file.seek(starts[number])
            row = _object(file.readline())
        names = row.get("images", [row.get("image")])
        if not isinstance(names, list) or not names:
            raise BadSample("missing image: 'images' is not a list of paths")
        images = tuple(image_at(self.path.parent, name) for name in names)
        return _sample(entries[number], row, images, self.language)


class ImageFolder(Benchmark):
    """Your own images in a folder, each with its question in a file beside it.

    Args:
        path: the folder.
        language: of the questions; a .json file may name another.
        data: where the folder is, if ``path`` is only what it is called.

    Raises:
        UserError: there is no such folder, it has no image, or keygap has no prompt in this
            language.
    """

    split = "all"
    language: str

    def __init__(
        self, path: str | Path, language: str = "en", data: str | Path | None = None
    ) -> None:
        self.path = Path(data or path)
        if not self.path.is_dir():
            raise UserError(f"no folder of images at {self.path}")
        self.name = f"folder:{path}"
        self.data, self.language = origin(self.path), _known(language)
        files = (p for p in self.path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        self._files = sorted((p.relative_to(self.path) for p in files), key=Path.as_posix)
        if not self._files:
            raise UserError(f"{self.path} has no image ({', '.join(IMAGE_SUFFIXES)})")

    @cached_property
    def _entries(self) -> list[Entry]:
        return [
            Entry(file.as_posix(), "" if file.parent == Path() else file.parent.as_posix())
            for file in self._files
        ]

    def index(self) -> list[Entry]:
        """List every image; its subfolder is its subject."""
        return self._entries

    def sample(self, number: int) -> Sample:
        """Open the item at this position of the index."""
        file = self._files[number]
        image = image_at(self.path, file.as_posix())
        return _sample(self._entries[number], self._question(file), (image,), self.language)

    def _question(self, file: Path) -> dict[str, Any]:
        """Read the question of an image from the file beside it."""
        for suffix in (".json", ".txt"):
            beside = file.with_suffix(suffix)
            if (self.path / beside).exists():
                data = inside(self.path, beside.as_posix()).read_bytes()
                return _object(data) if suffix == ".json" else {"question": _utf8(data)}
        raise BadSample(f"no question: neither {file.stem}.txt nor {file.stem}.json is beside it")


def _sample(
    entry: Entry, row: dict[str, Any], images: tuple[Image.Image, ...], language: str
) -> Sample:
    """Make a sample of a row and its opened images."""
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise BadSample("no question text")
    language = text_of(row.get("language")) or language
    if language not in LETTER_REQUESTS:
        raise BadSample(f"language {language!r} is none of {', '.join(LETTER_REQUESTS)}")
    hint = text_of(row.get("hint"))
    options = option_texts(row["options"]) if row.get("options") else ()
    letters = lettered(options)
    return Sample(
        id=entry.id,
        images=images,
        question=question,
        prompt=hinted_prompt(len(images), hint, question, options, letters, language),
        answer=_answer(row.get("answer"), options, letters),
        options=options,
        hint=hint or None,
        language=language,
        subject=entry.subject,
    )


def _answer(answer: object, options: tuple[str, ...], letters: tuple[str, ...]) -> str | None:
    """Return an answer as text, or as a letter if there are options to choose from."""
    text = open_answer(answer)
    if not options:
        return text
    if text is not None and text not in letters and options.count(text) == 1:
        text = letters[options.index(text)]
    return checked_answer(text, letters)


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(_utf8(data))
    # RecursionError: brackets nested deeper than the stack
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


def _image_key(row: dict[str, Any]) -> str:
    """Return what rows with the same images share: the paths."""
    names = row.get("images", [row.get("image")])
    return "\n".join(map(text_of, names)) if isinstance(names, list) else ""


def _known(language: str) -> str:
    if language not in LETTER_REQUESTS:
        raise unknown("language", language, LETTER_REQUESTS)
    return language
