"""Prompts in, labelled vectors out."""

from keygap.capture.hooks import Capture

__all__ = ["Capture"]
