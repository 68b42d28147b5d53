"""MMBench in English and Chinese: one image, an optional hint, two to four options.

The publisher's TSV files have images in base64; copies in parquet have them embedded. Circular
evaluation asks each question once for each option, with the options shifted. These copies are rows
of their own, with an index of 1,000,000 or more; the index modulo 1,000,000 is that of the
question. In the smaller of the publisher's two TSV formats, the image cell of a copy contains only
the index of the row that has the image.

The prompt is the one under which LLaVA reports MMBench and which the publisher's toolkit uses:
hint, question, options, and a request for the letter in the edition's language.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path

from PIL import Image

from keygap.benchmarks.formats.files import HubFiles, origin, source_files
from keygap.benchmarks.formats.images import image_of
from keygap.benchmarks.formats.options import (
    checked_answer,
    hinted_prompt,
    required_question,
    text_of,
)
from keygap.benchmarks.formats.tables import Row, Tables
from keygap.benchmarks.sample import LETTERS, BadSample, Entry, Sample, unique_ids
from keygap.benchmarks.sample_set import Benchmark
from keygap.errors import UserError, unknown

DATASET = "lmms-lab-encoder/MMBench"
REVISION = "56ba1af8954932c4804bd3f522e05ed96e63b654"
SPLITS = ("dev", "test")
LANGUAGES = {"en": "en", "cn": "zh"}  # the publisher's name of an edition -> its language
COPY = 1_000_000
REFERENCE = 64  # characters; a shorter image cell is the index of another row


class MMBench(Benchmark):
    """MMBench in English: one image, an optional hint, two to four options.

    Args:
        split: "dev", or "test", whose answers are not published.
        data: a TSV or parquet file with the publisher's columns, or a folder of such files; None
            means the Hub.

    Raises:
        UserError: there is no such split, or no data with the publisher's columns.
    """

    name = "mmbench"
    edition = "en"
    circular = False  # whether the index has the copies for circular evaluation

    def __init__(self, split: str = "dev", data: str | Path | None = None) -> None:
        if split not in SPLITS:
            raise unknown("split of mmbench", split, SPLITS)
        self.split, self.data = split, origin(data)
        hub = HubFiles(DATASET, REVISION, f"{self.edition}/{split}-*.parquet")
        files = source_files(data, hub, (split, SPLITS), (self.edition, LANGUAGES))
        self._rows = Tables(files, ("index", "question", "A", "B", "image", "category"), LETTERS)
        self._files = len(files)
        self._letters = [letter for letter in LETTERS if letter in self._rows.columns]

    @cached_property
    def _all(self) -> list[Entry]:
        """An entry for every row, copies too.

        Raises:
            UserError: several files have the same questions, such as two versions of one edition.
        """
        rows = [
            (_index(row.get("index")), text_of(row.get("category")))
            for row in self._rows.scan(("index", "category"))
        ]
        names = Counter(name for name, _ in rows if name)
        repeated, count = next(iter(names.most_common(1)), ("", 0))
        if self._files > 1 and count > 1:
            raise UserError(
                f"the files of {self.data or DATASET} hold the same questions twice, such as index "
                f"{repeated}: name the file that is meant"
            )
        ids = unique_ids(self.split, (name for name, _ in rows))
        return [
            Entry(name, category, image_key=_question(name), question_key=_question(name))
            for name, (_, category) in zip(ids, rows, strict=True)
        ]

    @cached_property
    def _listed(self) -> list[int]:
        """The numbers of the rows in the index."""
        return [n for n, entry in enumerate(self._all) if self.circular or not _is_copy(entry.id)]

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {entry.id: number for number, entry in enumerate(self._all)}

    @cached_property
    def _entries(self) -> list[Entry]:
        return [self._all[number] for number in self._listed]

    def index(self) -> list[Entry]:
        """List every question, in circular evaluation every copy."""
        return self._entries

    def sample(self, number: int) -> Sample:
        """Open the item at this position of the index."""
        row, entry = self._rows.row(self._listed[number]), self._entries[number]
        question, hint = required_question(row["question"]), text_of(row.get("hint"))
        given = {letter: text for letter in self._letters if (text := text_of(row[letter]))}
        letters, options = tuple(given), tuple(given.values())
        answer = checked_answer(row.get("answer"), letters)
        language = LANGUAGES[self.edition]
        return Sample(
            id=entry.id,
            images=(self._image(row),),
            question=question,
            prompt=hinted_prompt(1, hint, question, options, letters, language),
            answer=answer,
            options=options,
            option_letters=letters,  # the publisher sometimes leaves one out
            hint=hint or None,
            language=language,
            subject=entry.subject,
            meta={"l2_category": text_of(row.get("L2-category") or row.get("l2-category"))},
        )

    def _image(self, row: Row) -> Image.Image:
        """Open a row's own image, or that of the row it refers to, but follow no further."""
        cell = row["image"]
        if _is_reference(cell):
            name = cell.strip()
            if name not in self._row_of:
                raise BadSample(f"missing image: it refers to row {name}, which does not exist")
            cell = self._rows.row(self._row_of[name])["image"]
            if _is_reference(cell):
                raise BadSample(f"missing image: row {name} has none of its own")
        return image_of(cell)


class MMBenchCN(MMBench):
    """MMBench in Chinese."""

    name = "mmbench-cn"
    edition = "cn"


class MMBenchCircular(MMBench):
    """MMBench in English with the shifted copies, for circular evaluation."""

    name = "mmbench-circular"
    scoring = "circular"
    circular = True


class MMBenchCNCircular(MMBenchCN):
    """MMBench in Chinese with the shifted copies, for circular evaluation."""

    name = "mmbench-cn-circular"
    scoring = "circular"
    circular = True


def _index(cell: object) -> str:
    """Return a row's index; pandas writes 241.0 in a column that has gaps."""
    whole, _, rest = text_of(cell).partition(".")
    return whole if whole.isdecimal() and not rest.strip("0") else text_of(cell)


def _is_reference(cell: object) -> bool:
    return isinstance(cell, str) and len(cell) <= REFERENCE and cell.strip().isdecimal()


def _is_copy(name: str) -> bool:
    return name.isdecimal() and int(name) >= COPY


def _question(name: str) -> str:
    """Return the index that all copies of a question share; of a row without a number, its id."""
    return str(int(name) % COPY) if name.isdecimal() else name
