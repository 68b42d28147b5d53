"""Open images from data files: bytes, base64 text, or a path. Pixels are not decoded yet.

The files are untrusted. Only raster formats that Pillow decodes itself are tried (it would pass
PostScript to another program), and a path may not lead out of the folder of the file that names it.
"""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from pathlib import Path

from PIL import Image

from keygap.arguments import followed
from keygap.benchmarks.sample import BROKEN, BadSample, check_sizes

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
ANIMATED = ("PNG", "GIF", "WEBP", "TIFF")  # formats that can have several frames or pages
MOST_BYTES = 1 << 28  # of an encoded image


def open_image(data: bytes) -> Image.Image:
    """Open an encoded image without decoding its pixels.

    Raises:
        BadSample: the bytes are no image in one of ``FORMATS``, an animation, or an image of a size
            that is not read (``check_sizes``).
    """
    try:
        with warnings.catch_warnings():  # of a large image or of its EXIF data
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            check_sizes([image.size])
            moves = image.format in ANIMATED and getattr(image, "is_animated", False)
    except Image.DecompressionBombError as error:
        raise BadSample(f"the image is too large: {error}") from error
    except BadSample:
        raise
    except BROKEN as error:
        formats = ", ".join(FORMATS)
        raise BadSample(f"{len(data):,} bytes that are not an image of {formats}") from error
    if moves:
        raise BadSample(f"the {image.format} has several frames: save the one that is meant")
    return image


def image_of(cell: object) -> Image.Image:
    """Open the image in a table's cell: ``{"bytes": ...}``, bytes, or base64 text.

    Raises:
        BadSample: the cell is empty or has a path instead of bytes, the base64 text is broken, or
            there is no image in it.
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
    """Open the image file of this name inside a folder.

    Raises:
        BadSample: there is no such file, it leads out of the folder (by ``..``, an absolute path or
            a symbolic link), it is larger than ``MOST_BYTES``, or it is no image.
    """
    path = inside(folder, name)
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise BadSample(f"the image is too large: a file of {size:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise BadSample(f"the image {name!r} cannot be read: {error.strerror}") from error
    return open_image(data)


def inside(folder: Path, name: object) -> Path:
    """Resolve a name, with its symbolic links, to a regular file inside a folder.

    Raises:
        BadSample: there is no such file, it is not a regular file, or it is outside the folder.
    """
    if not isinstance(name, str) or not name:
        raise BadSample("missing image: no path")
    root = folder.resolve()
    try:
        path = followed(root / name)
        found = path.is_relative_to(root) and path.is_file()
    # a null byte, a name that is too long, a cycle of links
    except (ValueError, OSError, RuntimeError) as error:
        raise BadSample(f"the path {name[:80]!r} cannot be followed: {error}") from error
    if not path.is_relative_to(root):
        raise BadSample(f"the path {name!r} leads out of its folder")
    if not found:
        raise BadSample(f"missing image: no file {name!r}")
    return path
