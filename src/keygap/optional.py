"""Optional packages: whether one is installed, and if not, what to install.

keygap works without the packages of its extras. The one module that needs such a package calls
``require`` first, so that every missing package is reported in the same words.
"""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from importlib.util import find_spec

from keygap.errors import UserError


def require(package: str, extra: str, what: str) -> ModuleSpec:
    """Check that an optional package is installed, without importing it.

    Args:
        package: the name under which it is imported.
        extra: the extra of keygap that installs it.
        what: what needs it, such as ``"benchmark easy-vqa"``.

    Returns:
        The package's import specification, which says where its files are.

    Raises:
        UserError: it is not installed.
    """
    spec = find_spec(package)
    if spec is None:
        name = package.replace("_", "-")
        raise UserError(f"{what} needs the package {name}: pip install 'keygap[{extra}]'")
    return spec
