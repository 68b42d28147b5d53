"""The tables of a probed model: conditions, their paired differences, and every answer.

``bias.csv`` has a row for each condition and, where a condition has several variants (phrasings,
positions, strengths), one for each of them. The row ``all`` pools them, with intervals over samples
and the spread between them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml

from keygap.benchmarks.scoring import normalised
from keygap.bias.condition import AS_IS, Condition, Probe
from keygap.bias.intervals import Interval, mean, paired_proportions, proportion
from keygap.bias.text_preference import tpr
from keygap.display import as_html, brief, counted, names
from keygap.errors import UserError
from keygap.store import save_results
from keygap.store.reading import read_csv, read_table, read_yaml
from keygap.store.results import is_recorded, result_checksums
from keygap.store.run import BIAS, BIAS_DIFFERENCES, BIAS_SAMPLES, BIAS_SETTINGS

NUMBERS = (  # NaN where the answer was generated, or the number is infinite
    "log_probability", "margin", "margin_without", "hint_margin", "hint_effect", "entropy",
    "confidence",
)  # fmt: skip
SAMPLE_COLUMNS = (
    "probe", "condition", "variant", "sample_id", "subject", "answer", "chosen", "correct",
    "suggested", "followed", *NUMBERS,
)  # fmt: skip
ALL = "all"  # the variant of a row that pools all variants
NO_MARGIN = "the right answer, or every other one, is excluded from the possible answers"
BINS = 10  # of confidence, in the calibration error
_MEANS = ("margin", "margin_without", "hint_effect", "entropy")


@dataclass(frozen=True)
class BiasTable:
    """What ``kg.probe`` found.

    Attributes:
        frame: one row per probe, condition and variant. ``accuracy``, ``changed`` (share of
            answers that are not those to the sample as it is), ``followed`` (share of answers that
            are the suggested one), ``tpr`` and ``coarse_tpr`` are shares;
            ``margin`` is the log-probability of the right answer minus that of the best other,
            ``margin_without`` that of the right minus the suggested answer with the same image and
            without the text, and ``hint_effect`` by how much the text lowers it, all in nats.
            Answers whose margin is infinite, because an intervention excludes a candidate, are left
            out of its mean and counted in ``missing``.
            Each has columns ``_low`` and ``_high`` of a 95 % interval. ``text``, ``image``,
            ``both`` and ``neither`` are the counts behind the TPR, and ``verdict`` says in words
            which side answers follow (see ``verdict_of``). ``spread`` columns are the largest
            minus the smallest value of the variants.
        differences: each condition minus ``as_is``, over the samples that both have.
        samples: one row per probe, condition, variant and sample (``SAMPLE_COLUMNS``).
        left_out: columns probe, condition, variant, reason, samples.
        settings: what was asked: model, benchmark, seed, the settings of each probe. ``analyses``
            has what a probe computes from all of its answers, such as a balance point.
    """

    frame: pd.DataFrame
    differences: pd.DataFrame
    samples: pd.DataFrame
    left_out: pd.DataFrame
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def analyses(self) -> list[str]:
        """What probes computed from all answers, a line each."""
        found = self.settings.get("analyses", {})
        return [f"{name}: {each['summary']}" for name, each in found.items()]

    @property
    def missing(self) -> list[str]:
        """Why samples were left out, and how many answers have no margin, in lines."""
        lines = []
        most = self.left_out.sort_values("samples", ascending=False, kind="stable")
        for row in most.drop_duplicates(["probe", "reason"]).to_dict("records"):
            count = f"{counted(row['samples'], 'sample')} left out"
            lines.append(": ".join(filter(None, (row["probe"], count, row["reason"]))))
        excluded = self.samples["entropy"].notna() & self.samples["margin"].isna()
        for name, number in self.samples[excluded].groupby("probe", sort=False).size().items():
            lines.append(f"{name}: {counted(number, 'answer')} without a margin: {NO_MARGIN}")
        return lines

    @property
    def notes(self) -> list[str]:
        """What probes computed from all answers, and what is missing, in lines."""
        return [*self.analyses, *self.missing]

    def summary(self) -> pd.DataFrame:
        """One row per condition, its variants pooled, with intervals in the cells."""
        rows = self.frame.drop_duplicates(["probe", "condition"])  # the pooled row is the first
        shown = pd.DataFrame(
            {"probe": rows["probe"], "condition": rows["condition"], "n": rows["n"]}
        )
        for name in ("accuracy", "changed", "followed", "tpr", "margin", "hint_effect"):
            shown[name] = [_cell(row, name) for _, row in rows.iterrows()]
        shown["text/image/both/neither"] = [
            "" if math.isnan(row["text"]) else "/".join(f"{row[name]:.0f}" for name in _COUNTS)
            for _, row in rows.iterrows()
        ]
        shown["verdict"] = rows["verdict"].fillna("")
        return shown.reset_index(drop=True)

    def __repr__(self) -> str:
        of = f"{self.settings.get('model')} on {self.settings.get('benchmark')}"
        conditions = self.frame.drop_duplicates(["probe", "condition"])
        found = [
            f"probes {names(dict.fromkeys(self.frame['probe']), 5)}",
            counted(len(conditions), "condition"),
            counted(self.samples["sample_id"].nunique(), "sample"),
        ]
        return brief(f"BiasTable({of}: {', '.join(found)})")

    def _repr_html_(self) -> str:
        caption = (
            f"Answers of {self.settings.get('model')} on {self.settings.get('benchmark')} by "
            "condition, with 95 % intervals over samples; n answers each. accuracy, changed (not "
            "the answer to the sample as it is), followed (the suggested answer) and tpr (text "
            "preference ratio, of the answers that follow one side) are shares. margin and "
            "hint_effect are in nats. Variants are pooled; .frame has each."
        )
        return as_html(caption, self.summary(), self.notes)

    def save(self, folder: str | Path) -> None:
        """Write ``bias.csv``, ``bias_differences.csv``, ``bias_samples.parquet``, ``bias.yaml``.

        Args:
            folder: the run folder, or any other.

        Raises:
            UserError: another process writes in the folder, the disk is full, or the folder
                cannot be written.
        """
        described = {**self.settings, "left_out": self.left_out.to_dict("records")}
        save_results(
            folder,
            {
                BIAS: self.frame.to_csv(index=False),
                BIAS_DIFFERENCES: self.differences.to_csv(index=False),
                BIAS_SAMPLES: pa.Table.from_pandas(self.samples, preserve_index=False),
                BIAS_SETTINGS: yaml.safe_dump(described, sort_keys=False, allow_unicode=True),
            },
        )


_COUNTS = ("text", "image", "both", "neither")
_LEFT_OUT = ("probe", "condition", "variant", "reason", "samples")
FILES = (BIAS, BIAS_DIFFERENCES, BIAS_SAMPLES, BIAS_SETTINGS)


def bias_table(
    samples: pd.DataFrame,
    left_out: Mapping[tuple[str, str, str, str], int],
    probes: Sequence[Probe],
    settings: Mapping[str, Any],
) -> BiasTable:
    """Make the tables of answers.

    Args:
        samples: ``SAMPLE_COLUMNS``.
        left_out: the number of samples by probe, condition, variant and reason.
        probes: whose conditions these are.
        settings: of the run; ``n_bootstraps`` and ``seed`` are used.
    """
    drawing = (int(settings["n_bootstraps"]), int(settings["seed"]))
    rows, differences = [], []
    for probe in probes:
        own = samples[samples["probe"] == probe.name]
        unchanged = own[own["condition"] == AS_IS]
        for name in dict.fromkeys(condition.name for condition in probe.conditions):
            conditions = [each for each in probe.conditions if each.name == name]
            found = _condition_rows(own, conditions, unchanged, drawing)
            rows += [{"probe": probe.name, **row} for row in found]
            if name != AS_IS:
                both = own[own["condition"] == name]
                differences += _differences(both, unchanged, drawing)
    analyses = {
        each.name: each.analyse(samples, each, *drawing)
        for each in probes
        if each.analyse is not None
    }
    reasons = [(*key, count) for key, count in left_out.items()]
    return BiasTable(
        pd.DataFrame(rows),
        pd.DataFrame(differences, columns=list(_DIFFERENCE_COLUMNS)),
        samples,
        pd.DataFrame(reasons, columns=list(_LEFT_OUT)),
        {**settings, "analyses": analyses} if analyses else settings,
    )


def _condition_rows(
    own: pd.DataFrame,
    conditions: Sequence[Condition],
    unchanged: pd.DataFrame,
    drawing: tuple[int, int],
) -> list[dict[str, Any]]:
    """The rows of one condition: each variant, and all of them if there are several."""
    rows = []
    before = unchanged.set_index("sample_id")["chosen"].map(normalised)
    pooled = []
    for each in conditions:
        here = own[(own["condition"] == each.name) & (own["variant"] == each.variant)]
        here = here.assign(before=here["sample_id"].map(before))
        triples = _triples(own, each)
        pooled.append((here, triples))
        rows.append(_row(each.name, each.variant, here, triples, drawing))
    if len(conditions) == 1:
        return rows
    here = pd.concat([each for each, _ in pooled], ignore_index=True)
    triples = pd.concat([each for _, each in pooled], ignore_index=True)
    total = _row(conditions[0].name, ALL, here, triples, drawing)
    for name in ("accuracy", "followed", "tpr"):
        values = [row[name] for row in rows if not math.isnan(row[name])]
        total[f"{name}_spread"] = max(values) - min(values) if values else math.nan
    return [total, *rows]


def _row(
    name: str, variant: str, here: pd.DataFrame, triples: pd.DataFrame, drawing: tuple[int, int]
) -> dict[str, Any]:
    ids = here["sample_id"].to_numpy()
    followed = here["followed"].notna().to_numpy()
    row: dict[str, Any] = {"condition": name, "variant": variant, "n": len(here)}
    row |= _columns("accuracy", proportion(here["correct"].to_numpy(bool), ids))
    hits = here["followed"][followed].to_numpy(bool)
    row |= _columns("followed", proportion(hits, ids[followed]))
    known = here["before"].notna().to_numpy()
    moved = (here["chosen"].map(normalised) != here["before"]).to_numpy(bool)[known]
    row |= _columns("changed", proportion(moved, ids[known]))
    for number in _MEANS:
        row |= _columns(number, mean(here[number].to_numpy(float), ids, *drawing))
    counts: dict[str, float] = dict.fromkeys(_COUNTS, math.nan)
    ratios = {"tpr": proportion([]), "coarse_tpr": proportion([])}
    if len(triples):
        answers = (triples[side].tolist() for side in ("image_only", "together", "text_only"))
        found = tpr(*answers, sample_ids=triples["sample_id"].tolist())
        counts = {each: getattr(found, each) for each in _COUNTS}
        ratios = {"tpr": found.tpr, "coarse_tpr": found.coarse}
    row |= _columns("tpr", ratios["tpr"]) | _columns("coarse_tpr", ratios["coarse_tpr"]) | counts
    row["confidence"] = here["confidence"].mean()
    row["calibration_error"] = calibration_error(
        here["confidence"].to_numpy(float), here["correct"].to_numpy(bool)
    )
    row["verdict"] = "" if name == AS_IS and not len(triples) else verdict_of(row)
    return row | {f"{each}_spread": math.nan for each in ("accuracy", "followed", "tpr")}


def verdict_of(row: Mapping[str, Any]) -> str:
    """Which side the answers of a condition follow, in words.

    Args:
        row: with ``text``, ``image``, ``tpr_low``, ``tpr_high`` and ``changed``.

    Returns:
        ``text`` or ``image`` if the interval of the TPR lies on one side of one half, with ``only``
        if no decided answer follows the other side, else ``undecided``. Without a TPR: ``no answer
        changed`` if it is so, otherwise nothing.
    """
    if math.isnan(row["text"]):
        return "no answer changed" if row["changed"] == 0 else ""
    if row["tpr_low"] > 0.5:
        return "text" if row["image"] else "text only"
    if row["tpr_high"] < 0.5:
        return "image" if row["text"] else "image only"
    return "undecided"  # also where no answer is decided, which has no TPR


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The expected calibration error (Naeini et al. 2015) in ten bins of equal width.

    Args:
        confidence: the probability of each chosen answer among the candidates.
        correct: whether it was right.

    Returns:
        The mean over samples of the difference between the accuracy and the mean confidence of
        their bin; NaN where answers were generated.
    """
    known = ~np.isnan(confidence)
    if not known.any():
        return math.nan
    sure, right = confidence[known], correct[known].astype(float)
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = np.bincount(place, right - sure, minlength=BINS)
    return float(np.abs(gaps).sum() / len(sure))


