"""A comparison of arms as a value that runs itself, and its results; cross-validation of one experiment.

>>> import audio_cls as ac
>>> base = ac.Experiment().override({"data.corpus": "sounds", "training.epochs": 1})
>>> arms = {"plain": {}, "slow": {"optimizer.lr": 1e-5}}
>>> suite = ac.Ablation("pace", base=base, reference="plain", arms=arms, seeds=[0], folds=[1, 2]).run(progress=False)
>>> list(suite.table().index), suite.state
(['plain', 'slow'], 'complete: 4 of 4 runs')
"""

from __future__ import annotations

import html
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from audio_cls.ablation import declaration
from audio_cls.core.errors import UserError, choices, choose
from audio_cls.core.loading import reach_run
from audio_cls.core.notices import shown
from audio_cls.core.stopping import Interrupted
from audio_cls.core.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from audio_cls.ablation.cross_validation import FoldsOutcome
    from audio_cls.ablation.planning import Forecast
    from audio_cls.ablation.publishing import Publication
    from audio_cls.ablation.results import SuiteResult
    from audio_cls.ablation.test_split import TestResult
    from audio_cls.experiment import Experiment
    from audio_cls.report.arms import SuiteReport

__all__ = ["Ablation", "AblationResult", "cross_validate"]


class Ablation(declaration.Ablation):
    """A comparison of arms, each an experiment that differs from `base` by its overrides and in nothing else.

    See `audio_cls.ablation.declaration.Ablation` for its attributes.
    """

    def run(
        self,
        *,
        workers: int = 1,
        workspace: Workspace | Path | str | None = None,
        storage: str | Path | None = None,
        device: str = "auto",
        retry_failed: bool = False,
        progress: bool = True,
    ) -> AblationResult:
        """Train the runs that are missing and judge the arms, as `audio-cls ablate run` does; the same call again continues.

        Args:
            workers: processes on this machine, a GPU each where there are GPUs.
            workspace: its folder; AUDIO_CLS_WORKSPACE or the current folder unless given.
            storage: where the queue is kept, a file or postgresql://USER@HOST/NAME; `optuna.db` in the workspace unless given.
            device: "auto", "cpu", "cuda", "cuda:1", "mps".
            retry_failed: train failed runs again.
            progress: show how far it is.

        Raises:
            UserError: for arms that cannot be compared, naming the difference; for runs that were refused.
            KeyboardInterrupt: after Ctrl-C; what is trained is kept.
        """
        from audio_cls.ablation.publishing import publish
        from audio_cls.ablation.running import run_suite
        from audio_cls.ablation.suite import open_suite
        from audio_cls.queue.options import QueueOptions
        from audio_cls.tracking import Tracker

        if reach_run(self):
            return self.result(workspace=workspace, storage=storage)
        self._check_parts()
        tracker = Tracker(Workspace.of(workspace))
        options = QueueOptions(storage=storage, workers=workers, device=device)
        with shown(progress):
            tracker.flush()
            suite = open_suite(self, tracker, options, self._file())
            try:
                outcome = run_suite(suite, options, retry=retry_failed)
            except Interrupted as left:
                raise KeyboardInterrupt(str(left)) from None
            published = publish(outcome.suite, outcome.results)
        if outcome.filled.left:
            reasons = "; ".join(outcome.filled.refused)
            raise UserError(f"{outcome.filled.left} of {len(outcome.filled.states)} runs were refused: {reasons}")
        return AblationResult(published)

    def plan(
        self,
        *,
        workers: int = 1,
        workspace: Workspace | Path | str | None = None,
        storage: str | Path | None = None,
        device: str = "auto",
    ) -> Forecast:
        """What the suite can detect and what it costs, before it is trained, as `audio-cls ablate plan` says; nothing is written.

        Args:
            workers: processes that share the training.
            workspace, storage, device: as for `run`.

        Raises:
            UserError: for arms that cannot be compared, naming the difference.
        """
        from audio_cls.ablation.planning import forecast
        from audio_cls.ablation.suite import open_suite
        from audio_cls.queue.options import QueueOptions
        from audio_cls.tracking import Tracker

        tracker = Tracker(Workspace.of(workspace))
        suite = open_suite(self, tracker, QueueOptions(storage=storage, device=device), self._file())
        return forecast(suite, workers=workers, storage=storage)

    def result(
        self, *, workspace: Workspace | Path | str | None = None, storage: str | Path | None = None
    ) -> AblationResult:
        """The suite as it stands, without running it.

        Raises:
            UserError: for a suite that is not there, or whose data has changed.
        """
        from audio_cls.ablation.publishing import report_suite
        from audio_cls.tracking import Tracker

        return AblationResult(report_suite(self.name, Tracker(Workspace.of(workspace)), storage))

    def _check_parts(self) -> None:
        """Refuse parts that worker processes cannot find."""
        from audio_cls.runs.own_parts import homeless

        typed = sorted({part for arm in self.arms for part in homeless(self.arm(arm))})
        if typed:
            raise UserError(
                f"ablation {self.name!r}: {', '.join(typed)} was typed into a notebook or a shell, where worker processes cannot "
                "find it: put it into a .py file (in a notebook: %%writefile parts.py as the cell's first line) and import it"
            )

    def _file(self) -> Path | None:
        """The file from which worker processes take the space of `tune`."""
        found = inspect.getsourcefile(self.tune.space) if self.tune else None
        return Path(found) if found and Path(found).is_file() else None


