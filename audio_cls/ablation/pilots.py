"""How much the differences between arms vary, before a suite is trained: from its own finished runs, from earlier suites on the same
corpus, or from a guess that is named as one. Only spreads are read here; no difference is shown, so this is no look at a result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from audio_cls.ablation.answers import read_answers
from audio_cls.ablation.record import read_records
from audio_cls.ablation.results import compare_figures
from audio_cls.ablation.stored import find_state, is_converted, suite_names
from audio_cls.ablation.suite import reopen_suite
from audio_cls.core.errors import UserError
from audio_cls.core.formatting import count
from audio_cls.metrics.base import in_points, plain_name
from audio_cls.metrics.paired import Comparison
from audio_cls.metrics.sources import Sources

if TYPE_CHECKING:
    from audio_cls.ablation.suite import Suite

__all__ = ["Pilot", "find_pilot"]

MOST_SUITES = 5  # earlier suites that are read
ACCURACY = 0.8
DISAGREEMENT = 0.16  # half of what two arms of this accuracy with independent errors would have: 2 * 0.8 * 0.2


@dataclass(frozen=True, eq=False)
class Pilot:
    """The spread that a forecast rests on. words: where it comes from. comparisons: of arms with their reference; empty for a guess.
    each: variances by comparison. caveats: why a difference that can be found may be larger than is said."""

    words: str
    each: tuple[Sources, ...]
    comparisons: tuple[Comparison, ...] = ()
    caveats: tuple[str, ...] = ()

    @property
    def sources(self) -> Sources:
        """The mean variances."""
        return Sources.pooled(self.each)


def find_pilot(suite: Suite, metric: str, n_units: int, storage: str | Path | None = None) -> Pilot | None:
    """Return the spread of a metric's differences: of the suite's own finished runs, else of earlier suites on the same data, else a
    guess. None for a metric in units of its own without a run to go by.

    Args:
        n_units: clips, or groups of clips, that the suite measures on.
        storage: where the queue is kept; `optuna.db` in the workspace unless given.
    """
    own = _comparisons(suite, metric)
    if own:
        return _from_runs(own, f"{count(_pairs(own), 'pair')} of finished runs of this suite")
    found: dict[str, list[Comparison]] = {}
    for earlier in _earlier_suites(suite, storage):
        if comparisons := _comparisons(earlier, metric):
            found[earlier.ablation.name] = comparisons
        if len(found) == MOST_SUITES:
            break
    if found:
        every = [c for comparisons in found.values() for c in comparisons]
        names = ", ".join(f"{name} ({count(_pairs(cs), 'pair')})" for name, cs in found.items())
        return _from_runs(every, f"earlier suites on this corpus: {names}")
    if not in_points(metric):
        return None
    words = (
        f"a guess, since no suite on this corpus has finished pairs: the sampling of {n_units} clips or groups alone, arms of "
        f"{100 * ACCURACY:.0f} % that disagree on {100 * DISAGREEMENT:.0f} % of the clips"
    )
    why = "seeds and training sets add to it: a lower bound. The first finished runs of the suite replace the guess"
    return Pilot(words, (Sources.of_shares(DISAGREEMENT, n_units),), caveats=(why,))


def _from_runs(comparisons: Sequence[Comparison], words: str) -> Pilot:
    each = tuple(c.sources for c in comparisons if c.sources is not None)
    caveats = []
    if max(one.n_seeds for one in each) == 1:
        caveats.append("from one seed: what seeds change is not known, so that more seeds may help less than is said")
    if max(one.n_folds for one in each) == 1:
        caveats.append(
            "from one fold: what training sets change is not known, so that more folds may help less than is said"
        )
    if _pairs(comparisons) < 6:
        caveats.append("from few runs: the spread itself is uncertain")
    return Pilot(words, each, tuple(comparisons), tuple(caveats))


def _pairs(comparisons: Sequence[Comparison]) -> int:
    return sum(c.n for c in comparisons)


def _comparisons(suite: Suite, metric: str) -> list[Comparison]:
    """Return the comparisons of a suite's arms whose spread is known clip by clip, over the pairs that are finished."""
    ablation = suite.ablation
    if suite.state.run_id is None:
        return []
    records = read_records(ablation, suite.plan, suite.study, suite.storage)
    stored = read_answers(ablation, suite.plan, records, suite.corpus, suite.tracker).scores
    plain = plain_name(metric)
    figures = {
        arm: {cell: float(p.evaluation.overall[plain]) for cell, p in cells.items() if plain in p.evaluation.overall}
        for arm, cells in stored.items()
    }
    compared = compare_figures(ablation, suite.plan, figures, metric, stored)
    return [c for c in compared.values() if c.sources is not None and c.decidable]


def _earlier_suites(suite: Suite, storage: str | Path | None) -> Iterator[Suite]:
    """Return the other suites on the same data, those with most seeds first; those that cannot be opened are left out."""
    states = [find_state(suite.workspace, suite.storage, name) for name in suite_names(suite.workspace, suite.storage)]
    known = [s for s in states if s is not None and s.data == suite.corpus.digest and s.name != suite.ablation.name]
    for state in sorted(known, key=lambda s: -len(s.seeds)):
        if is_converted(state, suite.storage):
            with suppress(UserError):
                yield reopen_suite(state.name, suite.tracker, storage)
