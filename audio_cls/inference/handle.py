"""Runs as values: train one, open one that is recorded, look at its figures and predictions, label audio with it.

>>> import audio_cls as ac
>>> base = ac.Experiment().override({"data.corpus": "sounds", "training.epochs": 2})
>>> run = ac.train(base, name="first", progress=False)
>>> run.state, len(run.history), 0 <= run.metrics["macro_f1"] <= 1
('COMPLETE', 2, True)
>>> ac.open_run("first").id == run.id
True
"""

from __future__ import annotations

import html
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from audio_cls.core import notices
from audio_cls.core.device import choose_device, tune_process
from audio_cls.core.errors import RunFailed, UserError, choose
from audio_cls.core.loading import reach_run
from audio_cls.core.stopping import StopRequest, Watch
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.experiment import Experiment
from audio_cls.inference.files import audio_files
from audio_cls.inference.opening import run_labeller
from audio_cls.inference.run_labeller import RunLabeller
from audio_cls.metrics.predictions import Predictions
from audio_cls.metrics.slices import figures_by
from audio_cls.report.tables import slice_table
from audio_cls.runs.clip_columns import clip_column, clip_columns
from audio_cls.runs.comparison import RunComparison, compare_runs
from audio_cls.runs.evaluation import Scored, check_same_data, score_run
from audio_cls.runs.own_parts import recorded_experiment
from audio_cls.runs.page import RunReport, run_figures
from audio_cls.runs.page_data import page_path, run_page, write_page
from audio_cls.runs.preparation import Runtime, check_fits, open_corpus
from audio_cls.runs.resolve import resolution_warnings, resolve
from audio_cls.runs.scores import read_predictions
from audio_cls.runs.single import continue_run, read_state, run_folder, single_run
from audio_cls.runs.test_split import OpenedTestSplit, open_test_split
from audio_cls.tracking import RunInfo, Tracker

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["Run", "compare", "list_runs", "open_run", "train"]

log = logging.getLogger(__name__)
CHOSEN, LAST, BASELINE = "best/", "last/", "baseline/"


