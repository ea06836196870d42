"""The test split. It is opened here only: who chose what, and by which metric, is recorded before a figure is shown; each
opening is counted, a second one refused unless asked for, and every figure has an interval (clips or groups resampled).
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

import click

from audio_cls.ablation.bootstrap import Interval, figure_intervals
from audio_cls.console import table
from audio_cls.errors import UserError
from audio_cls.evaluation import Scored, print_figures, score_with_progress
from audio_cls.scores import scores_csv

if TYPE_CHECKING:
    from audio_cls.data.corpus import Corpus
    from audio_cls.preparation import Runtime
    from audio_cls.tracking import RunInfo, Tracker

__all__ = [
    "TEST_SCORES",
    "Opened",
    "clip_groups",
    "configuration_of",
    "interval_words",
    "now_and_who",
    "open_run",
    "opened_on",
    "record_opening",
    "refuse_again",
    "test_scores_csv",
]

TEST_SCORES = "scores_test.csv"
"""The artifact with the probabilities of a run's test clips, once they have been opened."""


@dataclass(frozen=True)
class Opened:
    """What an opening is recorded as: what chose the weights and the configuration, when, and by whom."""

    chosen: str
    when: str
    who: str


def now_and_who() -> tuple[str, str]:
    """The time, and the user's name on this machine."""
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


def configuration_of(tracker: Tracker, info: RunInfo) -> str:
    """How the configuration of a run was come by, in words."""
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


def opened_on(tracker: Tracker, split_digest: str) -> list[RunInfo]:
    """The runs whose test split was opened and had the same clips."""
    return tracker.runs(None, f"tags.`split.digest` = '{split_digest}' and tags.`test.openings` LIKE '%'")


def record_opening(
    tracker: Tracker, info: RunInfo, opened: Opened, figures: Mapping[str, Interval], scores: str = ""
) -> int:
    """Count an opening on a run, with its figures (`test/...`, `test/..._low`, `test/..._high`); how many there are now."""
    count = int(info.tags.get("test.openings", "0")) + 1
    run = tracker.reopen(info.run_id)
    run.tags(
        {
            "test.openings": str(count),
            "test.first_opened": info.tags.get("test.first_opened") or opened.when,
            "test.last_opened": opened.when,
            "test.opened_by": opened.who,
            "test.chosen_by": opened.chosen,
        }
    )
    values = {}
    for name, interval in figures.items():
        for suffix, value in (("", interval.estimate), ("_low", interval.low), ("_high", interval.high)):
            if isfinite(value):
                values[f"test/{name}{suffix}"] = value
    run.final(values)
    if scores:
        run.artifact_text(TEST_SCORES, scores)
    run.close()
    return count


def clip_groups(corpus: Corpus, clips: Sequence[int]) -> list[str]:
    """The group of each clip; one without is a group of its own."""
    return [corpus.groups[int(i)] or f"\0{int(i)}" for i in clips]


def test_scores_csv(scored: Scored) -> str:
    ids = [scored.corpus.ids[int(i)] for i in scored.clips]
    return scores_csv(ids, scored.scores, scored.corpus.classes)


def open_run(runtime: Runtime, info: RunInfo, *, again: bool) -> None:
    """Open the test split of one run: compute, record, then show."""
    tracker = runtime.tracker
    refuse_again(info, again)
    scored = score_with_progress(runtime, info, "test")
    groups = clip_groups(scored.corpus, scored.clips.tolist())
    intervals = figure_intervals(scored.scores, scored.targets, scored.corpus.task, scored.thresholds, groups)
    when, who = now_and_who()
    opened = Opened(f"{configuration_of(tracker, info)}; {scored.chosen}", when, who)
    others = [r for r in opened_on(tracker, info.tags.get("split.digest", "")) if r.run_id != info.run_id]
    count = record_opening(tracker, info, opened, intervals, test_scores_csv(scored))
    tracker.flush()

    units = {interval.n_units for interval in intervals.values()}
    drawn = "clips" if units == {len(scored.clips)} else f"{max(units)} groups"
    table(
        f"{info.name}: {len(scored.clips)} test clips",
        ["metric", "test", f"95 % interval over {drawn}"],
        [[name, interval.estimate, interval_words(interval)] for name, interval in intervals.items()],
    )
    print_figures(scored)
    click.echo(f"chosen: {opened.chosen}")
    click.echo(f"the test split of this run has been opened {count} time(s); recorded ({opened.who}, {opened.when})")
    if others:
        names = ", ".join(f"{r.name} ({r.run_id[:8]})" for r in others[:3]) + (", ..." if len(others) > 3 else "")
        click.echo(
            f"the same test clips were opened by {len(others)} other run(s): {names}. The best of several test figures is no "
            "longer an unbiased one"
        )


def interval_words(interval: Interval) -> str:
    """An interval as text, or why there is none."""
    return f"[{interval.low:.3f}, {interval.high:.3f}]" if isfinite(interval.low) else interval.note
