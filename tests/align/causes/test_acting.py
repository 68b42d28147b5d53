"""Maps of points are fitted with the settings of the experiment."""

from __future__ import annotations

import pytest

from keygap.align.causes import acting as module
from keygap.align.causes.acting import Acting
from keygap.align.causes.points import BY_LAYER, Point
from keygap.errors import UserError

from .made_model import colours, tiny


@pytest.mark.parametrize("name", ["mean-shift", f"mean-shift, {BY_LAYER}"])
def test_a_map_gets_the_seed_of_the_experiment(name):
    acting = Acting(tiny(), colours(6).choose(6, 0), ("question",), batch_size=6, seed=3)
    fitted = acting.map_of(Point("map", name, "k_proj", "all", 1.0, "free"))
    assert fitted.fitted_on["settings"]["seed"] == 3
    assert fitted.fitted_on["settings"]["layer_by_layer"] == (BY_LAYER in name)


def test_a_site_is_read_once_for_all_planned_maps_and_not_kept(monkeypatch):
    read, found = module.read_vectors, list[str]()

    def noted(vlm, source, *, sites: list[str], **options):
        found.extend(sites)
        return read(vlm, source, sites=sites, **options)

    monkeypatch.setattr(module, "read_vectors", noted)
    names = ("mean-shift", "procrustes", "norms", f"mean-shift, {BY_LAYER}")
    points = [
        Point("map", name, site, "all", 1.0, "free")
        for name in names
        for site in ("k_proj", "v_proj")
    ]
    acting = Acting(tiny(), colours(6).choose(6, 0), ("question",), batch_size=6, seed=3)
    acting.plan([*points, Point("baseline", "pai")])
    for point in points:
        if point.name == "procrustes":  # there are too few samples, each time it is asked for
            for _ in range(2):
                with pytest.raises(UserError, match="too few to turn"):
                    acting.map_of(point)
        else:
            assert acting.map_of(point).site == point.site
    assert found == ["k_proj", "v_proj"]
    alone = Acting(acting.vlm, acting.fitting, acting.roles, batch_size=6, seed=3)
    assert alone.map_of(points[4]).hash == acting.map_of(points[4]).hash
