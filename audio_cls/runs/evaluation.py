"""Figures of a recorded run, computed anew from its experiment and weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.errors import UserError
from audio_cls.core.notices import progress, say, table
from audio_cls.core.stopping import Watch
from audio_cls.data.corpus import Corpus
from audio_cls.data.groups import shared_groups, shared_groups_text
from audio_cls.data.splits import Split
from audio_cls.experiment import Experiment
from audio_cls.metrics.baselines import Judgement, baseline_figures, baseline_name, baseline_scores, judge
from audio_cls.metrics.classification import Evaluation, evaluate, fit_thresholds
from audio_cls.runs.opened_clips import clip_history
from audio_cls.runs.own_parts import recorded_experiment
from audio_cls.runs.preparation import Runtime, prepare_run
from audio_cls.training.checkpoint import CheckpointStore, read
from audio_cls.training.loop import predict, probabilities

if TYPE_CHECKING:
    from audio_cls.tracking import RunInfo

__all__ = ["Scored", "evaluate_run", "print_figures", "print_findings", "score_run", "score_with_progress"]


@dataclass(frozen=True, eq=False)
class Scored:
    """A run's probabilities. clips: (n,) rows of the corpus. scores: (n, n_classes). thresholds: (n_classes,), fitted on the
    run's validation clips (multilabel), else None. chosen: which epoch's weights, and by what. part: of the split, that the
    clips are. remarks: what a reader of the figures must know of the split."""

    run: RunInfo
    experiment: Experiment
    corpus: Corpus
    clips: NDArray[np.int64]
    scores: NDArray[Any]
    thresholds: NDArray[Any] | None
    chosen: str
    split: Split
    part: Literal["validation", "test"]
    remarks: tuple[str, ...] = ()

    @property
    def targets(self) -> NDArray[Any]:
        return np.asarray(self.corpus.targets[self.clips])

    def evaluation(self) -> Evaluation:
        return evaluate(
            self.scores, self.targets, self.corpus.task, classes=self.corpus.classes, thresholds=self.thresholds
        )

    def baseline(self) -> dict[str, float]:
        """The figures of a model that learned nothing on the same clips, its thresholds fitted where the run's are."""
        targets = np.asarray(self.corpus.targets)
        fitted_on = None if self.thresholds is None else targets[self.split.validation]
        return baseline_figures(targets[self.split.train], self.targets, self.corpus.task, fitted_on=fitted_on)

    def baseline_run(self) -> Scored:
        """The same run as if it had given the scores of a model that learned nothing."""
        training = self.corpus.targets[self.split.train]
        thresholds = None
        if self.thresholds is not None:
            validation = self.split.validation
            thresholds = fit_thresholds(baseline_scores(training, len(validation)), self.corpus.targets[validation])
        return replace(self, scores=baseline_scores(training, len(self.clips)), thresholds=thresholds)

    def judgement(self) -> Judgement:
        """What the predictions are worth beside the baseline's; of the test split without advice on what to try next."""
        corpus = self.corpus
        found = judge(
            self.scores,
            self.targets,
            baseline_scores(corpus.targets[self.split.train], len(self.clips)),
            corpus.task,
            corpus.classes,
            self.experiment.training.metric,
            groups=corpus.resampling_groups(self.clips),
            settings=self.experiment.flatten(),
            clips=f"{self.part} clips",
        )
        return replace(found, advice="") if self.part == "test" else found


