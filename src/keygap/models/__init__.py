"""Load any vision-language model, find its parts, and change how it computes."""

from keygap.models.load import load, wrap
from keygap.models.vlm import VLM

__all__ = ["VLM", "load", "wrap"]
