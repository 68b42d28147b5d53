"""A map is kept whole: a file that was changed in any byte is refused, and so is a wrong model."""

from __future__ import annotations

import logging
import pickle
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from keygap.align.affine import Affine
from keygap.align.map import Map, load_map
from keygap.capture import Capture
from keygap.errors import UserError
from keygap.models.fingerprint import fingerprint
from keygap.models.load import wrap
from keygap.selfcheck.samples import check_samples
from models.zoo import BY_FAMILY

FITTED_ON = {"model": "made", "n_image": {"0": 5, "3": 6}, "settings": {"draw": 0, "roles": ["a"]}}


def made_map(**changes) -> Map:
    generator = torch.Generator().manual_seed(0)
    shift, scale = torch.randn(2, 2, 3, generator=generator)
    matrix = torch.randn(2, 3, 3, generator=generator)
    layers = {3: Affine(shift, matrix=matrix), 0: Affine(shift, scale=scale)}
    return replace(Map("coral", "k_proj", layers, FITTED_ON), **changes)


@pytest.fixture(scope="module")
def llava():
    return wrap(*BY_FAMILY["llava"].build(), name="tiny llava")


def fitted(llava, **changes) -> Map:
    layers = {index: Affine(torch.zeros(2, 16)) for index in range(3)}
    on = {"model": "tiny", "architecture": llava.architecture, "n_layers": 3}
    return replace(Map("mean-shift", "k_proj", layers, on), **changes)


def test_a_saved_map_is_read_bit_for_bit(tmp_path):
    own = made_map()
    own.save(tmp_path / "new" / "a.safetensors")
    read = load_map(str(tmp_path / "new" / "a.safetensors"))
    assert (read.name, read.site, read.fitted_on) == (own.name, own.site, FITTED_ON)
    assert list(read.layers) == [0, 3]
    for index, affine in own.layers.items():
        found = read.layers[index].tensors
        assert set(found) == set(affine.tensors)
        for name, tensor in affine.tensors.items():
            assert found[name].dtype == torch.float32
            assert found[name].numpy().tobytes() == tensor.numpy().tobytes()
    assert read.hash == own.hash


def test_the_file_is_plain_safetensors(tmp_path):
    own = made_map()
    own.save(tmp_path / "a.safetensors")
    tensors = safetensors.torch.load_file(tmp_path / "a.safetensors")
    assert torch.equal(tensors["layers.3.matrix"], own.layers[3].matrix)


def test_layers_may_share_their_tensors(tmp_path):
    one = Affine(torch.ones(2, 3))
    own = made_map(layers={0: one, 1: one})
    own.save(tmp_path / "a.safetensors")
    assert load_map(tmp_path / "a.safetensors").hash == own.hash


def test_the_hash_is_that_of_the_content():
    own = made_map()
    shift = own.layers[0].shift
    nearly = shift.clone()
    nearly[0, 0] = torch.nextafter(nearly[0, 0], torch.tensor(10.0))
    scale = own.layers[0].scale
    others = [
        made_map(name="other"),
        made_map(site="v_proj"),
        made_map(fitted_on={**FITTED_ON, "model": "another"}),
        made_map(layers={0: own.layers[0]}),
        made_map(layers={1: own.layers[0], 3: own.layers[3]}),
        made_map(layers={0: Affine(shift), 3: own.layers[3]}),
        made_map(layers={0: Affine(nearly, scale=scale), 3: own.layers[3]}),
    ]
    hashes = {one.hash for one in others}
    assert len(hashes) == len(others)
    assert own.hash not in hashes
    assert made_map().hash == own.hash


