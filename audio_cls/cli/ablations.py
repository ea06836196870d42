"""`audio-cls ablate`: suites run, reported on, listed."""

from __future__ import annotations

from pathlib import Path

import click

from audio_cls.cli.options import DEVICE, GRACE, SET, TRACKING, WITH, Commands, workspace_of


@click.group(cls=Commands)
def ablate() -> None:
    """Compare arms that differ in declared keys: run, report, list."""


@ablate.command("run")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option(
    "--seeds", type=click.IntRange(1), default=None, help="How many, in place of the file's; more extend a suite."
)
@click.option("--retry-failed", "retry", is_flag=True, help="Train failed runs anew.")
@SET
@DEVICE
@WITH
@GRACE
@TRACKING
@click.pass_context
def ablate_run(ctx: click.Context, file: Path, workers: int, seeds: int | None, retry: bool, assignments: tuple[str, ...], device: str, grace: float) -> None:  # fmt: skip
    """Run the suite that FILE declares (ABLATION), its base changed by --set; run again, it fills only what is missing."""
    from audio_cls.cli.ablation_commands import run_command

    run_command(
        workspace_of(ctx),
        file,
        workers=workers,
        seeds=seeds,
        retry=retry,
        assignments=assignments,
        device=device,
        grace=grace,
    )


@ablate.command("report")
@click.argument("name_or_file")
@WITH
@TRACKING
@click.pass_context
def ablate_report(ctx: click.Context, name_or_file: str) -> None:
    """What a suite says so far: arms, differences, verdicts; the HTML page; MLflow's views.

    A suite that was run with --set is named, not given by its file."""
    from audio_cls.cli.ablation_commands import report_command

    report_command(workspace_of(ctx), name_or_file)


@ablate.command("list")
@WITH
@TRACKING
@click.pass_context
def ablate_list(ctx: click.Context) -> None:
    """The suites of this workspace and how far they are."""
    from audio_cls.cli.ablation_commands import list_command

    list_command(workspace_of(ctx))
