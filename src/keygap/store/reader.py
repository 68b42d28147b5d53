"""Reads a run: its samples, its tokens, and the labelled vectors of a site and layer.

Only files that the run recorded are read, and each only if its checksum is the recorded one. The
bytes are hashed as they are read, so verifying costs no second pass over the disk.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from keygap.arguments import distinct
from keygap.display import as_html, brief, ranges
from keygap.errors import UserError, unknown
from keygap.store.checksums import REPAIR, Recorded, checksums_of, read_checksums
from keygap.store.journal import read_journal, with_journal, with_rows
from keygap.store.labelled import LabelledVectors as LabelledVectors
from keygap.store.layer import LayerOnDisk, labels_of, shape_of
from keygap.store.lock import refuse_locked
from keygap.store.reading import read_json, read_table, read_yaml, verify, verify_all
from keygap.store.run import (
    CHECKSUMS,
    EXTRACTION,
    MANIFEST,
    SAMPLES,
    STUDY,
    THUMBNAILS,
    TOKENS,
    extraction_file,
    part_files,
    part_name,
    part_number,
    place_of,
    vectors_folder,
)
from keygap.store.schema import SAMPLES_SCHEMA
from keygap.text import first_line, one_line

logger = logging.getLogger("keygap")

UNFINISHED = "holds an extraction that did not finish: repeat its command, it continues"
TOKEN_COLUMNS = ("sample_id", "position", "token", "modality", "role")
VECTOR_COLUMNS = ("sample_id", "position", "attention", "vector")
THUMBNAIL_COLUMNS = ("sample_id", "image", "frame", "picture")


class Store:
    """One extraction on disk.

    Args:
        root: the run folder.

    Attributes:
        identity: what the extraction was asked for, as plain values.

    Raises:
        UserError: the folder holds no run; a file of the run is missing, or a file is among its
            parts that it did not write; or its samples, identity or manifest are damaged.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._recorded = read_checksums(self.root)
        self._journal = read_journal(self.root)
        if self._recorded is not None:
            self._recorded = with_journal(self._recorded, self._journal)
        self._verified: set[str] = set()
        if self._recorded is None:
            self._begin_without_checksums()
        elif SAMPLES not in self._recorded and not self._journal:
            raise self._unfinished()
        self.identity: dict[str, Any] = read_identity(self.root, self._recorded)
        if self._is_finished:
            self._refuse_foreign()
            self._read_manifest()
        _ = self.samples

    @property
    def manifest(self) -> dict[str, Any]:
        """What was done by the finished extraction.

        Raises:
            UserError: the extraction has not finished, or the manifest is damaged.
        """
        if not self._is_finished:
            raise self._unfinished()
        return self._read_manifest()

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per sample; a failed one has its reason in ``failure``."""
        rows = SAMPLES_SCHEMA.empty_table()
        if self._recorded is None or SAMPLES in self._recorded:
            rows = self._read([SAMPLES], ("sample_id", "subject", "failure"))
        return with_rows(rows, self._journal).to_pandas()

    @cached_property
    def tokens(self) -> pd.DataFrame:
        """One row per token: its labels, and the subject and language of its sample."""
        tokens = self._read(self._parts_in(TOKENS), TOKEN_COLUMNS).to_pandas()
        samples = self.samples.set_index("sample_id")
        names = tokens["sample_id"].astype(str)
        return tokens.assign(
            subject=names.map(samples["subject"]), language=names.map(samples["language"])
        )

    @cached_property
    def thumbnails(self) -> pd.DataFrame | None:
        """One row per image and per frame of a video; None if the run keeps none.

        See ``keygap.store.schema``.
        """
        if not self.has(THUMBNAILS):
            return None
        return self._read(self._parts_in(THUMBNAILS), THUMBNAIL_COLUMNS).to_pandas()

    @cached_property
    def sites(self) -> list[str]:
        """The sites that were read, sorted by name."""
        return sorted({site for site, _ in self._places})

    def layers(self, site: str) -> list[int]:
        """The absolute indices of the layers at which a site was read, ascending.

        Args:
            site: a site of the run.
        """
        return sorted(layer for found, layer in self._places if found == site)

    def verify(self) -> None:
        """Compare every part with its checksum, for a caller that does not read them all.

        Raises:
            UserError: a part is missing or damaged.
        """
        if self._recorded is not None:
            verify_all(self.root, REPAIR, {name: self._recorded[name] for name in self._files})

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
            UserError: the run has no such site or layer, or one of their files is damaged.
        """
        found = self.layer(site, layer)
        labels = found.labels
        keep = np.ones(len(labels), dtype=bool)
        if modality is not None:
            keep &= (labels["modality"] == modality).to_numpy()
        if role is not None:
            roles = [role] if isinstance(role, str) else list(role)
            keep &= labels["role"].isin(roles).to_numpy()
        return found.where(keep)

    def layer(self, site: str, layer: int) -> LayerOnDisk:
        """The labels of a site and layer, and its vectors on disk, for what may not fit in memory.

        Args:
            site: a site of the run.
            layer: the absolute index of one of its layers.

        Raises:
            UserError: the run has no such site or layer, or one of their files is damaged.
        """
        self.site_layers([site], [layer])
        folder = vectors_folder(self.root, site, layer)
        names = self._parts_in(folder.relative_to(self.root).as_posix())
        tables, shapes = [], set()
        for table in self._tables(names, VECTOR_COLUMNS):
            shapes.add(shape_of(table, folder))
            tables.append(table.drop_columns(["vector"]))  # the others are small
        table = self._joined(tables, names)
        if len(shapes) > 1:
            raise UserError(f"{folder} has vectors of several shapes: {REPAIR}")
        labels = labels_of(self.tokens, table.select(["sample_id", "position"]).to_pandas())
        if labels is None:
            if not self._is_finished:
                raise self._unfinished()
            raise UserError(f"{folder} has other rows than {self.root / TOKENS}: {REPAIR}")
        drawn = table["drawn"].to_numpy() if "drawn" in table.column_names else True
        labels = labels.assign(attention=table["attention"].to_numpy(), drawn=drawn)
        again = partial(self._tables, names, VECTOR_COLUMNS)
        return LayerOnDisk(labels, shapes.pop(), again, folder)

    def has(self, folder: str) -> bool:
        """Whether the run has parts in a folder, such as ``thumbnails``.

        Args:
            folder: its name in the run folder.
        """
        return any(name.startswith(f"{folder}/") for name in self._files)

    def parts(self, folder: str) -> list[int]:
        """The numbers of the parts in a folder of the run, such as ``tokens``, ascending.

        Args:
            folder: its name in the run folder.

        Raises:
            UserError: it has none.
        """
        return [part_number(name) or 0 for name in self._parts_in(folder)]

    def part(self, folder: str, number: int) -> Path:
        """The file of a part, for readers of stores that do not fit into memory.

        It is compared with its checksum the first time that it is asked for.

        Args:
            folder: path of a folder in the run folder, such as ``tokens``.
            number: one of its ``parts``.

        Raises:
            UserError: the file is missing or damaged.
        """
        name = f"{folder}/{part_name(number)}"
        checksums = checksums_of(self.root, name, self._recorded)
        if checksums is not None and name not in self._verified:
            verify(self.root / name, REPAIR, checksums)
            self._verified.add(name)
        return self.root / name

    def _begin_without_checksums(self) -> None:
        """Accept a run of keygap 0.1; refuse what is none, and a run that lost its checksums."""
        if not (self.root / SAMPLES).is_file():
            raise UserError(f"{self.root} holds no run: make one with keygap extract or keygap run")
        if (self.root / MANIFEST).is_file() and "checksums" in self._read_manifest():
            raise UserError(f"{self.root / CHECKSUMS} is missing: {REPAIR}")
        logger.warning(
            "%s has no %s (an earlier keygap wrote none): its files are read without verification",
            self.root,
            CHECKSUMS,
        )

    @property
    def _is_finished(self) -> bool:
        if self._recorded is None:
            return (self.root / MANIFEST).is_file()
        return MANIFEST in self._recorded

    def _unfinished(self) -> UserError:
        if (self.root / STUDY).is_file():
            return UserError(f"{self.root} is the folder of a study: name one of the runs in it")
        try:
            refuse_locked(self.root)
        except UserError as written:
            return written
        return UserError(f"{self.root} {UNFINISHED}")

    def _read_manifest(self) -> dict[str, Any]:
        checksums = checksums_of(self.root, MANIFEST, self._recorded)
        return read_json(self.root / MANIFEST, REPAIR, checksums)

    @cached_property
    def _files(self) -> set[str]:
        """Every file of a part, by its path in the run folder."""
        names = part_files(self.root) if self._recorded is None else self._recorded
        return {name for name in names if part_number(name) is not None}

    @cached_property
    def _places(self) -> set[tuple[str, int]]:
        """Every site and layer that has a file."""
        return {place for name in self._files if (place := place_of(name)) is not None}

    def _parts_in(self, folder: str) -> list[str]:
        """The files of a folder, in the order of the parts."""
        if folder not in self._folders:
            raise UserError(f"{self.root / folder} has no part: {REPAIR}")
        return self._folders[folder]

    @cached_property
    def _folders(self) -> dict[str, list[str]]:
        """The files of parts by their folder, in the order of the parts."""
        found: dict[str, list[str]] = {}
        for name in sorted(self._files, key=lambda name: part_number(name) or 0):
            found.setdefault(name.rpartition("/")[0], []).append(name)
        return found

    def _read(self, names: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """The table in some files, one after another."""
        return self._joined(list(self._tables(names, columns)), names)

    def _tables(self, names: Sequence[str], columns: Sequence[str]) -> Iterator[pa.Table]:
        """The table in each of some files, read when it is asked for."""
        for name in names:
            checksums = checksums_of(self.root, name, self._recorded)
            yield read_table(self.root / name, REPAIR, columns, checksums)

    def _joined(self, tables: Sequence[pa.Table], names: Sequence[str]) -> pa.Table:
        try:
            return pa.concat_tables(tables).unify_dictionaries()
        except pa.ArrowException as error:  # files without checksums may be of different runs
            place = (self.root / names[0]).parent
            raise UserError(
                f"{place} has parts that do not fit together ({first_line(error)}): {REPAIR}"
            ) from error

    def _refuse_foreign(self) -> None:
        """Refuse a finished run that lacks a file, or has one among its parts that is not its."""
        if self._recorded is None:
            return
        present = part_files(self.root)
        if missing := sorted(self._files - present):
            raise UserError(f"{self.root / missing[0]} is missing: {REPAIR}")
        if foreign := sorted(present - self._files):
            raise UserError(f"{self.root / foreign[0]} was not written by this run: {REPAIR}")

    def __repr__(self) -> str:
        failed = self.samples[self.samples["failure"].notna()]
        first = ""
        if len(failed):
            name, reason = failed[["sample_id", "failure"]].iloc[0]
            first = f" (first {one_line(name, 40)}: {one_line(reason, 80)})"
        sites = [f"{site} at layers {ranges(self.layers(site))}" for site in self.sites]
        counts = f"{len(self.samples) - len(failed)} samples, {len(failed)} failed{first}"
        return brief(f"Store({str(self.root)!r}: {counts}, {', '.join(sites)})")

    def _repr_html_(self) -> str:
        failed = self.samples[self.samples["failure"].notna()]
        rows = [
            {"site": site, "layers": ranges(self.layers(site)), "count": len(self.layers(site))}
            for site in self.sites
        ]
        of = {name: self.identity.get(name) for name in ("model", "benchmark", "split", "dtype")}
        caption = (
            f"Vectors of {of['model']} ({of['dtype']}) on {of['benchmark']}, split {of['split']}: "
            f"{len(self.samples) - len(failed)} samples were read and {len(failed)} failed; the "
            f"layers of each site, in {self.root}. Vectors are as captured, in the model's own "
            "units; they are data, so they have no interval."
        )
        notes = [f"{row.sample_id} failed: {row.failure}" for row in failed.itertuples()]
        frame = pd.DataFrame(rows, columns=["site", "layers", "count"])
        return as_html(caption, frame, notes if self._is_finished else [UNFINISHED, *notes])


def read_identity(root: Path, recorded: Recorded | None, remedy: str = REPAIR) -> dict[str, Any]:
    """What the extraction in a run folder was asked for.

    Args:
        root: the run folder.
        recorded: its checksums; None if it has none.
        remedy: what the user can do if the file is damaged.

    Raises:
        UserError: the file is missing or damaged.
    """
    if recorded is None:
        return read_yaml(extraction_file(root), remedy)
    return read_yaml(root / EXTRACTION, remedy, checksums_of(root, EXTRACTION, recorded, remedy))
