"""Which test clips have been opened, when, and for which runs.

Openings are counted by clips, not by run: measuring a second configuration on the same clips is a choice between test figures,
whatever the runs are called. Each opened run keeps the ids of its clips (`scores_test.csv`) and its openings (the tag
`test.history`), so that splits that share only some of their test clips are found too, and workspaces that were opened before
this tag existed are read by the older ones.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from audio_cls.core.errors import UserError
from audio_cls.training.predictions import read_scores

if TYPE_CHECKING:
    from audio_cls.core.workspace import Workspace
    from audio_cls.data.corpus import Corpus
    from audio_cls.data.splits import Split
    from audio_cls.runs.preparation import Runtime
    from audio_cls.tracking import RunInfo, Tracker

__all__ = [
    "HISTORY",
    "TEST_SCORES",
    "ClipHistory",
    "Opening",
    "clip_history",
    "clips_to_test",
    "history_of_runs",
    "named",
    "opening_tags",
    "recorded_split",
]

TEST_SCORES = "scores_test.csv"
"""The artifact with the probabilities of a run's test clips, once they have been opened."""

HISTORY = "test.history"
"""The tag with all openings of a run's test clips: a JSON list of [what was opened, when, by whom]."""

CLIPS = "test.clips"
"""The tag with the digest of the ids of the opened clips: runs with equal ones share the list of ids."""

OF_SEVERAL = ("suite", "cross-validation", "confirmation", "study", "arm")
"""Kinds of runs that have no test clips of their own."""


@dataclass(frozen=True)
class Opening:
    """One opening. what: the run, suite or cross-validation that was opened. clips: ids of the clips asked about that it showed."""

    what: str
    when: str
    who: str
    clips: frozenset[str]


@dataclass(frozen=True)
class ClipHistory:
    """The openings of some test clips, oldest first. n_clips: how many were asked about."""

    n_clips: int
    openings: tuple[Opening, ...]

    @property
    def opened(self) -> int:
        """How many of the clips have been opened at least once."""
        return len(frozenset().union(*(o.clips for o in self.openings)))

    def but(self, what: str) -> ClipHistory:
        """Without the openings of one run or suite."""
        return ClipHistory(self.n_clips, tuple(o for o in self.openings if o.what != what))

    def sentence(self) -> str:
        """`these 80 test clips have been opened 2 times: run a (1f2e3d4c) on ...; suite b on ...`; empty if never."""
        if not self.openings:
            return ""
        which = (
            f"these {self.n_clips} test clips have"
            if self.opened == self.n_clips
            else f"{self.opened} of these {self.n_clips} test clips have"
        )
        listed = [f"{o.what} on {o.when}" for o in self.openings]
        shown = listed if len(listed) <= 6 else [*listed[:3], f"{len(listed) - 5} more", *listed[-2:]]
        times = "once" if len(listed) == 1 else f"{len(listed)} times"
        return f"{which} been opened {times}: {'; '.join(shown)}"


def opening_tags(info: RunInfo, what: str, when: str, who: str, clips: Collection[str]) -> dict[str, str]:
    """Return the tags that a further opening of a run adds to those that it has."""
    before = [[o[0], o[1], o[2]] for o in _openings(info, {})]
    return {HISTORY: json.dumps([*before, [what, when, who]], ensure_ascii=False), CLIPS: _digest(clips)}


def recorded_split(runtime: Runtime, info: RunInfo) -> tuple[Corpus, Split]:
    """Return the corpus of a run and its split, by its recorded experiment.

    Raises:
        UserError: where the experiment or the corpus is not at hand.
    """
    from audio_cls.experiment import Data

    text = runtime.tracker.download(info.run_id, "experiment.json").read_text(encoding="utf-8")
    try:
        data = Data.parse(json.loads(text)["data"], f"run {info.name}")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"run {info.name} ({info.run_id[:8]}): experiment.json cannot be read: {error}") from None
    corpus = runtime.corpus(data)
    split = data.split.as_recorded(corpus, info.tags.get("split.digest"))
    return corpus, data.subset.apply(corpus, split.assign(corpus))


def clips_to_test(runtime: Runtime, info: RunInfo) -> list[str]:
    """Return the ids of the clips of a run's test split, by its recorded experiment; empty for a split without test clips.

    Raises:
        UserError: where the experiment or the corpus is not at hand.
    """
    corpus, split = recorded_split(runtime, info)
    return [corpus.ids[int(i)] for i in split.test]