@dataclass(frozen=True, eq=False)
class AblationResult:
    """What a suite says. In a notebook it shows its verdicts."""

    published: Publication

    @property
    def result(self) -> SuiteResult:
        """The suite on its first metric: arms with means, differences, verdicts, contract."""
        return self.published.results[0]

    @property
    def name(self) -> str:
        return self.result.ablation.name

    @property
    def state(self) -> str:
        """How far it is, in a line."""
        return self.result.state

    @property
    def looks(self) -> list[str]:
        """How often its verdicts were looked at and what that costs, in sentences."""
        return self.result.looks.sentences()

    @property
    def verdicts(self) -> dict[str, str]:
        """Arm -> verdict in a sentence; the reference has none."""
        return {arm.name: arm.verdict.text for arm in self.result.arms if arm.verdict is not None}

    @property
    def page(self) -> Path | None:
        """The HTML report; None while no run is finished."""
        return self.published.page

    def evaluate_test(self, *, nested: bool = False, again: bool = False, device: str = "auto") -> TestResult:
        """Open the test split of all runs of the suite, as `audio-cls evaluate --test` does: recorded, and counted.

        Args:
            nested: choose an arm inside each fold as well, for a suite whose runs validate on each other's test clips.
            again: open it once more.
            device: "auto", "cpu", "cuda", "cuda:1", "mps".

        Returns:
            the figures of the arms, and what they are (`kind`): "test", or "cross-validation" where these clips chose.

        Raises:
            UserError: while runs are left; when it was opened before; for `nested` where there is nothing to nest.
        """
        from audio_cls.ablation.test_groups import of_suite
        from audio_cls.ablation.test_split import open_group
        from audio_cls.core.device import choose_device, tune_process
        from audio_cls.runs.preparation import Runtime

        tune_process()
        suite = self.published.suite
        runtime = Runtime(suite.workspace, suite.tracker, choose_device(device))
        found = open_group(runtime, of_suite(suite), again=again, nested=nested)
        suite.tracker.flush()
        return found

    def table(self, metric: str | None = None) -> pd.DataFrame:
        """A row for each arm: runs, mean, standard deviation, difference from the reference with its interval (at the arm's own level
        by Holm), corrected p, probabilities that it is better by more than the margin, within it, worse; the smallest margin within
        which it is equal; the interval and p for new training sets of this source; the verdict, and what it speaks of.

        Args:
            metric: one of the suite's; the first one unless given.

        Raises:
            UserError: for a metric that the suite does not judge by.
        """
        import pandas as pd

        from audio_cls.ablation.results import Wider

        by_metric = {result.metric: result for result in self.published.results}
        if metric is not None and metric not in by_metric:
            raise UserError(f"the suite {self.name!r} is not judged by {metric!r}. {choices(metric, by_metric)}")
        rows = []
        for arm in by_metric[metric or self.result.metric].arms:
            row = {"arm": arm.name, "runs": arm.done, "mean": arm.mean.mean, "sd": arm.mean.sd}
            if arm.comparison is not None and arm.verdict is not None:
                pair = arm.comparison
                v, w = arm.verdict, arm.wider or Wider(arm.verdict.p, arm.verdict.low, arm.verdict.high, "")
                row |= {"difference": pair.mean, "low": v.low, "high": v.high, "p": v.p, "population": v.population}
                row |= {"better": v.better, "within": v.within, "worse": v.worse, "equal_within": v.equal_within}
                row |= {"wider_low": w.low, "wider_high": w.high, "wider_p": w.p}
            row["verdict"] = "the reference" if arm.verdict is None else arm.verdict.word
            rows.append(row)
        columns = [
            "arm", "runs", "mean", "sd", "difference", "low", "high", "p", "verdict", "better", "within", "worse", "equal_within",
            "wider_low", "wider_high", "wider_p", "population",
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=columns).set_index("arm")

    @property
    def published_figures(self) -> pd.DataFrame:
        """A row for each figure that others have published; they are in no statistic."""
        import pandas as pd

        from audio_cls.metrics.published import Published, stored_published

        rows = stored_published(tuple(self.result.ablation.published))
        return pd.DataFrame(rows, columns=[field.name for field in fields(Published)])

    def figures(self) -> list[str]:
        """The names that `figure` takes."""
        return list(self._all_figures)

    def figure(self, name: str = "forest") -> go.Figure:
        """A figure of the suite's page: "forest" (differences with intervals), "runs" (every run), "curves", "classes",
        and by a column of the clips, where it has few values, "by_salience", say.

        Raises:
            UserError: for an unknown name, or a figure that the runs cannot give yet.
        """
        return choose(self._all_figures, name, f"figure {name!r} of the suite {self.name!r}")

    @cached_property
    def _all_figures(self) -> Mapping[str, go.Figure]:
        from audio_cls.ablation.clip_groups import column_figures
        from audio_cls.metrics.verdict import in_points
        from audio_cls.report.arm_figures import arm_curves, class_difference_figure, every_run, forest

        report = self._report
        points = in_points(report.metric)
        figures = {}
        if any(not arm.reference and arm.difference == arm.difference for arm in report.arms):
            figures["forest"] = forest(report.arms, report.metric, report.direction, points)
        if report.cells:
            figures["runs"] = every_run(report.cells, report.arms, report.metric)
        if any(curve.metric == report.metric for curve in report.curves):
            figures["curves"] = arm_curves(report.curves, [arm.name for arm in report.arms], report.metric)
        if report.class_differences is not None and len(report.class_differences.arms):
            figures["classes"] = class_difference_figure(report.class_differences, points)
        return figures | column_figures(report)

    @cached_property
    def _report(self) -> SuiteReport:
        from audio_cls.ablation.page_data import build_report

        shown, first = self.published, self.result
        return build_report(
            first, shown.suite.tracker, shown.suite.corpus, first.scores, shown.test,
            shown.results[1:], shown.history,
        )  # fmt: skip

    def __repr__(self) -> str:
        words = ", ".join(f"{arm.name}: {arm.verdict.word}" for arm in self.result.arms if arm.verdict is not None)
        return f"<AblationResult {self.name}: {self.state}{'; ' if words else ''}{words}>"

    def _repr_html_(self) -> str:
        lines = "".join(f"<li>{html.escape(f'{arm}: {text}')}</li>" for arm, text in self.verdicts.items())
        said = "; ".join([self.state, *self.looks])
        head = f"<p><b>{html.escape(self.name)}</b>, {html.escape(self.result.metric)}: {html.escape(said)}</p>"
        return f"{head}<ul>{lines}</ul>" + self.table().to_html(float_format=lambda v: f"{v:.4f}", na_rep="")


