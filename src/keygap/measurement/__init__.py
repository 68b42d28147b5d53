"""Measuring a run: statistics of contrasts at every site, layer and head, as tables.

``measure`` computes, ``tables`` holds, saves and reads what was computed. ``tables`` needs neither
torch nor a statistic, so that a report can be made without them.
"""
