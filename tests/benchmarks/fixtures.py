"""Small benchmark files in the publishers' formats, with the unusual rows that real files have.

``python tests/benchmarks/fixtures.py FOLDER`` writes them all.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import struct
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CELL = pa.struct({"bytes": pa.binary(), "path": pa.string()})  # what `datasets` makes of an image
MMMU_TEXTS = [
    "id",
    "question",
    "options",
    "explanation",
    "img_type",
    "answer",
    "topic_difficulty",
    "question_type",
    "subfield",
]
MMMU = pa.schema(
    [(name, pa.string()) for name in MMMU_TEXTS] + [(f"image_{n}", CELL) for n in range(1, 8)]
)
PRO = pa.schema(
    [(n, pa.string()) for n in [*MMMU_TEXTS[:7], "subject"]]
    + [(f"image_{n}", CELL) for n in range(1, 8)]
)
VISION = pa.schema(
    [("id", pa.string()), ("image", CELL)]
    + [(name, pa.string()) for name in ("options", "answer", "subject")]
)
BENCH = [
    "index",
    "question",
    "hint",
    "A",
    "B",
    "C",
    "D",
    "answer",
    "category",
    "image",
    "source",
    "l2-category",
    "comment",
    "split",
]


def picture(
    mode: str = "RGB",
    size: tuple[int, int] = (24, 16),
    kind: str = "PNG",
    colour: tuple[int, int, int] = (200, 30, 30),
) -> bytes:
    """An encoded white image with a bar, red or of another colour if the mode has colours."""
    image = Image.new("RGB", size, "white")
    image.paste(colour, (size[0] // 4, 0, size[0] // 2, size[1]))
    if mode == "RGBA":
        image.putalpha(Image.new("L", size, 0))  # fully transparent
    elif mode != "RGB":
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def bomb(side: int = 30_000) -> bytes:
    """A short PNG file whose header claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def cell(data: bytes | None, name: str = "image.png") -> dict[str, Any]:
    return {"bytes": data, "path": name}


def mmmu_row(name: str = "validation_Art_1", **changes: Any) -> dict[str, Any]:
    row = dict.fromkeys(MMMU.names) | {
        "id": name,
        "question": "What does <image 1> show?",
        "options": "['a red bar', 'a blue bar', \"the artist's name\"]",
        "explanation": "",
        "img_type": "['Paintings']",
        "answer": "A",
        "topic_difficulty": "Easy",
        "question_type": "multiple-choice",
        "subfield": "Drawing",
        "image_1": cell(picture()),
    }
    return row | changes


def mmmu_rows() -> list[dict[str, Any]]:
    """Rows as they occur in real files."""
    quotes = repr(["“红色”，红。", 'say "no"', "it's", "a, b], ['c"])
    ten = repr([f"option {n}" for n in range(10)])
    shown = dict.fromkeys((f"image_{n}" for n in range(1, 8)), cell(picture()))
    return [
        mmmu_row("validation_Art_1"),
        mmmu_row("validation_Art_Theory_2", options="['yes', 'no']"),
        mmmu_row("validation_Math_3", options=ten, answer="J"),
        mmmu_row("validation_Physics_4", options=quotes, answer="D"),
        mmmu_row(
            "validation_Music_5",
            **shown,
            question="Rank <image 7>, <image 1> and <image 7>.",
            options="['<image 1>, <image 7>', '<image 2>', 'neither']",
        ),
        mmmu_row("validation_Biology_6", question_type="open", options="[]", answer="1/64"),
        mmmu_row("validation_Finance_7", image_1=cell(picture("RGBA"))),
        mmmu_row("validation_Design_8", image_1=cell(picture("P"))),
        mmmu_row("validation_Manage_9", image_1=cell(picture("CMYK", kind="JPEG"))),
        mmmu_row("validation_History_10", image_1=cell(picture("L", (2_000, 10)))),
        mmmu_row("validation_Geography_11", question="No marker at all?"),
    ]


def bad_mmmu_rows() -> dict[str, dict[str, Any]]:
    """Rows that cannot be used, by part of the reason."""
    return {
        "not among the options": mmmu_row(answer="Z"),
        "not text but list": mmmu_row(options="[['A', 'B', 'Not enough information']]"),
        "not a list": mmmu_row(options="__import__('os').system('true')"),
        "no question text": mmmu_row(question=" "),
        "the text shows <image 2>": mmmu_row(question="Compare <image 1> with <image 2>."),
        "the row has none": mmmu_row(question="Which?", image_1=None),
        "no bytes": mmmu_row(image_1=cell(None, "/etc/hostname")),
        "that are not an image": mmmu_row(image_1=cell(b"%!PS-Adobe-3.0 EPSF-3.0")),
        "of 1 options": mmmu_row(options="['only one']"),
        "of 30 options": mmmu_row(options=repr(["x"] * 30)),
        "type None is none of multiple-choice, open": mmmu_row(question_type=None),
        "the text shows <image 111111111>": mmmu_row(question=f"<image {'1' * 5000}>"),
    }


