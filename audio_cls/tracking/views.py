"""What the MLflow UI opens on: saved views of an experiment, and their links.

MLflow keeps a shared view as an experiment tag `mlflow.sharedViewState.KEY` holding the state of its runs page. This is not
documented (found in 3.17): the views are a nicety, guarded by a test, and nothing depends on them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
import zlib
from collections.abc import Sequence
from typing import Any

__all__ = [
    "View",
    "bar",
    "line",
    "numeric_or_named_axes",
    "parallel",
    "quoted",
    "save_view",
    "save_views",
    "section",
    "study_view_names",
    "view_links",
    "view_links_of",
]

TAG_LIMIT = 20_000  # MLflow's, of an experiment's tag, in characters
_TAG = "mlflow.sharedViewState."
_REPLACED = ("Trials (table)", "Curves", "What matters")  # of earlier versions, which mixed the studies of a corpus
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
    """Return a row of charts, `columns` side by side, each `height` pixels high."""
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
    """Return one bar for each run: for metrics without steps, `best/...` and `final/...`."""
    return _chart("BAR", section, metric, n_runs, metricKey=metric)


def line(section: str, metric: str, n_runs: int = 20) -> View:
    """Return one curve for each run, over its epochs."""
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
    """Save a view under a name, instead of the one that had it; returns its key, which stays the same."""
    key = _uuid("view", name)
    tags = client.get_experiment(experiment_id).tags
    for tag, value in tags.items():
        if tag.startswith(_TAG) and tag != _TAG + key and _name(value) == name:
            client.delete_experiment_tag(experiment_id, tag)
    now = int(time.time() * 1000)
    created = json.loads(tags[_TAG + key]).get("createdAt", now) if _TAG + key in tags else now
    view = {"name": name, "createdAt": created, "updatedAt": now}
    while len(text := json.dumps({**view, "state": _packed(state)})) > TAG_LIMIT and state.get("selectedColumns"):
        state = _halved(state)
    client.set_experiment_tag(experiment_id, _TAG + key, text)
    return key


def _halved(state: View) -> View:
    """Return the state with half as many columns, and axes."""
    columns = state["selectedColumns"][: len(state["selectedColumns"]) // 2]
    charts = [
        {**c, "selectedParams": c["selectedParams"][: len(columns)]} if "selectedParams" in c else c
        for c in state.get("compareRunCharts", [])
    ]
    return {**state, "selectedColumns": columns, "columnOrder": columns, "compareRunCharts": charts}


def _packed(state: View) -> str:
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps({**_STATE, **state}).encode(), 9)).decode()


def save_views(
    client: Any,
    experiment_id: str,
    study: str,
    metric: str,
    params: Sequence[str],
    address: str,
    ascending: bool = False,
) -> dict[str, str]:
    """Create or renew the three views of a study's trials; returns their links by name.

    Args:
        study: whose trials the views show; their names begin with it.
        metric: what trials are ranked by: `val/macro_f1` over the epochs, its best value in `best/macro_f1`; either will do.
        params: the parameters that the study searches, as columns and axes.
        address: of the UI, `http://127.0.0.1:5000`.
        ascending: whether less is better.
    """
    name = metric.removeprefix("best/").removeprefix("val/")
    best, over_epochs = f"best/{name}", f"val/{name}"
    query = f"tags.kind = 'trial' and tags.study = {quoted(study)}"
    widths = {"tags.`state`": 110, f"metrics.`{best}`": 130, "tags.`revived`": 80, "tags.`reason`": 220}
    columns = [
        "tags.`state`",  # first: MLflow shows pruned and failed runs with the same mark
        f"metrics.`{best}`",
        *(f"params.`{p}`" for p in params),
        "metrics.`best/epoch`",
        "tags.`revived`",
        "tags.`collapsed`",
        "tags.`reason`",
    ]
    common: View = {
        "searchFilter": query,
        "orderByKey": f"metrics.`{best}`",
        "orderByAsc": ascending,
        "selectedColumns": columns,
        "columnOrder": [*columns, "duration"],
        "columnWidths": widths,
    }
    curves = list(dict.fromkeys([over_epochs, "val/loss", "train/loss"]))
    axes = numeric_or_named_axes(client, experiment_id, query, params) or list(params)
    names = study_view_names(study)
    save_view(client, experiment_id, names[0], **common)
    save_view(
        client,
        experiment_id,
        names[1],
        **common,
        compareRunSections=[section("Curves", 2), section("Best", 1)],
        compareRunCharts=[*(line("Curves", c) for c in curves), bar("Best", best)],
    )
    save_view(
        client,
        experiment_id,
        names[2],
        **common,
        compareRunSections=[section("What matters", 1, 460), section("Best", 1)],
        compareRunCharts=[parallel("What matters", "what matters", best, axes), bar("Best", best)],
    )
    experiment = client.get_experiment(experiment_id)
    for tag, value in experiment.tags.items():
        if tag.startswith(_TAG) and _name(value) in _REPLACED:
            client.delete_experiment_tag(experiment_id, tag)
    links = view_links_of(experiment, address)
    return {name: links[name] for name in names if name in links}


def study_view_names(study: str) -> list[str]:
    """Return the names of a study's views: the table, the curves, the parameters."""
    return [f"{study}: trials", f"{study}: curves", f"{study}: what matters"]


def quoted(text: str) -> str:
    """Return a text in MLflow's filter language, which has no escapes."""
    return f'"{text}"' if "'" in text else f"'{text}'"


def numeric_or_named_axes(client: Any, experiment_id: str, query: str, params: Sequence[str]) -> list[str]:
    """Return the parameters that make an axis of parallel coordinates.

    MLflow leaves out, silently, every run whose value is a word on an axis of numbers, so a parameter that is a number in one run and
    `none` in another would hide runs; one that never varies says nothing.
    """
    runs = client.search_runs([experiment_id], query, max_results=500)
    axes = []
    for param in params:
        values = {run.data.params.get(param, "none") for run in runs}
        if len(values) > 1 and len({_is_number(v) for v in values}) == 1:
            axes.append(param)
    return axes


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def view_links(client: Any, address: str) -> list[tuple[str, str]]:
    """Return every saved view, `("EXPERIMENT: VIEW", link)`, by experiment."""
    experiments = sorted(client.search_experiments(max_results=1000), key=lambda e: e.name)
    return [(f"{e.name}: {view}", link) for e in experiments for view, link in view_links_of(e, address).items()]


def view_links_of(experiment: Any, address: str) -> dict[str, str]:
    """Return the links of an experiment's saved views, by name, oldest first."""
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
