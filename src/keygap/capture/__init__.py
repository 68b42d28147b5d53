"""Read labelled vectors out of a model's forward passes."""

from keygap.capture.hooks import Capture

__all__ = ["Capture"]
