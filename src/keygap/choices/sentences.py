"""What a specification curve says in plain sentences: what is robust, and what is not.

A statement is *robust* if the 95 % interval of its share lies above 95 % of the choices for every
model, benchmark and site, and *fails* if it lies below 5 % for every one. In between, whether it
holds depends on what was chosen. Without an interval nothing is called either. Comparisons of
layers are in the table of statements and not in the sentences: they are not statements about
modalities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from keygap.choices.tables import ROBUST, percent
from keygap.display import counted
from keygap.text import one_line

HOLDS, FAILS, CHOICE, BY_MODEL, NO_INTERVAL = (
    "robust", "fails", "a choice", "by model", "no interval",
)  # fmt: skip
ABOVE = " > "  # in a statement about two layers, and in the names of two models
MOST_LISTED = 8  # clauses of one kind that a sentence lists
LONGEST = 200  # characters of one statement
_IDENTITY = ["statement", "measure", "what", "pair"]


@dataclass(frozen=True)
class _Statement:
    """One statement over all models, benchmarks and sites.

    Attributes:
        what: the statement as a clause; of an order of two models, their names.
        measure: ``MMD`` or ``JSD`` where both have this statement, or else empty.
        shares: from the smallest to the largest, in percent.
        verdict: one of the above.
    """

    what: str
    measure: str
    shares: str
    verdict: str


def verdict_of(row: Mapping[Any, Any]) -> str:
    """What the share of a statement for one model, benchmark and site says.

    Args:
        row: of the ``statements`` of a ``ChoicesTable``.

    Returns:
        ``robust``, ``fails``, ``a choice`` or ``no interval``; empty if the share is NaN.
    """
    if math.isnan(row["share"]):
        return ""
    if math.isnan(row["share_low"]) or math.isnan(row["share_high"]):
        return NO_INTERVAL
    if row["share_low"] > ROBUST:
        return HOLDS
    return FAILS if 1 - row["share_high"] > ROBUST else CHOICE


def sentences(statements: pd.DataFrame, source: str = "") -> list[str]:
    """Say which statements hold whatever is chosen, and which depend on the choice.

    Args:
        statements: of a ``ChoicesTable``.
        source: what the statements are of, such as a citation; may be empty.

    Returns:
        One to three sentences.
    """
    found = _over_models(statements)
    if not found:
        return ["No statement was tested: no choice has the numbers that one needs."]
    groups = {
        verdict: [one for one in found if one.verdict == verdict]
        for verdict in (HOLDS, FAILS, BY_MODEL, CHOICE, NO_INTERVAL)
    }
    of = f" of {one_line(source, LONGEST)}" if source else ""
    said = []
    if decided := _decided(groups):
        said.append(f"Of {counted(len(found), 'statement')}{of}, {decided}.")
    if chosen := groups[CHOICE]:
        number = len(chosen)
        what = "it holds" if number == 1 else "they hold"
        if len(found) > number:
            what = "the other one holds" if number == 1 else f"the other {number} hold"
        said.append(f"Whether {what} depends on the choices: {_listed(chosen)}.")
    if unknown := groups[NO_INTERVAL]:
        which = counted(len(unknown), "statement") + ("" if decided else of)
        called = "it is" if len(unknown) == 1 else "they are"
        said.append(
            f"For {which} no interval over samples was computed, so {called} called neither robust "
            f"nor a choice: {_listed(unknown)}."
        )
    return said


def moved_most(variance: pd.DataFrame) -> str:
    """Say which factor moves each number most; empty if no variance was computed.

    Args:
        variance: of a ``ChoicesTable``.
    """
    known = variance.dropna(subset="alone")
    most = []
    for number, own in known.groupby("number", sort=False):
        first = own.iloc[int(own["alone"].to_numpy().argmax())]
        if first["alone"] > 0:
            shares = [percent(min(first[name], 1.0)) for name in ("alone", "with_interactions")]
            most.append(
                f"{one_line(number, LONGEST)} by {first['factor']} ({shares[0]} % of its variance "
                f"alone, {shares[1]} % with interactions)"
            )
    return f"The choice that moves each number most: {_and(most)}." if most else ""


def _decided(groups: Mapping[str, Sequence[_Statement]]) -> str:
    """The part about statements that do not depend on what is chosen; empty if none was judged."""
    holds, fails, by_model = (groups[name] for name in (HOLDS, FAILS, BY_MODEL))
    if not (holds or fails or by_model or groups[CHOICE]):
        return ""
    parts = ["none holds whatever is chosen"]
    if holds:
        verb = "holds" if len(holds) == 1 else "hold"
        parts = [f"{len(holds)} {verb} whatever is chosen: {_listed(holds)}"]
    if fails:
        verb = "fails" if len(fails) == 1 else "fail"
        parts.append(f"{len(fails)} {verb} whatever is chosen: {_listed(fails)}")
    if by_model:
        holds_for, fails_for = ("holds", "fails") if len(by_model) == 1 else ("hold", "fail")
        parts.append(
            f"{len(by_model)} {holds_for} for some models, benchmarks or sites and {fails_for} for "
            f"others, whatever is chosen: {_listed(by_model)}"
        )
    return "; ".join(parts)


def _over_models(statements: pd.DataFrame) -> list[_Statement]:
    """Every statement once, in the order of the table."""
    known = statements.dropna(subset="share")
    known = known[~known["statement"].str.contains(ABOVE, regex=False)]
    pair = known["model"].where(known["model"].str.contains(ABOVE, regex=False), "")
    found = []
    for (_, measure, what, names), own in known.assign(pair=pair).groupby(_IDENTITY, sort=False):
        verdicts = {verdict_of(row) for row in own.to_dict("records")}
        verdict = CHOICE
        if len(verdicts) == 1:
            (verdict,) = verdicts
        elif NO_INTERVAL in verdicts:
            verdict = NO_INTERVAL
        elif CHOICE not in verdicts:
            verdict = BY_MODEL
        text = one_line(str(names).replace(ABOVE, " above ") or what, LONGEST)
        same = (known["what"] == what) & (pair == names)
        several = known.loc[same, "measure"].nunique() > 1
        by = str(measure).upper() if several else ""
        found.append(_Statement(text, by, _range(own["share"]), verdict))
    return found


def _range(shares: pd.Series) -> str:
    low, high = percent(shares.min()), percent(shares.max())
    return f"{low} %" if low == high else f"{low} to {high} %"


def _listed(statements: Sequence[_Statement]) -> str:
    """Statements with their shares of the choices, each clause once."""
    clauses: dict[str, list[_Statement]] = {}
    for one in statements:
        clauses.setdefault(one.what, []).append(one)
    listed: list[str] = []
    for what, same in [*clauses.items()][:MOST_LISTED]:
        shares = (f"by {one.measure} in" if one.measure else "in" for one in same)
        text = _and([f"{how} {one.shares}" for how, one in zip(shares, same, strict=True)])
        listed.append(f"{what} ({text}{'' if listed else ' of the choices'})")
    if (others := sum(map(len, [*clauses.values()][MOST_LISTED:]))) > 0:
        listed.append(counted(others, "other"))
    return _and(listed)


def _and(parts: Sequence[str]) -> str:
    """Parts with commas and one "and"."""
    return ", ".join(parts[:-1]) + f" and {parts[-1]}" if len(parts) > 1 else "".join(parts)
