"""Files written for the module names of version 0.1 still load."""

from __future__ import annotations

from pathlib import Path

from audio_cls.components.losses import Loss
from audio_cls.components.models import Model
from audio_cls.core import former_names
from audio_cls.core.loading import load_file


def test_a_file_finds_the_parts_under_their_former_names(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from audio_cls.models import Model\nfrom audio_cls.models.base import Model as Same\n"
        "from audio_cls.losses import Loss\nimport audio_cls.config\n"
    )
    module = load_file(file)
    assert module.Model is Model
    assert module.Same is Model
    assert module.Loss is Loss


def test_every_former_name_leads_to_a_module_that_keeps_its_own_name() -> None:
    import importlib

    former_names.install()
    for former, present in former_names.FORMER.items():
        module = importlib.import_module(former)
        assert module is importlib.import_module(present)
        assert module.__name__ == present
        assert module.__spec__ is not None
        assert module.__spec__.name == present
