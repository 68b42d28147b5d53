"""Published numbers that a report shows beside those of the study.

They come from the experiment file, so that no paper is hard-wired here: the values, the choices
that the source does not publish, and what its authors call the models' connectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from keygap import strict_yaml
from keygap.errors import UserError
from keygap.store.reading import verify
from keygap.store.results import is_recorded, result_checksums
from keygap.store.run import STUDY

Kind = Literal["cross-modal", "intra-modal"]


class PublishedValue(BaseModel):
    """One published number."""

    model_config = strict_yaml.STRICT

    kind: Kind
    """Whether it compares the two modalities or one modality with itself."""
    what: str
    """What the source says that it is."""
    value: float
    """The number."""


class Published(BaseModel):
    """What one source publishes."""

    model_config = strict_yaml.STRICT

    source: str
    """A citation."""
    values: list[PublishedValue] = Field(min_length=1)
    """Its numbers."""
    unpublished: list[str] = []
    """The choices that it does not publish, which is why no number can match it."""
    connectors: dict[str, str] = {}
    """What the source calls the connector of each model, by model name."""


def published_in(path: Path) -> Published | None:
    """Read the published numbers of a study file; None if the file or its section is missing.

    Raises:
        UserError: the file is damaged, or the section is not valid.
    """
    if not path.is_file():
        return None
    if path.name == STUDY and is_recorded(path.parent, STUDY):
        remedy = "repeat the keygap run of the study, or remove the file"
        checksums = result_checksums(path.parent, STUDY, remedy)
        if checksums is not None:
            verify(path, remedy, checksums)
    values = strict_yaml.read(path)
    section = values.get("published") if isinstance(values, dict) else None
    if section is None:
        return None
    try:
        return Published.model_validate(section)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("published", *first["loc"])))
        raise UserError(f"{path}: {place}: {first['msg']}") from error
