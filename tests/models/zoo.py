"""The zoo: one tiny model of each family, with its real processor.

An entry says what its family needs beyond the common sizes of ``tiny``: the special tokens that its
processor writes, sizes that must agree with each other, and the template in whose style it chats.
There is one file for each way to divide an image.
"""

from __future__ import annotations

from .zoo_native import NATIVE
from .zoo_qwen import QWEN
from .zoo_refused import REFUSED
from .zoo_square import SQUARE_VIEW
from .zoo_tiles import TILES

ZOO = [*SQUARE_VIEW, *TILES, *NATIVE, *QWEN]
BY_FAMILY = {entry.family: entry for entry in (*ZOO, *REFUSED)}
