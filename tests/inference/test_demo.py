"""`demo` and `listen` with a trained model: what the page shows, that it answers its own pages only, and a visit by a browser."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from audio_cls.cli import main
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.inference.opening import open_labellers
from audio_cls.inference.page_answer import answer_of
from audio_cls.inference.page_examples import validation_examples
from audio_cls.inference.page_markup import Answer, ModelAnswer, Picture, Strip, answer_markup, fault_markup
from audio_cls.inference.page_server import Guard
from audio_cls.inference.timeline import Event
from audio_cls.tracking import Tracker
from tests.browser import Browser, chromium
from tests.commands import call
from tests.servers import free_port

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def workspace(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained runs: `first` of windows of half a second, and `whole`, which judges recordings as a whole."""
    root = tmp_path_factory.mktemp("demo") / "w"
    (root / "corpora").mkdir(parents=True)
    (root / "corpora" / "tones").symlink_to(tones_corpus)
    words = ["train", "--set", "data.corpus=tones", "--set", "training.epochs=1", "--set", "data.clip_seconds=0.5"]
    whole = ["--set", "features=mfcc_statistics", "--set", "model=logistic_regression"]
    for more in (["--name", "first"], [*whole, "--name", "whole"]):
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(["--workspace", str(root), *words, *more]) == 0
    return root


@pytest.fixture(scope="module")
def tracker(workspace: Path) -> Tracker:
    return Tracker(Workspace(workspace))


@pytest.fixture
def recording(tones_corpus: Path, tmp_path: Path) -> Path:
    """Six seconds: hum, hiss, beep."""
    folder = tones_corpus.parents[1] / "source" / "audio"
    parts = [np.resize(sf.read(folder / f"{name}0.wav")[0], 16_000) for name in ("hum", "hiss", "beep")]
    sf.write(tmp_path / "six.wav", np.concatenate(parts), 8000)
    return tmp_path / "six.wav"


# --- listen


