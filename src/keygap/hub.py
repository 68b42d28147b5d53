"""The Hub, asked once before anything is downloaded from it.

Without a connection, transformers, huggingface_hub and datasets try every file several times and
fail after minutes. Here one request of ``PATIENCE`` seconds, which is not repeated, says whether a
repository and its revision exist. If the Hub does not answer, what its cache on this machine holds
is used, and nothing else is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from keygap.errors import UserError
from keygap.text import one_line

PATIENCE = 10.0  # seconds
Kind = Literal["model", "dataset"]


def located(
    name: str, kind: Kind, revision: str | None = None, pattern: str | None = None
) -> dict[str, Any]:
    """Find out where a repository of the Hub can be had.

    Args:
        name: the repository's id.
        kind: what it holds.
        revision: a branch, tag or commit; None means the main branch.
        pattern: glob pattern of the files that are needed; None means all.

    Returns:
        Arguments for ``from_pretrained`` and ``snapshot_download``: none if the Hub has the
        repository, or ``local_files_only`` if only the cache has it.

    Raises:
        UserError: there is no such repository or revision, access to it is restricted, or the Hub
            does not answer and the cache does not have it.
    """
    reason = _why_not(name, kind, revision)
    if reason is None:
        return {}
    if _in_cache(name, kind, revision, pattern):
        return {"local_files_only": True}
    raise UserError(reason)


def file(name: str, commit: str, path: str, what: str, instead: str) -> Path:
    """Return one file of a model's repository, from the cache or, if it is not there, from the Hub.

    Args:
        name: the repository's id.
        commit: the commit that has the file, as 40 hexadecimal digits. A file of a commit never
            changes, so the Hub is not asked for one that the cache has.
        path: the file's path in the repository.
        what: what needs the file, for the message.
        instead: the command that gets the file without the Hub, for the message.

    Raises:
        UserError: the cache does not have the file and the Hub does not give it.
    """
    from huggingface_hub import errors, hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(name, path, revision=commit)
    if isinstance(cached, str):
        return Path(cached)
    reason = _why_not(name, "model", None)
    if reason is not None:
        raise UserError(f"{what}; {reason}: {instead}")
    try:
        return Path(hf_hub_download(name, path, revision=commit))
    # An entry that is not there, also in the cache; HTTPError is explained at _why_not.
    except (errors.EntryNotFoundError, errors.HTTPError) as error:
        reason = f"the Hub does not give it ({one_line(error, 200)})"
        raise UserError(f"{what}; {reason}: {instead}") from error


def refuse_unreachable(what: str) -> None:
    """Refuse work that a library begins by asking the Hub, over and over, if it does not answer.

    In offline mode (``HF_HUB_OFFLINE=1``) such a library reads the cache, and nothing is asked.

    Args:
        what: what needs the Hub.

    Raises:
        UserError: the Hub does not answer.
    """
    from huggingface_hub import constants, errors, get_session

    if constants.HF_HUB_OFFLINE:
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except (errors.HTTPError, OSError) as error:
        raise UserError(
            f"{what} needs the Hub, which cannot be reached ({one_line(error, 200)}); if its data "
            "are in the cache on this machine, set HF_HUB_OFFLINE=1"
        ) from error


def _why_not(name: str, kind: Kind, revision: str | None) -> str | None:
    """Why the Hub does not give a repository; None if it does.

    Raises:
        UserError: the name is no id, or the repository has no such revision.
    """
    from huggingface_hub import HfApi, errors

    what = f"{kind} {name!r}"
    try:
        HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=PATIENCE)
    except errors.HFValidationError as error:
        raise UserError(
            f"the {what} is not a folder, and not an id of the Hub, such as OWNER/NAME"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"the {what} has no revision {revision!r} on the Hub") from error
    except errors.GatedRepoError:
        return f"access to the {what} is restricted: accept its terms on the Hub and log in"
    except errors.RepositoryNotFoundError:
        return f"the Hub has no {what}, or it is private: check the name, or log in"
    # HTTPError is the base error of the HTTP client, which differs between versions of the Hub's
    except (errors.OfflineModeIsEnabled, errors.HTTPError, OSError) as error:
        return (
            f"the Hub cannot be reached ({one_line(error, 200) or type(error).__name__}), and its "
            f"cache on this machine does not have the {what}"
        )
    return None


def _in_cache(name: str, kind: Kind, revision: str | None, pattern: str | None) -> bool:
    from huggingface_hub import errors, snapshot_download

    try:
        snapshot_download(
            name,
            repo_type=kind,
            revision=revision,
            # without it the client asks for every file of the repository, also of other splits
            allow_patterns=pattern,
            local_files_only=True,
        )
    except (errors.LocalEntryNotFoundError, OSError):
        return False
    return True