def score_run(
    runtime: Runtime,
    info: RunInfo,
    part: Literal["validation", "test"],
    weights: Literal["best", "last"] = "best",
    folder: Path | None = None,
) -> Scored:
    """The probabilities of a run on the clips of one part of its split, by the weights of its best or of its last epoch;
    the last epoch's are in its checkpoint `folder`.

    Raises:
        UserError: for a run that is not complete, whose corpus has changed, whose split has no such part, or whose last
            checkpoint has gone.
    """
    if info.state != "COMPLETE":
        raise UserError(
            f"run {info.name} ({info.run_id[:8]}) is {info.state}: only a COMPLETE run has weights to evaluate"
        )
    experiment = recorded_experiment(runtime.tracker, info)
    prepared = prepare_run(experiment, runtime)
    corpus, classifier = prepared.corpus, prepared.chain.classifier
    if corpus.digest != info.tags.get("data.digest"):
        trained_on = str(info.tags.get("data.digest"))[:12]
        raise UserError(
            f"corpus {corpus.name!r} has digest {corpus.digest[:12]}, but the run {info.name} ({info.run_id[:8]}) was "
            f"trained on {trained_on}"
        )
    clips = prepared.split.test if part == "test" else prepared.split.validation
    if not len(clips):
        raise UserError(
            f"run {info.name} ({info.run_id[:8]}): data.split.kind={experiment.data.split.kind} has no {part} clips"
            + (
                ": data.split.kind=folds keeps a fold for the test, k_fold does with held_out=test"
                if part == "test"
                else ""
            )
        )
    if weights == "last":
        chosen = "the last epoch, which nobody chose"
        store = CheckpointStore(folder) if folder is not None else None
        found = store.load() if store else None
        if found is None:
            why = f" ({'; '.join(store.refused)})" if store and store.refused else ""
            raise UserError(
                f"run {info.name} ({info.run_id[:8]}): its last epoch's weights are not in {folder}{why}: the suite judges "
                "runs by them, so that the test split is not opened with others"
            )
        classifier.load_state_dict(found[0].part("ema") or found[0].part("model"))
    else:
        best = read(runtime.tracker.download(info.run_id, "weights/best.safetensors"))
        chosen = f"epoch {best.state.get('epoch', 0) + 1}, the best of {experiment.training.epochs} by {experiment.training.metric}"
        classifier.load_state_dict(best.tensors)

    def scores(rows: NDArray[np.int64]) -> NDArray[Any]:
        return probabilities(predict(prepared.chain, prepared.batches, rows), corpus.task)

    thresholds = None
    if corpus.task == "multilabel":
        fitted_on = prepared.split.validation
        thresholds = fit_thresholds(scores(fitted_on), np.asarray(corpus.targets[fitted_on]))
    shared = shared_groups_text(len(shared_groups(corpus, prepared.split)))
    remarks = (shared,) if shared else ()
    return Scored(info, experiment, corpus, clips, scores(clips), thresholds, chosen, prepared.split, part, remarks)


def score_with_progress(runtime: Runtime, info: RunInfo, part: Literal["validation", "test"]) -> Scored:
    """`score_run` by the weights of the best epoch, its progress shown."""
    with progress(info.name) as show:
        runtime.watch = Watch(tell=show.phase)
        return score_run(runtime, info, part)


def evaluate_run(runtime: Runtime, info: RunInfo) -> None:
    """Print the figures of a run's best weights on its validation clips."""
    scored = score_with_progress(runtime, info, "validation")
    overall, baseline = scored.evaluation().overall, scored.baseline()
    print_findings(scored.judgement())
    table(
        f"{scored.run.name}: {len(scored.clips)} validation clips",
        ["metric", "validation", baseline_name(scored.corpus.task)],
        [[k, v, baseline.get(k)] for k, v in overall.items()],
        right=(1, 2),
    )
    print_figures(scored)
    ids = [scored.corpus.ids[int(i)] for i in scored.split.test]
    if sentence := clip_history(runtime.tracker, ids, info).sentence():
        say(sentence)


def print_findings(judgement: Judgement) -> None:
    """Print what is wrong with a run's predictions, a line each, and what to try."""
    for line in judgement.lines:
        say(line)


def print_figures(scored: Scored) -> None:
    """Print the table of figures by class."""
    per_class = scored.evaluation().per_class
    rows = [
        [c, *(f"{per_class[k][i]:.3f}" if k != "support" else int(per_class[k][i]) for k in per_class)]
        for i, c in enumerate(scored.corpus.classes)
    ]
    table("by class", ["class", *per_class], rows, right=range(1, len(per_class) + 1))
    for remark in scored.remarks:
        say(f"note: {remark}")
