"""The root command, and what happens to an error. Everything heavy is imported inside the commands."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from audio_cls import __version__
from audio_cls.cli import ablations, data, demo, doctor, experiments, listen, models, predict, runs, studies, train
from audio_cls.cli.console import ConsoleDisplay, say
from audio_cls.cli.export import export
from audio_cls.cli.init import init
from audio_cls.cli.options import ADDRESSES, STORAGE, TRACKING_HELP, Commands, serving_options, workspace_of
from audio_cls.core.disk import is_disk_full
from audio_cls.core.errors import UserError
from audio_cls.core.formatting import PrintableFormatter
from audio_cls.core.interpreter import safe_environment
from audio_cls.core.masking import hide_addresses
from audio_cls.core.notices import install
from audio_cls.core.stopping import Interrupted


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="audio-cls")
@click.option(
    "--workspace",
    type=click.Path(path_type=Path),
    envvar="AUDIO_CLS_WORKSPACE",
    help="Folder of mlflow.db, optuna.db, mlruns/ and corpora/. Default: here.",
)
@click.option("--tracking", metavar="URL", help=TRACKING_HELP)
def cli(workspace: Path | None, tracking: str | None) -> None:
    """Search, train, track and compare audio classifiers: Optuna searches, MLflow records, PyTorch trains."""


@cli.command("ui")
@serving_options(port=5000, what="MLflow")
@STORAGE
@click.pass_context
def ui(ctx: click.Context, port: int, host: str, browser: bool, storage: str | None) -> None:
    """Serve a page with the studies, suites, runs and corpora of this workspace, and MLflow's UI."""
    from audio_cls.ui.serving import serve_ui

    ctx.exit(serve_ui(workspace_of(ctx), port, host, browser=browser, storage=storage, say=say))


for command in (
    data.data,
    init,
    experiments.keys,
    doctor.doctor,
    train.train,
    runs.evaluate,
    predict.predict,
    listen.listen,
    demo.demo,
    models.promote,
    models.models,
    export,
    studies.study,
    ablations.ablate,
    runs.compare,
    runs.report,
):
    cli.add_command(command)


def main(argv: list[str] | None = None) -> int:
    """Entry point: a user's error is one message and exit code 2, an interrupt exit code 130."""
    run: Callable[..., Any] = cli.main
    install(ConsoleDisplay())
    if argv is None:
        _hide_passwords()
    # OpenMP's threads wait for each other in a busy loop by default: on cores that others use too, a run took twenty times as
    # long. Read when PyTorch is loaded, and handed on to workers.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if logging.lastResort is not None:  # prints our warnings
        logging.lastResort.setFormatter(PrintableFormatter())
    try:
        ended = run(args=argv, prog_name="audio-cls", standalone_mode=False)
    except UserError as error:
        click.secho("error: ", fg="red", bold=True, nl=False, err=True)
        say(error, err=True)
        return 2
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        say(shown.getvalue().rstrip("\n"), err=True)
        return 2
    except Interrupted as left:
        say(left)
        return 130
    except (click.Abort, KeyboardInterrupt):
        say("interrupted", err=True)
        return 130
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except BrokenPipeError:
        return 0
    except OSError as error:
        if is_disk_full(error):
            message = f"disk full: {error}. Make room and run the same command again."
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            message = f"not allowed: {error}"
        elif error.errno == errno.ENAMETOOLONG:
            path = str(error.filename)
            message = f"{path[:60]}...: a path of {len(path):,} characters is too long"
        else:
            raise
        click.secho("error: ", fg="red", bold=True, nl=False, err=True)
        say(message, err=True)
        return 2
    return ended if type(ended) is int else 0  # what a command gave to ctx.exit


def _hide_passwords() -> None:
    """Where an address on the command line holds a password, start again with it in the environment: a command line can be
    read by every user of the machine, for as long as a search runs."""
    words, environment = hide_addresses(sys.orig_argv, ADDRESSES)
    if environment:
        os.execve(sys.executable, [sys.executable, "-P", *words[1:]], {**safe_environment(), **environment})
