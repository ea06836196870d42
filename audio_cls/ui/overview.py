"""What a workspace holds, for the start page: studies, suites, runs and corpora, each with its state and best figures."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.metrics.base import plain_name
from audio_cls.tracking import RunInfo, Tracker
from audio_cls.tracking.suites import arm_figures, suite_view_names
from audio_cls.tracking.views import quoted, study_view_names

if TYPE_CHECKING:
    from audio_cls.queue.storage import StudyStorage

__all__ = ["ArmRow", "Collector", "CorpusRow", "Overview", "RunRow", "StudyRow", "SuiteRow"]

RUNS_SHOWN = 50
MAX_AGE_SECONDS = 2.0  # an overview is collected again when it is older
Links = list[tuple[str, str]]  # (text, address), addresses relative to the server's root


@dataclass(frozen=True)
class StudyRow:
    """A search. `state` is running, finished or interrupted; counts are of configurations."""

    name: str
    corpus: str
    state: str
    finished: int
    total: int | None
    counts: str
    metric: str
    best: float | None
    seconds_left: float | None
    links: Links


@dataclass(frozen=True)
class ArmRow:
    """An arm of a suite: the mean of the suite's metric, its standard deviation over runs, the verdict."""

    name: str
    mean: float | None
    std: float | None
    verdict: str


@dataclass(frozen=True)
class SuiteRow:
    """A suite of ablations, its arms best first."""

    name: str
    corpus: str
    state: str
    finished: int
    total: int | None
    metric: str
    arms: list[ArmRow]
    links: Links


@dataclass(frozen=True)
class RunRow:
    """A single run, a cross-validation or a confirmation. `started`: seconds since 1970."""

    name: str
    kind: str
    corpus: str
    state: str
    reason: str
    metric: str
    best: float | None
    began: float | None
    links: Links


@dataclass(frozen=True)
class CorpusRow:
    """A prepared data set; durations in seconds."""

    name: str
    clips: int
    classes: int
    seconds: float
    sample_rate: int
    task: str
    digest: str


@dataclass(frozen=True)
class Overview:
    """A workspace at one moment. problems: what could not be read, in words."""

    workspace: Path
    read_only: bool
    studies: list[StudyRow] = field(default_factory=list)
    suites: list[SuiteRow] = field(default_factory=list)
    runs: list[RunRow] = field(default_factory=list)
    corpora: list[CorpusRow] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    made: float = field(default_factory=time.time)

    @property
    def active(self) -> bool:
        """Whether something runs, so that the page is worth renewing."""
        rows: list[StudyRow | SuiteRow | RunRow] = [*self.studies, *self.suites, *self.runs]
        return any(row.state == "running" for row in rows)


