"""What this machine has and lacks for keygap: ``keygap doctor``.

A user whose command fails should learn in one place whether it is the machine. Each check is a
function of its own that returns findings, loads no checkpoint and needs no network. A check
whose prerequisites are missing says so and does not stop the others.
"""

from __future__ import annotations

import os
import platform
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from keygap.micro.files import LANGUAGE_MODEL, PUBLISHED, cache_root
from keygap.text import one_line

# ``FAIL``: keygap does not work; ``missing``: some commands do not; ``note``: good to know
Result = Literal["ok", "note", "missing", "FAIL"]
LEAST_FREE = 2**30  # bytes; the embedded model alone takes 0.4 GB of the cache

# Extra -> what does not work without its packages.
EXTRAS = {
    "micro": "keygap demo and micro:CONNECTOR",
    "lmms": "--benchmark lmms:NAME",
    "ray": "--engine ray",
    "atlas": "keygap view --atlas",
}


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        check: what was looked at.
        result: what was found.
        detail: versions or numbers, and what to do.
    """

    check: str
    result: Result
    detail: str


def examine() -> list[Finding]:
    """Make every check, in the order of the table."""
    needed = list(packages())
    found = [Finding("Python", "ok", platform.python_version()), *needed, *extras()]
    too_old = {each.check for each in needed if each.result == "FAIL"}
    for check, uses in ((devices, {"torch"}), (attention, {"torch", "transformers"})):
        if blocked := sorted(uses & too_old):
            found.append(Finding(check.__name__, "FAIL", f"skipped: first fix {blocked[0]}"))
        else:
            found += check()
    return [*found, *caches()]


def requirements(extra: str = "") -> list[Requirement]:
    """What the installed keygap requires, or one of its extras, on this platform."""
    every = [Requirement(line) for line in metadata.requires("keygap") or []]
    plain = [each for each in every if each.marker is None or each.marker.evaluate({"extra": ""})]
    if not extra:
        return plain
    chosen = [each for each in every if each.marker and each.marker.evaluate({"extra": extra})]
    return [each for each in chosen if each not in plain]


def packages() -> Iterator[Finding]:
    """The version of every package that keygap always needs, against the range it was made for."""
    for required in requirements():
        found = _version(required.name)
        install = f"pip install --upgrade '{required.name}{required.specifier}'"
        if found is None:
            yield Finding(required.name, "FAIL", f"not installed: {install}")
        elif not required.specifier.contains(found, prereleases=True):
            yield Finding(required.name, "FAIL", f"{found} is not {required.specifier}: {install}")
        else:
            yield Finding(required.name, "ok", found)


def extras() -> Iterator[Finding]:
    """Which extras are installed, and what does not work without the others."""
    for extra, without in EXTRAS.items():
        lacking = [each.name for each in requirements(extra) if _version(each.name) is None]
        if lacking:
            detail = f"{', '.join(lacking)}: pip install 'keygap[{extra}]', for {without}"
            yield Finding(f"extra {extra}", "missing", detail)
        else:
            yield Finding(f"extra {extra}", "ok", f"for {without}")
    package, name = LANGUAGE_MODEL
    if find_spec(package) is not None:
        yield Finding("embedded model", "ok", f"{name}, of the package {package}")
    elif _is_cached(*PUBLISHED, name):
        yield Finding("embedded model", "ok", f"{name}, in the cache of the Hub")
    else:
        yield Finding("embedded model", "note", f"{name} is downloaded on first use (98 MB)")


def devices() -> Iterator[Finding]:
    """The GPUs that PyTorch can use, and their memory."""
    import torch

    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB are free"
        yield Finding(f"GPU {number}", "ok", f"{torch.cuda.get_device_name(number)}, {memory}")
    if torch.cuda.device_count() == 0:
        built = f"PyTorch is built for CUDA {torch.version.cuda}" if torch.version.cuda else ""
        built = built or "PyTorch is built without CUDA"
        detail = f"none ({built}); models run on {os.cpu_count()} processors, which is slow"
        yield Finding("GPU", "note", detail)


def attention() -> Iterator[Finding]:
    """Whether keygap can tap each attention implementation, by running a tiny model with it."""
    from transformers import AttentionInterface

    for name in dict.fromkeys(("sdpa", "eager", *AttentionInterface().valid_keys())):
        reason = _why_not_tapped(name)
        always = name in ("sdpa", "eager")
        if reason is None:
            yield Finding(f"attention {name}", "ok", "can be tapped")
        else:
            detail = f"cannot be tapped ({reason}): use another, such as sdpa"
            yield Finding(f"attention {name}", "FAIL" if always else "note", detail)


def caches() -> Iterator[Finding]:
    """The free space of the folders that models and datasets are kept in."""
    from huggingface_hub import constants

    for name, folder in (("Hub's", Path(constants.HF_HUB_CACHE)), ("keygap's", cache_root())):
        free = free_bytes(folder)
        detail = f"{folder}: {free / 2**30:.1f} GiB are free"
        if free < LEAST_FREE:
            variable = "HF_HOME" if name == "Hub's" else "KEYGAP_CACHE"
            detail += f"; free some, or name another folder with {variable}"
        yield Finding(f"{name} cache", "ok" if free >= LEAST_FREE else "FAIL", detail)


def free_bytes(folder: Path) -> int:
    """The free space where a folder is, or will be once it is made."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _is_cached(repository: str, commit: str, name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, name, revision=commit), str)


def _why_not_tapped(implementation: str) -> str | None:
    """Why a tap does not see the calls of a model with this implementation; None if it does."""
    import torch
    from transformers import LlamaConfig, LlamaModel

    from keygap.models.attention_tap import AttentionCall, AttentionTap

    seen: list[AttentionCall] = []

    def read(call: AttentionCall) -> object:
        seen.append(call)
        return call.proceed()

    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "vocab_size": 8}
    config = LlamaConfig(num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, **sizes)
    model = LlamaModel(config).eval()
    # What a package or kernel that is not there raises, and one that does not take this device.
    refusals = (ImportError, ValueError, TypeError, RuntimeError, AttributeError, LookupError)
    try:
        model.set_attn_implementation(implementation)
        with (
            warnings.catch_warnings(action="ignore"),  # that a tiny model is slow this way
            torch.no_grad(),
            torch.compiler.set_stance("force_eager"),  # flex attention compiles for a minute
            AttentionTap([model.layers[0].self_attn], read, reads=True),
        ):
            model(input_ids=torch.zeros(1, 4, dtype=torch.long))
    except refusals as error:
        return one_line(error, 120)
    return None if seen else "the model computes attention without it"