def history_of_runs(workspace: Workspace, tracker: Tracker, infos: Sequence[RunInfo]) -> ClipHistory:
    """Return the openings of the test clips of some runs of one corpus, whether these runs themselves were opened or
    not. Runs whose clips are not at hand are left out.
    """
    from audio_cls.core.device import choose_device
    from audio_cls.runs.preparation import Runtime

    runtime = Runtime(workspace, tracker, choose_device("cpu"))
    clips: dict[str, list[str]] = {}
    for info in infos:
        key = info.tags.get("split.digest", info.run_id)
        if key not in clips:
            try:
                clips[key] = clips_to_test(runtime, info)
            except UserError:
                clips[key] = []
    wanted = {clip for ids in clips.values() for clip in ids}
    if not wanted:
        return ClipHistory(0, ())
    return clip_history(tracker, wanted, infos[0])


def clip_history(tracker: Tracker, clips: Collection[str], info: RunInfo) -> ClipHistory:
    """Return all openings of any of these clips in the data of a run.

    The data are the same where the digest is, and where the MLflow experiment is (a corpus that was prepared again at another
    sample rate has another digest and the same clips).
    """
    try:
        opened = tracker.runs(None, "tags.`test.openings` LIKE '%'")
    except UserError:
        opened = []
    same = [
        r
        for r in opened
        if r.experiment_id == info.experiment_id or r.tags.get("data.digest") == info.tags.get("data.digest", "-")
    ]
    wanted, parents = frozenset(clips), {r.run_id: r for r in same}
    ids: dict[str, frozenset[str]] = {}
    found: dict[tuple[str, str, int], Opening] = {}  # by what, when, and the how-manieth within that second
    for run in same:
        if run.tags.get("kind") in OF_SEVERAL:
            continue
        key = run.tags.get(CLIPS) or run.tags.get("split.digest") or run.run_id
        if key not in ids:
            ids[key] = wanted & _opened_ids(tracker, run)
        if not ids[key]:
            continue
        own: Counter[tuple[str, str]] = Counter()
        for what, when, who in _openings(run, parents):
            own[what, when] += 1
            key_of = (what, when, own[what, when])
            known = found.get(key_of)
            found[key_of] = Opening(what, when, who, ids[key] | (known.clips if known else frozenset()))
    return ClipHistory(len(wanted), tuple(sorted(found.values(), key=lambda o: (o.when, o.what))))


def _opened_ids(tracker: Tracker, run: RunInfo) -> frozenset[str]:
    try:
        return frozenset(read_scores(tracker.download(run.run_id, TEST_SCORES)).clips)
    except (UserError, OSError):
        return frozenset()


def _openings(run: RunInfo, parents: Mapping[str, RunInfo]) -> Iterable[tuple[str, str, str]]:
    """(what, when, who) of each opening of a run; by the older tags, which keep the first and the last time, where there is no
    history."""
    tags = run.tags
    try:
        listed: list[Any] = json.loads(tags[HISTORY])
        return [(str(what), str(when), str(who)) for what, when, who in listed]
    except (KeyError, ValueError, TypeError):
        pass
    times, who = tags.get("test.openings", "0"), tags.get("test.opened_by", "unknown")
    count = int(times) if times.isdigit() else 1
    first, last = (tags.get(f"test.{word}_opened", "unknown") for word in ("first", "last"))
    what = _opened_with(run, parents)
    return [(what, first if i == 0 else last, who) for i in range(count)]


def _opened_with(run: RunInfo, parents: Mapping[str, RunInfo]) -> str:
    """Return the whole that a run was opened with, else the run itself."""
    if run.tags.get("ablation.suite"):
        return f"suite {run.tags['ablation.suite']}"
    parent = parents.get(run.parent or "")
    if parent is not None and parent.tags.get("test.first_opened") == run.tags.get("test.first_opened"):
        return named(parent)
    return named(run)


def named(run: RunInfo) -> str:
    """Return a run as openings name it."""
    return f"{run.name} ({run.run_id[:8]})"


def _digest(clips: Collection[str]) -> str:
    return hashlib.sha256("\n".join(sorted(clips)).encode("utf-8", "surrogateescape")).hexdigest()[:16]
