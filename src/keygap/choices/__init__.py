"""One gap under every choice that a paper may leave open: a specification curve.

Names are imported on first use, so that a report can read the tables of this package without
importing torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keygap.lazy import lazy

if TYPE_CHECKING:
    from keygap.choices.direct import again as again
    from keygap.choices.levels import Plan as Plan
    from keygap.choices.running import specifications as specifications
    from keygap.choices.tables import ChoicesTable as ChoicesTable
    from keygap.choices.tables import read_choices as read_choices

_PUBLIC = {
    "specifications": "keygap.choices.running:specifications",
    "Plan": "keygap.choices.levels:Plan",
    "again": "keygap.choices.direct:again",
    "ChoicesTable": "keygap.choices.tables:ChoicesTable",
    "read_choices": "keygap.choices.tables:read_choices",
}
__all__ = list(_PUBLIC)


__getattr__, __dir__ = lazy(__name__, _PUBLIC)
