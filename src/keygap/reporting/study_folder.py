"""The study that runs belong to: what its file says is shown beside exactly its runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keygap import strict_yaml
from keygap.errors import UserError
from keygap.store.run import STUDY, run_folder_name


def is_study_of(folder: Path, roots: Sequence[Path]) -> bool:
    """Whether a folder holds a study whose runs are exactly these.

    Args:
        folder: the folder.
        roots: the run folders.

    Raises:
        UserError: the file of the study is damaged.
    """
    if not (folder / STUDY).is_file():
        return False
    values = strict_yaml.read(folder / STUDY)
    own = {(folder / name).resolve() for name in _folder_names(values)}
    return own == {root.resolve() for root in roots}


def default_folder(roots: Sequence[Path]) -> Path:
    """Where a report goes if no folder is named: the run folder, or the parent of several.

    Raises:
        UserError: the runs have several parents, or the parent is a study with other runs, whose
            own report would be replaced.
    """
    if len(roots) == 1:
        return roots[0]
    parent = roots[0].parent
    if other := next((root for root in roots if root.resolve().parent != parent.resolve()), None):
        raise UserError(
            f"the runs lie in several folders, such as {parent} and {other.parent}: name a folder "
            "for the report with --out"
        )
    if (parent / STUDY).is_file() and not is_study_of(parent, roots):
        raise UserError(
            f"{parent} is a study, and these are not exactly its runs: name another folder for the "
            "report with --out"
        )
    return parent


def _folder_names(values: Any) -> set[str]:
    """The run folders of a study."""
    models, benchmarks = (_names(values, key) for key in ("models", "benchmarks"))
    return {run_folder_name(model, bench) for model in models for bench in benchmarks}


def _names(values: Any, key: str) -> list[str]:
    items = values.get(key) if isinstance(values, dict) else None
    items = items if isinstance(items, list) else []
    return [str(item["name"]) for item in items if isinstance(item, dict) and "name" in item]
