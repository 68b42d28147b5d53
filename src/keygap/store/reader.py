"""Reads a run: its samples, its tokens, and the labelled vectors of a site and layer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from jaxtyping import Bool, Float

from keygap.arguments import distinct
from keygap.errors import UserError, unknown
from keygap.store.run import (
    MANIFEST,
    SAMPLES,
    TOKENS,
    VECTORS,
    extraction_file,
    site_folder,
    vectors_folder,
)

UNFINISHED = "holds an extraction that did not finish: repeat its command, it continues"


@dataclass(frozen=True)
class LabelledVectors:
    """The vectors of some tokens at one site and layer, with the labels of these tokens.

    Attributes:
        array: the vectors, float32.
        labels: one row per token: the columns of ``tokens``, and the ``attention`` that the
            position receives, divided by its even share.
    """

    array: Float[np.ndarray, "n heads head_dim"]
    labels: pd.DataFrame

    @property
    def sample_ids(self) -> np.ndarray:
        """The sample that each token belongs to."""
        return self.labels["sample_id"].to_numpy()

    @property
    def positions(self) -> np.ndarray:
        """The position of each token in its prompt."""
        return self.labels["position"].to_numpy()

    @property
    def tokens(self) -> np.ndarray:
        """Each token as the tokenizer spells it."""
        return self.labels["token"].to_numpy()

    def __len__(self) -> int:
        return len(self.array)

    def where(self, mask: Bool[np.ndarray, " n"]) -> LabelledVectors:
        """The rows where a mask is true."""
        return LabelledVectors(self.array[mask], self.labels[mask].reset_index(drop=True))


class Store:
    """One extraction on disk.

    Args:
        root: the run folder.

    Attributes:
        identity: what the extraction was asked for, as plain values.

    Raises:
        UserError: the folder holds no run.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not (self.root / SAMPLES).is_file():
            raise UserError(f"{self.root} holds no run: make one with keygap extract or keygap run")
        self.identity: dict[str, Any] = read_identity(self.root)

    @property
    def manifest(self) -> dict[str, Any]:
        """What was done by the finished extraction.

        Raises:
            UserError: the extraction has not finished.
        """
        if not (self.root / MANIFEST).is_file():
            raise UserError(f"{self.root} {UNFINISHED}")
        return json.loads((self.root / MANIFEST).read_text(encoding="utf-8"))

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per sample; a failed one has its reason in ``failure``."""
        return pq.read_table(self.root / SAMPLES).to_pandas()

    @cached_property
    def tokens(self) -> pd.DataFrame:
        """One row per token: its labels, and the subject and language of its sample."""
        tokens = pq.read_table(self.root / TOKENS).to_pandas()
        samples = self.samples.set_index("sample_id")
        names = tokens["sample_id"].astype(str)
        return tokens.assign(
            subject=names.map(samples["subject"]), language=names.map(samples["language"])
        )

    @cached_property
    def sites(self) -> list[str]:
        """The sites that were read, sorted by name."""
        folders = (self.root / VECTORS).glob("site=*")
        return sorted(folder.name.removeprefix("site=") for folder in folders)

    def layers(self, site: str) -> list[int]:
        """The absolute indices of the layers at which a site was read, ascending."""
        folders = site_folder(self.root, site).glob("layer=*")
        return sorted(int(folder.name.removeprefix("layer=")) for folder in folders)

    def site_layers(
        self, sites: Sequence[str] | None = None, layers: Sequence[int] | None = None
    ) -> list[tuple[str, int]]:
        """Every pair of a site and a layer of the run.

        Args:
            sites: only these; None means all of the run.
            layers: only these, as absolute indices; None means all of each site.

        Raises:
            UserError: the run has no such site or layer.
        """
        found = []
        for site in self.sites if sites is None else distinct(sites, "sites", "k_proj"):
            if site not in self.sites:
                raise unknown("site", site, self.sites, hint=f"of {self.root}")
            known = self.layers(site)
            for layer in known if layers is None else distinct(layers, "layers", "0"):
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
    ) -> LabelledVectors:
        """The vectors of a site and layer, in the order of ``tokens``.

        Args:
            site: a site of the run.
            layer: the absolute index of one of its layers.
            modality: only tokens of this modality; None means all.
            role: only tokens of this role, or of these; None means all.

        Raises:
            UserError: the run has no such site or layer.
        """
        self.site_layers([site], [layer])
        folder = vectors_folder(self.root, site, layer)
        table = pq.read_table(folder, partitioning=None)
        rows = table.select(["sample_id", "position"]).to_pandas()
        labels = self._labels_of(rows, folder)
        labels = labels.assign(attention=table["attention"].to_numpy())
        vectors = LabelledVectors(_array_of(table), labels)
        keep = np.ones(len(labels), dtype=bool)
        if modality is not None:
            keep &= (labels["modality"] == modality).to_numpy()
        if role is not None:
            roles = [role] if isinstance(role, str) else list(role)
            keep &= labels["role"].isin(roles).to_numpy()
        return vectors if keep.all() else vectors.where(keep)

    def _labels_of(self, rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
        """The labels of a layer's rows: of all tokens, or of those that are read at the layer.

        In a model with cross-attention, keys are image features in some layers and tokens of the
        prompt in the others.
        """
        labels = self.tokens
        if len(rows) < len(labels):
            wanted, known = _index_of(rows), _index_of(labels)
            labels = labels[known.isin(wanted)].reset_index(drop=True)
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


def read_identity(root: Path) -> dict[str, Any]:
    """What the extraction in a run folder was asked for.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = extraction_file(root)
    try:
        identity = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        identity = None
    if not isinstance(identity, dict):
        raise UserError(f"{path} is missing or damaged: extract again into another folder")
    return identity


def _array_of(table: pa.Table) -> Float[np.ndarray, "n heads head_dim"]:
    metadata = table.schema.metadata
    shape = (-1, int(metadata[b"heads"]), int(metadata[b"head_dim"]))
    flat = table["vector"].combine_chunks().flatten()
    return flat.to_numpy(zero_copy_only=False).reshape(shape)


def _index_of(rows: pd.DataFrame) -> pd.MultiIndex:
    """Sample and position of each row."""
    return pd.MultiIndex.from_frame(rows[["sample_id", "position"]].astype({"sample_id": str}))
