"""`audio-cls demo`: a page in the browser to record, upload or pick a clip, and see what models say of it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import click

from audio_cls.cli.console import say
from audio_cls.cli.options import DEVICE, TRACKING, WITH, serving_options, workspace_of
from audio_cls.core.errors import UserError

UNITS: Mapping[str, int] = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def _bytes(_: click.Context, parameter: click.Parameter, text: str) -> int:
    """Return a size such as 100MB in bytes."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    size = round(float(found[1]) * UNITS[found[2]]) if found and found[2] in UNITS else 0
    if size < 1:
        raise UserError(
            f"--max-size {text!r} is no size. Allowed: a number of bytes, or with KB, MB or GB, such as 100MB"
        )
    return size


@click.command("demo")
@click.argument("runs", nargs=-1, required=True, metavar="RUN [RUN...]")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Labels of each model.")
@click.option("--max-size", callback=_bytes, default="100MB", show_default=True, metavar="SIZE", help="Of an upload.")
@serving_options(port=7860, what="the page")
@DEVICE
@TRACKING
@WITH
@click.pass_context
def demo(
    ctx: click.Context, runs: tuple[str, ...], top: int, max_size: int, port: int, host: str, browser: bool, device: str
) -> None:
    """Serve a page that labels recordings, uploads and validation clips by trained models, several side by side.

    Ctrl-C ends it. Needs the extra `demo`."""
    from audio_cls.core.device import tune_process
    from audio_cls.inference.page_server import PageOptions, serve_page
    from audio_cls.ui.serving import has_browser

    tune_process()
    options = PageOptions(host=host, port=port, max_bytes=max_size, top=top, browser=browser and has_browser())
    serve_page(runs, workspace_of(ctx), device, options, say)
