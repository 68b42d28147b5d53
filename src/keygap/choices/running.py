"""``kg.specifications``: the gap of some stores under every choice that a paper leaves open.

Nothing is read from a model again. A number is a function of the stored vectors, and the table says
for each which choices made it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from keygap.arguments import seed_of
from keygap.choices.intervals import LEVEL
from keygap.choices.levels import MEAN, RULES, Plan
from keygap.choices.measuring import SiteNumbers, fewest_samples, measure_layer
from keygap.choices.rows import SiteRows, rows_of
from keygap.choices.statements import (
    PUBLISHED_CROSS,
    PUBLISHED_INTRA,
    PUBLISHED_JSD,
    statements_of,
)
from keygap.choices.tables import ChoicesTable
from keygap.choices.variance import variance_of
from keygap.errors import UserError, unknown
from keygap.progress import track
from keygap.store import Store

SOURCE = "arXiv 2510.26721 v1"


def specifications(
    *stores: Store,
    plan: Plan | None = None,
    sites: Sequence[str] | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> ChoicesTable:
    """Measure the gap of stores under every choice of a plan.

    This is a specification curve, or multiverse analysis (Simonsohn, Simmons and Nelson 2020,
    "Specification curve analysis", Nature Human Behaviour 4; Steegen et al. 2016). Time grows with
    the number of sets of coordinates (layers x heads x text x outliers x tokens x spaces) and of
    kernels, and not with the number of choices.

    Args:
        stores: finished extractions. A statement about the order of models takes the models in
            this order, on the same benchmark.
        plan: the levels of every factor; None: all.
        sites: sites of the stores; None means all they have.
        seed: of the tokens and of every random draw.
        device: where kernels are evaluated; None: a GPU if there is one.

    Returns:
        One row for each choice that the stores can serve, the statements, the shares of variance,
        and a note for everything that a store cannot serve.

    Raises:
        UserError: there is no store, two stores hold one model and benchmark, a name is unknown, or
            none of the choices can be computed.
    """
    _check(stores)
    chosen, seed = plan or Plan(), seed_of(seed)
    target = device or ("cuda" if torch.cuda.is_available() else "cpu")
    found: list[SiteRows] = []
    notes: list[str] = []
    passes = 0
    n_groups = _n_groups(stores, sites, chosen, seed)
    if n_groups < chosen.n_groups:
        notes.append(
            f"intervals leave out {n_groups} groups of samples and not {chosen.n_groups}: the "
            f"smallest selection has {2 * n_groups} samples or one more"
        )
    for store in stores:
        for site in sites or store.sites:
            numbers, layers = _numbers(store, site, chosen, n_groups, seed, target)
            manifest = store.manifest
            key = {name: manifest[name] for name in ("model", "connector", "benchmark")}
            rows = rows_of(numbers, {**key, "site": site}, layers, chosen)
            if len(rows.frame):
                found.append(rows)
            notes += [f"{key['model']}, {site}: {note}" for note in numbers.notes]
            passes += numbers.passes
    if not found:
        raise UserError(f"none of the choices can be computed: {notes[0] if notes else 'no site'}")
    frame = pd.concat([rows.frame for rows in found], ignore_index=True)
    draws = np.concatenate([rows.draws for rows in found])
    settings = {
        "levels": chosen.as_settings(),
        "n_groups": n_groups,
        "level": LEVEL,
        "seed": seed,
        "sources": [store.root.name for store in stores],
        "coordinates": passes,
        "rules": [{"rule": rule, "reason": reason} for rule, reason in RULES],
        "notes": notes,
        "published": {
            "source": SOURCE,
            "cross": PUBLISHED_CROSS,
            "intra": PUBLISHED_INTRA,
            "jsd": PUBLISHED_JSD,
        },
    }
    return ChoicesTable(frame, statements_of(frame, draws), variance_of(frame), settings)


def layer_levels(stored: Sequence[int], n_layers: int, plan: Plan) -> dict[str, list[int]]:
    """Absolute indices of the levels of ``layer``; a level that the store cannot serve is missing.

    Args:
        stored: indices of the stored layers, ascending.
        n_layers: number of layers of the model.
        plan: the levels that are tried.
    """
    by_name = {"first": 0, "middle": n_layers // 2, "last": n_layers - 1}
    levels: dict[str, list[int]] = {}
    for name in plan.layers:
        if name == MEAN:
            if len(stored) > 1:
                levels[name] = list(stored)
        elif by_name[name] in stored and [by_name[name]] not in levels.values():
            levels[name] = [by_name[name]]
    return levels


def _n_groups(stores: Sequence[Store], sites: Sequence[str] | None, plan: Plan, seed: int) -> int:
    """The number of groups of samples of all choices: as many as the smallest selection has.

    Statements about many choices leave the same groups out of all of them.
    """
    fewest = [
        fewest_samples(store.vectors(site, layer), layer, plan, seed)
        for store in stores
        for site in sites or store.sites
        for layer in _needed(_levels(store, site, plan))
    ]
    return min([plan.n_groups, *(count // 2 for count in fewest if count is not None)])


def _levels(store: Store, site: str, plan: Plan) -> dict[str, list[int]]:
    """The layers of every level of ``layer`` that a site has.

    Raises:
        UserError: the store has no such site.
    """
    if stored := store.layers(site):
        return layer_levels(stored, store.manifest["n_layers"], plan)
    raise unknown("site", site, store.sites, hint=f"of {store.root}")


def _needed(levels: dict[str, list[int]]) -> list[int]:
    return sorted({index for indices in levels.values() for index in indices})


def _numbers(
    store: Store, site: str, plan: Plan, n_groups: int, seed: int, device: str | torch.device
) -> tuple[SiteNumbers, dict[str, list[int]]]:
    """All numbers of a site, and the layers of every level of ``layer``."""
    stored, layers = store.layers(site), _levels(store, site, plan)
    found = SiteNumbers()
    for name in plan.layers:
        if name not in layers:
            what = "one layer only" if name == MEAN else f"layers {', '.join(map(str, stored))}"
            found.note(f"layer {name}: the store has {what}")
    if MEAN in layers:
        found.note(f"layer {MEAN} is over the {len(stored)} layers of the store: {stored}")
    needed = _needed(layers)
    for layer in track(needed, len(needed), f"choices of {store.manifest['model']}"):
        vectors = store.vectors(site, layer)
        measure_layer(found, vectors, layer, plan, n_groups, seed, device)
    return found, layers


def _check(stores: Sequence[Store]) -> None:
    if not stores:
        raise UserError("no run to try choices on: name a run folder or a study folder")
    seen: set[tuple[str, str]] = set()
    for store in stores:
        pair = store.manifest["model"], store.manifest["benchmark"]
        if pair in seen:
            raise UserError(f"two runs are of {pair[0]} on {pair[1]}: name each once")
        seen.add(pair)
