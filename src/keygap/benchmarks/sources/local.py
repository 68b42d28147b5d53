"""The user's own images and questions: ``jsonl:PATH`` and ``folder:PATH``.

``jsonl:PATH`` is a file with one JSON object on each line. Required: ``question``, and ``image`` (a
path) or ``images`` (a list of paths). Optional: ``options`` (a list of texts), ``answer`` (a letter
or the text of an option; without options any text), ``hint``, ``caption`` (what the images show),
``id``, ``subject``, ``language`` ("en" or "zh"). Paths are relative to the file's folder and may
not leave it. A row that cannot be used is a bad sample. A file in which no row can be used, or a
row has another key, is refused.

``folder:PATH`` is a folder of images. Beside each ``NAME.jpg`` there is ``NAME.txt`` with the
question, or ``NAME.json`` with an object as above, but without ``id``, ``subject``, ``image`` and
``images``: an image's path is its id, and subfolders are subjects.

The prompt is images, hint, question, each option on a line, and a request for the letter if there
are options.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from keygap.benchmarks.formats.files import is_there, origin
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
from keygap.benchmarks.formats.rows import LONGEST_ROW, row_of, utf8
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
        given = Path(data or path)
        if not is_there(given, Path.is_file):
            raise UserError(f"no file of questions at {given}")
        self.name = f"jsonl:{path}"
        self.data, self.language = origin(given), _known(language)
        self.path = given.absolute()  # a worker may be in another folder

    @cached_property
    def _rows(self) -> tuple[list[Entry], array[int]]:
        """The entry of every line that is not blank, and the byte at which the line begins.

        Raises:
            UserError: a row has an unknown key, or no row can be used.
        """
        starts, found, first_fault, good = array("Q"), [], "", 0
        for line_number, start, line in self._lines():
            place = f"{self.path}, line {line_number}"
            try:
                row = row_of(line, place)
                good += 1
            except BadSample as fault:  # sample() reports it
                row = {}
                first_fault = first_fault or f"{place}: {fault}"
            starts.append(start)
            texts = (row.get("id"), row.get("subject"), _image_key(row))
            found.append(tuple(_encodable(text_of(text)) for text in texts))
        if first_fault and not good:
            raise UserError(f"no row can be used; {first_fault}")
        ids = unique_ids(self.path.stem, (row[0] for row in found))
        rest = (row[1:] for row in found)
        return [Entry(name, *more) for name, more in zip(ids, rest, strict=True)], starts

    def _lines(self) -> Iterator[tuple[int, int, bytes]]:
        """Number, first byte and content of every line that is not blank.

        A line is read to one byte beyond ``LONGEST_ROW``, by which ``row_of`` knows its length.
        """
        number = start = 0
        with self.path.open("rb") as file:
            while line := file.readline(LONGEST_ROW + 1):
                number += 1
                if line.strip():
                    yield number, start, line
                rest = line
                while rest and not rest.endswith(b"\n"):
                    rest = file.readline(LONGEST_ROW + 1)
                start = file.tell()

    def index(self) -> list[Entry]:
        """List every line that is not blank."""
        return self._rows[0]

    def sample(self, number: int) -> Sample:
        """Open the item at this position of the index."""
        entries, starts = self._rows
        with self.path.open("rb") as file:
            file.seek(starts[number])
            row = row_of(file.readline(LONGEST_ROW + 1), f"{self.path}, a row")
        names = [row.get("image")] if row.get("images") is None else row["images"]
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
        given = Path(data or path)
        if not is_there(given, Path.is_dir):
            raise UserError(f"no folder of images at {given}")
        self.name = f"folder:{path}"
        self.data, self.language = origin(given), _known(language)
        self.path = given.absolute()  # a worker may be in another folder
        files = (p for p in self.path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        self._files = sorted((p.relative_to(self.path) for p in files), key=Path.as_posix)
        if not self._files:
            raise UserError(f"{self.path} has no image ({', '.join(IMAGE_SUFFIXES)})")

    @cached_property
    def _entries(self) -> list[Entry]:
        """An entry for every image.

        Raises:
            UserError: a .json file has a key that is unknown or that the folder itself gives, or no
                image has a question.
        """
        first_fault, good = "", 0
        for file in self._files:
            try:
                self._question(file)
                good += 1
            except BadSample as fault:  # sample() reports it
                first_fault = first_fault or f"{file}: {fault}"
        if not good:
            raise UserError(f"no image of {self.path} can be used; {first_fault}")
        ids = unique_ids("", (_encodable(file.as_posix()) for file in self._files))
        folders = (file.parent.as_posix() for file in self._files)
        return [
            Entry(name, "" if folder == "." else _encodable(folder))
            for name, folder in zip(ids, folders, strict=True)
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
                place = inside(self.path, beside.as_posix())
                with place.open("rb") as opened:
                    data = opened.read(LONGEST_ROW + 1)
                return _row_beside(data, place) if suffix == ".json" else {"question": utf8(data)}
        stem = _encodable(file.stem)
        raise BadSample(f"no question: neither {stem}.txt nor {stem}.json is beside it")


def _row_beside(data: bytes, place: Path) -> dict[str, Any]:
    """Read a .json file beside an image.

    Raises:
        BadSample: as ``row_of``.
        UserError: as ``row_of``, or it has a key whose value the folder gives.
    """
    row = row_of(data, str(place))
    for key in ("id", "subject", "image", "images"):
        if key in row:
            raise UserError(
                f"{place}: {key!r} is not read from a file beside an image, whose path says it: "
                "leave it out"
            )
    return row


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
    options = () if row.get("options") in (None, []) else option_texts(row["options"])
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
        caption=text_of(row.get("caption")) or None,
    )


def _answer(answer: object, options: tuple[str, ...], letters: tuple[str, ...]) -> str | None:
    """Return an answer as text, or as a letter if there are options to choose from."""
    text = open_answer(answer)
    if not options:
        return text
    if text is not None and text not in letters and options.count(text) == 1:
        text = letters[options.index(text)]
    return checked_answer(text, letters)


def _image_key(row: dict[str, Any]) -> str:
    """Return what rows with the same images share: the paths."""
    names = [row.get("image")] if row.get("images") is None else row["images"]
    return "\n".join(map(text_of, names)) if isinstance(names, list) else ""


def _encodable(text: str) -> str:
    """The text with a question mark for what is not Unicode, as in a file name of other bytes."""
    return text.encode(errors="replace").decode()


def _known(language: str) -> str:
    if language not in LETTER_REQUESTS:
        raise unknown("language", language, LETTER_REQUESTS)
    return language
