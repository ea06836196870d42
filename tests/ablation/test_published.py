"""Figures of others: what they may be, that they stand beside ours and change neither a statistic nor which suite it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from audio_cls.ablation.declaration import Ablation, identity_changes
from audio_cls.ablation.suite import open_suite
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.metrics.published import Published, published_lines
from audio_cls.queue.options import QueueOptions
from audio_cls.queue.status import PUBLISHED, study_status
from audio_cls.queue.storage import open_storage, open_study
from audio_cls.tracking import Tracker
from tests.ablation.test_ablation import ablation
from tests.cells import run_suite_here
from tests.commands import call
from tests.study_fakes import declare

PLAIN = Published("accuracy", 0.662, arm="plain", n_clips=837, on="fold 10", source="a notebook", chosen="by loss")
LINE = (
    "published, in no statistic (on fold 10, 837 clips; chosen by loss; a notebook): plain: accuracy 66.2 [62.9, 69.3]"
)


def test_the_interval_of_an_accuracy_is_wilsons() -> None:
    low, high = PLAIN.interval or (0.0, 0.0)
    p, n, z = 554 / 837, 837, 1.959964
    centre, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert (low, high) == pytest.approx(
        ((centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)), abs=1e-6
    )
    assert published_lines([PLAIN]) == [LINE]
    beside = Published("macro_f1", 0.58, arm="plain", n_clips=837, on="fold 10", source="a notebook", chosen="by loss")
    assert published_lines([PLAIN, beside, Published("map", 0.4, label="theirs")]) == [
        f"{LINE}, macro_f1 58.0",
        "published, in no statistic: theirs: map 40.0",
    ]
    assert Published("map", 0.443, n_clips=10231).interval is None
    assert Published("accuracy", 0.5).interval is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([Published("accuracy", 0.5, arm="plane")], "arm='plane' is none of its arms.*Did you mean 'plain'"),
        ([{"metric": "accuracy", "value": 0.5, "clip": 3}], "unknown key 'clip'.*on"),
        ([{"value": 0.5}], "metric is missing"),
        ([0.5], r"expected Published\(metric, value"),
        (PLAIN, "expected a list"),
    ],
)
def test_what_is_no_published_figure_is_refused(given: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ablation(published=given)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"metric": "acuracy", "value": 0.5}, "Did you mean 'accuracy'"),
        ({"metric": "accuracy", "value": 66.2}, "a share from 0 to 1"),
        ({"metric": "loss", "value": float("nan")}, "expected a number"),
        ({"metric": "accuracy", "value": 0.5, "n_clips": 0}, "n_clips=0"),
    ],
)
def test_a_figure_that_its_metric_cannot_have_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Published(**values)


def test_published_figures_make_no_other_suite_or_study() -> None:
    assert identity_changes(ablation().identity(), ablation(published=[PLAIN])) == []
    assert declare().changes_since(declare(published=[Published("map", 0.4)]).identity()) == []
    with pytest.raises(UserError, match="a study has no arms"):
        declare(published=[PLAIN])


FILE = """
from tests.ablation.test_ablation import ablation
from tests.ablation.test_published import PLAIN
ABLATION = ablation(published=[PLAIN], **SMALL)
"""
SMALL: dict[str, Any] = {"seeds": [0], "folds": [1], "metric": "val/accuracy", "budget": 1}


def _words(shown: str) -> list[list[str]]:
    """What a report says, without the lines on published figures and the rules of its tables."""
    return [line.split() for line in shown.splitlines() if "published" not in line and "──" not in line]


def test_a_figure_joins_a_finished_suite(
    tones_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "tones").symlink_to(tones_corpus)
    declared: Ablation = ablation(**SMALL)
    suite = open_suite(declared, Tracker(Workspace(tmp_path)), QueueOptions(device="cpu"))
    run_suite_here(suite)
    before = call(capsys, tmp_path, "ablate", "report", "suite")
    assert "published" not in before
    file = tmp_path / "declared.py"
    file.write_text(FILE.replace("SMALL", repr(SMALL)))
    after = call(capsys, tmp_path, "ablate", "report", str(file))
    assert "66.2 [62.9, 69.3]" in after
    assert _words(after) == _words(before)
    page = (tmp_path / "reports" / "suite-suite.html").read_text()
    assert "Published figures" in page
    assert "<tr class=dim><td>(plain, published)</td>" in page
    for command in ("report", "status"):  # by its name: the figures are kept with the suite
        assert LINE in call(capsys, tmp_path, "ablate", command, "suite")


def test_the_status_of_a_study_has_them(tmp_path: Path) -> None:
    study = open_study(declare(), open_storage(tmp_path / "optuna.db"))
    assert study_status(study).published == ()
    study.set_user_attr(PUBLISHED, [{"metric": "map", "value": 0.4, "label": "theirs"}])
    assert study_status(study).published == (Published("map", 0.4, label="theirs"),)
