"""What an attention map is made of: the token that attends, the patches, and the picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image

from keygap.benchmarks import Sample
from keygap.benchmarks.sample import as_rgb
from keygap.bias.attention_pass import sinks_of
from keygap.capture.attention import QUERIES, QueryGroups, attention_by_key
from keygap.capture.features import feature_labels, visible_features
from keygap.errors import UserError
from keygap.models.attention_tap import AttentionCall
from keygap.models.batch import Batch
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.vlm import VLM
from keygap.tokens import PatchGrid, TokenLabels

Region = tuple[float, float, float, float]  # left, top, right, bottom in pixels of a picture
PART = "\ufffd"  # what a tokenizer spells for a part of a character
MOST_TOKENS = 24  # of the words that name a token
ASKED = ("question", "option")  # roles in which a word is looked for first


def named_token(vlm: VLM, labels: TokenLabels, token: int | str) -> tuple[list[int], str]:
    """The positions of a token that a user names, and its text.

    Args:
        vlm: the model.
        labels: of the prompt.
        token: a position, ``last``, or one or several words of the prompt.

    Raises:
        UserError: there is no such position, or the prompt has no such word.
    """
    size = len(labels)
    if isinstance(token, str) and token != "last":
        return _positions_of(vlm, labels, token), token
    position = size - 1 if isinstance(token, str) else token
    if isinstance(position, bool) or not 0 <= position < size:
        raise UserError(f"token {token!r}: the prompt has the positions 0 to {size - 1}")
    return [position], str(vlm.prompter.tokenizer.decode([int(labels.token_id[position])]))


def _positions_of(vlm: VLM, labels: TokenLabels, words: str) -> list[int]:
    """The positions of the tokens that spell some words: in the question, or else anywhere."""
    text = labels.modality == "text"
    asked = text & np.isin(labels.role, ASKED)
    for among in (asked, text):
        for start in np.flatnonzero(among).tolist():
            run = among[start : start + MOST_TOKENS]
            most = len(run) if run.all() else int(run.argmin())
            length = _spelling(vlm, labels.token_id[start : start + most], words.strip())
            if length:
                return list(range(start, start + length))
    raise UserError(
        f"token {words!r}: no tokens of the prompt spell it; name a word of the question, a "
        f"position from 0 to {len(labels) - 1}, or last"
    )


def _spelling(vlm: VLM, tokens: Int[np.ndarray, " n"], wanted: str) -> int:
    """How many of some tokens, from the first one on, spell the wanted words; 0 if they do not.

    A token may be a part of a character, so what a few tokens spell may end in one.
    """
    for length in range(1, len(tokens) + 1):
        spelled = str(vlm.prompter.tokenizer.decode(tokens[:length])).strip()
        if spelled == wanted and wanted:
            return length
        if not wanted.startswith(spelled.rstrip(PART)):
            return 0
    return 0


@dataclass
class MapReader:
    """Reads the attention of one token over the patches of one image, layer by layer.

    Attributes:
        vlm: the model.
        batch: of one sample.
        positions: where the token is; of several positions the mean is read.
        image: which image or video of the prompt.
        frame: which picture of a video.
        heads: the query heads of the mean; None for all.
        sinks: whether attention sinks are kept; otherwise they are NaN.
        layers: the layers whose keys show the image.
    """

    vlm: VLM
    batch: Batch
    positions: list[int]
    image: int
    frame: int
    heads: tuple[int, ...] | None
    sinks: bool
    layers: list[int] = field(default_factory=list)
    _maps: list[Float[np.ndarray, "rows columns"]] = field(default_factory=list)
    _grid: PatchGrid | None = None

    def read(self, layer: DecoderLayer, call: AttentionCall) -> None:
        """Read one layer, if its keys are patches of the image."""
        labels, places = self._keys(layer, call)
        shown = self.patches(labels)
        if not len(shown):
            return
        recent = np.maximum(len(self.batch.labels[0]) - 1 - np.arange(QUERIES), 0)
        queries = QueryGroups.of([[np.asarray(self.positions), recent]])
        attention = attention_by_key(call, queries)
        heads = slice(None) if self.heads is None else list(self.heads)
        weights = attention.mass[0, heads, 0].mean(0)
        if not self.sinks:
            weights = weights.masked_fill(sinks_of(attention, -1)[0], torch.nan)
        row, column = labels.patch_row[shown], labels.patch_column[shown]
        self._grid = self._grid_of(labels, shown)
        shape = row.max() + 1, column.max() + 1
        if self._grid is not None:
            shape = self._grid.rows, self._grid.columns
        drawn = np.full(shape, np.nan)
        drawn[row, column] = weights.cpu().numpy()[places[shown]]
        self._maps.append(drawn)
        self.layers.append(layer.index)

    def mean(self) -> Float[np.ndarray, "rows columns"]:
        """The mean over layers; of a patch that is a sink at some layers, over the others."""
        maps = np.stack(self._maps)
        count = np.isfinite(maps).sum(0)
        with np.errstate(invalid="ignore"):
            return np.where(count > 0, np.nansum(maps, 0) / count, np.nan)

    def region(self, picture: Image.Image) -> Region:
        """What the rows and columns of the maps cover, in pixels of a picture.

        It is larger than the picture where the processor puts padding around it.

        Args:
            picture: what ``picture_of`` gives.
        """
        width, height = picture.size
        labels = self.batch.labels[0]
        if (labels.modality[labels.image == self.image] == "video").any():
            # the grid of a video does not say what its processor cuts off
            processor: Any = getattr(self.vlm.processor, "video_processor", None)
            return _inside_cut(processor, width, height)
        grid = self._grid
        if grid is None:  # of keys of layers that attend across to the image, nothing is cut off
            return 0.0, 0.0, float(width), float(height)
        return grid.left * width, grid.top * height, grid.right * width, grid.bottom * height

    def patches(self, labels: TokenLabels) -> Int[np.ndarray, " n"]:
        """The tokens that are patches of the image, or of a coarser view if there is no other."""
        of_image = (labels.image == self.image) & (labels.patch_row >= 0)
        of_image &= (labels.frame == self.frame) | (labels.frame < 0)
        fine = of_image & (labels.role == "")
        return np.flatnonzero(fine if fine.any() else of_image)

    def _grid_of(self, labels: TokenLabels, shown: Int[np.ndarray, " n"]) -> PatchGrid | None:
        """The grid of the patches that are drawn, all of one role; None where it is not known."""
        grids = labels.grids[self.image] if labels.grids else {}
        return grids.get(str(labels.role[shown[0]]))

    def _keys(
        self, layer: DecoderLayer, call: AttentionCall
    ) -> tuple[TokenLabels, Int[np.ndarray, " n"]]:
        """The labels of a call's keys, and the place of each key in the call."""
        if layer.attends != "cross":
            labels = self.batch.labels[0]
            return labels, np.arange(len(labels))
        count, image = call.key.shape[2], self.vlm.prompter.image_tokens
        labels = feature_labels(self.batch.inputs, 0, count, image.ids[0], image.placeholder)
        seen = visible_features(self.batch.inputs, count)[0]
        return labels, np.flatnonzero(seen.cpu().numpy())


