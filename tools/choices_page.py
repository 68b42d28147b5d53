"""Writes the tables and the figure of docs/choices.md from a study with choices.

Every number in that page's tables comes from here. The text between ``<!-- table NAME -->`` and
``<!-- end -->`` is replaced; what is around it is written by hand.

    python tools/choices_page.py STUDY [--page docs/choices.md] [--images docs/images]
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from keygap.choices.levels import GAUSSIANS
from keygap.choices.sentences import sentences
from keygap.choices.tables import ChoicesTable, percent, read_choices, share_cell
from keygap.reporting.papers import markdown

FIGURES = ("choices-mmd.png", "choices-jsd.png")


def statements(table: ChoicesTable) -> str:
    """Every statement, and in what share of the choices it holds for each model."""
    rows = [
        {
            "statement": f"{row['what']} ({row['measure'].upper()})",
            "model": row["model"],
            "share of the choices": share_cell(row),
            "choices": row["n_choices"],
        }
        for row in table.statements.to_dict("records")
    ]
    return markdown(pd.DataFrame(rows))


def variance(table: ChoicesTable) -> str:
    """The choices that move each number, those of at least one percent."""
    rows = table.variance[table.variance["with_interactions"] >= 0.01]
    shown = pd.DataFrame(
        {
            "number": rows["number"],
            "choice": rows["factor"],
            "% of the variance, alone": [percent(share) for share in rows["alone"]],
            "with interactions": [percent(share) for share in rows["with_interactions"]],
        }
    )
    return markdown(shown)


def ratios(table: ChoicesTable) -> str:
    """The median ratio over all other choices, by what moves it most."""
    rows = table.frame[table.frame["measure"] == "mmd"]
    keys = ["scale", "bias", "tokens"]
    found = rows.groupby(keys)["ratio"].median().reset_index()
    found["ratio"] = [f"{ratio:,.0f}" for ratio in found["ratio"]]
    return markdown(found.rename(columns={"ratio": "median ratio of all other choices"}))


def divergences(table: ChoicesTable) -> str:
    """Median JSD in nats by its estimator, between modalities and inside them."""
    rows = table.frame[(table.frame["measure"] == "jsd") & (table.frame["scale"] == "nats")]
    names = ["cross", "image_image", "text_text"]
    found = rows.groupby("estimator", sort=False)[names].median()
    return markdown(found.map("{:.3f}".format).reset_index())


def values(table: ChoicesTable) -> str:
    """Quartiles of the value between image and text under Gaussian kernels."""
    own = table.frame[table.frame["estimator"].isin(GAUSSIANS)]
    found = own.groupby("scale")["cross"].describe()[["min", "25%", "50%", "75%", "max"]]
    found.columns = ["smallest", "first quartile", "median", "third quartile", "largest"]
    return markdown(found.map("{:.3f}".format).reset_index())


def size(table: ChoicesTable) -> str:
    """How many choices there are, and in how many coordinates they were computed."""
    return (
        f"{len(table.frame):,} choices in {table.settings['coordinates']:,} sets of coordinates; "
        f"intervals leave out each of {table.settings['n_groups']} groups of samples."
    )


TABLES: dict[str, Callable[[ChoicesTable], str]] = {
    "size": size,
    "sentences": lambda table: "\n\n".join(
        sentences(table.statements, table.settings["published"]["source"])
    ),
    "statements": statements,
    "values": values,
    "ratios": ratios,
    "divergences": divergences,
    "variance": variance,
}


def main() -> None:
    """Write the page and copy the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--page", type=Path, default=Path("docs/choices.md"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    table = read_choices(options.study)
    text = options.page.read_text()
    for name, make in TABLES.items():
        pattern = rf"(<!-- table {name} -->\n).*?(<!-- end -->)"
        kept = make(table).replace("\\", "\\\\")  # a backslash is one, and no reference to a group
        text = re.sub(pattern, rf"\g<1>{kept}\n\g<2>", text, flags=re.DOTALL)
    options.page.write_text(text)
    for name in FIGURES:
        shutil.copy(options.study / "figures" / name, options.images / name)


if __name__ == "__main__":
    main()
