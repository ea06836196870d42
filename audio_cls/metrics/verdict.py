"""The verdict of a comparison, as one word and one line.

"helps" and "hurts" need p below alpha after Holm. "no difference" is a finding of its own, not the lack of one: two
one-sided tests must show that the difference is smaller than a margin. Everything else is "cannot tell", with what it
would take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor, isnan, log10, nan
from typing import Any, Literal

from audio_cls.metrics.base import in_points, number_text
from audio_cls.metrics.multiplicity import holm, holm_levels
from audio_cls.metrics.paired import Comparison, MorePairs

__all__ = ["DIFFERENCES", "MARGIN", "Verdict", "Word", "in_points", "margin_or_default", "verdict", "verdicts"]

Word = Literal["helps", "hurts", "no difference", "cannot tell", "not judged", "under way"]

MARGIN = 0.01
"""A difference below one point is no difference, unless the caller says otherwise."""

DIFFERENCES = (0.01, 0.02, 0.03)
"""The differences, 1 to 3 points, for which the number of runs is worked out."""

WORTH_SAYING = 3  # margins within which arms are said to be equal, where they are not shown to be equal within one

ENOUGH = 5  # pairs that are all equal, to say so and not that they tell nothing


@dataclass(frozen=True)
class Verdict:
    """word: one of six ("not judged": the metric says little on these clips, see `answers`; "under way": runs are still missing).
    text: figures and word in a line. hint: what would settle it, in words; empty for one that is settled. p: after Holm where there are several arms, else as it is.

    p_equivalence: of the two one-sided tests against the margin, adjusted likewise; NaN without a margin.
    more: what it would take to settle each of the differences asked about, empty when that cannot be said.
    low, high: interval of the difference at the level of the arm's own step of Holm's procedure, 1 - level: it leaves out 0 if and
    only if p is below alpha. better, within, worse: probabilities that the arm is better by more than the margin, within it, and
    worse by more, as if nothing had been known before; their sum is 1. equal_within: the smallest margin
    that would make it "no difference". All in the metric's units; NaN where they cannot be said.
    population: what all this speaks of, in words.
    """

    word: Word
    text: str
    p: float
    p_equivalence: float
    more: tuple[MorePairs, ...]
    low: float = nan
    high: float = nan
    level: float = nan
    better: float = nan
    within: float = nan
    worse: float = nan
    equal_within: float = nan
    population: str = ""
    hint: str = ""


def verdicts(
    comparisons: Mapping[str, Comparison],
    *,
    points: bool = True,
    margin: float | None = None,
    alpha: float | None = None,
) -> dict[str, Verdict]:
    """Return the verdicts on the arms of one suite on one metric, Holm over the arms (p and equivalence each a family).

    Args:
        comparisons: by arm.
        points: told in points, see `metrics.base.in_points`.
        margin: below it is no difference, in the metric's units; `MARGIN` for metrics in points. Without one,
            metrics in their own units never come to "no difference".
        alpha: of the family; that of the comparisons unless given (`multiplicity.spend` for a suite that was looked at before).

    Raises:
        ValueError: for a margin or an alpha that cannot be.
    """
    if alpha is not None and not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    limit = margin_or_default(points, margin)
    found = list(comparisons.values())
    size = (found[0].alpha if found else 0.05) if alpha is None else alpha
    p_values = [c.p for c in found]
    p_within = [c.equivalence(limit) if limit else nan for c in found]
    steps = zip(
        found,
        holm(p_values),
        holm_levels(p_values, size),
        holm(p_within),
        holm_levels(p_within, size),
        strict=True,
    )
    family = _Family(size, len(found), points, limit)
    return {
        name: _judge(c, p, p_equal, _findings(c, level, equal_level, limit), family)
        for name, (c, p, level, p_equal, equal_level) in zip(comparisons, steps, strict=True)
    }


def verdict(
    comparison: Comparison, *, points: bool = True, margin: float | None = None, alpha: float | None = None
) -> Verdict:
    """Return the verdict on a single comparison; of several arms with one reference, use `verdicts`."""
    return verdicts({"": comparison}, points=points, margin=margin, alpha=alpha)[""]


@dataclass(frozen=True)
class _Family:
    """What the arms of a suite have in common. tests: arms. margin: in the metric's units."""

    alpha: float
    tests: int
    points: bool
    margin: float | None


