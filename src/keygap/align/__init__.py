"""Maps that move vectors of one modality toward the other, and what a model does under them."""

from keygap.align.steering import steer, steering

__all__ = ["steer", "steering"]
