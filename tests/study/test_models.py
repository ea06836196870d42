"""Which runs of a search become models in MLflow: the best one, all, none; the former best one stays when another wins."""

from __future__ import annotations

from pathlib import Path

import audio_cls as ac
from audio_cls.core.workspace import Workspace
from audio_cls.experiment import Experiment
from audio_cls.inference.opening import find_run, open_labeller
from audio_cls.queue.options import QueueOptions
from audio_cls.study.running import runs_to_log
from audio_cls.tracking import Tracker
from audio_cls.tracking.registry import logged_model_id
from tests.own_parts import SMALL


def space(trial):  # type: ignore[no-untyped-def]
    return {"optimizer.lr": trial.suggest_float("lr", 1e-5, 1e-2, log=True)}


def test_the_best_run_of_a_search_becomes_a_model(tones_corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "tones").symlink_to(tones_corpus)
    search = ac.Study("mine", base=Experiment().override(SMALL), space=space)
    found = search.run(trials=2, workspace=tmp_path, progress=False)
    tracker = Tracker(Workspace(tmp_path))
    logged = [run_id for run_id in found.table()["run"] if logged_model_id(tracker, tracker.resolve(run_id).run_id)]
    assert logged == [found.best.id[:8]]
    assert find_run("mine", tracker).run_id == found.best.id
    assert open_labeller("mine", workspace=tmp_path).classes == ["beep", "hiss", "hum"]
    ids = {which: runs_to_log(found.status, QueueOptions(log_model=which)) for which in ("best", "all", "none")}
    assert ids["best"] == [found.best.id]
    assert len(ids["all"]) == 2
    assert ids["none"] == []
