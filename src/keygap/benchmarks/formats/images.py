"""Images out of data files: from bytes, base64 or a path, opened and not yet decoded.

The bytes are hostile. Only raster formats that Pillow decodes itself are tried (it would hand
PostScript to another program), and a path never leads out of the folder of the file that names it.
"""

from __future__ import annotations

import base64
import binascii
import io
import struct
from pathlib import Path

from PIL import Image

from keygap.benchmarks.sample import BadSample

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")


def open_image(data: bytes) -> Image.Image:
    """Encoded bytes as an image; its pixels stay undecoded until they are used.

    Raises:
        BadSample: no image of a known format, or one so large that it can only be an attack.
    """
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadSample(f"the image is too large: {error}") from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error) as error:
        raise BadSample(f"{len(data):,} bytes that are not an image of {_names()}") from error


def image_of(cell: object) -> Image.Image:
    """The image in a table's cell: embedded as ``{"bytes": ...}``, as bytes, or as base64 text.

    Raises:
        BadSample: an empty cell, a path instead of bytes, broken base64, or no image.
    """
    if isinstance(cell, dict):
        if not cell.get("bytes"):
            raise BadSample("missing image: the cell has no bytes, only a name")
        cell = cell["bytes"]
    if isinstance(cell, str) and cell:
        try:
            cell = base64.b64decode("".join(cell.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadSample(f"broken base64: {error}") from error
    if not isinstance(cell, bytes) or not cell:
        raise BadSample("missing image")
    return open_image(cell)


def image_at(folder: Path, name: object) -> Image.Image:
    """The image file of this name inside a folder.

    Raises:
        BadSample: no such file, a name that leads out of the folder (by ``..``, an absolute path or
            a symbolic link), or no image.
    """
    return open_image(inside(folder, name).read_bytes())


def inside(folder: Path, name: object) -> Path:
    """The ordinary file of this name, followed through links, and still inside the folder.

    Raises:
        BadSample: it is not there, not an ordinary file, or elsewhere.
    """
    if not isinstance(name, str) or not name:
        raise BadSample("missing image: no path")
    root = folder.resolve()
    try:
        path = (root / name).resolve()
        found = path.is_relative_to(root) and path.is_file()
    # a null byte, a name too long, a circle of links
    except (ValueError, OSError, RuntimeError) as error:
        raise BadSample(f"the path {name[:80]!r} cannot be followed: {error}") from error
    if not path.is_relative_to(root):
        raise BadSample(f"the path {name!r} leads out of its folder")
    if not found:
        raise BadSample(f"missing image: no file {name!r}")
    return path


def _names() -> str:
    return ", ".join(FORMATS)
