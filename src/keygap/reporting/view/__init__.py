"""``keygap view``: the explorer over all tokens of a run, however many there are.

A server on this machine alone answers what is looked at: some points of a part of the plane, the
prompt and the pictures of one sample, the words that contain a text. The page is that of the
explorer in a report, with the same scripts; only where the tokens come from differs.
"""

from keygap.reporting.view.explored import Explored
from keygap.reporting.view.server import ViewServer

__all__ = ["Explored", "ViewServer"]
