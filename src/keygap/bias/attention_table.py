"""The table of ``kg.measure_attention`` and its file.

It needs no model, so a report can read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from keygap.display import as_html, brief, counted
from keygap.store import save_results
from keygap.store.reading import read_table
from keygap.store.results import result_checksums
from keygap.store.run import ATTENTION

VALUES = ("n_keys", "mass", "relative", "logit", "entropy")
COLUMNS = (
    "sample_id", "layer", "head", "queries", "modality", "role", "image", "frame", "sink", "first",
    *VALUES,
)  # fmt: skip


@dataclass(frozen=True)
class AttentionTable:
    """How attention is divided among groups of keys.

    Attributes:
        frame: one row per sample, layer, head, query group and key group (``COLUMNS``).

            - ``queries``: ``question`` (tokens of the roles question and option), ``last`` (the
              last position of the prompt) or ``generated``.
            - ``modality``, ``role``, ``image``, ``frame``: what the keys are, as in
              ``keygap.tokens.TokenLabels``.
            - ``sink``: whether they receive at least ``SINK_SHARE`` times the even share of
              attention at this layer, all heads together; ``first``: the first token of the prompt.
            - ``n_keys``: keys of the group that a query sees, mean over queries.
            - ``mass``: their attention weights, summed, mean over queries. The masses of all groups
              sum to 1, or to less by the share of a learned sink.
            - ``relative``: mass times the number of all keys that the query sees, mean over
              queries: equal to ``n_keys`` if attention is even.
            - ``logit``: query-key logit after scale and soft cap, before the mask; mean over pairs
              of a query and a key that it sees, NaN if there are none.
            - ``entropy``: the group's part of -sum p ln p, in nats, mean over queries.
        notes: what could not be measured, and why.
        left_out: reason by sample id.
    """

    frame: pd.DataFrame
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, str] | None = None

    def summary(self) -> pd.DataFrame:
        """How each query group divides its attention, mean over samples, layers and heads.

        Returns:
            One row per query group, modality and role: ``n_keys``, the mean number of such keys,
            ``mass``, their share of attention, and ``n``, the samples that have any.
        """
        place = ["sample_id", "layer", "head"]
        rows = []
        for queries, own in self.frame.groupby("queries", sort=False):
            count = len(own[place].drop_duplicates())
            for (modality, role), keys in own.groupby(["modality", "role"], sort=False):
                rows.append(
                    {
                        "queries": queries,
                        "modality": modality,
                        "role": role,
                        "n_keys": keys["n_keys"].sum() / count,
                        "mass": keys["mass"].sum() / count,
                        "n": keys["sample_id"].nunique(),
                    }
                )
        return pd.DataFrame(rows, columns=["queries", "modality", "role", "n_keys", "mass", "n"])

    def __repr__(self) -> str:
        sizes = {name: self.frame[name].nunique() for name in ("sample_id", "layer")}
        heads = len(self.frame[["layer", "head"]].drop_duplicates())
        said = [counted(sizes["sample_id"], "sample"), counted(sizes["layer"], "layer")]
        return brief(f"AttentionTable({', '.join([*said, counted(heads, 'head')])})")

    def _repr_html_(self) -> str:
        frame = self.frame
        caption = (
            "Where attention goes: mass is the share of attention that a group of keys gets (no "
            "unit, 1 in all), mean over "
            f"{counted(frame['sample_id'].nunique(), 'sample')}, "
            f"{counted(frame['layer'].nunique(), 'layer')} and all heads; n_keys is the mean "
            "number of its keys, n the samples that have any. No intervals: "
            "kg.attention_indices has them."
        )
        left = [f"{name}: left out: {why}" for name, why in (self.left_out or {}).items()]
        return as_html(caption, self.summary(), (*self.notes, *left))

    def save(self, folder: str | Path) -> None:
        """Write ``attention.parquet``, whole or not at all.

        Args:
            folder: the run folder, or any other.

        Raises:
            UserError: another process writes in the folder, the disk is full, or the folder
                cannot be written.
        """
        save_results(folder, {ATTENTION: pa.Table.from_pandas(self.frame, preserve_index=False)})

    @classmethod
    def read(cls, folder: str | Path) -> AttentionTable:
        """Read the table of a run folder; notes and reasons are not saved with it.

        Args:
            folder: the run folder.

        Raises:
            UserError: the table is missing, damaged or of another run.
        """
        root, remedy = Path(folder), "measure attention again"
        checksums = result_checksums(root, ATTENTION, remedy)
        return cls(read_table(root / ATTENTION, remedy, COLUMNS, checksums).to_pandas())
