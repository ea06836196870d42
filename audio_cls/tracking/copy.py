"""Copy runs of MLflow from one database to another (MLflow has no such function): as JSON and files, created again under
new ids. Each new run tells the id that it had first, in the tag `original_run_id`."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from audio_cls.core.errors import UserError
from audio_cls.tracking import Tracker
from audio_cls.tracking.reads import pages, readable
from audio_cls.tracking.sender import BATCH, LOCAL

__all__ = ["discard", "make_run", "purge", "run_artifacts", "run_record", "settle", "supersede"]

ORIGINAL = "original_run_id"
IMPORTING = "importing"  # tag of a run whose import has not come to its end
_NOT_COPIED = ("mlflow.runName", "mlflow.parentRunId", "mlflow.loggedArtifacts", "local_uid", IMPORTING)


def run_record(tracker: Tracker, run_id: str) -> dict[str, Any] | None:
    """Return a run as JSON values: parameters, tags, every point of every curve, its data. None if MLflow does not
    have it.

    A run that is being recorded is given as interrupted.
    """
    with readable(tracker.uri):
        client = tracker._readable()
        if run_id.startswith(LOCAL):
            with contextlib.suppress(UserError):
                run_id = tracker.resolve(run_id).run_id
        try:
            run = client.get_run(run_id)
        except Exception as error:
            if getattr(error, "error_code", None) in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        experiment = client.get_experiment(run.info.experiment_id)
        metrics = {
            key: [[m.step, m.value, m.timestamp] for m in client.get_metric_history(run_id, key)]
            for key in sorted(run.data.metrics)
        }
    running = run.info.status == "RUNNING"
    tags = {k: v for k, v in run.data.tags.items() if k not in _NOT_COPIED}
    return {
        "run_id": run_id,
        "name": run.info.run_name or "",
        "experiment": experiment.name,
        "note": experiment.tags.get("mlflow.note.content", ""),
        "start": run.info.start_time,
        "end": int(time.time() * 1000) if running else run.info.end_time,
        "status": "KILLED" if running else run.info.status,
        "params": dict(run.data.params),
        "tags": {**tags, **({"state": "INTERRUPTED", "reason": "exported while it ran"} if running else {})},
        "metrics": metrics,
        "data": [
            {
                **{k: getattr(i.dataset, k) for k in ("name", "digest", "source_type", "source", "schema", "profile")},
                "tags": {t.key: t.value for t in i.tags},
            }
            for i in run.inputs.dataset_inputs
        ],
    }


@contextlib.contextmanager
def run_artifacts(tracker: Tracker, run_id: str) -> Iterator[list[tuple[str, Path]]]:
    """The artifacts of a run: (path in the run, file here), fetched first where they lie on a server."""
    with readable(tracker.uri):
        client = tracker._readable()
        root = str(client.get_run(run_id).info.artifact_uri)
        place = Path(root.removeprefix("file://"))
        with tempfile.TemporaryDirectory() as temporary:
            if not root.startswith(("/", "file://")):
                place = Path(client.download_artifacts(run_id, "", temporary))
            yield [(p.relative_to(place).as_posix(), p) for p in sorted(place.rglob("*")) if p.is_file()]


def make_run(
    tracker: Tracker,
    record: Mapping[str, Any],
    artifacts: Path,
    parent: str | None,
    marker: str,
    tags: Mapping[str, str],
) -> str:
    """Make a run from its record and its folder of artifacts, or none when that fails. Until `settle` it has the tag `importing`.

    Returns:
        The new run's id.
    """
    with readable(tracker.uri):
        tracker._readable()
        backend = tracker._link.connected()
        client = backend.client
        experiment = backend.experiment(record["experiment"], record["note"])
        run = client.create_run(
            experiment, start_time=record["start"], tags={IMPORTING: marker}, run_name=record["name"]
        )
        run_id = str(run.info.run_id)
        labels = {k: v for k, v in record["tags"].items() if k not in _NOT_COPIED} | {**tags, IMPORTING: marker}
        labels.setdefault(ORIGINAL, record["run_id"])
        if parent:
            labels["mlflow.parentRunId"] = parent
        try:
            _fill(client, run_id, {**record, "tags": labels}, artifacts)
        except BaseException:
            discard(tracker, [run_id])
            raise
    return run_id


def _fill(client: Any, run_id: str, record: Mapping[str, Any], artifacts: Path) -> None:
    """Log what a record holds to a run, and end it."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    texts = [RunTag(k, v) for k, v in record["tags"].items()]
    values = [Param(k, v) for k, v in record["params"].items()]
    points = [Metric(k, float(v), t, s) for k, history in record["metrics"].items() for s, v, t in history]
    for start in range(0, len(texts), BATCH):
        client.log_batch(run_id, tags=texts[start : start + BATCH], synchronous=True)
    for start in range(0, len(values), BATCH):
        client.log_batch(run_id, params=values[start : start + BATCH], synchronous=True)
    for start in range(0, len(points), 1000):
        client.log_batch(run_id, metrics=points[start : start + 1000], synchronous=True)
    fields = ("name", "digest", "source_type", "source", "schema", "profile")
    inputs = [
        DatasetInput(Dataset(**{k: d[k] for k in fields}), [InputTag(k, v) for k, v in d["tags"].items()])
        for d in record["data"]
    ]
    if inputs:
        client.log_inputs(run_id, datasets=inputs)
    if artifacts.is_dir():
        client.log_artifacts(run_id, str(artifacts))
    client.set_terminated(run_id, record["status"], record["end"])