@dataclass(frozen=True, eq=False)
class Run:
    """A run that MLflow holds, as it was when it was opened. In a notebook it shows its figures.

    Everything is read when it is asked for; only `predict` and `evaluate(test=True)` need the run's weights.
    """

    tracker: Tracker
    info: RunInfo

    @property
    def id(self) -> str:
        """The run's id in MLflow."""
        return self.info.run_id

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def state(self) -> str:
        """RUNNING, COMPLETE, PRUNED, FAILED or INTERRUPTED."""
        return self.info.state

    @property
    def metrics(self) -> dict[str, float]:
        """Validation metrics of the best epoch."""
        return self._figures(CHOSEN)

    @property
    def last(self) -> dict[str, float]:
        """Validation metrics of the last epoch, which nobody chose."""
        return self._figures(LAST)

    @property
    def baseline(self) -> dict[str, float]:
        """The same metrics of a model that learned nothing."""
        return self._figures(BASELINE)

    @property
    def parameters(self) -> int | None:
        """Trainable parameters of the model; None before the run is complete."""
        found = self.info.metrics.get("final/parameters")
        return None if found is None else int(found)

    @property
    def findings(self) -> str:
        """What is wrong with the predictions, in sentences; empty if nothing is."""
        text = self.info.tags.get("findings", "")
        return "" if text == "none" else text

    @cached_property
    def experiment(self) -> Experiment:
        """The experiment as it was recorded.

        Raises:
            UserError: for a run without one, or one whose own parts are not known here.
        """
        return recorded_experiment(self.tracker, self.info)

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row for each epoch, which counts from 1: losses, metrics, seconds."""
        import pandas as pd

        columns = {
            key: dict(self.tracker.curve(self.id, key))
            for key in sorted(self.info.metrics)
            if key.startswith(("train/", "val/", "time/", "lr"))
        }
        frame = pd.DataFrame(columns).sort_index()
        frame.index = pd.Index(frame.index + 1, name="epoch")
        return frame

    @cached_property
    def predictions(self) -> Predictions:
        """What the best epoch's weights say of the validation clips, as it was recorded.

        Raises:
            UserError: for a run that is not complete, or whose corpus has changed.
        """
        found = read_predictions(self.tracker, self.id, self._corpus)
        if found is None:
            raise UserError(f"run {self.name} ({self.id[:8]}) is {self.state}: it has no predictions")
        return found.tuned()

    def table(self) -> pd.DataFrame:
        """Return a row for each metric: best epoch, last epoch, a model that learned nothing."""
        import pandas as pd

        columns = {"best epoch": self.metrics, "last epoch": self.last, "baseline": self.baseline}
        return pd.DataFrame({name: values for name, values in columns.items() if values}, index=list(self.metrics))

    def figure(self, name: str) -> go.Figure:
        """Return a figure of the run's report as a Plotly figure, which shows itself in a notebook.

        Args:
            name: one of `figures()`, such as "confusion".

        Raises:
            UserError: for an unknown name; for a run that is not complete, or whose corpus has changed.
        """
        return choose(self._all_figures, name, f"figure {name!r} of the run {self.name}")

    def figures(self) -> list[str]:
        """Return the names that `figure` takes."""
        return list(self._all_figures)

    def predict(
        self, paths: str | Path | Sequence[str | Path], *, top: int | None = None, device: str = "auto"
    ) -> dict[str, float] | dict[Path, dict[str, float]]:
        """Label audio files.

        Args:
            paths: a file; or a folder, or several files and folders.
            top: keep so many labels; all unless given.
            device: "auto", "cpu", "cuda", "cuda:1", "mps".

        Returns:
            label -> probability, the most probable first; for a folder or several paths one such dictionary for each file.

        Raises:
            UserError: for a run that cannot label, and for a file that cannot be read.
        """
        one = isinstance(paths, (str, Path)) and not Path(paths).is_dir()
        files = audio_files([Path(paths)] if isinstance(paths, (str, Path)) else [Path(p) for p in paths])
        labeller = self.labeller(device)
        out: dict[Path, dict[str, float]] = {}
        for found in labeller.label(files):
            if found.scores is None:
                raise UserError(f"{found.path}: {found.error}")
            out[found.path] = dict(labeller.top(found.scores, len(labeller.classes) if top is None else top))
        return out[files[0]] if one else out

    def evaluate(
        self, *, test: bool = False, train: bool = False, again: bool = False, device: str = "auto"
    ) -> Scored | OpenedTestSplit:
        """Evaluate the best epoch's weights, as `audio-cls evaluate` does.

        Args:
            train: on the training clips, as they are (without augmentation) instead of the validation clips.
            test: open the test split; who opened it and when is recorded, and a second time is refused.
            again: open it once more; counted.
            device: "auto", "cpu", "cuda", "cuda:1", "mps".

        Returns:
            the validation clips scored; with `test` the opened test split, its figures with 95 % intervals.

        Raises:
            UserError: for a run that is not complete, whose corpus has changed, or whose test split was opened before.
        """
        tune_process()
        runtime = Runtime(self.tracker.workspace, self.tracker, choose_device(device))
        info = self.tracker.resolve(self.id)
        if test and train:
            raise UserError("evaluate(test=True, train=True): one or the other")
        part: Literal["train", "validation"] = "train" if train else "validation"
        return open_test_split(runtime, info, again=again) if test else score_run(runtime, info, part)

    def by(self, column: str) -> pd.DataFrame:
        """Return the validation figures of the clips with each value of a column, such as "salience" or "group": accuracy (with several
        labels a clip, micro F1) with its 95 % interval, and macro F1.

        Raises:
            UserError: for a column that the corpus does not have; for a run that is not complete, or whose corpus has changed.
        """
        import pandas as pd

        predictions = self.predictions
        values = clip_column(self._corpus, column, predictions.rows)
        columns, rows = slice_table(figures_by(predictions, values), column, predictions.task)
        return pd.DataFrame(rows, columns=columns).set_index(column)

    def report(self, html: Path | str | None = None, *, device: str = "auto") -> Path:
        """Write the run's page, with clips to hear, and log it to MLflow. Returns the file, `reports/NAME.html` unless given."""
        workspace = self.tracker.workspace
        path = page_path(workspace, f"run-{self.name}-{self.id[:8]}", Path(html) if html else None)
        page = run_page(workspace, self.tracker, self.tracker.resolve(self.id), device)
        return write_page(self.tracker, path, page, self.id).path

    def labeller(self, device: str = "auto") -> RunLabeller:
        """Return the run's classifier with its front end, on a device.

        Raises:
            UserError: for a run without weights, or whose artifacts are damaged.
        """
        return run_labeller(self.tracker, self.info, choose_device(device))

    def __repr__(self) -> str:
        chosen = ", ".join(f"{key}={value:.4f}" for key, value in list(self.metrics.items())[:2])
        return f"<Run {self.name} {self.id[:8]} {self.state}{': ' if chosen else ''}{chosen}>"

    def _repr_html_(self) -> str:
        head = f"<p><b>{html.escape(self.name)}</b> ({self.id[:8]}): {html.escape(self.state)}"
        head += "" if self.parameters is None else f", {self.parameters:,} parameters"
        head += f"</p><p>{html.escape(self.findings)}</p>" if self.findings else "</p>"
        table = self.table()
        return head + (table.to_html(float_format=lambda v: f"{v:.4f}", na_rep="") if len(table) else "")

    def _figures(self, prefix: str) -> dict[str, float]:
        found = {k.removeprefix(prefix): v for k, v in sorted(self.info.metrics.items()) if k.startswith(prefix)}
        found.pop("epoch", None)
        return found

    @cached_property
    def _corpus(self) -> Corpus:
        """The corpus that the run was trained on."""
        corpus = open_corpus(self.tracker.workspace, self.experiment.data)
        check_same_data(corpus, self.info)
        return corpus

    @cached_property
    def _all_figures(self) -> Mapping[str, go.Figure]:
        curves = [
            {"epoch": float(epoch), **{k: v for k, v in row.items() if not math.isnan(v)}}
            for epoch, row in self.history.to_dict("index").items()
        ]
        metric = self.experiment.training.metric
        predictions = self.predictions
        columns = clip_columns(self._corpus, predictions.rows)
        report = RunReport(title=self.name, predictions=predictions, curves=curves, metric=metric, columns=columns)
        return run_figures(report)


