"""`audio-cls init`: files to start from."""

from __future__ import annotations

import click

from audio_cls.cli.options import workspace_of


@click.command("init")
@click.argument("corpus")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.pass_context
def init(ctx: click.Context, corpus: str, force: bool) -> None:
    """Write studies/CORPUS.py and experiments/CORPUS.py in this folder: commented, fitted to the data, ready to run."""
    from audio_cls.cli.starter import init_command

    init_command(workspace_of(ctx), corpus, force=force)