def picture_of(sample: Sample, image: int, frame: int, frames: int) -> Image.Image:
    """The picture that a map is drawn on.

    Args:
        sample: the sample.
        image: which image or video of the prompt, in their order.
        frame: which picture of a video, as the model sees them.
        frames: how many pictures of it the model sees.

    Raises:
        UserError: the prompt shows fewer images.
    """
    shown = [piece for piece in sample.prompt if piece.kind != "text"]
    if image >= len(shown):
        raise UserError(f"image {image}: the prompt of {sample.id} shows {len(shown)}, from 0")
    piece = shown[image]
    if piece.kind == "image":
        return as_rgb(sample.images[piece.image])
    if frame >= frames:
        raise UserError(f"frame {frame}: the model sees {frames} pictures of the video, from 0")
    pictures = sample.videos[piece.image]
    return as_rgb(pictures[frame * len(pictures) // frames])


def _inside_cut(processor: Any, width: int, height: int) -> Region:
    """The part of a picture that is left where a processor cuts off what is outside its middle.

    Args:
        processor: scales a picture before it cuts, or does neither.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
    """
    size, cut = (getattr(processor, name, None) for name in ("size", "crop_size"))
    if not (getattr(processor, "do_center_crop", False) and size and cut):
        return 0.0, 0.0, float(width), float(height)
    size, cut = dict(size), dict(cut)
    across = down = 1.0  # pixels of the model for one of the picture
    if shortest := size.get("shortest_edge"):
        across = down = shortest / min(width, height)
    elif size.get("height") and size.get("width"):
        across, down = size["width"] / width, size["height"] / height
    shown_width = min(width, cut["width"] / across)
    shown_height = min(height, cut["height"] / down)
    left, top = (width - shown_width) / 2, (height - shown_height) / 2
    return left, top, left + shown_width, top + shown_height
