"""How well a linear probe reads the answers from image tokens, on images that it was not fitted on.

Questions about one image would tell the probe their image's answer if they were in two folds.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from keygap import random_streams
from keygap.bias.intervals import Interval, proportion

FOLDS = 5
LEAST_OF_A_CLASS = FOLDS  # images with an answer, from which a linear probe is fitted


def readout(
    states: Float[np.ndarray, "n d"], answers: np.ndarray, images: np.ndarray, seed: int
) -> Interval | None:
    """The share of answers that a linear probe names, fitted on the other folds of images.

    Args:
        states: a vector of each sample.
        answers: of the samples.
        images: the image that each sample shows.
        seed: of the folds.

    Returns:
        The share with an interval that counts images; None if there is nothing to tell apart: fewer
        than two answers that are given of enough images, or vectors that are not finite.
    """
    names = np.unique(answers)
    enough = [name for name in names if len(np.unique(images[answers == name])) >= LEAST_OF_A_CLASS]
    kept = np.isin(answers, enough)
    if len(enough) < 2 or not np.isfinite(states).all():
        return None
    shuffle = random_streams.integer(seed, "causes", "folds")
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=shuffle)
    probe = make_pipeline(StandardScaler(), RidgeClassifier())
    said = cross_val_predict(probe, states[kept], answers[kept], groups=images[kept], cv=folds)
    return proportion(said == answers[kept], images[kept])
