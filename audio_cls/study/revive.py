"""`study revive`: pruned trials, their checkpoints and their budgets put together with the study package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audio_cls.core.errors import UserError
from audio_cls.core.notices import say
from audio_cls.core.workspace import Workspace
from audio_cls.experiment import Experiment
from audio_cls.queue.lease import worker_identity
from audio_cls.queue.options import QueueOptions
from audio_cls.queue.places import trial_folder
from audio_cls.queue.queue import Queue
from audio_cls.queue.record import attributes, config_of, experiment_text, record_of
from audio_cls.queue.storage import open_storage
from audio_cls.study.launches import Launch
from audio_cls.study.opening import open_parts
from audio_cls.study.pruned import Pruned, choose, queue_revival
from audio_cls.study.running import SearchOutcome, run_search
from audio_cls.training.checkpoint import read_state

__all__ = ["Revival", "Wanted", "larger_budget", "queue_revivals", "run_revivals"]


@dataclass(frozen=True)
class Revival:
    """What `queue_revivals` did. `configs` are the configurations to run now; `lines` says what happens to each."""

    configs: tuple[int, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Wanted:
    """Which pruned trials to revive: the `top` best, or these `numbers`, or all; and to how many `epochs`, unless to their own."""

    top: int | None = None
    numbers: Sequence[int] = ()
    epochs: int | None = None


def run_revivals(
    workspace: Workspace, launch: Launch, wanted: Wanted, options: QueueOptions, parts: Sequence[Path] = ()
) -> SearchOutcome | None:
    """Queue the pruned trials that are wanted and run them, and nothing else, to the end of their budget.

    Returns:
        How the search stands; None if there was nothing to run.

    Raises:
        UserError: for trials that cannot be revived, see `queue_revivals`.
    """
    if wanted.top is not None and wanted.numbers:
        raise UserError("--top and --trial: give one of them")
    search = open_parts(workspace, launch, options.storage)
    where = open_storage(options.storage or workspace.optuna_db)
    queue = Queue(search.opened, where, worker_identity())
    queue.tidy()
    revival = queue_revivals(workspace, search.opened, queue, search.corpus.digest, **vars(wanted))
    for line in revival.lines:
        say(line)
    if not revival.configs:
        return None
    tally = queue.tally()
    total = len(tally.finished) + sum(config_of(t) in revival.configs for t in tally.live)
    few = replace(options, workers=min(options.workers, len(revival.configs)))
    named = replace(launch, name=search.study.name)
    return run_search(workspace, named, total, few, only=revival.configs, parts=parts)


def queue_revivals(
    workspace: Workspace,
    opened: Any,
    queue: Any,
    data_digest: str,
    *,
    top: int | None = None,
    numbers: Sequence[int] = (),
    epochs: int | None = None,
) -> Revival:
    """Queue pruned trials for their revival; all are looked at before the first is queued.

    A trial without a checkpoint is an error where it was asked for by number, else it is left out.

    Raises:
        UserError: for numbers that cannot be revived, checkpoints that are not there, or a budget that makes no sense.
    """
    configs, lines = [], []
    fresh: list[tuple[Pruned, dict[str, Any], str]] = []
    for pruned in choose(opened, top, numbers):
        what = f"trial {pruned.number} (configuration {pruned.config}, best {pruned.best:.4g} when it was pruned)"
        if pruned.finished:
            value = pruned.latest.value
            end = f"complete, {value:.4g}" if value is not None else record_of(pruned.latest).reason
            lines.append(f"{what}: revived before, as trial {pruned.latest.number}: {end}")
            continue
        if pruned.revived:
            queued = record_of(pruned.latest).changes.get("training.epochs")
            if epochs is not None and epochs != (queued or _experiment(pruned).training.epochs):
                raise UserError(
                    f"{what}: its revival as trial {pruned.latest.number} to {queued or 'its own'} epochs is under way; "
                    "let it end with `study revive`, without --epochs"
                )
            configs.append(pruned.config)
            lines.append(f"{what}: its revival goes on, as trial {pruned.latest.number}")
            continue
        try:
            attrs, note = _prepare(workspace, opened.study_name, pruned, data_digest, epochs)
        except _NoCheckpoint as error:
            if numbers:
                raise UserError(f"{what}: {error}") from None
            lines.append(f"{what}: left out: {error}")
            continue
        except UserError as error:
            raise UserError(f"{what}: {error}") from None
        fresh.append((pruned, attrs, f"{what}: {note}"))
    for pruned, attrs, line in fresh:
        number = queue_revival(queue, pruned, attrs)
        configs.append(pruned.config)
        lines.append(line + (f", as trial {number}" if number is not None else ""))
    return Revival(tuple(configs), tuple(lines))


class _NoCheckpoint(UserError):
    pass


def _experiment(pruned: Pruned) -> Experiment:
    stored = record_of(pruned.latest).experiment
    if not stored:
        raise UserError("no experiment is stored with it: it was not run by audio_cls")
    return Experiment.from_json(experiment_text(stored))


def _prepare(
    workspace: Workspace, study: str, pruned: Pruned, data_digest: str, epochs: int | None
) -> tuple[dict[str, Any], str]:
    """Return the attributes of the next attempt, and what is reported of it."""
    experiment = _experiment(pruned)
    folders = [trial_folder(workspace, study, pruned.root, n) for n in pruned.attempts]
    state = furthest([(f, read_checkpoint(f)) for f in folders])
    if state is None:
        looked = ", ".join(str(f / "last.safetensors") for f in folders)
        raise _NoCheckpoint(f"no checkpoint is left to go on from; looked for {looked}")
    known = {experiment.digest(), *record_of(pruned.latest).begun_as}
    if state["experiment"] not in known:
        raise UserError(
            f"the checkpoint in {folders[0].parent} belongs to another experiment ({state['experiment'][:12]})"
        )
    if state.get("data", data_digest) != data_digest:
        raise UserError(
            f"the checkpoint was trained on other data (digest {state['data'][:12]}, now {data_digest[:12]})"
        )
    done, budget = int(state["epoch"]) + 1, experiment.training.epochs
    if epochs is None or epochs == budget:
        return {}, f"from epoch {done} of {budget}"
    larger, note = larger_budget(experiment, epochs, done)
    attrs = attributes(changes={"training.epochs": epochs}, begun_as=sorted(known), own_epochs=budget)
    return attrs, f"from epoch {done} to {larger.training.epochs} instead of {budget}: {note}"


def larger_budget(experiment: Experiment, epochs: int, done: int) -> tuple[Experiment, str]:
    """Return a run that stands at `done` epochs, given a budget of `epochs`: its experiment from there on, and what
    that means.

    Where the learning rate does not depend on the budget (constant, step, plateau), the run equals, bit for bit, one that had
    the larger budget from its start. A cosine continues as the cosine of the larger budget: the learning rate rises once, to what
    that prescribes at this epoch, and no single run from scratch has this schedule. One cycle is laid out over the whole
    budget, its peak may have passed already, and it is refused.

    Raises:
        UserError: for a smaller budget, or a schedule that cannot be prolonged.
    """
    budget, schedule = experiment.training.epochs, experiment.schedule
    if epochs < budget:
        raise UserError(
            f"--epochs {epochs} is less than its budget of {budget}: a revived trial is trained to its budget or beyond"
        )
    larger = experiment.override({"training.epochs": epochs})
    if epochs == budget or schedule.longer == "same":
        return larger, "the learning rate does not depend on the budget"
    if schedule.longer == "refused" or experiment.model.closed_form:
        raise UserError(
            f"--epochs {epochs}: schedule.kind={schedule.kind} is laid out over its budget of {budget} epochs and cannot be "
            "prolonged half-way. Revive without --epochs, or train it anew with the larger budget. "
            "These can be prolonged: constant, cosine, plateau, step."
        )
    before, after = (schedule.factor(done, n, ()) for n in (budget, epochs))
    lr = experiment.optimizer.lr
    return (
        larger,
        f"the {schedule.kind} of {epochs} epochs from there on, learning rate {before * lr:.3g} -> {after * lr:.3g}",
    )


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the state of a folder's last checkpoint; None if there is none."""
    path = folder / "last.safetensors"
    try:
        with open(path, "rb") as file:
            return read_state(file, str(path))
    except FileNotFoundError:
        return None


def furthest(found: Sequence[tuple[Path, dict[str, Any] | None]]) -> dict[str, Any] | None:
    """Return the state that has most epochs, the nearest attempt's where several have."""
    best: dict[str, Any] | None = None
    for _, state in found:
        if state is not None and (best is None or state["epoch"] > best["epoch"]):
            best = state
    return best
