"""``kg.specifications``: the gap of some stores under every choice that a paper leaves open.

Nothing is read from a model again. A number is a function of the stored vectors, and the table says
for each which choices made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from keygap.arguments import seed_of
from keygap.choices.intervals import LEVEL
from keygap.choices.levels import MEAN, RULES, Plan
from keygap.choices.measuring import SiteNumbers, fewest_samples, measure_layer
from keygap.choices.rows import SiteRows, rows_of
from keygap.choices.selection import Layer, ranks_of
from keygap.choices.statements import (
    PUBLISHED_CROSS,
    PUBLISHED_INTRA,
    PUBLISHED_JSD,
    statements_of,
)
from keygap.choices.tables import ChoicesTable
from keygap.choices.variance import variance_of
from keygap.contrasts.sides import refuse_non_finite
from keygap.errors import UserError, unknown
from keygap.progress import track
from keygap.store import Store

PUBLISHED = {
    "source": "arXiv 2510.26721 v1",
    "cross": PUBLISHED_CROSS,
    "intra": PUBLISHED_INTRA,
    "jsd": PUBLISHED_JSD,
}


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
        UserError: there is no store, two stores hold one model and benchmark, a name is unknown,
            vectors are not finite, or none of the choices can be computed.
    """
    _check(stores)
    chosen, seed = plan or Plan(), seed_of(seed)
    target = device or ("cuda" if torch.cuda.is_available() else "cpu")
    every = _sites(stores, sites, seed)
    n_groups = _n_groups(every, chosen)
    missing: list[str] = []
    found: list[SiteRows] = []
    passes = 0
    for one in every:
        numbers, layers = _numbers(one, chosen, n_groups, target)
        manifest = one.store.manifest
        key = {name: manifest[name] for name in ("model", "connector", "benchmark")}
        rows = rows_of(numbers, {**key, "site": one.site}, layers, chosen)
        if len(rows.frame):
            found.append(rows)
        missing += [f"{key['model']}, {one.site}: {note}" for note in numbers.notes]
        passes += numbers.passes
    if not found:
        raise UserError(f"none of the choices can be computed: {[*missing, 'no site'][0]}")
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
        "notes": [*_different_samples(stores), *_fewer_groups(n_groups, chosen), *missing],
        "published": dict(PUBLISHED),
    }
    return ChoicesTable(frame, statements_of(frame, draws), variance_of(frame), settings)


def sample_ranks(stores: Sequence[Store], seed: int) -> dict[str, dict[str, int]]:
    """The rank of every sample of each benchmark, in a random order that all its stores share.

    Samples that failed are counted, so that they are missing and move no other one.

    Args:
        stores: finished extractions.
        seed: of the order.
    """
    asked: dict[str, set[str]] = {}
    for store in stores:
        names = store.samples["sample_id"].astype(str)
        asked.setdefault(store.manifest["benchmark"], set()).update(names)
    return {benchmark: ranks_of(names, seed) for benchmark, names in asked.items()}


def layer_levels(stored: Sequence[int], n_layers: int, plan: Plan) -> dict[str, list[int]]:
    """Absolute indices of the levels of ``layer``; a level that the store cannot serve is missing.

    Args:
        stored: indices of the stored layers, ascending.
        n_layers: number of layers of the model.
        plan: the levels that are tried.
    """
    by_name = _by_name(n_layers)
    levels: dict[str, list[int]] = {}
    for name in plan.layers:
        if name == MEAN:
            if len(stored) > 1:
                levels[name] = list(stored)
        elif by_name[name] in stored and [by_name[name]] not in levels.values():
            levels[name] = [by_name[name]]
    return levels


