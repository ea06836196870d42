"""What the MLflow UI opens on: saved views of an experiment, their links, and the server that shows them.

MLflow keeps a shared view as an experiment tag `mlflow.sharedViewState.KEY` holding the state of its runs page. This is not
documented (found in 3.17): the views are a nicety, guarded by a test, and nothing depends on them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from typing import Any

from audio_cls.errors import UserError
from audio_cls.tracking_store import database_uri, import_mlflow, open_client
from audio_cls.workspace import Workspace

__all__ = ["View", "save_view", "save_views", "serve_ui", "ui_command", "view_links"]

_TAG = "mlflow.sharedViewState."
_STATE: dict[str, Any] = {
    "searchFilter": "",
    "orderByKey": "attributes.start_time",
    "orderByAsc": False,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "datasetsFilter": [],
    "modelVersionFilter": "All Runs",
    "selectedColumns": [],
    "columnOrder": [],
    "columnWidths": {},
    "runsHiddenMode": "SHOWALL",
    "runsPinned": [],
    "runsHidden": [],
    "compareRunCharts": [],
    "compareRunSections": [],
    "viewMaximized": False,
    "runListHidden": False,
    "isAccordionReordered": False,
    "useGroupedValuesInCharts": True,
    "hideEmptyCharts": True,
    "groupBy": None,
    "groupsExpanded": {},
    "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
}
View = dict[str, Any]


def _uuid(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _section(name: str) -> View:
    flags = {"display": True, "isReordered": False, "deleted": False, "isGenerated": False}
    return {"uuid": _uuid("section", name), "name": name, **flags}


def _chart(kind: str, section: str, title: str, n_runs: int, **fields: Any) -> View:
    return {
        "type": kind,
        "uuid": _uuid(kind, section, title),
        "metricSectionId": _uuid("section", section),
        "deleted": False,
        "isGenerated": False,
        "displayName": title,
        "runsCountToCompare": n_runs,
        **fields,
    }


def bar(section: str, metric: str, n_runs: int = 20) -> View:
    """One bar for each run: for metrics without steps, `best/...` and `final/...`."""
    return _chart("BAR", section, metric, n_runs, metricKey=metric)


def line(section: str, metric: str, n_runs: int = 20) -> View:
    """One curve for each run, over its epochs."""
    return _chart(
        "LINE",
        section,
        metric,
        n_runs,
        metricKey=metric,
        selectedMetricKeys=[metric],
        lineSmoothness=0,
        xAxisScaleType="linear",
        scaleType="linear",
        range={},
        xAxisKey="step",
        selectedXAxisMetricKey="",
        yAxisKey="metric",
        yAxisExpressions=[],
        ignoreOutliers=False,
        useGlobalXaxisKey=True,
        useGlobalLineSmoothing=True,
    )


def parallel(section: str, title: str, metric: str, params: Sequence[str], n_runs: int = 100) -> View:
    """Parallel coordinates: an axis for each parameter, the metric last, which also gives the colour."""
    chosen = {"selectedMetrics": [metric], "selectedParams": list(params), "showAllRuns": True}
    return _chart("PARALLEL", section, title, n_runs, **chosen)


def save_view(client: Any, experiment_id: str, name: str, **state: Any) -> str:
    """Save a view under a name, in place of the one that had it; returns its key, which stays the same."""
    key = _uuid("view", name)
    tags = client.get_experiment(experiment_id).tags
    for tag, value in tags.items():
        if tag.startswith(_TAG) and tag != _TAG + key and _name(value) == name:
            client.delete_experiment_tag(experiment_id, tag)
    now = int(time.time() * 1000)
    created = json.loads(tags[_TAG + key]).get("createdAt", now) if _TAG + key in tags else now
    packed = base64.b64encode(zlib.compress(json.dumps({**_STATE, **state}).encode(), 9)).decode()
    view = {"name": name, "createdAt": created, "updatedAt": now, "state": f"deflate;{packed}"}
    client.set_experiment_tag(experiment_id, _TAG + key, json.dumps(view))
    return key


def save_views(client: Any, experiment_id: str, metric: str, params: Sequence[str], address: str) -> dict[str, str]:
    """The three views of an experiment's trials; returns their links by name.

    Args:
        metric: what runs are ranked by, as it is logged over the epochs (`val/macro_f1`); `best/METRIC` is its best value.
        params: the parameters that vary, as columns and axes; the first twelve at most are shown.
        address: of the UI, `http://127.0.0.1:5000`.
    """
    best = metric if metric.startswith(("best/", "final/")) else f"best/{metric}"
    over_epochs = best.split("/", 1)[1]
    params = list(params)[:12]
    columns = [
        f"metrics.`{best}`",
        *(f"params.`{p}`" for p in params),
        "tags.`state`",
        "tags.`reason`",
        "attributes.`Dataset`",
    ]
    common: View = {
        "searchFilter": "tags.kind = 'trial'",
        "orderByKey": f"metrics.`{best}`",
        "selectedColumns": columns,
    }
    curves = list(dict.fromkeys([over_epochs, "val/loss", "train/loss"]))
    save_view(client, experiment_id, "Trials (table)", **common)
    save_view(
        client,
        experiment_id,
        "Curves",
        **common,
        compareRunSections=[_section("Curves"), _section("Best")],
        compareRunCharts=[*(line("Curves", c) for c in curves), bar("Best", best)],
    )
    save_view(
        client,
        experiment_id,
        "What matters",
        **common,
        compareRunSections=[_section("What matters")],
        compareRunCharts=[parallel("What matters", "what matters", best, params), bar("What matters", best)],
    )
    return _links(client.get_experiment(experiment_id), address)


def view_links(client: Any, address: str) -> dict[str, dict[str, str]]:
    """Every saved view, `{experiment: {view: link}}`; experiments without one are left out."""
    links = {e.name: _links(e, address) for e in client.search_experiments(max_results=1000)}
    return {name: found for name, found in links.items() if found}


def _links(experiment: Any, address: str) -> dict[str, str]:
    views = []
    for tag, value in experiment.tags.items():
        if tag.startswith(_TAG) and (name := _name(value)):
            mode = "CHART" if _state(value).get("compareRunCharts") else "TABLE"
            query = f"workflowType=machine_learning&compareRunsMode={mode}&viewStateShareKey={tag.removeprefix(_TAG)}"
            link = f"{address.rstrip('/')}/#/experiments/{experiment.experiment_id}/runs?{query}"
            views.append((json.loads(value).get("createdAt", 0), name, link))
    return {name: link for _, name, link in sorted(views)}


def _name(value: str) -> str:
    try:
        return str(json.loads(value).get("name", ""))
    except (ValueError, AttributeError):
        return ""


def _state(value: str) -> View:
    try:
        state = zlib.decompress(base64.b64decode(json.loads(value)["state"].removeprefix("deflate;")))
        return dict(json.loads(state))
    except (ValueError, KeyError, zlib.error):
        return {}


def ui_command(workspace: Workspace, port: int = 5000, host: str = "127.0.0.1") -> list[str]:
    """The command that serves MLflow's UI on the workspace."""
    return [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        database_uri(workspace.mlflow_db),
        "--default-artifact-root",
        str(workspace.artifacts),
        "--host",
        host,
        "--port",
        str(port),
        "--workers",
        "1",
    ]


def serve_ui(workspace: Workspace, port: int = 5000, host: str = "127.0.0.1") -> int:
    """Serve the UI until it is interrupted; returns its exit code. The database is created or relocated first.

    Raises:
        UserError: where the port is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"the UI cannot listen on {host}:{port}: {error.strerror}. Choose another --port."
            ) from None
    import_mlflow()
    open_client(workspace, None)
    process = subprocess.Popen(ui_command(workspace, port, host), cwd=workspace.root, env=dict(os.environ))
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        return 0
