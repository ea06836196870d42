"""The command line: parse, call, print. Everything heavy is imported inside the commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audio_cls import __version__
from audio_cls.disk import is_disk_full
from audio_cls.errors import UserError, did_you_mean
from audio_cls.masking import hide_addresses

if TYPE_CHECKING:
    from audio_cls.workspace import Workspace


class Commands(click.Group):
    """A group that names the nearest command when one is unknown."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        known = [n for n in self.list_commands(ctx) if not self.commands[n].hidden]
        if name and not name.startswith("-") and name not in self.commands:
            raise click.UsageError(f"no command {name!r}. Allowed: {', '.join(known)}.{did_you_mean(name, known)}", ctx)
        return super().resolve_command(ctx, args)


def workspace_of(ctx: click.Context) -> Workspace:
    from audio_cls.workspace import Workspace

    root = ctx.find_root()
    return Workspace.find(root.params.get("workspace"), root.params.get("tracking"))


def _remember_tracking(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    """`--tracking` after a command's name means what it means before it."""
    if value is not None:
        ctx.find_root().params["tracking"] = value


# The options that may hold a password, and the variables by which they reach other processes.
ADDRESSES = {"--storage": "AUDIO_CLS_STORAGE", "--tracking": "AUDIO_CLS_TRACKING"}
TRACKING_HELP = "MLflow server that runs are recorded on, http://HOST:PORT. Default: AUDIO_CLS_TRACKING, else the workspace's mlflow.db."
TRACKING = click.option(
    "--tracking", metavar="URL", expose_value=False, callback=_remember_tracking, help=TRACKING_HELP
)
GRACE = click.option(
    "--grace",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="Seconds to finish an epoch in when asked to leave (SIGTERM, Ctrl-C); a longer one is given up and run again.",
)
SET = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one key of the experiment, for example optimizer.lr=1e-3. Repeatable; `audio-cls keys` lists them.",
)
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")


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


# -- data ---------------------------------------------------------------------------------------------------------


@cli.group(cls=Commands)
def data() -> None:
    """Generate, prepare and look at data sets."""


@data.command("generate")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the generator, for example n_clips=2000, imbalance=10, task=multilabel.",
)
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes. Default: one a core.")
def data_generate(directory: Path, assignments: tuple[str, ...], workers: int | None) -> None:
    """Make a data set of procedurally generated sounds in DIRECTORY (WAV files and a CSV)."""
    from audio_cls.config import parse_assignment
    from audio_cls.console import progress
    from audio_cls.data.sources.synthetic import Synthetic, generate

    config = Synthetic().override(dict(parse_assignment(a) for a in assignments))
    with progress("generating") as tell:
        generate(config, directory, workers=workers, progress=tell)
    click.echo(
        f"{directory}: {config.n_clips} clips of {config.clip_seconds:g} s, {config.task}. Next: audio-cls data prepare {directory} --name NAME"
    )


@data.command("prepare")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="The corpus's name: corpora/NAME.")
@click.option(
    "--layout", default=None, help="esc50, audio_folder, csv, synthetic. Default: recognised by what is there."
)
@click.option("--subset", default=None, help="esc10: only the clips that ESC-50's table flags so.")
@click.option(
    "--task", type=click.Choice(["multiclass", "multilabel"]), default=None, help="Default: as the labels are."
)
@click.option("--sample-rate", type=click.IntRange(1000), default=16000, show_default=True, help="Hz.")
@click.option("--max-seconds", type=float, default=None, help="Keep at most so much of each clip.")
@click.option(
    "--on-bad",
    type=click.Choice(["skip", "refuse"]),
    default="refuse",
    show_default=True,
    help="What a broken, empty, silent or mislabelled clip does.",
)
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes. Default: one a core.")
@click.pass_context
def data_prepare(ctx: click.Context, source: Path, name: str, layout: str | None, subset: str | None, task: str | None, sample_rate: int, max_seconds: float | None, on_bad: str, workers: int | None) -> None:  # fmt: skip
    """Decode, mix to mono, resample and pack SOURCE once. Interrupted, it goes on."""
    from dataclasses import replace

    from audio_cls.console import progress, table
    from audio_cls.data import sources
    from audio_cls.data.packing import prepare

    options = {k: v for k, v in {"subset": subset, "task": task}.items() if v is not None}
    manifest = replace(sources.read(source, layout, **options), name=name)
    with progress(f"preparing {name}") as tell:
        report = prepare(
            manifest,
            workspace_of(ctx).corpora / name,
            sample_rate=sample_rate,
            workers=workers,
            on_bad=on_bad,
            max_seconds=max_seconds,
            progress=tell,
        )
    made = report.corpus
    if report.bad:
        table("left out", ["clip", "row", "reason"], [[b.id, b.row or "", b.reason] for b in report.bad[:20]])
        if len(report.bad) > 20:
            click.echo(f"... and {len(report.bad) - 20} more")
    click.echo(
        f"{name}: {len(made)} clips, {len(made.classes)} classes, {made.task}, {made.sample_rate} Hz, digest {made.digest[:12]}"
        f" ({report.seconds:.1f} s). Next: audio-cls data describe {name}"
    )


