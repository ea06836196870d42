"""An experiment is a value: everything that describes one training run, and what it builds.

`Experiment` is a frozen component. A command line, an arm of an ablation, a trial of a study, a resumed run: each is an
experiment with overrides. `assemble` turns one into the chain from a batch to logits and loss, and refuses combinations that
cannot work (an augmentation of waveforms before features that take images, ...) before anything is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError
from torch import nn

from audio_cls.components.augment import Augment, BackgroundNoise, Built, Choose, build_augment, chosen_members
from audio_cls.components.features import FeatureExtractor, Features, LogMel, Normaliser
from audio_cls.components.losses import CrossEntropy, Loss
from audio_cls.components.models import Model, SmallCnn, parameter_count
from audio_cls.components.models.real_frames import learn_filler_frames
from audio_cls.components.optim import AdamW, Cosine, Optimizer, Schedule
from audio_cls.components.row_features import RowExtractor
from audio_cls.components.sampling import Sampling, Uniform
from audio_cls.components.shapes import check_augmentation, check_loss, check_model
from audio_cls.components.tempo_views import TempoViews
from audio_cls.components.weights import frozen_modules
from audio_cls.core.auto import AUTO
from audio_cls.core.config import NONE, Component, ConfigError
from audio_cls.core.device import Precision
from audio_cls.core.rng import derive
from audio_cls.data.corpus import Corpus
from audio_cls.data.settings import Data
from audio_cls.data.splits import Folds, Split, SplitScheme
from audio_cls.metrics.classification import check_metric, metric_of

__all__ = [
    "Chain",
    "Classifier",
    "Data",
    "Experiment",
    "Training",
    "assemble",
    "check_corpus",
    "check_domains",
    "check_metric_fits",
    "evaluation_views",
]


class Training(Component):
    """The budget and how it is spent. `metric` chooses the best epoch; `early_stopping` is a patience in epochs."""

    epochs: int = Field(default=30, ge=1)
    """Passes over the training clips."""
    batch_size: int = Field(default=32, ge=1)
    """Clips in a batch."""
    metric: str = "val/macro_f1"
    """Chooses the best epoch, on validation clips: val/ and accuracy, macro_f1, micro_f1, weighted_f1, weighted_precision,
    weighted_recall, uar, map, auc, d_prime, lwlrap, nll, brier or loss (nll and brier can be compared between losses, loss cannot);
    where the corpus has families of classes, also family_map and family_map_noisy_or."""
    early_stopping: int | None = Field(default=None, ge=1)
    """Epochs without a better metric after which training stops."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient; larger ones are scaled down."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Decay per step of averaged weights, which are then evaluated."""
    precision: Precision = "auto"
    """Of the computation; auto is bf16 on devices that compute in it, else fp32."""

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, name: str) -> str:
        try:
            check_metric(name)
        except ConfigError as error:  # a file that was run before may declare it, like any other part
            unknown = {"name": error.unknown[0][1], "family": "metric"} if error.unknown else {}
            raise PydanticCustomError("unknown_kind", "{message}", {"message": str(error), **unknown}) from None
        return name


class Experiment(Component):
    """One training run, completely."""

    data: Data = Data()
    """The clips and what of them is used."""
    features: Features = LogMel()
    """What the model sees of a clip."""
    augment: Augment = Augment()
    """Random changes of the training clips."""
    sampling: Sampling = Uniform()
    """How often each training clip is shown."""
    model: Model = SmallCnn()
    """The network or classifier."""
    loss: Loss = CrossEntropy()
    """What training minimises."""
    optimizer: Optimizer = AdamW()
    """How weights are updated."""
    schedule: Schedule = Cosine()
    """How the learning rate changes over training."""
    training: Training = Training()
    """The budget and how it is spent."""
    seed: int = Field(default=0, ge=0)
    """Of initial weights, clip order and augmentation."""

    def override(self, changes: Mapping[str, Any]) -> Self:
        """As `Component.override`; a key below `data.split` also chooses the kind of split, where that is "auto" and has no
        such key itself. Another corpus brings its own sample rate.
        """
        if changes.get("data.corpus", self.data.corpus) != self.data.corpus:
            changes = {"data.sample_rate": AUTO, **changes}
        has = type(self.data.split).model_fields
        below = [key for key in changes if key.startswith("data.split.")]
        if (
            any(key.split(".")[2] not in has for key in below)
            and self.data.split.kind == AUTO
            and not changes.keys() & {"data.split", "data.split.kind"}
        ):
            changes = {"data.split.kind": _split_kind_with(below), **changes}
        return super().override(changes)

    def check(self) -> Experiment:
        """Refuse what cannot work, whatever the data: a metric of other clips, domains. Returns itself."""
        if not self.training.metric.startswith("val/"):
            raise ConfigError(
                f"training.metric: {self.training.metric!r}: the best epoch is chosen on validation data: val/..."
            )
        check_domains(self)
        self.model.weights.check()
        if not self.model.closed_form:
            self.schedule.check(self.training.epochs)
        if self.model.closed_form and self.model.weights.kind != NONE:
            raise ConfigError(f"model.kind={self.model.kind} is fitted at once: set model.weights=none")
        return self


def _split_kind_with(keys: list[str]) -> str:
    """Return the kind of split that has these keys: `folds` where that has them, else the only one that does."""
    names = {key.split(".")[2] for key in keys}
    kinds = [kind for kind, member in SplitScheme.members().items() if names <= member.model_fields.keys()]
    if Folds.kind in kinds or not kinds:
        return Folds.kind
    if len(kinds) > 1:
        raise ConfigError(
            f"{keys[0]}: of which split? Set data.split.kind as well. Kinds with this key: {', '.join(kinds)}"
        )
    return kinds[0]


def check_domains(experiment: Experiment) -> None:
    """Follow a batch through the chain and refuse an operation that meets a domain it does not take.

    Raises:
        ConfigError: naming the operation, the domain it takes, and the one it would be given.
    """
    features, model = experiment.features, experiment.model
    for op in experiment.augment.ops:
        if isinstance(op, Choose):
            chosen_members(op, experiment.augment)
        if not op.domain:
            raise ConfigError(f"{type(op).__name__}.domain is missing: domain = 'waveform', 'spectrogram' or 'mix'")
        on_waveforms = op.stage.startswith("waveform")
        fits = features.input_domain == "waveform" if on_waveforms else op.takes(features.output_domain)
        if not fits:
            taken = "waveform" if on_waveforms else ", ".join(op.domains or (op.domain,))
            raise ConfigError(
                f"augment.{op.kind} takes {taken}, but features.kind={features.kind} gives {features.output_domain}: take it out "
                f"(augment.{op.kind}=none) or choose other features"
            )
        if op.needs_bands and not features.rows_are_bands:
            raise ConfigError(
                f"augment.{op.kind} changes frequencies, but the rows of features.kind={features.kind} are no frequency bands: take it "
                f"out (augment.{op.kind}=none) or choose other features"
            )
        if on_waveforms and not features.framewise:
            raise ConfigError(
                f"augment.{op.kind} changes waveforms, but features.kind={features.kind} are computed once from whole clips"
            )
    if experiment.data.evaluation.combined_by and not features.framewise:
        raise ConfigError(
            f"data.evaluation={experiment.data.evaluation.kind} cuts clips into windows, but features.kind={features.kind} are of whole clips: "
            "leave it at centre"
        )
    if experiment.data.evaluation.has_views and (features.output_domain != "spectrogram" or not features.framewise):
        raise ConfigError(
            f"data.evaluation.rates stretch spectrograms along time, but features.kind={features.kind} gives "
            f"{'one row of values a clip' if not features.framewise else features.output_domain}: leave it at 1"
        )
    if not model.input_domains:
        raise ConfigError(
            f"{type(model).__name__}.input_domains is missing: what it takes, such as input_domains = ('spectrogram',)"
        )
    if features.output_domain not in model.input_domains:
        allowed = ", ".join(model.input_domains)
        raise ConfigError(
            f"model.kind={model.kind} takes {allowed}, but features.kind={features.kind} gives {features.output_domain}"
        )
    if model.closed_form and experiment.augment.ops:
        names = ", ".join(op.kind for op in experiment.augment.ops)
        raise ConfigError(
            f"model.kind={model.kind} is fitted at once, not by batches: augment must be empty, found {names}"
        )


def check_metric_fits(metric: str, corpus: Corpus, key: str = "training.metric") -> None:
    """Refuse a metric that no run on this corpus reports.

    Raises:
        ConfigError: for another task, or families where the corpus has none.
    """
    found = metric_of(metric)
    if corpus.task not in found.tasks:
        raise ConfigError(
            f"{key}={metric} is for {' and '.join(found.tasks)} tasks, and {corpus.name!r} is {corpus.task}"
        )
    if found.for_families(corpus.family_columns) is None:
        raise ConfigError(
            f"{key}={metric} needs families of classes, and {corpus.name!r} records none: prepare it with its ontology (fsd50k, "
            "audioset: --set ontology=FILE), or judge by val/map"
        )


def check_corpus(experiment: Experiment, corpus: Corpus) -> None:
    """Refuse an experiment that does not fit its corpus: the domain of its rows, their rate, what their values are, the metric.

    Raises:
        ConfigError: naming what it takes, what the corpus holds, and the ways out.
    """
    data, features, payload = experiment.data, experiment.features, corpus.payload
    check_metric_fits(experiment.training.metric, corpus)
    if features.input_domain != payload.domain:
        kinds = [kind for kind, member in Features.members().items() if member.input_domain == payload.domain]
        raise ConfigError(
            f"features.kind={features.kind} takes a corpus of {features.input_domain}s, but {corpus.name!r} holds {payload.describe()}: "
            f"set features.kind to one of {', '.join(sorted(kinds))}"
        )
    for op in experiment.augment.ops:
        reason = op.refusal(payload.values)
        if reason:
            raise ConfigError(
                f"augment.{op.kind} has no meaning for the {payload.values} values of {corpus.name!r}: {reason}. Take it out "
                f"(augment.{op.kind}=none), or insist: augment.{op.kind}.force=true"
            )
    if data.sample_rate != corpus.rate:
        if not payload.is_waveform:
            raise ConfigError(
                f"data.sample_rate={data.sample_rate}, but {corpus.name!r} holds {corpus.rate:g} rows a second: leave it to the data "
                "(data.sample_rate=auto)"
            )
        raise ConfigError(
            f"data.sample_rate={data.sample_rate}, but the corpus {corpus.name!r} is packed at {corpus.sample_rate} Hz: leave it to "
            f"the data (data.sample_rate=auto), or prepare it again with --sample-rate {data.sample_rate}"
        )


class Classifier(nn.Module):
    """Normalisation and model: what is trained and saved. Takes un-normalised features, gives logits (batch, n_classes)."""

    def __init__(
        self,
        normaliser: Normaliser,
        model: nn.Module,
        frozen: Sequence[nn.Module] = (),
        views: TempoViews | None = None,
    ) -> None:
        """`frozen` are modules of the model that stay in evaluation mode while the rest is trained; `views` are how clips are judged,
        None is as they are.
        """
        super().__init__()
        self.normaliser = normaliser
        self.model = model
        self.views = views
        self._frozen = tuple(frozen)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = self.normaliser(features)
        return self.model(x) if self.views is None else self.views(x, self.model)


def evaluation_views(experiment: Experiment, task: str) -> TempoViews | None:
    """Return how windows are judged: `data.evaluation.rates`; None is at their own tempo only."""
    evaluation = experiment.data.evaluation
    return TempoViews(evaluation.rates, multiclass=task == "multiclass") if evaluation.has_views else None


@dataclass
class Chain:
    """The parts that an experiment builds for one data set, on one device."""

    features: FeatureExtractor
    classifier: Classifier
    loss: nn.Module
    augment: Built
    n_parameters: int  # trainable ones
    n_parameters_total: int

    @property
    def background_digest(self) -> str | None:
        """The digest of the corpus that background noise is taken from; None without any."""
        ops = [op for _, op in self.augment.members if isinstance(op, BackgroundNoise)]
        return next((op.recordings.digest for op in ops if op.recordings is not None), None)


def assemble(
    experiment: Experiment, corpus: Corpus, split: Split, normaliser: Normaliser, device: torch.device
) -> Chain:
    """Build the chain. Initial weights depend on (`seed`) only; the caller's random state is left as it was.

    Raises:
        ConfigError: for parts that do not fit each other or the data.
    """
    experiment.check()
    data = experiment.data
    features = experiment.features.build_for(corpus.payload)
    n_classes = len(corpus.classes)
    targets = corpus.targets[split.train]
    counts = torch.from_numpy(np.asarray(targets.sum(0), dtype=np.float32))
    shape = feature_shape(experiment, features)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(experiment.seed, "init"))
        model = experiment.model.build(shape, n_classes)
        learn_filler_frames(model, features, normaliser)
        check_model(experiment.model, model, shape, n_classes)
    bias = experiment.loss.initial_bias(counts, len(split.train), corpus.task)
    if bias is not None:
        _set_output_bias(model, bias)
    loss = experiment.loss.build(counts, len(split.train), corpus.task)
    check_loss(experiment.loss, loss, n_classes)
    hop: Any = features.hop_length
    if isinstance(features, RowExtractor):  # a picture that is resized has other columns than were packed
        hop = features.frames(data.clip_samples) / shape[-1]
    augment = build_augment(experiment.augment, data.rate, hop)
    for config, op in augment.members:
        check_augmentation(config, op, data.clip_samples, shape, n_classes)
    frozen = frozen_modules(model, experiment.model.weights)
    classifier = Classifier(normaliser, model, frozen, evaluation_views(experiment, corpus.task)).to(device=device)
    if device.type != "mps":
        classifier = classifier.to(memory_format=torch.channels_last)
    return Chain(
        features=features.to(device),
        classifier=classifier,
        loss=loss.to(device),
        augment=augment,
        n_parameters=parameter_count(model),
        n_parameters_total=parameter_count(model, frozen=True),
    )


def feature_shape(experiment: Experiment, features: FeatureExtractor) -> tuple[int, ...]:
    """Return the shape of one clip's features, without the batch axis."""
    domain, samples = experiment.features.output_domain, experiment.data.clip_samples
    if isinstance(features, RowExtractor):
        return features.shape(samples)
    if not experiment.features.framewise:
        return (features.n_bins,)
    if domain == "waveform":
        return (samples,)
    return (1, features.n_bins, features.frames(samples))


def _set_output_bias(model: nn.Module, bias: torch.Tensor) -> None:
    layers = [
        m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == len(bias) and m.bias is not None
    ]
    if not layers:
        raise ConfigError("loss.prior_bias=true: the model has no linear output layer with a bias of one value a class")
    with torch.no_grad():
        layers[-1].bias.copy_(bias)
