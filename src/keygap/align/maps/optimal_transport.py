"""The image vectors get the mean and the whole covariance of the text, by the shortest way.

Of all maps from one Gaussian distribution onto another, this one moves vectors least, in the mean
of squared distances. It is affine, with the symmetric matrix

    A = S_x^{-1/2} (S_x^{1/2} S_y S_x^{1/2})^{1/2} S_x^{-1/2}

(Knott and Smith 1984, "On the optimal mapping of distributions", Journal of Optimization Theory and
Applications 43; Peyré and Cuturi 2019, "Computational Optimal Transport", remark 2.31).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from keygap.align.maps.covariance import power, shrunk_covariance
from keygap.align.maps.kind import FitContext, HeadMap


def optimal_transport(
    image: Float[np.ndarray, "n d"], text: Float[np.ndarray, "m d"], context: FitContext
) -> HeadMap:
    """Whiten and colour along the shortest way: optimal transport between two Gaussians.

    Covariances are shrunk by the rule of Ledoit and Wolf.

    Args:
        image: the image vectors of one head.
        text: its text vectors.
        context: the samples of the vectors, for messages.

    Raises:
        UserError: there are too few vectors, or a covariance is singular.
    """
    matrix = transport_matrix(
        shrunk_covariance(image, context.groups_image, "image"),
        shrunk_covariance(text, context.groups_text, "text"),
    )
    return HeadMap(text.mean(0) - image.mean(0) @ matrix, matrix=matrix)


def transport_matrix(
    source: Float[np.ndarray, "d d"], target: Float[np.ndarray, "d d"]
) -> Float[np.ndarray, "d d"]:
    """The matrix of the optimal transport map between Gaussians of these covariances.

    Args:
        source: the covariance of what is moved, not singular.
        target: the covariance that it gets.

    Raises:
        UserError: the source is singular.
    """
    root, inverse = power(source, 0.5), power(source, -0.5)
    return inverse @ power(root @ target @ root, 0.5) @ inverse
