"""MMBench in English and Chinese: one image, an optional hint, two to four options.

The publisher's TSV has images in base64, parquet copies have them embedded. Circular evaluation
asks each question once per option, the options shifted: those copies are rows of their own, of
index 1,000,000 and more, that share the question's index modulo 1,000,000. In the smaller of the
publisher's two TSV formats a copy's image is only the index of the row that has it.

The prompt is the one under which LLaVA reports MMBench, in the publisher's toolkit too: hint,
question, options, and in each language the request for a letter.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from PIL import Image

from keygap.benchmarks.formats.files import HubFiles, hub_files, local_files, origin
from keygap.benchmarks.formats.images import image_of
from keygap.benchmarks.formats.options import (
    checked_answer,
    option_lines,
    required_question,
    text_of,
)
from keygap.benchmarks.formats.tables import Row, Tables
from keygap.benchmarks.sample import LETTERS, BadSample, Entry, Piece, Sample, unique_ids
from keygap.benchmarks.sample_set import Benchmark
from keygap.errors import unknown

DATASET = "lmms-lab-encoder/MMBench"
REVISION = "56ba1af8954932c4804bd3f522e05ed96e63b654"
SPLITS = ("dev", "test")
LANGUAGES = {"en": "en", "cn": "zh"}  # the publisher's word and the language's code
CHOICE = {
    "en": "Answer with the option's letter from the given choices directly.",
    "cn": "请直接回答选项字母。",
}
COPY = 1_000_000
REFERENCE = 64  # characters; a shorter image cell is the index of another row


class MMBench(Benchmark):
    """The questions of a language and split, or with ``circular`` all their copies too.

    Args:
        edition: "en" or "cn".
        circular: whether the copies for circular evaluation belong to the index.
        split: "dev", or "test", whose answers are not published.
        data: a TSV or parquet file or a folder of them with the publisher's columns; None means
            the Hub.

    Raises:
        UserError: no such split, no data, or data of another schema.
    """

    def __init__(
        self,
        edition: str,
        circular: bool = False,
        split: str = "dev",
        data: str | Path | None = None,
    ) -> None:
        if split not in SPLITS:
            raise unknown("split of mmbench", split, SPLITS)
        self.name = "mmbench" + "-cn" * (edition == "cn") + "-circular" * circular
        self.split, self.data = split, origin(data)
        self.has_copies = circular
        self.scoring = "circular" if circular else "plain"
        self._edition = edition
        self._circular = circular
        hub = HubFiles(DATASET, REVISION, f"{edition}/{split}-*.parquet")
        wanted = ((split, SPLITS), (edition, LANGUAGES))
        files = hub_files(hub) if data is None else local_files(data, *wanted)
        self._rows = Tables(files, ("index", "question", "A", "B", "image", "category"))
        self._letters = [letter for letter in LETTERS if letter in self._rows.columns]

    @cached_property
    def _all(self) -> list[Entry]:
        rows = [
            (_index(row.get("index")), text_of(row.get("category")))
            for row in self._rows.scan(("index", "category"))
        ]
        ids = unique_ids(self.split, (name for name, _ in rows))
        return [
            Entry(name, category, _question(name))
            for name, (_, category) in zip(ids, rows, strict=True)
        ]

    @cached_property
    def _places(self) -> list[int]:
        """The rows that the index names: all, or those that are no copies."""
        return [n for n, entry in enumerate(self._all) if self._circular or not _copy(entry.id)]

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {entry.id: number for number, entry in enumerate(self._all)}

    @cached_property
    def _entries(self) -> list[Entry]:
        return [self._all[place] for place in self._places]

    def index(self) -> list[Entry]:
        return self._entries

    def sample(self, number: int) -> Sample:
        place = self._places[number]
        row, entry = self._rows.row(place), self._all[place]
        question, hint = required_question(row["question"]), text_of(row.get("hint"))
        given = {letter: text for letter in self._letters if (text := text_of(row[letter]))}
        letters, options = tuple(given), tuple(given.values())
        answer = checked_answer(row.get("answer"), letters)
        lines = option_lines(options, letters, "{}. {}")
        prompt = [Piece("image")]
        prompt += [Piece("text", "hint", hint + "\n")] * bool(hint)
        prompt += [Piece("text", "question", question + "\n")]
        prompt += [Piece("text", "option", line) for line in lines]
        prompt += [Piece("text", "template", CHOICE[self._edition])]
        return Sample(
            id=entry.id,
            images=(self._image(row),),
            question=question,
            prompt=tuple(prompt),
            answer=answer,
            options=options,
            hint=hint or None,
            language=LANGUAGES[self._edition],
            subject=entry.subject,
            meta={
                "question": entry.image_key,
                "letters": "".join(letters),
                "l2_category": text_of(row.get("L2-category") or row.get("l2-category")),
            },
        )

    def _image(self, row: Row) -> Image.Image:
        """A row's image, its own or that of the row it refers to, never farther."""
        cell = row["image"]
        if _refers(cell):
            name = cell.strip()
            if name not in self._row_of:
                raise BadSample(f"missing image: it refers to row {name}, which is not there")
            cell = self._rows.row(self._row_of[name])["image"]
            if _refers(cell):
                raise BadSample(f"missing image: row {name} has none of its own")
        return image_of(cell)


def _index(cell: object) -> str:
    """A row's index; pandas writes a column that has gaps as 241.0."""
    whole, _, rest = text_of(cell).partition(".")
    return whole if whole.isdecimal() and not rest.strip("0") else text_of(cell)


def _refers(cell: object) -> bool:
    return isinstance(cell, str) and len(cell) <= REFERENCE and cell.strip().isdecimal()


def _copy(name: str) -> bool:
    return name.isdecimal() and int(name) >= COPY


def _question(name: str) -> str:
    """What the copies of a question share: its index; a row without a number stands alone."""
    return str(int(name) % COPY) if name.isdecimal() else name
