"""`audio-cls predict`, `compare`: recorded runs in use and side by side."""

from __future__ import annotations

import json
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

import click

from audio_cls.cli.console import say, table
from audio_cls.cli.options import DEVICE, TRACKING, WITH, workspace_of
from audio_cls.core.errors import UserError

if TYPE_CHECKING:
    from audio_cls.runs.comparison import Beside


def _named_paths(ctx: click.Context, _: click.Parameter, paths: tuple[str, ...]) -> tuple[Path, ...]:
    """Paths as given. An empty one (a shell's unset variable) is refused: to `Path` it is the current folder."""
    if any(not path for path in paths):
        raise UserError(
            "an empty path ('') among the files to label. Allowed: audio files and folders; . is this folder"
        )
    return tuple(Path(path) for path in paths)


@click.command("predict")
@click.argument("run")
@click.argument("paths", nargs=-1, required=True, callback=_named_paths)
@click.option("--top", type=click.IntRange(1), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@DEVICE
@TRACKING
@WITH
@click.pass_context
def predict(ctx: click.Context, run: str, paths: tuple[Path, ...], top: int, as_json: bool, device: str) -> None:
    """Label audio files or folders of them with a run's best weights.

    Files that cannot be read are named on stderr and the others labelled: exit code 1, or 2 where none could be read."""
    from audio_cls.core.device import tune_process
    from audio_cls.inference.handle import open_run
    from audio_cls.inference.labeller import audio_files

    tune_process()
    files = audio_files(paths)
    labeller = open_run(run, workspace=workspace_of(ctx)).labeller(device)
    bad = 0
    for result in labeller.label(files):
        shown = click.format_filename(result.path)  # a name need not be UTF-8
        if result.scores is None:
            bad += 1
            say(f"{shown}: {result.error}", err=True)
            if as_json:
                say(json.dumps({"path": str(result.path), "error": result.error}))
            continue
        best = labeller.top(result.scores, top)
        if as_json:
            say(json.dumps({"path": str(result.path), "labels": dict(best)}))
        else:
            say(f"{shown}: " + ", ".join(f"{label} {score:.3f}" for label, score in best))
    if bad == len(files):
        raise UserError(f"none of {len(files)} file(s) could be read")
    if bad:
        say(f"{bad} of {len(files)} files could not be labelled", err=True)
        raise SystemExit(1)


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN [RUN...]")
@WITH
@click.pass_context
def compare(ctx: click.Context, runs: tuple[str, ...]) -> None:
    """What differs between runs: configuration, data, code, environment, figures; paired where they pair."""
    from audio_cls.runs.comparison import compare_runs

    found = compare_runs(workspace_of(ctx), runs)
    heads = found.heads
    for title, rows, nothing in (
        ("configuration", found.configuration, "the configurations are equal"),
        ("data, code, surroundings", found.surroundings, "data, split, code and surroundings are equal"),
    ):
        if rows:
            table(f"{title}: what differs", ["key", *heads], rows)
        else:
            say(nothing)
    if found.figures:
        columns = ["figure", *heads, *(["difference"] if len(heads) == 2 else [])]
        table("figures", columns, found.figures, right=range(1, len(columns)))
    for beside, head in zip(found.beside, heads[1:], strict=True):
        if beside.why_not:
            say(f"{head} does not pair with {heads[0]}: {beside.why_not}")
        else:
            _show_pairs(beside, heads[0], head)


def _show_pairs(beside: Beside, first: str, head: str) -> None:
    from audio_cls.metrics.verdict import in_points

    rows = []
    for pair in beside.figures:
        scale = 100.0 if in_points(pair.metric) else 1.0
        low, high = scale * pair.interval.low, scale * pair.interval.high
        interval = pair.interval.note if isnan(low) else f"[{low:+.1f}, {high:+.1f}]"
        difference = f"{scale * pair.interval.estimate:+.1f}"
        rows.append([pair.metric, f"{scale * pair.first:.1f}", f"{scale * pair.run:.1f}", difference, interval])
    columns = ["metric", "first", "run", "difference", "95 %"]
    say(f"{head} against {first}:")
    table(f"paired bootstrap over {beside.n_clips} clips (points)", columns, rows, right=range(1, 5))
    say(
        "one run each: the interval is of these two models on other clips; training again is not in it (audio-cls ablate run)"
    )
