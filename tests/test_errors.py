"""The error for an unknown name suggests the nearest known one."""

from __future__ import annotations

from keygap.errors import unknown

SITES = ["k_proj", "q_proj", "key"]


def test_the_nearest_name_is_suggested():
    said = str(unknown("site", "kproj", SITES))
    assert said == "unknown site 'kproj'; did you mean 'k_proj'? known: k_proj, q_proj, key"


def test_without_a_near_name_the_known_ones_are_listed():
    said = str(unknown("layer", 99, [0, 1], hint="of k_proj in runs/x"))
    assert said == "unknown layer '99'; known: 0, 1 (of k_proj in runs/x)"
