"""Test clips on which other runs of the same choice validate. Figures on them are cross-validation, not a test: the clips that
measure what was chosen are clips that chose it. What counts is the clips, not how the folds were asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from audio_cls.core.errors import UserError
from audio_cls.runs.opened_clips import recorded_split

if TYPE_CHECKING:
    from audio_cls.data.splits import Split
    from audio_cls.runs.preparation import Runtime
    from audio_cls.tracking import RunInfo, Tracker

__all__ = ["PREFIXES", "FigureKind", "Overlap", "overlap_of", "recorded_overlap", "runs_compared_with"]

FigureKind = Literal["test", "cross-validation"]
"""What figures on test clips are: of clips that chose nothing, or of clips on which other runs of the choice validate."""

PREFIXES: dict[str, str] = {"test": "test/", "cross-validation": "cross_validation/"}
"""Under which name MLflow keeps the figures of each kind."""


@dataclass(frozen=True)
class Overlap:
    """Test clips that validate too. n_test: clips that any run tests on; n_validating: those that any run validates on."""

    n_test: int
    n_validating: int

    @property
    def kind(self) -> FigureKind:
        return "cross-validation" if self.n_validating else "test"

    def sentence(self) -> str:
        """Return why the figures are cross-validation; empty where they are a test."""
        if not self.n_validating:
            return ""
        which = (
            f"all {self.n_test} test clips"
            if self.n_validating == self.n_test
            else f"{self.n_validating} of {self.n_test} test clips"
        )
        return f"{which} are validation clips of other runs that made the choice: these figures are cross-validation, not a test"


def overlap_of(measured: Iterable[Split], choosing: Iterable[Split]) -> Overlap:
    """Return which test clips of some splits are validation clips of others.

    Args:
        measured: the splits of the runs that are measured on their test clips.
        choosing: the splits of the runs whose validation figures chose among them, as a rule the same runs.
    """
    tested = {int(i) for split in measured for i in split.test}
    validating = {int(i) for split in choosing for i in split.validation}
    return Overlap(len(tested), len(tested & validating))


def recorded_overlap(runtime: Runtime, measured: Iterable[RunInfo], choosing: Iterable[RunInfo]) -> Overlap:
    """Return the overlap between the splits of recorded runs; of `choosing`, runs whose split cannot be read are left out.

    Raises:
        UserError: where the experiment or the corpus of a measured run is not at hand.
    """
    return overlap_of(_splits(runtime, measured, strict=True), _splits(runtime, choosing, strict=False))


def _splits(runtime: Runtime, infos: Iterable[RunInfo], strict: bool) -> list[Split]:
    found: dict[str, Split] = {}
    for info in infos:
        key = info.tags.get("split.digest", info.run_id)
        if key in found:
            continue
        try:
            found[key] = recorded_split(runtime, info)[1]
        except UserError:
            if strict:
                raise
    return list(found.values())


def runs_compared_with(tracker: Tracker, info: RunInfo) -> Sequence[RunInfo]:
    """Return the runs of the suite, cross-validation or confirmation that a run belongs to; empty for a run of its own."""
    suite = info.tags.get("ablation.suite")
    if suite:
        return tracker.runs(None, f"tags.`ablation.suite` = '{suite}' and tags.kind = 'cell'")
    if info.parent and info.tags.get("kind") in ("cell", "fold"):
        return tracker.runs(None, f"tags.mlflow.parentRunId = '{info.parent}'")
    return ()