def settle(tracker: Tracker, run_ids: list[str]) -> None:
    """The import is done: these runs are ordinary ones."""
    with readable(tracker.uri):
        for run_id in run_ids:
            tracker._readable().delete_tag(run_id, IMPORTING)


def supersede(tracker: Tracker, run_id: str, by: str) -> None:
    """Put a run away that a further copy of it replaces (it can be restored in MLflow)."""
    with readable(tracker.uri):
        client = tracker._readable()
        client.set_tag(run_id, "superseded_by", by)
        client.delete_run(run_id)


def discard(tracker: Tracker, run_ids: list[str]) -> list[str]:
    """Delete runs and the models that were logged of them, with their artifacts where these lie here.

    A model that is registered stays whole, with its files: it is used under its name, and needs no run.

    Returns:
        The registered versions that stay, as NAME/VERSION.
    """
    kept = []
    for run_id in run_ids:
        with contextlib.suppress(Exception):
            client = tracker._readable()
            run = client.get_run(run_id)
            kept += _discard_models(tracker, run)
            client.delete_run(run_id)
            _remove_files(tracker, str(run.info.artifact_uri))
    return kept


def _discard_models(tracker: Tracker, run: Any) -> list[str]:
    """Delete the models of a run that are not registered; returns the versions of those that are, as NAME/VERSION."""
    client = tracker._readable()
    run_id = run.info.run_id
    with contextlib.suppress(Exception):  # a server older than MLflow 3 has no logged models
        versions = list(pages(client.search_model_versions, f"run_id = '{run_id}'"))
        used = {version.source for version in versions} | {version.model_id for version in versions}
        wanted = f"source_run_id = '{run_id}'"
        for model in list(pages(_search_models, client, [run.info.experiment_id], wanted)):
            if model.model_id not in used and model.artifact_location not in used:
                client.delete_logged_model(model.model_id)
                _remove_files(tracker, str(model.artifact_location))
        return [f"{version.name}/{version.version}" for version in versions]
    return []


def _search_models(client: Any, experiments: list[str], wanted: str, max_results: int, page_token: str | None) -> Any:
    return client.search_logged_models(experiments, wanted, max_results=min(max_results, 50), page_token=page_token)


def _remove_files(tracker: Tracker, location: str) -> None:
    """Remove the folder of a run or model, given where its artifacts are, where that lies in the workspace."""
    folder = Path(location.removeprefix("file://"))
    if folder.is_relative_to(tracker.workspace.artifacts):
        shutil.rmtree(folder.parent, ignore_errors=True)


def purge(tracker: Tracker, marker: str, keep: Collection[str] = ()) -> int:
    """Discard what an import with this marker left when it was killed, except for runs that a study has (`keep`); how many."""
    left = [r.run_id for r in tracker.runs(filter=f"tags.{IMPORTING} = '{marker}'")]
    settle(tracker, [run_id for run_id in left if run_id in keep])
    discard(tracker, [run_id for run_id in left if run_id not in keep])
    return sum(run_id not in keep for run_id in left)
