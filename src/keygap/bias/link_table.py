"""The table of ``kg.link``, its file, and what it says in words.

It needs no model and no vectors, so a report can read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from keygap.display import as_html, between, brief, counted
from keygap.errors import UserError
from keygap.store import save_results
from keygap.store.reading import read_csv
from keygap.store.results import is_recorded, result_checksums
from keygap.store.run import LINK

CHAIN = ("separation", "similarity", "attention", "answer")
ALL = "all"  # the head of rows about the mean over heads
COLUMNS = (
    "layer", "head", "link", "measure", "value", "ci_low", "ci_high", "p_value", "p_holm", "found",
    "detectable", "n_samples", "outcome", "text_roles",
)  # fmt: skip
_LATER = ("outcome", "text_roles")  # which a file of an earlier version lacks


@dataclass(frozen=True)
class LinkTable:
    """What ``kg.link`` found.

    Attributes:
        frame: one row per layer, head, link and measure (``COLUMNS``). ``head`` is a number, or
            ``all`` for the mean over heads. ``link`` is ``EARLIER -> LATER``. ``measure`` is
            ``spearman``, ``partial`` (covariates held fixed), ``path`` (a standardised coefficient,
            covariates and the quantities before held fixed) or ``indirect`` (the product of the
            paths of the chain). ``p_holm`` is adjusted over layers and heads; for the rows
            ``all``, over layers. ``found`` says that it is at most 0.05 and that the interval
            excludes 0. ``detectable`` is the smallest correlation that would have been found with a
            probability of 0.8: a rank correlation for ``spearman``, a partial rank correlation for
            the other measures. For an indirect effect, each of the three links must be at least
            this strong. ``outcome`` says what a larger ``answer`` means, and ``text_roles`` which
            tokens are text; they are the same in all rows.
        notes: what could not be measured, and why; which covariates are held fixed.
    """

    frame: pd.DataFrame
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def outcome(self) -> str:
        """What a larger ``answer`` means; empty if that is not known."""
        return self._said("outcome")

    @property
    def text_roles(self) -> list[str]:
        """The roles of the tokens that count as text; empty if they are not known."""
        return [role for role in self._said("text_roles").split(", ") if role]

    def _said(self, column: str) -> str:
        return str(self.frame[column].iloc[0]) if len(self.frame) else ""

    def summary(self) -> list[str]:
        """Say in one line for each link, and for the chain, whether it was found."""
        return summarise(self.frame)

    def __repr__(self) -> str:
        heads = self.frame[self.frame["head"] != ALL]
        found = counted(int(heads["found"].astype(bool).sum()), "test")
        where = counted(len(heads[["layer", "head"]].drop_duplicates()), "head")
        n = int(self.frame["n_samples"].max()) if len(self.frame) else 0
        return brief(f"LinkTable({where}, {n} samples: {found} of {len(heads):,} found a link)")

    def _repr_html_(self) -> str:
        shown = self.frame[
            (self.frame["head"] == ALL) & self.frame["measure"].isin(["partial", "indirect"])
        ]
        n = int(self.frame["n_samples"].max()) if len(self.frame) else 0
        outcome = f"answer: {self.outcome}. " if self.outcome else ""
        caption = (
            f"Links from the separation of keys to the answer, over {n} samples, means over heads. "
            "partial: rank correlation with covariates held fixed; indirect: product of the "
            "standardised coefficients of the chain (no unit). 95 % intervals by bootstrap over "
            "samples; p_holm is adjusted for layers and heads; detectable: what would have been "
            f"found with a probability of 0.8. {outcome}.frame has every head and measure."
        )
        cells = {
            "value (95 % interval)": [
                between(*row) for row in shown[["value", "ci_low", "ci_high"]].to_numpy(float)
            ]
        }
        kept = ["layer", "link", "measure", "p_holm", "found", "detectable", "n_samples"]
        frame = pd.DataFrame(shown[kept].reset_index(drop=True).assign(**cells))
        order = [*kept[:3], *cells, *kept[3:]]
        return as_html(caption, frame[order], (*self.summary(), *self.notes))

    def save(self, folder: str | Path) -> None:
        """Write ``link.csv``.

        Args:
            folder: the run folder, or any other.

        Raises:
            UserError: another process writes in the folder, the disk is full, or the folder
                cannot be written.
        """
        save_results(folder, {LINK: self.frame.to_csv(index=False)})


def summarise(frame: pd.DataFrame) -> list[str]:
    """Say in one line for each link, and for the chain, whether it was found.

    Args:
        frame: of a ``LinkTable``.
    """
    heads = frame[(frame["head"] != ALL) & frame["measure"].isin(["partial", "indirect"])]
    lines = []
    for (name, measure), rows in heads.groupby(["link", "measure"], sort=False):
        what = " -> ".join(CHAIN) if measure == "indirect" else str(name)
        lines.append(f"{what}: {_verdict(rows, measure == 'indirect')}")
    return lines


def _verdict(rows: pd.DataFrame, is_chain: bool) -> str:
    kind = "chain" if is_chain else "link"
    found = rows[rows["found"].astype(bool)]
    first = rows.iloc[0]
    if found.empty:
        where = "on each of its links would" if is_chain else "would"
        return (
            f"no {kind} found at {len(rows)} heads; with {first['n_samples']:.0f} samples a "
            f"partial rank correlation of at least {first['detectable']:.2f} {where} have been seen"
        )
    best = found.sort_values("value", key=abs).iloc[-1]
    size = "indirect effect" if is_chain else "partial rank correlation"
    return (
        f"{kind} found at {len(found)} of {len(rows)} heads; the strongest is layer "
        f"{best['layer']}, head {best['head']}: {size} {best['value']:.2f} "
        f"({best['ci_low']:.2f} to {best['ci_high']:.2f})"
    )


def read_link(folder: str | Path) -> LinkTable:
    """Read the table of a run folder; notes are not saved with it.

    A table of an earlier version has an empty ``outcome`` and no ``text_roles``.

    Raises:
        UserError: the table is missing, damaged or of another run.
    """
    root = Path(folder)
    remedy = "measure the link again"
    if not is_recorded(root, LINK):
        raise UserError(f"{root} has no {LINK}: {remedy}")
    sums = result_checksums(root, LINK, remedy)
    text = ("head", "link", "measure", "found", *_LATER)
    options: dict[str, Any] = {"dtype": dict.fromkeys(text, str)}
    required = [name for name in COLUMNS if name not in _LATER]
    frame = read_csv(root / LINK, remedy, required, text, sums, **options)
    known = {name: frame[name].fillna("") if name in frame else "" for name in _LATER}
    return LinkTable(frame.assign(found=frame["found"] == "True", **known))
