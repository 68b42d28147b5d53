"""Layers that are kept as soon as they are measured, so that an interrupted measurement continues.

Measuring all layers and heads of a large model takes hours, and its tables are written at the end.
Until then each layer is a file below ``measured/`` of the run folder, under a digest of everything
that decides its numbers. A measurement with other options or of another extraction therefore finds
none of them. Contrasts and statistics of other packages may have changed in between, which no
digest shows, so a measurement that uses some keeps nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from keygap import gap, interrupts
from keygap.contrasts import CONTRASTS
from keygap.contrasts.contrast import Contrast
from keygap.contrasts.own import OwnContrast
from keygap.errors import Damaged
from keygap.store import Store
from keygap.store.checksums import read_checksums
from keygap.store.files import remove
from keygap.store.interim import read_interim, write_interim
from keygap.store.run import MEASURED, SAMPLES, part_number

logger = logging.getLogger("keygap")
_COMPUTING = ("torch", "numpy", "scipy", "scikit-learn")  # whose releases may round differently
Place = tuple[str, int]  # site and layer


@dataclass(frozen=True)
class Measured:
    """What was measured at one site and layer.

    Attributes:
        rows: of the long table.
        dimensions: rows of ``dimensions.csv``, a table for each contrast.
        notes: what could not be measured, and why; cautions about what was.
    """

    rows: list[dict[str, Any]]
    dimensions: list[pd.DataFrame]
    notes: list[str]


class KeptLayers:
    """The layers of one measurement that are kept in a run folder.

    Args:
        root: the run folder.
        identity: what decides every number, as plain values.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.folder = root / MEASURED / digest[:16]
        self.root = root
        self.layers = 0

    def read(self, place: Place) -> Measured | None:
        """What was kept of a site and layer; None if nothing was, or if it is damaged."""
        file = self._file(place)
        if not file.is_file():
            return None
        try:
            values = read_interim(file, "it is measured again")
        except Damaged as damage:
            logger.warning("%s", damage)
            return None
        self._say_one_more()
        frames = [pd.DataFrame(columns) for columns in values["dimensions"]]
        return Measured(values["rows"], frames, values["notes"])

    def write(self, place: Place, found: Measured) -> None:
        """Keep what was measured at a site and layer.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        dimensions = [frame.to_dict("list") for frame in found.dimensions]
        values = {"rows": found.rows, "dimensions": dimensions, "notes": found.notes}
        write_interim(self._file(place), values)
        self._say_one_more()

    def _file(self, place: Place) -> Path:
        site, layer = place
        return self.folder / f"{site}-{layer}.json"

    def _say_one_more(self) -> None:
        self.layers += 1
        interrupts.keep(f"{self.layers} measured layers are kept in {self.root}")


def kept_layers(
    store: Store,
    settings: Mapping[str, Any],
    layers_of: Mapping[str, int],
    contrasts: Sequence[Contrast],
) -> KeptLayers | None:
    """The kept layers of a measurement; None if it is not known what decides its numbers.

    Args:
        store: the extraction.
        settings: of the measurement.
        layers_of: the number of layers of each site, on which numbers of label swaps depend.
        contrasts: what is measured.
    """
    recorded = read_checksums(store.root)
    selections = [_selection(contrast) for contrast in contrasts]
    if recorded is None or None in selections or gap.STATISTICS.added():
        return None
    identity = {
        "code": _digest_of_code(),
        "versions": {name: version(name) for name in ("keygap", *_COMPUTING)},
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "settings": settings,
        "selections": selections,
        "layers": dict(layers_of),
        "files": {
            name: sums
            for name, sums in recorded.items()
            if name == SAMPLES or part_number(name) is not None
        },
    }
    return KeptLayers(store.root, identity)


def _selection(contrast: Contrast) -> str | dict[str, Any] | None:
    """What tells a contrast from every other, as plain values; None if nothing does."""
    own = getattr(contrast.select, "__self__", None)
    if isinstance(own, OwnContrast) and contrast == own.contrast():
        return own.model_dump(mode="json")
    known = CONTRASTS.get(contrast.name) is contrast and contrast.name not in CONTRASTS.added()
    return contrast.name if known else None


def _digest_of_code() -> str:
    """A digest of keygap's own source, which an editable installation changes at any time."""
    root = Path(__file__).parents[1]
    sources = sorted(root.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def forget_layers(root: Path) -> None:
    """Remove all kept layers of a run folder, whose tables have been written.

    Raises:
        UserError: they cannot be removed.
    """
    remove(root / MEASURED)
