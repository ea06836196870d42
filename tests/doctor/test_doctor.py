"""The contract of every family, held by every part that audio_cls has; and `audio-cls doctor` on parts that break it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import audio_cls.data.splits
import audio_cls.data.views
import audio_cls.runs.conversion
import audio_cls.study.declaration  # noqa: F401 # with the three above: every family is loaded
from audio_cls.components.augment import Augmentation
from audio_cls.components.models import Model
from audio_cls.core.config import Component
from audio_cls.core.errors import UserError
from audio_cls.doctor import export
from audio_cls.doctor.checking import FAMILIES, check_part, checks_of
from audio_cls.doctor.export import SLOW
from audio_cls.runs.part_files import all_parts, part_name
from tests.components.test_models import NARROW
from tests.own_parts import command

PARTS = {
    part_name(part).replace(" ", "-"): part
    for part in dict.fromkeys(all_parts())
    if part.__module__.startswith("audio_cls.")
}
EXPORTED = [name for name, part in PARTS.items() if checks_of(part).keys() & SLOW]


def narrow(part: type[Component]) -> dict[str, object]:
    return NARROW.get(part.kind, {}) if issubclass(part, Model) else {}


@pytest.mark.parametrize("name", PARTS)
def test_every_part_holds_the_contract_of_its_family(name: str) -> None:
    part = PARTS[name]
    findings = check_part(part, keys=narrow(part), only=checks_of(part).keys() - SLOW)
    assert findings
    assert [f"{f.check}: {f.what} ({f.advice})" for f in findings if f.status == "wrong"] == []
    assert any(f.status == "ok" for f in findings)


def test_every_family_of_parts_of_ones_own_has_a_contract() -> None:
    import audio_cls

    public = [getattr(audio_cls, name) for name in audio_cls.__all__]
    families = {cls for cls in public if isinstance(cls, type) and issubclass(cls, Component) and cls.is_family()}
    assert len(families) == 10
    assert families <= FAMILIES.keys()


def test_the_guide_names_every_check() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "own-parts.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\w+) \| (`.*) \|$", guide, re.M))
    for family, checks in FAMILIES.items():
        named = set(re.findall(r"`([^`]+)`", rows[family.__name__.lower()]))
        assert checks.keys() <= named, family


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_every_model_and_front_end_can_be_exported(name: str) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    part = PARTS[name]
    findings = check_part(part, keys=narrow(part), only=SLOW)
    of_rows = name in ("features-frames", "features-pixels")  # exported runs take audio
    assert {f.check: f.status for f in findings} == {f.check: "skipped" if of_rows else "ok" for f in findings}, (
        findings
    )
    assert "onnx" in {f.check for f in findings}


BROKEN = """
import random
import numpy as np
import torch
from torch import nn
import audio_cls as ac
from audio_cls.components.losses import WeightedLoss
from audio_cls.core.payload import waveform_payload
from audio_cls.data.codecs.base import Codec, Rows
from audio_cls.data.windows import EvaluationWindows
from audio_cls.report.page import Html


class Net(nn.Module):
    def __init__(self, n, classes, change):
        super().__init__()
        self.used, self.change, self.kept = nn.Linear(n, classes), change, 0.0
        if change == "unused":
            self.unused = nn.Linear(2, 2)
        self.scale = random.random() if change == "forgets" else 1.0

    def forward(self, x):
        x, change = x.flatten(1), self.change
        if change == "drops":
            x = nn.functional.dropout(x, 0.5)
        if change == "neighbours":
            x = x - x.mean(0)
        if change == "keeps":
            self.kept = self.kept or x.mean()
            x = x - self.kept
        if change == "counts":
            self.kept += 1
            x = x + self.kept
        out = self.used(x) * self.scale
        if change == "softmax":
            return out.softmax(1)
        if change == "sigmoid":
            return out.sigmoid()
        if change == "squeezes":
            return out.squeeze()
        if change == "numpy":
            return torch.from_numpy(np.tanh(out.numpy()))
        return out.detach() if change == "detached" else out


class Own(ac.Model):
    input_domains = ("spectrogram",)

    def build(self, input_shape, n_classes):
        return Net(input_shape[0] * input_shape[1] * input_shape[2], n_classes, self.kind)


