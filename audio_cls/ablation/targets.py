"""What `evaluate` is asked for: a run, or a group of runs whose test split is opened together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio_cls.ablation.stored import existing_storage, suite_names
from audio_cls.ablation.suite import reopen_suite
from audio_cls.ablation.test_groups import Group, of_parent, of_suite
from audio_cls.core.errors import UserError

if TYPE_CHECKING:
    from audio_cls.tracking import RunInfo, Tracker

__all__ = ["run_or_group"]


def run_or_group(tracker: Tracker, reference: str, *, test: bool, storage: str | None = None) -> RunInfo | Group:
    """Find a run, or the suite, cross-validation or confirmation whose test split is asked for.

    Raises:
        UserError: for an unknown reference, an arm or a study, and for a group without `test`: its validation figures are
            recorded already.
    """
    workspace = tracker.workspace
    suites = suite_names(workspace, existing_storage(workspace, storage))
    info = None
    if reference not in suites:
        try:
            info = tracker.resolve(reference)
        except UserError as error:
            raise UserError(f"{error} Suites: {', '.join(suites) or 'none'}.") from None
    kind = info.tags.get("kind", "") if info else "suite"
    name = info.tags.get("ablation.suite", reference) if info else reference
    if kind == "arm":
        raise UserError(
            f"{reference} is an arm: the test split is opened for its whole suite, audio-cls evaluate --test {name}"
        )
    if kind == "study":
        raise UserError(
            f"{reference} is a study: name one of its trials, such as the best (audio-cls study best {reference})"
        )
    if info is not None and kind not in ("suite", "cross-validation", "confirmation"):
        return info
    if not test:
        hint = f"audio-cls ablate report {name}" if kind == "suite" else "name one of the runs below it"
        raise UserError(
            f"{reference} is a {kind}: its validation figures are recorded already ({hint}); --test opens its test split"
        )
    if info is None or kind == "suite":
        return of_suite(reopen_suite(name, tracker, storage))
    return of_parent(tracker, info)
