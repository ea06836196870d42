"""The start page of `audio-cls ui`: what it shows, that it shows text as text, and the server that serves it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.tracking import DatasetInfo, Tracker
from audio_cls.tracking.addresses import free_port, note_address, running_address
from audio_cls.ui.overview import ArmRow, Collector, CorpusRow, Overview, RunRow, StudyRow, SuiteRow
from audio_cls.ui.page import CONTENT_SECURITY_POLICY, start_page
from audio_cls.ui.serving import has_browser, renew_views, serve_ui
from tests.study_tones import Killed, Place

HOSTILE = '<script>alert(1)</script>" onload="x'
DATA = DatasetInfo("tones", "05b3abf2" * 8, "multiclass", 30, ("hum", "hiss"), "corpora/tones")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def place(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A study with a complete trial, a pruned one, and one whose worker was killed."""
    place = Place(tmp_path_factory.mktemp("ui") / "w", tones_corpus, epochs=2)
    place.enqueue(1e-2, 1e-6)
    place.run(2)
    place.enqueue(2e-2)
    with pytest.raises(Killed):
        place.run(3, stop_after=1)
    tracker = Tracker(place.workspace)
    tags = {"ablation.suite": "rates", "ablation.metric": "val/macro_f1", "runs": "4"}
    suite = tracker.on(DATA).start("tones/multiclass", "suite rates", kind="suite", tags=tags)
    for arm, mean in (("low", 0.25), ("high", 0.5)):
        run = tracker.start(
            "tones/multiclass", arm, kind="arm", parent=suite.id, tags={**tags, "verdict": f"{arm}: helps"}
        )
        run.final({"mean/macro_f1": mean, "std/macro_f1": 0.125})
        run.finish("COMPLETE")
    suite.final({"final/runs": 4})
    suite.finish("COMPLETE")
    single = tracker.start("tones/multiclass", HOSTILE, kind="run", params={"training.metric": "val/macro_f1"})
    single.final({"best/macro_f1": 0.75})
    single.artifact_text("report.html", "<p>the report</p>")
    single.finish("FAILED", "diverged")
    return place


def test_the_page_shows_what_the_workspace_holds(place: Place) -> None:
    found = Collector(place.workspace).overview()
    assert found.problems == []
    [study] = found.studies
    assert (study.name, study.finished, study.metric) == ("tones", 2, "val/macro_f1")
    assert study.state == "running"  # this process is the worker: it lives
    assert study.counts == "1 running, 1 complete, 1 pruned"
    [suite] = found.suites
    assert (suite.state, suite.finished, suite.total) == ("finished", 4, 4)
    assert [(arm.name, arm.mean, arm.verdict) for arm in suite.arms] == [
        ("high", 0.5, "high: helps"),
        ("low", 0.25, "low: helps"),
    ]
    [run] = found.runs
    assert (run.state, run.reason, run.best) == ("failed", "diverged", 0.75)
    assert [text for text, _ in run.links] == ["MLflow run", "report"]
    [corpus] = found.corpora
    assert (corpus.name, corpus.clips, corpus.classes, corpus.sample_rate) == ("tones", 30, 3, 8000)
    page = start_page(found)
    assert '<meta http-equiv="refresh"' in page
    for text in (
        "1 running, 1 complete, 1 pruned",
        "4 of 4",
        "high: helps",
        "diverged",
        "<b>0.75</b>",
        "30 clips, 3 classes",
    ):
        assert text in page


def test_a_study_of_an_earlier_version_gets_views_of_its_own(place: Place) -> None:
    renew_views(place.workspace)
    links = dict(Collector(place.workspace).overview().studies[0].links)
    assert list(links)[:3] == ["trials", "curves", "what matters"]
    page = start_page(Collector(place.workspace).overview())
    assert (
        'href="/mlflow#/experiments/1/runs?workflowType=machine_learning&amp;compareRunsMode=TABLE&amp;viewStateShareKey='
        in page
    )


