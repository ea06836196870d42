"""The saved views of an ablation suite in MLflow's UI: a table of arms, bars and curves grouped by arm, parallel coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from audio_cls.tracking.views import View, bar, line, parallel, save_view, section, view_links_of

__all__ = ["arm_figures", "save_suite_views"]


def arm_figures(metric: str) -> dict[str, str]:
    """The names of an arm's figures in MLflow, by what they are; `metric` without a prefix (`macro_f1`)."""
    return {
        "mean": f"mean/{metric}",
        "std": f"std/{metric}",
        "n": "final/runs",
        "difference": f"final/{metric}_difference",
        "p": f"final/{metric}_p_holm",
        "difference_low": f"final/{metric}_difference_low",
        "difference_high": f"final/{metric}_difference_high",
        "low": f"final/{metric}_low",
        "high": f"final/{metric}_high",
    }


def save_suite_views(
    client: Any,
    experiment_id: str,
    suite: str,
    metric: str,
    select: str,
    keys: Sequence[str],
    address: str,
    ascending: bool = False,
) -> dict[str, str]:
    """Create or renew the views of a suite; their links by name.

    Args:
        metric: without a prefix. select: `last` or `best`, the epoch that runs are judged by.
        keys: parameters in which arms differ: columns, and axes where all values are of one sort.
        address: of the UI, `http://127.0.0.1:5000`.
        ascending: whether less is better.
    """
    figures, keys = arm_figures(metric), list(keys)[:12]
    mine = f"params.`ablation.suite` = '{suite}'"
    # No more than fit beside the verdict, which says the interval and p as well; the others are in the column picker.
    columns = {f"metrics.`{figures[k]}`": w for k, w in (("mean", 120), ("std", 105), ("n", 85), ("difference", 175))}
    arms = ["params.`ablation.arm`", *columns, "tags.`verdict`", *(f"params.`{k}`" for k in keys), "tags.`state`"]
    names = [f"{suite}: arms", f"{suite}: by arm", f"{suite}: runs"]
    save_view(
        client,
        experiment_id,
        names[0],
        searchFilter=f"tags.kind = 'arm' and {mine}",
        orderByKey=f"metrics.`{figures['mean']}`",
        orderByAsc=ascending,
        selectedColumns=arms,
        columnOrder=arms,
        columnWidths={"tags.`verdict`": 560, **columns},
    )
    judged = f"{select}/{metric}"
    cells = [f"metrics.`{judged}`", "params.`ablation.arm`", "params.`seed`", *(f"params.`{k}`" for k in keys), "tags.`state`"]  # fmt: skip
    common: View = {
        "searchFilter": f"tags.kind = 'cell' and {mine}",
        "orderByKey": f"metrics.`{judged}`",
        "orderByAsc": ascending,
        "selectedColumns": cells,
        "columnOrder": cells,
    }
    save_view(
        client,
        experiment_id,
        names[1],
        **common,
        groupBy={"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "ablation.arm"}]},
        compareRunSections=[section("Arms", 3, 300), section("Curves", 2)],
        compareRunCharts=[
            bar("Arms", judged, 100),
            bar("Arms", "final/train_seconds", 100),
            bar("Arms", "final/loss_gap", 100),
            line("Curves", f"val/{metric}", 100),
            line("Curves", "val/loss", 100),
            line("Curves", "train/loss", 100),
        ],
    )
    axes = ["ablation.arm", "seed", *_axes(client, experiment_id, common["searchFilter"], keys)]
    save_view(
        client,
        experiment_id,
        names[2],
        **common,
        compareRunSections=[section("Runs", 1, 460), section("Figures", 1)],
        compareRunCharts=[parallel("Runs", "arms, seeds, folds", judged, axes, 500), bar("Figures", judged, 100)],
    )
    links = view_links_of(client.get_experiment(experiment_id), address)
    return {name: links[name] for name in names if name in links}


def _axes(client: Any, experiment_id: str, query: str, keys: Sequence[str]) -> list[str]:
    """Parameters that make an axis: MLflow leaves out runs whose value is a word on an axis of numbers."""
    runs = client.search_runs([experiment_id], query, max_results=500)
    out = []
    for key in keys:
        values = {run.data.params.get(key, "none") for run in runs}
        if len({_is_number(v) for v in values}) == 1 and len(values) > 1:
            out.append(key)
    return out


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
