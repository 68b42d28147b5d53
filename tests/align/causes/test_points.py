"""Which points a plan has, and which probes are asked where."""

from __future__ import annotations

import pandas as pd
import pytest

from keygap.align.causes.mediation import modes_of
from keygap.align.causes.points import LAYER_SETS, Plan
from keygap.align.causes.tables import strongest

SIDES = [
    ((-1.0, -0.5, 0.5, 1.0), [-1.0, 1.0], [1.0]),
    ((-1.0, -0.5), [-1.0], [-1.0]),
    ((0.5, 1.0), [1.0], [1.0]),
    ((-1.0, 0.25, 0.5), [-1.0, 0.5], [-1.0, 0.5]),
    ((-0.5, 1.0), [-0.5, 1.0], [-0.5, 1.0]),
]


@pytest.mark.parametrize(("strengths", "strongest", "sizes"), SIDES)
def test_maps_and_controls_are_at_the_strongest_strength_of_each_side(strengths, strongest, sizes):
    """The sign of a random direction is arbitrary, so it needs one strength of each size."""
    plan = Plan(strengths=strengths)
    assert plan.strongest == strongest
    points = plan.points(LAYER_SETS)

    def at(**where: object) -> list[float]:
        found = [p.strength for p in points if all(getattr(p, k) == v for k, v in where.items())]
        return sorted(set(found))

    for mode in ("free", "held", "only"):
        assert set(strongest) <= set(at(name="mean-shift", layers="all", mass=mode))
    for mass in ("held", "only"):
        assert at(name="random-direction", mass=mass) == sizes
        assert at(name="coral", mass=mass) == sizes
    assert at(name="random-direction", layers="reading") == sizes
    assert at(name="random-direction", site="v_proj") == sizes
    assert at(name="coral", mass="free") == strongest
    assert set(strongest) <= set(at(name="text-text", mass="free"))


@pytest.mark.parametrize(
    ("layers", "where"),
    [
        (("reading",), "reading"),
        (("reading", "all"), "reading"),
        (("all", "reading"), "all"),
        (("early", "reading"), "reading"),
        (("early",), "all"),  # where the map that is fitted layer by layer is
    ],
)
def test_random_directions_hold_attention_where_the_verdict_is_decided(layers, where):
    points = Plan(layers=layers).points(layers)
    modes = modes_of(strongest(pd.DataFrame([point.columns() for point in points])))
    assert modes[0]["layers"] == where
    random = [p for p in points if p.name == "random-direction" and p.mass == "held"]
    assert {point.layers for point in random} == {where}
    assert {point.draw for point in random} == set(range(5))


@pytest.mark.parametrize(("strengths", "strongest", "sizes"), SIDES)
def test_probes_are_asked_once_besides_the_model_as_it_is(strengths, strongest, sizes):
    plan = Plan(strengths=strengths)
    asked = [point for point in plan.points(LAYER_SETS) if plan.probes_at(point)]
    assert [point.kind for point in asked] == ["none", "map"]
    (point,) = asked[1:]
    assert (point.name, point.site, point.layers) == ("mean-shift", "k_proj", "all")
    assert (point.strength, point.mass) == (max(sizes, key=abs), "free")


def test_the_default_plan_has_as_many_points_as_ever():
    """A larger plan would make every experiment longer, and fewer points would lose a number."""
    points = Plan().points(LAYER_SETS)
    assert len(points) == len({point.id for point in points}) == 131
    random = [point for point in points if point.name == "random-direction"]
    each = [point for point in random if point.draw == 0]
    assert [point.id.removeprefix("random-direction/") for point in each] == [
        "k_proj/all/+0.5/free/0", "k_proj/all/+1/free/0", "k_proj/all/+1/held/0",
        "k_proj/all/+1/only/0", "k_proj/reading/+1/free/0", "v_proj/all/+1/free/0",
        "hidden/all/+1/free/0",
    ]  # fmt: skip
