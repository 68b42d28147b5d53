"""The experiment on a tiny model: it names what was planted, continues, and refuses what is odd."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import keygap as kg
from keygap.align.affine import Affine
from keygap.align.causes.acting import Acting
from keygap.align.causes.judging import Judge
from keygap.align.causes.points import Plan
from keygap.align.causes.verdict import Verdict, verdict
from keygap.benchmarks.sample import Entry
from keygap.errors import UserError
from keygap.models.load import wrap
from models.made_models import with_own_attention
from models.zoo import BY_FAMILY

from .made_model import Colours, Planted, colours, tiny

MECHANISMS = ("distance", "attention", "neither")
PLAN: dict[str, Any] = {
    "strengths": (-1.0, 1.0), "sites": ("k_proj",), "maps": ("mean-shift",),
    "controls": ("random-direction",), "layers": ("all",), "baselines": (), "probes": (),
}  # fmt: skip
SMALL: dict[str, Any] = {"samples": 12, "fit_samples": 8, "batch_size": 12, "n_bootstraps": 50}


def judged(mechanism: str, seed: int, out) -> Verdict:
    vlm = tiny(seed)
    with Planted(vlm, mechanism, seed).applied():
        table = kg.causes(
            vlm, colours(50, subjects=5), out, plan=Plan(**PLAN), samples=30, fit_samples=20,
            batch_size=30, phrasings=["Hint: the answer is {answer}."], n_bootstraps=100, seed=seed,
        )  # fmt: skip
    return verdict(table.samples, table.points, n_bootstraps=100)


@pytest.mark.parametrize("mechanism", ["distance", pytest.param("neither", marks=pytest.mark.slow)])
def test_a_planted_mechanism_is_named(mechanism, tmp_path):
    assert judged(mechanism, 0, tmp_path).mechanism == mechanism


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_planted_mechanism_is_named_for_19_of_20_seeds(mechanism, tmp_path):
    found = [judged(mechanism, seed, tmp_path / str(seed)).mechanism for seed in range(1, 21)]
    assert found.count(mechanism) >= 19, found


def run(vlm, out, source=None, **options: Any):
    plan = Plan(**{**PLAN, "draws": 1, **options.pop("plan", {})})
    return kg.causes(vlm, source or colours(24), out, plan=plan, **{**SMALL, **options})


@contextmanager
def refused(match: str):
    """Expect a UserError of one line."""
    with pytest.raises(UserError, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)


def rows_of(folder: Path) -> list[str]:
    """The lines of alignment.csv, character by character, without how long points took."""
    lines = (folder / "alignment.csv").read_text().splitlines()
    kept = [line for line in lines if ",seconds," not in line]
    assert len(kept) < len(lines)
    return kept


def measures_of(frame: pd.DataFrame, point: str) -> pd.Series:
    """The values of a point by measure, layer and phrasing, without how long it took."""
    own = frame[(frame["point"] == point) & (frame["measure"] != "seconds")]
    return own.set_index(["measure", "layer", "variant"])["value"]


@pytest.fixture(scope="module")
def vlm():
    return tiny()


@pytest.fixture(scope="module")
def whole(vlm, tmp_path_factory) -> Path:
    """The folder of an experiment that nothing interrupted."""
    out = tmp_path_factory.mktemp("causes")
    run(vlm, out)
    return out


@pytest.mark.slow
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
    run(vlm, tmp_path)
    assert rows_of(tmp_path) == rows_of(whole)


@pytest.mark.slow
def test_a_plan_can_be_extended(vlm, whole, tmp_path, monkeypatch):
    before = run(vlm, tmp_path)
    measure, measured = Judge.measure, list[Any]()

    def noted(judge, *arguments):
        measured.append(arguments)
        return measure(judge, *arguments)

    monkeypatch.setattr(Judge, "measure", noted)
    larger = run(vlm, tmp_path, plan={"baselines": ("attention-bias",)})
    more = set(larger.points["point"]) - set(before.points["point"])
    assert len(more) == 4
    assert len(measured) == 1 + len(more)  # the model as it is gives the yardsticks
    assert set(rows_of(whole)) < set(rows_of(tmp_path))


def test_a_point_at_which_other_probes_are_asked_is_measured_again(vlm, tmp_path, monkeypatch):
    few: dict[str, Any] = {"controls": (), "strengths": (0.5,)}
    run(vlm, tmp_path, plan={**few, "probes": ("blank",)})
    measure, asked = Judge.measure, list[Any]()

    def noted(judge, steered, probes=()):
        asked.append(list(probes))
        return measure(judge, steered, probes)

    monkeypatch.setattr(Judge, "measure", noted)
    few["strengths"] = (0.5, 1.0)  # the probes are now asked at +1 in place of +0.5
    found = run(vlm, tmp_path, plan={**few, "probes": ("blank",)})
    # yardsticks, +0.5 without probes, +1 in three modes, and as many layer by layer
    assert (len(asked), asked.count(["blank"])) == (8, 1)
    probed = found.frame[found.frame["measure"] == "probe_accuracy"]["point"].unique().tolist()
    assert probed == ["none", "mean-shift/k_proj/all/+1/free/0"]
    run(vlm, tmp_path, plan={**few, "probes": ("blank", "shuffle")})
    assert asked[8:] == [["blank", "shuffle"]] * 2  # the model as it is, and +1


def test_layers_without_keys_of_their_own_are_read_at_those_whose_keys_they_use(tmp_path):
    kinds = [f"{kind}_attention" for kind in ("sliding", "full", "sliding", "sliding", "full")]
    entry = BY_FAMILY["gemma4"]
    config = {
        "text_config__num_hidden_layers": 5, "text_config__num_kv_shared_layers": 2,
        "text_config__layer_types": kinds,
    }  # fmt: skip
    shared = wrap(*replace(entry, config=entry.config | config).build(), name="tiny gemma4")
    assert shared.shared
    plan = {"controls": (), "strengths": (1.0,)}
    table = run(shared, tmp_path, plan=plan, samples=6, fit_samples=6, batch_size=6)
    rows = table.frame[table.frame["point"] == "none"]
    assert set(rows.loc[rows["measure"] == "mmd_squared", "layer"]) == {0, 1, 2}
    assert "mean-shift/k_proj/all/+1/free/0" in set(table.points["point"])
    assert table.samples["gap"].notna().all()


def test_shared_layers_that_read_the_image_show_the_gap_of_their_owner(vlm):
    source = colours(6)
    judged = source.choose(6, 0)
    known: dict[str, Any] = {
        "site": "k_proj", "gap_layers": (0, 1), "state_layers": (1,), "roles": ("question",),
        "batch_size": 6, "n_bootstraps": 9,
    }  # fmt: skip
    models: list[tuple[Any, tuple[int, ...]]] = [(vlm, (1,)), (SharedLast(vlm), (2,))]
    gaps = []
    for model, reading in models:
        judge = Judge(model, judged, ["Hint: {answer}."], reading=reading, **known)
        gaps.append(judge.measure(nullcontext()).samples["gap"].tolist())
    assert gaps[0] == gaps[1]


class SharedLast:
    """A model whose layer 2 is said to attend to the keys of layer 1."""

    def __init__(self, vlm: kg.VLM) -> None:
        self._vlm, self.shared = vlm, {2: 1}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vlm, name)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"text_roles": ("qestion",)}, "did you mean 'question'"),
        ({"n_bootstraps": 0}, "n_bootstraps is 0"),
        ({"n_bootstraps": 2.5}, "n_bootstraps is 2.5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_an_argument_that_is_not_possible_is_refused_before_any_work(vlm, tmp_path, wrong, what):
    with refused(what):
        run(vlm, tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


def test_strengths_of_numpy_are_plain_in_every_file(vlm, tmp_path):
    plan = {"strengths": np.linspace(-1, 1, 2), "controls": (), "draws": np.int64(1)}
    table = run(vlm, tmp_path, plan=plan, seed=np.int64(0))
    assert kg.align.read_causes(tmp_path).settings["plan"]["strengths"] == [-1.0, 1.0]
    assert table.settings["plan"] == kg.align.read_causes(tmp_path).settings["plan"]


def test_a_folder_of_another_experiment_is_refused(vlm, whole):
    before = rows_of(whole)
    with refused("another seed"):
        run(vlm, whole, seed=1)
    assert rows_of(whole) == before


@pytest.mark.parametrize("strength", ["-1", "+1"])
def test_the_yardstick_of_the_gap_stays(whole, strength):
    frame = kg.align.read_causes(whole).frame
    none, only, free = (
        measures_of(frame, point)["mmd_squared", 0, ""]
        for point in (
            "none",
            f"mean-shift/k_proj/all/{strength}/only/0",
            f"mean-shift/k_proj/all/{strength}/free/0",
        )
    )
    assert only == none
    assert free < none / 2 if strength == "+1" else free > none
    gaps = kg.align.read_causes(whole).samples.groupby("point")["gap"].mean()
    # measured anew at each point, by a yardstick that moves along, it would be 1.35 times as large
    assert gaps["mean-shift/k_proj/all/-1/free/0"] > 1.6 * gaps["none"]


def test_a_map_that_moves_nothing_gives_what_the_model_gives(vlm, tmp_path, monkeypatch):
    fitted = kg.align.fit("mean-shift", kg.align.read_vectors(vlm, colours(6), batch_size=6))
    still = {index: Affine(torch.zeros_like(own.shift)) for index, own in fitted.layers.items()}
    nothing = kg.align.Map("nothing", fitted.site, still, fitted.fitted_on)
    monkeypatch.setattr(Acting, "map_of", lambda acting, point: nothing)
    table = run(vlm, tmp_path, plan={"controls": ()})
    none = measures_of(table.frame, "none")
    for point in table.points.query("kind == 'map'").itertuples():
        tolerance = {"rtol": 0, "atol": 0} if point.mass == "free" else {"rtol": 1e-4, "atol": 1e-5}
        pd.testing.assert_series_equal(
            measures_of(table.frame, point.point), none, check_exact=False, **tolerance
        )


class Shared(Colours):
    """Each image has three questions."""

    def index(self) -> list[Entry]:
        return [
            Entry(item.id, item.subject, image_key=f"image {number // 3}")
            for number, item in enumerate(self.samples)
        ]


def test_judged_and_fitted_samples_share_no_image(vlm, tmp_path, monkeypatch):
    fitted, judged = [], []

    def note_fitted(acting, point):
        fitted.extend(acting.fitting.entries)
        return nullcontext()

    def note_judged(judge, *arguments):
        judged.extend(judge.judged.entries)
        raise KeyboardInterrupt

    monkeypatch.setattr(Acting, "steered", note_fitted)
    monkeypatch.setattr(Judge, "measure", note_judged)
    source = Shared("colours", colours(24).samples)
    with pytest.raises(KeyboardInterrupt):
        run(vlm, tmp_path, source, samples=10, fit_samples=8)
    shown = {each.image_key for each in judged}
    others = [each for each in source.choose(18, 0).entries if each.image_key not in shown]
    assert len(judged) == 10
    assert 2 <= len(others) < 8  # some show an image that is judged
    assert fitted == others


def test_what_cannot_be_an_experiment_is_one_line(vlm, tmp_path):
    shift = kg.align.fit("mean-shift", kg.align.read_vectors(vlm, colours(6), batch_size=6))
    with kg.align.steer(vlm, shift), refused("is steered already"):
        run(vlm, tmp_path)
    crossed = wrap(*BY_FAMILY["mllama"].build(), name="tiny mllama")
    with refused("cross-attention"):
        run(crossed, tmp_path)
    model, processor = BY_FAMILY["llava"].build()
    alone = wrap(with_own_attention(model), processor, name="own attention")
    with refused("computes attention by itself"):
        run(alone, tmp_path)
    with refused("none are left to fit maps on"):
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
    with refused(what):
        Plan(**wrong)