def test_a_file_that_is_no_map_is_one_line(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(UserError, match=r"no map at .*: fit one and save it there"):
        load_map(path)
    with pytest.raises(UserError, match="no map at"):
        load_map(tmp_path)
    path.write_bytes(pickle.dumps({"shift": 1}))
    with pytest.raises(UserError, match="damaged or not a safetensors file"):
        load_map(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="damaged or not a safetensors file"):
        load_map(path)
    safetensors.torch.save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(UserError, match="not a map written by keygap"):
        load_map(path)


def test_a_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "a.safetensors"
    made_map().save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:size] for size in range(0, len(whole), 61)]
    for place in rng.integers(0, len(whole), 300):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            load_map(path)
        assert "\n" not in str(error.value)


def test_what_cannot_be_a_map_is_one_line():
    with pytest.raises(UserError, match="unknown site 'k_porj'; did you mean 'k_proj'"):
        made_map(site="k_porj")
    with pytest.raises(UserError, match="has no layer"):
        made_map(layers={})
    with pytest.raises(UserError, match="more than plain values"):
        made_map(fitted_on={"n": torch.ones(1)})


def test_a_map_fits_the_model_that_it_was_fitted_on(llava, caplog):
    own = fitted(llava)
    with caplog.at_level(logging.WARNING, "keygap"):
        own.check(llava)
        same = {**own.fitted_on, "fingerprint": fingerprint(llava.model)}
        replace(own, fitted_on=same).check(llava)
    assert not caplog.records


def test_other_weights_are_a_warning(llava, caplog):
    own = fitted(llava, fitted_on={"model": "tiny", "fingerprint": "0" * 16})
    with caplog.at_level(logging.WARNING, "keygap"):
        own.check(llava)
    assert "with other weights than those of tiny llava" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fitted_on": {"model": "m", "architecture": "qwen"}}, "architecture is qwen, and that"),
        ({"fitted_on": {"model": "m", "n_layers": 32}}, "number of layers is 32, and that of"),
        ({"layers": {7: Affine(torch.zeros(2, 16))}}, "layer 7, and tiny llava has layers 0 to 2"),
        ({"layers": {1: Affine(torch.zeros(4, 16))}}, "4 heads of 16 dim.*has 2 heads of 16"),
        ({"layers": {1: Affine(torch.zeros(2, 8))}}, "2 heads of 8 dim.*has 2 heads of 16"),
        ({"layers": {1: Affine(torch.full((2, 16), torch.nan))}}, "not finite at layer 1"),
        ({"layers": {1: Affine(torch.zeros(2, 16))}, "site": "query"}, "has 4 heads of 16"),
    ],
)
def test_another_model_is_one_line(llava, changes, message):
    with pytest.raises(UserError, match=message):
        fitted(llava, **changes).check(llava)


def test_a_layer_without_the_site_is_one_line():
    latent = wrap(*BY_FAMILY["kimi_k25"].build(), name="tiny kimi")
    own = Map("mean-shift", "k_proj", {0: Affine(torch.zeros(4, 8))}, {})
    with pytest.raises(UserError, match=r"latent \(MLA\)"):
        own.check(latent)
    without = wrap(*BY_FAMILY["qwen3_5"].build(), name="tiny qwen3_5")
    with pytest.raises(UserError, match="layer 0 has no key"):
        replace(own, site="key").check(without)


@pytest.mark.parametrize("family", ["llava", "kimi_k25", "qwen3_5", "mllama"])
def test_what_was_read_from_a_model_fits_it(family):
    vlm = wrap(*BY_FAMILY[family].build(), name=f"tiny {family}")
    batch = vlm.prompter(check_samples()[:1])
    for site in ("q_proj", "k_proj", "v_proj", "query", "key", "value", "hidden"):
        for layer in vlm.layers:
            kind = "hidden" if site == "hidden" else "projection" if "proj" in site else "attention"
            if not layer.has_site(site, kind):
                continue
            with Capture(vlm, [site], [layer.index]) as capture:
                shape = capture(batch)[site, layer.index].shape[-2:]
            Map("mean-shift", site, {layer.index: Affine(torch.zeros(shape))}, {}).check(vlm)
