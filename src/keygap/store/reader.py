"""Reads a run: its samples, its tokens, and the vectors of any selection of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import yaml
from jaxtyping import Float

from keygap.errors import UserError, unknown
from keygap.store.schema import vectors_folder
from keygap.store.writer import EXPERIMENT, MANIFEST, SAMPLES_FILE

UNFINISHED = "holds an extraction that did not finish: repeat its command, it continues"


@dataclass(frozen=True)
class Vectors:
    """Vectors of some tokens at one site and layer, and what those tokens are.

    Attributes:
        array: (n, heads, head_dim) float32.
        labels: n rows, the columns of ``tokens`` and ``attention``.
    """

    array: Float[np.ndarray, "n heads head_dim"]
    labels: pd.DataFrame

    @property
    def sample_ids(self) -> np.ndarray:
        return self.labels["sample_id"].to_numpy()

    @property
    def positions(self) -> np.ndarray:
        return self.labels["position"].to_numpy()

    @property
    def tokens(self) -> np.ndarray:
        return self.labels["token"].to_numpy()

    def __len__(self) -> int:
        return len(self.array)

    def where(self, mask: np.ndarray) -> Vectors:
        """The rows where a boolean (n,) is true."""
        return Vectors(self.array[mask], self.labels[mask].reset_index(drop=True))


class Store:
    """One extraction on disk.

    Raises:
        UserError: the folder holds no run.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not (self.root / SAMPLES_FILE).is_file():
            raise UserError(f"{self.root} holds no run: make one with keygap extract or keygap run")
        self.experiment: dict[str, Any] = yaml.safe_load((self.root / EXPERIMENT).read_text())

    @property
    def manifest(self) -> dict[str, Any]:
        """The facts of the finished run.

        Raises:
            UserError: the extraction has not finished.
        """
        if not (self.root / MANIFEST).is_file():
            raise UserError(f"{self.root} {UNFINISHED}")
        return json.loads((self.root / MANIFEST).read_text())

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per sample, failures with their reason."""
        return pq.read_table(self.root / SAMPLES_FILE).to_pandas()

    @cached_property
    def tokens(self) -> pd.DataFrame:
        """One row per token: its labels, and the subject and language of its sample."""
        tokens = pq.read_table(self.root / "tokens").to_pandas()
        samples = self.samples.set_index("sample_id")
        names = tokens["sample_id"].astype(str)
        return tokens.assign(
            subject=names.map(samples["subject"]), language=names.map(samples["language"])
        )

    @cached_property
    def sites(self) -> list[str]:
        folders = (self.root / "vectors").glob("site=*")
        return sorted(folder.name.removeprefix("site=") for folder in folders)

    def layers(self, site: str) -> list[int]:
        """Absolute indices of the layers at which a site was read."""
        folders = (self.root / "vectors" / f"site={site}").glob("layer=*")
        return sorted(int(folder.name.removeprefix("layer=")) for folder in folders)

    def places(
        self, sites: Sequence[str] | None = None, layers: Sequence[int] | None = None
    ) -> list[tuple[str, int]]:
        """Sites and layers of the run, or those of them that were asked for.

        Raises:
            UserError: the run has no such site or layer.
        """
        found = []
        for site in self.sites if sites is None else sites:
            if site not in self.sites:
                raise unknown("site", site, self.sites, hint=f"of {self.root}")
            known = self.layers(site)
            for layer in known if layers is None else layers:
                if layer not in known:
                    raise unknown("layer", layer, known, hint=f"of {site} in {self.root}")
                found.append((site, layer))
        return found

    def vectors(
        self,
        site: str,
        layer: int,
        modality: str | None = None,
        role: str | Sequence[str] | None = None,
    ) -> Vectors:
        """Vectors of the tokens of a modality, or of text of some roles, or of all tokens.

        Raises:
            UserError: the run has no such site or layer.
        """
        self.places([site], [layer])
        folder = vectors_folder(self.root, site, layer)
        table = pq.read_table(folder, partitioning=None)
        metadata = table.schema.metadata
        shape = (-1, int(metadata[b"heads"]), int(metadata[b"head_dim"]))
        column = table.column("vector").combine_chunks()
        array = column.flatten().to_numpy(zero_copy_only=False).reshape(shape)
        labels = self._labels_of(table.select(["sample_id", "position"]).to_pandas(), folder)
        labels = labels.assign(attention=table.column("attention").to_numpy())
        vectors = Vectors(array, labels)
        keep = np.ones(len(labels), dtype=bool)
        if modality is not None:
            keep &= (labels["modality"] == modality).to_numpy()
        if role is not None:
            roles = [role] if isinstance(role, str) else list(role)
            keep &= labels["role"].isin(roles).to_numpy()
        return vectors if keep.all() else vectors.where(keep)

    def _labels_of(self, rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
        """The labels of a layer's rows: of all tokens, or of those that are keys there.

        In a model with cross-attention, image features are keys in some layers, the prompt's own
        tokens in the others.
        """
        labels = self.tokens
        if len(rows) < len(labels):
            columns = ["sample_id", "position"]
            own, all_rows = (
                pd.MultiIndex.from_frame(f[columns].astype({"sample_id": str}))
                for f in (rows, labels)
            )
            labels = labels[all_rows.isin(own)].reset_index(drop=True)
        if not np.array_equal(rows["position"].to_numpy(), labels["position"].to_numpy()):
            if not (self.root / MANIFEST).is_file():
                raise UserError(f"{self.root} {UNFINISHED}")
            raise RuntimeError(f"tokens and vectors of {folder} are not in the same order")
        return labels

    def __repr__(self) -> str:
        bad = int(self.samples["failure"].notna().sum())
        return (
            f"Store({str(self.root)!r}: {len(self.samples) - bad} samples, {bad} failed, "
            f"{', '.join(f'{site} at layers {self.layers(site)}' for site in self.sites)})"
        )