@data.command("describe")
@click.argument("name")
@click.option("--html", type=click.Path(path_type=Path), default=None, help="Also write a page with plots.")
@click.pass_context
def data_describe(ctx: click.Context, name: str, html: Path | None) -> None:
    """Class and fold counts, durations, sample rates, baselines."""
    from audio_cls.console import table
    from audio_cls.data.describe import describe
    from audio_cls.preparation import open_corpus

    corpus = open_corpus(workspace_of(ctx), name)
    for part in describe(corpus).tables():
        table(part.title, part.columns, part.rows)
    if html:
        from audio_cls.report.data import data_report

        html.parent.mkdir(parents=True, exist_ok=True)
        data_report(corpus, html)
        click.echo(f"wrote {html}")


@data.command("verify")
@click.argument("name")
@click.pass_context
def data_verify(ctx: click.Context, name: str) -> None:
    """Check a corpus against its checksums."""
    from audio_cls.preparation import open_corpus

    open_corpus(workspace_of(ctx), name).verify()
    click.echo(f"{name}: every clip matches its checksum")


# -- experiments --------------------------------------------------------------------------------------------------


@cli.command("keys")
@click.argument("prefix", default="")
def keys(prefix: str) -> None:
    """The keys of an experiment, with their defaults; PREFIX narrows them (optimizer, augment.mixup, ...)."""
    from audio_cls.console import table
    from audio_cls.experiment import Experiment

    everything = Experiment.catalogue()
    rows = [[key, kind, default, kinds] for key, kind, default, kinds in everything if key.startswith(prefix)]
    if not rows:
        raise UserError(f"no key begins with {prefix!r}.{did_you_mean(prefix, [row[0] for row in everything])}")
    table("keys of an experiment", ["key", "of kind", "default", "type or choices"], rows)


@cli.command("train")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@SET
@click.option("--name", default=None, help="The run's name in MLflow. Default: from the model.")
@click.option("--folds", default=None, help="all, or a list such as 1,2,3: one run for each fold.")
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Runs for each fold, seeds counted up from the experiment's.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes, when there is more than one run.",
)
@click.option("--again", is_flag=True, help="Train anew although the same run is there.")
@DEVICE
@GRACE
@TRACKING
@click.pass_context
def train(ctx: click.Context, file: Path | None, assignments: tuple[str, ...], name: str | None, folds: str | None, seeds: int, workers: int, again: bool, device: str, grace: float) -> None:  # fmt: skip
    """Train an experiment: FILE declares EXPERIMENT, or the defaults; --set changes keys. Run again, it goes on."""
    from audio_cls.commands import train_command

    train_command(
        workspace_of(ctx),
        file,
        assignments,
        name=name,
        folds=folds,
        seeds=seeds,
        workers=workers,
        again=again,
        device=device,
        grace=grace,
    )


@cli.command("evaluate")
@click.argument("run", metavar="RUN-OR-SUITE")
@click.option("--test", is_flag=True, help="Open the test split. Who chose what is recorded.")
@click.option("--again", is_flag=True, help="Open it once more; counted.")
@DEVICE
@TRACKING
@click.pass_context
def evaluate(ctx: click.Context, run: str, test: bool, again: bool, device: str) -> None:
    """Figures of a run's best weights on its validation clips.

    With --test, on its test clips, with intervals: of a run, or of all runs of a suite, cross-validation or confirmation."""
    from audio_cls.commands import evaluate_command

    evaluate_command(workspace_of(ctx), run, test=test, again=again, device=device)


@cli.command("predict")
@click.argument("run")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@DEVICE
@TRACKING
@click.pass_context
def predict(ctx: click.Context, run: str, paths: tuple[Path, ...], top: int, as_json: bool, device: str) -> None:
    """Label audio files or folders of them with a run's best weights."""
    from audio_cls.commands import predict_command

    predict_command(workspace_of(ctx), run, list(paths), top=top, as_json=as_json, device=device)


# -- studies ------------------------------------------------------------------------------------------------------


@cli.group(cls=Commands)
def study() -> None:
    """Search with Optuna: run, look at, continue."""


