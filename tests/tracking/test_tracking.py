"""Tracking: what is logged, that a failure never costs a run, that everything arrives once, and that the folder can move."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.tracking import DatasetInfo, Run, Tracker, environment_tags
from audio_cls.tracking.outbox import Outbox
from audio_cls.tracking.sender import Backend, clean_key, clean_value
from audio_cls.tracking.store import open_client
from audio_cls.ui.serving import ui_command

DATA = DatasetInfo("esc10", "05b3abf2" * 8, "multiclass", 400, ("dog", "rain"), "corpora/esc10")
WRITES = (
    "create_run", "log_batch", "log_inputs", "log_text", "log_artifact", "set_terminated", "update_run",
    "create_logged_model", "log_model_artifacts", "log_outputs", "finalize_logged_model", "set_logged_model_tags",
)  # fmt: skip


class Broken(Exception):
    """What a server that cannot be reached looks like."""


class Flaky:
    """A client whose writes fail as told: `fails(number)` is asked for 'before', 'after' (it arrived, the answer was lost)
    or None."""

    def __init__(self, client: Any, fails: Callable[[int], str | None]) -> None:
        self._client, self._fails, self.calls = client, fails, 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in WRITES:
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            when = self._fails(self.calls)
            if when == "before":
                raise Broken("no route to the server")
            result = method(*args, **kwargs)
            if when == "after":
                raise Broken("the answer was lost")
            return result

        return call


def flaky_tracker(workspace: Workspace, fails: Callable[[int], str | None], retry_seconds: float = 0.0) -> Tracker:
    tracker = Tracker(workspace, retry_seconds=retry_seconds)
    client = Flaky(open_client(workspace, None), fails)
    tracker._link._backend = Backend(client, workspace, None)
    return tracker


def record(tracker: Tracker, name: str, run_id: str | None = None, epochs: int = 3) -> Run:
    run = tracker.on(DATA).start(
        "esc10", name, kind="trial", params={"optimizer.lr": 1e-3}, tags={"study": "s"}, run_id=run_id
    )
    for step in range(epochs):
        run.epoch(step, {"val/macro_f1": 0.1 * step, "train/loss": 2.0 - step})
    run.final({"best/val/macro_f1": 0.1 * (epochs - 1)})
    run.artifact_text("reports/table.csv", f"name\n{name}\n")
    run.finish("COMPLETE")
    return run


def check_whole(tracker: Tracker, name: str, epochs: int = 3) -> None:
    """The run is there once, with every step once, in its final state."""
    found = tracker.runs("esc10", f"attributes.run_name = '{name}'")
    assert len(found) == 1, [r.run_id for r in found]
    run = found[0]
    assert (run.status, run.state, run.params) == ("FINISHED", "COMPLETE", {"optimizer.lr": "0.001"})
    for key, first in (("val/macro_f1", 0.0), ("train/loss", 2.0)):
        points = tracker.curve(run.run_id, key)
        assert [step for step, _ in points] == list(range(epochs))
        assert points[0][1] == first
    assert tracker.curve(run.run_id, "best/val/macro_f1") == [(0, 0.1 * (epochs - 1))]
    assert tracker.download(run.run_id, "reports/table.csv").read_text() == f"name\n{name}\n"
    assert tracker.runs("esc10", f"attributes.run_name = '{name}' and dataset.digest = '{DATA.digest[:36]}'")


# -- what is logged -----------------------------------------------------------------------------------------------------


def test_round_trip(workspace: Workspace, tmp_path: Path) -> None:
    tracker = Tracker(workspace)
    experiment_id = tracker.experiment("esc10", note="# ESC-10", tags={"metric": "val/macro_f1"})
    study = tracker.start("esc10", "study:cnn", kind="study")
    params = {f"p{i}": i for i in range(230)} | {"augment.mixup": None, "on": True, "bands": [1, 2], "long": "x" * 9000}
    run = tracker.on(DATA).start("esc10", "t000", kind="trial", parent=study.id, params=params)
    run.epoch(0, {"val/f1(macro)@0.5": 0.5, "bad": math.inf, "worse": math.nan, "none": None, "flag": True})
    (tmp_path / "weights.bin").write_bytes(b"w")
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "roc.html").write_text("<html>")
    run.artifact(tmp_path / "weights.bin", "model")
    run.artifact(tmp_path / "plots")
    run.tags({"throughput": 812.5})
    run.final({"best/val": 0.5, "seconds": 3.0})
    run.finish("COMPLETE")

    assert not run.degraded
    info = tracker.resolve(run.id[:12])
    assert info.run_id == run.run_id == run.id
    assert info.experiment_id == experiment_id
    assert info.parent == study.id
    assert (info.status, info.state, info.tags["kind"], info.tags["throughput"]) == (
        "FINISHED",
        "COMPLETE",
        "trial",
        "812.5",
    )
    assert len(info.params) == 234
    assert [info.params[k] for k in ("p7", "augment.mixup", "on", "bands")] == ["7", "none", "true", "[1, 2]"]
    assert "sha256" in info.params["long"]
    assert info.metrics["val/f1_macro__0.5"] == 0.5
    assert math.isnan(info.metrics["bad"])
    assert math.isnan(info.metrics["worse"])
    assert "none" not in info.metrics
    assert info.metrics["final/seconds"] == 3.0
    assert tracker.download(run.id, "model/weights.bin").read_bytes() == b"w"
    assert tracker.download(run.id, "plots/roc.html", tmp_path / "to").read_text() == "<html>"
    assert info.artifact_uri == str(workspace.artifacts / str(experiment_id) / run.id / "artifacts")
    assert info.start_time is not None
    assert info.end_time is not None
    assert abs(info.end_time - time.time()) < 60
    experiment = tracker._readable().get_experiment(experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert experiment.tags["mlflow.note.content"] == "# ESC-10"
    assert tracker.experiment("esc10", note="another") == experiment_id
    assert not workspace.outbox.exists()


@pytest.mark.parametrize(
    ("state", "status"),
    [("COMPLETE", "FINISHED"), ("PRUNED", "KILLED"), ("FAILED", "FAILED"), ("INTERRUPTED", "KILLED")],
)
def test_states_are_told_apart(workspace: Workspace, state: Any, status: str) -> None:
    tracker = Tracker(workspace)
    run = tracker.start("e", "r", kind="trial")
    assert tracker.resolve(run.id).state == "RUNNING"
    run.finish(state, reason="because")
    info = tracker.resolve(run.id)
    assert (info.status, info.state, info.tags["reason"]) == (status, state, "because")


def test_a_step_is_logged_once_also_over_a_resume(workspace: Workspace) -> None:
    tracker = Tracker(workspace)
    run = tracker.start("e", "r", kind="trial", params={"a": 1, "b": 2})
    run.epoch(0, {"loss": 1.0})
    run.epoch(0, {"loss": 9.0, "late": 1.0})
    run.epoch(1, {"loss": 0.5})
    run.final({"best/f1": 0.5})
    run.finish("PRUNED")
    first = tracker.resolve(run.id)

    again = Tracker(workspace).start("e", "other name", kind="trial", params={"a": 7, "c": 3}, run_id=run.id)
    assert again.id == run.id
    assert tracker.resolve(run.id).status == "RUNNING"
    assert tracker.resolve(run.id).state == "RUNNING"
    for step in range(4):  # a resumed trial may report its whole curve again
        again.epoch(step, {"loss": 1.0 - 0.1 * step, "new": float(step)})
    again.final({"best/f1": 0.5})
    again.final({"best/f1": 0.7})
    again.finish("COMPLETE")

    assert [s for s, _ in tracker.curve(run.id, "loss")] == [0, 1, 2, 3]
    assert tracker.curve(run.id, "loss")[0] == (0, 1.0)
    assert [s for s, _ in tracker.curve(run.id, "new")] == [0, 1, 2, 3]
    assert [v for _, v in tracker.curve(run.id, "best/f1")] == [0.5, 0.7]
    info = tracker.resolve(run.id)
    assert (info.state, info.name, info.metrics["best/f1"]) == ("COMPLETE", "r", 0.7)
    assert info.params == {"a": "1", "b": "2", "c": "3"}
    assert info.start_time == first.start_time


def test_figures_are_added_to_a_run_that_has_ended(workspace: Workspace) -> None:
    run = record(Tracker(workspace), "r")
    tracker = Tracker(workspace)
    before = tracker.resolve(run.id)
    for _ in range(2):
        again = tracker.reopen(run.id)
        again.tags({"test.openings": 1})
        again.final({"test/accuracy": 0.9, "best/val/macro_f1": 0.2})
    after = tracker.resolve(run.id)
    assert tracker.curve(run.id, "test/accuracy") == [(0, 0.9)]
    assert after.tags["test.openings"] == "1"
    assert (after.status, after.end_time, after.state) == (before.status, before.end_time, "COMPLETE")
    check_whole(tracker, "r")


def test_a_run_that_is_gone_is_made_again_under_its_old_id(workspace: Workspace) -> None:
    tracker = Tracker(workspace)
    lost = "0123456789abcdef0123456789abcdef"
    first = tracker.start("e", "r", kind="trial", run_id=lost)
    second = Tracker(workspace).start("e", "r", kind="trial", run_id=lost)
    assert first.run_id == second.run_id != lost


def test_data_set_is_searchable_by_its_digest(workspace: Workspace) -> None:
    tracker = Tracker(workspace)
    run = tracker.on(DATA).start("e", "with", kind="run")
    tracker.start("e", "without", kind="run")
    assert [r.run_id for r in tracker.runs("e", f"dataset.digest = '{DATA.digest[:36]}'")] == [run.id]
    assert tracker.runs("e", "dataset.digest = 'x'") == []
    entry = tracker._readable().get_run(run.id).inputs.dataset_inputs[0].dataset
    assert json.loads(entry.profile)["n_clips"] == 400


def test_names_and_values_that_mlflow_would_refuse() -> None:
    assert clean_key("val f1(macro)@0.5") == "val f1_macro__0.5"
    assert len(clean_key("k" * 400)) <= 250
    assert clean_key("k" * 400) != clean_key("k" * 401)
    assert len(clean_value("v" * 9000, 6000)) <= 6000
    assert clean_value("v" * 9000, 6000) != clean_value("v" * 9001, 6000)
    assert [clean_value(v, 100) for v in (1e-05, 0.001, None, "none", (1, 2))] == [
        "1e-05",
        "0.001",
        "none",
        "none",
        "[1, 2]",
    ]


def test_reads_name_what_is_wrong(workspace: Workspace) -> None:
    tracker = Tracker(workspace)
    run = tracker.start("esc10", "t003 cnn", kind="trial")
    run.epoch(0, {"val/loss": 1.0})
    run.artifact_text("table.csv", "")
    tracker.start("esc10", "twin", kind="trial")
    tracker.start("esc10", "twin", kind="trial")
    assert tracker.resolve("t003 cnn").run_id == run.id
    for call, words in (
        (lambda: tracker.runs("esc1"), "Did you mean 'esc10'"),
        (lambda: tracker.runs("esc10", "tags.kind == 'x"), "does not parse"),
        (lambda: tracker.resolve("t003 cn"), "Did you mean 't003 cnn'"),
        (lambda: tracker.resolve("twin"), "more than one run"),
        (lambda: tracker.curve(run.id, "val/los"), "Did you mean 'val/loss'"),
        (lambda: tracker.download(run.id, "table.cvs"), "Did you mean 'table.csv'"),
    ):
        with pytest.raises(UserError, match=words):
            call()


def test_environment_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = environment_tags(tmp_path)
    assert tags["env.git_commit"] == "unknown"
    assert tags["env.python"].startswith(f"{sys.version_info[0]}.")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "f").write_text("1")
    for words in (["init", "-q"], ["add", "f"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    assert environment_tags(tmp_path)["env.git_dirty"] == "false"
    assert len(environment_tags(tmp_path)["mlflow.source.git.commit"]) == 40
    (tmp_path / "f").write_text("2")
    assert environment_tags(tmp_path)["env.git_dirty"] == "true"
    monkeypatch.setenv("PATH", "")
    assert environment_tags(tmp_path)["env.git_dirty"] == "unknown"


# -- failures -------------------------------------------------------------------------------------------------------------


def test_each_single_failure_is_survived_and_everything_arrives_once(workspace: Workspace) -> None:
    reference = flaky_tracker(workspace, lambda _: None)
    record(reference, "reference")
    calls = reference._link._backend.client.calls  # type: ignore[union-attr]
    assert calls >= 9
    for when in ("before", "after"):
        for number in range(1, calls + 1):
            name = f"{when} {number}"
            run = record(flaky_tracker(workspace, lambda n, at=number, how=when: how if n == at else None), name)
            assert not run.degraded
            check_whole(reference, name)
    assert list(workspace.outbox.iterdir()) == []


@pytest.mark.parametrize("number", [1, 3, 5])
def test_an_outage_to_the_end_is_sent_later_in_order(
    workspace: Workspace, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    down = flaky_tracker(workspace, lambda n: "after" if n == number else "before" if n > number else None, 1e6)
    with caplog.at_level(logging.WARNING, "audio_cls.tracking"):
        run = record(down, "r")
    assert len([r for r in caplog.records if "tracking failed" in r.message]) == 1
    assert down._link._backend.client.calls == number  # type: ignore[union-attr]  # no further tries
    assert down.pending() == 1
    assert list(workspace.outbox.glob("*.sent")) == []
    later = Tracker(workspace)
    assert later.flush() > 0
    check_whole(later, "r")
    assert later.pending() == 0
    assert later.flush() == 0
    assert list(workspace.outbox.iterdir()) == []
    assert later.resolve(run.id).name == "r"


def test_a_kill_between_sending_and_noting_it_sends_nothing_twice(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    record(flaky_tracker(workspace, lambda _: "before", 1e6), "r")
    mark = Outbox.mark

    def kill(*_: Any) -> None:
        raise Killed

    while Tracker(workspace).pending():
        monkeypatch.setattr(Outbox, "mark", kill)
        with pytest.raises(Killed):
            Tracker(workspace).flush()
        (path, _), *rest = Outbox.heads(workspace.outbox)
        assert not rest
        monkeypatch.setattr(Outbox, "mark", mark)
        box = Outbox.take(path)
        assert box is not None
        whole = box.pending
        box.pending = lambda whole=whole: whole()[:1]  # type: ignore[method-assign,misc]
        from audio_cls.tracking.sender import Sender

        tracker = Tracker(workspace)
        assert tracker._link.drain(box, Sender(box.head["uid"], box.run_id, True), time.monotonic() + 9) == (1, True)
        box.close()
    check_whole(Tracker(workspace), "r")


def test_a_run_taken_up_while_the_server_is_away_stays_one_run(workspace: Workspace) -> None:
    first = flaky_tracker(workspace, lambda _: "before", 1e6).start(
        "esc10", "r", kind="trial", params={"optimizer.lr": 1e-3}
    )
    first.epoch(0, {"val/macro_f1": 0.0, "train/loss": 2.0})
    first.close()
    assert first.run_id is None
    second = flaky_tracker(workspace, lambda _: "before", 1e6).start("esc10", "r", kind="trial", run_id=first.id)
    for step in range(2):
        second.epoch(step, {"val/macro_f1": 0.1 * step, "train/loss": 2.0 - step})
    second.finish("INTERRUPTED")
    assert Tracker(workspace).pending() == 1
    third = Tracker(workspace)
    record(third, "r", run_id=first.id)
    check_whole(third, "r")


def test_children_wait_for_their_parent(workspace: Workspace) -> None:
    down = flaky_tracker(workspace, lambda _: "before", 1e6)
    study = down.start("e", "study", kind="study")
    down.start("e", "t000", kind="trial", parent=study.id).finish("COMPLETE")
    study.finish("COMPLETE")
    tracker = Tracker(workspace)
    for _ in range(2):
        tracker.flush()
    assert tracker.resolve("t000").parent == tracker.resolve("study").run_id
    assert tracker.pending() == 0


def test_what_is_refused_for_good_does_not_block_the_rest(workspace: Workspace) -> None:
    down = flaky_tracker(workspace, lambda _: "before", 1e6)
    run = down.start("e", "r", kind="trial")
    run._keep({"op": "metrics", "step": 0, "time": 1, "values": {"bad(name)": 1.0}})
    run.epoch(0, {"loss": 1.0})
    run.finish("COMPLETE")
    tracker = Tracker(workspace)
    tracker.flush()
    assert tracker.curve(tracker.resolve("r").run_id, "loss") == [(0, 1.0)]
    assert tracker.resolve("r").state == "COMPLETE"
    [refused] = workspace.outbox.glob("*.refused")
    assert "bad(name)" in refused.read_text()


@pytest.mark.parametrize("line", ["head", "params", "metrics", "marker"])
@pytest.mark.parametrize("damage", [b"\x00\xff{", b'{"op": "metrcs", "step": 1}', b"[1]"])
def test_a_damaged_line_is_put_aside_and_the_rest_is_sent(
    workspace: Workspace, caplog: pytest.LogCaptureFixture, line: str, damage: bytes
) -> None:
    down = flaky_tracker(workspace, lambda _: "before", 1e6)
    run = down.start("e", "r", kind="trial", params={"lr": 1e-3})
    run.epoch(0, {"loss": 1.0})
    run.epoch(1, {"loss": 0.5})
    run.finish("COMPLETE")
    [box] = workspace.outbox.glob("*.jsonl")
    lines = box.read_bytes().splitlines()
    if line == "marker":
        box.with_suffix(".sent").write_bytes(damage)
    else:
        lines[{"head": 0, "params": 2, "metrics": 3}[line]] = damage
        box.write_bytes(b"\n".join(lines) + b"\n")
    tracker = Tracker(workspace)
    assert tracker.pending() == 1
    tracker.flush()
    found = tracker.resolve("r")
    assert found.state == "COMPLETE"
    assert tracker.curve(found.run_id, "loss") == ([(1, 0.5)] if line == "metrics" else [(0, 1.0), (1, 0.5)])
    assert tracker.pending() == 0
    aside = [p.read_bytes() for p in workspace.outbox.glob("*.damaged")]
    assert len(aside) == (line in ("params", "metrics"))
    assert ("has damaged lines" in caplog.text) == (line in ("params", "metrics"))


def test_neither_server_nor_disk(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = flaky_tracker(workspace, lambda n: "before" if n > 1 else None, 1e6)
    run = tracker.start("esc10", "r", kind="trial")
    append = Outbox.append

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Outbox, "append", full)
    run.epoch(0, {"loss": 1.0})
    run.epoch(1, {"loss": 0.5})
    monkeypatch.setattr(Outbox, "append", append)
    run.epoch(2, {"loss": 0.2})
    run.finish("COMPLETE")
    later = Tracker(workspace)
    later.flush()
    assert later.curve(run.id, "loss") == [(0, 1.0), (1, 0.5), (2, 0.2)]


def test_a_locked_database_is_an_outage_like_any_other(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(workspace, retry_seconds=1e6)
    run = tracker.on(DATA).start("esc10", "r", kind="trial", params={"optimizer.lr": 1e-3})
    con = sqlite3.connect(workspace.mlflow_db, isolation_level=None)
    con.execute("begin exclusive")
    engine = tracker._readable()._tracking_client.store.engine
    from sqlalchemy import event

    def short(_: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if "busy_timeout" in statement:
            cursor.connection.execute("pragma busy_timeout = 50")

    event.listen(engine, "after_cursor_execute", short)
    begun = time.monotonic()
    run.epoch(0, {"loss": 1.0})
    assert time.monotonic() - begun < 5
    assert run.degraded
    con.execute("rollback")
    con.close()
    run.finish("COMPLETE")
    Tracker(workspace).flush()
    assert Tracker(workspace).curve(run.id, "loss") == [(0, 1.0)]


def test_a_damaged_database_costs_no_run(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database at all" * 100)
    tracker = Tracker(Workspace(tmp_path))
    run = record(tracker, "r")
    assert run.run_id is None
    assert tracker.pending() == 1
    assert tracker.saved_views("e", "s", "f1") == {}
    with pytest.raises(UserError, match="cannot be read"):
        tracker.runs()


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield f"http://user:secret@127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_hangs_costs_a_bounded_time(
    tmp_path: Path, silent_server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = Tracker(Workspace(tmp_path), silent_server)
    begun = time.monotonic()
    record(tracker, "r", epochs=20)
    assert time.monotonic() - begun < 6  # one attempt, not one for each operation (and the import of MLflow)
    assert tracker.pending() == 1
    assert Tracker(Workspace(tmp_path)).pending() == 0  # it is meant for that server, not for this folder's database
    kept = "".join(p.read_text() for p in tmp_path.rglob("*.jsonl"))
    assert "secret" not in kept + caplog.text


def test_a_server_that_is_away_costs_next_to_nothing(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    tracker = Tracker(Workspace(tmp_path), uri)
    begun = time.monotonic()
    record(tracker, "r", epochs=20)
    assert time.monotonic() - begun < 4
    assert tracker.pending() == 1
    with pytest.raises(UserError, match="cannot be read"):
        tracker.runs()


def test_a_torn_line_is_dropped_and_the_box_goes_on(tmp_path: Path) -> None:
    box = Outbox.open(tmp_path, "u", {"run_id": None, "backend": "workspace"})
    box.append({"op": "tags", "values": {"a": "1"}})
    box.append({"op": "artifact", "text": "x", "name": "f.txt", "folder": ""})
    assert Outbox.take(tmp_path / "u.jsonl") is None  # in use
    os.close(box._fd)  # as when its process dies
    with open(tmp_path / "u.jsonl", "a") as file:
        file.write('{"op": "tags", "val')
    box = Outbox.open(tmp_path, "u", {})
    box.append({"op": "finish"})
    assert [o["op"] for o in box.pending()] == ["tags", "artifact", "finish"]
    assert Path(box.pending()[1]["path"]).read_text() == "x"
    for _ in range(3):
        box.mark("r")
    box.close()
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_share_an_outbox(tmp_path: Path) -> None:
    one = Outbox.open(tmp_path, "u", {"backend": "w"})
    two = Outbox.open(tmp_path, "u", {"backend": "w"}, wait_seconds=0)
    one.append({"op": "tags"})
    two.append({"op": "finish"})
    assert one.path != two.path
    assert [h["uid"] for _, h in Outbox.heads(tmp_path)] == ["u", "u"]
    one.close()
    two.close()


# -- the folder moves -------------------------------------------------------------------------------------------------------


def test_a_moved_workspace_is_followed(workspace: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Tracker(workspace)
    decoy = tmp_path / "a projectX%"  # a pattern would take it for the same path
    run = tracker.start("esc10", "r", kind="trial")
    run.epoch(0, {"loss": 1.0})
    run.artifact_text("a.txt", "old")
    run.finish("INTERRUPTED")
    con = sqlite3.connect(workspace.mlflow_db)
    con.execute(
        "insert into experiments (name, artifact_location, lifecycle_stage) values ('d', ?, 'active')", (f"{decoy}/1",)
    )
    con.commit()
    con.close()
    moved = Workspace(tmp_path / "elsewhere" / "new place")
    moved.root.parent.mkdir()
    shutil.move(workspace.root, moved.root)
    caplog.clear()  # in this process MLflow remembers where the run's artifacts were: that must not count
    with caplog.at_level(logging.WARNING, "audio_cls.tracking"):
        tracker = Tracker(moved)
        assert tracker.download(run.id, "a.txt").read_text() == "old"
    assert [r for r in caplog.records if "has moved from" in r.message]
    again = tracker.start("esc10", "r", kind="trial", run_id=run.id)
    again.epoch(1, {"loss": 0.5})
    again.artifact_text("b.txt", "new")
    again.finish("COMPLETE")
    Tracker(moved).start("another", "x", kind="run").artifact_text("c.txt", "c")

    assert not workspace.root.exists()
    assert (
        moved.artifacts / tracker.resolve(run.id).experiment_id / run.id / "artifacts" / "b.txt"
    ).read_text() == "new"
    con = sqlite3.connect(moved.mlflow_db)
    dump = "\n".join(con.iterdump())
    con.close()
    assert str(workspace.root) not in dump
    assert f"{decoy}/1" in dump
    caplog.clear()
    with caplog.at_level(logging.WARNING, "audio_cls.tracking"):
        Tracker(moved).runs()
    assert not caplog.records  # once


def test_what_is_kept_moves_along(workspace: Workspace, tmp_path: Path) -> None:
    record(flaky_tracker(workspace, lambda n: "before" if n > 4 else None, 1e6), "r")
    moved = Workspace(tmp_path / "moved")
    shutil.move(workspace.root, moved.root)
    Tracker(moved).flush()
    check_whole(Tracker(moved), "r")


# -- views, and real processes ------------------------------------------------------------------------------------------------


def state_of(tags: dict[str, str], name: str) -> dict[str, Any]:
    """The state of a saved view."""
    import base64
    import zlib

    views = [json.loads(v) for k, v in tags.items() if k.startswith("mlflow.sharedViewState.")]
    [view] = [v for v in views if v["name"] == name]
    return dict(json.loads(zlib.decompress(base64.b64decode(view["state"].removeprefix("deflate;")))))


def test_views_are_replaced_and_linked(workspace: Workspace) -> None:
    from audio_cls.tracking.views import save_view

    tracker = Tracker(workspace)
    number = tracker.experiment("esc10")
    for name in ("Trials (table)", "Curves", "What matters", "of my own"):
        save_view(tracker._readable(), str(number), name)
    first = tracker.saved_views("esc10", "lr", "val/macro_f1", ["optimizer.lr"])
    second = tracker.saved_views(
        "esc10", "lr", "val/macro_f1", ["optimizer.lr", "model.kind"], address="http://127.0.0.1:5001"
    )
    assert list(first) == ["lr: trials", "lr: curves", "lr: what matters"] == list(second)
    assert [v.replace(":5000/", ":5001/") for v in first.values()] == list(second.values())
    shown = [link for _, link in tracker.view_links("http://127.0.0.1:5001/")]
    assert shown[1:] == list(second.values())  # the first is the user's own; those of earlier versions are gone
    assert "compareRunsMode=TABLE" in first["lr: trials"]
    assert "compareRunsMode=CHART" in first["lr: curves"]
    experiment = tracker._readable().get_experiment_by_name("esc10")
    values = [v for k, v in experiment.tags.items() if k.startswith("mlflow.sharedViewState.")]
    assert len(values) == 4
    assert max(map(len, values)) < 5000


def test_a_view_shows_one_study_and_all_that_it_searches(workspace: Workspace) -> None:
    tracker = Tracker(workspace)
    for study, params in (("one", {"optimizer.lr": 0.1}), ("o'two", {f"key.number_{i}": i for i in range(40)})):
        for trial in range(2):
            values = {k: v * (trial + 1) for k, v in params.items()}
            tags = {"study": study}
            tracker.start("esc10", f"{study} {trial}", kind="trial", params=values, tags=tags).finish("COMPLETE")
        tracker.saved_views("esc10", study, "val/macro_f1", list(params))
    tags = tracker._readable().get_experiment_by_name("esc10").tags
    for study, n_params in (("one", 1), ("o'two", 40)):
        state = state_of(tags, f"{study}: trials")
        found = tracker.runs("esc10", state["searchFilter"])
        assert {run.tags["study"] for run in found} == {study}
        assert sum(c.startswith("params.") for c in state["selectedColumns"]) == n_params
        assert state["selectedColumns"][:2] == ["tags.`state`", "metrics.`best/macro_f1`"]
        assert "attributes.`Dataset`" not in state["columnOrder"]
    assert state_of(tags, "one: what matters")["compareRunCharts"][0]["selectedParams"] == ["optimizer.lr"]


def test_a_view_fits_into_a_tag(workspace: Workspace) -> None:
    """MLflow takes 20,000 characters and refuses more."""
    import secrets

    from audio_cls.tracking.views import TAG_LIMIT

    tracker = Tracker(workspace)
    tracker.experiment("esc10")
    params = [secrets.token_hex(100) for _ in range(400)]  # does not compress
    assert len(tracker.saved_views("esc10", "s", "val/macro_f1", params)) == 3
    tags = tracker._readable().get_experiment_by_name("esc10").tags
    assert TAG_LIMIT / 4 < max(len(v) for k, v in tags.items() if "sharedViewState" in k) <= TAG_LIMIT


def test_an_experiment_is_described_until_somebody_edits_it(workspace: Workspace) -> None:
    tracker = Tracker(workspace)
    tracker.on(DATA).start("esc10", "r", kind="run").finish("COMPLETE")
    client = tracker._readable()

    def note() -> str:
        return str(client.get_experiment_by_name("esc10").tags["mlflow.note.content"])

    assert note().startswith(f"Audio classification on **{DATA.name}**: {DATA.n_clips} clips, ")
    assert all(c in note() for c in DATA.classes)
    tracker.saved_views("esc10", "lr", "val/macro_f1", [])
    assert "[lr: curves](#/experiments/" in note()
    tracker.saved_views("esc10", "lr", "val/macro_f1", [])
    assert note().count("lr: curves") == 1
    number = client.get_experiment_by_name("esc10").experiment_id
    client.set_experiment_tag(number, "mlflow.note.content", "mine")
    tracker.saved_views("esc10", "other", "val/macro_f1", [])
    Tracker(workspace).on(DATA).start("esc10", "r2", kind="run")
    assert note() == "mine"


def test_arms_have_colours_of_their_own(workspace: Workspace) -> None:
    from audio_cls.tracking.suites import arm_colours

    colours = arm_colours([f"arm{i}" for i in range(8)])
    assert len({tags["mlflow.runColor"] for tags in colours.values()}) == 8
    tracker = Tracker(workspace)
    tracker.experiment("esc10")
    links = tracker.suite_views("esc10", "s", "macro_f1", "last", ["optimizer.lr"])
    assert list(links) == ["s: arms", "s: bars", "s: by arm", "s: runs"]
    bars = state_of(tracker._readable().get_experiment_by_name("esc10").tags, "s: bars")
    assert bars["groupBy"] is None  # MLflow gives groups colours of its own
    assert [section["columns"] for section in bars["compareRunSections"]] == [1]  # else titles are cut


def test_an_axis_that_would_hide_runs_is_left_out(workspace: Workspace) -> None:
    tracker = Tracker(workspace)
    for mixup, alpha, lr in (("on", 0.3, 0.1), ("none", "none", 0.2)):
        params = {"mixup": mixup, "mixup.alpha": alpha, "lr": lr, "seed": 0}
        tracker.start("esc10", mixup, kind="trial", params=params, tags={"study": "s"}).finish("COMPLETE")
    tracker.saved_views("esc10", "s", "val/macro_f1", ["mixup", "mixup.alpha", "lr", "seed"])
    state = state_of(tracker._readable().get_experiment_by_name("esc10").tags, "s: what matters")
    assert state["compareRunCharts"][0]["selectedParams"] == ["mixup", "lr"]
    assert "params.`mixup.alpha`" in state["selectedColumns"]


CREATE = """
import sys, time
from audio_cls.tracking import Tracker
from audio_cls.core.workspace import Workspace
tracker = Tracker(Workspace(sys.argv[1]))
run = tracker.start("e", sys.argv[2], kind="trial")
run.epoch(0, {"loss": 1.0})
run.finish("COMPLETE")
sys.exit(run.degraded)
"""


@pytest.mark.slow
def test_four_processes_make_one_database_and_one_experiment(tmp_path: Path) -> None:
    workers = [subprocess.Popen([sys.executable, "-c", CREATE, str(tmp_path), f"r{i}"]) for i in range(4)]
    assert [worker.wait() for worker in workers] == [0] * 4
    tracker = Tracker(Workspace(tmp_path))
    assert sorted(r.name for r in tracker.runs("e")) == ["r0", "r1", "r2", "r3"]
    assert tracker.pending() == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [".locks", "mlflow.db", "mlruns"]


@pytest.mark.slow
def test_a_real_server_that_goes_away_and_comes_back(workspace: Workspace, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"

    def serve() -> subprocess.Popen[bytes]:
        env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # as `serve_ui` sets it
        process = subprocess.Popen(ui_command(workspace, port), cwd=workspace.root, stderr=subprocess.DEVNULL, env=env)
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return process
            time.sleep(0.2)
        process.terminate()
        raise AssertionError("the server did not start")

    laptop = Workspace(tmp_path / "laptop")
    process = serve()
    try:
        tracker = Tracker(laptop, uri, retry_seconds=0.2)
        run = tracker.on(DATA).start("esc10", "r", kind="trial", params={"optimizer.lr": 1e-3})
        run.epoch(0, {"val/macro_f1": 0.0, "train/loss": 2.0})
        assert not run.degraded
        process.terminate()
        process.wait()
        run.epoch(1, {"val/macro_f1": 0.1, "train/loss": 1.0})
        run.artifact_text("reports/table.csv", "name\nr\n")
        assert run.degraded
        process = serve()
        time.sleep(1)
        run.epoch(2, {"val/macro_f1": 0.2, "train/loss": 0.0})
        run.final({"best/val/macro_f1": 0.2})
        run.finish("COMPLETE")
        tracker.flush()
        check_whole(tracker, "r")
    finally:
        process.terminate()
        process.wait()


def test_runs_that_start_at_the_same_moment_on_the_same_data(workspace: Workspace) -> None:
    """MLflow looks for a data set's row and then inserts it: of two that begin together, one is refused at first."""
    tracker = Tracker(workspace)
    tracker.experiment("esc10")
    threads = [threading.Thread(target=record, args=(tracker, f"r{i}")) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.pending() == 0
    for i in range(3):
        check_whole(tracker, f"r{i}")
