"""``kg.attention_map``: the attention of one token over the patches of an image.

The weights are those that attention uses, whatever the attention implementation, so neither eager
attention nor a hook on a model's own code is needed. They are drawn where their patches lie on the
picture: some processors cut off what is outside a square, and others put padding around it.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float
from PIL import Image

from keygap.arguments import distinct, whole
from keygap.benchmarks import BadSample, Sample
from keygap.bias.attention_pass import read_calls
from keygap.bias.map_reading import MapReader, Region, named_token, picture_of
from keygap.capture.choice import named_layers
from keygap.display import as_html, brief, ranges
from keygap.errors import UserError
from keygap.models.vlm import VLM
from keygap.text import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class AttentionMap:
    """Attention of one token over the patches of an image.

    Attributes:
        values: (rows, columns) attention weight of each patch, mean over layers and heads; NaN
            where there is no patch or only padding, or where attention sinks were left out.
        picture: the image, or one picture of the video.
        region: what the rows and columns of ``values`` cover: left, top, right and bottom in pixels
            of the picture. It is larger than the picture where a processor puts padding around it.
        token: the text of the token that attends.
        layers: the layers of the mean.
        heads: the heads of the mean; None for all.
    """

    values: Float[np.ndarray, "rows columns"]
    picture: Image.Image
    region: Region
    token: str
    layers: tuple[int, ...]
    heads: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        rows, columns = self.values.shape
        heads = "all heads" if self.heads is None else f"heads {ranges(self.heads)}"
        where = f"{rows} x {columns} patches, layers {ranges(self.layers)}, {heads}"
        return brief(f"AttentionMap({self.token!r}: {where})")

    def _repr_html_(self) -> str:
        known = self.values[~np.isnan(self.values)]
        written = io.BytesIO()
        self.figure().savefig(written, format="png", dpi=90)
        picture = base64.b64encode(written.getvalue()).decode()
        said = html.escape(one_line(self))
        drawn = f'<img alt="{said}" src="data:image/png;base64,{picture}">'
        numbers = {"patches": known.size, "largest": np.max(known, initial=0.0)}
        caption = (
            f"Attention of {self.token!r} to each patch of the image, mean over layers "
            f"{ranges(self.layers)} and heads (share of attention, no unit; one prompt, so no "
            "interval). Patches without a value, such as sinks left out, are not counted."
        )
        table = pd.DataFrame([{**numbers, "sum": float(known.sum())}])
        return f"<div>{drawn}{as_html(caption, table)}</div>"

    def figure(self, *, smooth: bool = False, opacity: float = 0.6) -> Figure:
        """Draw the map on the picture.

        Args:
            smooth: whether values are interpolated between the centres of patches. Otherwise each
                patch has one colour.
            opacity: of the map, between 0 and 1.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 5), layout="constrained")
        axes = figure.subplots()
        axes.imshow(self.picture, extent=(0, self.picture.width, self.picture.height, 0))
        left, top, right, bottom = self.region
        drawn = axes.imshow(
            np.ma.masked_invalid(self.values),
            extent=(left, right, bottom, top),
            cmap="viridis",
            alpha=opacity,
            interpolation="bilinear" if smooth else "nearest",
        )
        axes.set_xlim(0, self.picture.width)
        axes.set_ylim(self.picture.height, 0)
        axes.set_axis_off()
        figure.colorbar(drawn, ax=axes, label="attention weight of a patch")
        heads = "all heads" if self.heads is None else f"heads {ranges(self.heads)}"
        title = f"attention of {self.token!r}, layers {ranges(self.layers)}, {heads}"
        axes.set_title(title, fontsize=9, parse_math=False)
        return figure

    def save(self, path: str | Path, *, smooth: bool = False, opacity: float = 0.6) -> None:
        """Draw the map and write it to a file, whose suffix says in which format.

        Args:
            path: of the file.
            smooth: as for ``figure``.
            opacity: as for ``figure``.

        Raises:
            UserError: the file cannot be written, or the format is unknown.
        """
        try:
            self.figure(smooth=smooth, opacity=opacity).savefig(path, dpi=150)
        except (OSError, ValueError) as error:  # matplotlib's for an unknown format
            raise UserError(f"the attention map cannot be written to {path}: {error}") from error


def attention_map(
    vlm: VLM,
    sample: Sample,
    *,
    token: int | str = "last",
    layers: str | int | Sequence[str | int] = "all",
    heads: int | Sequence[int] | None = None,
    image: int = 0,
    frame: int = 0,
    sinks: bool = True,
    out: str | Path | None = None,
) -> AttentionMap:
    """Attention of a token of a prompt over the patches of an image.

    Args:
        vlm: the model; interventions on it act.
        sample: the image and the question.
        token: a position in the prompt, ``last`` for its last position, or a word or several words
            of it. Of a word that occurs several times the first occurrence in the question is
            taken; of a word of several tokens the mean.
        layers: the layers of the mean: ``first``, ``middle``, ``last``, ``all`` and absolute
            indices, mixed. Layers whose keys have no patches of the image are left out.
        heads: the query heads of the mean; None means all.
        image: which image or video of the prompt, in their order.
        frame: of a video, which picture as the model sees them (it may join two).
        sinks: whether attention sinks are shown. They receive many times more than other patches
            whatever the question is. Otherwise they are NaN.
        out: a file in which the figure is saved; None for none.

    Returns:
        The attention of each patch, mean over the layers and heads.

    Raises:
        UserError: the sample cannot be used, the token, image, frame or head does not exist, the
            attention of no layer can be read, or positions of the image are no patches.
    """
    image, frame = whole(image, "image", 0), whole(frame, "frame", 0)
    try:
        batch = vlm.prompter([sample])
    except BadSample as reason:
        raise UserError(f"sample {sample.id} cannot be used: {reason}") from reason
    labels = batch.labels[0]
    frames = int(labels.frame[labels.image == image].max(initial=-1)) + 1
    picture = picture_of(sample, image, frame, frames)
    positions, text = named_token(vlm, labels, token)
    indices = _readable(vlm, [layers] if isinstance(layers, (str, int)) else layers)
    chosen = _known_heads(vlm, indices, heads)
    reader = MapReader(vlm, batch, positions, image, frame, chosen, sinks)
    read_calls(vlm, batch, indices, reader.read)
    if not reader.layers:
        raise UserError(
            f"{vlm.name} has no position that is a patch of image {image}: its connector mixes "
            "patches, its tiles have no known order, or these layers do not attend to the image"
        )
    region = reader.region(picture)
    found = AttentionMap(reader.mean(), picture, region, text, tuple(reader.layers), chosen)
    if out is not None:
        found.save(out)
    return found


def _readable(vlm: VLM, layers: Sequence[str | int]) -> list[int]:
    """The wanted layers whose attention can be read."""
    indices = vlm.layer_indices(named_layers(layers), with_shared=True)
    readable = [index for index in indices if vlm.layers[index].calls_function]
    if not readable:
        raise UserError(
            f"the attention of {vlm.name} cannot be read: {vlm.layers[indices[0]].kind} computes "
            "it by itself and not through transformers' attention function"
        )
    return readable


def _known_heads(
    vlm: VLM, layers: Sequence[int], heads: int | Sequence[int] | None
) -> tuple[int, ...] | None:
    """The wanted heads, which every layer must have."""
    if heads is None:
        return None
    most = min(vlm.layers[index].heads for index in layers) - 1
    wanted = [heads] if isinstance(heads, int) else heads
    return tuple(whole(head, "a head", 0, most) for head in distinct(wanted, "heads", "0"))
