"""Reading what MLflow holds: runs, curves, artifacts; errors in the user's words."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audio_cls.core.errors import UserError, choices, did_you_mean
from audio_cls.core.masking import mask

__all__ = [
    "RunInfo",
    "curve",
    "download",
    "fetch",
    "pages",
    "readable",
    "resolve",
    "runs",
    "unreachable",
    "without_password",
]


@dataclass(frozen=True)
class RunInfo:
    """A run as MLflow holds it. `state` is ours (RUNNING, COMPLETE, PRUNED, FAILED, INTERRUPTED), `status` MLflow's; `metrics`
    holds the last value of each; times are seconds since 1970."""

    run_id: str
    name: str
    experiment_id: str
    status: str
    state: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    artifact_uri: str
    start_time: float | None
    end_time: float | None
    parent: str | None


def _info(run: Any) -> RunInfo:
    info, data = run.info, run.data
    return RunInfo(
        run_id=info.run_id,
        name=info.run_name or "",
        experiment_id=str(info.experiment_id),
        status=info.status,
        state=data.tags.get("state", info.status),
        params=dict(data.params),
        metrics=dict(data.metrics),
        tags=dict(data.tags),
        artifact_uri=info.artifact_uri or "",
        start_time=info.start_time / 1000 if info.start_time else None,
        end_time=info.end_time / 1000 if info.end_time else None,
        parent=data.tags.get("mlflow.parentRunId"),
    )


def unreachable(uri: str | None, error: object = "no connection") -> UserError:
    text = without_password(" ".join(str(error).split()))[:300]
    where = "the workspace's mlflow.db" if uri is None else without_password(uri)
    return UserError(f"the runs in {where} cannot be read: {text}")


def without_password(text: str) -> str:
    return mask(text).replace("//***@", "//")


@contextlib.contextmanager
def readable(uri: str | None) -> Iterator[None]:
    """MLflow's errors as `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise unreachable(uri, error) from error


def runs(client: Any, experiment: str | None, filter: str, order_by: Sequence[str], limit: int | None) -> list[RunInfo]:
    experiments = {e.name: str(e.experiment_id) for e in pages(client.search_experiments)}
    if experiment is not None and experiment not in experiments:
        raise UserError(f"no experiment {experiment!r}. {choices(experiment, experiments)}")
    ids = list(experiments.values()) if experiment is None else [experiments[experiment]]
    out: list[RunInfo] = []
    try:
        for run in pages(client.search_runs, ids, filter_string=filter, order_by=list(order_by) or None):
            out.append(_info(run))
            if limit is not None and len(out) >= limit:
                break
    except Exception as error:
        if getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE":
            raise UserError(f"the filter {filter!r} (order {list(order_by)}) does not parse: {error}") from None
        raise unreachable(None, error) from error
    return out


def curve(client: Any, run_id: str, key: str) -> list[tuple[int, float]]:
    try:
        points = client.get_metric_history(run_id, key)
        if not points:
            known = client.get_run(run_id).data.metrics
            raise UserError(f"the run {run_id} has no metric {key!r}. {choices(key, known)}")
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"the metric {key!r} of the run {run_id} cannot be read: {error}") from error
    return [(m.step, m.value) for m in sorted(points, key=lambda m: (m.step, m.timestamp))]


def download(client: Any, run_id: str, artifact: str, to: Path | None) -> Path:
    try:
        root = client.get_run(run_id).info.artifact_uri
        place = Path(root.removeprefix("file://")) / artifact
        if to is None and root.startswith(("/", "file://")) and place.exists():
            return place
        folder = artifact.rpartition("/")[0]
        there = [a.path for a in client.list_artifacts(run_id, folder or None)]
        if artifact and artifact not in there:
            raise UserError(f"the run {run_id} has no artifact {artifact!r}. {choices(artifact, there)}")
        target = to or Path(tempfile.mkdtemp(prefix="audio_cls-"))
        target.mkdir(parents=True, exist_ok=True)
        return Path(client.download_artifacts(run_id, artifact, str(target)))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"the artifact {artifact!r} of the run {run_id} cannot be fetched: {error}") from error


def fetch(client: Any, run_id: str, artifact: str, scratch: Path) -> Path:
    """Return the local path of a run's file: where it lies, or a copy in `scratch` where the artifacts lie on a server.

    Raises:
        FileNotFoundError: when the run has no such file.
    """
    root = str(client.get_run(run_id).info.artifact_uri)
    if root.startswith(("/", "file://")):
        place = Path(root.removeprefix("file://")) / artifact
        if not place.is_file():
            raise FileNotFoundError(artifact)
        return place
    if artifact not in [a.path for a in client.list_artifacts(run_id, artifact.rpartition("/")[0] or None)]:
        raise FileNotFoundError(artifact)
    return Path(client.download_artifacts(run_id, artifact, str(scratch)))


def resolve(client: Any, text: str) -> RunInfo:
    found = runs(client, None, "attributes.run_name = '" + text.replace("'", "") + "'", (), 20) if text else []
    if not found and re.fullmatch(r"[0-9a-f]{4,32}", text):
        found = runs(client, None, f"attributes.run_id LIKE '{text}%'", (), 20)
    if not found and text.startswith("local-"):
        found = runs(client, None, f"tags.local_uid = '{text.replace(chr(39), '')}'", (), 1)
    if len(found) == 1:
        return found[0]
    if found:
        listed = "; ".join(f"{r.run_id} ({r.name}, {r.state})" for r in found)
        raise UserError(f"{text!r} means more than one run: {listed}. Give more of the id.")
    recent = runs(client, None, "", (), 500)
    near = did_you_mean(text, [r.name for r in recent] + [r.run_id for r in recent])
    some = ", ".join(f"{r.name} ({r.run_id[:8]})" for r in recent[:8]) or "none"
    raise UserError(f"no run has the id or the name {text!r}.{near} The latest: {some}.")


def pages(search: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
    """Yield all results of one of MLflow's searches, which give them page by page."""
    token = None
    while True:
        page = search(*args, max_results=1000, page_token=token, **kwargs)
        yield from page
        token = page.token
        if not token:
            return
