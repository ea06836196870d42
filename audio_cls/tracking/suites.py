"""The saved views of an ablation suite in MLflow's UI: arms as a table and as bars, curves grouped by arm, parallel coordinates.

MLflow's bars have no error bars (none in 3.17): the table of arms and the suite's page show the spread and the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from audio_cls.tracking.views import (
    View,
    bar,
    line,
    numeric_or_named_axes,
    parallel,
    quoted,
    save_view,
    section,
    view_links_of,
)

__all__ = ["arm_colours", "arm_figures", "save_suite_views", "suite_view_names"]


def arm_figures(metric: str) -> dict[str, str]:
    """Return the names of an arm's figures in MLflow, by what they are; `metric` without a prefix (`macro_f1`)."""
    return {
        "mean": f"mean/{metric}",
        "std": f"std/{metric}",
        "n": "final/runs",
        "difference": f"final/{metric}_difference",
        "p": f"final/{metric}_p_holm",
        "difference_low": f"final/{metric}_difference_low",
        "difference_high": f"final/{metric}_difference_high",
        "better": f"final/{metric}_better",
        "within": f"final/{metric}_within_margin",
        "worse": f"final/{metric}_worse",
        "wider_p": f"final/{metric}_wider_p_holm",
        "wider_low": f"final/{metric}_wider_low",
        "wider_high": f"final/{metric}_wider_high",
        "low": f"final/{metric}_low",
        "high": f"final/{metric}_high",
    }


# Colours of the arms, in order: a palette for colour-blind readers (Okabe and Ito, 2008) without its yellow and black.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#7F7F7F", "#8C564B")


def arm_colours(arms: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the tag that gives an arm's runs their colour in MLflow's charts, by arm."""
    return {arm: {"mlflow.runColor": _COLOURS[i % len(_COLOURS)]} for i, arm in enumerate(arms)}


def suite_view_names(suite: str) -> list[str]:
    """Return the names of a suite's views: arms as a table and as bars, curves by arm, runs."""
    return [f"{suite}: arms", f"{suite}: bars", f"{suite}: by arm", f"{suite}: runs"]


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
    figures, keys = arm_figures(metric), list(keys)
    mine = f"params.`ablation.suite` = {quoted(suite)}"
    # No more than fit beside the verdict, which says the interval and p as well; the others are in the column picker.
    columns = {f"metrics.`{figures[k]}`": w for k, w in (("mean", 120), ("std", 105), ("n", 85), ("difference", 175))}
    mean, spread, *others = columns
    arms = ["tags.`state`", mean, spread, "tags.`verdict`", *others, *(f"params.`{k}`" for k in keys)]
    names = suite_view_names(suite)
    of_arms: View = {
        "searchFilter": f"tags.kind = 'arm' and {mine}",
        "orderByKey": f"metrics.`{figures['mean']}`",
        "orderByAsc": ascending,
        "selectedColumns": arms,
        "columnOrder": arms,
        "columnWidths": {"tags.`state`": 110, "tags.`verdict`": 520, **columns},
    }
    save_view(client, experiment_id, names[0], **of_arms)
    save_view(
        client,
        experiment_id,
        names[1],
        **of_arms,
        compareRunSections=[section("Arms", 1, 300)],  # one beside another, their titles would be cut
        compareRunCharts=[bar("Arms", m, 100) for m in (figures["mean"], figures["difference"], "final/train_seconds")],
    )
    judged = f"{select}/{metric}"
    cells = ["tags.`state`", f"metrics.`{judged}`", "params.`ablation.arm`", "params.`seed`", *(f"params.`{k}`" for k in keys)]  # fmt: skip
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
        names[2],
        **common,
        groupBy={"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "ablation.arm"}]},
        compareRunSections=[section("Curves", 1), section("Gap", 1, 300)],
        compareRunCharts=[
            bar("Gap", "final/loss_gap", 100),
            line("Curves", f"val/{metric}", 100),
            line("Curves", "val/loss", 100),
            line("Curves", "train/loss", 100),
        ],
    )
    axes = ["ablation.arm", "seed", *numeric_or_named_axes(client, experiment_id, common["searchFilter"], keys)]
    save_view(
        client,
        experiment_id,
        names[3],
        **common,
        compareRunSections=[section("Runs", 1, 460), section("Figures", 1)],
        compareRunCharts=[parallel("Runs", "arms, seeds, folds", judged, axes, 500), bar("Figures", judged, 100)],
    )
    links = view_links_of(client.get_experiment(experiment_id), address)
    return {name: links[name] for name in names if name in links}
