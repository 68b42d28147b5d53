"""What a map does to the vectors of one layer: scale or turn them within a head, and shift them.

Every kind of map ends here, so that applying, saving and comparing maps is written once. The
displacement at strength 1 is the primitive operation, because strengths may be negative: at 0,
vectors stay bit-identical; at -1, they move by the opposite displacement.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from keygap.errors import UserError


@dataclass(frozen=True, eq=False)
class Affine:
    """x -> x * scale + shift, or x @ matrix + shift, for each head.

    Attributes:
        shift: what is added to the vectors of a head.
        scale: what multiplies each dimension; None leaves it. At most one of scale and matrix.
        matrix: what multiplies a vector from the right; None leaves it.

    Raises:
        UserError: both scale and matrix are given, or their shapes do not fit that of the shift.
    """

    shift: Float[Tensor, "heads head_dim"]
    scale: Float[Tensor, "heads head_dim"] | None = None
    matrix: Float[Tensor, "heads head_dim head_dim"] | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and self.matrix is not None:
            raise UserError("an affine map has both a scale and a matrix: leave one out")
        if self.shift.ndim != 2:
            raise UserError(
                f"the shift of an affine map has the shape {tuple(self.shift.shape)}: "
                "(heads, head_dim) is needed"
            )
        heads, head_dim = self.shift.shape
        needed = {"scale": (heads, head_dim), "matrix": (heads, head_dim, head_dim)}
        for name, tensor in self.tensors.items():
            if name != "shift" and tuple(tensor.shape) != needed[name]:
                raise UserError(
                    f"the {name} of an affine map has the shape {tuple(tensor.shape)}, "
                    f"{needed[name]} is needed"
                )

    @property
    def shape(self) -> tuple[int, int]:
        """Heads, and dimensions of a head."""
        return self.shift.shape[0], self.shift.shape[1]

    @property
    def shift_only(self) -> bool:
        """Whether the map adds the same vector to all."""
        return self.scale is None and self.matrix is None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that the map has, by name."""
        named = {"shift": self.shift, "scale": self.scale, "matrix": self.matrix}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    @property
    def is_finite(self) -> bool:
        """Whether no value is NaN or infinite."""
        return all(bool(tensor.isfinite().all()) for tensor in self.tensors.values())

    def to(self, device: torch.device | str) -> Affine:
        """The same map with its tensors on a device."""
        return Affine(**{name: tensor.to(device) for name, tensor in self.tensors.items()})

    def displacement(
        self, x: Float[Tensor, "*rest heads head_dim"]
    ) -> Float[Tensor, "*rest heads head_dim"]:
        """What the map adds to vectors at strength 1.

        It is computed in float32, or in float64 for vectors in float64.

        Args:
            x: the vectors.

        Returns:
            The displacements, of the type and on the device of the vectors.

        Raises:
            UserError: the vectors have another number or size of heads.
        """
        return self._displacement(_wide(x)).to(x.dtype)

    def apply(
        self, x: Float[Tensor, "*rest heads head_dim"], strength: float = 1.0
    ) -> Float[Tensor, "*rest heads head_dim"]:
        """The vectors plus ``strength`` times their displacement.

        The sum is rounded to the type of the vectors once, at the end.

        Args:
            x: the vectors.
            strength: 0 leaves the vectors as they are, 1 maps them, -1 moves them as far away.

        Raises:
            UserError: as ``displacement``.
        """
        wide = _wide(x)
        return (wide + strength * self._displacement(wide)).to(x.dtype)

    def _displacement(self, x: Tensor) -> Tensor:
        if tuple(x.shape[-2:]) != self.shape:
            heads, head_dim = x.shape[-2:]
            raise UserError(
                f"a map of {self.shape[0]} heads of {self.shape[1]} dimensions does not fit "
                f"vectors of {heads} heads of {head_dim}: fit it on this model and site"
            )
        shift = self.shift.to(x)
        if self.matrix is not None:
            identity = torch.eye(self.shape[1], dtype=x.dtype, device=x.device)
            return torch.einsum("...hd,hde->...he", x, self.matrix.to(x) - identity) + shift
        if self.scale is not None:
            return x * (self.scale.to(x) - 1) + shift
        return shift.expand_as(x)


def _wide(x: Tensor) -> Tensor:
    """The vectors in float32, or in float64 if they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
