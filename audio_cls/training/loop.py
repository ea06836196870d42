"""fit(): the one training loop.

Each epoch: train, evaluate on validation data, make the checkpoint durable, then tell the observer. Whatever kills the process
between two of these, the resumed run repeats only what was not durable, with the same random draws.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from audio_cls.components.losses import part_shares
from audio_cls.components.weights import parameters_to_train
from audio_cls.core.config import ConfigError
from audio_cls.core.rng import derive, generator
from audio_cls.core.stopping import Abandoned
from audio_cls.experiment import Chain, Experiment
from audio_cls.metrics.base import check_metric
from audio_cls.metrics.predictions import Predictions
from audio_cls.training.augmented import augment
from audio_cls.training.average import WeightAverage, copy_state, other_weights
from audio_cls.training.batches import Batches
from audio_cls.training.checkpoint import Checkpoint, CheckpointStore, load_optimizer_state, optimizer_state
from audio_cls.training.counts import TrainingCounts
from audio_cls.training.divergence import FIRST_LOSS, MEDIAN_LOSS, Diverged, StateCheck
from audio_cls.training.predictions import autocast, corpus_predictions, evaluate_clips, predict_clips
from audio_cls.training.rules import FORMER, corrections

__all__ = ["FINISHED_AT", "Diverged", "Fit", "Observer", "augment", "fit"]

# Seconds since 1970, kept with each epoch: whoever continues from its checkpoint records it as measured at the same moment, so that
# an epoch recorded by two processes (one of them thought dead) is the same record, which MLflow keeps once.
FINISHED_AT = "time/finished_at"


class Observer(Protocol):
    """Called after each epoch once its checkpoint is durable, and again for earlier epochs when a run is resumed."""

    def epoch(self, epoch: int, row: dict[str, float]) -> None:
        """`epoch` counts from 0; `row` holds train/..., val/..., time/..., among them `FINISHED_AT`."""

    def should_stop(self) -> str | None:
        """Asked after each epoch: a reason to stop, or None to continue."""


@dataclass
class Fit:
    """The result of a run so far.

    history: one row an epoch.
    stopped: the observer's reason to stop, if it gave one.
    predictions, last_predictions: of the validation clips, by the weights of the best and of the last epoch; None for a run that
        was stopped, where nobody needs them, or had no best epoch.
    snapshots: epoch, from 1 -> predictions of the validation clips, for each of `Schedule.snapshot_epochs` so far.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_value: float = math.nan
    stopped: str | None = None
    predictions: Predictions | None = None
    last_predictions: Predictions | None = None
    snapshots: dict[int, Predictions] = field(default_factory=dict)


