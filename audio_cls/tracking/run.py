"""One run being recorded, and the link to the server that runs share.

A `Link` tries, warns and knows when to leave a failing server alone; a `Run` puts in the outbox what the link could not send
and from then on everything, to keep the order, until the outbox is empty again.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from audio_cls.core.disk import is_disk_full
from audio_cls.core.snapshots import is_writable
from audio_cls.core.workspace import Workspace
from audio_cls.tracking.models import MODEL
from audio_cls.tracking.outbox import DAMAGED, Operation, Outbox, is_operation
from audio_cls.tracking.reads import without_password
from audio_cls.tracking.sender import Backend, NotYet, Sender, clean_key, clean_value, finite
from audio_cls.tracking.store import Breaker, Refused, is_conflict, is_final, open_client

__all__ = ["TAG_LIMIT", "Link", "Run", "State", "now_ms"]

State = Literal["COMPLETE", "PRUNED", "FAILED", "INTERRUPTED"]
_STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAILED": "FAILED", "INTERRUPTED": "KILLED"}
FIGURES = ("best/", "last/", "test/", "cross_validation/", "nested/", "final/", "mean/", "std/", "baseline/")
WEIGHTS = "weights/best.safetensors"  # the artifact
TAG_LIMIT = 8000  # MLflow's, in characters
_log = logging.getLogger("audio_cls.tracking")


class Link:
    """The connection to the workspace's own database, or to the server at `uri`; opened when it is first needed."""

    def __init__(self, workspace: Workspace, uri: str | None, retry_seconds: float) -> None:
        self.workspace, self.uri = workspace, uri
        self.breaker = Breaker(uri, retry_seconds)
        self._backend: Backend | None = None
        self._warned: set[str] = set()

    @property
    def name(self) -> str:
        """Which server an outbox is for; not its address, which may hold a password."""
        return "workspace" if self.uri is None else hashlib.sha256(self.uri.encode()).hexdigest()[:16]

    @property
    def read_only(self) -> bool:
        return self.uri is None and not is_writable(self.workspace.mlflow_db)

    def connected(self) -> Backend:
        if self._backend is None:
            self._backend = Backend(open_client(self.workspace, self.uri), self.workspace, self.uri)
        return self._backend

    def send(self, sender: Sender, operation: Operation, again: bool) -> None:
        """Carry out one operation; once more where another process has written the same row at the same moment."""
        for attempt in range(3):
            try:
                sender.send(self.connected(), operation, again or attempt > 0)
                self.breaker.worked()
                return
            except Exception as error:
                sender.forget()
                if attempt == 2 or not is_conflict(error):
                    raise
                time.sleep(0.05 * random.random())

    def drain(self, box: Outbox, sender: Sender, deadline: float) -> tuple[int, bool]:
        """Send an outbox in order: how many went, and whether it is empty now."""
        sent = 0
        sender.forget()
        for operation in box.pending():
            if time.monotonic() > deadline:
                return sent, False
            try:
                if not is_operation(operation):
                    self.damaged(box.set_aside(operation))
                elif sender.run_id is None and operation["op"] != "open":
                    box.refuse(operation, "its run was refused")
                else:
                    self.send(sender, operation, again=True)
            except NotYet:
                return sent, False
            except Exception as error:
                if not is_final(error):
                    self.fault(error)
                    return sent, False
                self.warn(error)
                box.refuse(operation, str(error))
            box.mark(sender.run_id)
            sent += 1
        return sent, True

    def damaged(self, aside: Path) -> None:
        """Say once that an outbox has damaged lines."""
        if str(aside) not in self._warned:
            self._warned.add(str(aside))
            _log.warning(
                "what was kept of a run has damaged lines: they are put aside in %s, and the rest is sent", aside
            )

    def mine(self, head: Operation) -> bool:
        """Whether an outbox is for this server; one whose head is damaged is taken to be."""
        return DAMAGED in head or head.get("backend") == self.name

    def fault(self, error: Exception) -> None:
        """The server failed: say so once, and leave it alone for a while."""
        self.warn(error)
        if not is_final(error):
            self.breaker.failed()

    def warn(self, error: Exception) -> None:
        kind = f"{type(error).__name__} {getattr(error, 'error_code', '')}".strip()
        if kind not in self._warned:
            self._warned.add(kind)
            text = without_password(" ".join(str(error).split()))[:300]
            where = "left out" if is_final(error) else f"kept in {self.workspace.outbox} and sent later"
            _log.warning(
                "tracking failed (%s): %s; %s. The run goes on; more of this kind are not shown.", kind, text, where
            )