def cross_validate(
    experiment: Experiment,
    *,
    folds: str | None = "all",
    seeds: int = 1,
    workers: int = 1,
    workspace: Workspace | Path | str | None = None,
    storage: str | Path | None = None,
    again: bool = False,
    progress: bool = True,
) -> FoldsOutcome:
    """Train an experiment over folds and seeds, as `audio-cls train --folds --seeds` does; the same call again continues.

    Args:
        experiment: what to train.
        folds: "all", or a list such as "1,2,3"; None for the split as the experiment has it.
        seeds: runs for each fold, counted up from the experiment's seed.
        workers: processes on this machine.
        workspace: its folder; AUDIO_CLS_WORKSPACE or the current folder unless given.
        storage: where the queue is kept; `optuna.db` in the workspace unless given.
        again: train again although the same runs are there.
        progress: show how far it is.

    Raises:
        UserError: for a split without folds, a fold that is not there, an experiment that does not fit its corpus.
        KeyboardInterrupt: after Ctrl-C; what is trained is kept.
    """
    from audio_cls.ablation.cross_validation import cross_validate as run
    from audio_cls.ablation.cross_validation import plan_cross_validation
    from audio_cls.queue.options import QueueOptions
    from audio_cls.runs.preparation import open_corpus
    from audio_cls.tracking import Tracker

    again = again and not reach_run()  # a worker that loads the script finds the runs finished
    place = Workspace.of(workspace)
    plan = plan_cross_validation(experiment.check(), open_corpus(place, experiment.data), folds, seeds)
    try:
        with shown(progress):
            return run(plan, Tracker(place), QueueOptions(storage=storage, workers=workers), again=again)
    except Interrupted as left:
        raise KeyboardInterrupt(str(left)) from None
