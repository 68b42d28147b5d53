"""The table of ``kg.measure_attention`` and its file.

It needs no model, so a report can read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

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

    def save(self, folder: str | Path) -> None:
        """Write ``attention.parquet``, whole or not at all.

        Raises:
            UserError: another process writes in the folder, the disk is full, or the folder
                cannot be written.
        """
        save_results(folder, {ATTENTION: pa.Table.from_pandas(self.frame, preserve_index=False)})

    @classmethod
    def read(cls, folder: str | Path) -> AttentionTable:
        """Read the table of a run folder; notes and reasons are not saved with it.

        Raises:
            UserError: the table is missing, damaged or of another run.
        """
        root, remedy = Path(folder), "measure attention again"
        checksums = result_checksums(root, ATTENTION, remedy)
        return cls(read_table(root / ATTENTION, remedy, COLUMNS, checksums).to_pandas())
