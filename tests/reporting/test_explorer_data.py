"""The explorer's data hold what the run has, in few bytes, and no text of theirs ends a script."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest

from keygap.reporting.explorer.data import as_json, data_of, packed
from keygap.reporting.explorer.section import LIBRARY, OWN, explorer
from keygap.reporting.explorer.words import readable
from keygap.reporting.run import Run, read_run

FOLDER = files("keygap.reporting.explorer")


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        (["\u0120circle", "s"], [" circle", "s"]),
        (["\u2581circle", "caf\u00e9"], [" circle", "caf\u00e9"]),
        # a vocabulary of bytes: a line feed, an accent, a Chinese character and part of one
        (["\u0120a", "\u010a"], [" a", "\n"]),
        (["\u0120caf\u00c3\u00a9"], [" caf\u00e9"]),
        (["\u0120", "\u00e4\u00b8\u0143"], [" ", "\u4e2d"]),
        (["\u0120", "\u00e4\u00b8"], [" ", "\u00e4\u00b8"]),
        (["\u0120x", "<|im_end|>", "\u4e2d"], [" x", "<|im_end|>", "\u4e2d"]),
        (["<image>", "plain"], ["<image>", "plain"]),
    ],
)
def test_words_are_spelled_as_people_do(spelled, expected):
    assert readable(spelled) == expected


@pytest.mark.parametrize("text", ["</script>", "<!--", "<ScRiPt>", "\x00", "\u2028", "\ud800", "é"])
def test_no_text_ends_the_element_of_the_data(text):
    made = as_json({text: [text]})
    assert json.loads(made) == {text: [text]}
    assert "<" not in made
    assert made.isascii()


def test_numbers_are_packed_and_too_large_ones_are_the_largest():
    data = np.frombuffer(base64.b64decode(packed([-40000, -1, 7, 40000], "<i2")), "<i2")
    assert data.tolist() == [-32768, -1, 7, 32767]
    assert np.isnan(np.frombuffer(base64.b64decode(packed([np.nan], "<f4")), "<f4")).all()


def unpacked(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def test_prompts_and_points_are_those_of_the_store(two_sites):
    run = read_run(two_sites)
    assert run.store is not None
    assert run.projection is not None
    (found,) = data_of([run])["runs"]
    tokens, prompts = found["tokens"], found["prompts"]
    drawn = run.projection[["sample_id", "position"]].drop_duplicates()
    assert tokens["count"] == len(drawn)
    key = list(
        zip(
            (found["samples"][n] for n in unpacked(tokens["sample"], "<u4")),
            unpacked(tokens["position"], "<u4"),
            strict=True,
        )
    )
    known = run.store.tokens.astype({"sample_id": str}).set_index(["sample_id", "position"])
    labels = known.reindex(pd.MultiIndex.from_tuples(key))
    words = [found["words"][n] for n in unpacked(tokens["word"], "<u4")]
    assert words == labels["token"].tolist()
    assert unpacked(tokens["row"], "<i2").tolist() == labels["patch_row"].tolist()
    for place in found["places"]:
        rows = run.projection.query(f"site == {place['site']!r} and layer == {place['layer']}")
        rows = rows.astype({"sample_id": str}).set_index(["sample_id", "position"]).loc[key]
        for axis, column in enumerate(("x", "y")):
            steps = unpacked(place["tsne"][column], "<u2").astype(float)
            values = place["tsne"]["low"][axis] + steps * place["tsne"]["step"][axis]
            np.testing.assert_allclose(values, rows[column], atol=place["tsne"]["step"][axis])
        np.testing.assert_array_equal(
            unpacked(place["attention"], "<f4"), rows["attention"].astype("float32")
        )
    # 16 positions of an image are one entry, and each word is one
    lengths = unpacked(prompts["length"], "<u4")
    assert set(lengths) == {0, 12}
    first = unpacked(prompts["sample"], "<u4") == 0
    own = known.loc[found["samples"][0]]
    assert [
        found["words"][n] for n in unpacked(prompts["word"], "<u4")[first & (lengths == 0)]
    ] == (own.loc[own["modality"] == "text", "token"].tolist())


def test_a_picture_that_runs_share_is_there_once(two_sites):
    run = read_run(two_sites)
    one, both = data_of([run]), data_of([run, run])
    assert one["pictures"] == both["pictures"]
    assert run.store is not None
    kept = run.store.thumbnails
    assert kept is not None
    assert {base64.b64encode(data).decode() for data in kept["picture"]} == set(one["pictures"])


def test_no_projection_no_explorer(two_sites):
    run = read_run(two_sites)
    bare = Run(run.root, run.manifest, run.table, None, None, run.store)
    assert explorer([bare]) is None
    empty = Run(run.root, run.manifest, run.table, pd.DataFrame(), None, run.store)
    assert explorer([empty]) is None


def test_the_library_is_what_its_publisher_served_and_has_its_licence():
    lines = (FOLDER / "third_party/SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split() for line in lines)}
    assert set(sums) == {f"d3-{name}.min.js" for name in LIBRARY}
    for name, digest in sums.items():
        data = (FOLDER / "third_party" / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest
    licence = (FOLDER / "third_party/LICENSE").read_text()
    for name in LIBRARY:
        assert f"d3-{name}" in licence
    assert "Permission to use, copy, modify" in licence


def test_every_script_of_the_explorer_is_used_and_short():
    paths = [*(FOLDER / "js").iterdir(), *(files("keygap.reporting.view") / "js").iterdir()]
    names = {f"{name}.js" for name in (*OWN, "start", "live")}
    assert {path.name for path in paths} == names
    for path in paths:
        text = path.read_text()
        assert text.count("\n") <= 400
        for unsafe in (
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "Function(",
        ):
            assert unsafe not in text
