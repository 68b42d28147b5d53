"""The label of every position of one prompt, from its roles, its marks and its image facts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keygap.models.patches.layout import ImageFacts, Places, places_of, square_side
from keygap.models.prompting.image_inputs import ImageTokens, image_of
from keygap.tokens import PatchGrid, TokenLabels

SEPARATOR = "separator"


@dataclass(frozen=True)
class VideoFacts:
    """What is known about one video apart from its positions.

    Attributes:
        frames: the number of pictures that the processor was given.
        grid: frames, rows and columns of vision patches, None where the processor gives none.
    """

    frames: int
    grid: tuple[int, int, int] | None = None


def written_order(
    text: str, facts: Sequence[ImageFacts | VideoFacts], known: ImageTokens
) -> list[int]:
    """The number of each image and video, in the order in which a template has written them.

    A template may write all images of a message before its videos. Images keep their order, and
    so do videos.

    Args:
        text: the text of the prompt.
        facts: of each image and video, in the order of the sample's prompt.
        known: how the prompt spells an image and a video.
    """
    numbers = list(range(len(facts)))
    videos = [number for number in numbers if isinstance(facts[number], VideoFacts)]
    images = [number for number in numbers if number not in videos]
    spelled = sorted({known.placeholder, known.video_placeholder} - {""}, key=len, reverse=True)
    found = re.findall("|".join(map(re.escape, spelled)), text) if spelled else []
    are_videos = [placeholder == known.video_placeholder for placeholder in found]
    if (len(are_videos), sum(are_videos)) != (len(numbers), len(videos)):
        return numbers  # a placeholder is not one image or video each
    remaining = {True: iter(videos), False: iter(images)}
    return [next(remaining[is_video]) for is_video in are_videos]


def in_order(labels: TokenLabels, order: Sequence[int]) -> TokenLabels:
    """Labels whose images and videos were counted as they are written, with their own numbers.

    Args:
        labels: of one prompt.
        order: the number of each image and video as written (``written_order``).
    """
    if not len(order) or list(order) == sorted(order):
        return labels
    image = np.where(labels.image >= 0, np.asarray(order)[labels.image], -1)
    grids = tuple(labels.grids[place] for place in np.argsort(order))
    return replace(labels, image=image.astype(np.int32), grids=grids)


def label_prompt(
    token_id: np.ndarray,
    tokens: Sequence[str],
    is_visual: np.ndarray,
    role: np.ndarray,
    span: np.ndarray,
    facts: Sequence[ImageFacts | VideoFacts],
    in_prompt: bool = True,
) -> TokenLabels:
    """Labels of one prompt, padding left out.

    Args:
        token_id: (t,) token ids.
        tokens: (t,) the tokens as the tokenizer spells them.
        is_visual: (t,) positions that vision features replace.
        role: (t,) role of each position's text.
        span: (t,) the image or video that the position's text was written for, -1: none.
        facts: of each image and video, in the order in which the prompt is written.
        in_prompt: whether features replace positions of the prompt. If not, a position that
            marks an image is text.

    Raises:
        BadSample: positions and images do not fit together.
    """
    size = len(token_id)
    shapes = {
        (known.height, known.width) if isinstance(known, ImageFacts) else known for known in facts
    }
    image = image_of(is_visual, span, len(facts), len(shapes) == 1)
    if not in_prompt:
        is_visual = np.zeros(size, dtype=bool)
    spelled = np.asarray(tokens, dtype=object)
    role = np.where(is_visual, "", np.where(span >= 0, SEPARATOR, role)).astype(object)
    modality = np.full(size, "text", dtype=object)
    row, column, frame = (np.full(size, -1, np.int32) for _ in range(3))
    grids = []
    for number, known in enumerate(facts):
        positions = np.flatnonzero(is_visual & (image == number))
        if isinstance(known, VideoFacts):
            modality[positions] = "video"
            places, frame[positions] = frames_of(len(positions), known)
        else:
            modality[positions] = "image"
            runs, between = _runs(positions, spelled, _span_start(span, number))
            places = places_of(runs, between, known)
        role[positions] = places.role
        row[positions], column[positions] = places.row, places.column
        grids.append(places.grids)
    return TokenLabels(
        token_id=token_id,
        token=spelled.astype(str),
        modality=modality.astype(str),
        role=role.astype(str),
        image=image.astype(np.int32),
        frame=frame,
        patch_row=row,
        patch_column=column,
        grids=tuple(grids),
    )


def _runs(positions: np.ndarray, spelled: np.ndarray, first: int) -> tuple[list[int], list[str]]:
    """Lengths of the unbroken runs of an image's positions, and the text before each run.

    Args:
        positions: the image's positions, ascending.
        spelled: (t,) the tokens of the prompt.
        first: the first position of the text that was written for the image.
    """
    starts = np.flatnonzero(np.diff(positions, prepend=-2) > 1)
    runs = np.diff(np.append(starts, len(positions)))
    ends: Any = np.append(-1, positions[starts[1:] - 1]) if len(starts) else []
    between = [
        "".join(spelled[max(end + 1, first) : positions[start]])
        for start, end in zip(starts, ends, strict=True)
    ]
    return [int(run) for run in runs], between


def frames_of(count: int, facts: VideoFacts) -> tuple[Places, np.ndarray]:
    """Places of a video's positions, frame by frame and row by row, and the frame of each.

    The grid is the processor's, with n x n patches merged. Without a grid, every frame must be a
    square of patches. One further position at the end is a learned separator. If neither fits,
    frame, row and column are -1.

    Args:
        count: the number of positions.
        facts: what is known about the video.
    """
    role = np.full(count, "", dtype=object)
    unknown = np.full(count, -1, np.int32)
    for ends in (0, 1):
        shape = _frame_shape(count - ends, facts) if count > ends else None
        if shape is None:
            continue
        rows, columns = shape
        order = np.arange(count - ends)
        place = order % (rows * columns)
        values = [order // (rows * columns), place // columns, place % columns]
        frame, row, column = (np.append(value, [-1] * ends).astype(np.int32) for value in values)
        role[count - ends :] = SEPARATOR
        return Places(role, row, column, {"": PatchGrid(rows, columns)}), frame
    return Places(role, unknown, unknown.copy()), unknown.copy()


def _frame_shape(count: int, facts: VideoFacts) -> tuple[int, int] | None:
    """Rows and columns of one frame if ``count`` positions are whole frames, None otherwise."""
    if facts.grid is None:
        side = square_side(count // facts.frames) if count % facts.frames == 0 else 0
        return (side, side) if side else None
    frames, rows, columns = facts.grid
    for merge in range(1, min(rows, columns) + 1):
        if rows % merge or columns % merge:
            continue
        if count == frames * (rows // merge) * (columns // merge):
            return rows // merge, columns // merge
    return None


def _span_start(span: np.ndarray, image: int) -> int:
    """The first position of the text that was written for an image, 0 if it is not known."""
    found = np.flatnonzero(span == image)
    return int(found[0]) if len(found) else 0
