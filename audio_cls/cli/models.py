"""`audio-cls promote`, `audio-cls models`: models that have a name in MLflow's registry."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from audio_cls.cli.console import say, table
from audio_cls.cli.options import TRACKING, WITH, workspace_of
from audio_cls.core.errors import UserError

if TYPE_CHECKING:
    from audio_cls.tracking import RunInfo, Tracker
    from audio_cls.tracking.registry import ModelVersion


@click.command("promote")
@click.argument("run", metavar="RUN|STUDY")
@click.option(
    "--as", "name", default=None, help="The model's name. Default: its study's, else its MLflow experiment's."
)
@click.option("--alias", default="champion", show_default=True, help="What the model is called: NAME@ALIAS.")
@TRACKING
@WITH
@click.pass_context
def promote(ctx: click.Context, run: str, name: str | None, alias: str) -> None:
    """Give the model of a run, or of a study's best run, a name: NAME@champion.

    Where another model had the name, both are compared on the same validation clips first. Nothing is refused: a worse one is
    promoted with a warning, and the command that takes it back."""
    from audio_cls.inference.opening import find_run
    from audio_cls.inference.promotion import promote as promote_run
    from audio_cls.tracking import Tracker

    workspace = workspace_of(ctx)
    tracker = Tracker(workspace)
    tracker.flush()
    info = find_run(run, tracker)
    done = promote_run(tracker, info, name, alias)
    version = done.version
    called = f"{version.name}@{alias}"
    if not done.is_new:
        say(f"{called} is run {info.name} ({info.run_id[:8]}) already: version {version.version}")
    else:
        say(f"{called} is version {version.version} now: run {info.name} ({info.run_id[:8]})")
    if done.replaced is not None:
        say(f"it replaces version {done.replaced.version}: run {done.replaced.run_id[:8]}")
        say(done.comparison)
        if done.worse:
            back = f"audio-cls promote {done.replaced.run_id[:8]} --as {version.name} --alias {alias}"
            say(f"warning: it is worse than what it replaces. To take it back: {back}", err=True)
    say(f"use it: audio-cls predict {called} FILES")
    server = tracker.uri or f"sqlite:///{workspace.mlflow_db}"
    if tracker.uri is None:
        say(
            f"serve it: MLFLOW_TRACKING_URI={server} mlflow models serve -m models:/{called} --env-manager local -h 127.0.0.1"
        )


@click.command("models")
@click.argument("name", required=False)
@TRACKING
@click.pass_context
def models(ctx: click.Context, name: str | None) -> None:
    """List the registered models, or the versions of one, with their aliases and figures."""
    from audio_cls.core.errors import choices
    from audio_cls.tracking import Tracker
    from audio_cls.tracking.registry import model_versions

    tracker = Tracker(workspace_of(ctx))
    found = model_versions(tracker)
    if not found:
        say("no model is registered yet: audio-cls promote RUN|STUDY")
        return
    names = sorted({version.name for version in found})
    if name is not None and name not in names:
        raise UserError(f"no registered model {name!r}. {choices(name, names)}")
    shown = [version for version in found if name is None or version.name == name]
    rows = [_row(tracker, version) for version in shown]
    table("registered models", ["model", "version", "aliases", "run", "metric", "validation", "test", "since"], rows)


def _row(tracker: Tracker, version: ModelVersion) -> list[object]:
    """Return a version as a row of the table; its figures are the run's, as MLflow has them now."""
    info = _run_of(tracker, version)
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(version.created))
    head = [version.name, version.version, ", ".join(version.aliases)]
    if info is None:
        return [*head, f"{version.run_id[:8] or '?'} (gone)", "", None, None, since]
    metric = info.params.get("training.metric", "").rpartition("/")[2]
    figures = [info.metrics.get(f"{kind}/{metric}") for kind in ("best", "test")]
    return [*head, f"{info.name} ({info.run_id[:8]})", metric, *figures, since]


def _run_of(tracker: Tracker, version: ModelVersion) -> RunInfo | None:
    try:
        return tracker.resolve(version.run_id) if version.run_id else None
    except UserError:
        return None
