"""Correlation alignment (CORAL): whiten the image vectors, colour them with the text's covariance.

Sun, Feng and Saenko 2016, "Return of Frustratingly Easy Domain Adaptation" (AAAI), algorithm 1,
with symmetric roots. Two things differ from it. The identity that is added to both covariances
there assumes features of variance 1, which keys are not; covariances are shrunk by the rule of
Ledoit and Wolf instead. And means move too, where the paper normalises both domains beforehand.

The result has the mean and the covariance of the text, as that of ``optimal_transport``; it gets
there by way of white vectors and not by the shortest way.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from keygap.align.maps.covariance import power, shrunk_covariance
from keygap.align.maps.kind import FitContext, HeadMap


def coral(
    image: Float[np.ndarray, "n d"], text: Float[np.ndarray, "m d"], context: FitContext
) -> HeadMap:
    """Whiten image vectors, then colour them with the covariance of text; means move too.

    Args:
        image: the image vectors of one head.
        text: its text vectors.
        context: the samples of the vectors, for messages.

    Raises:
        UserError: there are too few vectors, or a covariance is singular.
    """
    matrix = recolouring_matrix(
        shrunk_covariance(image, context.groups_image, "image"),
        shrunk_covariance(text, context.groups_text, "text"),
    )
    return HeadMap(text.mean(0) - image.mean(0) @ matrix, matrix=matrix)


def recolouring_matrix(
    source: Float[np.ndarray, "d d"], target: Float[np.ndarray, "d d"]
) -> Float[np.ndarray, "d d"]:
    """C_source^{-1/2} C_target^{1/2}; apply it as ``vectors @ matrix``.

    Args:
        source: the covariance of what is moved, not singular.
        target: the covariance that it gets.

    Raises:
        UserError: the source is singular.
    """
    return power(source, -0.5) @ power(target, 0.5)