def fit(
    experiment: Experiment,
    chain: Chain,
    batches: Batches,
    store: CheckpointStore,
    observe: Observer | None = None,
    *,
    epochs: int | None = None,
    accumulate: int = 1,
    on_step: Callable[[int, int], None] | None = None,
) -> Fit:
    """Train `chain` to the experiment's budget, continuing from the store's checkpoint if there is one.

    On return the chain holds the weights of the best epoch. `epochs` ends training there, on the experiment's own schedule;
    `accumulate` splits each batch in so many parts whose gradients are added (for a device too small for the whole batch):
    the same gradient, weighted losses included (`Loss.build`), except for batch normalisation, whose statistics are those of a
    part (ghost batch normalisation, Hoffer et al. 2017) and whose running averages move once a part.
    `on_step(step, epoch)` is called before each optimiser step; it may raise `Abandoned`, which ends the training before this
    epoch: its reason is `stopped`.

    Raises:
        Abandoned: when the watch of `batches` was asked to leave while a closed form was fitted.
        ConfigError: when the checkpoint is of another experiment, or was trained by other rules than `batches.rules`.
        Diverged: when loss, weights, buffers, normalisation or logits are not finite; the last finite checkpoint stays.
    """
    training = experiment.training
    maximize = check_metric(training.metric) == "maximize"
    result = Fit()
    state = StateCheck(chain, batches)
    if experiment.model.closed_form:
        _fit_closed_form(experiment, chain, batches, store, result, state)
        if observe:
            observe.epoch(0, result.history[0])
        _complete_predictions(chain, batches, store, result)
        return result

    trained = parameters_to_train(chain.classifier, chain.classifier.model, experiment.model.weights)
    optimizer = experiment.optimizer.build(trained)
    ema = WeightAverage(chain.classifier, training.ema_decay, batches.rules != FORMER) if training.ema_decay else None
    _resume(experiment, chain, batches, optimizer, ema, store, result)
    budget = min(training.epochs, epochs or training.epochs)
    if observe and result.history:  # the process that trained them may have died before it reported
        for epoch, row in enumerate(result.history):
            observe.epoch(epoch, row)
        result.stopped = observe.should_stop()
    validation = corpus_predictions(batches.corpus, batches.split.validation)
    snapshot_epochs = experiment.schedule.snapshot_epochs(training.epochs)
    devices = [batches.device] if batches.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        for epoch in range(len(result.history), budget):
            if result.stopped or _patience_spent(result, training.early_stopping):
                break
            try:
                row = _train_epoch(chain, batches, optimizer, ema, epoch, result.history, accumulate, on_step)
                state.check(f"after epoch {epoch + 1}")
                with other_weights(chain.classifier, ema.values if ema else None):
                    figures, predictions = evaluate_clips(
                        chain, batches, validation, "val/", f"after epoch {epoch + 1}"
                    )
                    row |= figures
                    value = row[training.metric]
                    better = math.isfinite(value) and (
                        result.best_epoch < 0 or (value > result.best_value if maximize else value < result.best_value)
                    )
                    best = None
                    if better:
                        best = Checkpoint(copy_state(chain.classifier.state_dict()), {"epoch": epoch, "value": value})
            except Abandoned as error:
                result.stopped = str(error)
                break
            row[FINISHED_AT] = time.time()
            result.history.append(row)
            result.last_predictions = predictions
            if better:
                result.best_epoch, result.best_value, result.predictions = epoch, value, predictions
            if epoch + 1 in snapshot_epochs:
                result.snapshots[epoch + 1] = predictions
            store.save(_checkpoint(experiment, batches, chain, optimizer, ema, result), best)
            if observe:
                observe.epoch(epoch, row)
                result.stopped = observe.should_stop()
    if result.best_epoch >= 0:
        chain.classifier.load_state_dict(store.load_best(result.best_epoch).tensors)
    _complete_predictions(chain, batches, store, result)
    return result


def _complete_predictions(chain: Chain, batches: Batches, store: CheckpointStore, result: Fit) -> None:
    """Predict again what an earlier process did not keep: of a run that was resumed after its best or its last epoch."""
    if result.stopped or result.best_epoch < 0:
        result.predictions = result.last_predictions = None
        return

    def missing() -> Predictions:
        return predict_clips(chain, batches, corpus_predictions(batches.corpus, batches.split.validation))[0]

    result.predictions = result.predictions or missing()
    if result.best_epoch == len(result.history) - 1:
        result.last_predictions = result.predictions
    if result.last_predictions is None:
        found = store.load()
        if found is None:  # it has gone meanwhile
            result.last_predictions = result.predictions
            return
        with other_weights(chain.classifier, found[0].part("ema") or found[0].part("model")):
            result.last_predictions = missing()