def train(
    experiment: Experiment,
    *,
    name: str | None = None,
    workspace: Workspace | Path | str | None = None,
    again: bool = False,
    device: str = "auto",
    grace: float = 60.0,
    log_model: bool = True,
    progress: bool = True,
) -> Run:
    """Train an experiment and record it in MLflow, as `audio-cls train` does.

    The same call again finds the finished run, or continues with an interrupted one from its last epoch. Ctrl-C finishes the
    epoch first (for at most `grace` seconds).

    Args:
        experiment: what to train.
        name: of the run in MLflow; from the model unless given.
        workspace: its folder; AUDIO_CLS_WORKSPACE or the current folder unless given.
        again: train again although the same run is there; the earlier one stays in MLflow.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        grace: seconds to finish an epoch in when asked to leave.
        log_model: also log its weights as a model in MLflow once it is complete.
        progress: show a bar.

    Raises:
        UserError: for an experiment that cannot be built on its corpus, or that another process trains now.
        RunFailed: when training failed; the run is recorded with its reason.
        KeyboardInterrupt: after Ctrl-C; what is trained is kept.
    """
    reached = reach_run()
    place = Workspace.of(workspace)
    tune_process()
    runtime = Runtime(place, Tracker(place), choose_device(device))
    corpus = runtime.corpus(experiment.check().data)
    resolved = resolve(experiment, corpus)
    check_fits(resolved.experiment, corpus, place)
    for line in resolution_warnings(resolved, corpus):
        log.warning("%s", line)
    run = replace(single_run(experiment, runtime, name), log_model=log_model)
    if reached:  # a worker process loads this script: the program that started it has trained this run
        return Run(runtime.tracker, runtime.tracker.resolve(str(read_state(run_folder(place, run.key)).run_id)))
    metric, epochs = experiment.training.metric, experiment.training.epochs
    with notices.shown(progress), StopRequest(grace=grace) as stop, notices.progress(run.name) as show:
        runtime.watch = Watch(stop, show.phase)
        state = continue_run(
            run, runtime, again, on_epoch=lambda done, value: show(done + 1, epochs, f"epochs, {metric} {value:.3f}")
        )
    runtime.tracker.flush()
    run_id = str(state.run_id)
    if state.state == "INTERRUPTED":
        raise KeyboardInterrupt(f"{state.reason} after {state.epoch + 1} epochs; the same call goes on")
    if state.state != "COMPLETE":
        raise RunFailed(f"run {run_id[:8]} FAILED: {state.why}", state.reason, run_id)
    return Run(runtime.tracker, runtime.tracker.resolve(run_id))


def open_run(run: str, *, workspace: Workspace | Path | str | None = None) -> Run:
    """Open a recorded run.

    Args:
        run: its id, the beginning of its id (four characters or more), or its name.
        workspace: its folder; AUDIO_CLS_WORKSPACE or the current folder unless given.

    Raises:
        UserError: when no run, or more than one, is meant.
    """
    tracker = Tracker(Workspace.of(workspace))
    return Run(tracker, tracker.resolve(run))


def list_runs(
    filter: str = "", *, workspace: Workspace | Path | str | None = None, limit: int | None = 100
) -> list[Run]:
    """Return the recorded runs, the newest first.

    Args:
        filter: in MLflow's language, such as "tags.kind = 'run' and metrics.`best/macro_f1` > 0.8".
        workspace: its folder; AUDIO_CLS_WORKSPACE or the current folder unless given.
        limit: at most so many; None for all.

    Raises:
        UserError: for a filter that does not parse.
    """
    tracker = Tracker(Workspace.of(workspace))
    return [Run(tracker, info) for info in tracker.runs(None, filter, (), limit)]


def compare(*runs: Run | str, workspace: Workspace | Path | str | None = None) -> RunComparison:
    """Compare two runs or more with the first one: what differs in configuration, data, code and figures; paired where they pair.

    Args:
        runs: opened runs, ids, beginnings of ids, or names.
        workspace: its folder; AUDIO_CLS_WORKSPACE or the current folder unless given.

    Raises:
        UserError: for fewer than two runs, one that is not found, or the same one twice.
    """
    return compare_runs(Workspace.of(workspace), [run.id if isinstance(run, Run) else run for run in runs])