STORAGE = click.option(
    "--storage",
    default=None,
    metavar="URL",
    envvar=ADDRESSES["--storage"],
    help="Optuna's storage, a file or postgresql://USER@HOST/NAME. Default: AUDIO_CLS_STORAGE, else optuna.db in the workspace.",
)


@study.command("run")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--trials",
    type=click.IntRange(1),
    required=True,
    help="Total of finished configurations; the same command again goes on.",
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Worker processes.")
@click.option(
    "--new-version",
    is_flag=True,
    help="When the declaration has changed: begin NAME.v2, with the trials whose values still count.",
)
@STORAGE
@SET
@DEVICE
@GRACE
@TRACKING
@click.pass_context
def study_run(ctx: click.Context, file: Path, trials: int, workers: int, new_version: bool, storage: str | None, assignments: tuple[str, ...], device: str, grace: float) -> None:  # fmt: skip
    """Run the study that FILE declares (or that was run under the name FILE) until --trials configurations have finished."""
    from audio_cls.study_commands import run_command

    run_command(
        workspace_of(ctx),
        file,
        trials=trials,
        workers=workers,
        storage=storage,
        assignments=assignments,
        device=device,
        grace=grace,
        new_version=new_version,
    )


@study.command("revive")
@click.argument("study_ref", metavar="STUDY")
@click.option(
    "--top", type=click.IntRange(1), default=None, help="The K best of all that were pruned, by their best epoch."
)
@click.option(
    "--trial", "numbers", type=int, multiple=True, help="This trial. Repeatable. Default: all that were pruned."
)
@click.option("--epochs", type=click.IntRange(1), default=None, help="A larger budget than they began with.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Worker processes.")
@STORAGE
@SET
@DEVICE
@GRACE
@TRACKING
@click.pass_context
def study_revive(ctx: click.Context, study_ref: str, **options: Any) -> None:
    """Take pruned trials up from their checkpoints and train them to the end. STUDY is a name or a file.

    They are exempt from pruning, go on in the same MLflow run, and are marked as revived. The same command again goes on."""
    from audio_cls.revival import revive_command

    revive_command(workspace_of(ctx), study_ref, **options)


@study.command("export")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--with-data", is_flag=True, help="Put the packed corpus in as well.")
@STORAGE
@click.pass_context
def study_export(ctx: click.Context, name: str, file: Path, with_data: bool, storage: str | None) -> None:
    """Write a study with its checkpoints and MLflow runs to one FILE; workers may go on meanwhile."""
    from audio_cls.study_export import export_command

    export_command(workspace_of(ctx), name, file, storage=storage, with_data=with_data)


@study.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--name", default=None, help="Take it in under another name.")
@click.option("--merge", is_flag=True, help="Join it with the study of this name here: two copies that both went on.")
@STORAGE
@click.pass_context
def study_import(ctx: click.Context, file: Path, name: str | None, merge: bool, storage: str | None) -> None:
    """Take in a study that `study export` wrote, here or on another machine; then `study run` goes on."""
    from audio_cls.study_import import import_command

    import_command(workspace_of(ctx), file, name=name, merge=merge, storage=storage)


@study.command("worker", hidden=True)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--trials", type=int, required=True)
@click.option("--supervisor", type=int, default=None)
@click.option("--since", type=float, default=None)
@click.option("--name", default=None)
@click.option("--only", type=int, multiple=True)
@STORAGE
@SET
@DEVICE
@GRACE
@click.pass_context
def study_worker(ctx: click.Context, file: Path, **options: Any) -> None:
    """One worker of a study; started by `study run`."""
    from audio_cls.study_commands import worker_command

    worker_command(workspace_of(ctx), file, **options)


@study.command("status")
@click.argument("name_or_file", required=False)
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Rows of the leaderboard.")
@STORAGE
@click.pass_context
def study_status(ctx: click.Context, name_or_file: str | None, top: int, storage: str | None) -> None:
    """Progress, best so far, running, pruned and failed trials with reasons, and what is left. Without a name: all studies."""
    from audio_cls.study_commands import status_command

    status_command(workspace_of(ctx), name_or_file, top=top, storage=storage)


@study.command("best")
@click.argument("name_or_file")
@click.option("--json", "as_json", is_flag=True, help="The whole experiment as JSON, for `train`.")
@STORAGE
@click.pass_context
def study_best(ctx: click.Context, name_or_file: str, as_json: bool, storage: str | None) -> None:
    """The best trial: value, parameters, and the command that trains it again."""
    from audio_cls.study_commands import best_command

    best_command(workspace_of(ctx), name_or_file, as_json=as_json, storage=storage)


