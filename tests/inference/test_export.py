"""Exported runs: the program and the ONNX model give the run's probabilities for any length; the folder is whole, checked and not code."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio_cls.cli import main
from audio_cls.components.features import Features, Normaliser
from audio_cls.components.models import Model
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.data.windows import WindowScores
from audio_cls.experiment import Classifier, Experiment, evaluation_views, feature_shape
from audio_cls.inference import exported as exported_module
from audio_cls.inference.export import conversion, folder
from audio_cls.inference.export.program import ClipProgram
from audio_cls.inference.exported import ExportedLabeller, refuse_pickle
from audio_cls.inference.opening import open_labellers
from audio_cls.tracking import Tracker
from audio_cls.training.batches import fit_length
from audio_cls.training.predictions import probabilities
from tests.commands import call
from tests.own_parts import train_first

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CPU = torch.device("cpu")
RATE, N_CLASSES = 8000, 5
LENGTHS = (8000, 3001, 20011, 57, 8001)
EVALUATIONS: list[dict[str, Any]] = [
    {},
    {"data.evaluation": "windows"},
    {"data.evaluation": "windows", "data.evaluation.number": 4},
    {"data.evaluation": "windows", "data.evaluation.hop_seconds": 0.3, "data.evaluation.combine": "max"},
    {"data.evaluation": "windows", "data.evaluation.number": 3, "data.evaluation.combine": "noisy_or"},
]
TEMPOS: dict[str, Any] = {**EVALUATIONS[2], "data.evaluation.rates": (0.8, 1.0, 1.3)}
FEATURES: dict[str, dict[str, Any]] = {
    "log_mel": {"features.kind": "log_mel", "features.n_mels": 16},
    "log_mel, top_db": {"features.kind": "log_mel", "features.n_mels": 16, "features.top_db": 40.0},
    "log_mel, short window": {
        "features.kind": "log_mel",
        "features.n_mels": 16,
        "features.n_fft": 500,
        "features.win_length": 300,
    },
    "mfcc": {"features.kind": "mfcc"},
    "mfcc_statistics": {"features.kind": "mfcc_statistics", "model.kind": "mlp"},
    "waveform": {"features.kind": "waveform", "model.kind": "waveform_cnn"},
}
NARROW: dict[str, dict[str, Any]] = {
    "mobilenet_v2": {"model.width_multiplier": 0.25},
    "transformer": {"model.feedforward": 64},
}
OF_AUDIO = {"spectrogram": "log_mel", "embedding": "mfcc_statistics", "waveform": "waveform"}


class Built:
    """A classifier with drawn weights, and what the whole clip's features say of a waveform: the reference."""

    def __init__(self, changes: dict[str, Any], task: str = "multiclass") -> None:
        self.experiment = Experiment().override({"data.sample_rate": RATE, "data.clip_seconds": 1.0, **changes})
        self.task, self.framewise = task, self.experiment.features.framewise
        self.features = self.experiment.features.build(RATE)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.experiment.model.build(feature_shape(self.experiment, self.features), N_CLASSES)
        normaliser = Normaliser.build(self.experiment.features, self.features.n_bins)
        if self.experiment.features.output_domain != "waveform":
            normaliser.mean.add_(-20)
            normaliser.std.mul_(15)
        self.classifier = _Loud(Classifier(normaliser, model, views=evaluation_views(self.experiment, task))).eval()
        self.halves = self.framewise and self.experiment.features.output_domain != "waveform"

    def program(self, fft: bool) -> ClipProgram:
        features = self.features.exportable(fft=fft)
        assert features is not None
        data = self.experiment.data
        return ClipProgram(
            features, self.classifier, data, framewise=self.framewise, halves=self.halves, task=self.task
        ).eval()

    @torch.no_grad()
    def scores(self, waveform: np.ndarray) -> np.ndarray:
        data = self.experiment.data
        if self.framewise:
            waveform = fit_length(waveform, data.clip_samples, data.pad)
        x = self.features(torch.from_numpy(waveform)[None])
        if not self.framewise:
            return probabilities(self.classifier(x), self.task)[0]
        x = x.half().float() if self.halves else x
        frames = self.features.frames(data.clip_samples)
        starts = data.evaluation.starts(x.shape[-1], frames, data.rate / self.features.hop_length)
        combined = WindowScores(1, N_CLASSES, self.task, data.evaluation.combined_by or "mean")
        windows = torch.cat([x[..., start : start + frames] for start in starts.tolist()])
        combined.add(np.zeros(len(starts), dtype=np.int64), self.classifier(windows).numpy())
        return probabilities(torch.from_numpy(combined.logits()), self.task)[0]


