"""Where something is missing, in words: combinations of levels, in as few lists as are true."""

from __future__ import annotations

from collections.abc import Sequence

Place = tuple[tuple[str, str], ...]  # some factors, each with its level
_Levels = dict[str, tuple[str, ...]]  # levels of some factors, in all combinations


def listed(places: Sequence[Place]) -> list[str]:
    """Say each of some combinations of levels once, and no others.

    Lists that differ in the levels of one factor are merged.

    Args:
        places: combinations, each of which occurs once.

    Returns:
        One text for all of them, such as "(layer 0, 15; text all) and (layer 29; text question)";
        none if there are none.
    """
    merged: list[_Levels] = [{factor: (level,) for factor, level in place} for place in places]
    while len(fewer := _merged(merged)) < len(merged):
        merged = fewer
    texts = [
        f"({'; '.join(f'{factor} ' + ', '.join(levels) for factor, levels in own.items())})"
        for own in merged
    ]
    return [f"{', '.join(texts[:-1])} and {texts[-1]}"] if len(texts) > 1 else texts


def _merged(places: Sequence[_Levels]) -> list[_Levels]:
    """Lists after one round of merging: the last factor first, the first one last."""
    found = list(places)
    for factor in reversed(dict.fromkeys(factor for place in places for factor in place)):
        same: dict[tuple[object, ...], _Levels] = {}
        for place in found:
            others = tuple((name, levels) for name, levels in place.items() if name != factor)
            key = others, factor in place
            before = same.get(key, {}).get(factor, ())
            same[key] = {**place, factor: (*before, *place[factor])} if factor in place else place
        found = list(same.values())
    return found
