"""Evaluation in several windows: where they are cut, how they are combined, and that training, test and labelling agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audio_cls.components.models import Mlp
from audio_cls.components.tempo_views import TempoViews
from audio_cls.core.config import ConfigError
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.data.windows import Centre, Windows, WindowScores, place_of, position, window_starts
from audio_cls.experiment import Experiment, check_domains
from audio_cls.inference.run_labeller import RunLabeller
from audio_cls.runs.evaluation import score_run
from audio_cls.runs.own_parts import recorded_experiment
from audio_cls.runs.preparation import Prepared, Runtime, prepare_run
from audio_cls.runs.resolve import hand_set_faults, resolve
from audio_cls.tracking import Tracker
from audio_cls.training.predictions import predict, probabilities
from tests.commands import call
from tests.own_parts import WORDS
from tests.training.test_rows import corpora, ready

CPU = torch.device("cpu")
COMBINED: dict[str, Any] = {
    "mean": lambda p: p.mean(0),
    "max": lambda p: p.max(0),
    "noisy_or": lambda p: 1 - np.prod(1 - p, axis=0),
}
__all__ = ["corpora"]  # a fixture


@given(st.integers(0, 500), st.integers(1, 60), st.integers(1, 60))
def test_windows_cover_every_row_and_lie_inside(rows: int, length: int, hop: int) -> None:
    starts = window_starts(rows, length, hop)
    assert starts[0] == 0
    assert starts[-1] == max(0, rows - length)
    assert all(0 < step <= hop for step in np.diff(starts))
    room = max(0, rows - length)
    assert np.array_equal(position(place_of(starts, room), np.full(len(starts), room)), starts)


@pytest.mark.parametrize(
    ("windows", "rows", "starts"),
    [
        (Centre(), 100, [25]),
        (Centre(), 30, [0]),
        (Windows(number=1), 100, [25]),
        (Windows(number=3), 100, [0, 25, 50]),
        (Windows(number=5), 52, [0, 1, 2]),
        (Windows(number=5), 20, [0]),
        (Windows(), 100, [0, 25, 50]),
        (Windows(hop_seconds=2.0), 100, [0, 20, 40, 50]),
    ],
)
def test_where_windows_begin(windows: Centre | Windows, rows: int, starts: list[int]) -> None:
    """Windows of 50 rows, ten rows a second."""
    assert windows.starts(rows, 50, 10.0).tolist() == starts


@pytest.mark.parametrize("combine", ["mean", "max", "noisy_or"])
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_combined_probabilities(task: str, combine: Any) -> None:
    """Against the definition, for moderate logits; extreme ones stay finite; one that is not finite is told."""
    clip = np.array([0, 0, 0, 1, 1, 2])
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 3)) * 4)
    p = probabilities(logits, task)
    expected = np.stack([COMBINED[combine](p[clip == i]) for i in range(3)])
    if task == "multiclass":
        expected /= expected.sum(1, keepdims=True)
    scores = WindowScores(3, 3, task, combine)
    scores.add(clip[:2], logits[:2].numpy())
    scores.add(clip[2:], logits[2:].numpy())
    assert probabilities(torch.from_numpy(scores.logits()), task) == pytest.approx(expected, abs=1e-12)

    extreme = WindowScores(2, 3, task, combine)
    extreme.add(np.array([0, 0, 1]), np.array([[900.0, -900, 0], [800, -800, 5], [np.inf, 0, 0]]))
    found = extreme.logits()
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()
    assert probabilities(torch.from_numpy(found[:1]), task)[0, :2] == pytest.approx([1, 0])


def prepared(tones_corpus: Path, **changes: Any) -> Prepared:
    runtime = Runtime(Workspace(tones_corpus.parents[1]), tracker=None, device=CPU)  # type: ignore[arg-type]
    base = {"data.corpus": "tones", "data.clip_seconds": 0.4, "model": "mlp", "training.precision": "fp32"}
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    experiment = Experiment().override({**base, "data.evaluation": {"kind": "windows", "number": 4}, **changes})
    return prepare_run(resolve(experiment, runtime.corpus(experiment.data)).experiment, runtime)


@pytest.mark.parametrize("kind", ["log_mel", "waveform"])
def test_predictions_are_those_of_the_windows(kind: str, tones_corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each clip's probabilities are the mean over its windows, whatever the size of a batch."""
    monkeypatch.setattr(Mlp, "input_domains", (*Mlp.input_domains, "waveform"))
    run = prepared(tones_corpus, features__kind=kind)
    clips, batches, chain = run.split.validation, run.batches, run.chain
    found = probabilities(predict(chain, batches, clips), "multiclass")
    batches.parts = 40
    assert found == pytest.approx(probabilities(predict(chain, batches, clips), "multiclass"), abs=1e-6)
    for row, clip in enumerate(clips.tolist()):
        if kind == "waveform":
            x, length = torch.from_numpy(run.corpus.waveform(clip)), 3200
        else:
            packed = batches.packed
            start, n = int(packed.offsets[clip]), int(packed.lengths[clip])  # type: ignore[union-attr, index]
            x, length = packed.values[start : start + n].float().T[None], batches.frames  # type: ignore[union-attr]
        starts = np.round(np.linspace(0, x.shape[-1] - length, 4)).astype(int)
        windows = torch.stack([x[..., at : at + length] for at in starts])
        with torch.inference_mode():
            each = probabilities(chain.classifier.eval()(windows), "multiclass")
        assert len(each) == 4
        assert found[row] == pytest.approx(each.mean(0), abs=1e-6)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_each_window_is_judged_at_every_tempo(task: str) -> None:
    """A steady sound is the same at every tempo; of pulses, the mean over the tempos counts."""
    rates = (0.5, 1.0, 2.0)
    views = TempoViews(rates, multiclass=task == "multiclass")
    pulses = torch.zeros(2, 1, 3, 16)
    pulses[..., 8] = torch.randn(2, 1, 3, generator=torch.Generator().manual_seed(0))
    steady = pulses.mean(3, keepdim=True).expand(pulses.shape)
    weights = torch.randn(48, 4, generator=torch.Generator().manual_seed(1))

    def model(x: torch.Tensor) -> torch.Tensor:
        return 3 * x.flatten(1) @ weights

    assert torch.allclose(probability(views(steady, model), task), probability(model(steady), task), atol=1e-6)
    seen = [torch.zeros_like(pulses) for _ in rates]
    peak = pulses[..., 8]
    seen[0][..., 8], seen[0][..., 7], seen[0][..., 9] = (
        peak,
        peak / 2,
        peak / 2,
    )  # half the tempo: between frames, the mean
    seen[1][..., 8] = peak
    seen[2][..., 8] = seen[2][..., 0] = peak  # twice the tempo: every second frame, and the clip once more
    expected = sum(probability(model(x), task) for x in seen) / 3
    assert torch.allclose(probability(views(pulses, model), task), expected, atol=1e-6)


