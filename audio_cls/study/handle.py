"""A search as a value that runs itself, and its results.

>>> import audio_cls as ac
>>> base = ac.Experiment().override({"data.corpus": "sounds", "training.epochs": 1})
>>> def space(trial):
...     return {"optimizer.lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True)}
>>> found = ac.Study("mine", base=base, space=space).run(trials=2, progress=False)
>>> len(found.table()), found.best.state
(2, 'COMPLETE')
>>> found.best.experiment.optimizer.lr == found.best_params["lr"]
True
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_cls.core.errors import UserError, choose
from audio_cls.core.loading import reach_run
from audio_cls.core.notices import shown
from audio_cls.core.workspace import Workspace
from audio_cls.study import declaration

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    import plotly.graph_objects as go

    from audio_cls.inference.handle import Run
    from audio_cls.queue.status import StudyStatus

__all__ = ["Study", "StudyResult"]


class Study(declaration.Study):
    """A search: `space(trial)` suggests parameters and returns the dotted keys in which a trial differs from `base`.

    Raises:
        UserError: for a name, direction, base, space, sampler or pruner that does not hold.
    """

    def run(
        self,
        trials: int | None = None,
        *,
        workers: int = 1,
        workspace: Workspace | Path | str | None = None,
        storage: str | Path | None = None,
        device: str = "auto",
        new_version: bool = False,
        progress: bool = True,
    ) -> StudyResult:
        """Run the search until `trials` configurations are finished, as `audio-cls study run` does; the same call again continues.

        One worker works in this process. Several are processes of their own that survive each other's death; they take the space
        from its file, which is loaded as far as the first call that trains, so that a script needs no `if __name__ == "__main__"`.

        Args:
            trials: configurations in all, those of earlier calls included; only a grid has a default, all its rows.
            workers: processes on this machine, a GPU each where there are GPUs.
            workspace: its folder; AUDIO_CLS_WORKSPACE or the current folder unless given.
            storage: Optuna's storage, a file or postgresql://USER@HOST/NAME; `optuna.db` in the workspace unless given.
            device: "auto", "cpu", "cuda", "cuda:1", "mps".
            new_version: where the declaration has changed, begin NAME.v2 with the trials whose values still count.
            progress: show how far it is.

        Raises:
            UserError: for a base that does not fit its corpus, a declaration that has changed, a space that workers cannot find.
            KeyboardInterrupt: after Ctrl-C; what is trained is kept.
        """
        from audio_cls.queue.options import QueueOptions
        from audio_cls.runs.own_parts import entry_files
        from audio_cls.study.launches import Launch
        from audio_cls.study.running import run_search
        from audio_cls.study.scripts import describe, find_file

        place = Workspace.of(workspace)
        if reach_run(self):
            return StudyResult(self.name, place, storage)
        launch = Launch(find_file(self, place, workers), (), None, describe(self), self)
        options = QueueOptions(storage=storage, workers=workers, device=device)
        parts = entry_files([self.base]) if workers > 1 else []
        with shown(progress):
            outcome = run_search(place, launch, trials, options, new_version=new_version, parts=parts)
        status = outcome.status
        if not outcome.done:
            raise KeyboardInterrupt(
                f"study {status.name}: {status.finished} of {status.total} finished; the same call goes on"
            )
        return StudyResult(status.name, place, storage, outcome.page)

    def result(
        self, *, workspace: Workspace | Path | str | None = None, storage: str | Path | None = None
    ) -> StudyResult:
        """The search as it stands, without running it."""
        return StudyResult(self.name, Workspace.of(workspace), storage)


@dataclass(frozen=True, eq=False)
class StudyResult:
    """How a search stands. In a notebook it shows its table.

    name: of the Optuna study. page: the report that was written; None if none was.
    """

    name: str
    workspace: Workspace
    storage: str | Path | None = None
    page: Path | None = None

    @property
    def optuna_study(self) -> optuna.Study:
        """The study as Optuna has it: all trials, for Optuna's own functions.

        Raises:
            UserError: when there is no such study.
        """
        from audio_cls.queue.storage import load_study, open_storage

        return load_study(self.name, open_storage(self.storage or self.workspace.optuna_db, must_exist=True))

    @cached_property
    def status(self) -> StudyStatus:
        """Its configurations and their counts, as they were when first asked for."""
        from audio_cls.queue.status import study_status

        return study_status(self.optuna_study)

    @cached_property
    def best(self) -> Run:
        """The run of the best configuration.

        Raises:
            UserError: while no configuration is complete.
        """
        from audio_cls.inference.handle import open_run

        best = self.status.best
        if best is None:
            raise UserError(f"study {self.name!r} has no complete configuration yet: {self.status.finished} finished")
        return open_run(str(best.record.mlflow_run_id), workspace=self.workspace)

    @property
    def best_value(self) -> float | None:
        """The best value of the study's metric, of the trial's best epoch, chosen on the clips it is measured on; None while no
        configuration is complete.
        """
        return self.status.best.value if self.status.best else None

    @property
    def best_params(self) -> dict[str, Any]:
        """The parameters of the best configuration, as the space suggested them."""
        return dict(self.status.best.params) if self.status.best else {}

    def table(self) -> pd.DataFrame:
        """A row for each configuration, the best first: state, value (of its best epoch), parameters, epochs, seconds, run."""
        import pandas as pd

        rows = [
            {
                "configuration": row.config,
                "state": row.state,
                **({"collapsed": row.collapsed} if self.status.collapsed else {}),
                self.status.metric: row.value,
                **row.params,
                "epochs": row.epochs,
                "seconds": row.seconds,
                "run": str(row.record.mlflow_run_id or "")[:8],
            }
            for row in self.status.rows
        ]
        return pd.DataFrame(rows).set_index("configuration") if rows else pd.DataFrame()

    def figures(self) -> list[str]:
        """The names that `figure` takes."""
        return list(self._all_figures)

    def figure(self, name: str) -> go.Figure:
        """One of Optuna's figures of the search, such as "history", "importances", "parallel".

        Raises:
            UserError: for an unknown name, or a figure that the trials cannot give yet.
        """
        return choose(self._all_figures, name, f"figure {name!r} of the study {self.name!r}")

    @cached_property
    def _all_figures(self) -> dict[str, go.Figure]:
        from audio_cls.study.plots import study_figures

        return study_figures(self.optuna_study)

    def __repr__(self) -> str:
        best = "" if self.best_value is None else f", best {self.status.metric} {self.best_value:.4f}"
        return f"<StudyResult {self.name}: {self.status.finished} finished{best}>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self)[1:-1])}</p>" + self.table().to_html(na_rep="")
