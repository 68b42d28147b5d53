"""The data files of ``experiments/paper-micro.yaml``, in the folder beside it.

``python -m tests.benchmarks.study_files experiments/paper-micro`` writes them. Each benchmark has 24
rows in the publisher's schema: unusual rows that occur in real files, plain rows, and a bad last
row. One bad row in 24 (4.2 %) is below the share that stops a run.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

from . import fixtures

ROWS = 24
COLOURS = {
    "red": ("红色", (200, 30, 30)),
    "green": ("绿色", (30, 160, 60)),
    "blue": ("蓝色", (40, 60, 200)),
    "black": ("黑色", (0, 0, 0)),
    "yellow": ("黄色", (230, 210, 40)),
    "brown": ("棕色", (120, 70, 30)),
}
ENGLISH = list(COLOURS)
CHINESE = [name for name, _ in COLOURS.values()]
TEN = [*ENGLISH, "white", "grey", "“紫色”", "it's none of them"]


def bar(colour: int) -> bytes:
    """An image of a bar of that colour."""
    return fixtures.picture(colour=COLOURS[ENGLISH[colour]][1])


def mmmu() -> list[dict[str, Any]]:
    """Validation rows: two to ten options, an open question, images of every mode, a long one."""
    rows = fixtures.mmmu_rows()
    for n in range(len(rows), ROWS - 1):
        options = 2 + n % 5
        rows.append(
            fixtures.mmmu_row(
                f"validation_Art_{n}",
                question=f"Which colour is bar {n} in <image 1>?",
                options=repr(ENGLISH[:options]),
                answer="ABCDEF"[n % options],
                image_1=fixtures.cell(bar(n % options)),
            )
        )
    return [*rows, fixtures.mmmu_row("validation_Art_99", question="Is <image 2> red?")]


def mmmu_pro() -> list[dict[str, Any]]:
    """Rows with ten options each; the answer of the last is none of them."""
    rows = [
        fixtures.pro_row(
            f"test_{subject}_{n}",
            subject=subject,
            question=f"Which colour is bar {n} in <image 1>?",
            options=repr(TEN),
            answer="ABCDEF"[n % 6],
            image_1=fixtures.cell(bar(n % 6)),
        )
        for n, subject in enumerate(("History", "Music", "Physics") * (ROWS // 3))
    ]
    rows[-1]["answer"] = "K"
    return rows


def mmbench_cn() -> list[dict[str, Any]]:
    """Rows with two to four options, a missing option, hints; the last has broken base64."""
    rows = [row for row in fixtures.bench_rows("cn") if row["index"] < 1_000_000]
    rows.append(fixtures.bench_row(300, "cn", B="", C="蓝色", answer="C"))
    for n in range(len(rows), ROWS):
        options = 2 + n % 3
        rows.append(
            fixtures.bench_row(
                1000 + n,
                "cn",
                **dict(zip("ABCD", CHINESE[:options], strict=False)),
                question=f"第{n}张图中，“竖条”是什么颜色？",
                answer="ABCD"[n % options],
                image=base64.b64encode(bar(n % options)).decode(),
            )
        )
    rows[-1]["image"] = "x" * 99
    return rows


def write(folder: Path) -> None:
    """Write the files of all three, in the publishers' formats."""
    fixtures.write_mmmu(folder / "mmmu/validation-00000-of-00001.parquet", mmmu())
    path = folder / "mmmu-pro/test-00000-of-00001.parquet"
    fixtures.write_parquet(path, mmmu_pro(), fixtures.PRO)
    fixtures.write_bench_tsv(folder / "mmbench-cn/MMBench_DEV_CN.tsv", mmbench_cn())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