class Collector:
    """Collects overviews of a workspace; keeps its connections, and an overview for `MAX_AGE_SECONDS`."""

    def __init__(self, workspace: Workspace, storage: str | None = None) -> None:
        self.workspace, self.tracker = workspace, Tracker(workspace)
        self._where = storage
        self._storage: StudyStorage | None = None
        self._views: dict[str, dict[str, str]] = {}  # experiment id -> view -> link
        self._corpora: dict[tuple[Path, int], CorpusRow] = {}
        self._last: Overview | None = None

    def overview(self) -> Overview:
        if self._last is None or time.time() - self._last.made > MAX_AGE_SECONDS:
            self._last = self._collect()
        return self._last

    def _collect(self) -> Overview:
        out = Overview(self.workspace.root, self.workspace.read_only)

        @contextlib.contextmanager
        def part(what: str) -> Iterator[None]:
            """What cannot be read is reported, and hides nothing else."""
            try:
                yield
            except Exception as error:
                text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                out.problems.append(f"{what}: {text}")

        with part("views"):
            self._views = self.tracker.views_by_experiment()
        runs: dict[str, list[RunInfo]] = {}
        for kind in ("study", "suite", "arm", "run", "cross-validation", "confirmation"):
            with part(f"runs of kind {kind}"):
                runs[kind] = self.tracker.runs(filter=f"tags.kind = '{kind}'", order_by=["attributes.start_time DESC"])
        names: list[str] = []
        with part("studies"):
            names = self._study_names()
        recorded = {run.tags.get("study", run.name): run for run in reversed(runs.get("study", []))}
        for name in sorted({*names, *recorded}):
            with part(f"study {name}"):
                out.studies.append(self._study(name, name in names, recorded.get(name)))
        for run in runs.get("suite", []):
            with part(run.name):
                out.suites.append(self._suite(run, [a for a in runs.get("arm", []) if a.parent == run.run_id]))
        singles = [run for kind in ("run", "cross-validation", "confirmation") for run in runs.get(kind, [])]
        singles.sort(key=lambda run: run.start_time or 0.0, reverse=True)
        for run in singles[:RUNS_SHOWN]:
            with part(run.name):
                out.runs.append(self._run(run))
        folders = sorted(self.workspace.corpora.iterdir()) if self.workspace.corpora.is_dir() else []
        for folder in folders:
            if (folder / "index.json").exists():
                with part(f"corpus {folder.name}"):
                    out.corpora.append(self._corpus(folder))
        return out

    # -- studies ------------------------------------------------------------------------------------------------------

    def _study_names(self) -> list[str]:
        from audio_cls.queue.storage import open_storage, study_names

        if self._storage is None:
            if self._where is None and not self.workspace.optuna_db.exists():
                return []
            self._storage = open_storage(self._where or self.workspace.optuna_db, must_exist=True)
        return study_names(self._storage)

    def _study(self, name: str, searched: bool, run: RunInfo | None) -> StudyRow:
        links = self._links(run, study_view_names(name))
        corpus = run.params.get("data.corpus", "") if run else ""
        if not searched or self._storage is None:  # in another database: what its run says
            assert run is not None
            metric = run.tags.get("study.metric", "")
            state = {"RUNNING": "running", "COMPLETE": "finished"}.get(run.state, "interrupted")
            finished = int(run.metrics.get("final/finished", 0))
            return StudyRow(name, corpus, state, finished, None, "", metric, best_of(run, metric), None, links)
        from audio_cls.queue.lease import is_dead
        from audio_cls.queue.status import stored_status

        status = stored_status(name, self._storage)
        alive = [r for r in status.rows if r.state == "RUNNING" and not is_dead(str(r.record.worker))]
        done = status.total is not None and status.finished >= status.total
        counts = {"running": len(alive), "complete": status.complete, "collapsed": status.collapsed, "pruned": status.pruned, "failed": sum(status.failed.values())}  # fmt: skip
        return StudyRow(
            name=name,
            corpus=corpus,
            state="running" if alive else "finished" if done else "interrupted",
            finished=status.finished,
            total=status.total,
            counts=", ".join(f"{n} {what}" for what, n in counts.items() if n),
            metric=status.metric,
            best=status.best.value if status.best else None,
            seconds_left=status.seconds_left if alive else None,
            links=links,
        )

    # -- suites, runs, corpora ----------------------------------------------------------------------------------------

    def _suite(self, run: RunInfo, arms: list[RunInfo]) -> SuiteRow:
        name = run.tags.get("ablation.suite", run.name)
        metric = run.tags.get("ablation.metric", "")
        figures = arm_figures(plain_name(metric))
        rows = [
            ArmRow(a.name, a.metrics.get(figures["mean"]), a.metrics.get(figures["std"]), a.tags.get("verdict", ""))
            for a in arms
        ]
        sign = 1 if _is_minimised(metric) else -1
        rows.sort(key=lambda row: (row.mean is None, sign * (row.mean or 0.0), row.name))
        planned = run.tags.get("runs", "")
        finished = int(run.metrics.get("final/runs", 0))
        if run.state == "RUNNING":
            cells = self.tracker.runs(filter=f"tags.kind = 'cell' and params.`ablation.suite` = {quoted(name)}")
            finished = sum(c.state in ("COMPLETE", "FAILED") for c in cells)
        return SuiteRow(
            name=name,
            corpus=run.params.get("data.corpus", ""),
            state=_state(run),
            finished=finished,
            total=int(planned) if planned.isdigit() else None,
            metric=metric,
            arms=rows,
            links=self._links(run, suite_view_names(name)),
        )

    def _run(self, run: RunInfo) -> RunRow:
        metric = run.params.get("training.metric", "")
        return RunRow(
            name=run.name,
            kind=run.tags.get("kind", ""),
            corpus=run.params.get("data.corpus", ""),
            state=_state(run),
            reason=run.tags.get("reason", "") or run.tags.get("collapsed", ""),
            metric=metric,
            best=best_of(run, metric),
            began=run.start_time,
            links=self._links(run, []),
        )

    def _links(self, run: RunInfo | None, views: list[str]) -> Links:
        """Return the run's views by the last part of their names, its page in MLflow, its report if there is one."""
        if run is None:
            return []
        saved = self._views.get(run.experiment_id, {})
        links = [(name.rpartition(": ")[2], saved[name]) for name in views if name in saved]
        links.append(
            ("MLflow run", f"/#/experiments/{run.experiment_id}/runs/{run.run_id}?workflowType=machine_learning")
        )
        if (Path(run.artifact_uri.removeprefix("file://")) / "report.html").is_file():
            links.append(("report", f"/report/{run.run_id}"))
        return links

    def _corpus(self, folder: Path) -> CorpusRow:
        key = (folder, (folder / "index.json").stat().st_mtime_ns)
        if key not in self._corpora:
            corpus = Corpus.open(folder)
            seconds = float(corpus.seconds.sum())
            self._corpora[key] = CorpusRow(
                folder.name, len(corpus), len(corpus.classes), seconds, corpus.sample_rate, corpus.task, corpus.digest
            )
        return self._corpora[key]


def best_of(run: RunInfo, metric: str) -> float | None:
    """Return a run's best figure by a metric (`val/macro_f1`): its own, or the mean over the runs below it."""
    name = metric.removeprefix("val/")
    found: Callable[[str], Any] = run.metrics.get
    return found(f"best/{name}") if f"best/{name}" in run.metrics else found(f"mean/best/{name}")


def _is_minimised(metric: str) -> bool:
    from audio_cls.metrics.classification import check_metric

    try:
        return check_metric(metric) == "minimize"
    except UserError:  # of a version that had it
        return False


def _state(run: RunInfo) -> str:
    return {"RUNNING": "running", "COMPLETE": "finished"}.get(run.state, run.state.lower())
