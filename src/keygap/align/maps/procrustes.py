"""An orthogonal map, fitted on pairs: the mean image vector and the mean text vector of a sample.

Maps of whole distributions know nothing of content. The image and the text of one sample share
some, so this map turns the means of samples, without their overall mean, as near to each other as a
rotation or reflection can: it minimises the sum of squared distances (Schönemann 1966, "A
generalized solution of the orthogonal Procrustes problem", Psychometrika 31). Distances and angles
between image vectors stay.

Pairs determine the matrix only in as many dimensions as their products span. Texts that repeat, as
the questions of a small benchmark do, span few. In the other dimensions the matrix is the one that
moves vectors least, because otherwise rounding would decide.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float

from keygap.align.maps.kind import FitContext, HeadMap
from keygap.errors import UserError


def procrustes(
    image: Float[np.ndarray, "n d"], text: Float[np.ndarray, "m d"], context: FitContext
) -> HeadMap:
    """Turn image vectors onto the text of their own samples by an orthogonal map; means move too.

    The matrix is fitted on the means of samples, centred over the samples that have both image and
    text. The shift then moves the mean of all image tokens onto that of all text tokens, as it does
    in the other maps.

    Args:
        image: the image vectors of one head.
        text: its text vectors.
        context: the samples of the vectors, which pair them.

    Raises:
        UserError: there are too few samples with both. Centred pairs that are fewer than dimensions
            never determine the whole matrix.
    """
    x, y = _paired_means(image, text, context)
    if len(x) <= image.shape[1]:
        raise UserError(
            f"{len(x)} samples have both image and text tokens, which is too few to turn "
            f"{image.shape[1]} dimensions: {image.shape[1] + 1} samples are needed"
        )
    matrix = orthogonal_matrix(x - x.mean(0), y - y.mean(0))
    return HeadMap(text.mean(0) - image.mean(0) @ matrix, matrix=matrix)


def orthogonal_matrix(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "d d"]:
    """The orthogonal matrix R for which x @ R is nearest to y in squared distances.

    Where several are, it is the one nearest to the identity.

    Args:
        x: what is turned.
        y: onto what, row by row.
    """
    left, sizes, right = np.linalg.svd(x.T @ y)
    # vectors are rounded to float32 at best, so smaller products of x and y are noise
    least = max(x.shape) * np.finfo(np.float32).eps * np.linalg.norm(x, 2) * np.linalg.norm(y, 2)
    rank = int((sizes > least).sum())
    turned = left[:, :rank] @ right[:rank]
    if rank == len(sizes):
        return turned
    # the rest is spanned by arbitrary bases; the polar factor does not depend on them
    free, onto = left[:, rank:], right[rank:]
    one, _, other = np.linalg.svd(free.T @ onto.T)
    return turned + free @ one @ other @ onto


def _paired_means(
    image: Float[np.ndarray, "n d"], text: Float[np.ndarray, "m d"], context: FitContext
) -> tuple[Float[np.ndarray, "s d"], Float[np.ndarray, "s d"]]:
    """The mean image vector and the mean text vector of each sample that has both."""
    x = pd.DataFrame(image).groupby(np.asarray(context.groups_image)).mean()
    y = pd.DataFrame(text).groupby(np.asarray(context.groups_text)).mean()
    both = x.index.intersection(y.index)
    return x.loc[both].to_numpy(), y.loc[both].to_numpy()