class Unused(Own, kind="unused"):
    pass


class Drops(Own, kind="drops"):
    pass


class Neighbours(Own, kind="neighbours"):
    pass


class Keeps(Own, kind="keeps"):
    pass


class Counts(Own, kind="counts"):
    pass


class Forgets(Own, kind="forgets"):
    pass


class Softmax(Own, kind="softmax"):
    pass


class Sigmoid(Own, kind="sigmoid"):
    pass


class Squeezes(Own, kind="squeezes"):
    pass


class Numpy(Own, kind="numpy"):
    pass


class Detached(Own, kind="detached"):
    pass


class Views(ac.Model, kind="views"):
    input_domains = ("spectrogram",)

    def build(self, input_shape, n_classes):
        class View(nn.Module):
            def __init__(self):
                super().__init__()
                self.convolution = nn.Conv2d(input_shape[0], 4, 3, padding=1)
                self.output = nn.Linear(4 * input_shape[1] * input_shape[2], n_classes)

            def forward(self, x):
                return self.output(self.convolution(x).view(x.shape[0], -1))

        return View()


class Tiny(ac.Model, kind="tiny_clips"):
    input_domains = ("spectrogram",)

    def build(self, input_shape, n_classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[1] * input_shape[2] // (input_shape[2] // 2), n_classes))


class Nowhere(ac.Model, kind="nowhere"):
    def build(self, input_shape, n_classes):
        return nn.Linear(input_shape[0], n_classes)


class Misspelt(ac.Model, kind="misspelt"):
    input_domains = ("spectogram",)

    def build(self, input_shape, n_classes):
        return nn.Flatten()


class Upward(ac.Loss, kind="upward"):
    def build(self, class_counts, n_clips, task):
        return lambda logits, targets: (logits * targets).mean()


class ByClip(ac.Loss, kind="by_clip"):
    def build(self, class_counts, n_clips, task):
        return nn.BCEWithLogitsLoss(reduction="none")


class Unweighted(WeightedLoss, kind="unweighted"):
    def build(self, class_counts, n_clips, task):
        return nn.BCEWithLogitsLoss()


class Noisy(ac.Loss, kind="noisy"):
    def build(self, class_counts, n_clips, task):
        return lambda logits, targets: nn.functional.binary_cross_entropy_with_logits(logits, targets) + random.random() / 9


class Logs(ac.Loss, kind="logs"):
    def build(self, class_counts, n_clips, task):
        return lambda logits, targets: -((logits.sigmoid() + 1e-45).log() * targets + (1 - logits.sigmoid() + 1e-45).log() * (1 - targets)).mean()


class OneTask(ac.Loss, kind="one_task"):
    tasks = ("multilabel",)

    def build(self, class_counts, n_clips, task):
        return nn.BCEWithLogitsLoss()

    def initial_bias(self, class_counts, n_clips, task):
        return class_counts[:2]


class Louder(ac.Augmentation, kind="louder"):
    domain = "waveform"

    def build(self, sample_rate, hop_length):
        return lambda x, generator: x.mul_(1 + torch.rand(1))


class Shorter(ac.Augmentation, kind="shorter"):
    domain = "spectrogram"

    def build(self, sample_rate, hop_length):
        return lambda x, generator: x[..., :-1]


class Scaled(ac.Augmentation, kind="scaled"):
    domain = "waveform"

    def build(self, sample_rate, hop_length):
        return lambda x, generator: x / x.abs().max() * torch.rand(1, generator=generator)


class Idle(ac.Augmentation, kind="idle"):
    domain = "spectrogram"

    def build(self, sample_rate, hop_length):
        return lambda x, generator: x.clone()


class Spectrum(ac.Features, kind="spectrum"):
    def build(self, sample_rate):
        return Extractor()


class Extractor(ac.FeatureExtractor):
    def __init__(self):
        super().__init__(128, n_bins=129)
        self.gain = nn.Parameter(torch.ones(129, 1))
        self.register_buffer("window", torch.hann_window(256), persistent=False)
        self.reach = 10

    def forward(self, x):
        power = torch.stft(x, 256, 128, window=self.window, return_complex=True).abs()
        return (self.gain * power).log().unsqueeze(1) - x.mean()


class OffByOne(ac.Features, kind="off_by_one"):
    def build(self, sample_rate):
        extractor = Extractor()
        extractor.n_bins = 128
        return extractor


class Restless(ac.Sampling, kind="restless"):
    def build(self, targets):
        return lambda seed, epoch: np.random.permutation(len(targets))


class Beyond(ac.Sampling, kind="beyond"):
    def build(self, targets):
        return lambda seed, epoch: np.arange(len(targets)) + 1


class Fixed(ac.Optimizer, kind="fixed"):
    def build(self, parameters):
        return torch.optim.SGD([p for g in parameters for p in (g["params"] if isinstance(g, dict) else [g])], lr=0.01)


class Forgetful(ac.Optimizer, kind="forgetful"):
    def build(self, parameters):
        class Momentum(torch.optim.SGD):
            def state_dict(self):
                return {**super().state_dict(), "state": {}}

        return Momentum(parameters, lr=self.lr, momentum=0.9)


class Endless(ac.Schedule, kind="endless"):
    def shape(self, epoch, epochs, history):
        return 1 / (epochs - epoch) if epoch < epochs else float("inf")


class Below(ac.Schedule, kind="below"):
    def shape(self, epoch, epochs, history):
        return 1 - 2 * epoch / epochs


class Doubling(ac.Schedule, kind="doubling"):
    power: float = 1.0

    def model_post_init(self, _):
        object.__setattr__(self, "power", 2 * self.power)

    def shape(self, epoch, epochs, history):
        return 1.0


class Cost(ac.Metric, kind="cost"):
    def score(self, scores, targets, called):
        return float((called != targets).sum())


class Refusing(ac.Metric, kind="refusing"):
    def score(self, scores, targets, called):
        raise ac.UserError("not today")


class Proud(ac.Metric, kind="proud"):
    of_training = True

    def score(self, scores, targets, called):
        return 1.0


class First(ac.Metric, kind="first"):
    def score(self, scores, targets, called):
        return float((called == targets)[0].mean())


class Listed(ac.Figure, kind="listed"):
    def build(self, predictions, history, metric):
        return [1, 2]


class LastEpoch(ac.Figure, kind="last_epoch"):
    def build(self, predictions, history, metric):
        return Html(f"{history[-1]['val/loss']:.3f}")


class Greedy(ac.Source, kind="greedy"):
    def detect(self, path):
        return True

    def read(self, path):
        return [p for p in path.iterdir()][0]


class Raw(Codec, kind="raw"):
    reads_audio = True

    def payload(self, sample_rate):
        return waveform_payload(16000)

    def open(self, path):
        self_path = path

        class Reader:
            def read(self, part):
                return Rows(np.fromfile(self_path, np.int16), {})

            def close(self):
                pass

        return Reader()


class Overhanging(EvaluationWindows, kind="overhanging"):
    def starts(self, rows, length, rows_per_second):
        return np.arange(0, rows, length)

    def describe(self, clip_seconds):
        return ""


class Needy(ac.Loss, kind="needy"):
    margin: float

    def build(self, class_counts, n_clips, task):
        return nn.CrossEntropyLoss()


class Fine(ac.Loss, kind="fine"):
    "What is as it should be."

    tasks = ("multiclass",)

    def build(self, class_counts, n_clips, task):
        self.check_task(task)
        return nn.CrossEntropyLoss()
"""

SAID = {
    "model unused, gradients": "the parameter unused.weight gets no gradient",
    "model drops, determinism": "two evaluations of one batch differ: it draws random numbers",
    "model neighbours, clips alone": "depend on the other clips of its batch",
    "model keeps, determinism": "its answer to a batch depends on the batch before",
    "model counts, determinism": "two evaluations of one batch differ, with one random seed too",
    "model forgets, checkpoint": "saved and loaded, it gives other logits",
    "model softmax, logits": "forward gives probabilities, which sum to 1 in each clip (a softmax), not logits",
    "model sigmoid, logits": "forward gives values between 0 and 1 only (a sigmoid), not logits",
    "model squeezes, logits": "a batch of one clip keeps its first axis",
    "model numpy, gradients": "compute with torch alone: numpy works on the CPU only",
    "model detached, gradients": "no gradient reaches any parameter",
    "model views, training": "use flatten or reshape instead of view",
    "model tiny_clips, logits": "compute the size of the layer from the input_shape",
    "model tiny_clips, refusal of tiny clips": "build raises ZeroDivisionError for clips of shape (1, 1, 1)",
    "model nowhere, logits": "input_domains is missing",
    "model misspelt, logits": "Did you mean 'spectrogram'?",
    "loss upward, direction": "is a minus sign missing?",
    "loss by_clip, value": "it gives a tensor (6, 4) for logits (6, 4), not one number",
    "loss unweighted, shared settings": "class_weights=inverse and label_smoothing=0.2 change nothing",
    "loss noisy, determinism": "two calls give two values",
    "loss logs, gradients": "the gradient is not finite for logits of size 50",
    "loss one_task, refusal of tasks": "it is built for a multiclass task, which tasks does not name",
    "loss one_task, initial bias": "initial_bias gives (2,)",
    "augmentation louder, input kept": "it changes the batch that it was given",
    "augmentation louder, randomness": "it draws from PyTorch's global generator",
    "augmentation shorter, shape": "(4, 1, 40, 50) torch.float32 becomes (4, 1, 40, 49)",
    "augmentation scaled, silence": "a silent batch becomes not finite",
    "augmentation scaled, clips alone": "what becomes of a clip depends on the other clips",
    "augmentation idle, effect": "20 draws left the batch as it was",
    "features spectrum, values": "features of silent clips are not finite",
    "features spectrum, determinism": "features of a clip depend on the other clips of its batch",
    "features spectrum, no training": "its parameter gain would be trained",
    "features spectrum, reach": "frames depend on samples further away than reach=10",
    "features off_by_one, shape": "let n_bins and frames(n_samples) say what forward gives",
    "sampling restless, epochs": "one seed and epoch give two orders",
    "sampling beyond, rows": "return rows of the training clips",
    "optimizer fixed, steps": "its groups have the learning rates [0.01], not lr=0.001",
    "optimizer fixed, groups": "two groups of parameters become 1",
    "optimizer forgetful, resumption": "resumed from its state_dict it takes other steps",
    "schedule endless, factors": "factor gives inf at epoch 12 of 12",
    "schedule below, factors": "return a finite number, 0 or more",
    "schedule doubling, settings": "read again from a record, its settings are others: power",
    "metric cost, value": "outside its range of 0 to 1",
    "metric cost, direction": "right predictions score 0",
    "metric refusing, value": "it refuses ordinary predictions (multiclass): not today",
    "metric proud, value": "of_training is set, and it gives 1.0 from predictions alone",
    "metric first, few clips": "it raises IndexError for no clips",
    "figure listed, drawing": "build gives a list",
    "figure last_epoch, little data": "with no epoch it raises IndexError",
    "source greedy, detection": "detect takes a folder without any audio",
    "source greedy, reading": "read raises IndexError for an empty folder",
    "codec raw, payload": "for a sample rate of 8000 Hz",
    "codec raw, bad files": "a file that is missing raises FileNotFoundError",
    "evaluationwindows overhanging, starts": "windows of 30 rows in a clip of 100 start at 0 to 90, where 0 to 70 fit",
    "evaluationwindows overhanging, words": "describe gives ''",
    "loss needy, defaults": "margin",
}


@pytest.mark.parametrize("kind", ["choose", "background"])
def test_augmentations_that_need_others_are_given_them(kind: str) -> None:
    found = check_part(Augmentation.members()[kind])
    assert {(finding.check, finding.status) for finding in found} >= {("effect", "ok"), ("randomness", "ok")}
    assert not [finding for finding in found if finding.status != "ok"]


@pytest.mark.slow
def test_doctor_says_what_is_wrong_with_parts_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(BROKEN, encoding="utf-8")
    shown = command(capsys, tmp_path, "doctor", str(file), "--quick", code=2)
    told = {where: shown.partition(f"\n{where}: ")[2].partition("\n\n")[0] for where in SAID}
    assert {where: told[where] for where, words in SAID.items() if words not in told[where]} == {}, shown
    assert all("what to do: " in words and "mine.py:" in words for words in told.values())
    assert "\nloss fine, " not in shown
    assert "45 parts: " in shown
    assert "Traceback" not in shown
    tried = {check for name in PARTS for check in checks_of(PARTS[name])} - SLOW
    assert tried == {where.partition(", ")[2] for where in SAID} - {"defaults"}, (
        "a check without a part that it refuses"
    )
    good = BROKEN.split("class Net")[0] + BROKEN[BROKEN.index("class Fine") :]
    (tmp_path / "good.py").write_text(good, encoding="utf-8")
    assert "1 part: all is well" in command(capsys, tmp_path, "doctor", str(tmp_path / "good.py"))
    (tmp_path / "none.py").write_text("x = 1\n", encoding="utf-8")
    assert "no parts here" in command(capsys, tmp_path, "doctor", str(tmp_path / "none.py"), code=2)


NOT_EXPORTED = """
import torch
from torch import nn
import audio_cls as ac


class Net(nn.Module):
    def __init__(self, n, classes, change):
        super().__init__()
        self.layer, self.change = nn.Linear(n, classes), change

    def forward(self, x):
        x = x.flatten(1)
        if self.change == "branch":
            return self.layer(x) if (x[0] > -100).all() else self.layer(-x)
        if self.change == "loop":
            return torch.stack([self.layer(row) for row in x])
        return self.layer(x) + torch.linalg.eigvalsh(x[:, :9].reshape(-1, 3, 3)).sum()[None, None] * 0


class Own(ac.Model):
    input_domains = ("embedding",)

    def build(self, input_shape, n_classes):
        return Net(input_shape[0], n_classes, self.kind)


class Branch(Own, kind="branch"):
    pass


class Loop(Own, kind="loop"):
    pass


class Eigenvalues(Own, kind="eigenvalues"):
    pass


class Other(ac.Features, kind="other_twin"):
    def build(self, sample_rate):
        from audio_cls.components.features import LogMel

        extractor = LogMel(n_fft=256, hop_length=64, n_mels=16).build(sample_rate)
        bands = extractor.forward
        extractor.forward = lambda waveform: bands(waveform).flip(2)
        return extractor
"""


@pytest.mark.slow
def test_doctor_says_what_keeps_parts_from_being_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    (tmp_path / "mine.py").write_text(NOT_EXPORTED, encoding="utf-8")
    shown = command(capsys, tmp_path, "doctor", str(tmp_path / "mine.py"), code=2)
    assert "torch.ops" not in shown  # PyTorch's own pages of explanation
    told = shown.partition("model branch, export: ")[2].partition("\n\n")[0]
    assert told.startswith("torch.export cannot export it")
    place = int(told.rpartition("mine.py:")[2])
    assert "if (x[0] > -100).all()" in NOT_EXPORTED.splitlines()[place - 1]
    assert "model loop, export: torch.export fixes the size of the batch, here 3" in shown
    assert "model eigenvalues, onnx: it cannot be written as ONNX" in shown
    assert "features other_twin, onnx: the front end for exported models (exportable) gives other features" in shown

    def absent(name: str) -> None:
        raise UserError(f"the package {name} is needed and cannot be loaded")

    monkeypatch.setattr(export, "load_extra", absent)
    (finding,) = check_part(Model.members()["mlp"], only={"onnx"})
    assert (finding.status, finding.what) == ("skipped", "the package onnx is needed and cannot be loaded")


@pytest.mark.slow
def test_the_guide_s_examples_hold_their_contracts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guide = Path(__file__).parents[2] / "docs" / "own-parts.md"
    examples = re.findall(r"```python\n# (\w+\.py)\n((?:(?!```).)*)```", guide.read_text(encoding="utf-8"), re.S)
    assert len(examples) == 10
    for name, text in examples:
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert ": all is well" in command(capsys, tmp_path, "doctor", *(str(tmp_path / name) for name, _ in examples))
