"""The results of a suite published: its HTML page, its views in MLflow, and what is reported beside its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from audio_cls.ablation.declaration import load_ablation
from audio_cls.ablation.details import captions, main_details
from audio_cls.ablation.page import suite_report
from audio_cls.ablation.page_data import audit_of_best, build_report
from audio_cls.ablation.results import SuiteResult
from audio_cls.ablation.running import ascending, log_result
from audio_cls.ablation.settling import settle
from audio_cls.ablation.stored import existing_storage, join_suite, store_state, suite_names
from audio_cls.ablation.suite import Suite, reopen_suite, results
from audio_cls.ablation.test_groups import suite_splits
from audio_cls.ablation.test_split import TestResult, read_result
from audio_cls.core.errors import UserError
from audio_cls.metrics.base import plain_name
from audio_cls.metrics.published import Published, stored_published
from audio_cls.runs.opened_clips import history_of_runs
from audio_cls.runs.split_overlap import Overlap, overlap_of
from audio_cls.tracking.notes import renewed_note

if TYPE_CHECKING:
    from audio_cls.tracking import Tracker

__all__ = ["Publication", "SuiteLine", "list_suites", "publish", "report_suite"]


@dataclass(frozen=True)
class Publication:
    """A suite's results and where they are shown.

    test: what the last opening of the test split found. history: how often its
    test clips were opened for other runs, in a sentence. page: the HTML file, None if none was written. links: to MLflow's
    views, by their names.
    """

    suite: Suite
    results: Sequence[SuiteResult]
    test: TestResult | None
    history: str
    page: Path | None
    links: Mapping[str, str]


@dataclass(frozen=True)
class SuiteLine:
    """A suite in a list: its state and verdicts, or why it was refused."""

    name: str
    metric: str
    state: str
    words: str


def report_suite(reference: str, tracker: Tracker, storage: str | Path | None = None) -> Publication:
    """Report on a suite as it stands, given by its name or its file; its arms' figures in MLflow are renewed.

    Raises:
        UserError: for a suite that is not there, or whose declaration or data has changed.
    """
    if reference.endswith(".py"):
        ablation = load_ablation(Path(reference))
        suite = reopen_suite(ablation.name, tracker, storage)
        ablation, _ = settle(ablation, suite.corpus, suite.state.data_rules)
        join_suite(ablation, suite.state, suite.corpus, Path(reference))  # refuses a declaration that has changed
        suite = _with_published(suite, tuple(ablation.published))
    else:
        suite = reopen_suite(reference, tracker, storage)
    summed = results(suite)
    if not tracker.read_only:
        sent = {arm: run_id for arm, run_id in suite.state.arms.items() if not run_id.startswith("local-")}
        runs = {arm: tracker.reopen(run_id) for arm, run_id in sent.items()}
        for result in summed:
            log_result(result, runs)
    return publish(suite, summed)


def _with_published(suite: Suite, published: tuple[Published, ...]) -> Suite:
    """Return a suite with the published figures that its file has by now; they are kept with it."""
    suite.state.published = stored_published(published)
    if suite.storage is not None and not suite.workspace.read_only:
        store_state(suite.state, suite.storage, lambda: None)
    return replace(suite, ablation=replace(suite.ablation, published=published))


def publish(suite: Suite, summed: Sequence[SuiteResult]) -> Publication:
    """Write the page of a suite with runs, store it in MLflow, and renew the views."""
    first, ablation, tracker = summed[0], suite.ablation, suite.tracker
    test = read_result(tracker, suite.state.run_id, lambda: _overlap(suite))
    history = _history(suite, first)
    page = None
    if first.done and not suite.workspace.read_only:
        page = suite.workspace.reports / f"suite-{ablation.name}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        data = build_report(first, tracker, suite.corpus, first.scores, test, summed[1:], history)
        suite_report(data, page, audit_of_best(first, first.scores, suite.corpus))
        if suite.state.run_id and not suite.state.run_id.startswith("local-"):
            run = tracker.reopen(suite.state.run_id)
            run.artifact_text("report.html", page.read_text(encoding="utf-8"))
            run.tags(_tags(first, tracker.resolve(suite.state.run_id).tags))
            run.close()
    known = ablation.base.keys()
    declared = {key for changes in ablation.arms.values() for key in changes} | {ablation.fold_key or ""}
    keys = sorted(k for k in declared | {key.rpartition(".")[0] for key in declared} if k in known)
    links = tracker.suite_views(
        suite.experiment_name, ablation.name, plain_name(first.metric), ablation.select, keys,
        ascending=ascending(first),
    )  # fmt: skip
    return Publication(suite, summed, test, history, page, links)


def _tags(result: SuiteResult, present: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of the suite's run in MLflow that tell its verdicts: looks, and a description unless somebody has edited it."""
    looks = result.looks
    counted = {"looks": str(len(looks.looks)), "looks.level": f"{looks.alpha:.4g}"} if looks.looks else {}
    lines = [
        f"**{result.metric}** of the {result.ablation.select} epoch, against {result.ablation.reference}: {result.state}"
    ]
    for arm in result.arms:
        if arm.verdict is not None:
            lines.append(
                "\n".join([f"- **{arm.name}**: {arm.verdict.text}", *(f"  - {t}" for t in main_details(arm, result))])
            )
    lines.append("\n".join(f"{line[0].upper()}{line[1:]}." for line in (*captions(result), *result.findings)))
    return {**counted, **renewed_note("\n\n".join(lines), present)}


def _overlap(suite: Suite) -> Overlap:
    """Return which test clips of a suite are validation clips of its runs."""
    splits = suite_splits(suite)
    return overlap_of(splits, splits)


def _history(suite: Suite, result: SuiteResult) -> str:
    """Say how often the test clips of a suite were opened, where it was for other runs too; empty if not."""
    known = {r.run_id for r in result.records if r.run_id}
    query = f"params.`ablation.suite` = '{result.ablation.name}' and tags.kind = 'cell'"
    runs = [r for r in suite.tracker.runs(filter=query) if known & {r.run_id, r.tags.get("local_uid", "")}]
    history = history_of_runs(suite.workspace, suite.tracker, runs)
    return history.sentence() if history.but(f"suite {result.ablation.name}").openings else ""


def list_suites(tracker: Tracker, storage: str | Path | None = None) -> list[SuiteLine]:
    """List the suites of a storage and how far they are."""
    lines = []
    for name in suite_names(tracker.workspace, existing_storage(tracker.workspace, storage)):
        try:
            result = results(reopen_suite(name, tracker, storage))[0]
            words = [f"{a.name}: {a.verdict.word}" for a in result.arms if a.verdict is not None]
            lines.append(SuiteLine(name, result.metric, result.state, ", ".join(words)))
        except UserError as error:
            lines.append(SuiteLine(name, "", "refused", str(error)))
    return lines
