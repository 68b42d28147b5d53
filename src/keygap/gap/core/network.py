"""A small neural network as a critic: it sees any shape, and not only means, scales and sums.

The other critics are linear, quadratic or additive. They miss, for example, a ring around a blob of
equal mean and covariance. Two layers of 32 units can represent any such shape. The choice of inputs
makes them learnable from a few thousand rows:

- the ten axes on which the pooled vectors are least Gaussian (``core.independent_axes``); an axis
  that is hardly less Gaussian than most is scaled down;
- beyond five components, the directions in which means and covariances of the training rows differ
  most (``core.basis``);
- two norms of a vector, its length and the mean of its absolute coordinates on the axes. Heavy
  tails in many components show in them, and hardly in any few axes.

The networks of all training sets are one batched model. Each keeps the state with the least loss on
an eighth of its training samples, which it is not fitted to. ``bench/statistics/shapes_jsd.py``
compares it with random Fourier features and boosted trees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from keygap import random_streams
from keygap.gap.core.basis import N_DIRECTIONS, Basis
from keygap.gap.core.critic import LogOdds, Rows, Train, Trains
from keygap.gap.core.independent_axes import independent_axes

MIN_UNITS = 8  # samples of a side in a training set; from fewer it learns single samples by heart
_HELD_BACK = 8  # one sample in eight stops the training
_N_AXES = 10
_CLEAR = 3.0  # an axis this many times as non-Gaussian as the median one is not scaled down
_LEAST_SCALE = 0.3
_FAR = 3.0  # vectors longer than this many times the expected length are shortened to it
_UNITS = 32
_EPOCHS = 8
_BATCH = 256
_FEWEST_STEPS = 8  # in an epoch; fewer rows make smaller batches
_RATE = 8e-2
_DECAY = 1e-2
_BETAS = (0.9, 0.99)
_WARM_UP = 0.1  # share of the steps during which the learning rate rises
_PATIENCE = 4  # epochs without a gain of any network, after which training ends
_GAIN = 1e-4  # nats; a smaller gain does not count


def network_log_odds(rows: Rows, trains: Trains) -> LogOdds:
    """Log-odds of every row by one network for each training set.

    Args:
        rows: The pooled vectors and what is known of them.
        trains: The rows of each training set.

    Returns:
        One log-odds for each set and row; 0 everywhere if a side of some set has fewer than eight
        samples.
    """
    if min(_fewest_units(rows, train) for train in trains) < MIN_UNITS:
        return np.zeros((*trains.shape, 1))
    rng = random_streams.generator(rows.seed, "jsd", "network")
    held_back = _held_back(rows, trains, rng)
    # A caller may be in inference mode, in which nothing can be trained.
    with torch.inference_mode(False), torch.enable_grad():
        data = _Data.of(rows, trains)
        networks = _Networks.drawn(len(trains), data.inputs.shape[2], rng)
        _train(networks, data, trains & ~held_back, trains & held_back, rng)
        with torch.no_grad():
            return networks(data.inputs)[..., None].numpy().astype(np.float64)


def _fewest_units(rows: Rows, train: Train) -> int:
    return min(len(np.unique(rows.unit[train & side])) for side in (rows.label, ~rows.label))


def _held_back(rows: Rows, trains: Trains, rng: np.random.Generator) -> Trains:
    """Rows of one in eight samples of each side and training set, paired samples together."""
    rank = rng.permutation(int(rows.unit.max()) + 1)[rows.unit]
    held_back = np.zeros_like(trains)
    for train, held in zip(trains, held_back, strict=True):
        for side in (rows.label, ~rows.label):
            ranks = np.unique(rank[train & side])
            held |= train & side & (rank < ranks[len(ranks) // _HELD_BACK])
    return held_back


@dataclass(frozen=True)
class _Data:
    """What the networks are fitted to.

    Attributes:
        inputs: Inputs of every row for each training set, shape (sets, n, inputs).
        sign: -1 for rows of side x and 1 for the others.
        weight: Weight of each row, of mean 1.
    """

    inputs: Tensor
    sign: Tensor
    weight: Tensor

    @classmethod
    def of(cls, rows: Rows, trains: Trains) -> _Data:
        sign = np.where(rows.label, -1.0, 1.0)
        weight = rows.weight / rows.weight.mean()
        return cls(*(_tensor(values) for values in (_inputs(rows, trains), sign, weight)))


def _inputs(rows: Rows, trains: Trains) -> Float[np.ndarray, "sets n inputs"]:
    k = rows.z.shape[1]
    length = np.sqrt((rows.z**2).mean(1))
    z = rows.z * np.minimum(1.0, _FAR / np.maximum(length, 1e-9))[:, None]
    axes, strength = independent_axes(z, rows.weight)
    scores = z @ axes
    scale = np.minimum(1.0, strength / (_CLEAR * np.median(strength) + 1e-12))
    scale = np.maximum(scale / scale.max(), _LEAST_SCALE)
    shared = np.column_stack(
        [
            (scores * scale)[:, :_N_AXES],
            _standardised(np.log(length + 1e-3)),
            _standardised(np.log(np.abs(scores).mean(1) / (length + 1e-3) + 1e-3)),
        ]
    )
    if k <= N_DIRECTIONS:
        return np.broadcast_to(shared, (len(trains), *shared.shape))
    directions = [
        Basis.fit(rows.z[train], rows.label[train], rows.weight[train]).directions()
        for train in trains
    ]
    own = [_standardised(z @ of_set) for of_set in directions]
    return np.stack([np.column_stack([shared, of_set]) for of_set in own])


def _standardised(values: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n ..."]:
    return (values - values.mean(0)) / (values.std(0) + 1e-12)


def _tensor(values: Float[np.ndarray, ...]) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))


class _Networks:
    """Several networks of one shape: two layers with SiLU and one output."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters = parameters

    @classmethod
    def drawn(cls, count: int, n_inputs: int, rng: np.random.Generator) -> _Networks:
        """Random weights, and an output near 0."""
        parameters = []
        for into, out, size in ((n_inputs, _UNITS, 1.0), (_UNITS, _UNITS, 1.0), (_UNITS, 1, 0.1)):
            weights = rng.standard_normal((count, into, out)) * size / math.sqrt(into)
            parameters += [_tensor(weights), _tensor(np.zeros((count, 1, out)))]
        return cls([parameter.requires_grad_() for parameter in parameters])

    def __call__(self, inputs: Tensor) -> Tensor:
        """Log-odds, shape (networks, rows), of inputs of shape (networks, rows, inputs)."""
        first, first_bias, second, second_bias, last, last_bias = self.parameters
        hidden = functional.silu(torch.baddbmm(first_bias, inputs, first))
        hidden = functional.silu(torch.baddbmm(second_bias, hidden, second))
        return torch.baddbmm(last_bias, hidden, last)[..., 0]


