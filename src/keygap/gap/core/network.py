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

The networks of all training sets, and of some heads at a time, are one batched model. Each keeps
the state with the least loss on an eighth of its training samples, which it is not fitted to. The
model is so small that automatic differentiation and an optimiser for single tensors would take
longer than the arithmetic, so the gradient is written out and all parameters are one tensor.
``bench/statistics/shapes_jsd.py`` compares it with random Fourier features and boosted trees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor
from torch.nn import functional

from keygap import random_streams
from keygap.gap.core.basis import N_DIRECTIONS, Basis
from keygap.gap.core.critic import LogOdds, Rows, Train, Trains
from keygap.gap.core.independent_axes import independent_axes

MIN_UNITS = 8  # samples of a side in a training set; with fewer, single samples are memorised
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
_TOGETHER = 40  # networks that are trained at once; their layers then fit in a processor's cache
_ROWS = 1024  # rows that are predicted at once


def network_log_odds(rows: Rows, trains: Trains) -> LogOdds:
    """Log-odds of every row by one network for each training set and head.

    Args:
        rows: The pooled vectors and what is known of them.
        trains: The rows of each training set.

    Returns:
        One log-odds for each set and row, with the heads first where there are several; 0
        everywhere if a side of some set has fewer than eight samples.
    """
    z, shape = rows.by_head, (*rows.z.shape[:-2], *trains.shape, 1)
    if min(_fewest_units(rows, train) for train in trains) < MIN_UNITS:
        return np.zeros(shape, np.float32)
    size = max(1, _TOGETHER // len(trains))
    parts = [replace(rows, z=z[first : first + size]) for first in range(0, len(z), size)]
    # A caller may be in inference mode, whose tensors cannot be changed in place.
    with torch.inference_mode(False), torch.no_grad():
        return np.concatenate([_of_heads(part, trains) for part in parts]).reshape(shape)


def _of_heads(rows: Rows, trains: Trains) -> Float32[np.ndarray, "heads sets n"]:
    """The log-odds of some heads, whose networks are trained together."""
    rng = random_streams.generator(rows.seed, "jsd", "network")
    held_back = _held_back(rows, trains, rng)
    data = _Data.of(rows, trains)
    networks = _Networks.drawn(len(rows.z), len(trains), data.inputs.shape[-1], rng)
    _train(networks, data, trains & ~held_back, trains & held_back, rng)
    found = np.empty((len(rows.z), *trains.shape), np.float32)
    for first in range(0, trains.shape[1], _ROWS):
        chunk = data.inputs[:, :, first : first + _ROWS].expand(-1, len(trains), -1, -1)
        logits = networks.logits(chunk.flatten(0, 1))
        found[..., first : first + _ROWS] = logits.view(*found.shape[:2], -1).numpy()
    return found


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
        inputs: Inputs of every row for each head and training set; the sets may share them.
        sign: -1 for rows of side x and 1 for the others.
        weight: Weight of each row, of mean 1.
    """

    inputs: Float[Tensor, "heads sets|1 n inputs"]
    sign: Float[Tensor, " n"]
    weight: Float[Tensor, " n"]

    @classmethod
    def of(cls, rows: Rows, trains: Trains) -> _Data:
        sign = np.where(rows.label, -1.0, 1.0)
        weight = rows.weight / rows.weight.mean()
        inputs = np.stack([_inputs(own, trains) for _, own in rows.heads()])
        return cls(torch.from_numpy(inputs), _tensor(sign), _tensor(weight))

    def batch(self, index: Int[Tensor, "sets b"]) -> _Batch:
        """The rows with some indices, which are those of each training set and equal in heads."""
        heads, own_inputs = len(self.inputs), self.inputs.shape[1] > 1
        of_set = torch.arange(len(index), device="cpu")[:, None] if own_inputs else 0
        weight = self.weight[index]
        share = weight / weight.sum(1, keepdim=True)
        return _Batch(
            self.inputs[:, of_set, index].flatten(0, 1),
            self.sign[index].repeat(heads, 1),
            share.repeat(heads, 1),
        )


@dataclass(frozen=True)
class _Batch:
    """Rows for each network; the shares of a network sum to 1."""

    inputs: Float[Tensor, "networks b inputs"]
    sign: Float[Tensor, "networks b"]
    share: Float[Tensor, "networks b"]


def _inputs(rows: Rows, trains: Trains) -> Float32[np.ndarray, "sets|1 n inputs"]:
    """Inputs of one head, by training set where they depend on it."""
    length = np.sqrt((rows.z**2).mean(1))
    z = rows.z * np.minimum(1.0, _FAR / np.maximum(length, 1e-9))[:, None]
    shared = _shared_inputs(z, length)
    if rows.z.shape[1] <= N_DIRECTIONS:
        return shared[None]
    directions = Basis.fit(rows, trains).directions()
    n, width = shared.shape
    inputs = np.empty((len(directions), n, width + directions.shape[-1]), np.float32)
    inputs[..., :width] = shared
    for own, of_set in zip(inputs, directions, strict=True):
        own[:, width:] = _standardised(z @ of_set)
    return inputs


def _shared_inputs(
    z: Float[np.ndarray, "n k"], length: Float[np.ndarray, " n"]
) -> Float32[np.ndarray, "n inputs"]:
    """Scores on the least Gaussian axes and the two norms, which no training set changes."""
    axes, strength = independent_axes(z)
    scores = z @ axes
    scale = np.minimum(1.0, strength / (_CLEAR * np.median(strength) + 1e-12))
    scale = np.maximum(scale / scale.max(), _LEAST_SCALE)
    columns = [
        (scores * scale)[:, :_N_AXES],
        _standardised(np.log(length + 1e-3)),
        _standardised(np.log(np.abs(scores).mean(1) / (length + 1e-3) + 1e-3)),
    ]
    return np.column_stack(columns).astype(np.float32)


def _standardised(values: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n ..."]:
    return (values - values.mean(0)) / (values.std(0) + 1e-12)


def _tensor(values: Float[np.ndarray, ...]) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))


class _Networks:
    """Several networks of one shape: two layers with SiLU and one output.

    Attributes:
        state: All parameters of each network, one row for each.
    """

    def __init__(self, state: Float[Tensor, "networks parameters"], n_inputs: int) -> None:
        self.state = state
        self._shapes = [(n_inputs, _UNITS), (1, _UNITS), (_UNITS, _UNITS), (1, _UNITS)]
        self._shapes += [(_UNITS, 1), (1, 1)]
        parts = state.split([into * out for into, out in self._shapes], dim=1)
        self._parts = [
            part.unflatten(1, shape) for part, shape in zip(parts, self._shapes, strict=True)
        ]

    @classmethod
    def drawn(cls, heads: int, sets: int, n_inputs: int, rng: np.random.Generator) -> _Networks:
        """Random weights, equal for all heads, and an output near 0."""
        parameters = []
        for into, out, size in ((n_inputs, _UNITS, 1.0), (_UNITS, _UNITS, 1.0), (_UNITS, 1, 0.1)):
            weights = rng.standard_normal((sets, into, out)) * size / math.sqrt(into)
            parameters += [weights.reshape(sets, -1), np.zeros((sets, out))]
        return cls(_tensor(np.concatenate(parameters, axis=1)).repeat(heads, 1), n_inputs)

    def logits(self, inputs: Float[Tensor, "networks b inputs"]) -> Float[Tensor, "networks b"]:
        """Log-odds of the rows."""
        return self._layers(inputs)[-1][..., 0]

    def loss(self, batch: _Batch) -> Float[Tensor, " networks"]:
        """Weighted log loss of each network."""
        terms = functional.softplus(self.logits(batch.inputs) * batch.sign)
        return (terms * batch.share).sum(1)

    def gradient(self, batch: _Batch) -> Float[Tensor, "networks parameters"]:
        """Gradient of the loss, by the chain rule."""
        _, _, second, _, last, _ = self._parts
        before_1, after_1, before_2, after_2, logits = self._layers(batch.inputs)
        at_output = torch.sigmoid(logits[..., 0] * batch.sign).mul_(batch.sign).mul_(batch.share)
        at_output = at_output[..., None]
        at_2 = _silu_backward(at_output * last.transpose(1, 2), before_2)
        at_1 = _silu_backward(torch.bmm(at_2, second.transpose(1, 2)), before_1)
        parts = []
        for inputs, error in ((batch.inputs, at_1), (after_1, at_2), (after_2, at_output)):
            parts += [torch.bmm(inputs.transpose(1, 2), error).flatten(1), error.sum(1)]
        return torch.cat(parts, 1)

    def _layers(self, inputs: Float[Tensor, "networks b inputs"]) -> tuple[Tensor, ...]:
        """Each hidden layer before and after its SiLU, and the logits."""
        first, first_bias, second, second_bias, last, last_bias = self._parts
        before_1 = torch.baddbmm(first_bias, inputs, first)
        after_1 = functional.silu(before_1)
        before_2 = torch.baddbmm(second_bias, after_1, second)
        after_2 = functional.silu(before_2)
        return before_1, after_1, before_2, after_2, torch.baddbmm(last_bias, after_2, last)


def _silu_backward(gradient: Tensor, inputs: Tensor) -> Tensor:
    """Gradient before a SiLU from that after it."""
    return torch.ops.aten.silu_backward(gradient, inputs)


def _train(
    networks: _Networks, data: _Data, fit: Trains, held_back: Trains, rng: np.random.Generator
) -> None:
    """Minimise the weighted log loss with early stopping.

    Each network keeps the state with the lowest loss on its held-back rows.
    """
    n_rows = int(fit.sum(1).max())
    n_steps = max(_FEWEST_STEPS, round(n_rows / _BATCH))
    optimiser = _AdamW(networks.state, _EPOCHS * n_steps)
    judge = _Judge(networks, data, held_back)
    for _ in range(_EPOCHS):
        for batch in np.array_split(_in_random_order(fit, n_rows, rng), n_steps, axis=1):
            optimiser.step(networks.gradient(data.batch(torch.from_numpy(batch))))
        if judge.has_lost_patience():
            break
    judge.restore()


def _in_random_order(
    sets: Trains, length: int, rng: np.random.Generator
) -> Int[np.ndarray, "sets length"]:
    """Indices of the rows of each set, shuffled; smaller sets begin again."""
    return np.stack([np.resize(rng.permutation(np.flatnonzero(one)), length) for one in sets])


class _AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    The learning rate rises linearly and then falls along half a cosine. ``torch.optim`` would do
    the same, but loading it takes longer than many estimates.
    """

    def __init__(self, state: Tensor, n_steps: int) -> None:
        self._state, self._n_steps, self._done = state, n_steps, 0
        self._mean, self._square = torch.zeros_like(state), torch.zeros_like(state)

    def step(self, gradient: Tensor) -> None:
        """Take one step along the gradient of the parameters."""
        rise = min(1.0, (self._done + 1) / (_WARM_UP * self._n_steps))
        rate = _RATE * rise * 0.5 * (1.0 + math.cos(math.pi * self._done / self._n_steps))
        self._done += 1
        of_mean, of_square = (1.0 - beta**self._done for beta in _BETAS)
        self._mean.lerp_(gradient, 1.0 - _BETAS[0])
        self._square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1.0 - _BETAS[1])
        self._state.mul_(1.0 - rate * _DECAY)
        size = (self._square / of_square).sqrt_().add_(1e-8)
        self._state.addcdiv_(self._mean, size, value=-rate / of_mean)


