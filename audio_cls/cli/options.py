"""What the commands share: options, the workspace, a group that names the nearest command."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audio_cls.core.errors import did_you_mean

if TYPE_CHECKING:
    from audio_cls.core.workspace import Workspace


class Commands(click.Group):
    """A group that names the nearest command when one is unknown."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        known = [n for n in self.list_commands(ctx) if not self.commands[n].hidden]
        if name and not name.startswith("-") and name not in self.commands:
            inner = [
                f"{n} {sub}" for n in known if isinstance(g := self.commands[n], click.Group) for sub in g.commands
            ]
            exact = [repr(words) for words in inner if words.split()[1] == name]
            hint = f" Did you mean {' or '.join(exact)}?" if exact else did_you_mean(name, known)
            raise click.UsageError(f"no command {name!r}. Allowed: {', '.join(known)}.{hint}", ctx)
        return super().resolve_command(ctx, args)


# The commands that write to the workspace; all others work where it is read-only.
WRITING = frozenset(
    ("init", "train", "promote", "data prepare", "ablate run", *(f"study {c}" for c in ("run", "revive", "import", "worker", "confirm", "remove")))
)  # fmt: skip


def workspace_of(ctx: click.Context) -> Workspace:
    """The workspace that a command works in; refused where it is read-only and the command writes."""
    from audio_cls.core.workspace import Workspace

    root = ctx.find_root()
    workspace = Workspace.find(root.params.get("workspace"), root.params.get("tracking"))
    command = ctx.command_path.partition(" ")[2]
    if command in WRITING or (command == "evaluate" and ctx.params.get("part") == "test"):
        workspace.check_writable(f"audio-cls {command}")
    return workspace


def subset_assignments(share: float | None) -> tuple[str, ...]:
    """Return what `--subset` sets."""
    if share is None or share == 1:
        return ()
    return f"data.subset.share={share:g}", "data.subset.sides=train_validation"


def subset_suffix(share: float | None) -> str:
    """Return what `--subset` adds to the name of a study or suite."""
    return "" if share is None or share == 1 else f"-subset-{share:g}"


def _remember_tracking(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    """`--tracking` after a command's name means what it means before it."""
    if value is not None:
        ctx.find_root().params["tracking"] = value


def _load_parts(ctx: click.Context, _: click.Parameter, files: tuple[Path, ...]) -> tuple[Path, ...]:
    """Load the files of `--with`, before anything is read that may name their parts."""
    if files:
        from audio_cls.runs.own_parts import load_with

        load_with(workspace_of(ctx), files)
    return files


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
SUBSET = click.option(
    "--subset",
    type=click.FloatRange(0, 1, min_open=True),
    default=None,
    metavar="SHARE",
    help="For a first try: train and validate on this share of the clips, stratified, whole groups (data.subset). A study or suite "
    "that is tried so is another one, named ...-subset-SHARE.",
)
TRUST = click.option(
    "--trust",
    is_flag=True,
    help="Run the Python files that came with an imported study, from now on until one of them changes. Read them first.",
)
_WITH_HELP = "A Python file that declares parts of your own (models, losses, ...); loaded first. Repeatable."
_WITH: dict[str, Any] = {"multiple": True, "metavar": "FILE", "callback": _load_parts, "help": _WITH_HELP}
WITH = click.option("--with", "parts", type=click.Path(path_type=Path), expose_value=False, **_WITH)
WITH_FOR_WORKERS = click.option("--with", "parts", type=click.Path(path_type=Path), **_WITH)  # the command hands it on
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
STORAGE = click.option(
    "--storage",
    default=None,
    metavar="URL",
    envvar=ADDRESSES["--storage"],
    help="Optuna's storage, a file or postgresql://USER@HOST/NAME. Default: AUDIO_CLS_STORAGE, else optuna.db in the workspace.",
)
LOG_MODEL = click.option(
    "--log-model",
    type=click.Choice(["best", "all", "none"]),
    default="best",
    show_default=True,
    help="Which complete runs become models in MLflow, to be loaded and served: the best of a search and each single run, all "
    "(also of a suite), none.",
)
WORKERS = click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes, one a GPU slot where there are GPUs.",
)


def queue_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --workers, --storage, --device, --grace and --log-model, and hand it them as one value: `options`, a `QueueOptions`."""

    @wraps(command)
    def call(
        *args: Any, workers: int, storage: str | None, device: str, grace: float, log_model: Any, **given: Any
    ) -> Any:
        from audio_cls.queue.options import QueueOptions

        options = QueueOptions(
            storage=storage, workers=workers, device=device, grace_seconds=grace, log_model=log_model
        )
        return command(*args, options=options, **given)

    for option in (LOG_MODEL, GRACE, DEVICE, STORAGE, WORKERS):
        call = option(call)
    return call


def serving_options(port: int, what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that gives a command --port, --host and --browser.

    Args:
        port: the default.
        what: is served, named where the help says that it has no password.
    """
    options = (
        click.option("--browser/--no-browser", default=True, help="Open a browser where there is one. Default: yes."),
        click.option(
            "--host",
            default="127.0.0.1",
            show_default=True,
            help=f"Loopback unless told otherwise: {what} has no password.",
        ),
        click.option(
            "--port",
            type=click.IntRange(1, 65535),
            default=port,
            show_default=True,
            help="Where it is taken, the next free one.",
        ),
    )

    def give(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in options:
            command = option(command)
        return command

    return give
