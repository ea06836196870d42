"""What an experiment says about its data: the corpus, the windows of its clips, the split, labels, a part of the clips."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from audio_cls.core.auto import AUTO, OrAuto, known
from audio_cls.core.config import Component, ConfigError
from audio_cls.data.corpus import Corpus
from audio_cls.data.default_split import AutoSplit
from audio_cls.data.splits import Split, SplitScheme
from audio_cls.data.subsets import Subset
from audio_cls.data.views import AsPublished, LabelView
from audio_cls.data.windows import Centre, EvaluationWindows

__all__ = ["Data"]


class Data(Component):
    """Which clips, and what part of each: `clip_seconds`, cut at random when training, as `evaluation` says when evaluating;
    shorter clips are padded.

    What is "auto" is chosen by `audio_cls.runs.resolve`: the corpus's rate, a window that fits its durations, the split that it names.
    """

    added_fields = frozenset({"labels", "subset", "evaluation", "overfit"})

    corpus: str = "demo"
    """Name of a prepared corpus, or the path of its folder."""
    sample_rate: OrAuto[Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0)]] = AUTO
    """A fact of the corpus: samples (or rows) a second; auto takes it from there, anything else must agree with it."""
    clip_seconds: OrAuto[Annotated[float, Field(gt=0)] | None] = AUTO
    """Length of what the model sees of a clip, in seconds; auto covers most clips, none is the longest clip."""
    crop: Literal["random", "centre"] = "random"
    """Where a longer clip is cut when training."""
    pad: Literal["zero", "end", "tile"] = "zero"
    """How a shorter clip is filled: with zeros on both sides, with zeros at its end, or repeated."""
    split: SplitScheme = AutoSplit()
    """Which clips train, validate and test; auto is published folds, the official split, or generated folds."""
    labels: LabelView = AsPublished()
    """A view of the labels: one class against the rest, families, a mapping, a selection."""
    subset: Subset = Subset()
    """A part of the split's clips."""
    evaluation: EvaluationWindows = Centre()
    """Which windows of a longer clip are evaluated: the middle one, or several, whose probabilities are combined."""
    overfit: bool = False
    """Capacity check (`train --overfit`): the training clips validate too. Its figures say nothing of new clips."""

    def assign(self, corpus: Corpus) -> Split:
        """Split a corpus (already in the view that `labels` asks for) and take the subset.

        Raises:
            UserError: as `SplitScheme.assign` and `Subset.apply`.
        """
        split = self.subset.apply(corpus, self.split.assign(corpus))
        return replace(split, validation=split.train) if self.overfit else split

    def refuse_overfit(self, where: str) -> None:
        """Refuse a capacity check where figures are compared.

        Raises:
            ConfigError: naming the comparison.
        """
        if self.overfit:
            raise ConfigError(
                f"{where}: data.overfit=true is a capacity check, whose figures are of the clips that were trained on: nothing is "
                "chosen or compared by them. Use it with `audio-cls train --overfit`"
            )

    @field_validator("sample_rate")
    @classmethod
    def _whole_rate(cls, rate: Any) -> Any:
        return int(rate) if isinstance(rate, float) and rate.is_integer() else rate

    @property
    def rate(self) -> int:
        """The sample rate in Hz, once it is resolved."""
        return known(self.sample_rate, "data.sample_rate")  # type: ignore[return-value] # rows may come at a broken rate

    @property
    def clip_samples(self) -> int:
        """Samples (or rows) of the window, at least one."""
        seconds = known(self.clip_seconds, "data.clip_seconds")
        if seconds is None:
            raise ConfigError("data.clip_seconds=none: the experiment has not been resolved against its corpus")
        return max(1, round(seconds * self.rate))
