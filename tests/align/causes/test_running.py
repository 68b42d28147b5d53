"""The experiment on a tiny model: it names what was planted, continues, and refuses what is odd."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import keygap as kg
from keygap.align.causes.judging import Judge
from keygap.align.causes.points import Plan
from keygap.align.causes.verdict import verdict
from keygap.errors import UserError
from keygap.models.load import wrap
from models.made_models import with_own_attention
from models.zoo import BY_FAMILY

from .made_model import Planted, colours, tiny

MECHANISMS = ("distance", "attention", "neither")
PLAN: dict[str, Any] = {
    "strengths": (-1.0, 1.0), "sites": ("k_proj",), "maps": ("mean-shift",),
    "controls": ("random-direction",), "layers": ("all",), "baselines": (), "probes": (),
}  # fmt: skip
SMALL: dict[str, Any] = {"samples": 12, "fit_samples": 8, "batch_size": 12, "n_bootstraps": 50}


def named(mechanism: str, seed: int, out) -> str:
    vlm = tiny(seed)
    with Planted(vlm, mechanism, seed).applied():
        table = kg.causes(
            vlm, colours(70), out, plan=Plan(**PLAN), samples=45, fit_samples=25, batch_size=45,
            phrasings=["Hint: the answer is {answer}."], n_bootstraps=100, seed=seed,
        )  # fmt: skip
    return verdict(table.samples, table.points, n_bootstraps=100).mechanism


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_planted_mechanism_is_named(mechanism, tmp_path):
    assert named(mechanism, 0, tmp_path) == mechanism


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_planted_mechanism_is_named_in_95_of_100_seeds(mechanism, tmp_path):
    found = [named(mechanism, seed, tmp_path / str(seed)) for seed in range(1, 21)]
    assert found.count(mechanism) >= 19, found


def run(vlm, out, **options: Any):
    plan = Plan(**{**PLAN, "draws": 1, **options.pop("plan", {})})
    return kg.causes(vlm, colours(24), out, plan=plan, **{**SMALL, **options})


def without_times(table) -> pd.DataFrame:
    return table.frame[table.frame["measure"] != "seconds"].reset_index(drop=True)


@pytest.fixture(scope="module")
def vlm():
    return tiny()


@pytest.fixture(scope="module")
def whole(vlm, tmp_path_factory):
    return run(vlm, tmp_path_factory.mktemp("causes"))


def test_an_interrupted_experiment_continues(vlm, whole, tmp_path, monkeypatch):
    measure, measured = Judge.measure, list[Any]()

    def at_most_five(judge, *arguments):
        if len(measured) == 5:
            raise KeyboardInterrupt
        measured.append(arguments)
        return measure(judge, *arguments)

    monkeypatch.setattr(Judge, "measure", at_most_five)
    with pytest.raises(KeyboardInterrupt):
        run(vlm, tmp_path)
    assert not (tmp_path / "alignment.csv").exists()
    monkeypatch.setattr(Judge, "measure", measure)
    pd.testing.assert_frame_equal(without_times(run(vlm, tmp_path)), without_times(whole))


def test_a_plan_can_be_extended(vlm, whole, tmp_path, monkeypatch):
    run(vlm, tmp_path)
    measure, measured = Judge.measure, list[Any]()

    def noted(judge, *arguments):
        measured.append(arguments)
        return measure(judge, *arguments)

    monkeypatch.setattr(Judge, "measure", noted)
    larger = run(vlm, tmp_path, plan={"baselines": ("attention-bias",)})
    more = set(larger.points["point"]) - set(whole.points["point"])
    assert len(more) == 4
    assert len(measured) == 1 + len(more)  # the model as it is gives the yardsticks
    kept = without_times(larger)
    kept = kept[~kept["point"].isin(more)].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, without_times(whole))


def test_a_folder_of_another_experiment_is_refused(vlm, tmp_path):
    run(vlm, tmp_path)
    with pytest.raises(UserError, match="another seed"):
        run(vlm, tmp_path, seed=1)


def test_the_yardstick_of_the_gap_stays(whole):
    frame = whole.frame.set_index(["point", "measure", "layer"])
    for layer in (0,):
        none = frame.loc[("none", "mmd_squared", layer), "value"]
        only = frame.loc[("mean-shift/k_proj/all/+1/only/0", "mmd_squared", layer), "value"]
        free = frame.loc[("mean-shift/k_proj/all/+1/free/0", "mmd_squared", layer), "value"]
        assert only.item() == none.item()
        assert free.item() < none.item() / 2


def test_judged_and_fitted_samples_share_no_image():
    chosen = colours(24).choose(20, 0)
    judged, rest = chosen.apart(12)
    keys = [{entry.image_key for entry in part.entries} for part in (judged, rest)]
    assert len(judged) == 12
    assert len(rest) == 8
    assert not keys[0] & keys[1]


def test_what_cannot_be_an_experiment_is_one_line(vlm, tmp_path):
    shift = kg.align.fit("mean-shift", kg.align.read_vectors(vlm, colours(6), batch_size=6))
    with kg.align.steer(vlm, shift), pytest.raises(UserError, match="is steered already"):
        run(vlm, tmp_path)
    crossed = wrap(*BY_FAMILY["mllama"].build(), name="tiny mllama")
    with pytest.raises(UserError, match="cross-attention"):
        run(crossed, tmp_path)
    model, processor = BY_FAMILY["llava"].build()
    alone = wrap(with_own_attention(model), processor, name="own attention")
    with pytest.raises(UserError, match="computes attention by itself"):
        run(alone, tmp_path)
    with pytest.raises(UserError, match="none are left to fit maps on"):
        run(vlm, tmp_path, samples=24)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"maps": ("mean-shfit",)}, "mean-shift"),
        ({"maps": ("random-direction",)}, "is a control"),
        ({"controls": ("mean-shift",)}, "unknown control"),
        ({"layers": ("first",)}, "unknown set of layers"),
        ({"sites": ("v_proj",)}, "the first site is v_proj"),
        ({"sites": ("k_proj", "hiden")}, "hidden"),
        ({"strengths": (0.0, 1.0)}, "strengths has 0"),
        ({"strengths": (float("nan"),)}, "a strength is nan"),
        ({"baselines": ("vdc",)}, "vcd"),
        ({"probes": ("hnt",)}, "hint"),
    ],
)
def test_a_plan_that_is_not_possible_is_one_line(wrong, what):
    with pytest.raises(UserError, match=what) as caught:
        Plan(**wrong)
    assert "\n" not in str(caught.value)
