"""Which files hold a benchmark: the user's own (``--data PATH``), or the publisher's on the Hub.

Files on the Hub are read at a pinned revision, so that a benchmark's name always means the same
questions.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from keygap.benchmarks.formats.tables import KINDS
from keygap.errors import UserError
from keygap.hub import located
from keygap.text import one_line

SHARD = re.compile(r"(.*-)\d{5}(-of-(\d{5})\.\w+)")  # as in dev-00000-of-00003.parquet


@dataclass(frozen=True)
class HubFiles:
    """Files of a dataset on the Hub.

    Attributes:
        dataset: the dataset's id.
        revision: a commit.
        pattern: glob pattern of the files' paths.
        folders: what the pattern's first ``*`` stands for, if a file of each is needed.
    """

    dataset: str
    revision: str
    pattern: str
    folders: tuple[str, ...] = ()


def source_files(
    data: str | Path | None, hub: HubFiles, *wanted: tuple[str, Collection[str]]
) -> list[Path]:
    """Find a benchmark's files: local ones if the user names them, otherwise the Hub's.

    Args:
        data: as in ``local_files``; None means the Hub.
        hub: the publisher's files.
        wanted: as in ``local_files``.

    Raises:
        UserError: as ``local_files`` and ``hub_files``.
    """
    return hub_files(hub) if data is None else local_files(data, *wanted)


def local_files(data: str | Path, *wanted: tuple[str, Collection[str]]) -> list[Path]:
    """Return a data file, or the files of a folder that belong to a split, edition or language.

    A folder may hold several splits. They are told apart by words in the files' paths, as
    publishers name them (``Accounting/validation-00000-of-00001.parquet``,
    ``MMBench_DEV_CN.tsv``). If no path has such a word, all files are taken.

    Args:
        data: a file, or a folder that is searched with its subfolders.
        wanted: pairs of a word, and all the words that may be in its place in other files.

    Raises:
        UserError: nothing is there, or no file has a wanted word while others have another.
    """
    root = Path(data)
    if is_there(root, Path.is_file):
        return [root]
    if not is_there(root, Path.is_dir):
        raise UserError(f"no data file or folder at {root}")
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in KINDS)
    if not files:
        raise UserError(f"{root} has no {' or '.join(KINDS)} file")
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


def is_there(path: Path, test: Callable[[Path], bool]) -> bool:
    """Whether a path passes a test; not if it cannot be followed, such as one that is too long."""
    try:
        return test(path)
    except (OSError, ValueError):
        return False


def origin(data: str | Path | None) -> str | None:
    """Return the absolute path of local data, which identifies a run; None for the Hub's."""
    return None if data is None else str(Path(data).resolve())


def hub_files(source: HubFiles) -> list[Path]:
    """Return the files on this machine, downloaded first if the Hub's cache lacks them.

    Raises:
        UserError: the Hub cannot be reached or does not have the files, or the cache, which is
            read in its place, has only some of them.
    """
    from huggingface_hub import snapshot_download

    beside = "if the files are on this machine, name them with --data PATH"
    try:
        where = located(source.dataset, "dataset", source.revision, source.pattern)
    except UserError as error:
        raise UserError(f"{error}; {beside}") from error
    try:
        folder = snapshot_download(
            source.dataset,
            repo_type="dataset",
            revision=source.revision,
            allow_patterns=[source.pattern],
            **where,
        )
    except OSError as error:  # all errors of the Hub's client are OSErrors
        raise UserError(
            f"cannot get {source.dataset} from the Hub ({one_line(error, 200)}); {beside}"
        ) from error
    files = sorted(Path(folder).glob(source.pattern))
    if not files and not where:
        raise UserError(f"{source.dataset} on the Hub has no {source.pattern}")
    # The cache may have a part of the files, such as what another program asked for.
    missing = _missing(source, Path(folder), files) if files else [source.pattern]
    if missing:
        raise UserError(
            f"{source.dataset} is not complete: {', '.join(missing)} missing in {folder}; "
            f"connect to the Hub, or {beside}"
        )
    return files


def _missing(source: HubFiles, root: Path, files: Sequence[Path]) -> list[str]:
    """The files, or patterns of files, that a part of the Hub's files lacks."""
    paths = {path.relative_to(root).as_posix() for path in files}
    needed: dict[str, None] = {}
    for path in sorted(paths):
        if shard := SHARD.fullmatch(path):
            names = (f"{shard[1]}{number:05}{shard[2]}" for number in range(int(shard[3])))
            needed.update(dict.fromkeys(names))
    patterns = [source.pattern.replace("*", name, 1) for name in source.folders]
    return [
        *(pattern for pattern in patterns if not fnmatch.filter(paths, pattern)),
        *(name for name in needed if name not in paths),
    ]


def _words(path: Path) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", path.as_posix().lower()))