def probability(logits: torch.Tensor, task: str) -> torch.Tensor:
    return logits.softmax(1) if task == "multiclass" else logits.sigmoid()


@pytest.mark.parametrize("corpus", ["emb", "pics"])
def test_windows_of_sequences_and_pictures(corpus: str, corpora: Path) -> None:
    """A sequence's rows are its vectors, a picture's its columns; the last window ends with the clip."""
    rate = Corpus.open(corpora / "corpora" / corpus).rate
    length, hop = (4, 2) if corpus == "emb" else (16, 7)
    windows = {"data.evaluation": {"kind": "windows", "hop_seconds": hop / rate}, "data.clip_seconds": length / rate}
    experiment, runtime = ready(corpora, **{"data.corpus": corpus}, **windows)
    run = prepare_run(experiment, runtime)
    clip = run.split.validation[:1]
    rows = int(run.corpus.lengths[clip[0]])
    found = torch.cat([batch.x for batch in run.batches.evaluate(clip, windows=experiment.data.evaluation)])
    starts = window_starts(rows, length, hop)
    whole = run.batches.packed.gather(np.arange(rows) + run.corpus.offsets[clip[0]])  # type: ignore[union-attr]
    expected = [run.chain.features(whole[None, at : at + length]) for at in starts]
    assert len(found) == len(starts) > 1
    assert torch.equal(found, torch.cat(expected))


