"""The sites at which vectors are read, one line each.

A projection site is the output of a module of the layer's attention, before norm and RoPE. An
attention site is an argument of the attention function, after both. ``hidden`` is the residual
stream that enters the layer. Keys and values keep the key heads of grouped-query attention apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from keygap.errors import unknown


@dataclass(frozen=True)
class Site:
    """How one kind of vector is read.

    Attributes:
        name: the site's name.
        kind: which kind of hook reads it.
        source: the projection, or the argument of the attention function.
        of_keys: whether the vectors belong to what is attended to: in a cross-attention layer,
            image features.
    """

    name: str
    kind: Literal["projection", "attention", "hidden"]
    source: str
    of_keys: bool = False


SITES = {
    site.name: site
    for site in (
        Site("q_proj", "projection", "q_proj"),
        Site("k_proj", "projection", "k_proj", of_keys=True),
        Site("v_proj", "projection", "v_proj", of_keys=True),
        Site("query", "attention", "query"),
        Site("key", "attention", "key", of_keys=True),
        Site("value", "attention", "value", of_keys=True),
        Site("hidden", "hidden", ""),
    )
}


def site_of(name: str) -> Site:
    """The site of a name.

    Raises:
        UserError: there is no such site; names the nearest.
    """
    if name not in SITES:
        raise unknown("site", name, SITES)
    return SITES[name]
