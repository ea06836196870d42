"""The predictions of a recorded run: those recorded with it, or made from its experiment and weights; and their figures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.errors import UserError
from audio_cls.core.notices import progress
from audio_cls.core.stopping import Watch
from audio_cls.data.corpus import Corpus
from audio_cls.data.splits import Split
from audio_cls.experiment import Experiment
from audio_cls.metrics.baselines import Judgement, baseline_predictions, judge
from audio_cls.metrics.predictions import Predictions
from audio_cls.runs.opened_clips import ClipHistory, clip_history
from audio_cls.runs.own_parts import recorded_experiment
from audio_cls.runs.preparation import Prepared, Runtime, as_recorded, prepare_run, remarks
from audio_cls.runs.resolve import resolve
from audio_cls.runs.scores import read_predictions
from audio_cls.training.checkpoint import CheckpointStore, read
from audio_cls.training.divergence import Diverged
from audio_cls.training.predictions import corpus_predictions, predict_clips

if TYPE_CHECKING:
    import torch

    from audio_cls.tracking import RunInfo, Tracker

__all__ = [
    "Scored",
    "check_same_data",
    "read_predictions",
    "score_run",
    "score_with_progress",
]


Part = Literal["train", "validation", "test"]
ON_VALIDATION = "tuned on the validation clips"  # how thresholds of test clips came about
TOLERANCE = 1e-9  # between a recorded figure and the same one computed again from the recorded predictions


@dataclass(frozen=True, eq=False)
class Scored:
    """The predictions of a run on one part of its split; of several labels, with tuned thresholds: on training and validation
    clips cross-fitted, on test clips those that fit the validation clips.

    baseline: what a model that learned nothing predicts on the same clips, its thresholds tuned as the run's are.
    chosen: which epoch's weights, and by what. remarks: what a reader of the figures must know of the split.
    """

    run: RunInfo
    experiment: Experiment
    corpus: Corpus
    predictions: Predictions
    baseline: Predictions
    chosen: str
    split: Split
    part: Part
    remarks: tuple[str, ...] = ()

    @property
    def clips(self) -> NDArray[np.int64]:
        """Rows of the corpus."""
        return self.predictions.rows

    @property
    def kind_of_clips(self) -> str:
        """What the clips are, in words."""
        return "training clips" if self.part == "train" else f"{self.part} clips"

    def baseline_run(self) -> Scored:
        """Return the same run as if it had given the predictions of a model that learned nothing."""
        return replace(self, predictions=self.baseline)

    def judgement(self) -> Judgement:
        """Return what the predictions are worth beside the baseline's; of the test split without advice on what
        to try next.
        """
        found = judge(
            self.predictions,
            self.baseline.with_thresholds(None),
            self.experiment.training.metric,
            settings=self.experiment.flatten(),
            clips=self.kind_of_clips,
        )
        return replace(found, advice="") if self.part == "test" else found


def check_same_data(corpus: Corpus, info: RunInfo) -> None:
    """Raise a UserError unless a corpus is still what a run was trained on."""
    if corpus.digest != info.tags.get("data.digest"):
        trained_on = str(info.tags.get("data.digest"))[:12]
        raise UserError(
            f"corpus {corpus.name!r} has digest {corpus.digest[:12]}, but the run {info.name} ({info.run_id[:8]}) was "
            f"trained on {trained_on}"
        )


def score_run(
    runtime: Runtime, info: RunInfo, part: Part, weights: Literal["best", "last"] = "best", folder: Path | None = None
) -> Scored:
    """Return the predictions of a run on the clips of one part of its split, by the weights of its best or of its
    last epoch; the last epoch's are in its checkpoint `folder`. Validation clips are not predicted again: the
    recorded predictions are taken, unless the recorded figures do not follow from them (earlier versions rounded).

    Raises:
        UserError: for a run that is not complete, whose corpus has changed, whose split has no such part, or whose last
            checkpoint has gone.
    """
    if info.state != "COMPLETE":
        raise UserError(
            f"run {info.name} ({info.run_id[:8]}) is {info.state}: only a COMPLETE run has weights to evaluate"
        )
    recorded = recorded_experiment(runtime.tracker, info)
    corpus = runtime.corpus(recorded.data)
    check_same_data(corpus, info)
    experiment = as_recorded(resolve(recorded, corpus).experiment, corpus, info.tags.get("split.digest"))
    split = experiment.data.assign(corpus)
    clips = split.sides()[part]
    if not len(clips):
        raise UserError(
            f"run {info.name} ({info.run_id[:8]}): data.split.kind={experiment.data.split.kind} has no {part} clips"
            + (
                ": data.split.kind=folds keeps a fold for the test, k_fold does with held_out=test"
                if part == "test"
                else ""
            )
        )
    model = _Weights(runtime, info, experiment, weights, folder)
    if weights == "last":
        model.check()
        chosen = "the last epoch, which nobody chose"
    else:
        epoch = int(info.metrics.get("best/epoch", 0)) + 1
        chosen = f"epoch {epoch}, the best of {experiment.training.epochs} by {experiment.training.metric}"
    training = corpus.targets[split.train]

    def validation() -> Predictions:
        recorded = _recorded(runtime.tracker, info, corpus, split, weights)
        return recorded or model.predict(corpus, split.validation)

    if part != "test":
        predictions = (validation() if part == "validation" else model.predict(corpus, clips)).tuned()
        baseline = baseline_predictions(predictions, training).tuned()
    else:
        predictions = model.predict(corpus, clips)
        baseline = baseline_predictions(predictions, training)
        if corpus.task == "multilabel":
            chosen_on = validation()
            learned_nothing = baseline_predictions(chosen_on, training)
            predictions = predictions.with_thresholds(chosen_on.fitted_thresholds(), ON_VALIDATION)
            baseline = baseline.with_thresholds(learned_nothing.fitted_thresholds(), ON_VALIDATION)
    said = tuple(remarks(experiment, corpus, split).values())
    return Scored(info, experiment, corpus, predictions, baseline, chosen, split, part, said)


def _recorded(
    tracker: Tracker, info: RunInfo, corpus: Corpus, split: Split, select: Literal["best", "last"]
) -> Predictions | None:
    """Return the recorded predictions of the validation clips, where they are whole and give the recorded figures
    exactly.
    """
    found = read_predictions(tracker, info.run_id, corpus, select)
    if found is None or not np.array_equal(found.rows, split.validation):
        return None
    figures = {k: info.metrics.get(f"{select}/{k}") for k in found.evaluation.overall}
    close = (
        value is None
        or not isfinite(value)
        or abs(found.evaluation.overall[k] - value) <= TOLERANCE * max(1.0, abs(value))
        for k, value in figures.items()
    )
    return found if all(close) else None


class _Weights:
    """The model of a run, built when its first prediction is asked for."""

    def __init__(
        self,
        runtime: Runtime,
        info: RunInfo,
        experiment: Experiment,
        which: Literal["best", "last"],
        folder: Path | None,
    ) -> None:
        self.runtime, self.info, self.experiment, self.which, self.folder = runtime, info, experiment, which, folder
        self.prepared: Prepared | None = None

    def check(self) -> dict[str, torch.Tensor]:
        """Return the tensors to predict with.

        Raises:
            UserError: where the last epoch's checkpoint has gone.
        """
        if self.which == "best":
            return read(self.runtime.tracker.download(self.info.run_id, "weights/best.safetensors")).tensors
        store = CheckpointStore(self.folder) if self.folder is not None else None
        found = store.load() if store else None
        if found is None:
            why = f" ({'; '.join(store.refused)})" if store and store.refused else ""
            raise UserError(
                f"run {self.info.name} ({self.info.run_id[:8]}): its last epoch's weights are not in {self.folder}{why}: the "
                "suite judges runs by them, so that the test split is not opened with others"
            )
        return found[0].part("ema") or found[0].part("model")

    def predict(self, corpus: Corpus, rows: NDArray[np.int64]) -> Predictions:
        """Return the predictions of some clips of the run's corpus.

        Raises:
            UserError: where the weights give logits that are not finite.
        """
        if self.prepared is None:
            self.prepared = prepare_run(self.experiment, self.runtime, for_training=False)
            self.prepared.chain.classifier.load_state_dict(self.check())
        try:
            return predict_clips(self.prepared.chain, self.prepared.batches, corpus_predictions(corpus, rows))[0]
        except Diverged as error:
            raise UserError(f"run {self.info.name} ({self.info.run_id[:8]}) has no figures: {error}") from None


def score_with_progress(runtime: Runtime, info: RunInfo, part: Part) -> Scored:
    """`score_run` by the weights of the best epoch, its progress shown."""
    with progress(info.name) as show:
        runtime.watch = Watch(tell=show.phase)
        return score_run(runtime, info, part)


def opening_history(tracker: Tracker, scored: Scored) -> ClipHistory:
    """Return how often the test clips of a run's split have been opened, for whichever run."""
    ids = [scored.corpus.ids[int(i)] for i in scored.split.test]
    return clip_history(tracker, ids, scored.run)