_DIFFERENCE_COLUMNS = (
    "probe", "condition", "variant", "measure", "difference", "low", "high", "n"
)  # fmt: skip


def _differences(
    here: pd.DataFrame, unchanged: pd.DataFrame, drawing: tuple[int, int]
) -> list[dict[str, Any]]:
    """Each variant of a condition minus the unchanged samples, paired by sample."""
    rows = []
    for variant, own in here.groupby("variant", sort=False):
        pair = own.merge(unchanged, on="sample_id", suffixes=("", "_before"))
        accuracy = paired_proportions(
            pair["correct"].to_numpy(bool), pair["correct_before"].to_numpy(bool)
        )
        found = {"accuracy": accuracy}
        for name in ("log_probability", "margin", "entropy"):
            change = (pair[name] - pair[f"{name}_before"]).to_numpy(float)
            found[name] = mean(change, pair["sample_id"].to_numpy(), *drawing)
        first = own.iloc[0]
        rows += [
            {
                "probe": first["probe"],
                "condition": first["condition"],
                "variant": variant,
                "measure": name,
                "difference": each.value,
                "low": each.low,
                "high": each.high,
                "n": each.n,
            }
            for name, each in found.items()
        ]
    return rows


def _triples(own: pd.DataFrame, condition: Condition) -> pd.DataFrame:
    """The answers to image alone, text alone and both, of the samples that have all three."""
    columns = ["sample_id", "image_only", "together", "text_only"]
    if not (condition.image_only and condition.text_only):
        return pd.DataFrame(columns=columns)
    found = _answers(own, condition.name, condition.variant).rename("together").to_frame()
    for side in ("image_only", "text_only"):
        other = getattr(condition, side)
        answers = _answers(own, other, condition.variant)
        answers = answers if len(answers) else _answers(own, other, "")
        found[side] = answers
    return found.dropna().reset_index()[columns]


