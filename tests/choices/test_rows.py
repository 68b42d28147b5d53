"""Every row is the number that ``keygap.gap`` gives for the same tokens, and without some samples.

The tokens of a row are taken from the selection; coordinates, halves, bandwidths and calls are
written again here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist, pdist
from sklearn.decomposition import PCA

from choices.planted import made_by, planted
from keygap import gap
from keygap.choices.direct import again
from keygap.choices.intervals import jackknife_error
from keygap.choices.kernel_sums import bandwidths, kernel_sums
from keygap.choices.left_out import multiplicities
from keygap.choices.levels import KERNELS, Plan
from keygap.choices.running import sample_ranks, specifications
from keygap.choices.selection import Layer

TOKENS, SAMPLES = 90, 40


@pytest.fixture(scope="module")
def store():
    return planted(gap=1.5, samples=SAMPLES, by_sample=0.5, head_dim=32, seed=3)


@pytest.fixture(scope="module")
def table(store):
    return specifications(store, plan=Plan(tokens=[TOKENS]))


def layer_of(store, index: int) -> Layer:
    return Layer(store.layer("k_proj", index), sample_ranks([store], 0)["made"], 0)


def sides_of(row, store, layer: int, head: int | None):
    """Vectors, sample ids and halves of both modalities in the coordinates of a row."""
    selection = layer_of(store, layer).select(row["text"], row["outliers"], row["tokens"])
    parts = [selection.image, selection.text]
    parts = [side if head is None else side[:, head : head + 1] for side in parts]
    flat = [side.reshape(len(side), -1).astype(float) for side in parts]
    if row["space"] != "raw":
        both = np.concatenate(flat)
        both = (both - both.mean(0)) / both.std(0)
        if row["space"] == "pca_50":
            both = PCA(n_components=min(50, both.shape[1]), svd_solver="full").fit_transform(both)
        flat = [both[: len(flat[0])], both[len(flat[0]) :]]
    samples = [selection.sample_image, selection.sample_text]
    by_token = [selection.token_half_image, selection.token_half_text]
    halves = [
        selection.ranks[s] % 2 if row["unit"] == "sample" else t
        for s, t in zip(samples, by_token, strict=True)
    ]
    return flat, samples, halves


def number(row: dict[str, Any], x: Any, y: Any, groups: Any, sigma: Any) -> float:
    """MMD squared or JSD of two sides by the public functions."""
    name = row["estimator"]
    ids: Any = groups if row["unit"] == "sample" else (None, None)
    none: Any = {"n_permutations": 0}
    if name in KERNELS:
        kernel: Any = name.partition("_")[0]
        options: Any = {} if kernel != "gaussian" else {"bandwidth": sigma}
        return gap.mmd(
            x,
            y,
            ids[0],
            ids[1],
            kernel=kernel,
            estimator=row["bias"],
            n_bootstraps=0,
            **none,
            **options,
        ).mmd2
    kind, *numbers = name.split("_")
    if kind == "histogram":
        return gap.jsd_marginals(x, y, *ids, bins=int(numbers[0]), **none).nats
    if kind == "joint":
        dims, bins = map(int, numbers)
        return gap.jsd_histogram(x, y, *ids, dims=dims, bins=bins, **none).nats
    if kind == "neighbours":
        return gap.jsd_neighbours(x, y, *ids, **none).nats
    critics = ("linear", "quadratic")
    return gap.jsd(x, y, *ids, critics=critics, n_bootstraps=1, **none).nats


def sigma_of(row, flat):
    kinds = [(pdist(flat[0]), 0.25), (pdist(flat[1]), 0.25), (cdist(*flat).ravel(), 0.5)]
    distances = np.concatenate([kind for kind, _ in kinds])
    weights = np.concatenate([np.full(len(kind), share / len(kind)) for kind, share in kinds])
    order = np.argsort(distances)
    median = float(distances[order][np.searchsorted(np.cumsum(weights[order]), 0.5 - 1e-12)])
    d = flat[0].shape[1]
    return {
        "gaussian_median": median,
        "gaussian_grid": [median * factor for factor in (2, math.sqrt(2), 1, math.sqrt(0.5), 0.5)],
        "gaussian_1/d": math.sqrt(d / 2),
        "gaussian_1": 1.0,
    }.get(row["estimator"])


def directly(row, store) -> np.ndarray:
    """``cross``, ``image_image`` and ``text_text`` of a row."""
    layers = {"first": [0], "middle": [1], "last": [2], "mean": [0, 1, 2]}[row["layer"]]
    of_level: dict[str, list[int | None]] = {"together": [None], "mean": [0, 1]}
    heads = of_level[row["heads"]] if row["heads"] in of_level else [int(row["heads"])]
    values = []
    for layer in layers:
        for head in heads:
            (image, text), (of_image, of_text), halves = sides_of(row, store, layer, head)
            sigma = sigma_of(row, (image, text))
            found = [number(row, image, text, (of_image, of_text), sigma)]
            for side, ids, half in zip((image, text), (of_image, of_text), halves, strict=True):
                a, b = half == 0, half == 1
                found.append(number(row, side[a], side[b], (ids[a], ids[b]), sigma))
            values.append(found)
    of_scale: Any = {
        "mmd": lambda v: np.sqrt(np.maximum(v, 0)),
        "root": np.sqrt,
        "bits": lambda v: v / np.log(2),
    }.get(row["scale"], lambda v: v)
    return of_scale(np.array(values)).mean(0)


def agree(found, expected, row, tolerance: float = 1e-6) -> bool:
    """Whether numbers agree; the root of an MMD squared of 1e-7 is uncertain by 3e-4."""
    if row["scale"] == "mmd" and min(np.min(found), np.min(expected)) < 0.02:
        tolerance = 5e-4
    return found == pytest.approx(expected, rel=tolerance, abs=tolerance)


def one_of_each(frame):
    """One row of each estimator, bias, unit, space, kind of heads and scale, over all layers."""
    kind = frame["heads"].where(frame["heads"].isin(["together", "mean"]), "each")
    keys = ["estimator", "bias", "unit", "space", "scale"]
    return frame.assign(kind=kind).groupby([*keys, "kind"]).sample(1, random_state=0)


def test_rows_equal_the_public_functions(table, store):
    rows = one_of_each(table.frame)
    assert set(rows["estimator"]) == set(table.frame["estimator"])
    cheap = rows[rows["layer"] != "mean"]
    assert len(cheap) > 150
    # a PCA of another library ends in other signs and roundings, and a fold's classifier with them
    fitted = cheap["estimator"].eq("classifier") | cheap["estimator"].str.startswith("joint")
    for row in cheap[~(fitted & cheap["space"].eq("pca_50"))].to_dict("records"):
        found = directly(row, store)
        expected = [row["cross"], row["image_image"], row["text_text"]]
        # coordinates are float64 here and float32 there; a vector may then change its bin
        rounded = row["space"] != "raw"
        tolerance = (2e-3 if row["measure"] == "jsd" else 2e-5) if rounded else 1e-6
        assert agree(found, expected, row, tolerance), [row, found]


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_every_kind_of_row_is_rerun_to_a_millionth(table, store, step):
    """One in five is quick, and has every estimator."""
    rows = one_of_each(table.frame)[::step]
    assert set(rows["estimator"]) == set(table.frame["estimator"])
    for row in rows.to_dict("records"):
        found = again(table, [store], row["row"]).values
        names = ("cross", "image_image", "text_text")
        assert agree([found[name] for name in names], [row[name] for name in names], row), row


def test_a_classifier_of_uneven_sides_is_rerun_to_a_millionth(monkeypatch):
    """Questions of 3 to 9 words: the halves have unequal numbers of text tokens."""
    store = planted(layers=(0,), words=9, heads=1, head_dim=6, by_sample=0.3, seed=1)
    vectors = made_by(store).of_layer[0]
    number = vectors.labels["sample_id"].str[1:].astype(int).to_numpy()
    words = np.random.default_rng(0).integers(3, 10, SAMPLES)
    ranks = sample_ranks([store], 0)["made"]
    half = np.array([ranks[name] % 2 for name in vectors.labels["sample_id"]])
    vectors.array[half == 1] += 0.7  # so that the halves read something
    position = vectors.labels["position"].to_numpy() - 6
    question = (vectors.labels["role"] == "question").to_numpy()
    made_by(store).of_layer[0] = vectors.where(~(question & (position >= words[number])))
    plan = Plan(
        tokens=[200], layers=["first"], text=["question"], outliers=["kept"],
        spaces=["pca_50"], estimators=["classifier", "neighbours", "joint_2_10"],
    )  # fmt: skip
    selection = layer_of(store, 0).select("question", "kept", 200)
    assert len({len(rows) for rows in selection.rows("text_text", "sample")}) == 2
    names = ("cross", "image_image", "text_text")
    for most in (10_000, 50):
        monkeypatch.setattr("keygap.choices.divergences.MAX_VECTORS", most)
        monkeypatch.setitem(gap.jsd.__kwdefaults__, "max_vectors", most)
        table = specifications(store, plan=plan)
        rows = table.frame[table.frame["scale"] == "nats"]
        assert (rows.loc[rows["estimator"] == "classifier", "text_text"] > 0.02).any()
        for row in rows.to_dict("records"):
            found = again(table, [store], row["row"]).values
            assert agree([found[name] for name in names], [row[name] for name in names], row), row


def test_memory_does_not_grow_with_the_square_of_the_samples():
    """600 tokens of 600 samples: a matrix over all cells would have 46 MB for each kernel."""
    store = planted(layers=(0,), samples=600, image_tokens=1, words=1, heads=1)
    selection = layer_of(store, 0).select("question", "kept", 600)
    points = np.concatenate(selection.points("raw", None))
    draws = multiplicities(selection.ranks, 10)
    sigmas = bandwidths(points[:600], points[600:], KERNELS, 0)
    sums = kernel_sums(selection, points, KERNELS, sigmas, draws, "cpu")
    parts = [value for of_unit in sums.by_unit.values() for value in vars(of_unit).values()]
    assert sum(value.nbytes for value in parts) < 100_000


def test_values_without_a_group_are_those_of_the_other_samples(store):
    """Bandwidths are given, so that nothing but the samples changes."""
    selection = layer_of(store, 0).select("question", "kept", TOKENS)
    points = np.concatenate(selection.points("standardised", None))
    kernels = ["gaussian_1", "gaussian_1/d", "linear", "energy"]
    draws = multiplicities(selection.ranks, 10)
    sigmas = {"gaussian_1": 1.0, "gaussian_1/d": math.sqrt(points.shape[1] / 2)}
    given = {name: (sigma,) for name, sigma in sigmas.items()}
    sums = kernel_sums(selection, points, kernels, given, draws, "cpu")
    for group in (1, 7):
        kept = set(np.flatnonzero(draws[group]))
        assert len(kept) == SAMPLES - 4
        for contrast in ("cross", "image_image", "text_text"):
            for unit in ("sample", "token"):
                rows = [
                    own[np.isin(selection.samples[own], list(kept))]
                    for own in selection.rows(contrast, unit)
                ]
                ids = [selection.groups(own, unit) for own in rows]
                found = sums.mmd2(contrast, unit)
                for bias in ("unbiased", "biased"):
                    for place, name in enumerate(kernels):
                        row = {"estimator": name, "bias": bias, "unit": "sample"}
                        x, y = (points[own] for own in rows)
                        expected = number(row, x, y, ids, sigmas.get(name))
                        assert found[bias][place, group] == pytest.approx(expected, abs=1e-6)


def test_the_jackknife_error_of_a_mean_is_the_textbook_one():
    values = np.random.default_rng(0).normal(size=20)
    left_out = [(values.sum() - one) / 19 for one in values]
    error = jackknife_error(np.array([values.mean(), *left_out]))
    assert error == pytest.approx(values.std(ddof=1) / math.sqrt(20))


@pytest.mark.slow
@pytest.mark.parametrize("asked", [40, 60])
def test_intervals_hold_the_truth_about_as_often_as_they_say(asked):
    """Linear kernel, raw: MMD squared is the squared distance of the means.

    Where samples are missing, groups are uneven.
    """
    plan = Plan(
        tokens=[200], layers=["first"], heads=["together"], text=["question"], spaces=["raw"],
        outliers=["kept"], units=["sample"], estimators=["linear"], n_groups=20,
    )  # fmt: skip
    held, gap_size = [], 3.0
    for seed in range(120):
        store = planted(gap=gap_size, layers=(0,), by_sample=1.0, seed=100 + seed)
        names = [f"s{number:03d}" for number in range(asked)]
        made_by(store).samples = pd.DataFrame({"sample_id": names, "failure": None})
        frame = specifications(store, plan=plan, seed=seed).frame
        row = frame[(frame["bias"] == "unbiased") & (frame["scale"] == "mmd2")].iloc[0]
        held.append(row["cross_low"] <= gap_size**2 <= row["cross_high"])
    assert 0.88 <= np.mean(held) <= 0.99
