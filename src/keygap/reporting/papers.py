"""The first table and the data of the ratio figure as files for a paper.

``figures/`` has each figure as PNG, SVG and PDF. Beside them lie the first table of the report as
LaTeX (booktabs) and Markdown, and the numbers of the ratio figure as CSV.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from keygap.reporting.forest import rows_of
from keygap.reporting.run import Run
from keygap.store import write_text
from keygap.store.run import FIGURES

HEADINGS = {
    "model": "model",
    "place": "where",
    "gap": "MMD², image and text (95 %)",
    "highest": "largest inside one modality",
    "ratio": "ratio (95 %)",
    "samples": "samples",
    "accuracy": "accuracy",
}
RATIO_COLUMNS = ["model", "benchmark", "site", "layer", "contrast", "ratio", "ratio_ci_low",
                 "ratio_ci_high", "highest", "n_samples"]  # fmt: skip


def write_for_papers(runs: Sequence[Run], headline: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write the files.

    Args:
        runs: the runs of the report.
        headline: rows of its first table.
        out: the folder of the report.

    Raises:
        UserError: a file cannot be written.
    """
    table = pd.DataFrame(list(headline), columns=list(HEADINGS)).rename(columns=HEADINGS)
    table["accuracy"] = [f"{value:.3f}" if pd.notna(value) else "" for value in table["accuracy"]]
    folder = out / FIGURES
    latex = table.style.hide(axis="index").format(escape="latex")
    latex = latex.format_index(escape="latex", axis=1)
    write_text(folder / "headline.tex", latex.to_latex(hrules=True, column_format="llrlrrr"))
    write_text(folder / "headline.md", f"{markdown(table)}\n")
    sites = dict.fromkeys(site for run in runs for site in run.table.frame["site"])
    ratios = [rows_of(runs, site) for site in sites]
    data = pd.concat(ratios, ignore_index=True)[RATIO_COLUMNS] if ratios else pd.DataFrame()
    write_text(folder / "ratio.csv", data.to_csv(index=False))


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown.

    Args:
        table: its cells are written as text; a bar in one would begin another cell and is escaped.
    """
    rows = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
