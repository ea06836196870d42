"""Runs of a suite that have collapsed: counted, named, and the means of their arms told with and without them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING

from audio_cls.ablation.declaration import Cell
from audio_cls.metrics.base import figure_text
from audio_cls.metrics.collapse import constant_scores
from audio_cls.metrics.paired import Mean, mean_interval

if TYPE_CHECKING:
    from audio_cls.ablation.results import ArmResult, SuiteResult

__all__ = ["Collapsed", "collapse_findings", "mark_collapsed"]


@dataclass(frozen=True)
class Collapsed:
    """The collapsed runs of an arm. why: (seed, fold) -> reason. of: the arm's runs with a figure. without: the mean of the others."""

    why: Mapping[Cell, str]
    of: int
    without: Mean

    @property
    def text(self) -> str:
        """How many there are: `2 of 15 runs collapsed`."""
        return f"{len(self.why)} of {self.of} runs collapsed"


def mark_collapsed(result: SuiteResult) -> SuiteResult:
    """Return a suite's result with the collapsed runs of its arms, and verdicts that say that they count.

    What the runs recorded is asked first; runs of earlier versions recorded nothing, but their stored predictions tell whether
    they are constant. Collapsed runs stay in means and tests: leaving them out would flatter their arm.
    """
    found = {arm.name: _collapsed(arm, result) for arm in result.arms}
    arms = []
    for arm in result.arms:
        verdict, whose = arm.verdict, dict.fromkeys((arm.name, result.ablation.reference))
        parts = [f"{c.text} in {name}" for name in whose if (c := found[name]) is not None]
        if verdict is not None and parts:
            verdict = replace(verdict, text=f"{verdict.text}; but {' and '.join(parts)}, which count")
        arms.append(replace(arm, verdict=verdict, collapsed=found[arm.name]))
    return replace(result, arms=tuple(arms))


def collapse_findings(result: SuiteResult) -> list[str]:
    """Return a sentence for each arm with collapsed runs: how many, which and why, its mean with and without them."""
    return [
        _sentence(arm.name, arm, found, result.metric) for arm in result.arms if (found := arm.collapsed) is not None
    ]


def _collapsed(arm: ArmResult, result: SuiteResult) -> Collapsed | None:
    select, stored, why = result.ablation.select, result.scores.get(arm.name, {}), {}
    for record in result.records:
        if record.arm == arm.name and record.state == "COMPLETE":
            made = stored.get(record.cell)
            reason = record.collapsed.get(select, "") or (constant_scores(made.scores, made.classes) if made else "")
            if reason:
                why[record.cell] = reason
    if not why:
        return None
    known = {cell: value for cell, value in arm.values.items() if isfinite(value)}
    rest = {cell: value for cell, value in known.items() if cell not in why}
    return Collapsed(why, len(known), mean_interval(rest, test_to_train=result.plan.test_to_train))


def _sentence(name: str, arm: ArmResult, found: Collapsed, metric: str) -> str:
    seed, fold = first = min(found.why)
    where = f"seed {seed}" + (f", fold {fold}" if fold else "")
    mean = f"mean {figure_text(arm.mean.mean, metric)} with them"
    rest = f", {figure_text(found.without.mean, metric)} without" if isfinite(found.without.mean) else ""
    return f"{name}: {found.text} ({where}: {found.why[first]}): {mean}{rest}."
