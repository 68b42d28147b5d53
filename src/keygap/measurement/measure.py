"""``kg.measure``: every contrast at every site, layer and head of a run, as tables."""

from __future__ import annotations

import json
import math
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from keygap import defaults, gap
from keygap.arguments import listed
from keygap.contrasts import CONTRASTS, contrast_of
from keygap.contrasts.contrast import Contrast
from keygap.contrasts.own import refuse_twice
from keygap.contrasts.sides import refuse_non_finite
from keygap.errors import UserError
from keygap.measurement.keeping import KeptLayers, Measured, Place, kept_layers
from keygap.measurement.layer import LayerMeasurement
from keygap.measurement.options import SWAPS_PER_TEST, Options
from keygap.measurement.shape import mir_over_layers
from keygap.measurement.tables import DIMENSION_COLUMNS, GapTable, statistics_frame
from keygap.measurement.views import KEY
from keygap.progress import track
from keygap.store import Store
from keygap.store.run import extraction_file
from keygap.tokens import known_roles
from keygap.workers import Workers, workers_of


def measure(
    store: Store,
    *,
    sites: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    contrasts: Sequence[str | Contrast] | None = None,
    text_roles: Sequence[str] = defaults.TEXT_ROLES,
    tokens_per_sample: int | None = defaults.TOKENS_PER_SAMPLE,
    n_permutations: int = defaults.N_PERMUTATIONS,
    n_bootstraps: int = defaults.N_BOOTSTRAPS,
    seed: int = 0,
    engine: str = defaults.ENGINE,
    workers: int | None = None,
    resume: bool = False,
) -> GapTable:
    """Measure contrasts of a run at each site and layer, all heads together and each head alone.

    Args:
        store: a finished extraction.
        sites: sites of the store; None means all it has.
        layers: absolute indices; None means all it has.
        contrasts: names of registered contrasts, or ``Contrast`` objects; None means all that are
            registered, in the order of the ladder. If all are asked for, those that need captions
            are measured only in a run that has them.
        text_roles: what counts as text. By default only the question's own tokens, because
            template tokens are the same in every prompt.
        tokens_per_sample: at most this many tokens of a sample on each side of a contrast, drawn
            at random. Samples are the unit: an image's 576 tokens say little more than 64 of
            them, at many times the cost. Both sides together keep at most 20,000 of these tokens,
            and each at most 5,000 samples (see ``keygap.contrasts.limits``). None means all, and no
            limit.
        n_permutations: the least number of label swaps of a test. A test that ``p_holm`` adjusts
            together with others (the layers of a site, or its layers and heads) makes at least 40
            for each of them.
        n_bootstraps: resamplings of whole samples behind the intervals of the JSD.
        seed: of every random draw.
        engine: where sites and layers are measured: ``local``, in this process, or ``ray``, in
            worker processes here or on a cluster (see docs/cluster.md). The values are the same.
        workers: how many processes; by default one for each GPU, or for each node if this process
            sees no GPU.
        resume: whether each layer is kept in the run folder as soon as it is measured, and layers
            are taken that an interrupted call with the same options kept. Once the table has been
            saved, ``keygap.measurement.keeping.forget_layers`` removes them.

    Returns:
        The tables, with a note for everything that could not be measured.

    Raises:
        UserError: a name is unknown or given twice, there are no image or text tokens of these
            roles, there are fewer than four samples, vectors are not finite, or the engine is not
            there.
    """
    processes = workers_of(engine, workers)
    names = listed(CONTRASTS if contrasts is None else contrasts, "contrasts", "image_text")
    chosen = [contrast_of(name) for name in names]
    refuse_twice(contrast.name for contrast in chosen)
    options = Options(
        known_roles(text_roles), tokens_per_sample, n_permutations, n_bootstraps, seed
    )
    if names == list(CONTRASTS):
        present = {"", *store.tokens["role"].unique()}
        chosen = [contrast for contrast in chosen if contrast.needs_role in present]
    manifest = store.manifest
    run = {name: manifest[name] for name in ("model", "connector", "benchmark")}
    places = store.site_layers(sites, layers)
    layers_of = Counter(site for site, _ in places)
    settings = asdict(options) | {
        "contrasts": [{"name": c.name, "rung": c.rung, "what": c.what} for c in chosen]
    }
    kept = kept_layers(store, settings, layers_of, chosen) if resume else None
    work = _Work(store, run, options, layers_of, chosen)
    found = _of_places(processes, work, places, kept)
    return _table([found[place] for place in places], settings)


