"""`audio-cls export`: a run as files that need no audio_cls."""

from __future__ import annotations

from pathlib import Path

import click

from audio_cls.cli.console import say, table
from audio_cls.cli.options import TRACKING, WITH, workspace_of


@click.command("export")
@click.argument("run", metavar="RUN|STUDY")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder to make. An earlier export there is replaced.",
)
@click.option("--int8", is_flag=True, help="Also an ONNX model in 8 bits, and what it costs on validation clips.")
@TRACKING
@WITH
@click.pass_context
def export(ctx: click.Context, run: str, folder: Path, int8: bool) -> None:
    """Write a run, or a study's best, as a torch.export program and an ONNX model: waveform in, probabilities out.

    Beside them: class names and thresholds, a model card, a script that needs onnxruntime alone. Both models are compared with the run
    first. Needs the extra `export`."""
    from audio_cls.core.device import choose_device, tune_process
    from audio_cls.inference.export import export_run
    from audio_cls.inference.opening import find_run
    from audio_cls.runs.preparation import Runtime
    from audio_cls.tracking import Tracker

    tune_process()
    workspace = workspace_of(ctx)
    tracker = Tracker(workspace)
    made = export_run(Runtime(workspace, tracker, choose_device("cpu")), find_run(run, tracker), folder, int8=int8)
    rows = [
        [
            file,
            f"{(made.folder / file).stat().st_size / 1e6:.2f} MB",
            f"{speed:,.0f}",
            _difference(made.parity.get(file)),
        ]
        for file, speed in made.times_real_time.items()
    ]
    table(str(made.folder), ["model", "size", "times real time", "largest difference"], rows, right=range(1, 4))
    say(f"compared with the run on {made.clips}")
    if made.int8 is not None:
        metric, floats, bits, n = made.int8
        say(f"8 bits: {metric} {bits:.4f} instead of {floats:.4f} on {n:,} validation clips")
    say(f"audio-cls predict {made.folder} FILE.wav")


def _difference(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"
