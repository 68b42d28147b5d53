"""Load any VLM; token labels; where the sites are; what the connector is."""

from keygap.models.load import load, wrap
from keygap.models.vlm import VLM

__all__ = ["VLM", "load", "wrap"]
