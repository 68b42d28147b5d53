"""Projections of tokens to two coordinates: standardise, principal components, t-SNE.

``space`` and ``tsne`` take arrays and return arrays. ``project`` applies them to a store.
"""

from keygap.projection.space import principal_components
from keygap.projection.tsne import tsne

__all__ = ["principal_components", "tsne"]