def test_a_file_is_played_to_several_models(
    workspace: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = call(capsys, workspace, "listen", "first", "whole", "--from", str(recording), "--speed", "20", "--top", "1")
    lines = shown.splitlines()
    assert "at 8000 Hz" in lines[0]
    answers = [line for line in lines if " | whole: " in line]
    assert answers
    assert all("first: " in line and " dB  " in line for line in answers)
    assert any(line.startswith("6.0 s of sound") for line in lines)
    assert any("median" in line and "95th percentile" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["first", "--speed", "2"], "add --from FILE"),
        (["first", "--from", "x.wav", "--device-in", "1"], "leave one out"),
        (["first", "--from", "no-such.wav"], "no-such.wav: the file is missing"),
        (["frist", "--from", "RECORDING"], "frist"),
    ],
)
def test_listening_to_what_is_not_there_is_one_error(
    workspace: Path, recording: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = call(capsys, workspace, "listen", *(str(recording) if w == "RECORDING" else w for w in words), code=2)
    assert said in shown
    assert "Traceback" not in shown


def test_an_interrupt_ends_with_a_summary(
    workspace: Path, recording: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("audio_cls.inference.listening.Latency.add", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    shown = call(capsys, workspace, "listen", "first", "--from", str(recording), code=130)
    assert "0.5 s of sound" in shown
    assert "left after 0.5 s" in shown


# --- the answer


def test_a_short_clip_gets_bars_of_each_model_and_one_spectrogram(tracker: Tracker, recording: Path) -> None:
    labellers = open_labellers(["first", "whole"], tracker, "cpu")
    samples, rate = sf.read(recording)
    sf.write(recording, samples[:4000], rate)
    answer = answer_of(recording, labellers, 2)
    assert (answer.title, answer.seconds) == ("six.wav", 0.5)
    assert [model.name for model in answer.models] == ["first", "whole"]
    for model, labeller in zip(answer.models, labellers, strict=True):
        assert dict(model.top) == pytest.approx(dict(list(labeller.predict(recording).items())[:2]), abs=1e-6)
        assert model.strip is None
    assert [picture.png[:4] for picture in answer.pictures] == [b"\x89PNG"] * 2  # the models see other features
    assert "as the model sees it: first" in answer.pictures[0].caption


def test_a_long_recording_gets_a_timeline_of_models_with_windows(tracker: Tracker, recording: Path) -> None:
    answer = answer_of(recording, open_labellers(["first", "whole"], tracker, "cpu"), 3)
    first, whole = answer.models
    assert answer.seconds == 6.0
    assert "data.evaluation" in first.windows
    assert first.strip is not None
    assert set(first.strip.labels) == {"hum", "hiss", "beep"}
    assert whole.strip is None
    assert all(0 <= event.start < event.end <= 6.0 + 1e-6 and 0 <= event.score <= 1 for event in first.events)


def test_the_columns_of_a_strip_are_the_windows_at_their_time(tracker: Tracker) -> None:
    from PIL import Image

    from audio_cls.inference.labeller import WindowScore
    from audio_cls.inference.page_answer import COLUMNS, strip_of

    [labeller] = open_labellers(["first"], tracker, "cpu")
    windows = [WindowScore(k, k + 1.0, np.eye(3)[k % 3]) for k in range(6)]
    strip = strip_of(windows, labeller, 6.0)
    pixels = np.asarray(Image.open(io.BytesIO(strip.png)))
    assert pixels.shape == (3, COLUMNS)
    for k in range(6):
        row = list(strip.labels).index(labeller.classes[k % 3])
        column = pixels[:, int((k + 0.5) * COLUMNS / 6)]
        assert column[row] == 255
        assert sorted(column)[:2] == [0, 0]


@pytest.mark.parametrize("fault", ["noise", "cut", "silent", "long"])
def test_what_cannot_be_labelled_is_one_sentence(
    tracker: Tracker, recording: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "noise":
        recording.write_bytes(b"<b>nothing</b>" * 100)
    elif fault == "cut":
        recording.write_bytes(recording.read_bytes()[:20_000])
    elif fault == "silent":
        sf.write(recording, np.zeros(8000), 8000)
    else:
        monkeypatch.setattr("audio_cls.inference.page_answer.LONGEST_SECONDS", 5.0)
    with pytest.raises(UserError) as error:
        answer_of(recording, open_labellers(["first"], tracker, "cpu"), 3)
    said = str(error.value)
    assert said.startswith("six.wav: ")
    assert str(recording.parent) not in said
    assert "\n" not in said


def test_no_text_becomes_markup() -> None:
    model = ModelAnswer(HOSTILE, [(HOSTILE, 0.5)], HOSTILE, Strip(b"", [HOSTILE]), [Event(0, 1, HOSTILE, 0.5)], HOSTILE)
    page = answer_markup(Answer(HOSTILE, 1.0, [Picture(b"", HOSTILE)], [model])) + fault_markup(HOSTILE)
    assert "<img src=x" not in page
    assert page.count("&lt;img src=x") >= 8


def test_examples_are_validation_clips_with_their_true_labels(tracker: Tracker, tmp_path: Path) -> None:
    from audio_cls.inference.handle import Run

    examples = validation_examples("first", tracker, tmp_path)
    predictions = Run(tracker, tracker.resolve("first")).predictions
    assert sorted(label for label, _ in examples) == ["beep", "hiss", "hum"]
    validation = {
        Path(clip).stem: np.argmax(row) for clip, row in zip(predictions.clips, predictions.targets, strict=True)
    }
    for label, path in examples:
        stem = path.stem.partition("-")[2]
        assert predictions.classes[validation[stem]] == label
        assert sf.info(path).samplerate == 8000


def test_without_the_corpus_there_are_no_examples(workspace: Path, tracker: Tracker, tmp_path: Path) -> None:
    link = workspace / "corpora" / "tones"
    target = link.readlink()
    link.unlink()
    try:
        assert validation_examples("first", tracker, tmp_path) == []
    finally:
        link.symlink_to(target)
    assert validation_examples("no-such-run", tracker, tmp_path) == []


# --- the server


@pytest.mark.parametrize(
    ("host", "headers", "status"),
    [
        ("127.0.0.1", {"host": "127.0.0.1:7860"}, 200),
        ("127.0.0.1", {"host": "localhost:7860", "origin": "http://localhost:7860"}, 200),
        ("127.0.0.1", {"host": "evil.example:7860"}, 403),  # a name that was made to lead here
        ("127.0.0.1", {}, 403),
        ("127.0.0.1", {"host": "127.0.0.1:7860", "origin": "http://evil.example"}, 403),
        ("0.0.0.0", {"host": "box:7860", "origin": "http://box:7860"}, 200),
        ("0.0.0.0", {"host": "box:7860", "origin": "null"}, 403),
    ],
)
def test_requests_of_other_sites_are_refused(host: str, headers: dict[str, str], status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [(k.encode(), v.encode()) for k, v in headers.items()]}
    asyncio.run(Guard(app, host)(scope, None, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == status
    policy = dict(sent[0]["headers"]).get(b"content-security-policy", b"").decode()
    assert ("default-src 'self'" in policy) == (status == 200)


@pytest.mark.parametrize(("size", "said"), [("lots", "no size"), ("0", "no size"), ("5 parsecs", "Allowed")])
def test_a_size_that_is_none_is_refused(
    workspace: Path, size: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in call(capsys, workspace, "demo", "first", "--max-size", size, code=2)


def test_without_gradio_the_command_names_the_extra(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    shown = call(capsys, workspace, "demo", "first", "--no-browser", code=2)
    assert "pip install 'audio_cls[demo]'" in shown


# --- a visit


@pytest.fixture
def served(workspace: Path, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str], Path]]:
    """The address of the page, its process, and the folder of its temporary files."""
    if find_spec("gradio") is None:
        pytest.skip("no Gradio here: pip install 'audio_cls[demo]'")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    words = ["demo", "first", "whole", "--no-browser", "--port", str(free_port()), "--max-size", "200KB"]
    process = subprocess.Popen(
        [sys.executable, "-m", "audio_cls.cli", "--workspace", str(workspace), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "Ctrl-C ends it" in line, line + process.communicate(timeout=60)[0]
        yield line.split()[0], process, temporary
    finally:
        process.kill()
        process.wait()


def ready(browser: Browser, address: str) -> None:
    browser.open(address)
    browser.wait("document.querySelector('input[type=file]') && document.querySelectorAll('.answer').length == 2")


def check_that_requests_by_hand_read_nothing(address: str) -> None:
    """No file of this machine, no address of another one."""
    import httpx

    with httpx.Client(base_url=address, timeout=60) as client:
        found = client.get("/config").json()["dependencies"]
        number = next(d["id"] for d in found if d["targets"][0][1] == "change")
        for path, said in (("/etc/passwd", "not uploaded"), ("http://127.0.0.1:9/x.wav", "only uploaded files")):
            data = [{"path": path, "meta": {"_type": "gradio.FileData"}}]
            words = {"data": data, "fn_index": number, "session_hash": f"s{len(path)}"}
            assert client.post("/gradio_api/queue/join", json=words).status_code == 200
            answer = client.get(f"/gradio_api/queue/data?session_hash=s{len(path)}").text
            assert '"success":false' in answer
            assert said in answer
        assert client.get("/gradio_api/file=/etc/passwd").status_code == 403


@pytest.mark.long
def test_a_person_uploads_a_clip(
    served: tuple[str, subprocess.Popen[str], Path], recording: Path, tmp_path: Path
) -> None:
    """A short clip, a long recording, an example, a faulty file, one that is too large; on a phone; then Ctrl-C."""
    program = chromium()
    if program is None:
        pytest.skip("no Chromium here")
    address, process, temporary = served
    check_that_requests_by_hand_read_nothing(address)
    samples, rate = sf.read(recording)
    short, bad, large = tmp_path / "short <b>.wav", tmp_path / "bad.wav", tmp_path / "large.wav"
    sf.write(short, samples[:4000], rate)
    bad.write_bytes(b"no sound")
    sf.write(large, np.tile(samples, 5), rate)
    browser = Browser(program, tmp_path / "profile")
    try:
        browser.size(390, 800)
        ready(browser, address)
        browser.upload("input[type=file]", short)
        browser.wait("document.querySelector('.answer figure img')")
        assert browser.ask("[...document.querySelectorAll('.answer h3')].map((e) => e.innerText)") == ["first", "whole"]
        assert browser.ask("document.querySelectorAll('.answer .bars li').length") == 6
        assert browser.ask("document.querySelectorAll('.answer .strip').length") == 0
        assert browser.ask("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
        assert browser.ask("document.documentElement.scrollWidth - innerWidth") <= 0
        ready(browser, address)
        browser.upload("input[type=file]", recording)
        browser.wait("document.querySelector('.answer .strip img')")
        assert "data.evaluation" in browser.ask("document.querySelector('.answer .models').innerText")
        assert browser.ask("document.documentElement.scrollWidth - innerWidth") <= 0
        ready(browser, address)
        browser.wait("[...document.querySelectorAll('button')].find((b) => b.innerText.trim() == 'hiss')")
        browser.ask("[...document.querySelectorAll('button')].find((b) => b.innerText.trim() == 'hiss').click()")
        browser.wait(
            "document.querySelector('.answer .facts') && document.querySelector('.facts').innerText.includes('hiss')"
        )
        ready(browser, address)
        browser.upload("input[type=file]", bad)
        assert "bad.wav: " in browser.wait(
            "document.querySelector('.fault') && document.querySelector('.fault').innerText"
        )
        ready(browser, address)
        browser.upload("input[type=file]", large)
        browser.wait("document.body.innerText.includes('exceed')")
        assert browser.errors == []
        assert [r for r in browser.requests if not r.startswith((address, "data:", "blob:"))] == []
        assert not list(Path(__file__).parents[2].glob("audio_cls/**/*.pyi"))  # Gradio writes them for classes of ours
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert time.monotonic() - began < 60
        assert list(temporary.iterdir()) == []
    finally:
        browser.close()
