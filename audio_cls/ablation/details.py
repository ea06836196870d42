"""What stands beside an arm's verdict, in lines of text: probabilities, the wider test, effects, other tests, what would settle it."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from audio_cls.metrics.base import number_text, p_text
from audio_cls.metrics.verdict import in_points, margin_or_default

if TYPE_CHECKING:
    from audio_cls.ablation.results import ArmResult, SuiteResult
    from audio_cls.metrics.comparison import Comparison
    from audio_cls.metrics.verdict import Verdict

__all__ = ["all_details", "captions", "main_details", "share_text"]


def captions(result: SuiteResult) -> list[str]:
    """Return what holds for the verdicts of all arms: how often they were looked at, what their intervals are."""
    lines = result.looks.sentences()
    if result.looks.finished and any(arm.verdict is not None for arm in result.arms):
        level = f"{100 * (1 - result.looks.alpha):.3g} %"
        several = f" after Holm, {level} for all arms together" if len(result.arms) > 2 else f" of {level}"
        lines.append(f"intervals are those of the tests{several}: one that leaves out 0 is a verdict")
    return lines


def main_details(arm: ArmResult, result: SuiteResult) -> list[str]:
    """Return the lines that belong below a verdict: probabilities and the wider test, what would settle it."""
    verdict = arm.verdict
    if verdict is None or not result.looks.finished:
        return []
    points = in_points(result.metric)
    beside = [text for text in (_probabilities(verdict, result, points), _wider(arm, points)) if text]
    return [*(["; ".join(beside)] if beside else []), *([f"to settle it: {verdict.hint}"] if verdict.hint else [])]


def all_details(arm: ArmResult, result: SuiteResult) -> list[str]:
    """Return all lines beside a verdict: those of `main_details`, effects, wins, effect size, the signed-rank test, the method."""
    c, points = arm.comparison, in_points(result.metric)
    if c is None or arm.verdict is None or not c.n:
        return []
    lines = [*main_details(arm, result), *_effects(c, points)]
    lines.append(f"better in {c.wins}, worse in {c.losses}, equal in {c.ties} of {c.n} pairs")
    if isfinite(c.hedges_g):
        lines.append(
            f"effect size g = {c.hedges_g:+.2f}; Wilcoxon {p_text(c.wilcoxon_p)} (as if runs were independent)"
        )
    lines += _to_settle(arm.verdict, points)
    return [*lines, c.method]


def share_text(share: float) -> str:
    """Return a probability in per cent; what is nearly 0 or 1 is not said to be that."""
    return "< 1 %" if share < 0.01 else "> 99 %" if share > 0.99 else f"{100 * share:.0f} %"


def _amount(value: float, points: bool) -> str:
    """Return a difference without its sign, with its unit."""
    if not points:
        return number_text(value, points)
    return "1 point" if value == 0.01 else f"{100 * value:.2g} points"


def _probabilities(verdict: Verdict, result: SuiteResult, points: bool) -> str:
    margin = margin_or_default(points, result.ablation.margin)
    if margin is None or not isfinite(verdict.better):
        return ""
    return (
        f"better by more than {_amount(margin, points)}: {share_text(verdict.better)}, within it: {share_text(verdict.within)}, "
        f"worse: {share_text(verdict.worse)}"
    )


def _wider(arm: ArmResult, points: bool) -> str:
    w = arm.wider
    if w is None or not isfinite(w.low):
        return ""
    speaks_of = w.population if w.population.startswith("on ") else f"for {w.population}"
    return f"{speaks_of} [{number_text(w.low, points)}, {number_text(w.high, points)}], {p_text(w.p)}"


def _effects(c: Comparison, points: bool) -> list[str]:
    """Return what training sets and seeds change beyond the clips, where the grid can tell."""
    known = [e for e in c.effects if isfinite(e.p)]
    parts = [f"{e.name} {_amount(e.sd, points)} ({p_text(e.p)})" for e in known]
    return [f"standard deviation beyond the sampling of clips: {', '.join(parts)}"] if parts else []


def _to_settle(verdict: Verdict, points: bool) -> list[str]:
    """Return how many more pairs would settle each of several differences."""
    hints: dict[str, list[str]] = {}
    for hint in verdict.more:
        about = "at least " if hint.lower_bound else "about "
        words = (
            "out of reach with more seeds"
            if hint.pairs is None
            else f"{about if hint.pairs else ''}{hint.pairs} more pairs"
        )
        hints.setdefault(words, []).append(number_text(hint.difference, points))
    if not hints:
        return []
    unit = " points" if points else ""
    parts = [f"of {' or '.join(differences)}{unit}: {words}" for words, differences in hints.items()]
    return [f"to settle a difference {'; '.join(parts)}"]
