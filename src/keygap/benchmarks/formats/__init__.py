"""Readers of publishers' data files: tables, images, option lists, image markers.

The files come from elsewhere, so nothing in them is trusted: text is parsed and never evaluated,
paths stay inside their folder, and a broken row is reported as a bad sample.
"""
