"""Streams: blocks give the samples of a corpus, rows those of the whole recording, windows the figures of the evaluation."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

from audio_cls.components.features import LogMel, Waveform
from audio_cls.core.workspace import Workspace
from audio_cls.data import blocks as data_blocks
from audio_cls.data import sources
from audio_cls.data.audio import BadAudio, load, to_float
from audio_cls.data.packing import prepare
from audio_cls.data.windows import window_starts
from audio_cls.inference import batching, row_stream, streaming
from audio_cls.inference.opening import run_labeller
from audio_cls.inference.row_stream import RowStream, cut_windows
from audio_cls.inference.streaming import AudioStream, read_blocks
from audio_cls.runs.evaluation import score_run
from audio_cls.runs.preparation import Runtime
from audio_cls.tracking import Tracker
from tests.commands import call
from tests.conftest import write_tones
from tests.own_parts import WORDS

CPU = torch.device("cpu")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Next to nothing is decoded whole, and blocks and chunks are short."""
    monkeypatch.setattr(streaming, "_WHOLE", 3000)
    monkeypatch.setattr(data_blocks, "BLOCK_SECONDS", 0.3)
    monkeypatch.setattr(row_stream, "CHUNK_SECONDS", 0.4)


def write(
    path: Path, seconds: float = 2.0, rate: int = 44100, channels: int = 1, peak: float = 0.5, **how: Any
) -> Path:
    x = np.random.default_rng(0).standard_normal((int(seconds * rate), channels)).astype(np.float32)
    sf.write(path, x / np.abs(x).max() * peak, rate, **how)
    return path


@pytest.mark.parametrize(
    ("rate", "channels", "peak", "how"),
    [
        (44100, 1, 0.5, {"subtype": "PCM_16"}),
        (44100, 2, 0.99, {"subtype": "PCM_24"}),  # resampling goes beyond full scale: turned down as a whole
        (16000, 1, 3.0, {"subtype": "FLOAT"}),
        (8000, 2, 0.5, {"subtype": "PCM_16", "format": "FLAC"}),
        (22050, 1, 0.5, {"subtype": "VORBIS", "format": "OGG"}),
    ],
)
def test_blocks_hold_the_samples_of_a_corpus(
    rate: int, channels: int, peak: float, how: dict[str, str], tmp_path: Path, small_blocks: None
) -> None:
    path = write(tmp_path / "x.wav", rate=rate, channels=channels, peak=peak, **how)
    stream = AudioStream(path, 16000)
    found = list(stream)
    expected = to_float(load(path, sample_rate=16000).samples)
    assert len(found) > 4
    assert stream.n_samples == len(expected)
    assert np.array_equal(np.concatenate(found), expected)
    assert np.array_equal(np.concatenate(list(read_blocks(path.read_bytes(), 16000))), expected)
    with path.open("rb") as file:
        assert np.array_equal(np.concatenate(list(read_blocks(file, 16000))), expected)


