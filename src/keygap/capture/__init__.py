"""Prompts in, labelled vectors out."""

from keygap.capture.extract import extract
from keygap.capture.hooks import Capture

__all__ = ["Capture", "extract"]
