"""Grids: every row once, whoever was killed or refused; ranges are no rows; the command line and the face know how many there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import audio_cls as ac
from audio_cls.core.errors import UserError
from audio_cls.core.stopping import StopRequest
from audio_cls.queue.seam import TrialContext
from audio_cls.queue.status import study_status
from audio_cls.queue.storage import open_storage, open_study
from audio_cls.runs.outcome import Outcome
from audio_cls.study import Grid, NoPruning
from audio_cls.study.grid import enqueue_rows, grid_rows, planned_trials
from tests.commands import call
from tests.study_fakes import FakeObjective, declare, outcomes, work


def branching(trial: Any) -> dict[str, Any]:
    kind = trial.suggest_categorical("kind", ["narrow", "deep"])
    if kind == "narrow":
        return {"model.width": trial.suggest_int("width", 2, 6, step=2)}
    rate = trial.suggest_float("rate", 0.1, 0.3, step=0.1)
    return {"model.kind": "deep", "model.layers": trial.suggest_categorical("layers", [1, 2]), "model.rate": rate}


def grid(space: Any = branching, **changes: Any) -> Any:
    return declare(space=space, sampler=Grid(), pruner=NoPruning(), **changes)


def opened(declared: Any, folder: Path, total: int) -> Any:
    folder.mkdir(exist_ok=True)
    storage = open_storage(folder / "optuna.db")
    study = open_study(declared, storage)
    enqueue_rows(declared, study, storage, total)
    return study


def test_rows_are_all_combinations_in_the_order_of_the_space() -> None:
    rows = grid_rows(grid())
    assert rows[:3] == [{"kind": "narrow", "width": w} for w in (2, 4, 6)]
    assert [(r["layers"], round(r["rate"], 6)) for r in rows[3:]] == [
        (1, 0.1), (2, 0.1), (1, 0.2), (2, 0.2), (1, 0.3), (2, 0.3),
    ]  # fmt: skip
    assert planned_trials(grid(), None) == 9


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (lambda t: {"x": t.suggest_float("x", 0.0, 1.0)}, r"suggest_float\('x', 0, 1\) gives a range.*suggest_categorical"),
        (lambda t: {"x": t.suggest_int("x", 1, 64, log=True)}, r"log=True\) gives a range"),
        (lambda t: {}, "suggests nothing"),
        (lambda t: {str(k): t.suggest_int(str(k), 0, 9) for k in range(5)}, "more than 10000 rows"),
    ],
)  # fmt: skip
def test_a_space_that_is_no_grid_is_refused(space: Any, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        grid_rows(grid(space))


def test_how_many_trials_are_planned() -> None:
    with pytest.raises(UserError, match="--trials 10, but its grid has 9 rows"):
        planned_trials(grid(), 10)
    with pytest.raises(UserError, match="--trials says how many"):
        planned_trials(declare(), None)


def test_a_grid_is_filled_row_by_row_and_holes_alone_are_run(tmp_path: Path) -> None:
    declared, folder = grid(), tmp_path / "w"
    opened(declared, folder, 4)
    work(declared, folder, 4, FakeObjective(folder / "runs"))
    study = opened(declared, folder, 9)

    class Refusing(FakeObjective):
        def __call__(self, context: TrialContext) -> Outcome:
            if context.params.get("layers") == 2:
                raise UserError("a file is missing")
            return super().__call__(context)

    work(declared, folder, 9, Refusing(folder / "runs"))
    status = study_status(study, 9)
    assert (status.complete, status.failed, status.sampler) == (6, {"refused": 3}, "grid")
    study = opened(declared, folder, 9)  # the refused rows are asked for again
    work(declared, folder, 9, FakeObjective(folder / "runs"))
    found = outcomes(study)
    assert [params for _, _, params, _ in found.values()] == grid_rows(declared)
    assert {state for state, *_ in found.values()} == {"COMPLETE"}
    lines = (folder / "runs" / "epochs.log").read_text().splitlines()
    assert len(lines) == 9 * 6  # nothing was trained twice


def test_a_row_that_was_interrupted_goes_on_as_the_same_row(tmp_path: Path) -> None:
    declared, folder = grid(), tmp_path / "w"
    study = opened(declared, folder, 9)
    with StopRequest() as stop:
        objective = FakeObjective(
            folder / "runs", on_epoch=lambda context, epoch: stop.ask("asked") if epoch == 2 else None
        )
        work(declared, folder, 9, objective, stop=stop)
    assert study_status(study, 9).finished == 0
    work(declared, folder, 9, FakeObjective(folder / "runs"))
    assert [params for _, _, params, _ in outcomes(study).values()] == grid_rows(declared)
    assert study_status(study, 9).interruptions == 1


def test_the_table_shows_every_row(tones_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "tones").symlink_to(tones_corpus)
    settings = {"data.corpus": "tones", "data.clip_seconds": 0.5, "features.n_fft": 256, "features.n_mels": 16}
    base = ac.Experiment().override({**settings, "training.epochs": 1, "training.metric": "val/loss"})

    def space(trial: Any) -> dict[str, Any]:
        lr = trial.suggest_categorical("lr", [1e-3, 1e30])  # the second diverges
        return {"optimizer.lr": lr, "training.batch_size": trial.suggest_categorical("batch", [4, 8])}

    study = ac.Study(
        "table", base=base, space=space, metric="val/loss", direction="minimize",
        sampler=ac.Grid(), pruner=ac.NoPruning(), published=[ac.Published("loss", 0.3965, label="best of 20 rows")],
    )  # fmt: skip
    assert study.run(1, workspace=tmp_path, progress=False).status.finished == 1
    found = study.run(workspace=tmp_path, progress=False)
    assert (found.status.complete, found.status.failed) == (2, {"diverged": 2})
    shown = call(capsys, tmp_path, "study", "status", "table")
    assert shown.count("failed: diverged") == 2
    assert shown.split("published: best of 20 rows")[1].split()[0] == "0.3965"
    assert "4 of 4 configurations finished" in shown
    assert found.page is not None
    page = found.page.read_text()
    assert "every combination" in page
    assert "<td>published: best of 20 rows</td>" in page
