"""How results show themselves: cells of a printed table, a short ``repr``, and HTML in a notebook.

All public results come through here, so that they look alike and none forgets to escape the names
and messages of files and other libraries that it shows.
"""

from __future__ import annotations

import hashlib
import html
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from keygap.text import one_line, printable

if TYPE_CHECKING:
    import pandas as pd

LONGEST_REPR = 200
MOST_ROWS = 60  # of a table in a notebook
MOST_NOTES = 10  # that a notebook shows without a click
LONGEST_CELL = 400
SHORT = 30  # characters of cells that stay on one line


def shown(value: object) -> str:
    """Format a cell: nothing for what is missing, and "no bound" for infinity."""
    if value is None or type(value).__name__ == "NAType":
        return ""
    if isinstance(value, float):
        if math.isinf(value):
            return "no bound"
        return "" if math.isnan(value) else f"{value:.3g}"
    return printable(value)


def between(value: float | None, low: float | None, high: float | None, digits: int = 3) -> str:
    """A value with the ends of its interval, as far as they are known."""
    if value is None or math.isnan(value):
        return ""
    ends = (low, high)
    if any(end is None or math.isnan(end) for end in ends):
        return f"{value:.{digits}g}"
    low_end, high_end = (
        "no bound" if math.isinf(end) else f"{end:.{digits}g}" for end in ends if end is not None
    )
    return f"{value:.{digits}g} ({low_end} to {high_end})"


def brief(text: str) -> str:
    """A ``repr`` on one line, of at most ``LONGEST_REPR`` characters."""
    return one_line(text, LONGEST_REPR - len(" [...] "))


def names(items: Iterable[object], most: int = 3) -> str:
    """Names in a list, each once; of many the first ones and how many others there are."""
    found = list(dict.fromkeys(map(str, items)))
    listed = ", ".join(one_line(name, 60) for name in found[:most])
    return listed if len(found) <= most else f"{listed} and {len(found) - most} others"


def ranges(numbers: Iterable[int]) -> str:
    """Numbers in order, with runs of them joined: 0-3, 7."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def counted(number: int, noun: str) -> str:
    """A number with its noun, such as "1 layer" and "1,200 layers"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def as_html(caption: str, frame: pd.DataFrame, notes: Iterable[object] = ()) -> str:
    """A result as HTML: a caption, its table, and its notes, with all text escaped.

    Args:
        caption: what the table shows: units, what an interval is, and how many samples.
        frame: the table; of more than ``MOST_ROWS`` rows the first ones are shown.
        notes: what could not be measured, and cautions. Many are folded.
    """
    rows = frame.head(MOST_ROWS).reset_index(drop=True)
    lines = [one_line(note) for note in notes]
    if len(frame) > len(rows):
        lines.insert(0, f"{len(rows)} of {len(frame):,} rows are shown.")
    # A caption inside the table would be as narrow as a narrow table.
    said = html.escape(one_line(caption, 2000))
    head = f'<figcaption style="max-width: 60em">{said}</figcaption>'
    body = f"{head}{_table(rows)}{_list(lines)}"
    return f'<figure style="margin: 0; overflow-x: auto">{body}</figure>'


def _table(frame: pd.DataFrame) -> str:
    import pandas as pd
    from pandas.io.formats.style import Styler

    numeric = [place for place, kind in enumerate(frame.dtypes) if kind.kind in "iufb"]
    cells: Any = {
        place: [one_line(shown(value), LONGEST_CELL) for value in frame.iloc[:, place]]
        for place in range(frame.shape[1])
    }
    text = pd.DataFrame(cells, index=frame.index, dtype=object)
    heads = [one_line(name, LONGEST_CELL) for name in frame.columns]
    # The same result has the same HTML, and the style of a table touches no other in the notebook.
    digest = hashlib.sha256(repr((heads, cells)).encode()).hexdigest()
    style = Styler(text, uuid=digest[:12], cell_ids=False)
    style.hide(axis="index").format(escape="html")
    style.set_table_attributes('class="dataframe"')
    rules: list[Any] = []
    for place, own in cells.items():
        side = "right" if place in numeric else "left"
        wrap = "nowrap" if max(map(len, own), default=0) <= SHORT else "normal"
        props = f"text-align: {side}; white-space: {wrap}"
        rules.append({"selector": f".col{place}", "props": props})
    style.set_table_styles(rules)
    if heads:
        style.relabel_index([html.escape(head) for head in heads], axis="columns")
    return style.to_html()


def _list(lines: list[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    if len(lines) <= MOST_NOTES:
        return f"<ul>{items}</ul>"
    return f"<details><summary>{len(lines)} notes</summary><ul>{items}</ul></details>"
