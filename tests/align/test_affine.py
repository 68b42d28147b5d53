"""An affine map moves vectors by strength times its displacement."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from keygap.align.affine import Affine
from keygap.errors import UserError

GENERATOR = torch.Generator().manual_seed(0)
SHIFT = torch.randn(2, 3, generator=GENERATOR)
SCALE = torch.randn(2, 3, generator=GENERATOR)
MATRIX = torch.randn(2, 3, 3, generator=GENERATOR)
X = torch.randn(5, 7, 2, 3, generator=GENERATOR)
KINDS = {
    "shift": Affine(SHIFT),
    "scale": Affine(SHIFT, scale=SCALE),
    "matrix": Affine(SHIFT, matrix=MATRIX),
}


def mapped(kind: str, x: np.ndarray) -> np.ndarray:
    """The whole map, vector by vector and head by head."""
    moved = np.empty_like(x)
    for *place, head in np.ndindex(x.shape[:-1]):
        own = x[(*place, head)]
        if kind == "scale":
            own = own * SCALE[head].double().numpy()
        if kind == "matrix":
            own = np.array(
                [sum(own[i] * float(MATRIX[head, i, j]) for i in range(3)) for j in range(3)]
            )
        moved[(*place, head)] = own + SHIFT[head].double().numpy()
    return moved


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strength", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_strength_moves_along_the_line_from_a_vector_to_its_image(kind, strength):
    x = X.double()
    expected = x.numpy() + strength * (mapped(kind, x.numpy()) - x.numpy())
    np.testing.assert_allclose(KINDS[kind].apply(x, strength).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_displacement_is_what_strength_1_adds(kind):
    x = X.double()
    expected = mapped(kind, x.numpy()) - x.numpy()
    np.testing.assert_allclose(KINDS[kind].displacement(x).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_strength_0_leaves_every_bit(kind, dtype):
    x = X.to(dtype)
    left = KINDS[kind].apply(x, 0.0)
    assert left.dtype == dtype
    assert torch.equal(left, x)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_rounded_once(kind):
    x = X.bfloat16()
    expected = torch.from_numpy(mapped(kind, x.double().numpy()))
    moved = KINDS[kind].apply(x)
    assert moved.dtype == KINDS[kind].displacement(x).dtype == torch.bfloat16
    spacing = torch.finfo(torch.bfloat16).eps * expected.abs().clamp_min(1e-3)
    assert ((moved.double() - expected).abs() <= 0.51 * spacing + 1e-6).all()


def test_gradients_reach_the_vectors():
    x = X.clone().requires_grad_()
    KINDS["matrix"].apply(x, 0.5).sum().backward()
    expected = 0.5 + 0.5 * MATRIX.sum(-1)
    torch.testing.assert_close(x.grad, expected.expand_as(x))


def test_a_map_moves_to_a_device():
    moved = KINDS["matrix"].to("meta")
    assert {tensor.device.type for tensor in moved.tensors.values()} == {"meta"}
    assert set(moved.tensors) == {"shift", "matrix"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shift": SHIFT, "scale": SCALE, "matrix": MATRIX}, "both a scale and a matrix"),
        ({"shift": SHIFT[0]}, r"shape \(3,\): \(heads, head_dim\) is needed"),
        ({"shift": SHIFT, "scale": SCALE[:1]}, r"scale .* \(1, 3\), \(2, 3\) is needed"),
        ({"shift": SHIFT, "matrix": MATRIX[..., :2]}, r"matrix .* \(2, 3, 3\) is needed"),
    ],
)
def test_parts_that_do_not_fit_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        Affine(**arguments)


def test_vectors_of_another_shape_are_one_line():
    with pytest.raises(
        UserError, match="2 heads of 3 dimensions does not fit vectors of 2 heads of 4"
    ):
        KINDS["shift"].apply(torch.zeros(1, 2, 4))