def _train_epoch(
    chain: Chain,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    ema: WeightAverage | None,
    epoch: int,
    history: list[dict[str, float]],
    accumulate: int,
    on_step: Callable[[int, int], None] | None,
) -> dict[str, float]:
    """One pass over the training clips; returns train/loss, its median over steps, `TrainingCounts`, lr and the time it took."""
    experiment, device = batches.experiment, batches.device
    training, seed = experiment.training, experiment.seed
    began = time.perf_counter()
    loss_sum = torch.zeros((), device=device, dtype=torch.float64)
    losses: list[torch.Tensor] = []  # of each part of a batch, left on the device
    counts = TrainingCounts(len(batches.corpus.classes), batches.corpus.task, device)
    seen, lr = 0, 0.0
    chain.classifier.train()
    for step, batch in enumerate(batches.train(epoch)):
        if on_step:
            on_step(step, epoch)
        lr = experiment.optimizer.lr * _schedule_factor(batches, epoch, step, batch.n_steps, history)
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)
        torch.manual_seed(derive(seed, "step", epoch, step))  # dropout
        x, y = augment(chain, batch, generator(seed, "augment", epoch, step), batches.from_waveforms)
        optimizer.zero_grad(set_to_none=True)
        parts = max(1, min(accumulate, len(x) // 2))  # one clip alone has no batch statistics
        split_y = y.tensor_split(parts)
        by_clips = parts == 1 or batches.rules == FORMER
        shares = [len(part) / len(y) for part in split_y] if by_clips else part_shares(chain.loss, split_y)
        for part_x, part_y, share in zip(x.tensor_split(parts), split_y, shares, strict=True):
            with autocast(training.precision, device):
                logits = chain.classifier.model(part_x)
            logits = logits.float()
            loss = chain.loss(logits, part_y)
            (loss * share).backward()
            loss_sum += loss.detach().double() * share * len(x)
            losses.append(loss.detach())
            counts.add(logits.detach(), part_y)
        if training.clip_norm:
            nn.utils.clip_grad_norm_(chain.classifier.parameters(), training.clip_norm)
        optimizer.step()
        if ema:
            ema.update(chain.classifier)
        seen += len(x)
    mean_loss = float(loss_sum) / max(seen, 1)
    if not math.isfinite(mean_loss):
        raise Diverged(f"the training loss of epoch {epoch + 1} is {mean_loss}")
    seconds = time.perf_counter() - began
    row = {"train/loss": mean_loss, "lr": lr, "time/train_seconds": seconds, "time/samples_per_second": seen / seconds}
    row[MEDIAN_LOSS] = float(torch.stack(losses).double().sort().values[len(losses) // 2])
    if epoch == 0:
        row[FIRST_LOSS] = float(losses[0])
    return row | counts.figures()


def _schedule_factor(batches: Batches, epoch: int, step: int, n_steps: int, history: list[dict[str, float]]) -> float:
    """Return the learning rate at a step of an epoch of `n_steps`, as a factor of the optimiser's `lr`."""
    schedule, training = batches.experiment.schedule, batches.experiment.training
    if batches.rules == FORMER:
        n_steps = max(1, math.ceil(len(batches.split.train) / training.batch_size))
        return schedule.factor(epoch + step / n_steps, training.epochs, history)
    return schedule.factor(epoch + step / n_steps, training.epochs, history, 1 / n_steps)


def _resume(
    experiment: Experiment,
    chain: Chain,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    ema: WeightAverage | None,
    store: CheckpointStore,
    result: Fit,
) -> None:
    checkpoint = _take_up(experiment, chain, batches.split.digest, store, result)
    if checkpoint is None:
        return
    _check_rules(batches, checkpoint)
    background = chain.background_digest
    if background and checkpoint.state.get("background") != background:
        raise ConfigError(
            f"augment.background.corpus: another corpus than this run was trained with until epoch {len(result.history)} "
            f"({str(checkpoint.state.get('background'))[:12]}, now {background[:12]}). Prepare that one again, or train anew (--again)"
        )
    for epoch, scores in sorted(checkpoint.part("snapshots").items()):
        kept = corpus_predictions(batches.corpus, batches.split.validation, scores.numpy())
        result.snapshots[int(epoch)] = kept
    load_optimizer_state(optimizer, checkpoint.part("optimizer"), checkpoint.state["optimizer"])
    if ema:
        ema.load(checkpoint.part("ema"), checkpoint.state.get("ema_updates", 0))


def _check_rules(batches: Batches, checkpoint: Checkpoint) -> None:
    """Refuse to continue by other rules than a run began with.

    Raises:
        ConfigError: naming what would change in the middle of the run.
    """
    began = int(checkpoint.state.get("rules", FORMER))
    texts = [corrections(batches.experiment, len(batches.split.train), rules) for rules in (began, batches.rules)]
    if texts[0] != texts[1]:
        raise ConfigError(
            f"this checkpoint was trained by version {began} of the training rules, and is continued by version {batches.rules}: "
            f"{' and '.join(filter(None, texts))} would change half-way"
        )


def _take_up(
    experiment: Experiment, chain: Chain, split_digest: str, store: CheckpointStore, result: Fit
) -> Checkpoint | None:
    """Put the weights and the history of the store's checkpoint in place; the checkpoint, None if there is none."""
    found = store.load()
    if found is None:
        return None
    checkpoint, folder = found
    state = checkpoint.state
    if state["experiment"] != experiment.digest():
        raise ConfigError(
            f"{folder}: this checkpoint belongs to another experiment ({state['experiment'][:12]}, asked {experiment.digest()[:12]})"
        )
    if state.get("split", split_digest) != split_digest:
        raise ConfigError(
            f"{folder}: this checkpoint was trained on another split of the clips ({state['split'][:12]}, now {split_digest[:12]}): "
            "identical clips are kept on one side now. Train it anew (--again), or with data.split.allow_duplicates=true"
        )
    chain.classifier.load_state_dict(checkpoint.part("model"))
    result.history = state["history"]
    result.best_epoch, result.best_value = (
        state["best_epoch"],
        state["best_value"] if state["best_epoch"] >= 0 else math.nan,
    )
    if result.best_epoch >= 0:
        store.adopt(result.best_epoch, folder)
    return checkpoint


def _checkpoint(
    experiment: Experiment,
    batches: Batches,
    chain: Chain,
    optimizer: torch.optim.Optimizer,
    ema: WeightAverage | None,
    result: Fit,
) -> Checkpoint:
    tensors = {f"model.{k}": v for k, v in chain.classifier.state_dict().items()}
    moments, plain = optimizer_state(optimizer)
    tensors |= {f"optimizer.{k}": v for k, v in moments.items()}
    if ema:
        tensors |= {f"ema.{k}": v for k, v in ema.values.items()}
    tensors |= {f"snapshots.{k:04d}": torch.from_numpy(v.scores) for k, v in result.snapshots.items()}
    state: dict[str, Any] = {
        "epoch": len(result.history) - 1,
        "experiment": experiment.digest(),
        "data": batches.corpus.digest,
        "split": batches.split.digest,
        "history": result.history,
        "best_epoch": result.best_epoch,
        "best_value": result.best_value if result.best_epoch >= 0 else None,
        "optimizer": plain,
        "rules": batches.rules,
    }
    if ema:
        state["ema_updates"] = ema.updates
    if chain.background_digest:
        state["background"] = chain.background_digest
    return Checkpoint(tensors, state)


def _fit_closed_form(
    experiment: Experiment, chain: Chain, batches: Batches, store: CheckpointStore, result: Fit, check: StateCheck
) -> None:
    """A model that is fitted at once: one epoch, one checkpoint. One that has been fitted is not fitted again."""
    if _take_up(experiment, chain, batches.split.digest, store, result) is not None:
        return
    began = time.perf_counter()
    train = batches.split.train
    with torch.no_grad():
        x = torch.cat([chain.classifier.normaliser(b.x) for b in batches.evaluate(train)])
    y = batches.targets[torch.as_tensor(train, device=batches.device)]
    solve: Callable[..., Any] = chain.classifier.model.fit_closed_form  # type: ignore[assignment]
    batches.watch.call(
        "fitting the model", lambda: solve(x.cpu(), y.cpu(), seed=experiment.seed, task=batches.corpus.task)
    )
    check.check("after the fit")
    seconds = time.perf_counter() - began
    row, _ = evaluate_clips(chain, batches, corpus_predictions(batches.corpus, train), "train/")
    row = {k: row[k] for k in ("train/loss", "train/accuracy", "train/macro_f1") if k in row}
    row |= {"lr": 0.0, "time/train_seconds": seconds, "time/samples_per_second": len(train) / seconds}
    figures, result.predictions = evaluate_clips(
        chain, batches, corpus_predictions(batches.corpus, batches.split.validation), "val/"
    )
    row |= figures
    row[FINISHED_AT] = time.time()
    result.history = [row]
    result.best_epoch, result.best_value = 0, row[experiment.training.metric]
    best = Checkpoint(copy_state(chain.classifier.state_dict()), {"epoch": 0, "value": result.best_value})
    state = {"epoch": 0, "experiment": experiment.digest(), "data": batches.corpus.digest, "split": batches.split.digest,
             "history": result.history, "best_epoch": 0, "best_value": result.best_value, "optimizer": {}}  # fmt: skip
    store.save(Checkpoint({f"model.{k}": v for k, v in best.tensors.items()}, state), best)


def _patience_spent(result: Fit, patience: int | None) -> bool:
    return patience is not None and result.best_epoch >= 0 and len(result.history) - 1 - result.best_epoch >= patience
