"""Maps of points are fitted with the settings of the experiment."""

from __future__ import annotations

import pytest

from keygap.align.causes.acting import Acting
from keygap.align.causes.points import BY_LAYER, Point

from .made_model import colours, tiny


@pytest.mark.parametrize("name", ["mean-shift", f"mean-shift, {BY_LAYER}"])
def test_a_map_gets_the_seed_of_the_experiment(name):
    acting = Acting(tiny(), colours(6).choose(6, 0), ("question",), batch_size=6, seed=3)
    fitted = acting.map_of(Point("map", name, "k_proj", "all", 1.0, "free"))
    assert fitted.fitted_on["settings"]["seed"] == 3
    assert fitted.fitted_on["settings"]["layer_by_layer"] == (BY_LAYER in name)
