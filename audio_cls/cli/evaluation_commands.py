"""`audio-cls evaluate`: a run's figures on validation clips; the test split of a run, a suite, a cross-validation, a confirmation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio_cls.cli.console import progress, say, table
from audio_cls.core.errors import UserError
from audio_cls.core.stopping import Watch
from audio_cls.core.workspace import Workspace

if TYPE_CHECKING:
    from audio_cls.ablation.test_split import Group
    from audio_cls.runs.preparation import Runtime

__all__ = ["evaluate_command"]


def evaluate_command(workspace: Workspace, reference: str, *, test: bool, again: bool, device: str) -> None:
    """Figures of a run on its validation clips; or the test split of a run, a suite, a cross-validation or a confirmation."""
    from audio_cls.ablation.record import suite_names
    from audio_cls.core.device import choose_device, tune_process
    from audio_cls.runs.evaluation import evaluate_run
    from audio_cls.runs.preparation import Runtime
    from audio_cls.tracking import Tracker

    tune_process()
    tracker = Tracker(workspace)
    tracker.flush()
    runtime = Runtime(workspace, tracker, choose_device(device))
    suites = suite_names(workspace)
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
    if kind in ("suite", "cross-validation", "confirmation"):
        if not test:
            hint = f"audio-cls ablate report {name}" if kind == "suite" else "name one of the runs below it"
            raise UserError(
                f"{reference} is a {kind}: its validation figures are recorded already ({hint}); --test opens its test split"
            )
        from audio_cls.ablation.test_split import of_parent, of_suite

        if info is None or kind == "suite":
            from audio_cls.ablation.running import reopen_suite

            group = of_suite(reopen_suite(name, workspace, tracker))
        else:
            group = of_parent(tracker, info)
        _open_group(runtime, group, again)
    elif info is not None and test:
        from audio_cls.runs.test_split import open_run

        open_run(runtime, info, again=again)
    elif info is not None:
        evaluate_run(runtime, info)
        if tracker.read_only:
            say("nothing was recorded: the workspace is read-only")


def _open_group(runtime: Runtime, group: Group, again: bool) -> None:
    from audio_cls.ablation.test_split import group_history, open_group
    from audio_cls.metrics.baselines import baseline_name
    from audio_cls.runs.test_split import NOT_UNBIASED

    with progress(f"{group.name}: test") as tell:
        runtime.watch = Watch(tell=tell.phase)
        found = open_group(runtime, group, again=again, on_run=tell)
    runtime.tracker.flush()
    task = next(iter(runtime.corpora.values())).task
    for arm, lines in found.findings.items():
        for line in lines:
            say(f"{arm}: {line}")
    for metric in found.metrics:
        rows = []
        for arm, figures in found.arms.items():
            of = figures[metric]
            mine = found.differences.get(arm, {}).get(metric)
            interval = "" if of["low"] is None else f"[{of['low']:.3f}, {of['high']:.3f}]"
            rows.append(
                [arm, of["value"], interval, mine["text"] if mine else "the reference" if found.reference else ""]
            )
        if metric in found.baseline:
            rows.append([baseline_name(task), found.baseline[metric], "", ""])
        columns = [
            "arm",
            metric.rpartition("/")[2],
            "95 % over clips",
            f"against {found.reference}" if found.reference else "",
        ]
        table(f"{found.name}: {found.clips} test clips", columns, rows)
    for remark in found.remarks:
        say(f"note: {remark}")
    say(f"chosen: {found.chosen}")
    say(
        f"the test split of {found.name} has been opened {found.openings} time(s); recorded ({found.who}, {found.last})"
    )
    history = group_history(runtime, group)
    if history.but(group.what).openings:
        say(f"{history.sentence()}. {NOT_UNBIASED}")
