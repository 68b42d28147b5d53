"""The connector that a loaded model really has: its modules and its number of parameters."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from keygap.models.projections import width_of

# How families name connectors. The outermost matches outside the text stack count.
_CONNECTOR = re.compile(
    r"projector|connector|merger|q_?former|resampler|perceiver|aligner|language_projection"
    r"|image_projection|embed_vision|vision_embed_tokens|image_to_text_projection|adapter|bridge"
    r"|visual_projection|pooling_layer|vqmodel|visual_embeddings_table|visual_embedding|^vit_large"
)
_ELSEWHERE = re.compile(r"audio|speech|video_tower")
_QUERIES = re.compile(r"(latent_)?quer(y|ies)(_tokens?|_embeds?|_\d.*)?|latents?(_quer(y|ies))?")


@dataclass(frozen=True)
class Connector:
    """What maps vision features to the language model's width.

    Attributes:
        path: where its modules are in the model.
        modules: its layers in order, with their widths.
        parameters: the number of parameters.
        queries: whether learned queries gather the features (Q-Former, resampler), so that no
            position of the prompt shows one patch.
    """

    path: str
    modules: tuple[str, ...]
    parameters: int
    queries: bool = False

    def __str__(self) -> str:
        return f"{' > '.join(self.modules)} ({self.parameters:,} parameters)"


def describe(
    model: PreTrainedModel, layers: nn.Module | None = None, named: nn.Module | None = None
) -> Connector | None:
    """Describe the connector of a model, or return None if none is found.

    Args:
        model: the whole model.
        layers: the module that owns the text layers, which has no connector inside.
        named: the connector, if the user has named it.
    """
    if named is None:
        parts = list(_outermost(model, layers))
    else:
        parts = [(path, module) for path, module in model.named_modules() if module is named]
    if not parts:
        return None
    modules = [summary for _, module in parts for summary in _summary(module)]
    return Connector(
        path=", ".join(path for path, _ in parts),
        modules=tuple(modules),
        parameters=sum(parameters_of(module) for _, module in parts),
        queries=_has_queries(model, layers),
    )


def _outermost(model: nn.Module, layers: nn.Module | None) -> Iterator[tuple[str, nn.Module]]:
    def search(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
        for name, child in module.named_children():
            place = f"{path}.{name}" if path else name
            if child is layers or _ELSEWHERE.search(name):
                continue
            if _CONNECTOR.search(name) and next(child.parameters(), None) is not None:
                yield place, child
            else:
                yield from search(child, place)

    if layers is not model:
        yield from search(model, "")


def _has_queries(model: nn.Module, layers: nn.Module | None) -> bool:
    """Whether a parameter outside the text stack is named as learned queries are.

    The query projection of an attention module is a linear layer and does not count.
    """
    text = set() if layers is None else {id(parameter) for parameter in layers.parameters()}
    for path, parameter in model.named_parameters():
        owner, _, name = path.rpartition(".")
        if isinstance(model.get_submodule(owner), nn.Embedding):
            name = owner.rpartition(".")[2]
        if id(parameter) not in text and _QUERIES.fullmatch(name) and not _ELSEWHERE.search(path):
            return True
    return False


def _summary(module: nn.Module) -> list[str]:
    """The layers in order with their widths; for more than 12, the class of the module."""
    leaves = [leaf for leaf in module.modules() if not list(leaf.children())]
    if len(leaves) > 12:
        return [type(module).__name__]
    return [
        f"Linear {leaf.in_features}x{width_of(leaf)}"
        if isinstance(leaf, nn.Linear)
        else type(leaf).__name__.removesuffix("Activation")
        for leaf in leaves
    ]


def parameters_of(module: nn.Module) -> int:
    """The number of parameters; a packed one (4 bits) counts as many as it encodes."""
    states = [(p, getattr(p, "quant_state", None)) for p in module.parameters()]
    return sum(math.prod(p.shape if state is None else state.shape) for p, state in states)
