"""Coordinates for looking and comparing: standardise, PCA, t-SNE. Arrays in, arrays out."""

from keygap.projection.space import principal_components
from keygap.projection.tsne import tsne

__all__ = ["principal_components", "tsne"]
