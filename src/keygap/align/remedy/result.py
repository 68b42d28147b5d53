"""What a search for a remedy found, in a table, in sentences and in files.

The value of the choosing set is shown beside that of the test set, because the difference of the
two is what the choice itself has added. A search that found nothing says so, and how near it came.
Nothing here needs a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from keygap.align.remedy.comparing import CHOOSING, SECOND, TEST, Rule, row_of
from keygap.display import as_html, brief
from keygap.errors import UserError
from keygap.store import save_results
from keygap.store.results import Content
from keygap.store.run import REMEDY, REMEDY_MAP, REMEDY_SETTINGS

if TYPE_CHECKING:
    from keygap.align.remedy.change import Change
    from keygap.models.vlm import VLM

POINT = 100  # percentage points of a share
_SHARES = ("following", "accuracy", "accuracy_conflict")


@dataclass(frozen=True)
class Cost:
    """What a change costs.

    Attributes:
        time_ratio: of a forward pass with the change to one without, median over rounds.
        fastest: the smallest ratio of a round.
        slowest: the largest.
        seconds_per_token: of a pass without the change.
        tokens: of the prompts of a pass.
        rounds: how many.
        parameters: the numbers that the change adds to the model.
        device: where the model was.
    """

    time_ratio: float
    fastest: float
    slowest: float
    seconds_per_token: float
    tokens: int
    rounds: int
    parameters: int
    device: str

    def sentence(self) -> str:
        """The cost in words."""
        return (
            f"The cost of a token is {self.time_ratio:.3f} times that without the remedy "
            f"({self.fastest:.3f} to {self.slowest:.3f} in {self.rounds} alternating rounds of "
            f"{self.tokens:,} tokens on {self.device}), and {self.parameters:,} "
            f"{'number is' if self.parameters == 1 else 'numbers are'} added to the model."
        )


@dataclass(frozen=True, repr=False)
class Remedy:
    """What the search found for one model.

    Attributes:
        frame: one row per stage, candidate, measure and phrasing (``comparing.COLUMNS``):
            differences to the model as it is, paired by sample, with 95 % intervals. The stage
            ``choosing`` has all candidates, ``test`` and ``second`` the chosen one alone.
        rule: what chose.
        change: what can be applied to a model; None if no remedy was found.
        cost: of the change; None with it.
        settings: what was asked, as plain values.
    """

    frame: pd.DataFrame
    rule: Rule
    change: Change | None = None
    cost: Cost | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def candidates(self) -> pd.DataFrame:
        """The candidates on the choosing set, the best one first (``Rule.candidates``)."""
        return self.rule.candidates(self.frame)

    @property
    def chosen(self) -> str | None:
        """The candidate that the choosing set speaks for, confirmed or not; None without one."""
        return self.rule.chosen(self.frame)

    @property
    def found(self) -> bool:
        """Whether the test set confirms the chosen candidate."""
        return self.chosen is not None and self.rule.confirmed(self.frame)

    @property
    def test(self) -> pd.DataFrame:
        """The rows of the chosen candidate on samples that did not choose it."""
        return self.frame[self.frame["stage"] != CHOOSING].reset_index(drop=True)

    def applied(self, vlm: VLM) -> AbstractContextManager[None]:
        """Let the remedy act on a model while a block runs.

        Args:
            vlm: the model.

        Raises:
            UserError: no remedy was found, or it does not fit the model.
        """
        if self.change is None:
            raise UserError("the search found no remedy: there is none to apply")
        return self.change.applied(vlm)

    def summary(self) -> str:
        """Say what was found and what it is worth, one sentence or more in each line."""
        best = self.candidates.iloc[0]
        loss = f"{self.rule.most_loss * POINT:g} points of accuracy"
        if self.chosen is None:
            return "\n".join(
                [f"No remedy was found for {self._model}.", self._why_none(best, loss)]
            )
        lines = [self._of_choice(best, loss), self._on(TEST, "Test set")]
        stages = set(self.frame["stage"])
        if SECOND in stages:
            lines.append(self._on(SECOND, "Second benchmark"))
        if self.found:
            lines = [f"A remedy was found for {self._model}: {self.what}.", *lines]
            lines.append(self._of_accuracy())
        else:
            lines = [f"No remedy was found for {self._model}.", *lines, self._why_not()]
        return "\n".join(lines if self.cost is None else [*lines, self.cost.sentence()])

    def save(self, folder: str | Path) -> None:
        """Write ``remedy.csv``, ``remedy.yaml`` and, if a map is the remedy, the map.

        Args:
            folder: gets ``remedy.safetensors`` too, for a map.

        Raises:
            UserError: another process writes in the folder, the disk is full, or the folder
                cannot be written.
        """
        values = {
            "found": self.found,
            "chosen": self.chosen,
            "summary": self.summary().splitlines(),
            "change": None if self.change is None else self.change.as_plain(),
            "cost": None if self.cost is None else asdict(self.cost),
            "rule": asdict(self.rule),
            "settings": dict(self.settings),
        }
        files: dict[str, Content] = {REMEDY: self.frame.to_csv(index=False)}
        if self.change is not None and self.change.fitted is not None:
            files[REMEDY_MAP] = self.change.fitted.as_bytes()
        files[REMEDY_SETTINGS] = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        save_results(folder, files)

    @property
    def what(self) -> str:
        """The best candidate in words."""
        return _named(self.candidates.iloc[0])

    @property
    def _model(self) -> str:
        return str(self.frame["model"].iloc[0])

    def _of_choice(self, best: pd.Series, loss: str) -> str:
        count = len(self.candidates)
        among = "the only candidate," if count == 1 else f"the best of {count} candidates,"
        return (
            f"On the choosing set, {among} {_named(best)}, changes following of the wrong hint by "
            f"{_points(best, 'following')} and accuracy by {_points(best, 'accuracy')}; at most "
            f"{loss} may be lost. The best of many candidates looks better than it is, so only the "
            "results on samples that were not used for the choice count."
        )

    def _on(self, stage: str, where: str) -> str:
        """The values of a stage before and after."""
        row = row_of(self.frame, stage, "following")
        n = self.frame.loc[
            (self.frame["stage"] == stage) & (self.frame["measure"] == "accuracy"), "n"
        ]
        what = {
            "following": "following of the wrong hint",
            "accuracy": "accuracy without a hint",
            "accuracy_conflict": "accuracy under the wrong hint",
            "margin": "margin of the right answer without a hint",
            "hint_effect": "effect of the hint",
        }
        parts = [_moved(row_of(self.frame, stage, name), words) for name, words in what.items()]
        known = [part for part in parts if part]
        return f"{where} ({row['benchmark']}, {int(n.iloc[0])} samples): {'; '.join(known)}."

    def _why_none(self, best: pd.Series, loss: str) -> str:
        found = self.candidates
        fine = found[found["keeps"] & found["complete"]]
        if found["lowers"].any():
            cost = found[found["lowers"]].sort_values("following").iloc[0]
            return (
                f"Of {len(found)} candidates, {int(found['lowers'].sum())} lower following of the "
                f"wrong hint on the choosing set, and each of them loses more than {loss} or "
                f"leaves samples unanswered: {_named(cost)} changes following by "
                f"{_points(cost, 'following')} and accuracy by {_points(cost, 'accuracy')}."
            )
        near = (fine if len(fine) else found).sort_values("following").iloc[0]
        return (
            f"Of {len(found)} candidates, none lowers following of the wrong hint on the choosing "
            f"set with an interval below 0; the nearest is {_named(near)}, which changes it by "
            f"{_points(near, 'following')}."
        )

    def _why_not(self) -> str:
        following = row_of(self.frame, TEST, "following")
        if following["missing"] > 0:
            return "The test set does not confirm it: some samples go unanswered under it."
        if not following["ci_high"] < 0:
            return (
                "The test set does not confirm it: the interval of the change of following "
                "includes 0."
            )
        return (
            "The test set does not confirm it: accuracy falls by more than "
            f"{self.rule.most_loss * POINT:g} points."
        )

    def _of_accuracy(self) -> str:
        row = row_of(self.frame, TEST, "accuracy")
        most = f"{self.rule.most_loss * POINT:g} points"
        if row["ci_low"] >= -self.rule.most_loss:
            return f"A loss of more than {most} of accuracy is excluded with 95 % confidence."
        return (
            f"A loss of more than {most} of accuracy is not shown, and not excluded either: the "
            f"interval reaches {row['ci_low'] * POINT:.1f} points. More samples would tell."
        )

    def __repr__(self) -> str:
        result = self.what if self.found else "none found"
        return brief(f"Remedy({self._model}: {result}, {len(self.candidates)} candidates)")

    def _repr_html_(self) -> str:
        found = self.candidates
        cells = pd.DataFrame({"candidate": [_named(row) for _, row in found.iterrows()]})
        for name in ("following", "accuracy"):
            cells[f"change of {name}"] = [_points(row, name) for _, row in found.iterrows()]
        for name in ("complete", "lowers", "keeps", "eligible"):
            cells[name] = ["yes" if value else "no" for value in found[name]]
        rows = self.frame[(self.frame["stage"] == CHOOSING) & (self.frame["measure"] == "accuracy")]
        caption = (
            f"Candidates for a remedy of {self._model} on the choosing set "
            f"({int(rows['n'].max())} samples), the best one first: changes in percentage points "
            "with 95 % intervals, paired by sample. The candidate was chosen by these numbers, so "
            "only the results on other samples, below, are evidence for it."
        )
        return as_html(caption, cells, self.summary().splitlines())


def _named(row: pd.Series) -> str:
    """A candidate in words."""
    where = f"at {int(row['n_layers'])} layers ({row['layers']})"
    if row["kind"] == "baseline":
        return f"{row['name']} of {row['strength']:+g} nats {where}"
    return f"{row['name']} of {row['site']} {where} with strength {row['strength']:+g}"


def _points(row: pd.Series, name: str) -> str:
    values = [row[name] * POINT, row[f"{name}_low"] * POINT, row[f"{name}_high"] * POINT]
    return "{:+.1f} points ({:+.1f} to {:+.1f})".format(*values)


def _moved(row: pd.Series, words: str) -> str:
    """Before, after and the difference of a measure; empty where nothing is known."""
    if math.isnan(row["difference"]):
        return ""
    values = [row[name] for name in ("before", "after", "difference", "ci_low", "ci_high")]
    if row["measure"] in _SHARES:
        before, after, *others = (value * POINT for value in values)
        change = "{:+.1f} points ({:+.1f} to {:+.1f})".format(*others)
        return f"{words} {before:.1f} % to {after:.1f} %, {change}"
    before, after, *others = values
    change = "{:+.2f} ({:+.2f} to {:+.2f})".format(*others)
    return f"{words} {before:.2f} to {after:.2f} nats, {change}"