@study.command("confirm")
@click.argument("name_or_file")
@click.option(
    "--top", type=click.IntRange(2), default=5, show_default=True, help="How many of the best configurations."
)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Fresh seeds for each.")
@click.option("--folds", default=None, help="all, or a list such as 1,2,3. Default: the split that was searched on.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@STORAGE
@DEVICE
@click.pass_context
def study_confirm(ctx: click.Context, name_or_file: str, top: int, seeds: int, folds: str | None, workers: int, storage: str | None, device: str) -> None:  # fmt: skip
    """Run the best configurations again on fresh seeds and folds, and rank them anew: what was luck?"""
    from audio_cls.confirmation import confirm_command

    confirm_command(workspace_of(ctx), name_or_file, top=top, seeds=seeds, folds=folds, workers=workers, storage=storage, device=device)  # fmt: skip


# -- ablations ----------------------------------------------------------------------------------------------------


@cli.group(cls=Commands)
def ablate() -> None:
    """Compare arms that differ in declared keys: run, report, list."""


@ablate.command("run")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option(
    "--seeds", type=click.IntRange(1), default=None, help="How many, in place of the file's; more extend a suite."
)
@click.option("--retry-failed", "retry", is_flag=True, help="Train failed runs anew.")
@DEVICE
@click.pass_context
def ablate_run(ctx: click.Context, file: Path, workers: int, seeds: int | None, retry: bool, device: str) -> None:
    """Run the suite that FILE declares (ABLATION); run again, it fills only what is missing."""
    from audio_cls.ablation_commands import run_command

    run_command(workspace_of(ctx), file, workers=workers, seeds=seeds, retry=retry, device=device)


@ablate.command("report")
@click.argument("name_or_file")
@click.pass_context
def ablate_report(ctx: click.Context, name_or_file: str) -> None:
    """What a suite says so far: arms, differences, verdicts; the HTML page; MLflow's views."""
    from audio_cls.ablation_commands import report_command

    report_command(workspace_of(ctx), name_or_file)


@ablate.command("list")
@click.pass_context
def ablate_list(ctx: click.Context) -> None:
    """The suites of this workspace and how far they are."""
    from audio_cls.ablation_commands import list_command

    list_command(workspace_of(ctx))


@cli.command("compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN [RUN...]")
@click.pass_context
def compare(ctx: click.Context, runs: tuple[str, ...]) -> None:
    """What differs between runs: configuration, data, code, environment, figures; paired where they pair."""
    from audio_cls.comparison import compare_command

    compare_command(workspace_of(ctx), list(runs))


# -- the rest -----------------------------------------------------------------------------------------------------


@cli.command("report")
@click.argument("run_or_study")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="The file. Default: reports/NAME.html.",
)
@STORAGE
@DEVICE
@click.pass_context
def report(ctx: click.Context, run_or_study: str, html: Path | None, storage: str | None, device: str) -> None:
    """One HTML page of a run (with clips to hear) or a study, also logged to MLflow."""
    from audio_cls.report_commands import report_command

    report_command(workspace_of(ctx), run_or_study, html=html, storage=storage, device=device)


@cli.command("ui")
@click.option("--port", type=int, default=5000, show_default=True)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Loopback unless told otherwise: MLflow has no password."
)
@click.pass_context
def ui(ctx: click.Context, port: int, host: str) -> None:
    """Open MLflow's UI on this workspace and print the links of the saved views."""
    from audio_cls.commands import ui_command

    ui_command(workspace_of(ctx), port=port, host=host)


def main(argv: list[str] | None = None) -> int:
    """Entry point: a user's error is one message and exit code 2, an interrupt exit code 130."""
    run: Callable[..., Any] = cli.main
    if argv is None:
        _hide_passwords()
    try:
        run(args=argv, prog_name="audio-cls", standalone_mode=False)
    except UserError as error:
        click.secho("error: ", fg="red", bold=True, nl=False, err=True)
        click.echo(str(error), err=True)
        return 2
    except click.UsageError as error:
        error.show()
        return 2
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except BrokenPipeError:
        return 0
    except OSError as error:
        if not is_disk_full(error):
            raise
        click.secho("error: ", fg="red", bold=True, nl=False, err=True)
        click.echo(f"disk full: {error}. Make room and run the same command again.", err=True)
        return 2
    return 0


def _hide_passwords() -> None:
    """Where an address on the command line holds a password, start again with it in the environment: a command line can be
    read by every user of the machine, for as long as a search runs."""
    words, environment = hide_addresses(sys.orig_argv, ADDRESSES)
    if environment:
        os.execve(sys.executable, [sys.executable, *words[1:]], {**os.environ, **environment})


if __name__ == "__main__":
    sys.exit(main())
