"""An experiment made ready to train: its corpus opened and split, its features packed, its network built.

`Runtime` is what a process keeps from one run to the next, so that this costs little after the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from audio_cls.components.augment import Masks
from audio_cls.components.normaliser import Normaliser
from audio_cls.components.shapes import check_features
from audio_cls.components.weights import Match
from audio_cls.core.config import NONE
from audio_cls.core.device import choose_device, choose_precision
from audio_cls.core.errors import UserError, choices
from audio_cls.core.stopping import QUIET, Watch
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.data.remarks import OVERFIT, OVERFIT_REMARK, split_remarks, windows_remark
from audio_cls.data.splits import Split
from audio_cls.experiment import Chain, Data, Experiment, assemble, check_corpus, feature_shape
from audio_cls.metrics.classification import VERSION
from audio_cls.runs.backgrounds import give_backgrounds
from audio_cls.runs.pretrained import initial_digest, load_pretrained
from audio_cls.training.batches import Batches, FeatureCache, PackedFeatures
from audio_cls.training.rules import CORRECTIONS, FORMER, RULES, corrections, fills_with_mean

if TYPE_CHECKING:
    from audio_cls.tracking import DatasetInfo, Tracker

__all__ = [
    "Prepared",
    "Runtime",
    "as_recorded",
    "check_fits",
    "dataset_info",
    "mlflow_experiment",
    "open_corpus",
    "open_view",
    "prepare_run",
    "remarks",
    "run_facts",
    "split_facts",
]


@dataclass
class Runtime:
    """What a process keeps between runs: open corpora, packed features, the tracker, the device."""

    workspace: Workspace
    tracker: Tracker
    device: torch.device = field(default_factory=lambda: choose_device("auto"))
    features: FeatureCache = field(default_factory=FeatureCache)
    corpora: dict[tuple[str, str], Corpus] = field(
        default_factory=dict
    )  # by name, and digest of the view of its labels
    disk_wait_seconds: float = 60.0  # for room on a full disk, before a run is interrupted
    watch: Watch = QUIET  # whether to leave, and the display

    def corpus(self, data: Data) -> Corpus:
        """Return the corpus of an experiment, with the labels that it asks for."""
        key = data.corpus, data.labels.digest()
        if key not in self.corpora:
            self.corpora[key] = open_corpus(self.workspace, data)
        return self.corpora[key]

    def keep(self, data: Data, corpus: Corpus) -> None:
        """Take over a corpus that is open, with the labels that `data` asks for."""
        self.corpora[data.corpus, data.labels.digest()] = corpus


def open_corpus(workspace: Workspace, data: Data | str) -> Corpus:
    """Return a prepared corpus by its name in the workspace or the path of its folder; for the data of an experiment, with the
    labels that it asks for.
    """
    if not isinstance(data, str):
        return data.labels.apply(open_corpus(workspace, data.corpus))
    name = data
    folder = workspace.corpora / name
    if not folder.exists() and Path(name).is_dir():
        folder = Path(name)
    if not folder.exists():
        known = [p.name for p in workspace.corpora.iterdir() if p.is_dir()] if workspace.corpora.exists() else []
        make = f"Make one with: audio-cls data prepare SOURCE --name {name}"
        if not known:
            raise UserError(
                f"no corpus {name!r}: {workspace.corpora} holds none. {make}, or name the folder that has it: audio-cls --workspace DIR ..."
            )
        raise UserError(f"no corpus {name!r} in {workspace.corpora}. {choices(name, known)} {make}")
    return Corpus.open(folder)


def open_view(workspace: Workspace, name: str, changes: Mapping[str, Any]) -> Corpus:
    """Return a prepared corpus with the labels that keys below `data.labels` ask for.

    Raises:
        UserError: for another key, or no such corpus.
    """
    others = [key for key in changes if key.split(".")[:2] != ["data", "labels"]]
    if others:
        raise UserError(
            f"{others[0]}: only keys below data.labels change what is described, such as data.labels=families"
        )
    return open_corpus(workspace, Experiment().override({"data.corpus": name, **changes}).data)


def dataset_info(corpus: Corpus) -> DatasetInfo:
    """Return how a corpus is named in MLflow."""
    from audio_cls.tracking import DatasetInfo

    return DatasetInfo(
        corpus.name, corpus.digest, corpus.task, len(corpus), tuple(corpus.classes), str(corpus.directory)
    )


def mlflow_experiment(corpus: Corpus) -> str:
    """Return one MLflow experiment for each data set and task."""
    return f"{corpus.name}/{corpus.task}"


@dataclass
class Prepared:
    """An experiment with its data at hand, not yet trained."""

    experiment: Experiment
    corpus: Corpus
    split: Split
    batches: Batches
    chain: Chain
    match: Match | None = None  # how a file of pretrained weights fits
    initial_digest: str = ""  # of the weights that the model drew, where pretrained ones may have taken their place


def prepare_run(
    experiment: Experiment,
    runtime: Runtime,
    rules: int = RULES,
    *,
    for_training: bool = True,
    resumes: Callable[[], bool] = lambda: False,
) -> Prepared:
    """Open the corpus of an experiment that was resolved on it (`resolve`), split it, pack the features, build the chain.

    Args:
        rules: the version of the training rules that it is trained by (`training.rules`).
        for_training: load pretrained weights and open the corpus of background noise; False where all weights are replaced
            afterwards and nothing is trained.
        resumes: see `load_pretrained`.

    Raises:
        UserError: for a corpus, split or configuration that does not hold.
        Abandoned: when `runtime.watch` was asked to leave.
    """
    experiment.check()
    corpus = runtime.corpus(experiment.data)
    check_corpus(experiment, corpus)
    split = experiment.data.assign(corpus)
    features = experiment.features.build_for(corpus.payload)
    check_features(experiment.features, features, experiment.data.clip_samples, feature_shape(experiment, features))
    packed = runtime.features.packed(experiment, corpus, features, runtime.device, runtime.watch)
    normaliser = runtime.features.normaliser(experiment, corpus, split, features, runtime.device, runtime.watch)
    chain = assemble(experiment, corpus, split, normaliser, runtime.device)
    if rules != FORMER and fills_with_mean(experiment) and isinstance(packed, PackedFeatures):
        for _, op in chain.augment.members:
            if isinstance(op, Masks):
                op.centre = runtime.features.band_means(experiment, corpus, split, packed)
    batches = Batches(experiment, corpus, split, chain.features, packed, runtime.device, runtime.watch, rules)
    prepared = Prepared(experiment, corpus, split, batches, chain)
    if for_training:
        give_backgrounds(chain, corpus, lambda name: runtime.corpus(Data(corpus=name)))
    if for_training and experiment.model.weights.kind != NONE:
        model = chain.classifier.model
        prepared.initial_digest = initial_digest(model)
        prepared.match = load_pretrained(model, experiment, runtime.workspace, resumes)
    return prepared


def as_recorded(experiment: Experiment, corpus: Corpus, split_digest: str | None) -> Experiment:
    """Return the experiment of a run with the split that it was trained on (`SplitScheme.as_recorded`).

    Args:
        split_digest: as the run recorded it.
    """
    scheme = experiment.data.split.as_recorded(corpus, split_digest)
    return experiment if scheme == experiment.data.split else experiment.override({"data.split": scheme})


def split_facts(experiment: Experiment, corpus: Corpus, split: Split) -> dict[str, str]:
    """Return what a reader of a run's figures must know of its split: the name of the fold, and the `remarks`."""
    name = experiment.data.split.fold_name(corpus)
    return {**({"split.fold_name": name} if name else {}), **remarks(experiment, corpus, split)}


