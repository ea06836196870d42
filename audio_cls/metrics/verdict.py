"""The verdict of a comparison, as one word and one line.

"helps" and "hurts" need p below alpha after Holm. "no difference" is a finding of its own, not the lack of one: two
one-sided tests must show that the difference is smaller than a margin. Everything else is "cannot tell", with what it
would take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import Literal

from audio_cls.metrics.base import in_points, number_text
from audio_cls.metrics.paired import Comparison, MorePairs, holm

__all__ = ["DIFFERENCES", "MARGIN", "Verdict", "Word", "in_points", "verdict", "verdicts"]

Word = Literal["helps", "hurts", "no difference", "cannot tell", "not judged"]

MARGIN = 0.01
"""A difference below one point is no difference, unless the caller says otherwise."""

DIFFERENCES = (0.01, 0.02, 0.03)
"""The differences, 1 to 3 points, for which the number of runs is worked out."""

ENOUGH = 5  # pairs that are all equal, to say so and not that they tell nothing


@dataclass(frozen=True)
class Verdict:
    """word: one of five ("not judged": the metric says little on these clips, see `answers`). text: figures and word in a line. p: after Holm where there are several arms, else as it is.

    p_equivalence: of the two one-sided tests against the margin, adjusted likewise; NaN without a margin.
    more: what it would take to settle each of the differences asked about, empty when that cannot be said.
    """

    word: Word
    text: str
    p: float
    p_equivalence: float
    more: tuple[MorePairs, ...]


def verdicts(
    comparisons: Mapping[str, Comparison], *, points: bool = True, margin: float | None = None
) -> dict[str, Verdict]:
    """Return the verdicts on the arms of one suite on one metric, Holm over the arms (p and equivalence each a family).

    Args:
        comparisons: by arm.
        points: told in points, see `metrics.base.in_points`.
        margin: below it is no difference, in the metric's units; `MARGIN` for metrics in points. Without one,
            metrics in their own units never come to "no difference".
    """
    limit = _margin(points, margin)
    p = holm([c.p for c in comparisons.values()])
    equivalence = holm([c.equivalence(limit) if limit else float("nan") for c in comparisons.values()])
    return {
        name: _judge(c, p[i], equivalence[i], len(comparisons), points, limit)
        for i, (name, c) in enumerate(comparisons.items())
    }


def verdict(comparison: Comparison, *, points: bool = True, margin: float | None = None) -> Verdict:
    """Return the verdict on a single comparison; of several arms with one reference, use `verdicts`."""
    return verdicts({"": comparison}, points=points, margin=margin)[""]


def _margin(points: bool, margin: float | None) -> float | None:
    if margin is not None and not margin > 0:
        raise ValueError(f"margin must be above 0 in the metric's units, got {margin}")
    return MARGIN if margin is None and points else margin


def _judge(c: Comparison, p: float, p_equivalence: float, tests: int, points: bool, margin: float | None) -> Verdict:
    if c.n == 0:
        broken = f", {len(c.pairs.not_finite)} with a figure that is not finite" if c.pairs.not_finite else ""
        return Verdict("cannot tell", f"no pair of runs yet{broken}: cannot tell", p, p_equivalence, ())
    pairs = "1 pair" if c.n == 1 else f"{c.n} pairs"
    difference = _amount(c.mean, points, signed=True)
    if c.n >= ENOUGH and c.ties == c.n:
        found = f"equal in all {pairs}: no difference (the arm changes nothing here, or nothing that these clips show)"
        return Verdict("no difference", found, p, p_equivalence, ())
    if not c.decidable:
        return Verdict("cannot tell", f"{difference}, {pairs}: cannot tell, {_why_not(c)}", p, p_equivalence, ())
    corrected = " after Holm" if tests > 1 else ""
    interval = f"[{number_text(c.low, points)}, {number_text(c.high, points)}]"
    head = f"{difference} {interval}, {_p(p)}{corrected}, {pairs}"
    here = " on this split" if c.single_split else ""
    asked = DIFFERENCES if points else (abs(c.mean),)
    more = tuple(m for m in (c.more_pairs(d, tests=tests) for d in asked if d > 0) if m is not None)
    if p < c.alpha:
        word: Word = "helps" if (c.mean > 0) == (c.pairs.direction == "maximize") else "hurts"
        small = margin is not None and p_equivalence < c.alpha
        note = f", by less than {_amount(margin, points)}" if small and margin is not None else ""
        return Verdict(word, f"{head}: {word}{here}{note}", p, p_equivalence, more)
    if margin is not None and p_equivalence < c.alpha:
        found = f"no difference{here} of {_amount(margin, points)} or more ({_p(p_equivalence)}{corrected})"
        return Verdict("no difference", f"{head}: {found}", p, p_equivalence, more)
    return Verdict("cannot tell", f"{head}: cannot tell{here}{_hint(more, c, points)}", p, p_equivalence, more)


def _why_not(c: Comparison) -> str:
    if c.pairs.not_finite:
        cells = ", ".join(f"seed {s} fold {k}" for s, k in c.pairs.not_finite[:3])
        return f"figures that are not finite at {cells}{' and others' if len(c.pairs.not_finite) > 3 else ''}"
    if c.n == 1:
        return "one pair has no spread to judge by: run more seeds or folds"
    return "the pairs show no spread to judge by (identical runs, or too few clips)"


def _hint(more: tuple[MorePairs, ...], c: Comparison, points: bool) -> str:
    """Return the first difference within reach, and a word about those that are not."""
    reachable = next((m for m in more if m.pairs is not None), None)
    beyond = [m for m in more if m.pairs is None]
    parts = []
    if reachable is not None:
        amount = _amount(reachable.difference, points)
        if not reachable.pairs:
            parts.append(f"though these would have shown {amount} four times in five")
        else:
            about = "at least" if reachable.lower_bound else "about"
            more_pairs = "1 more pair" if reachable.pairs == 1 else f"{reachable.pairs} more pairs"
            parts.append(f"{about} {more_pairs} for {amount}")
    if beyond:
        largest = _amount(beyond[-1].difference, points)
        of = "this fold" if c.single_split else f"these {c.n_folds} folds"
        parts.append(f"{largest} is out of reach with more seeds on {of}: it takes other folds or more clips")
    return "".join(f", {part}" for part in parts)


def _amount(value: float, points: bool, *, signed: bool = False) -> str:
    if not points:
        return number_text(value, points, signed=signed)
    if signed:
        return f"{number_text(value, points, signed=True)} points"
    return "1 point" if value == 0.01 else f"{100 * value:.3g} points"


def _p(value: float) -> str:
    if isnan(value):
        return "p unknown"
    return "p < 0.001" if value < 0.001 else f"p = {value:{'.2g' if value < 0.0995 else '.2f'}}"
