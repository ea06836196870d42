"""Recording runs in MLflow so that a failure of the record never costs a run.

    tracker = Tracker(Workspace.find())
    run = tracker.start("esc10", "t003 cnn4", kind="trial", params=experiment.flatten(), parent=study.id)
    run.epoch(0, {"train/loss": 2.1, "val/macro_f1": 0.31})
    run.final({"best/val/macro_f1": 0.31})
    run.finish("COMPLETE")

Every operation is tried at once, synchronously and with an explicit run id. One that fails is kept in the workspace's outbox,
and so are the run's later ones, until the server takes them all in order; what may have arrived already is looked up first,
so that each arrives once. Writing warns and never raises; reading raises `UserError`. See `tracking.store.Breaker` for what an
outage costs at most.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audio_cls.core.workspace import Workspace
from audio_cls.tracking import reads as reads
from audio_cls.tracking.addresses import running_address
from audio_cls.tracking.environment import environment_tags
from audio_cls.tracking.notes import experiment_note, renew_note
from audio_cls.tracking.outbox import Operation, Outbox
from audio_cls.tracking.reads import RunInfo
from audio_cls.tracking.run import TAG_LIMIT, Link, Run, State, now_ms
from audio_cls.tracking.sender import LOCAL, Sender, clean_key, clean_value

__all__ = ["DatasetInfo", "Run", "RunInfo", "State", "Tracker", "environment_tags"]

LOOPBACK = "http://127.0.0.1:5000"
_PARAM = 6000  # MLflow's limit, in characters
_log = logging.getLogger("audio_cls.tracking")


@dataclass(frozen=True)
class DatasetInfo:
    """The data of a run, as MLflow shows it: `name (digest)`. `digest` is cut to the 36 characters that MLflow keeps."""

    name: str
    digest: str
    task: str
    n_clips: int
    classes: tuple[str, ...]
    source: str

    def operation(self, context: str = "train") -> Operation:
        profile = {"task": self.task, "n_clips": self.n_clips, "n_classes": len(self.classes), "classes": self.classes}
        return {
            "op": "dataset",
            "name": self.name[:500],
            "digest": self.digest[:36],
            "source_type": "local",
            "source": json.dumps({"uri": self.source}),
            "profile": json.dumps(profile, ensure_ascii=False),
            "context": context,
        }

    def note(self) -> str:
        """Return the description of the experiment on this data set, in Markdown."""
        return experiment_note(self.operation())


class Tracker:
    """The runs of a workspace: on its own database, or on the MLflow server at `uri` (the workspace's `tracking` unless
    given). Nothing is opened before it is needed."""

    def __init__(self, workspace: Workspace, uri: str | None = None, retry_seconds: float = 30.0) -> None:
        self.workspace, self.uri = workspace, uri or workspace.tracking
        self._link = Link(workspace, self.uri, retry_seconds)
        self._experiments: dict[str, Operation] = {}
        self._dataset: DatasetInfo | None = None
        self._guard: Callable[[], bool] | None = None

    @property
    def read_only(self) -> bool:
        """Whether runs can be read but nothing recorded: in a workspace that is read-only, without a server."""
        return self._link.read_only

    def experiment(self, name: str, note: str = "", tags: Mapping[str, str] | None = None) -> str | None:
        """Get or create an experiment (its header note in Markdown); its id, or None while the server cannot be asked."""
        self._experiments[name] = {"name": name, "note": note, "tags": dict(tags or {})}
        try:
            return self._link.connected().experiment(**self._experiments[name]) if self._link.breaker.allows() else None
        except Exception as error:
            self._link.fault(error)
            return None

    def on(self, dataset: DatasetInfo | None) -> Tracker:
        """Return this tracker for runs on a data set: runs that it starts are recorded with it."""
        other = copy(self)
        other._dataset = dataset
        return other

    def guarded(self, guard: Callable[[], bool]) -> Tracker:
        """Return this tracker for runs that another process may take over: `guard` is asked before each operation whether the run
        is still this process's to record; once it says no, nothing more is recorded here."""
        other = copy(self)
        other._guard = guard
        return other

    @staticmethod
    def new_id() -> str:
        """Return a `run_id` for a run that is not there yet. Kept before `start`, it leads whoever takes over
        from a process that died right after to the run that it made, where there would be two.
        """
        return f"{LOCAL}{uuid.uuid4().hex}"

    def start(
        self,
        experiment_name: str,
        run_name: str,
        *,
        kind: str,
        parent: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        run_id: str | None = None,
    ) -> Run:
        """Start a run, or take the run `run_id` up again: running, its parameters, start and curve kept.

        `kind` (trial, study, run, suite, arm, cross-validation) is a tag by which the views choose runs. `parent` and
        `run_id` are ids as `Run.id` gives them; that a run was never sent, or that its server is gone, is no hindrance:
        it is made then. Parameters are texts, numbers, or anything that JSON can hold. See `on` and `guarded`.
        """
        uid = run_id or self.new_id()
        run = Run(self._link, uid, resume=run_id is not None, guard=self._guard)
        if self._dataset is not None:
            self._experiments.setdefault(experiment_name, {"name": experiment_name, "note": self._dataset.note()})
        labels = {"kind": kind, "state": "RUNNING", "reason": "", **(tags or {})}
        run._do(
            {
                "op": "open",
                "experiment": self._experiments.get(experiment_name, {"name": experiment_name}),
                "name": run_name,
                "time": now_ms(),
                "tags": {clean_key(k): clean_value(v, TAG_LIMIT) for k, v in labels.items()},
                "parent": parent,
                "resume": run_id is not None,
            }
        )
        if params:
            run._do({"op": "params", "values": {clean_key(k): clean_value(v, _PARAM) for k, v in params.items()}})
        if self._dataset is not None:
            run._do(self._dataset.operation())
        return run

    def reopen(self, run_id: str) -> Run:
        """Return a run that has ended, to add tags, figures or artifacts to; its state, end and curve stay. Takes
        MLflow's id.
        """
        run = Run(self._link, run_id, resume=True)
        run._sender.run_id = run_id
        return run

    def flush(self, seconds: float = 60.0) -> int:
        """Send what earlier runs could not, oldest first, for at most about `seconds`; returns how many operations went.

        Called at the start of every command. Runs that another process is recording are left to it. Never raises.
        """
        sent, deadline = 0, time.monotonic() + seconds
        if self.workspace.read_only:
            return 0
        for path, head in Outbox.heads(self.workspace.outbox):
            if time.monotonic() > deadline or not self._link.breaker.allows():
                break
            if not self._link.mine(head):
                continue
            try:
                box = Outbox.take(path)
                if box is None:
                    continue
                try:
                    sent += self._link.drain(box, Sender(head["uid"], box.run_id, careful=True), deadline)[0]
                finally:
                    box.close()
            except Exception as error:
                self._link.warn(error)
        if sent:
            _log.info("sent %d operations that had been kept in %s", sent, self.workspace.outbox)
        return sent

    def pending(self) -> int:
        """Return the number of runs of which something has not been sent."""
        return sum(self._link.mine(head) for _, head in Outbox.heads(self.workspace.outbox))

    # -- reading ------------------------------------------------------------------------------------------------------

    def runs(
        self, experiment: str | None = None, filter: str = "", order_by: Sequence[str] = (), limit: int | None = None
    ) -> list[RunInfo]:
        """Return runs, newest first unless set otherwise; `filter` and `order_by` in MLflow's language.

        Raises:
            UserError: for an unknown experiment, a filter that does not parse, or a server that cannot be asked.
        """
        return reads.runs(self._readable(), experiment, filter, order_by, limit)

    def curve(self, run_id: str, key: str) -> list[tuple[int, float]]:
        """Return the points (step, value) of a metric, by step."""
        return reads.curve(self._readable(), run_id, key)

    def download(self, run_id: str, artifact: str, to: Path | None = None) -> Path:
        """Return the local path of an artifact: where it lies, or a copy (in `to`, else in a new temporary folder)."""
        return reads.download(self._readable(), run_id, artifact, to)

    def resolve(self, run: str) -> RunInfo:
        """Return the run with this id, this beginning of an id (four characters or more) or this name."""
        return reads.resolve(self._readable(), run)

    # -- the UI -------------------------------------------------------------------------------------------------------

    def saved_views(
        self,
        experiment_name: str,
        study: str,
        metric: str,
        params: Sequence[str] = (),
        *,
        ascending: bool = False,
        address: str | None = None,
    ) -> dict[str, str]:
        """Create or renew the views of a study (see `tracking.views.save_views`); their links by name. In a read-only workspace
        they stay as they are. Empty, with a warning, where it fails."""
        from audio_cls.tracking.views import save_views, study_view_names

        def save(client: Any, experiment_id: str, address: str) -> dict[str, str]:
            return save_views(client, experiment_id, study, metric, params, address, ascending)

        return self._views(experiment_name, study_view_names(study), save, address)

    def suite_views(
        self,
        experiment_name: str,
        suite: str,
        metric: str,
        select: str,
        keys: Sequence[str],
        *,
        ascending: bool = False,
        address: str | None = None,
    ) -> dict[str, str]:
        """Create or renew the views of an ablation suite (see `tracking.suites.save_suite_views`), as `saved_views` does."""
        from audio_cls.tracking.suites import save_suite_views, suite_view_names

        def save(client: Any, experiment_id: str, address: str) -> dict[str, str]:
            return save_suite_views(client, experiment_id, suite, metric, select, keys, address, ascending)

        return self._views(experiment_name, suite_view_names(suite), save, address)

    def _views(
        self,
        experiment_name: str,
        names: Sequence[str],
        save: Callable[[Any, str, str], dict[str, str]],
        address: str | None,
    ) -> dict[str, str]:
        from audio_cls.tracking.views import view_links_of

        try:
            if not self._link.breaker.allows():
                return {}
            backend = self._link.connected()
            if self.read_only:
                found = backend.client.get_experiment_by_name(experiment_name)
                links = view_links_of(found, self._address(address)) if found else {}
                return {name: links[name] for name in names if name in links}
            number = backend.experiment(**self._experiments.get(experiment_name, {"name": experiment_name}))
            links = save(backend.client, number, self._address(address))
            renew_note(backend.client, number)
            return links
        except Exception as error:
            self._link.fault(error)
            return {}

    def view_links(self, address: str | None = None) -> list[tuple[str, str]]:
        """Return the saved views of all experiments, `("EXPERIMENT: VIEW", link)`."""
        from audio_cls.tracking.views import view_links

        return view_links(self._readable(), self._address(address))

    def experiment_name(self, experiment_id: str) -> str:
        """Return the name of an experiment."""
        return str(self._readable().get_experiment(experiment_id).name)

    def views_by_experiment(self) -> dict[str, dict[str, str]]:
        """Return the links of all saved views, relative to the server's root, by the experiment's id and the
        view's name.
        """
        from audio_cls.tracking.views import view_links_of

        found = self._readable().search_experiments(max_results=1000)
        return {str(e.experiment_id): view_links_of(e, "") for e in found}

    # -- the parts of the above ---------------------------------------------------------------------------------------

    def _address(self, given: str | None) -> str:
        """Where a browser finds the UI; without the password, since links are printed and kept."""
        return reads.without_password(self.uri) if self.uri else given or running_address(self.workspace) or LOOPBACK

    def _readable(self) -> Any:
        if self._link.breaker.remote and not self._link.breaker.allows():
            raise reads.unreachable(self.uri)
        with reads.readable(self.uri):
            return self._link.connected().client
