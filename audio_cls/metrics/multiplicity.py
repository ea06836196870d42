"""Several tests at once, or one test several times: Holm's procedure over arms, alpha spent over looks."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan

import numpy as np
import scipy
from numpy.typing import NDArray

__all__ = ["SPENDING", "holm", "holm_levels", "spend"]

SPENDING = 0.2
"""`spend` leaves this share of what there is for the looks to come."""

POINTS, LEAST_STEP = 801, 0.02  # of the integration: grid points, and the least new information^(1/2) of a look


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p, in the order given (Holm 1979): compare with alpha as they stand.

    The i-th smallest of m becomes min(1, max over j <= i of (m - j + 1) p_j). A NaN (an arm that cannot be tested yet)
    stays NaN but counts as one of the m, so that results do not change their family as runs come in.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(np.where(np.isnan(p), inf, p), kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * np.where(np.isnan(p), 1.0, p)[order]), 1.0)
    adjusted[np.isnan(p)] = nan
    return [float(value) for value in adjusted]


def holm_levels(p_values: Sequence[float], alpha: float) -> list[float]:
    """Return the level at which Holm's procedure tests each p, in the order given.

    The i-th smallest of m is rejected at alpha / (m - i + 1); those that are not rejected, r being, all stand at
    alpha / (m - r). So 1 - level is the level of an interval that leaves out 0 if and only if the adjusted p is below alpha.
    """
    p = np.asarray(p_values, dtype=np.float64)
    m = len(p)
    order = np.argsort(np.where(np.isnan(p), inf, p), kind="stable")
    steps = alpha / np.arange(m, 0, -1)
    failed = np.flatnonzero(~(p[order] < steps))
    rejected = int(failed[0]) if len(failed) else m
    levels = np.empty(m)
    levels[order] = np.where(np.arange(m) < rejected, steps, alpha / max(m - rejected, 1))
    return [float(level) for level in levels]


def spend(alpha: float, information: Sequence[float], keep: float = SPENDING) -> float:
    """Return the nominal two-sided level of the last of several looks at data that grow, so that all together err with `alpha`.

    Lan & DeMets 1983, with the levels found from the first look on (Armitage, McPherson & Rowe 1969). How many looks
    there will be is not known beforehand: after look k, alpha (1 - keep^k) is spent.

    Args:
        information: of each look so far, 1 / standard error^2. It grows; where it did not, the look found nothing new and is
            counted with what it adds, none.
        keep: the share that is left for later looks. With 0.2 a single look is tested at 4 %, which costs about
            3 points of power at 80 %.

    Raises:
        ValueError: for an alpha or a share outside 0 to 1, no looks, or information that is not above 0.
    """
    looks = np.asarray(information, dtype=np.float64)
    if not 0 < alpha < 1 or not 0 <= keep < 1 or not len(looks) or not (looks > 0).all():
        raise ValueError(f"need 0 < alpha < 1, 0 <= keep < 1 and information above 0: {alpha}, {keep}, {information}")
    looks = np.maximum.accumulate(looks)
    limits: list[float] = []
    for k in range(1, len(looks) + 1):
        limits.append(_limit(limits, looks[:k], alpha * (1 - keep ** (k - 1)), alpha * (1 - keep**k)))
    return float(2 * scipy.stats.norm.sf(limits[-1]))


def _limit(limits: Sequence[float], information: NDArray[np.float64], spent: float, total: float) -> float:
    """Return |z| at which the last look rejects, so that it adds total - spent to the chance to reject under no effect."""
    scale = np.sqrt(information)
    if not limits:
        return float(scipy.stats.norm.isf((total - spent) / 2))
    grid = np.linspace(-1.0, 1.0, POINTS)
    at = grid * limits[0] * scale[0]
    weight = scipy.stats.norm.pdf(at / scale[0]) / scale[0] * (at[1] - at[0])  # of sums not rejected so far
    for k in range(1, len(limits)):
        step = _step(scale, k)
        to = grid * limits[k] * scale[k]
        weight = (weight @ scipy.stats.norm.pdf((to - at[:, None]) / step)) / step * (to[1] - to[0])
        at = to
    step = _step(scale, len(limits))

    def surplus(limit: float) -> float:
        far = scipy.stats.norm.sf((limit * scale[-1] - at) / step) + scipy.stats.norm.sf(
            (limit * scale[-1] + at) / step
        )
        return float(weight @ far) - (total - spent)

    return float(scipy.optimize.brentq(surplus, 0.0, 40.0))


def _step(scale: NDArray[np.float64], k: int) -> float:
    """Return the standard deviation of what look k adds; not so small that the grid would miss it."""
    return float(np.sqrt(max(scale[k] ** 2 - scale[k - 1] ** 2, (LEAST_STEP * scale[k]) ** 2)))
