"""Logged models and the registry: stored once, linked to their figures, made once whatever fails, found by their names."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.tracking import Run, Tracker
from audio_cls.tracking.copy import discard
from audio_cls.tracking.models import DATA as FILES
from audio_cls.tracking.models import output_columns, read_about
from audio_cls.tracking.registry import (
    check_alias,
    find_version,
    is_reference,
    logged_model_id,
    model_files,
    model_versions,
    register_model,
)
from tests.servers import mlflow_server
from tests.tracking.test_tracking import DATA, flaky_tracker

CLASSES = ["dog", "rain", "label"]


def record(tracker: Tracker, name: str, weights: bytes | None = b"weights", model: bool = True) -> Run:
    """Record a complete run with what a model is made from, and its model."""
    params = {"model.kind": "cnn", "augment.mixup": None}
    run = tracker.on(DATA).start("esc10", name, kind="run", params=params, tags={"experiment.digest": "e" * 64})
    run.epoch(0, {"val/macro_f1": 0.5})
    run.final({"best/macro_f1": 0.5, "baseline/macro_f1": 0.1, "final/seconds": 3.0})
    run.artifact_text("experiment.json", json.dumps({"data": {"sample_rate": 8000}}))
    run.artifact_text("classes.json", json.dumps({"classes": CLASSES, "task": "multiclass"}))
    if weights is not None:
        file = tracker.workspace.root / "best.safetensors"
        file.write_bytes(weights)
        run.artifact(file, "weights")
        file.unlink()
    if model:
        run.model("A **note** of RUN_ID.", {"study": "s"})
    run.finish("COMPLETE")
    return run


def models_of(tracker: Tracker) -> list[Any]:
    client = tracker._readable()
    return list(client.search_logged_models([e.experiment_id for e in client.search_experiments()]))


def test_a_model_shows_its_figures_and_shares_the_weights_of_its_run(workspace: Workspace) -> None:
    tracker = Tracker(workspace)
    run = record(tracker, "one")
    (model,) = models_of(tracker)
    assert (model.name, model.source_run_id, str(model.status)) == ("model", run.id, "READY")
    assert model.params == {"model.kind": "cnn"}
    assert {k: model.tags[k] for k in ("study", "mlflow.note.content")} == {
        "study": "s",
        "mlflow.note.content": f"A **note** of {run.id}.",
    }
    assert {m.key: (m.value, m.dataset_name) for m in model.metrics} == {
        "best/macro_f1": (0.5, "esc10"),
        "baseline/macro_f1": (0.1, "esc10"),
    }
    assert tracker.curve(run.id, "best/macro_f1") == [(0, 0.5)]
    found = tracker._readable().get_run(run.id)
    assert [o.model_id for o in found.outputs.model_outputs] == [model.model_id]
    files = Path(model.artifact_location) / FILES
    mine = tracker.download(run.id, "weights/best.safetensors")
    assert (files / "weights" / "best.safetensors").samefile(mine)
    assert read_about(files).run_id == run.id
    listed = {p.relative_to(model.artifact_location).as_posix() for p in Path(model.artifact_location).rglob("*.*")}
    assert not [p for p in listed if p.endswith((".py", ".pkl"))]
    assert "python_model" not in (Path(model.artifact_location) / "MLmodel").read_text()


def test_a_model_that_is_logged_again_is_renewed(workspace: Workspace) -> None:
    tracker = Tracker(workspace)
    run = record(tracker, "one")
    again = tracker.reopen(run.id)
    again.final({"test/macro_f1": 0.4})
    again.model("Another note.", {"winner": True})
    again.close()
    (model,) = models_of(tracker)
    assert {m.key for m in model.metrics} == {"best/macro_f1", "baseline/macro_f1", "test/macro_f1"}
    assert model.tags["winner"] == "true"
    assert model.tags["mlflow.note.content"] == "Another note."
    tracker._readable().set_logged_model_tags(model.model_id, {"mlflow.note.content": "edited by hand"})
    again = tracker.reopen(run.id)
    again.model("A third note.", {})
    again.close()
    assert models_of(tracker)[0].tags["mlflow.note.content"] == "edited by hand"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_model_is_made_once_whatever_fails(workspace: Workspace, when: str) -> None:
    """Each write of the model fails once, before it arrives or after it: afterwards there is one whole model of the run."""
    clean = Tracker(workspace)
    failed = 0
    for number in range(1, 20):
        run = record(clean, f"run {number}", model=False)
        calls = []

        def fails(call: int, number: int = number, calls: list[int] = calls) -> str | None:
            calls.append(call)
            return when if call == number else None

        tracker = flaky_tracker(workspace, fails)
        again = tracker.reopen(run.id)
        again.model("A **note**.", {})
        again.close()
        tracker.flush()
        mine = [m for m in models_of(clean) if m.source_run_id == run.id]
        assert [str(m.status) for m in mine] == ["READY"], number
        assert {m.key for m in mine[0].metrics} == {"best/macro_f1", "baseline/macro_f1"}
        assert (Path(mine[0].artifact_location) / FILES / "weights/best.safetensors").read_bytes() == b"weights"
        if len(calls) < number:
            break
        failed += 1
    assert failed >= 5


def test_a_model_is_kept_while_the_server_is_away(workspace: Workspace) -> None:
    away = flaky_tracker(workspace, lambda _: "before", retry_seconds=60.0)
    record(away, "kept")
    tracker = Tracker(workspace)
    assert not models_of(tracker)
    tracker.flush()
    (model,) = models_of(tracker)
    assert str(model.status) == "READY"
    assert tracker.pending() == 0


def test_the_model_of_a_deleted_run_goes_with_it_unless_it_is_registered(workspace: Workspace) -> None:
    tracker = Tracker(workspace)
    gone, named, other = (record(tracker, name) for name in ("gone", "named", "other"))
    version = register_model(tracker, "sounds", named.id, "champion", {})
    folder = {model.source_run_id: Path(model.artifact_location) for model in models_of(tracker)}
    assert all(path.is_dir() for path in folder.values())
    assert discard(tracker, [gone.id, named.id]) == ["sounds/1"]
    assert {model.source_run_id for model in models_of(tracker)} == {named.id, other.id}
    assert [info.run_id for info in tracker.runs()] == [other.id]
    assert not folder[gone.id].exists()
    assert (model_files(tracker, version, workspace.root) / "weights" / "best.safetensors").read_bytes() == b"weights"
    assert (folder[other.id] / FILES / "weights" / "best.safetensors").exists()
    left = {path.name for path in workspace.artifacts.rglob("*") if path.is_dir()}
    assert not left & {gone.id, named.id}, "the runs' own files"
    assert other.id in left


def test_a_run_without_weights_has_no_model(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Tracker(workspace)
    with caplog.at_level(logging.WARNING):
        run = record(tracker, "bare", weights=None)
    assert "only a COMPLETE run becomes a model" in caplog.text
    assert tracker.resolve(run.id).state == "COMPLETE"
    assert logged_model_id(tracker, run.id) is None
    with pytest.raises(UserError, match="has no model in MLflow"):
        register_model(tracker, "sounds", run.id, "champion", {})


def test_versions_are_found_by_name_alias_and_number(workspace: Workspace, tmp_path: Path) -> None:
    tracker = Tracker(workspace)
    with pytest.raises(UserError, match="audio-cls promote"):
        find_version(tracker, "sounds@champion")
    first, second = record(tracker, "one"), record(tracker, "two")
    one = register_model(tracker, "sounds", first.id, "champion", {"value": "0.5"}, "Better.")
    (shown,) = [m for m in models_of(tracker) if m.source_run_id == first.id]
    assert json.loads(shown.tags["mlflow.modelVersions"]) == [{"name": "sounds", "version": "1"}]
    note = tracker._readable().get_model_version("sounds", "1").description
    assert note == f"Better.\n\nA **note** of {first.id}."
    assert (one.version, one.aliases, one.run_id, one.reference) == (1, ("champion",), first.id, "sounds@champion")
    assert register_model(tracker, "sounds", first.id, "champion", {}) == one, "the same run is the same version"
    two = register_model(tracker, "sounds", second.id, "champion", {})
    assert [(v.version, v.aliases) for v in model_versions(tracker)] == [(2, ("champion",)), (1, ())]
    for text in ("sounds", "sounds@champion", "models:/sounds@champion", "sounds/2", "models:/sounds/2"):
        assert find_version(tracker, text) == two, text
    assert find_version(tracker, "sounds/1").run_id == first.id
    assert (model_files(tracker, two, tmp_path) / "classes.json").is_file()
    for text, said in (
        ("sound@champion", "Did you mean 'sounds'"),
        ("sounds@champoin", "Did you mean 'champion'"),
        ("sounds/7", "has no version 7. There are: 1, 2"),
    ):
        with pytest.raises(UserError, match=said):
            find_version(tracker, text)


def test_a_moved_workspace_has_its_models(workspace: Workspace, tmp_path: Path) -> None:
    tracker = Tracker(workspace)
    register_model(tracker, "sounds", record(tracker, "one").id, "champion", {})
    shutil.move(workspace.root, tmp_path / "elsewhere")
    moved = Tracker(Workspace(tmp_path / "elsewhere"))
    files = model_files(moved, find_version(moved, "sounds"), tmp_path)
    assert files.is_relative_to(tmp_path / "elsewhere")
    assert (files / "weights/best.safetensors").read_bytes() == b"weights"


def test_what_is_no_alias_or_reference() -> None:
    assert check_alias("night-shift_2") == "night-shift_2"
    for alias in ("", "latest", "v3", "a b", "a@b"):
        with pytest.raises(UserError, match="Allowed: letters"):
            check_alias(alias)
    assert is_reference("models:/x/1")
    assert is_reference("x@champion")
    assert not any(is_reference(text) for text in ("x", "c0eeb136", "folder/a@b", "clip@home.wav/"))


def test_columns_of_classes_named_like_the_others() -> None:
    assert output_columns(CLASSES) == ["label", "score", "dog", "rain", "label (class)"]


@pytest.mark.parametrize("text", [None, "", "[]", '{"run_id": "a"}', "\0"])
def test_a_damaged_model_folder_is_one_message(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match="not the folder of a model, or damaged"):
        read_about(tmp_path)


@pytest.mark.slow
def test_models_on_a_server(tmp_path: Path) -> None:
    """The artifacts lie on the server: files are sent to it, and fetched from it."""
    with mlflow_server(tmp_path / "server") as server:
        (tmp_path / "w").mkdir()
        tracker = Tracker(Workspace(tmp_path / "w", server.address))
        run = record(tracker, "one")
        assert not run.degraded
        version = register_model(tracker, "sounds", run.id, "champion", {})
        assert find_version(tracker, "sounds@champion") == version
        files = model_files(tracker, version, tmp_path)
        assert files.is_relative_to(tmp_path)
        assert (files / "weights/best.safetensors").read_bytes() == b"weights"
        assert read_about(files).run_name == "one"
