"""Which queries a baseline changes, found once for each pass and not at each layer.

A prompt has many more image tokens than words, and most baselines change the attention of words
alone. Where a change depends on the attention logits, they are computed for the chosen queries and
not for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from keygap.errors import UserError
from keygap.models.attention_tap import AttentionCall
from keygap.models.positions import Tokens, known_tokens

ALL, CURRENT = "all", "current"
IMAGE = ("image", "video")  # modalities of the keys that baselines strengthen


class Queries:
    """A choice of queries.

    Args:
        names: ``all`` queries; ``current``: the last token of the prompt and those of the answer,
            each of which predicts a token; or modalities and roles, such as ``text``.

    Attributes:
        names: the names, for the identity of an intervention.

    Raises:
        UserError: no name, or one that no token can have.
    """

    def __init__(self, names: str | Sequence[str]) -> None:
        if names in (ALL, CURRENT):
            self.names: tuple[str, ...] = (str(names),)
        elif isinstance(names, Sequence) and {ALL, CURRENT} & set(names):
            raise UserError(f"{ALL!r} and {CURRENT!r} are not kinds of tokens: give one alone")
        else:
            self.names = known_tokens(names)
        self._latest: tuple[Tokens, Rows] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the queries of a pass."""
        return {**vars(self), "_latest": None}

    def among(self, queries: Tokens) -> Bool[Tensor, "b t"]:
        """Which queries of a call are chosen.

        Raises:
            UserError: the pass has no labels.
        """
        if self.names == (ALL,):
            shape = (queries.batch, queries.count)
            return torch.ones(shape, dtype=torch.bool, device=queries.device)
        if self.names != (CURRENT,):
            return queries.are(self.names)
        here = torch.arange(queries.count, device=queries.device)
        return (here == queries.last()[:, None]) | queries.are(("answer",))

    def rows(self, queries: Tokens) -> Rows:
        """The chosen queries of a call, remembered for the other layers of the pass."""
        if self._latest is None or not _same(self._latest[0], queries):
            self._latest = queries, Rows.of(self.among(queries))
        return self._latest[1]


@dataclass(frozen=True)
class Rows:
    """Some queries of each prompt.

    Attributes:
        places: their indices. Prompts with fewer than others repeat none: queries that were not
            chosen fill the row.
        used: which of the places were chosen.
    """

    places: Int[Tensor, "b q"]
    used: Bool[Tensor, "b q"]

    @classmethod
    def of(cls, chosen: Bool[Tensor, "b t"]) -> Rows:
        """The places of the chosen queries."""
        most = int(chosen.sum(1).max())
        used, places = chosen.int().sort(dim=1, descending=True, stable=True)
        return cls(places[:, :most], used[:, :most].bool())

    def spread(
        self, call: AttentionCall, bias: Float[Tensor, "b heads q s"]
    ) -> Float[Tensor, "b heads t s"]:
        """A bias of the chosen queries as one of all queries of a call, 0 for the others."""
        batch, heads, count, _ = call.query.shape
        bias = torch.where(self.used[:, None, :, None], bias, 0.0).to(call.query.dtype)
        full = bias.new_zeros(batch, heads, count, bias.shape[-1])
        index = self.places[:, None, :, None].expand(batch, heads, -1, bias.shape[-1])
        return full.scatter(2, index, bias.expand(batch, heads, -1, -1))


def _same(one: Tokens, other: Tokens) -> bool:
    """Whether two calls have the same queries, as the layers of one pass do."""
    return one.prompts is other.prompts and (
        (one.batch, one.start, one.count, one.device)
        == (other.batch, other.start, other.count, other.device)
    )
