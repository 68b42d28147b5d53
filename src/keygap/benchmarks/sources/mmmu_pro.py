"""MMMU-Pro: MMMU's harder questions, with up to ten options, or as a screenshot alone.

Three configurations of the same 1,730 questions: "standard (10 options)" and "standard (4 options)"
have MMMU's columns, "vision" has the whole question inside one picture, so that no token of its
prompt is a question's or an option's: all its text is the request for a letter, of role template,
and ``text_roles`` must say so. Prompts are the publisher's direct ones
(``mmmu-pro/prompts.yaml``).
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from PIL import Image

from keygap.benchmarks.formats.files import HubFiles, hub_files, local_files, origin
from keygap.benchmarks.formats.images import image_of
from keygap.benchmarks.formats.markers import interleaved
from keygap.benchmarks.formats.options import (
    checked_answer,
    lettered,
    option_lines,
    parse_options,
    required_question,
    text_of,
)
from keygap.benchmarks.formats.tables import Row, Tables
from keygap.benchmarks.sample import Entry, Piece, Sample, unique_ids
from keygap.benchmarks.sample_set import Benchmark
from keygap.errors import unknown

DATASET = "MMMU/MMMU_Pro"
REVISION = "563f3e84bb3b90893083a1f039cfa13077f2302b"
CONFIGS = {"10": "standard (10 options)", "4": "standard (4 options)", "vision": "vision"}
CHOICE = "Answer with the option letter from the given choices directly."
VISION = (
    f"{CHOICE} The last line of your response should be of the following format: "
    "'Answer: $LETTER' (without quotes) where LETTER is one of options."
)


class MMMUPro(Benchmark):
    """One configuration; its only split is test.

    Args:
        config: "10", "4" or "vision".
        split: "test".
        data: a parquet file or a folder of them with the publisher's columns; None means the Hub.

    Raises:
        UserError: no such split, no data, or data of another schema.
    """

    scoring = "mmmu"

    def __init__(self, config: str, split: str = "test", data: str | Path | None = None) -> None:
        if config not in CONFIGS:
            raise unknown("configuration of mmmu-pro", config, CONFIGS)
        if split != "test":
            raise unknown("split of mmmu-pro", split, ("test",))
        self.name = "mmmu-pro" if config == "10" else f"mmmu-pro-{config}"
        self.split, self.data = split, origin(data)
        self._vision = config == "vision"
        # the configurations' folders have spaces and brackets in their names
        hub = HubFiles(DATASET, REVISION, f"{CONFIGS[config]}/test-*.parquet")
        files = hub_files(hub) if data is None else local_files(data, (config, CONFIGS))
        needs = ("image",) if self._vision else ("question", "image_1")
        self._rows = Tables(files, ("id", "options", "answer", "subject", *needs))

    @cached_property
    def _entries(self) -> list[Entry]:
        rows = [(row.get("id"), row.get("subject")) for row in self._rows.scan(("id", "subject"))]
        ids = unique_ids(self.split, (name for name, _ in rows))
        return [Entry(name, text_of(row[1])) for name, row in zip(ids, rows, strict=True)]

    def index(self) -> list[Entry]:
        return self._entries

    def sample(self, number: int) -> Sample:
        row, entry = self._rows.row(number), self._entries[number]
        options = parse_options(row["options"])
        letters = lettered(options)
        answer = checked_answer(row["answer"], letters)
        question = "" if self._vision else required_question(row["question"])
        prompt, images = self._shown(row, question, option_lines(options, letters, "{}. {}"))
        return Sample(
            id=entry.id,
            images=images,
            question=question,
            prompt=prompt,
            answer=answer,
            options=options,
            subject=entry.subject,
            meta={"difficulty": text_of(row.get("topic_difficulty"))},
        )

    def _shown(
        self, row: Row, question: str, lines: list[str]
    ) -> tuple[tuple[Piece, ...], tuple[Image.Image, ...]]:
        if self._vision:
            return (Piece("image"), Piece("text", "template", VISION)), (image_of(row["image"]),)
        return interleaved(row, question, lines, CHOICE)