def _train(
    networks: _Networks, data: _Data, fit: Trains, held_back: Trains, rng: np.random.Generator
) -> None:
    """Minimise the weighted log loss, and keep for each network the state that stops it best."""
    n_rows = int(fit.sum(1).max())
    n_steps = max(_FEWEST_STEPS, round(n_rows / _BATCH))
    optimiser = _AdamW(networks.parameters, _EPOCHS * n_steps)
    judge = _Judge(networks, data, held_back)
    for _ in range(_EPOCHS):
        for batch in np.array_split(_in_random_order(fit, n_rows, rng), n_steps, axis=1):
            loss = _loss(networks, data, torch.from_numpy(batch)).sum()
            optimiser.step(torch.autograd.grad(loss, networks.parameters))
        if judge.has_lost_patience():
            break
    judge.restore()


def _in_random_order(
    sets: Trains, length: int, rng: np.random.Generator
) -> Int[np.ndarray, "sets length"]:
    """Indices of the rows of each set, shuffled; smaller sets begin again."""
    return np.stack([np.resize(rng.permutation(np.flatnonzero(one)), length) for one in sets])


def _loss(networks: _Networks, data: _Data, rows: Tensor) -> Tensor:
    """Weighted log loss of each network on its rows, (networks, rows) -> (networks,)."""
    networks_index = torch.arange(len(rows), device="cpu")[:, None]
    logits = networks(data.inputs[networks_index, rows])
    terms = functional.softplus(logits * data.sign[rows])
    return (terms * data.weight[rows]).sum(1) / data.weight[rows].sum(1)


class _AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    The learning rate rises linearly and then falls along half a cosine. ``torch.optim`` would do
    the same, but loading it takes longer than many estimates.
    """

    def __init__(self, parameters: list[Tensor], n_steps: int) -> None:
        self._parameters, self._n_steps, self._done = parameters, n_steps, 0
        self._means = [torch.zeros_like(parameter) for parameter in parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take one step along the gradients of the parameters."""
        rise = min(1.0, (self._done + 1) / (_WARM_UP * self._n_steps))
        rate = _RATE * rise * 0.5 * (1.0 + math.cos(math.pi * self._done / self._n_steps))
        self._done += 1
        of_mean, of_square = (1.0 - beta**self._done for beta in _BETAS)
        for parameter, gradient, mean, square in zip(
            self._parameters, gradients, self._means, self._squares, strict=True
        ):
            mean.lerp_(gradient, 1.0 - _BETAS[0])
            square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1.0 - _BETAS[1])
            parameter.mul_(1.0 - rate * _DECAY)
            size = (square / of_square).sqrt_().add_(1e-8)
            parameter.addcdiv_(mean, size, value=-rate / of_mean)


class _Judge:
    """Remembers the state of each network in which its loss on held-back rows is least."""

    def __init__(self, networks: _Networks, data: _Data, held_back: Trains) -> None:
        self._networks, self._data = networks, data
        length = int(held_back.sum(1).max())
        rows = np.stack([np.resize(np.flatnonzero(one), length) for one in held_back])
        self._rows = torch.from_numpy(rows)
        self._best = torch.full((len(rows),), math.inf, device="cpu")
        self._kept = [parameter.detach().clone() for parameter in networks.parameters]
        self._idle = 0

    @torch.no_grad()
    def has_lost_patience(self) -> bool:
        """Compare the present state; whether no network has gained for some epochs."""
        loss = _loss(self._networks, self._data, self._rows)
        better = loss < self._best - _GAIN
        self._best = torch.where(better, loss, self._best)
        for kept, parameter in zip(self._kept, self._networks.parameters, strict=True):
            kept[better] = parameter[better]
        self._idle = 0 if better.any() else self._idle + 1
        return self._idle >= _PATIENCE

    @torch.no_grad()
    def restore(self) -> None:
        """Return every network to its best state."""
        for kept, parameter in zip(self._kept, self._networks.parameters, strict=True):
            parameter.copy_(kept)
