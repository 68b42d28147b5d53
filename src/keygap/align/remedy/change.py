"""What a remedy does to a model, apart from how it was found: a map at a strength, or a constant.

It is kept in a folder as values in YAML and, for a map, a safetensors file, none of which can hold
code. The YAML names the map by its checksum, so that the two files cannot be of different searches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from keygap.align.baselines import build
from keygap.align.map import Map, check_model, load_map
from keygap.align.steering import steering_of
from keygap.display import as_html, brief, ranges
from keygap.errors import UserError
from keygap.models.interventions import Intervention
from keygap.models.vlm import VLM
from keygap.store.reading import read_yaml
from keygap.store.results import result_checksums
from keygap.store.run import REMEDY_MAP, REMEDY_SETTINGS

AGAIN = "search again, with another folder for the results"
FACTS = ("model", "revision", "fingerprint", "architecture", "n_layers", "dtype")


@dataclass(frozen=True, eq=False)
class Change:
    """A small change of a model.

    Attributes:
        name: of a map or of the baseline ``attention-bias``.
        layers: absolute indices of the layers at which it acts.
        strength: of the map; of an attention bias the nats that the logits of image keys get.
        fitted: the map, at these layers only; None for an attention bias.
        facts: the model that it was found on: ``FACTS``.
    """

    name: str
    layers: Sequence[int]
    strength: float
    fitted: Map | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """The numbers that it adds to the model."""
        if self.fitted is None:
            return 1
        affines = self.fitted.layers.values()
        return sum(tensor.numel() for affine in affines for tensor in affine.tensors.values())

    def __repr__(self) -> str:
        where = f"layers {ranges(self.layers)}, strength {self.strength:+g}"
        return brief(f"Change({self.name!r}: {where}, for {self.facts.get('model')})")

    def _repr_html_(self) -> str:
        row = {
            "change": self.name,
            "site": "" if self.fitted is None else self.fitted.site,
            "layers": ranges(self.layers),
            "strength": self.strength,
            "parameters": self.parameters,
        }
        caption = (
            f"A change of {self.facts.get('model')} that was found as a remedy. strength: of the "
            "map, or in nats for attention-bias. What it is worth, with intervals, is in the "
            "remedy.csv of its search."
        )
        return as_html(caption, pd.DataFrame([row]))

    def applied(self, vlm: VLM) -> AbstractContextManager[None]:
        """Let it act on a model while a block runs.

        Forward passes and generation of ``vlm.forward`` and ``vlm.generate`` are changed: image
        tokens are found by the labels of a batch, which a call of ``vlm.model`` does not have.

        Args:
            vlm: the model.

        Raises:
            UserError: a model that it does not fit.
        """
        return vlm.interventions.applied(self.intervention(vlm))

    def intervention(self, vlm: VLM) -> Intervention:
        """The intervention that ``applied`` applies; arguments and errors as there.

        Args:
            vlm: the model that it is made for.
        """
        if self.fitted is not None:
            return steering_of(vlm, self.fitted, strength=self.strength)
        check_model(f"the remedy {self.name}", self.facts, vlm, AGAIN)
        return build(self.name, layers=list(self.layers), nats=self.strength)

    def as_plain(self) -> dict[str, Any]:
        """Plain values for YAML, the map by its checksum."""
        return {
            "name": self.name,
            "site": None if self.fitted is None else self.fitted.site,
            "layers": list(self.layers),
            "strength": self.strength,
            "map": None if self.fitted is None else self.fitted.hash,
            "facts": dict(self.facts),
        }


def load_remedy(folder: str | Path) -> Change:
    """Read the remedy that a search found, to apply it.

    Use it as ``with kg.align.load_remedy("runs/x").applied(vlm): vlm.generate(batch)``.

    Args:
        folder: the folder of the search.

    Returns:
        The change of the model that the search chose.

    Raises:
        UserError: the folder has no search, the search found no remedy, or a file is damaged.
    """
    root = Path(folder)
    file = root / REMEDY_SETTINGS
    if not file.is_file():
        raise UserError(f"{root} has no {REMEDY_SETTINGS}: name the folder of a finished search")
    values = read_yaml(file, AGAIN, result_checksums(root, REMEDY_SETTINGS, AGAIN))
    if values.get("found") is False:
        raise UserError(f"the search in {root} found no remedy, see {file}: there is none to apply")
    try:
        plain = values["change"]
        digest = plain["map"]
        found = Change(
            str(plain["name"]),
            [int(layer) for layer in plain["layers"]],
            float(plain["strength"]),
            None if digest is None else load_map(root / REMEDY_MAP),
            dict(plain["facts"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{file} is damaged ({type(error).__name__}: {error}): {AGAIN}") from error
    if found.fitted is not None and found.fitted.hash != digest:
        raise UserError(f"{root / REMEDY_MAP} is not the map that {file} names: {AGAIN}")
    return found