class _Judge:
    """Remembers the state of each network in which its loss on held-back rows is least."""

    def __init__(self, networks: _Networks, data: _Data, held_back: Trains) -> None:
        self._networks = networks
        length = int(held_back.sum(1).max())
        rows = np.stack([np.resize(np.flatnonzero(one), length) for one in held_back])
        self._batch = data.batch(torch.from_numpy(rows))
        self._kept = networks.state.clone()
        self._best = torch.full((len(data.inputs), len(rows)), math.inf, device="cpu")
        self._idle = torch.zeros(len(data.inputs), 1, dtype=torch.int64, device="cpu")

    def has_lost_patience(self) -> bool:
        """Update the best states.

        A head that has gone ``_PATIENCE`` epochs without a gain keeps its states, as if its
        networks were alone.

        Returns:
            Whether every head has gone so long without a gain.
        """
        loss = self._networks.loss(self._batch).view_as(self._best)
        better = (loss < self._best - _GAIN) & (self._idle < _PATIENCE)
        self._best = torch.where(better, loss, self._best)
        self._kept[better.flatten()] = self._networks.state[better.flatten()]
        waited = torch.where(better.any(1, keepdim=True), 0, self._idle + 1)
        self._idle = torch.where(self._idle < _PATIENCE, waited, self._idle)
        return bool((self._idle >= _PATIENCE).all())

    def restore(self) -> None:
        """Return every network to its best state."""
        self._networks.state.copy_(self._kept)
