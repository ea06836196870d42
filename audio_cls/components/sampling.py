"""Which training clips an epoch shows, and in what order: a function of (seed, epoch) only."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import numpy as np
from pydantic import Field

from audio_cls.core.config import Component, ConfigError
from audio_cls.core.rng import numpy_rng

__all__ = ["Balanced", "Order", "RarestLabel", "RepeatFactor", "Sampling", "Uniform", "repeat_factors"]

Order = Callable[[int, int], np.ndarray]
"""(seed, epoch) -> the rows of one epoch, int64, in order."""


class Sampling(Component, family=True):
    """How often each training clip is shown."""

    @abstractmethod
    def build(self, targets: np.ndarray) -> Order:
        """Return the order of each epoch for training targets (n_clips, n_classes) of zeros and ones.

        Raises:
            ConfigError: where there is no clip.
        """
        raise NotImplementedError


class Uniform(Sampling, kind="uniform"):
    """Every clip once."""

    def build(self, targets: np.ndarray) -> Order:
        n = len(_checked(targets))
        return lambda seed, epoch: numpy_rng(seed, "sampling", epoch).permutation(n)


class Balanced(Sampling, kind="balanced"):
    """Every class equally often, in an epoch as long as the data.

    Each slot belongs to one class (their shares differ by one clip at most) and is filled from the clips that have it, each of
    them once before any comes again. Clips without any label are one class more. With several labels a clip also counts
    for the labels that it brings along.
    """

    def build(self, targets: np.ndarray) -> Order:
        labels = _checked(targets) > 0
        pools = [np.flatnonzero(column) for column in [*labels.T, ~labels.any(1)]]
        pools = [pool for pool in pools if len(pool)]
        n = len(labels)

        def order(seed: int, epoch: int) -> np.ndarray:
            rng = numpy_rng(seed, "sampling", epoch)
            shares = np.full(len(pools), n // len(pools))
            shares[rng.permutation(len(pools))[: n % len(pools)]] += 1
            picked = [_cycle(pool, int(share), rng) for pool, share in zip(pools, shares, strict=True)]
            return rng.permutation(np.concatenate(picked))

        return order


class RarestLabel(Sampling, kind="rarest_label"):
    """Clips drawn at random with replacement, each with the weight of its rarest label, 1 / (clips with this label).

    An epoch is as long as the data. Clips without any label count as one class more. With one label a clip every class is drawn
    equally often on average; unlike `balanced`, neither the shares nor the clips of an epoch are fixed, and a clip of a large
    class may be missing while another one comes twice.
    """

    def build(self, targets: np.ndarray) -> Order:
        labels = _checked(targets) > 0
        labels = np.column_stack([labels, ~labels.any(1)])
        weights = np.where(labels, 1 / np.maximum(labels.sum(0), 1), 0.0).max(1)
        n, shares = len(weights), weights / weights.sum()
        return lambda seed, epoch: numpy_rng(seed, "sampling", epoch).choice(n, size=n, p=shares)


class RepeatFactor(Sampling, kind="repeat_factor"):
    """Clips of rare classes repeated: r = max(1, sqrt(t / f)) for a class in a share f of the clips, a clip by its rarest class.

    Gupta, Dollar and Girshick, "LVIS", CVPR 2019. The fraction of r is rounded up or down at random in each epoch, so that a clip
    is shown r times on average; an epoch is longer than the data. `threshold` is t; none means 1 / n_classes.
    """

    threshold: float | None = Field(default=None, gt=0, le=1)
    """Share of the clips below which a class is repeated; none is 1 / n_classes."""

    def build(self, targets: np.ndarray) -> Order:
        labels = _checked(targets) > 0
        factors = repeat_factors(labels, 1 / max(labels.shape[1], 1) if self.threshold is None else self.threshold)
        rows, whole = np.arange(len(labels)), np.floor(factors)

        def order(seed: int, epoch: int) -> np.ndarray:
            rng = numpy_rng(seed, "sampling", epoch)
            times = (whole + (rng.random(len(factors)) < factors - whole)).astype(np.int64)
            return rng.permutation(np.repeat(rows, times))

        return order


def repeat_factors(labels: np.ndarray, threshold: float) -> np.ndarray:
    """Return how often each clip is to be shown, (n_clips,) float64, at least 1; `labels` is (n_clips, n_classes)."""
    labels = np.asarray(labels, dtype=bool)
    share = labels.mean(0)
    of_class = np.maximum(1.0, np.sqrt(threshold / np.maximum(share, 1e-300)))
    return np.where(labels, of_class, 1.0).max(1, initial=1.0)


def _checked(targets: np.ndarray) -> np.ndarray:
    targets = np.asarray(targets)
    if targets.ndim != 2 or len(targets) == 0:
        raise ConfigError(
            f"nothing to sample: expected targets (n_clips, n_classes) of one clip or more, found {targets.shape}"
        )
    return targets


def _cycle(pool: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    rounds = [rng.permutation(pool) for _ in range(-(-n // len(pool)))]
    return np.concatenate(rounds)[:n] if rounds else pool[:0]