def _answers(own: pd.DataFrame, condition: str, variant: str) -> pd.Series:
    here = own[(own["condition"] == condition) & (own["variant"] == variant)]
    return here.set_index("sample_id")["chosen"]


def _columns(name: str, found: Interval) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _cell(row: pd.Series, name: str) -> str:
    if math.isnan(row[name]):
        return ""
    return f"{row[name]:.2f} ({row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f})"


def read_bias(folder: str | Path) -> BiasTable:
    """Read the tables of a probed run.

    Args:
        folder: the run folder.

    Returns:
        The tables as they were saved.

    Raises:
        UserError: the run was not probed, or a file is damaged or of another run.
    """
    root = Path(folder)
    remedy = f"run keygap bias again, with {root} as --out"
    if not is_recorded(root, BIAS):
        raise UserError(f"{root} was not probed: {remedy}")
    sums = {name: result_checksums(root, name, remedy) for name in FILES}
    settings = read_yaml(root / BIAS_SETTINGS, remedy, sums[BIAS_SETTINGS])
    text = ("probe", "condition", "variant", "measure", "verdict")
    options: dict[str, Any] = {
        "dtype": dict.fromkeys(text, str),
        "keep_default_na": False,  # a variant may be "NA"
        "na_values": [""],
    }
    frames = [
        read_csv(root / name, remedy, columns, text, sums[name], **options)
        for name, columns in ((BIAS, text[:3]), (BIAS_DIFFERENCES, _DIFFERENCE_COLUMNS))
    ]
    for frame in frames:
        frame["variant"] = frame["variant"].fillna("")
    samples = read_table(root / BIAS_SAMPLES, remedy, SAMPLE_COLUMNS, sums[BIAS_SAMPLES])
    left_out = pd.DataFrame(settings.pop("left_out", []), columns=list(_LEFT_OUT))
    conditions, differences = frames
    return BiasTable(conditions, differences, samples.to_pandas(), left_out, settings)
