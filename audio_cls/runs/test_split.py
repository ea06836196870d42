"""The test split. It is opened here only: who chose what, and by which metric, is recorded before a figure is shown; each
opening is counted by the clips that it shows (`opened_clips`), a second one refused unless asked for, whichever run it is of, and
every figure has an interval (clips or groups resampled). Where other runs of the same choice validate on these clips, the figures
are recorded and shown as cross-validation (`split_overlap`).
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from audio_cls.core.errors import UserError
from audio_cls.data.remarks import OVERFIT
from audio_cls.metrics.bootstrap import Interval, figure_intervals
from audio_cls.runs.evaluation import Scored, score_with_progress
from audio_cls.runs.opened_clips import TEST_SCORES, ClipHistory, clip_history, clips_to_test, named, opening_tags
from audio_cls.runs.split_overlap import PREFIXES, FigureKind, Overlap, recorded_overlap, runs_compared_with
from audio_cls.training.predictions import scores_csv

if TYPE_CHECKING:
    from audio_cls.runs.preparation import Runtime
    from audio_cls.tracking import RunInfo, Tracker

__all__ = [
    "NOT_UNBIASED",
    "Opened",
    "OpenedTestSplit",
    "clip_ids",
    "configuration_of",
    "interval_words",
    "now_and_who",
    "open_test_split",
    "record_opening",
    "refuse_again",
    "refuse_opened_clips",
    "test_scores_csv",
]

NOT_UNBIASED = "The best of several test figures is no longer an unbiased one"


@dataclass(frozen=True)
class Opened:
    """What an opening is recorded as: what was opened (a run, a suite), what chose the weights and the configuration, when, by
    whom, and what the figures are."""

    what: str
    chosen: str
    when: str
    who: str
    kind: FigureKind = "test"


@dataclass(frozen=True)
class OpenedTestSplit:
    """A run's test split, opened. count: openings of this run. others: the history of its clips, where other runs opened them.
    overlap: with the validation clips of the runs that it was compared with."""

    scored: Scored
    figures: Mapping[str, Interval]
    opened: Opened
    count: int
    others: ClipHistory | None
    overlap: Overlap

    @property
    def kind(self) -> FigureKind:
        """What the figures are: "test", or "cross-validation" where these clips took part in the choice."""
        return self.overlap.kind

    @property
    def drawn(self) -> str:
        """What the intervals were resampled over, in words."""
        units = {interval.n_units for interval in self.figures.values()}
        return "clips" if units == {len(self.scored.clips)} else f"{max(units)} groups"


def now_and_who() -> tuple[str, str]:
    """Return the time, and the user's name on this machine."""
    try:
        who = getpass.getuser()
    except (KeyError, OSError, ImportError):
        who = "unknown"
    return time.strftime("%Y-%m-%d %H:%M:%S"), who


def refuse_again(info: RunInfo, again: bool) -> None:
    """Refuse a second opening that was not asked for.

    Raises:
        UserError: saying when and how often it was opened.
    """
    tags = info.tags
    if tags.get("test.openings") and not again:
        raise UserError(
            f"{info.name} ({info.run_id[:8]}): its test split was opened before ({tags['test.openings']} time(s), first "
            f"{tags.get('test.first_opened')}). Opening it again is counted and shown: add --again"
        )


def refuse_opened_clips(history: ClipHistory, what: str, again: bool) -> None:
    """Refuse to open test clips that have been opened for another run, unless that was asked for.

    It is refused like a second opening of the same run, and for a better reason: the same run gives the same figures again,
    while another one on the same clips makes a choice between test figures.

    Raises:
        UserError: saying when, how often and for which runs they were opened.
    """
    if history.openings and not again:
        raise UserError(
            f"{what}: {history.sentence()}. Another configuration measured on the same clips is a choice between test "
            "figures; it is counted, and the reports of all of them show it: add --again"
        )


def configuration_of(tracker: Tracker, info: RunInfo) -> str:
    """Describe how a run's configuration was chosen."""
    tags, metric = info.tags, info.params.get("training.metric", "the validation metric")
    kind = tags.get("kind")
    if kind == "trial":
        name = tags.get("study", "")
        n = len(tracker.runs(None, f"tags.study = '{name}' and tags.kind = 'trial'"))
        return f"trial {tags.get('trial', '?')} of the study {name!r}, {n} configurations judged by {metric}"
    if kind == "cell":
        arm = info.params.get("ablation.arm") or f"trial {info.params.get('confirmed.trial', '?')}"
        return f"{arm}, seed {tags.get('seed', '?')}, fold {tags.get('fold', '?')} of {tags.get('ablation.suite') or tags.get('study', 'a confirmation')}"
    return "a configuration that its user gave"


def record_opening(
    tracker: Tracker,
    info: RunInfo,
    opened: Opened,
    figures: Mapping[str, Interval],
    clips: Sequence[str],
    scores: str = "",
) -> int:
    """Record an opening with a run: its figures (`test/...`, `test/..._low`, `test/..._high`; `cross_validation/...` where that is
    what they are) and the ids of the `clips` shown.

    Returns how many openings of the run there are now.
    """
    count = int(info.tags.get("test.openings", "0")) + 1
    run = tracker.reopen(info.run_id)
    run.tags(
        {
            "test.openings": str(count),
            "test.first_opened": info.tags.get("test.first_opened") or opened.when,
            "test.last_opened": opened.when,
            "test.opened_by": opened.who,
            "test.chosen_by": opened.chosen,
            "test.kind": opened.kind,
            **opening_tags(info, opened.what, opened.when, opened.who, clips),
        }
    )
    values = {}
    for name, interval in figures.items():
        for suffix, value in (("", interval.estimate), ("_low", interval.low), ("_high", interval.high)):
            if isfinite(value):
                values[f"{PREFIXES[opened.kind]}{name}{suffix}"] = value
    run.final(values)
    if scores:
        run.artifact_text(TEST_SCORES, scores)
    run.close()
    return count


def clip_ids(scored: Scored) -> list[str]:
    return list(scored.predictions.clips)


def test_scores_csv(scored: Scored) -> str:
    return scores_csv(scored.predictions.clips, scored.predictions.scores, scored.corpus.classes)


def open_test_split(runtime: Runtime, info: RunInfo, *, again: bool) -> OpenedTestSplit:
    """Open the test split of one run: compute its figures, record them.

    Raises:
        UserError: for a second opening that was not asked for (`again`), of this run or of these clips.
    """
    tracker = runtime.tracker
    if info.tags.get(OVERFIT):
        raise UserError(f"{named(info)} is a {info.tags[OVERFIT]}: no test split is opened for it")
    refuse_again(info, again)
    before = clip_history(tracker, clips_to_test(runtime, info), info).but(named(info))
    refuse_opened_clips(before, named(info), again)
    overlap = recorded_overlap(runtime, [info], [info, *runs_compared_with(tracker, info)])
    scored = score_with_progress(runtime, info, "test")
    intervals = figure_intervals(scored.predictions)
    when, who = now_and_who()
    opened = Opened(named(info), f"{configuration_of(tracker, info)}; {scored.chosen}", when, who, overlap.kind)
    count = record_opening(tracker, info, opened, intervals, clip_ids(scored), test_scores_csv(scored))
    tracker.flush()
    history = clip_history(tracker, clip_ids(scored), info)
    others = history if history.but(named(info)).openings else None
    return OpenedTestSplit(scored, intervals, opened, count, others, overlap)


def interval_words(interval: Interval) -> str:
    """Return an interval as text, or why there is none."""
    return f"[{interval.low:.3f}, {interval.high:.3f}]" if isfinite(interval.low) else interval.note