class Run:
    """One run being recorded; made by `Tracker.start`. No method raises."""

    def __init__(self, link: Link, uid: str, resume: bool, guard: Callable[[], bool] | None = None) -> None:
        self._link, self._guard = link, guard
        self._sender = Sender(uid, None, careful=resume)
        self._logged: set[tuple[str, int]] = set()
        self._finals: dict[str, float] = {}
        self._unsaved: list[Operation] = []  # what not even the disk would take
        self._outbox: Outbox | None = None
        self._refused = False
        self._disk_full = self._dropped = False
        try:
            if resume:
                self._outbox = self._left_behind(uid)
        except Exception as error:
            link.warn(error)

    @property
    def id(self) -> str:
        """What `start(run_id=...)` and `start(parent=...)` take: MLflow's id, or a local one until the run is there."""
        return self._sender.run_id or self._sender.uid

    @property
    def run_id(self) -> str | None:
        """MLflow's id; None while the run has not been sent."""
        return self._sender.run_id

    @property
    def degraded(self) -> bool:
        """Whether something is kept that has not been sent."""
        return self._outbox is not None or bool(self._unsaved)

    @property
    def lacks_room(self) -> bool:
        """Whether something is neither sent nor kept because the disk is full: it would be lost with this process."""
        return self._disk_full and (self._dropped or bool(self._unsaved))

    def epoch(self, step: int, metrics: Mapping[str, Any], at: float | None = None) -> None:
        """Log one epoch's metrics in one batch, as measured `at` (seconds since 1970; now). A metric that has this step already
        (also from before a resume) is left."""
        values = {clean_key(k): finite(v) for k, v in metrics.items()}
        fresh = {k: v for k, v in values.items() if v is not None and (k, step) not in self._logged}
        if fresh:
            self._logged.update((k, step) for k in fresh)
            when = now_ms() if at is None else int(at * 1000)
            self._do({"op": "metrics", "step": step, "time": when, "values": fresh})

    def final(self, metrics: Mapping[str, Any], at: float | None = None) -> None:
        """Log figures of the whole run, `best/...`, `last/...`, `test/...` or `final/...` (put in front where none
        is): bars in the UI, since they have no step. A later value replaces an earlier one.

        `at` (seconds since 1970; now) is when they were known: two processes that log the same figures of the same moment
        make one record."""
        values = {k if k.startswith(FIGURES) else f"final/{k}": finite(v) for k, v in metrics.items()}
        fresh = {
            k: v
            for k, v in ((clean_key(k), v) for k, v in values.items())
            if v is not None and self._finals.get(k) != v
        }
        if fresh:
            self._finals.update(fresh)
            when = now_ms() if at is None else int(at * 1000)
            self._do({"op": "metrics", "step": 0, "time": when, "values": fresh, "replace": True})

    def tags(self, tags: Mapping[str, Any]) -> None:
        self._do({"op": "tags", "values": {clean_key(k): clean_value(v, TAG_LIMIT) for k, v in tags.items()}})

    def artifact_text(self, name: str, text: str) -> None:
        """Store a text file; `name` may have folders in front."""
        folder, _, base = name.rpartition("/")
        self._do({"op": "artifact", "text": text, "name": base, "folder": folder})

    def artifact(self, path: Path | str, folder: str = "") -> None:
        """Store a file, or a folder with what is in it, under its own name."""
        if not Path(path).exists():
            self._link.warn(Refused(f"no file {path} to store as an artifact"))
            return
        self._do({"op": "artifact", "path": str(path), "folder": folder})

    def model(self, note: str, tags: Mapping[str, Any], name: str = MODEL, weights: str = WEIGHTS) -> None:
        """Log the run's weights as an MLflow LoggedModel with the run's figures, or renew the tags of the one that is there.

        It is made, when it is sent, from the artifacts that the run has by then.

        Args:
            note: its description, in Markdown; RUN_ID in it becomes the run's id.
            name: `runs:/RUN/NAME`; a run may have several.
            weights: the artifact of the run that holds them.
        """
        labels = {clean_key(k): clean_value(v, TAG_LIMIT) for k, v in tags.items()}
        self._do({"op": "model", "name": clean_key(name), "weights": weights, "tags": labels, "note": note})

    def finish(self, state: State, reason: str = "") -> None:
        """End the run: MLflow's status FINISHED, KILLED or FAILED, distinguished by the tags `state` and `reason`."""
        tags = {"state": state, "reason": clean_value(reason, TAG_LIMIT)}
        self._do({"op": "finish", "status": _STATUS[state], "time": now_ms(), "tags": tags})
        self.close()

    def close(self) -> None:
        """Leave the run as it is (it can be resumed): what is kept is left to `Tracker.flush`."""
        try:
            self._catch_up(30.0)
        except Exception as error:
            self._link.warn(error)
        finally:  # also on a full disk: whoever takes the run up waits for it otherwise
            if self._outbox is not None:
                self._outbox.close()
                self._outbox = None

    # -- the parts of the above ---------------------------------------------------------------------------------------

    def _do(self, operation: Operation) -> None:
        link = self._link
        if link.read_only:
            link.warn(Refused(f"the workspace {link.workspace.root} is read-only"))
            self._refused = True
        if not self._refused and self._guard is not None and not self._guard():
            self._refused = True
        if self._refused:
            return
        try:
            if not self.degraded and link.breaker.allows() and self._try(operation):
                return
            self._keep(operation)
            self._catch_up()
        except Exception as error:
            self._disk_full = self._disk_full or is_disk_full(error)
            link.warn(error)

    def _try(self, operation: Operation) -> bool:
        """Send at once; true when it need not be kept. A quick failure (a connection gone stale) is tried a second time."""
        link = self._link
        for again in (False, True):
            begun = time.monotonic()
            try:
                link.send(self._sender, operation, again)
            except NotYet:
                return False
            except Exception as error:
                if is_final(error):
                    link.warn(error)
                    self._refused = operation["op"] == "open"
                    return True
                if again or time.monotonic() - begun > 1 or link.uri is None:
                    link.fault(error)
                    return False
            else:
                return True
        return False

    def _keep(self, operation: Operation) -> None:
        there = [o for o in self._unsaved if "path" not in o or Path(o["path"]).exists()]
        self._dropped = self._dropped or len(there) < len(self._unsaved)
        self._unsaved = there
        self._unsaved.append(operation)
        if self._outbox is None:
            head = {"run_id": self._sender.run_id, "backend": self._link.name}
            self._outbox = Outbox.open(self._link.workspace.outbox, self._sender.uid, head)
        while self._unsaved:
            self._outbox.append(self._unsaved[0])
            self._unsaved.pop(0)

    def _catch_up(self, seconds: float = 5.0) -> None:
        """Send what is kept, if the server may be tried now, for about `seconds` at most."""
        link = self._link
        if self._unsaved:
            self._keep(self._unsaved.pop())
        if self._outbox is None or not link.breaker.allows():
            return
        if self._sender.run_id is None:
            self._sender.run_id = self._outbox.run_id
        empty = link.drain(self._outbox, self._sender, time.monotonic() + seconds)[1]
        if empty:
            self._outbox.close()
            self._outbox = None

    def _left_behind(self, uid: str) -> Outbox | None:
        """Return what an earlier process kept of this run: it must go first. Also where it knows the run by its
        local uid alone.
        """
        link = self._link
        for path, head in Outbox.heads(link.workspace.outbox):
            if link.mine(head) and uid in (head["uid"], head["run_id"]):
                box = Outbox.take(path, wait_seconds=15)  # another process may be sending it now
                if box is not None:
                    self._sender.uid = head["uid"]
                    return box
        return None


def now_ms() -> int:
    return int(time.time() * 1000)