def pro_row(name: str = "test_History_1", **changes: Any) -> dict[str, Any]:
    row = {key: value for key, value in mmmu_row(name).items() if key in PRO.names}
    return row | {"subject": "History"} | changes


def vision_row(name: str = "test_History_1", **changes: Any) -> dict[str, Any]:
    row = {"id": name, "image": cell(picture()), "options": "['a', 'b', 'c']", "answer": "C"}
    return row | {"subject": "History"} | changes


def bench_row(index: int = 1, language: str = "en", **changes: Any) -> dict[str, Any]:
    english = language == "en"
    row = dict.fromkeys(BENCH, "") | {
        "index": index,
        "question": "Which colour is the bar?" if english else "图中的竖条是什么颜色？",
        "A": "red" if english else "红色",
        "B": "green" if english else "绿色",
        "answer": "A",
        "category": "attribute_recognition",
        "l2-category": "finegrained_perception",
        "source": "made",
        "split": "dev",
        "image": base64.b64encode(picture()).decode(),
    }
    return row | changes


def bench_rows(language: str = "en") -> list[dict[str, Any]]:
    """Two questions with their circular copies, one of them with a hint of several lines."""
    hint = 'First line,\twith a tab.\nSecond line, with "quotes".'
    first = bench_row(1, language)
    shifted = first | {"A": first["B"], "B": first["A"], "answer": "B", "index": 1_000_001}
    second = bench_row(241, language, hint=hint, C="blue，蓝。", answer="C", category="logic")
    letters = [second[key] for key in "ABC"]
    copies = [
        second
        | dict(zip("ABC", letters[n:] + letters[:n], strict=True))
        | {"index": n * 1_000_000 + 241, "answer": "CBA"[n], "image": "241"}
        for n in (1, 2)
    ]
    return [first, second, shifted, *copies]


def write_parquet(
    path: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema, group: int = 100
) -> Path:
    """Write rows to a parquet file, one row group at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, schema) as writer:
        for row in rows:
            waiting.append(row)
            if len(waiting) == group:
                writer.write_table(pa.Table.from_pylist(waiting, schema), row_group_size=group)
                waiting.clear()
        if waiting:
            writer.write_table(pa.Table.from_pylist(waiting, schema))
    return path


def write_mmmu(path: Path, rows: Iterable[dict[str, Any]], group: int = 100) -> Path:
    return write_parquet(path, rows, MMMU, group)


def write_bench_tsv(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write a TSV file as the publisher did with pandas: fields are quoted only if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, BENCH, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_bench_parquet(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write a file like the copy on the Hub: an image in every row, "nan" in empty cells."""
    names = ["L2-category" if name == "l2-category" else name for name in BENCH]
    types = {"index": pa.int64(), "image": CELL}
    whole = [dict(row) for row in rows]
    images = {str(row["index"]): row["image"] for row in whole}
    for row in whole:
        data = images.get(row["image"], row["image"])
        row["L2-category"] = row.pop("l2-category")
        row |= {key: value if value != "" else "nan" for key, value in row.items()}
        row["image"] = cell(base64.b64decode(data))
    schema = pa.schema([(name, types.get(name, pa.string())) for name in names])
    return write_parquet(path, whole, schema)


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_all(folder: Path) -> None:
    """Write every kind of file, in the folders that the publishers use."""
    by_subject = mmmu_rows()
    for row in by_subject:
        subject = row["id"].removeprefix("validation_").rpartition("_")[0]
        write_mmmu(folder / "mmmu" / subject / "validation-00000-of-00001.parquet", [row])
    pro = folder / "mmmu-pro"
    for name in ("standard (10 options)", "standard (4 options)"):
        write_parquet(pro / name / "test-00000-of-00001.parquet", [pro_row()], PRO)
    write_parquet(pro / "vision/test-00000-of-00001.parquet", [vision_row()], VISION)
    for language in ("en", "cn"):
        rows = bench_rows(language)
        write_bench_tsv(folder / f"mmbench/MMBench_DEV_{language.upper()}.tsv", rows)
        write_bench_parquet(folder / f"hub/{language}/dev-00000-of-00001.parquet", rows)


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