def _by_name(n_layers: int) -> dict[str, int]:
    """Absolute indices of the layers that have a name."""
    return {"first": 0, "middle": n_layers // 2, "last": n_layers - 1}


@dataclass(frozen=True)
class _Site:
    """One site of a store, with the shared random order of the benchmark's samples."""

    store: Store
    site: str
    ranks: Mapping[str, int]
    seed: int

    def levels(self, plan: Plan) -> dict[str, list[int]]:
        """The layers of every level of ``layer`` that the site has.

        Raises:
            UserError: the store has no such site.
        """
        if stored := self.store.layers(self.site):
            return layer_levels(stored, self.store.manifest["n_layers"], plan)
        raise unknown("site", self.site, self.store.sites, hint=f"of {self.store.root}")

    def layer(self, index: int) -> Layer:
        """The layer of an absolute index."""
        return Layer(self.store.layer(self.site, index), self.ranks, self.seed)


def _sites(stores: Sequence[Store], sites: Sequence[str] | None, seed: int) -> list[_Site]:
    """The sites that are measured, store by store."""
    ranks = sample_ranks(stores, seed)
    return [
        _Site(store, site, ranks[store.manifest["benchmark"]], seed)
        for store in stores
        for site in sites or store.sites
    ]


def _n_groups(sites: Sequence[_Site], plan: Plan) -> int:
    """The number of groups of samples of all choices: as many as the smallest selection has pairs.

    Statements about many choices leave the same groups out of all of them. Every layer is opened
    for this, so one with vectors that are not finite is refused before the work.

    Raises:
        UserError: vectors are not finite.
    """
    fewest = []
    for one in sites:
        for index in _needed(one.levels(plan)):
            layer = one.layer(index)
            try:
                refuse_non_finite(layer.vectors, one.site, index)
            except UserError as reason:
                raise UserError(f"{one.store.manifest['model']}: {reason}") from reason
            fewest.append(fewest_samples(layer, plan))
    return min([plan.n_groups, *(count // 2 for count in fewest if count is not None)])


def _needed(levels: dict[str, list[int]]) -> list[int]:
    return sorted({index for indices in levels.values() for index in indices})


def _numbers(
    of_site: _Site, plan: Plan, n_groups: int, device: str | torch.device
) -> tuple[SiteNumbers, dict[str, list[int]]]:
    """All numbers of a site, and the layers of every level of ``layer``."""
    store, layers = of_site.store, of_site.levels(plan)
    stored = store.layers(of_site.site)
    found = SiteNumbers()
    for name in plan.layers:
        if name not in layers:
            found.note(_why_not(name, stored, store.manifest["n_layers"], layers))
    if MEAN in layers:
        found.note(f"layer {MEAN} is over the {len(stored)} layers of the store: {stored}")
    needed = _needed(layers)
    for index in track(needed, len(needed), f"choices of {store.manifest['model']}"):
        measure_layer(found, of_site.layer(index), index, plan, n_groups, device)
    return found, layers


def _why_not(
    name: str, stored: Sequence[int], n_layers: int, layers: Mapping[str, list[int]]
) -> str:
    """Say why a level of ``layer`` is missing."""
    if name == MEAN:
        return f"layer {name}: the store has one layer only"
    index = _by_name(n_layers)[name]
    if index not in stored:
        known = ", ".join(map(str, stored))
        return f"layer {name} ({index}): the store has layers {known}"
    same = next(other for other, indices in layers.items() if indices == [index])
    return f"layer {name} is the same as layer {same} here, so it is one choice"


def _fewer_groups(n_groups: int, plan: Plan) -> list[str]:
    """A note if there are fewer groups than the plan asks for."""
    if n_groups == plan.n_groups:
        return []
    return [
        f"intervals leave out {n_groups} groups of samples and not {plan.n_groups}: the smallest "
        f"selection has {2 * n_groups} samples or one more"
    ]


def _different_samples(stores: Sequence[Store]) -> list[str]:
    """A note for every benchmark of which the stores hold different samples."""
    held: dict[str, list[set[str]]] = {}
    for store in stores:
        read = store.samples["sample_id"][store.samples["failure"].isna()].astype(str)
        held.setdefault(store.manifest["benchmark"], []).append(set(read))
    notes = []
    for benchmark, own in held.items():
        shared, every = set.intersection(*own), set.union(*own)
        if shared != every:
            notes.append(
                f"{benchmark}: {len(shared)} of {len(every)} samples are in the runs of all "
                "models, so the order of two models is not that on the same samples"
            )
    return notes


def _check(stores: Sequence[Store]) -> None:
    if not stores:
        raise UserError("no run to try choices on: name a run folder or a study folder")
    seen: set[tuple[str, str]] = set()
    for store in stores:
        pair = store.manifest["model"], store.manifest["benchmark"]
        if pair in seen:
            raise UserError(f"two runs are of {pair[0]} on {pair[1]}: name each once")
        seen.add(pair)