def remarks(experiment: Experiment, corpus: Corpus, split: Split) -> dict[str, str]:
    """Return what to show with every figure of a run, by the keys of `REMARKS`: groups or identical clips on two sides, by which
    windows long clips are judged, and that it is a capacity check.
    """
    found = {OVERFIT: OVERFIT_REMARK} if experiment.data.overfit else split_remarks(corpus, split)
    if not experiment.features.framewise:
        return found
    data = experiment.data
    return found | windows_remark(corpus, split, data.evaluation, data.clip_samples)


def check_fits(experiment: Experiment, corpus: Corpus, workspace: Workspace | None = None) -> None:
    """Refuse an experiment that cannot be built for a corpus, before anything is created. It must have been resolved.

    With a workspace, a file of pretrained weights is fetched into it and matched with the model, and the corpus of background
    noise is looked for.

    Raises:
        UserError: for a sample rate, split, features, model or loss that do not fit the data or each other.
    """
    experiment.check()
    check_corpus(experiment, corpus)
    split = experiment.data.assign(corpus)
    features = experiment.features.build_for(corpus.payload)
    normaliser = Normaliser.build(experiment.features, features.n_bins)
    try:
        chain = assemble(experiment, corpus, split, normaliser, torch.device("cpu"))
        if workspace is not None:
            give_backgrounds(chain, corpus, partial(open_corpus, workspace))
            load_pretrained(chain.classifier.model, experiment, workspace)
    except UserError:
        raise
    except Exception:  # a fault in a user's own part: the run records it, with its traceback
        return


def run_facts(prepared: Prepared, device: torch.device) -> dict[str, str]:
    """Return what two runs must share to be compared, of a chain that has not been trained yet: digests of data,
    split, initial weights and the first epoch's clip order; the code of the metrics; kind of device and precision;
    with `split_facts`, and the `corrections` of the training rules that change the run.
    """
    experiment, split = prepared.experiment, prepared.split
    initial = prepared.initial_digest or initial_digest(prepared.chain.classifier.model)
    if prepared.initial_digest:  # the same whether the file was at hand or a checkpoint stood in for it
        initial = hashlib.sha256(f"{initial} {experiment.model.weights.digest()}".encode()).hexdigest()
    rows = experiment.sampling.build(np.asarray(prepared.corpus.targets[split.train]))(experiment.seed, 0)
    order = split.train[rows].astype("<i8")
    background = prepared.chain.background_digest
    corrected = corrections(experiment, len(split.train), prepared.batches.rules)
    return {
        **split_facts(prepared.experiment, prepared.corpus, split),
        **({CORRECTIONS: corrected} if corrected else {}),
        **({"background.digest": background} if background else {}),
        "data.digest": prepared.corpus.digest,
        "split.digest": split.digest,
        "experiment.digest": experiment.digest(),
        "init.digest": initial,
        "order.digest": hashlib.sha256(order.tobytes()).hexdigest(),
        "metric.version": str(VERSION),
        "device.kind": device.type,
        "precision": choose_precision(experiment.training.precision, device),
    }