def test_what_windows_are_refused_and_what_is_left_out_of_the_record(tones_corpus: Path) -> None:
    assert "evaluation" not in Experiment().data.to_dict()
    assert Experiment().override({"data.evaluation": "windows"}).digest() != Experiment().digest()
    with pytest.raises(ConfigError, match="number and hop_seconds both say"):
        Experiment().override({"data.evaluation": {"kind": "windows", "number": 3, "hop_seconds": 1}})
    with pytest.raises(ConfigError, match="a tempo is named twice"):
        Experiment().override({"data.evaluation.rates": [1.1, 1.1]})
    with pytest.raises(ConfigError, match=r"rates\.0: Input should be greater than or equal to 0.25, found 0$"):
        Experiment().override({"data.evaluation.rates": [0]})
    assert "rates" not in Experiment().override({"data.evaluation": "windows"}).data.evaluation.to_dict()
    with pytest.raises(
        ConfigError, match=r"rates stretch spectrograms along time, but features\.kind=waveform gives waveform"
    ):
        check_domains(
            Experiment().override(
                {"data.evaluation.rates": [0.9, 1.1], "features": "waveform", "model": "waveform_cnn"}
            )
        )
    with pytest.raises(ConfigError, match="are of whole clips"):
        prepared(tones_corpus, features__kind="mfcc_statistics")
    runtime = Runtime(Workspace(tones_corpus.parents[1]), tracker=None, device=CPU)  # type: ignore[arg-type]
    changes = {"data.corpus": "tones", "data.evaluation": "windows", "data.clip_seconds": 2.0}
    corpus = runtime.corpus(Experiment().override(changes).data)
    faults = hand_set_faults(resolve(Experiment().override(changes), corpus), corpus)
    assert any("no clip is longer" in line for line in faults)


def test_training_evaluation_and_labelling_agree_and_say_the_windows(
    tones_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "tones").symlink_to(tones_corpus)
    words = [*WORDS, "--set", "data.clip_seconds=0.5", "--set", "data.evaluation=windows"]
    words += ["--set", "data.evaluation.rates=0.8,1,1.25"]
    said = "clips longer than 0.5 s are judged by windows of 0.5 s every 0.25 s at tempos 0.8, 1 and 1.25, the mean of their probabilities"
    assert said in call(capsys, tmp_path, "train", *words, "--name", "windows")
    assert said in call(capsys, tmp_path, "evaluate", "windows")
    tracker = Tracker(Workspace(tmp_path))
    info = tracker.resolve("windows")
    assert said in tracker.download(info.run_id, "report.html").read_text(encoding="utf-8")
    runtime = Runtime(Workspace(tmp_path), tracker, CPU)
    recorded = score_run(runtime, info, "validation").predictions
    labeller = RunLabeller(
        tracker.download(info.run_id, "experiment.json").parent, CPU, recorded_experiment(tracker, info)
    )
    corpus = runtime.corpus(labeller.experiment.data)
    for row, clip in enumerate(recorded.rows[:3].tolist()):
        assert labeller.scores(corpus.waveform(clip)) == pytest.approx(
            recorded.scores[row], abs=2e-3
        )  # stored in half precision
    files = tones_corpus.parents[1] / "source" / "audio"
    assert call(capsys, tmp_path, "predict", "windows", str(files)).count(said) == 1
    opened = call(capsys, tmp_path, "evaluate", "windows", "--test")
    assert said in opened