def _of_places(
    processes: Workers, work: _Work, places: Sequence[Place], kept: KeptLayers | None
) -> dict[Place, Measured]:
    """Take the sites and layers that were kept, and measure the rest."""
    before = {place: kept.read(place) for place in places} if kept else {}
    found = {place: one for place, one in before.items() if one is not None}
    left = [place for place in places if place not in found]
    what = f"gap of {work.run['model']}"
    gpus = min(torch.cuda.device_count(), 1)  # workers that share one would wait for each other
    with processes, closing(processes.map(work.begin, left, what, gpus)) as measured:
        for place, one in zip(left, track(measured, len(places), what, len(found)), strict=True):
            if kept:
                kept.write(place, one)
            found[place] = one
    return found


@dataclass(frozen=True)
class _Work:
    """What is needed to measure any site and layer, in a form that other processes can be sent.

    Attributes:
        store: the extraction; its folder in another process, until the work begins there.
        run: the columns that are the same in every row.
        options: of the measurement.
        layers_of: the number of layers of each site.
        contrasts: what is measured.
    """

    store: Store | Path
    run: dict[str, Any]
    options: Options
    layers_of: Mapping[str, int]
    contrasts: Sequence[Contrast]

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens the store itself."""
        assert isinstance(self.store, Store)
        return {**vars(self), "store": self.store.root.resolve()}

    def begin(self) -> Callable[[Place], Measured]:
        """The function that measures one site and layer.

        Raises:
            UserError: this machine does not see the run folder.
        """
        if isinstance(self.store, Path):
            return replace(self, store=_opened(self.store)).begin()
        return partial(self._measured, self.store)

    def _measured(self, store: Store, place: Place) -> Measured:
        site, layer = place
        vectors = store.layer(site, layer)
        refuse_non_finite(vectors, site, layer)
        key = {**self.run, "site": site, "layer": layer}
        one = LayerMeasurement(key, self.options, self.layers_of[site])
        one.measure(vectors, self.contrasts)
        _refuse_twice(one.rows)
        return Measured(one.rows, one.dimensions, one.notes)


def _opened(root: Path) -> Store:
    """The store in a folder that another process has found.

    Raises:
        UserError: it is not there.
    """
    if not extraction_file(root).is_file():
        raise UserError(
            f"the run folder {root} is not on {socket.gethostname()}: to measure on several "
            "machines, put it on a file system that all of them share, or use the engine local"
        )
    return Store(root)


def _table(found: Sequence[Measured], settings: dict[str, object]) -> GapTable:
    """The tables of all layers, with what needs several layers: MIR and adjusted p-values."""
    statistics = statistics_frame([row for one in found for row in one.rows])
    mir, notes = mir_over_layers(statistics)
    statistics = pd.concat([_adjusted(statistics), mir], ignore_index=True)
    empty = pd.DataFrame(columns=list(DIMENSION_COLUMNS))
    dimensions = [frame for one in found for frame in one.dimensions]
    return GapTable.of(
        statistics,
        pd.concat(dimensions, ignore_index=True) if dimensions else empty,
        (*(note for one in found for note in one.notes), *notes),
        settings,
    )


def _refuse_twice(rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse two statistics that give one name to their numbers.

    Raises:
        UserError: they do.
    """
    seen = set()
    for row in rows:
        identity = tuple(row[name] for name in (*KEY, "statistic", "side", "dims"))
        if identity in seen:
            raise UserError(
                f"two statistics have a number named {row['statistic']!r}: rename one of the "
                "readings"
            )
        seen.add(identity)


def _adjusted(statistics: pd.DataFrame) -> pd.DataFrame:
    """Fill ``p_holm``: p adjusted for the layers of a site, or for its layers and heads.

    All heads together are a small family of their own, because these results are reported. A family
    whose tests make too few label swaps to be significant in it has no ``p_holm``.
    """
    tested = statistics[statistics["p_value"].notna()]
    whole = tested["head"] == "all"
    family = ["site", "contrast", "confound", "statistic", "side", "dims", whole]
    p_holm = statistics["p_holm"].copy()
    swaps = tested["settings"].map(lambda text: json.loads(text).get("n_permutations", math.inf))
    for index in tested.groupby(family, dropna=False).groups.values():
        if swaps[index].min() >= SWAPS_PER_TEST * len(index):
            p_holm[index] = gap.holm(tested.loc[index, "p_value"].to_numpy())
    return statistics.assign(p_holm=p_holm)
