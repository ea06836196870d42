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
import time
import zlib
from collections.abc import Sequence
from typing import Any, NoReturn

from audio_cls.errors import UserError
from audio_cls.interpreter import python_command, safe_environment
from audio_cls.tracking.store import database_uri, import_mlflow, open_client
from audio_cls.workspace import Workspace

__all__ = [
    "View",
    "bar",
    "line",
    "parallel",
    "save_view",
    "save_views",
    "section",
    "serve_ui",
    "ui_command",
    "view_links",
    "view_links_of",
]

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
    "isAccordionReordered": True,  # else sections are sorted by name, and those that the UI adds come first
    "useGroupedValuesInCharts": True,
    "hideEmptyCharts": True,
    "groupBy": None,
    "groupsExpanded": {},
    "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
}
View = dict[str, Any]


def _uuid(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def section(name: str, columns: int = 3, height: int = 360) -> View:
    """A row of charts, `columns` side by side, each `height` pixels high."""
    flags = {"display": True, "isReordered": True, "deleted": False, "isGenerated": False}
    return {"uuid": _uuid("section", name), "name": name, "columns": columns, "cardHeight": height, **flags}


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


def save_views(
    client: Any, experiment_id: str, metric: str, params: Sequence[str], address: str, ascending: bool = False
) -> dict[str, str]:
    """The three views of an experiment's trials; returns their links by name.

    Args:
        metric: what runs are ranked by: `val/macro_f1` over the epochs, its best value in `best/macro_f1`; either will do.
        params: the parameters that vary, as columns and axes; the first twelve at most are shown.
        address: of the UI, `http://127.0.0.1:5000`.
        ascending: whether less is better.
    """
    name = metric.removeprefix("best/").removeprefix("val/")
    best, over_epochs = f"best/{name}", f"val/{name}"
    params = list(params)[:12]
    columns = [
        f"metrics.`{best}`",
        *(f"params.`{p}`" for p in params),
        "tags.`state`",
        "tags.`revived`",
        "tags.`reason`",
        "attributes.`Dataset`",
    ]
    common: View = {
        "searchFilter": "tags.kind = 'trial'",
        "orderByKey": f"metrics.`{best}`",
        "orderByAsc": ascending,
        "selectedColumns": columns,
        "columnOrder": [*columns, "duration"],
        "columnWidths": {
            columns[0]: 130,
            "tags.`state`": 110,
            "tags.`revived`": 80,
            "tags.`reason`": 220,
            "attributes.`Dataset`": 180,
        },
    }
    curves = list(dict.fromkeys([over_epochs, "val/loss", "train/loss"]))
    save_view(client, experiment_id, "Trials (table)", **common)
    save_view(
        client,
        experiment_id,
        "Curves",
        **common,
        compareRunSections=[section("Curves", 2), section("Best", 1)],
        compareRunCharts=[*(line("Curves", c) for c in curves), bar("Best", best)],
    )
    save_view(
        client,
        experiment_id,
        "What matters",
        **common,
        compareRunSections=[section("What matters", 1, 460), section("Best", 1)],
        compareRunCharts=[
            parallel("What matters", "what matters", best, _axes(client, experiment_id, params)),
            bar("Best", best),
        ],
    )
    return view_links_of(client.get_experiment(experiment_id), address)


def _axes(client: Any, experiment_id: str, params: Sequence[str]) -> list[str]:
    """The parameters that make an axis: MLflow leaves out, silently, every run whose value is a word on an axis of numbers, so
    one that is a number here and `none` there would hide the runs without it; one that never varies says nothing."""
    runs = client.search_runs([experiment_id], "tags.kind = 'trial'", max_results=500)
    axes = []
    for param in params:
        values = {run.data.params.get(param, "none") for run in runs}
        if not runs or (len(values) > 1 and len({_is_number(v) for v in values}) == 1):
            axes.append(param)
    return axes or list(params)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def view_links(client: Any, address: str) -> list[tuple[str, str]]:
    """Every saved view, `("EXPERIMENT: VIEW", link)`, by experiment."""
    experiments = sorted(client.search_experiments(max_results=1000), key=lambda e: e.name)
    return [(f"{e.name}: {view}", link) for e in experiments for view, link in view_links_of(e, address).items()]


def view_links_of(experiment: Any, address: str) -> dict[str, str]:
    """The links of an experiment's saved views, by name, oldest first."""
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
        *python_command("mlflow", "server"),
        "--uvicorn-opts",
        f"--app-dir {os.devnull}",  # uvicorn puts it, the current folder by default, at the front of the search path
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


def serve_ui(workspace: Workspace, port: int = 5000, host: str = "127.0.0.1") -> NoReturn:
    """Become the UI's server, until it is interrupted. The database is created or relocated first.

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
    os.chdir(workspace.root)
    command = ui_command(workspace, port, host)
    # MLflow would start a dozen job consumers for its GenAI features: nothing here uses them, and they keep a core busy.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **safe_environment()}
    os.execve(command[0], command, environment)  # not a child of ours, which a signal to us would leave behind
