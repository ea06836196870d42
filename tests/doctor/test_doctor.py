"""The contract of every family, held by every part that audio_cls has; and `audio-cls doctor` on parts that break it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from audio_cls.components.augment import Augmentation
from audio_cls.core.config import Component
from audio_cls.doctor.checking import FAMILIES, check_part, checks_of
from audio_cls.doctor.models import SLOW
from tests.components.test_models import NARROW
from tests.own_parts import command

PARTS = [
    pytest.param(part, id=f"{family.__name__.lower()}-{kind}")
    for family in FAMILIES
    for kind, part in sorted(family.members().items())
    if part.__module__.startswith("audio_cls.")
]
MODELS = [part for part in PARTS if str(part.id).startswith("model-")]


def narrow(part: type[Component]) -> dict[str, object]:
    return NARROW.get(part.kind, {}) if checks_of(part).keys() >= SLOW else {}


@pytest.mark.parametrize("part", PARTS)
def test_every_part_holds_the_contract_of_its_family(part: type[Component]) -> None:
    findings = check_part(part, settings=narrow(part), only=checks_of(part).keys() - SLOW)
    assert findings
    assert [f"{f.check}: {f.what} ({f.advice})" for f in findings if f.status == "wrong"] == []


@pytest.mark.slow
@pytest.mark.parametrize("part", MODELS)
def test_every_model_can_be_exported(part: type[Component]) -> None:
    findings = check_part(part, settings=narrow(part), only=SLOW)
    assert [(f.status, f.what) for f in findings] == [("ok", "")]


BROKEN = '''
import random
import numpy as np
import torch
from torch import nn
import audio_cls as ac


class Net(nn.Module):
    def __init__(self, n, classes):
        super().__init__()
        self.used, self.unused, self.scale = nn.Linear(n, classes), nn.Linear(2, 2), random.random()

    def forward(self, x):
        x = nn.functional.dropout(x.flatten(1), 0.5)
        return self.used(x - x.mean(0)) * self.scale


class Leaky(ac.Model, kind="leaky"):
    input_domains = ("spectrogram",)

    def build(self, input_shape, n_classes):
        return Net(input_shape[0] * input_shape[1] * input_shape[2], n_classes)


class Nowhere(ac.Model, kind="nowhere"):
    def build(self, input_shape, n_classes):
        return nn.Linear(input_shape[0], n_classes)


class Upward(ac.Loss, kind="upward"):
    def build(self, class_counts, n_clips, task):
        return lambda logits, targets: (logits * targets).mean()


class Louder(ac.Augmentation, kind="louder"):
    domain = "waveform"

    def build(self, sample_rate, hop_length):
        return lambda x, generator: x.mul_(1 + torch.rand(1))


class Shorter(ac.Augmentation, kind="shorter"):
    domain = "spectrogram"

    def build(self, sample_rate, hop_length):
        return lambda x, generator: x[..., :-1]


class Restless(ac.Sampling, kind="restless"):
    def build(self, targets):
        return lambda seed, epoch: np.random.permutation(len(targets))


class Fixed(ac.Optimizer, kind="fixed"):
    def build(self, parameters):
        return torch.optim.SGD([p for g in parameters for p in (g["params"] if isinstance(g, dict) else [g])], lr=0.01)


class Endless(ac.Schedule, kind="endless"):
    def shape(self, epoch, epochs, history):
        return 1 / (epochs - epoch) if epoch < epochs else float("inf")


class Cost(ac.Metric, kind="cost"):
    def score(self, scores, targets, called):
        return float((called != targets).sum())


class Greedy(ac.Source, kind="greedy"):
    def detect(self, path):
        return True

    def read(self, path):
        return [p for p in path.iterdir()][0]


class Needy(ac.Loss, kind="needy"):
    margin: float

    def build(self, class_counts, n_clips, task):
        return nn.CrossEntropyLoss()


class Fine(ac.Loss, kind="fine"):
    """What is as it should be."""

    tasks = ("multiclass",)

    def build(self, class_counts, n_clips, task):
        self.check_task(task)
        return nn.CrossEntropyLoss()
'''

SAID = {
    "model leaky, gradients": "the parameter unused.weight gets no gradient",
    "model leaky, determinism": "two evaluations of one batch differ",
    "model leaky, clips alone": "depend on the other clips of its batch",
    "model leaky, checkpoint": "saved and loaded, it gives other logits",
    "model nowhere, logits": "input_domains is missing",
    "loss upward, direction": "is a minus sign missing?",
    "augmentation louder, input kept": "it changes the batch that it was given",
    "augmentation louder, randomness": "it draws from PyTorch's global generator",
    "augmentation shorter, shape": "(4, 1, 40, 50) torch.float32 becomes (4, 1, 40, 49)",
    "sampling restless, epochs": "one seed and epoch give two orders",
    "optimizer fixed, steps": "its groups have the learning rates [0.01], not lr=0.001",
    "optimizer fixed, groups": "two groups of parameters become 1",
    "schedule endless, factors": "factor gives inf at epoch 12 of 12",
    "metric cost, value": "outside its range of 0 to 1",
    "metric cost, direction": "right predictions score 0",
    "source greedy, detection": "detect takes a folder without any audio",
    "source greedy, reading": "read raises IndexError for an empty folder",
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
    for where, words in SAID.items():
        told = shown.partition(f"\n{where}: ")[2].partition("\n\n")[0]
        assert words in told, f"{where}:\n{shown}"
        assert "what to do: " in told
        assert "mine.py:" in told
    assert "\nloss fine, " not in shown
    assert "12 parts: " in shown
    assert "Traceback" not in shown
    (tmp_path / "good.py").write_text(
        BROKEN.split("class Net")[0] + BROKEN[BROKEN.index("class Fine") :], encoding="utf-8"
    )
    assert "1 part: all is well" in command(capsys, tmp_path, "doctor", str(tmp_path / "good.py"))
    (tmp_path / "none.py").write_text("x = 1\n", encoding="utf-8")
    assert "no parts here" in command(capsys, tmp_path, "doctor", str(tmp_path / "none.py"), code=2)


@pytest.mark.slow
def test_the_guide_s_examples_hold_their_contracts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guide = Path(__file__).parents[2] / "docs" / "own-parts.md"
    examples = re.findall(r"```python\n# (\w+\.py)\n((?:(?!```).)*)```", guide.read_text(encoding="utf-8"), re.S)
    assert len(examples) == 10
    for name, text in examples:
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert ": all is well" in command(capsys, tmp_path, "doctor", *(str(tmp_path / name) for name, _ in examples))
