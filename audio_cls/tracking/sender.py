"""Send one run's operations to MLflow. Repeating an operation changes nothing.

An operation is a plain dictionary (it may have lain in the outbox, and come from a process that has died): `open`, `params`,
`dataset`, `metrics`, `tags`, `artifact`, `model`, `finish`. What makes a repetition harmless: a run is found by its tag `local_uid`
before it is made; a metric carries the time at which it was measured, so that MLflow sees the same row, and steps that are
there are left out; parameters that are there are left out; tags, artifacts and the end are written over by themselves.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audio_cls.core.workspace import Workspace
from audio_cls.tracking.models import send_model
from audio_cls.tracking.notes import NOTE, note_tags
from audio_cls.tracking.outbox import Operation, Outbox
from audio_cls.tracking.store import Refused, create_experiment

__all__ = ["Backend", "Sender", "clean_key", "clean_value", "finite"]

BATCH = 100  # parameters or tags in a request; metrics may be 1000
LOCAL = "local-"  # how the id of a run begins that the server does not know yet


class NotYet(Exception):
    """Something that this operation needs has not been sent yet: try again later."""


class Backend:
    """A connected server or database: its client, and what has been found out about it."""

    def __init__(self, client: Any, workspace: Workspace, uri: str | None) -> None:
        self.client, self.workspace, self.uri = client, workspace, uri
        self.run_ids: dict[str, str] = {}  # local uid -> run id
        self._experiments: dict[str, str] = {}

    def experiment(self, name: str, note: str = "", tags: Mapping[str, str] | None = None) -> str:
        """Return the id of the experiment, created where absent, restored where deleted; what its tags already
        say stays.
        """
        if name in self._experiments:
            return self._experiments[name]
        wanted = {"mlflow.experimentKind": "custom_model_development", **(tags or {})}
        wanted = {k: v[:5000] for k, v in wanted.items()} | note_tags(note)
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                self._experiments[name] = create_experiment(self.client, self.workspace, self.uri, name, wanted)
                return self._experiments[name]
            except Exception as error:  # another process was faster
                if getattr(error, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self.client.get_experiment_by_name(name)
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        if NOTE in found.tags:
            wanted = {k: v for k, v in wanted.items() if k not in note_tags(note)}
        for key, value in wanted.items():
            if key not in found.tags:
                self.client.set_experiment_tag(found.experiment_id, key, value)
        self._experiments[name] = str(found.experiment_id)
        return self._experiments[name]

    def find(self, uid: str, experiment_id: str) -> Any:
        """Return the MLflow run with this id, or that was made under this local uid; None if there is none."""
        run_id = self.run_ids.get(uid, uid)
        if not run_id.startswith(LOCAL):
            try:
                run = self.client.get_run(run_id)
                if run.info.lifecycle_stage == "active":
                    return run
            except Exception as error:
                if getattr(error, "error_code", None) not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
        hits = self.client.search_runs(
            [experiment_id], f"tags.local_uid = '{uid}'", order_by=["attributes.start_time ASC"], max_results=1
        )
        return hits[0] if hits else None


class Sender:
    """Sends the operations of one run. `careful`: the run may hold steps that this process has not sent."""

    def __init__(self, uid: str, run_id: str | None, careful: bool) -> None:
        self.uid, self.run_id, self.careful = uid, run_id, careful
        self._params: dict[str, str] = {}
        self._steps: dict[
            str, dict[int, float]
        ] = {}  # metric -> step -> last value, as far as the server has been asked

    def send(self, backend: Backend, operation: Operation, again: bool) -> None:
        """Carry out one operation; `again` where an earlier attempt may have succeeded unnoticed.

        Raises:
            Exception: whatever MLflow raises; `NotYet` where the run's parent has not been sent.
        """
        verb = operation["op"]
        if verb == "open":
            self._open(backend, operation, again)
            return
        if self.run_id is None:
            raise NotYet(f"the run {self.uid} has not been created")
        getattr(self, f"_send_{verb}")(backend.client, operation, again or self.careful)

    def forget(self) -> None:
        """After a failure nobody knows what has arrived: ask the server again."""
        self._steps.clear()
        self._params.clear()

    def _open(self, backend: Backend, operation: Operation, again: bool) -> None:
        experiment_id = backend.experiment(**operation["experiment"])
        tags = {"local_uid": self.uid, **operation["tags"]}
        parent = operation.get("parent")
        if parent and parent.startswith(LOCAL):
            found = backend.find(parent, experiment_id)
            if found is None and any(head.get("uid") == parent for _, head in Outbox.heads(backend.workspace.outbox)):
                raise NotYet(f"the parent run {parent} has not been sent")
            parent = found.info.run_id if found is not None else None
        if parent:
            tags["mlflow.parentRunId"] = parent
        run = backend.find(self.uid, experiment_id) if operation["resume"] or again else None
        if run is None:
            run = backend.client.create_run(
                experiment_id, start_time=operation["time"], tags=tags, run_name=operation["name"]
            )
        else:
            self.careful = True
            self._params = dict(run.data.params)
            tags.pop("local_uid")
            if not again or operation["time"] >= (
                run.info.end_time or 0
            ):  # else it has ended since: a successor was faster
                self._log_tags(backend.client, run.info.run_id, tags)
                backend.client.update_run(run.info.run_id, status="RUNNING")
        self.run_id = run.info.run_id
        backend.run_ids[self.uid] = run.info.run_id

    def _params_present(self, client: Any) -> dict[str, str]:
        if not self._params:
            self._params = dict(client.get_run(self.run_id).data.params)
        return self._params

    def _send_params(self, client: Any, operation: Operation, careful: bool) -> None:
        from mlflow.entities import Param

        present = self._params_present(client) if careful else {}
        values = [(k, v) for k, v in operation["values"].items() if k not in present]
        for start in range(0, len(values), BATCH):
            chunk = values[start : start + BATCH]
            client.log_batch(self.run_id, params=[Param(k, v) for k, v in chunk], synchronous=True)

    def _send_metrics(self, client: Any, operation: Operation, careful: bool) -> None:
        from mlflow.entities import Metric

        step, values = operation["step"], operation["values"]
        if careful:
            values = {
                k: v for k, v in values.items() if not self._has(client, k, step, v, operation.get("replace", False))
            }
        metrics = [Metric(k, v, operation["time"], step) for k, v in values.items()]
        for start in range(0, len(metrics), 1000):
            client.log_batch(self.run_id, metrics=metrics[start : start + 1000], synchronous=True)
        for key, value in values.items():
            if key in self._steps:
                self._steps[key][step] = value

    def _has(self, client: Any, key: str, step: int, value: float, replace: bool) -> bool:
        if key not in self._steps:
            history = sorted(client.get_metric_history(self.run_id, key), key=lambda m: m.timestamp)
            self._steps[key] = {m.step: m.value for m in history}
        steps = self._steps[key]
        if step not in steps:
            return False
        return not replace or steps[step] == value or (math.isnan(steps[step]) and math.isnan(value))

    def _send_dataset(self, client: Any, operation: Operation, _: bool) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        text = {k: operation[k] for k in ("name", "digest", "source_type", "source", "profile")}
        tag = InputTag("mlflow.data.context", operation["context"])
        client.log_inputs(self.run_id, datasets=[DatasetInput(Dataset(schema=None, **text), [tag])])

    def _send_tags(self, client: Any, operation: Operation, _: bool) -> None:
        self._log_tags(client, self.run_id, operation["values"])

    @staticmethod
    def _log_tags(client: Any, run_id: str | None, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        items = [RunTag(k, v) for k, v in tags.items()]
        for start in range(0, len(items), BATCH):
            client.log_batch(run_id, tags=items[start : start + BATCH], synchronous=True)

    def _send_artifact(self, client: Any, operation: Operation, _: bool) -> None:
        folder = operation.get("folder") or None
        if "text" in operation:
            client.log_text(
                self.run_id, operation["text"], f"{folder}/{operation['name']}" if folder else operation["name"]
            )
        elif not Path(operation["path"]).exists():
            raise Refused(f"the artifact {operation['path']} is gone")
        elif Path(operation["path"]).is_dir():
            name = Path(operation["path"]).name
            client.log_artifacts(self.run_id, operation["path"], f"{folder}/{name}" if folder else name)
        else:
            client.log_artifact(self.run_id, operation["path"], folder)

    def _send_model(self, client: Any, operation: Operation, _: bool) -> None:
        assert self.run_id is not None
        send_model(client, self.run_id, operation)

    def _send_finish(self, client: Any, operation: Operation, _: bool) -> None:
        self._log_tags(client, self.run_id, operation["tags"])
        client.set_terminated(self.run_id, operation["status"], operation["time"])


def clean_key(key: str) -> str:
    """Return a name that MLflow takes: letters, digits, `_ - . space : /`, at most 250; anything else becomes `_`."""
    key = re.sub(r"[^\w\-. :/]", "_", str(key)).strip("/")
    return key if len(key) <= 250 else f"{key[:233]}~{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def clean_value(value: Any, limit: int) -> str:
    """Return a parameter's or tag's text: strings as they are, None as `none`, else JSON; too long ones keep a digest
    of the rest.
    """
    if isinstance(value, str):
        text = value
    elif value is None:
        text = "none"
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    if len(text) <= limit:
        return text
    return f"{text[: limit - 40]}... sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def finite(value: Any) -> float | None:
    """Return a metric's value: infinities become NaN (MLflow stores them as 1.8e308, which ruins every axis), no
    number is None.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return math.nan if math.isinf(number) else number
