"""Which files hold a benchmark: the user's own (``--data PATH``), or the publisher's on the Hub.

From the Hub always at a pinned revision: the same name means the same questions next year.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from keygap.benchmarks.formats.tables import KINDS
from keygap.errors import UserError


@dataclass(frozen=True)
class HubFiles:
    """Files of a dataset on the Hub: its id, a commit, and a glob pattern."""

    dataset: str
    revision: str
    pattern: str


def local_files(
    data: str | Path, *wanted: tuple[str, Collection[str]], suffixes: Collection[str] = tuple(KINDS)
) -> list[Path]:
    """A data file, or those of a folder that belong to a split, configuration or language.

    A folder may hold several splits side by side. They are told apart by words of their paths, as
    publishers name them (``Accounting/validation-00000-of-00001.parquet``,
    ``MMBench_DEV_CN.tsv``); where no path has such a word, all files are meant.

    Args:
        data: a file, or a folder that is searched with its subfolders.
        wanted: pairs of a word, and all the words that stand in its place in other files.
        suffixes: of data files.

    Raises:
        UserError: nothing there, or nothing that is wanted.
    """
    root = Path(data)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise UserError(f"no data file or folder at {root}")
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in suffixes)
    if not files:
        raise UserError(f"{root} has no {' or '.join(suffixes)} file")
    for word, words in wanted:
        named = {path: _words(path.relative_to(root)) & set(words) for path in files}
        if any(named.values()):
            files = [path for path in files if word in named[path]]
        if not files:
            found = ", ".join(sorted(set().union(*named.values())))
            raise UserError(
                f"{root} has files of {found}, but none of {word}; name the file itself"
            )
    return files


def origin(data: str | Path | None) -> str | None:
    """Where local data lie, in full; None for the Hub's. Tells runs on different files apart."""
    return None if data is None else str(Path(data).resolve())


def hub_files(source: HubFiles) -> list[Path]:
    """The files on this machine, downloaded first where they are not in the Hub's cache.

    Raises:
        UserError: the Hub cannot be reached, or does not have them.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            source.dataset,
            repo_type="dataset",
            revision=source.revision,
            allow_patterns=[source.pattern],
        )
    except OSError as error:  # every error of the Hub's client is one
        reason = str(error).splitlines()[0]
        raise UserError(
            f"cannot get {source.dataset} from the Hub ({reason}); "
            "with the files on this machine, name them with --data PATH"
        ) from error
    files = sorted(Path(folder).glob(source.pattern))
    if not files:
        raise UserError(f"{source.dataset} on the Hub has no {source.pattern}")
    return files


def _words(path: Path) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", path.as_posix().lower()))