def _findings(c: Comparison, level: float, equal_level: float, margin: float | None) -> dict[str, Any]:
    """Return what a verdict carries besides words, by the names of its fields."""
    if not c.decidable:
        return {"population": c.population}
    low, high = c.interval(level)
    found = {"low": low, "high": high, "level": level, "population": c.population}
    found["equal_within"] = c.equal_within(equal_level)
    if margin is not None:
        found |= dict(zip(("better", "within", "worse"), c.probabilities(margin), strict=True))
    return found


def margin_or_default(points: bool, margin: float | None) -> float | None:
    """Return the margin, in the metric's units: that asked for, else `MARGIN` for metrics in points, else None."""
    if margin is not None and not margin > 0:
        raise ValueError(f"margin must be above 0 in the metric's units, got {margin}")
    return MARGIN if margin is None and points else margin


def _judge(c: Comparison, p: float, p_equivalence: float, found: dict[str, Any], family: _Family) -> Verdict:
    points, margin = family.points, family.margin

    def said(word: Word, text: str, more: tuple[MorePairs, ...] = (), hint: str = "") -> Verdict:
        return Verdict(word, text, p, p_equivalence, more, hint=hint, **found)

    if c.n == 0:
        broken = f", {len(c.pairs.not_finite)} with a figure that is not finite" if c.pairs.not_finite else ""
        return said("cannot tell", f"no pair of runs yet{broken}: cannot tell")
    pairs = "1 pair" if c.n == 1 else f"{c.n} pairs"
    difference = _amount(c.mean, points, signed=True)
    if c.n >= ENOUGH and c.ties == c.n:
        equal = f"equal in all {pairs}: no difference (the arm changes nothing here, or nothing that these clips show)"
        return said("no difference", equal)
    if not c.decidable:
        return said("cannot tell", f"{difference}, {pairs}: cannot tell, {_why_not(c)}")
    corrected = " after Holm" if family.tests > 1 else ""
    interval = f"[{number_text(found['low'], points)}, {number_text(found['high'], points)}]"
    head = f"{difference} {interval}, {_p(p)}{corrected}, {pairs}"
    asked = DIFFERENCES if points else (abs(c.mean),)
    more = tuple(m for m in (c.more_pairs(d, tests=family.tests) for d in asked if d > 0) if m is not None)
    small = margin is not None and p_equivalence < family.alpha
    if p < family.alpha:
        word: Word = "helps" if (c.mean > 0) == (c.pairs.direction == "maximize") else "hurts"
        note = f", by less than {_amount(margin, points)}" if small and margin is not None else ""
        return said(word, f"{head}: {word}{_population(c)}{note}", more)
    close = margin is not None and found["equal_within"] <= WORTH_SAYING * margin
    equal = f"equal within {_at_most(found['equal_within'], points)}"
    if small and margin is not None:
        none = f"no difference of {_amount(margin, points)} or more ({_p(p_equivalence)}{corrected}), {equal}"
        return said("no difference", f"{head}: {none}{_population(c)}", more)
    return said(
        "cannot tell",
        f"{head}: cannot tell{f', {equal}' if close else ''}{_population(c)}",
        more,
        _hint(more, c, points),
    )


def _population(c: Comparison) -> str:
    """Return what the verdict speaks of, and why no more where predictions could not be used."""
    of = f" {c.population}" if c.population.startswith("on ") else f" for {c.population}"
    return f"{of} ({c.why_wide})" if c.why_wide else of


def _at_most(value: float, points: bool) -> str:
    """Return a bound, rounded up."""
    if points:
        return _amount(ceil(1000 * value - 1e-9) / 1000, points)
    digits = 2 - floor(log10(value))
    return _amount(ceil(value * 10.0**digits - 1e-9) / 10.0**digits, points)


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
            parts.append(f"these would have shown {amount} four times in five")
        else:
            about = "at least" if reachable.lower_bound else "about"
            more_pairs = "1 more pair" if reachable.pairs == 1 else f"{reachable.pairs} more pairs"
            parts.append(f"{about} {more_pairs} for {amount}")
    if beyond:
        largest = _amount(beyond[-1].difference, points)
        of = "this fold" if c.single_split else f"these {c.n_folds} folds"
        parts.append(f"{largest} is out of reach with more seeds on {of}: it takes other folds or more clips")
    return "; ".join(parts)


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