class _Loud(torch.nn.Module):
    """Logits of drawn weights hardly differ: larger ones tell windows apart."""

    def __init__(self, classifier: torch.nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.classifier(x)
        return 20 * (logits - logits.mean(1, keepdim=True))


def clips() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [
        (random.normal(0, 0.2, n) * np.abs(np.sin(np.arange(n) / 3000))).astype(np.float32).round(4) for n in LENGTHS
    ]


@pytest.mark.parametrize("evaluation", EVALUATIONS, ids=lambda e: "-".join(map(str, e.values())) or "centre")
@pytest.mark.parametrize("features", FEATURES)
def test_the_program_judges_clips_of_any_length_as_evaluation_does(features: str, evaluation: dict[str, Any]) -> None:
    if features == "mfcc_statistics" and evaluation:
        return  # refused by the experiment: it has no windows
    for pad, task, fft in (("zero", "multiclass", True), ("end", "multilabel", False), ("tile", "multiclass", False)):
        built = Built({**FEATURES[features], **evaluation, "data.pad": pad}, task)
        for program in [built.program(fft)]:
            for clip in clips():
                with torch.no_grad():
                    found = program(torch.from_numpy(np.stack([clip, clip])))
                np.testing.assert_allclose(found[1].numpy(), built.scores(clip), atol=1e-4)


def check_files(built: Built, tmp_path: Path) -> None:
    program = conversion.capture(built.program(fft=True), RATE, "it")
    conversion.write_program(program, tmp_path / "model.pt2")
    conversion.write_onnx(conversion.capture(built.program(fft=False), RATE, "it"), tmp_path / "model.onnx", {}, "it")
    run_program = exported_module._program(tmp_path / "model.pt2", CPU)
    run_onnx = exported_module.onnx_session(tmp_path / "model.onnx")
    for clip in clips():
        for batch in (1, 3):
            for run in (run_program, run_onnx):
                np.testing.assert_allclose(run(np.stack([clip] * batch))[-1], built.scores(clip), atol=1e-4)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_the_program_judges_at_the_tempos_of_evaluation(task: str) -> None:
    built = Built({**FEATURES["log_mel"], **TEMPOS}, task)
    plain = Built({**FEATURES["log_mel"], **EVALUATIONS[2]}, task)
    clip = clips()[0]
    with torch.no_grad():
        found = built.program(True)(torch.from_numpy(clip)[None])[0].numpy()
    np.testing.assert_allclose(found, built.scores(clip), atol=1e-4)
    assert np.abs(found - plain.scores(clip)).max() > 1e-3


@pytest.mark.slow
def test_files_judge_at_the_tempos_of_evaluation(tmp_path: Path) -> None:
    check_files(Built({**FEATURES["log_mel"], **TEMPOS}), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("features", "evaluation"), [("log_mel", 1), ("log_mel, top_db", 2)])
def test_files_give_the_same(features: str, evaluation: int, tmp_path: Path) -> None:
    check_files(Built({**FEATURES[features], **EVALUATIONS[evaluation]}), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["deep_cnn", "frame_mlp", "mobilenet_v2", "rnn", "transformer", "waveform_cnn"])
def test_models_are_exported_with_their_features(kind: str, tmp_path: Path) -> None:
    """One of each make: tests/doctor exports every registered model by itself, and every kind of features."""
    domains = [d for d in Model.members()[kind].input_domains if d in OF_AUDIO]  # type: ignore[attr-defined]
    for domain in domains:
        changes = {"features.kind": OF_AUDIO[domain], "model.kind": kind, **NARROW.get(kind, {})}
        if domain == "spectrogram":
            changes["features.hop_length"] = 64
        check_files(Built(changes), tmp_path)


def test_every_feature_of_audio_has_a_twin() -> None:
    for kind, member in Features.members().items():
        if member.input_domain == "waveform":
            features = member()
            for fft in (True, False):
                assert features.build(RATE).exportable(fft=fft) is not None, kind


# -- a folder ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workspace(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_first(tmp_path_factory.mktemp("export"), tones_corpus)


@pytest.fixture(scope="module")
def made(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported folder, with the model of 8 bits."""
    place = tmp_path_factory.mktemp("exported") / "model of tones"
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["--workspace", str(workspace), "export", "first", "--to", str(place), "--int8"]) == 0
    return place


@pytest.fixture
def wav(tones_corpus: Path) -> Path:
    return tones_corpus.parents[1] / "source" / "audio" / "hum0.wav"


@pytest.mark.slow
def test_a_folder_holds_models_that_agree_a_card_and_a_script(
    made: Path, workspace: Path, wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {p.name for p in made.iterdir()}
    assert names == {"classes.json", "model.pt2", "model.onnx", "model.int8.onnx", "README.md", "run_onnx.py"}
    assert not [p for p in made.parent.iterdir() if p != made], "nothing is left beside it"
    monkeypatch.setattr("audio_cls.core.device._cpu_has_bf16", lambda: False)
    of_run, of_folder, of_onnx = (
        labeller.predict(wav)
        for labeller in open_labellers(
            ["first", str(made), str(made / "model.onnx")], Tracker(Workspace(workspace)), "cpu"
        )
    )
    assert of_folder == pytest.approx(of_run, abs=1e-4)
    assert of_onnx == pytest.approx(of_run, abs=1e-4)
    script = subprocess.run(
        [sys.executable, str(made / "run_onnx.py"), str(wav)], capture_output=True, text=True, check=True
    )
    first = script.stdout.split()
    assert first[1] == max(of_run, key=lambda k: of_run[k])
    assert float(first[0]) == pytest.approx(max(of_run.values()), abs=2e-4)
    card = (made / "README.md").read_text(encoding="utf-8")
    for words in ("95 % interval", "majority baseline", "largest difference", "8 bits", "Licence", "## Limits"):
        assert words in card
    assert str(workspace) not in card
    here = str(Path(folder.__file__).parent).encode()
    with zipfile.ZipFile(made / "model.pt2") as archive:
        assert not any(here in archive.read(name) for name in archive.namelist())
    for name in ("model.onnx", "model.int8.onnx"):
        assert here not in (made / name).read_bytes()


@pytest.mark.slow
def test_a_damaged_folder_is_named_and_nothing_is_unpickled(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    with open(copy / "model.pt2", "r+b") as file:
        file.seek(200)
        file.write(b"\0\0\0\0")
    with pytest.raises(UserError, match="damaged or replaced"):
        ExportedLabeller(copy, CPU)
    (copy / "classes.json").write_text('{"format": "audio_cls export 1"}')
    with pytest.raises(UserError, match=r"classes\.json: damaged"):
        ExportedLabeller(copy, CPU)
    with pytest.raises(UserError, match="not among the exported models"):
        ExportedLabeller(made / "other.onnx", CPU)
    refuse_pickle(made / "model.pt2")
    linear = torch.nn.Linear(2, 2)
    torch.export.save(torch.export.export(linear, (torch.zeros(1, 2),)), tmp_path / "pickled.pt2")
    with pytest.raises(UserError, match="unpickled"):
        refuse_pickle(tmp_path / "pickled.pt2")
    with zipfile.ZipFile(tmp_path / "odd.pt2", "w") as archive:
        archive.writestr("odd/data/weights/model_weights_config.json", '{"config": {"w": {"use_pickle": true}}}')
    with pytest.raises(UserError, match="unpickled"):
        refuse_pickle(tmp_path / "odd.pt2")


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "mine"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    assert "holds other files" in call(capsys, workspace, "export", "first", "--to", str(other), code=2)
    assert [p.name for p in other.iterdir()] == ["notes.txt"]

    def write_nothing(labeller: Any, place: Path) -> None:
        for name in ("model.pt2", "model.onnx"):
            (place / name).write_bytes(b"x")

    def differs(*_: Any) -> float:
        return 0.25

    monkeypatch.setattr(folder, "write_models", write_nothing)
    monkeypatch.setattr(folder, "_open", lambda path: None)
    monkeypatch.setattr(folder, "_difference", differs)
    shown = call(capsys, workspace, "export", "first", "--to", str(tmp_path / "new"), code=2)
    assert "model.pt2 differs from the run by 0.25" in shown
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine"]


@pytest.mark.parametrize("when", ["while it is written", "while it is put in place"])
def test_an_interrupted_export_leaves_the_earlier_one_and_nothing_else(
    tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"
    place.mkdir()
    (place / "earlier").touch()
    rename = Path.rename

    def interrupt(self: Path, target: Path) -> Path:
        if target == place and (self / "new").exists():
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupt)

    def write() -> None:
        with folder._whole(place) as scratch:
            (scratch / "new").touch()
            if when == "while it is written":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in place.iterdir()] == ["earlier"]
    monkeypatch.undo()
    with folder._whole(place) as scratch:
        (scratch / "new").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in place.iterdir()] == ["new"]