def test_one_broken_part_hides_nothing_else(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import audio_cls.queue.status

    def broken(*_: Any) -> None:
        raise KeyError("sampler")

    monkeypatch.setattr(audio_cls.queue.status, "study_status", broken)
    found = Collector(place.workspace).overview()
    assert found.studies == []
    [problem] = found.problems
    assert problem.startswith("study tones: study 'tones' is damaged")
    assert "study remove tones" in problem
    assert len(found.suites) == len(found.runs) == len(found.corpora) == 1
    assert "KeyError: &#x27;sampler&#x27;" in start_page(found)


def test_an_empty_workspace_says_how_to_begin(tmp_path: Path) -> None:
    page = start_page(Collector(Workspace(tmp_path)).overview())
    assert page.count("None yet") == 4
    assert "audio-cls data prepare" in page
    assert "http-equiv" not in page


def test_every_text_is_escaped_and_nothing_comes_from_elsewhere() -> None:
    links = [(HOSTILE, f"/report/{HOSTILE}")]
    page = start_page(
        Overview(
            Path(f"/{HOSTILE}"),
            True,
            [StudyRow(HOSTILE, HOSTILE, HOSTILE, 1, 2, HOSTILE, HOSTILE, 0.5, 60.0, links)],
            [SuiteRow(HOSTILE, HOSTILE, HOSTILE, 1, 2, HOSTILE, [ArmRow(HOSTILE, 0.5, 0.1, HOSTILE)], links)],
            [RunRow(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, 0.5, 0.0, links)],
            [CorpusRow(HOSTILE, 1, 1, 1.0, 8000, HOSTILE, HOSTILE)],
            [HOSTILE],
        )
    )
    assert "alert(1)" in page
    assert page.count("<script>") == 1
    assert 'onload="' not in page
    assert "//" not in re.sub(r"/(report)?/&lt;", "", page.replace("startsWith", "")).replace("<!doctype", "")
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    text: str


@pytest.fixture(scope="module")
def ask(place: Place) -> Callable[..., Answer]:
    """The server's application, asked for a path without a server."""
    from audio_cls.ui.app import create_app

    with pytest.MonkeyPatch.context() as patch:
        for key, value in place.workspace.environment().items():
            patch.setenv(key, value)
        app = create_app()

    async def get(path: str, host: str) -> Answer:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": path, "raw_path": path.encode(),
            "query_string": b"", "root_path": "", "headers": [(b"host", host.encode())], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 5000),
        }  # fmt: skip
        await app(scope, receive, send)
        body = b"".join(m.get("body", b"") for m in sent[1:])
        headers = {k.decode().lower(): v.decode() for k, v in sent[0]["headers"]}
        return Answer(sent[0]["status"], headers, body.decode(errors="replace"))

    return lambda path, host="127.0.0.1:5000": asyncio.run(get(path, host))


def test_routes(ask: Callable[..., Answer], place: Place) -> None:
    start = ask("/")
    assert start.status == 200
    assert "<h2>Studies</h2>" in start.text
    assert start.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    mlflow = ask("/mlflow")
    assert "machine_learning" in mlflow.text
    script = re.search(r'src="(static-files/[^"]+)"', mlflow.text)  # relative: from /mlflow it leads to the root
    assert script is not None
    assert ask(f"/{script[1]}").status == 200
    run = Tracker(place.workspace).runs(filter="tags.kind = 'run'")[0]
    report = ask(f"/report/{run.run_id}")
    assert report.text == "<p>the report</p>"
    assert report.headers["content-security-policy"].startswith("sandbox")
    for nothing in ("0" * 32, "../../etc/passwd", "x"):
        assert ask(f"/report/{nothing}").status == 404


def test_the_checks_of_mlflow_stay_on(ask: Callable[..., Answer]) -> None:
    assert ask("/", "evil.example.com").status == 403
    assert ask("/report/" + "0" * 32, "evil.example.com").status == 403


def test_the_ui_of_a_server_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="server http://h:1: open that"):
        serve_ui(Workspace(tmp_path, "http://u:p@h:1"))


def test_a_taken_port_gives_the_next_free_one(taken: int) -> None:
    found = free_port("127.0.0.1", taken)
    assert taken < found < taken + 50
    with pytest.raises(UserError, match=r"cannot listen on no\.such\.host\.invalid"):
        free_port("no.such.host.invalid", 5000)


def test_links_lead_to_the_server_that_runs(tmp_path: Path, taken: int) -> None:
    workspace = Workspace(tmp_path)
    tracker = Tracker(workspace)
    tracker.experiment("e")
    address = f"http://127.0.0.1:{taken}"
    assert running_address(workspace) is None
    assert all(":5000/" in link for link in tracker.saved_views("e", "s", "f1").values())
    note_address(workspace, address)
    assert running_address(workspace) == address
    assert all(link.startswith(address) for link in tracker.saved_views("e", "s", "f1").values())
    said: list[str] = []
    assert (serve_ui(workspace, browser=False, say=said.append), said) == (
        0,
        [f"{address} serves this workspace already"],
    )
    for text in (
        "{",
        "[]",
        '{"address": "http://127.0.0.1:1", "process": -1}',
        json.dumps({"address": "x", "process": os.getpid()}),
    ):
        (tmp_path / ".locks" / "ui.json").write_text(text)
        assert running_address(workspace) is None


def test_a_browser_needs_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    assert not has_browser()
    monkeypatch.setenv("DISPLAY", ":0")
    assert has_browser()


@pytest.mark.slow
def test_the_command_serves_the_page_and_mlflow(place: Place, taken: int) -> None:
    line = [sys.executable, "-m", "audio_cls.cli", "--workspace", str(place.workspace.root), "ui", "--no-browser"]
    process = subprocess.Popen(
        [*line, "--port", str(taken)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(2)]
        assert said[0].startswith(f"port {taken} is taken: using ")
        address = said[1].split()[0]
        deadline = time.monotonic() + 120
        while True:
            try:
                page = urlopen(f"{address}/", timeout=60).read().decode()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
        assert "<h2>Studies</h2>" in page
        assert running_address(place.workspace) == address
        ask = Request(f"{address}/api/2.0/mlflow/experiments/search?max_results=5")
        assert "tones/multiclass" in urlopen(ask, timeout=60).read().decode()
        with pytest.raises(HTTPError, match="403"):
            urlopen(Request(f"{address}/", headers={"Host": "evil.example.com"}), timeout=60)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)
    assert running_address(place.workspace) is None
