"""Numbers that somebody else published, beside which a study's own stand in its report.

They come from the experiment file, so that nothing here knows any paper: what was published, what
was not, and what its authors call the models' connectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from keygap.errors import UserError

Kind = Literal["cross-modal", "intra-modal"]


class PublishedValue(BaseModel):
    """One number: which of the two kinds of contrast it is of, and what the source calls it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    what: str
    value: float


class Published(BaseModel):
    """What a source says; ``unpublished`` is what it does not, and so why nothing can match it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    values: list[PublishedValue] = Field(min_length=1)
    unpublished: list[str] = []
    connectors: dict[str, str] = {}  # by model name, as the source has them


def published_in(path: Path) -> Published | None:
    """The published numbers of the study whose experiment file this is; None where it has none.

    Raises:
        UserError: they do not fit.
    """
    if not path.is_file():
        return None
    values = yaml.safe_load(path.read_text())
    section = values.get("published") if isinstance(values, dict) else None
    if section is None:
        return None
    try:
        return Published.model_validate(section)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("published", *first["loc"])))
        raise UserError(f"{path}: {place}: {first['msg']}") from error
