"""The explorer: the projected tokens of a report, to be looked at one by one.

It is part of the page and needs nothing else: data, scripts and pictures are in it. Its scripts are
named by their hashes in the page's Content Security Policy, so no other script runs.
"""

from keygap.reporting.explorer.section import Explorer, explorer

__all__ = ["Explorer", "explorer"]