def broken(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    good = write(tmp_path / "good.wav", subtype="PCM_16")
    cut = tmp_path / "cut.wav"
    cut.write_bytes(good.read_bytes()[:60_000])
    yield cut, "cut short"
    flac = write(tmp_path / "good.flac", subtype="PCM_16")
    cut = tmp_path / "cut.flac"
    cut.write_bytes(flac.read_bytes()[:60_000])
    yield cut, "cannot be decoded|cut short"
    x = np.random.default_rng(0).standard_normal(44100).astype(np.float32) * 0.1
    x[40000] = np.nan
    sf.write(tmp_path / "nan.wav", x, 44100, subtype="FLOAT")
    yield tmp_path / "nan.wav", "not finite"
    sf.write(tmp_path / "zeros.wav", np.zeros(44100), 44100)
    yield tmp_path / "zeros.wav", "silent"
    sf.write(tmp_path / "twins.wav", np.stack([x[:999], -x[:999]], axis=1).repeat(20, axis=0), 44100)
    yield tmp_path / "twins.wav", "cancel"
    sf.write(tmp_path / "nothing.wav", np.zeros(0), 44100)
    yield tmp_path / "nothing.wav", "empty"
    sf.write(tmp_path / "tiny.wav", x[:220], 44100)
    yield tmp_path / "tiny.wav", "too short"
    (tmp_path / "text.wav").write_text("not audio")
    yield tmp_path / "text.wav", "cannot be decoded"
    (tmp_path / "none.wav").touch()
    yield tmp_path / "none.wav", "0 bytes"
    yield tmp_path / "missing.wav", "missing"
    yield tmp_path, "folder"


@pytest.mark.parametrize("whole", [True, False])
def test_what_cannot_be_read_is_refused_alike_at_once_and_in_blocks(
    whole: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if not whole:
        request.getfixturevalue("small_blocks")
    for path, why in broken(tmp_path):
        with pytest.raises(BadAudio, match=why):
            list(read_blocks(path, 16000))


def rows_of(x: np.ndarray, features: Any, length: int, cuts: list[int], pad: str = "zero") -> RowStream:
    def extract(samples: torch.Tensor) -> torch.Tensor:
        return features(samples)

    parts = np.split(x, cuts)
    return RowStream(parts, extract, features.frames, features.hop_length, features.reach, length, pad, 8000)


@pytest.mark.parametrize("kind", ["log_mel", "top_db", "waveform"])
@pytest.mark.parametrize(("seconds", "hop"), [(3.37, 13), (3.37, 60), (0.5, 5), (0.2, 5), (0.62, 100)])
def test_rows_of_a_stream_are_those_of_the_whole(kind: str, seconds: float, hop: int, small_blocks: None) -> None:
    """Whatever the blocks; windows lie where `window_starts` puts them, the last one included."""
    features: Any = LogMel(n_fft=256, hop_length=128, n_mels=16, f_max=None, top_db=30 if kind == "top_db" else None)
    features = (Waveform() if kind == "waveform" else features).build(8000)
    x = np.random.default_rng(1).standard_normal(int(8000 * seconds)).astype(np.float32) * 0.1
    length = 4000  # half a second
    padded = np.pad(x, ((length - len(x)) // 2, -(-(length - len(x)) // 2))) if len(x) < length else x
    whole = features(torch.from_numpy(padded)[None])
    n = features.frames(length)
    hop = hop * 60 if kind == "waveform" else hop
    for cuts in ([], [100], list(range(700, len(x), 700))):
        stream = rows_of(x, features, length, cuts)
        found = list(cut_windows(stream, n, iter(range(0, 10**6, hop)), to_end=True))
        starts = window_starts(whole.shape[-1], n, hop).tolist()
        assert [start for start, _ in found] == starts
        for start, rows in found:
            assert torch.allclose(rows, whole[..., start : start + n], atol=1e-4)
        middle = (whole.shape[-1] - n) // 2
        stream = rows_of(x, features, length, cuts)
        ((_, rows),) = cut_windows(stream, n, [middle], to_end=False)
        assert torch.allclose(rows, whole[..., middle : middle + n], atol=1e-4)


@pytest.mark.parametrize("size", [25001, 24990])
def test_features_that_need_the_whole_recording_are_of_each_window_where_it_is_too_long(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_stream, "WHOLE_SECONDS", 1.0)
    features: Any = LogMel(n_fft=256, hop_length=128, n_mels=16, f_max=None, top_db=30).build(8000)
    x = np.random.default_rng(1).standard_normal(size).astype(np.float32) * 0.1
    n = features.frames(4000)
    stream = rows_of(x, features, 4000, list(range(999, size, 999)))
    found = list(cut_windows(stream, n, iter(range(0, 10**6, 20)), to_end=True))
    assert [start for start, _ in found] == window_starts(features.frames(size), n, 20).tolist()
    for start, rows in found:
        first = min(start * 128, size - 4000)  # the last place on the grid may lie a part of a hop beyond the end
        assert torch.equal(rows, features(torch.from_numpy(x[first : first + 4000])[None]))


@pytest.fixture(scope="module")
def resampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a corpus at 8 kHz of files at 11,025 Hz of different lengths."""
    root = tmp_path_factory.mktemp("streams")
    manifest = sources.read(write_tones(root / "source", sample_rate=11025), "csv")
    prepare(manifest, root / "corpora" / "tones", sample_rate=8000, workers=1)
    return root


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("centre", ["data.clip_seconds=0.5"]),
        ("windows", ["data.clip_seconds=0.5", "data.evaluation=windows"]),
        ("number", ["data.evaluation.number=3", "data.evaluation=windows", "data.clip_seconds=1.2", "data.pad=tile"]),
        ("whole", ["features=mfcc_statistics", "model=mlp"]),
    ],
)
def test_a_file_is_labelled_as_in_the_evaluation(
    name: str, changes: list[str], resampled: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    """Files at another rate, decoded again at once and in blocks, against the stored predictions of the validation clips."""
    words = [word for change in sorted(changes, key=lambda c: "number" in c) for word in ("--set", change)]
    call(capsys, resampled, "train", *WORDS, *words, "--name", name)
    tracker = Tracker(Workspace(resampled))
    info = tracker.resolve(name)
    runtime = Runtime(Workspace(resampled), tracker, CPU)
    recorded = score_run(runtime, info, "validation").predictions
    labeller = run_labeller(tracker, info, CPU)
    corpus = runtime.corpus(labeller.experiment.data)
    paths = [corpus.clips[i].path for i in recorded.rows.tolist()]
    for _ in range(2):
        found = list(labeller.label(paths))
        assert [each.error for each in found] == [""] * len(paths)
        assert np.abs(np.stack([each.scores for each in found]) - recorded.scores).max() < 1e-5
        if name == "whole":
            break
        request.getfixturevalue("small_blocks")
    longest = int(np.argmax(corpus.lengths[recorded.rows]))
    assert ("judged by" in found[longest].windows) == (name != "whole")
    waveform = corpus.waveform(int(recorded.rows[longest]))
    assert labeller.scores(waveform) == pytest.approx(recorded.scores[longest], abs=1e-5)
    samples, rate = sf.read(paths[longest])
    for sound in (
        str(paths[longest]),
        paths[longest].read_bytes(),
        io.BytesIO(paths[longest].read_bytes()),
        (samples, rate),
    ):
        said = labeller.predict(sound)
        assert [said[label] for label in labeller.classes] == pytest.approx(recorded.scores[longest], abs=1e-5)
    if name == "windows":
        blocks = np.array_split(waveform, 7)
        windows = list(labeller.windows(blocks))
        mean = np.mean([window.scores for window in windows], axis=0)
        assert mean == pytest.approx(recorded.scores[longest], abs=1e-5)
        assert [window.start for window in windows[:3]] == pytest.approx([0, 0.25, 0.5], abs=0.02)
        assert windows[-1].end == pytest.approx(len(waveform) / 8000, abs=0.02)
        one = labeller.window_scores(waveform[None, :4000])
        assert one[0] == pytest.approx(windows[0].scores, abs=0.02)  # its last frames are padded


def test_long_recordings_are_judged_in_small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole recordings of many values are not held until there are as many as a batch has windows."""
    monkeypatch.setattr(batching, "MOST_VALUES", 100)
    jobs = [(batching.Job(Path(str(i)), "multiclass", 2, "mean"), iter([torch.zeros(1, 60)])) for i in range(5)]
    assert [len(group) for group in batching.batches(jobs, 64)] == [2, 2, 1]
    short = [(batching.Job(Path(str(i)), "multiclass", 2, "mean"), iter([torch.zeros(1, 1)])) for i in range(5)]
    assert [len(group) for group in batching.batches(short, 2)] == [2, 2, 1]
