"""The pages of suites and studies, calibration, and the listening audit: what they say, and that it is right."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from audio_cls.ablation.clip_groups import column_figures
from audio_cls.ablation.page import ArmCurve, ArmSummary, Cell, ClassDifferences, Predictions, SuiteReport, suite_report
from audio_cls.metrics.bootstrap import Interval
from audio_cls.metrics.slices import ArmSlice
from audio_cls.report.arm_figures import every_run, forest, one_of
from audio_cls.report.audit import audit_sections, colour_map, encode_audio, pick, png
from audio_cls.report.calibration import calibrate
from audio_cls.report.error_figures import arm_slices_figure
from audio_cls.report.page import Section, Table, render_page
from audio_cls.study.page import StudyReport, TrialRow, pruning_cost, study_report
from tests.commands import call
from tests.predictions import made

NASTY = "</script><script>document.title='owned'</script><b>&amp;"
CLASSES = ["a", "b", "c"]


def figures_in(page: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)]


def headings(page: str) -> list[str]:
    return re.findall(r"<h2 id=[^>]*>(.*?)</h2>", page)


# --- calibration


def test_calibration_by_hand() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]])
    targets = np.array([[1, 0], [0, 1], [0, 1], [1, 0]])
    c = calibrate(scores, targets, "multiclass", bins=2)  # all four in (0.5, 1]: confidence 0.7375, half of them right
    assert c.count.tolist() == [4]
    assert c.ece == pytest.approx(0.7375 - 0.5)
    assert c.gap == pytest.approx(c.ece)
    assert c.brier == pytest.approx(np.mean([0.02, 1.28, 0.18, 0.605]))
    many = calibrate(scores, targets, "multilabel", bins=10)
    assert many.n == 8
    assert many.brier == pytest.approx(c.brier / 2)


def test_calibration_agrees_with_scikit_learn() -> None:
    from sklearn.calibration import calibration_curve

    rng = np.random.default_rng(0)
    scores = rng.random((500, 3))
    targets = (rng.random((500, 3)) < scores**1.5).astype(float)
    c = calibrate(scores, targets, "multilabel", bins=10)
    share, confidence = calibration_curve(targets.ravel(), scores.ravel(), n_bins=10)
    np.testing.assert_allclose(c.right, share)
    np.testing.assert_allclose(c.confidence, confidence)
    assert c.ece == pytest.approx((np.abs(share - confidence) * c.count).sum() / c.n)


def test_calibration_bins_are_closed_above_and_hold_everything() -> None:
    c = calibrate(np.array([[0.0], [0.5], [1.0]]), np.array([[0], [1], [1]]), "multilabel", bins=2)
    assert c.count.tolist() == [2, 1]  # 0.5 belongs to the lower bin
    assert calibrate(np.array([[np.nan]]), np.ones((1, 1)), "multilabel").n == 0
    assert math.isnan(calibrate(np.zeros((0, 3)), np.zeros((0, 3)), "multiclass").ece)


def test_perfect_probabilities_are_calibrated_and_sharpened_ones_overconfident() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(4), 20000)
    targets = np.eye(4)[(rng.random((len(p), 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=3)]
    assert calibrate(p, targets, "multiclass").ece < 0.015
    sharp = p**3 / (p**3).sum(axis=1, keepdims=True)
    assert calibrate(sharp, targets, "multiclass").gap > 0.1


# --- suite


def suite(task: str = "multiclass") -> SuiteReport:
    rng = np.random.default_rng(0)
    targets = np.eye(3)[np.arange(60) % 3] if task == "multiclass" else (rng.random((60, 3)) < 0.4).astype(float)
    scores = 1 / (1 + np.exp(1 - 2 * targets - rng.standard_normal(targets.shape)))
    if task == "multiclass":
        scores /= scores.sum(axis=1, keepdims=True)
    arms = [
        ArmSummary("mixup", {"augment.mixup.alpha": 0.2}, n=4, mean=0.72, sd=0.01, difference=0.021, difference_low=0.006,
                   difference_high=0.036, pairs=4, p_holm=0.012, verdict="helps", text="+2.1 points: helps", seconds=12.0),
        ArmSummary("plain", reference=True, n=4, mean=0.70, sd=0.01, seconds=10.0, parameters=5),
        ArmSummary("worse", {"x": 1}, n=1, mean=0.6, sd=math.nan, difference=-0.1, pairs=1, verdict="hurts", failed=2),
        ArmSummary("waiting", {"y": None}),
    ]  # fmt: skip
    names = [arm.name for arm in arms]
    means = np.array([[0.1, -0.2], [0.0, 0.0], [np.nan, 0.01]])
    return SuiteReport(
        title="Suite: demo",
        metric="val/macro_f1",
        direction="maximize",
        arms=arms,
        classes=CLASSES,
        task=task,
        state="half-way: 9 of 16 runs",
        question="Does mixup help?",
        contract=[("data", "demo 1234"), ("budget", 40)],
        cells=[Cell(a, s, f, 0.7 + 0.01 * s + 0.02 * f) for a in names[:2] for s in (0, 1) for f in (1, 2)],
        curves=[ArmCurve(n, "val/macro_f1", [0, 1], [0.1, 0.5], [0.0, 0.4], [0.2, 0.6]) for n in names[:2]],
        class_differences=ClassDifferences(CLASSES, ["mixup", "worse"], means, means - 0.05, means + 0.05),
        predictions={n: Predictions(scores, targets) for n in names[:2]},
        notes=["about 24 more pairs for 1 point"],
        openings=["opened once, mixup chosen by val/macro_f1: test macro_f1 0.69"],
        others=[["val/uar", "mixup", 0.7, 0.1, 0.25, 0.0215, 0.01, 0.03, 0.04, "helps"]],
        test_rows=[["mixup", "val/macro_f1", 0.6912, 0.64, 0.73, 0.25, 0.02, -0.01, 0.05, 0.2]],
        baseline={"macro_f1": 0.2294, "uar": 0.25},
        findings=["plain: calls everything 'hum'"],
    )


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_suite_page_says_everything(task: str, tmp_path: Path) -> None:
    report = suite(task)
    page = suite_report(report, tmp_path / "suite.html")
    assert (tmp_path / "suite.html").read_text(encoding="utf-8") == page
    wanted = ["Verdicts", "Test split", "Further metrics", "Arms in full", "Contract", "Runs", "Classes", "Curves", "Cost", "Confusion", "ROC", "Precision and recall", "Calibration"]  # fmt: skip
    assert headings(page) == wanted + (["Thresholds"] if task == "multilabel" else [])
    for words in (
        "half-way: 9 of 16",
        "Does mixup help?",
        "+2.1 points: helps",
        "24 more pairs",
        "opened once",
        "Further metrics",
        "Test split",
        "0.691",
        "1234",
    ):
        assert words in page
    assert "has not been opened" not in page
    assert 'data-v="2.1"' in page.replace("2.1000000000000001", "2.1")  # told in points
    assert 'data-v="1.2">1.20' in page  # mixup's cost against plain's
    assert "<td>waiting</td>" in page
    # What is wrong and the verdicts stand before anything is folded, the rest below is folded; the baseline is an arm's neighbour.
    first, *folded = page.split("<details>")
    assert (
        first.index("plain: calls everything") < first.index("+2.1 points: helps") < first.index("<td>(baseline)</td>")
    )
    assert ">22.94</td>" in first
    assert len(folded) == len(headings(page)) - 2
    assert "no pair of runs yet" in page


def test_forest_codes_the_verdict_by_colour_and_shape_and_shows_zero() -> None:
    report = suite()
    figure = forest(report.arms, report.metric, report.direction, points=True)
    marks = {trace.name: trace for trace in figure.data}
    assert set(marks) == {"helps", "hurts"}  # who has no pair has no mark, but a line
    assert len({trace.marker.symbol for trace in marks.values()}) == 2
    assert len({trace.marker.color for trace in marks.values()}) == 2
    helps = marks["helps"]
    assert helps.x[0] == pytest.approx(2.1)
    assert (helps.x[0] - helps.error_x.arrayminus[0], helps.x[0] + helps.error_x.array[0]) == pytest.approx((0.6, 3.6))
    assert marks["hurts"].error_x.array[0] == 0  # one pair: no interval
    assert list(figure.layout.yaxis.ticktext) == ["mixup", "worse", "waiting (no pair yet)"]
    assert [s.x0 for s in figure.layout.shapes] == [0]
    assert figure.layout.xaxis.rangemode == "tozero"
    assert "right" in figure.layout.xaxis.title.text
    assert "left" in forest(report.arms, "val/loss", "minimize", points=False).layout.xaxis.title.text


def test_every_run_joins_pairs() -> None:
    report = suite()
    figure = every_run(report.cells, report.arms, report.metric)
    *pairs, mean = figure.data
    assert len(pairs) == 4
    assert all(len(trace.x) == 2 for trace in pairs)
    assert [trace.name for trace in pairs if trace.showlegend] == ["fold 1", "fold 2"]
    assert len({(t.marker.color, t.marker.symbol) for t in pairs}) == 4
    assert [y for y in mean.y if y is not None][:2] == [0.72, 0.72]


def test_arms_by_a_column_of_the_clips() -> None:
    """A table with intervals and a figure of values x arms; a star where the difference is clear of 0; of many values the lowest 30."""

    def interval(estimate: float, low: float, high: float) -> Interval:
        return Interval(estimate, low, high, 0.95, 20, 1000)

    slices = [
        ArmSlice("foreground", "plain", 40, interval(0.8, 0.7, 0.9)),
        ArmSlice("foreground", "mixup", 40, interval(0.85, 0.75, 0.95), interval(0.05, -0.01, 0.1)),
        ArmSlice("back<b>", "plain", 20, interval(0.5, 0.3, 0.7)),
        ArmSlice("back<b>", "mixup", 20, interval(0.75, 0.6, 0.9), interval(0.25, 0.1, 0.4)),
    ]
    page = suite_report(dataclasses.replace(suite(), by_column={"salience": slices}))
    assert headings(page).index("Groups of clips") == headings(page).index("Classes") + 1
    section = page[page.index(">Groups of clips</h2>") :].split("</section>")[0]
    assert "By salience: accuracy, and difference from plain" in section
    assert "2 differences stand here" in section
    assert re.search(
        r">20</td><td>mixup</td>(<td[^>]*>[−0-9.]+</td>){3}<td[^>]*>25.0</td><td[^>]*>10.0</td><td[^>]*>40.0</td>",
        section,
    )
    figure = column_figures(dataclasses.replace(suite(), by_column={"salience": slices}))["by_salience"]
    drawn = figure.data[0]
    assert figure.layout.xaxis.ticktext == ("plain", "mixup")
    assert [list(row) for row in drawn.text] == [["80.0", "85.0"], ["50.0", "75.0 *"]]
    assert figure.layout.yaxis.ticktext == ("foreground (40)", "back&lt;b&gt; (20)")
    many = [ArmSlice(str(k), "plain", 3, interval(k / 40, 0, 1)) for k in range(40)]
    assert list(arm_slices_figure(many, "group", "accuracy").data[0].z[-1]) == pytest.approx([100 * 29 / 40])


def test_a_suite_without_runs_has_a_page() -> None:
    empty = SuiteReport("t", "val/loss", "minimize", [ArmSummary("plain", reference=True), ArmSummary("b")])
    page = suite_report(empty)
    assert headings(page) == ["Verdicts", "Arms in full"]
    assert figures_in(page) == []
    assert "has not been opened" in page


def test_a_diverged_arm_does_not_cost_the_page() -> None:
    report = suite()
    broken = dataclasses.replace(
        report.predictions["mixup"], scores=np.full_like(report.predictions["mixup"].scores, np.nan)
    )
    page = suite_report(dataclasses.replace(report, predictions={**report.predictions, "mixup": broken}))
    assert "ROC" in headings(page)


def test_unknown_arms_are_refused() -> None:
    with pytest.raises(ValueError, match="no arm 'typo' among mixup"):
        suite_report(dataclasses.replace(suite(), cells=[Cell("typo", 0, 1, 0.5)]))


def test_suite_page_escapes() -> None:
    report = suite()
    nasty = dataclasses.replace(report.arms[0], name=NASTY, text=NASTY, more=[NASTY], changes={NASTY: NASTY})
    page = suite_report(
        dataclasses.replace(
            report,
            title=NASTY,
            question=NASTY,
            state=NASTY,
            contract=[(NASTY, NASTY)],
            notes=[NASTY],
            openings=[NASTY],
            findings=[NASTY],
            classes=[NASTY, "b", "c"],
            arms=[nasty, *report.arms[1:]],
            cells=[Cell(NASTY, 0, 1, 0.5)],
            curves=[ArmCurve(NASTY, NASTY, [0], [1.0])],
            class_differences=dataclasses.replace(report.class_differences, arms=[NASTY, "worse"], classes=[NASTY, "b", "c"]),  # type: ignore[type-var]
            predictions={NASTY: report.predictions["plain"]},
        )
    )  # fmt: skip
    assert "<script>document.title" not in page
    assert "<b>&amp;" not in page


def test_a_menu_shows_one_of_several_figures() -> None:
    report = suite()
    parts = {n: forest(report.arms, n, "maximize", True) for n in ("p", "q")}
    figure = one_of(parts)
    assert [t.visible for t in figure.data] == [True, True, False, False]
    assert [b.label for b in figure.layout.updatemenus[0].buttons] == ["p", "q"]
    assert list(figure.layout.updatemenus[0].buttons[1].args[0]["visible"]) == [False, False, True, True]
    assert figure.layout.height > parts["p"].layout.height
    assert one_of({"p": parts["p"]}) is parts["p"]


def test_significant_digits_in_chosen_columns() -> None:
    page = render_page(
        "t", [Section("s", [Table(("lr", "f"), [(0.0003355, 0.0003355)], digits=2, significant=["lr"])])]
    )
    assert ">0.00034</td>" in page
    assert page.count('data-v="0.0003355"') == 2


# --- study


def test_pruning_cost_in_words() -> None:
    kept = [TrialRow(0, "COMPLETE", 0.70), TrialRow(1, "COMPLETE", 0.60)]
    assert pruning_cost(kept) == "Nothing was pruned."
    assert "not known" in pruning_cost([*kept, TrialRow(2, "PRUNED", 0.3)])
    lost = pruning_cost([*kept, TrialRow(2, "COMPLETE", 0.75, revived=True)])
    assert "would have lost 0.05" in lost
    assert "place 1 of 3" in lost
    assert "lost nothing" in pruning_cost([*kept, TrialRow(2, "COMPLETE", 0.65, revived=True)])
    assert "place 2 of 3" in pruning_cost([*kept, TrialRow(2, "COMPLETE", 0.65, revived=True)])
    longer = pruning_cost(
        [*kept, TrialRow(2, "COMPLETE", 0.95, revived=True, extended=True), TrialRow(3, "PRUNED", 0.3)]
    )
    assert "audio-cls study revive" in longer
    assert "1 were revived to a larger budget and are not compared" in longer
    assert "0.95" not in longer
    assert "would have lost 0.1" in pruning_cost([*kept, TrialRow(2, "COMPLETE", 0.5, revived=True)], maximize=False)


@pytest.fixture(scope="module")
def searched() -> Any:
    """A study in memory: 20 trials, a conditional parameter, pruned, failed and superseded ones."""
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: Any) -> float:
        trial.set_user_attr("worker", "secret-host:1")
        x = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        bonus = trial.suggest_float("alpha", 0, 1) if trial.suggest_categorical("mix", ["on", "off"]) == "on" else 0.5
        for epoch in range(4):
            trial.report((epoch + 1) * x, epoch)
            if trial.number % 5 == 4 and epoch == 1:
                raise optuna.TrialPruned
        if trial.number == 7:
            raise RuntimeError("boom")
        return math.log10(x) + 0.01 * bonus

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=20, catch=(RuntimeError,))
    return study


def test_study_figures_and_page(searched: Any) -> None:
    from audio_cls.study.plots import study_figures

    figures = study_figures(searched)
    assert list(figures) == ["history", "importances", "slice 1", "parallel", "intermediate", "timeline"]
    assert len(figures["parallel"].data) > 10  # the conditional parameter has not thinned the trials out
    most = list(figures["importances"].data[0].y)[-1]
    assert most == "lr"
    states = {t.number: t.state.name for t in searched.trials}
    order = sorted((t for t in searched.trials if t.state.name == "COMPLETE"), key=lambda t: -t.value)
    rest = [t for t in searched.trials if t.state.name != "COMPLETE"]
    rows = [
        TrialRow(t.number, {"FAIL": "FAILED"}.get(t.state.name, t.state.name), t.value, t.params, reason="boom")
        for t in (*order, *rest)
    ]
    report = StudyReport(
        "Study: s", "val/macro_f1", "maximize", rows, {"data": NASTY}, NASTY, figures, total=20, states=states
    )
    page = study_report(report)
    assert headings(page) == [
        "Result", "Leaderboard", "What matters", "History", "Timeline", "Pruning and failures", "Declaration",
    ]  # fmt: skip
    assert "<script>document.title" not in page
    assert "secret-host" not in page  # Optuna's timeline would show all attributes
    assert "20 of 20" in page
    drawn = {f["layout"]["title"]["text"]: f for f in figures_in(page)}
    assert len(drawn) == 6
    curves = drawn["Values over the epochs"]["data"]
    assert [c["name"] for c in curves].count("best") == 1
    assert {c["name"] for c in curves} == {"best", "complete", "pruned"}
    assert [c["name"] for c in curves if c["showlegend"]].count("pruned") == 1
    bars = drawn["Timeline"]["data"]
    assert {b["name"] for b in bars} == {"complete", "pruned", "fail"}
    assert len({(b["marker"]["color"], b["marker"]["pattern"]["shape"]) for b in bars}) == 3
    slices = drawn["Over each parameter; darker is later"]["data"]
    assert set(slices[-1]["x"]) == {"on", "off"}  # without Optuna's quotes


def test_a_young_study_has_a_page() -> None:
    optuna = pytest.importorskip("optuna")
    from audio_cls.study.plots import study_figures

    assert study_figures(optuna.create_study()) == {}
    page = study_report(StudyReport("s", "val/loss", "minimize", [TrialRow(0, "RUNNING")]))
    assert "No configuration is complete yet" in page
    assert figures_in(page) == []


# --- listening audit


def test_picks_the_surest_mistakes_and_the_least_sure_hits() -> None:
    scores = np.array([[0.9, 0.1, 0], [0.5, 0.4, 0.1], [0.34, 0.33, 0.33], [0.1, 0.8, 0.1], [0.2, 0.45, 0.35]])
    targets = np.eye(3)[[1, 1, 0, 1, 2]]
    picked = pick(made(scores, targets, classes=CLASSES))
    assert [p.index for p in picked["Most confident mistakes"]] == [0, 4, 1]
    assert [p.index for p in picked["Least confident hits"]] == [2, 3]
    assert len(pick(made(scores, targets, classes=CLASSES), limit=1)["Most confident mistakes"]) == 1
    assert pick(made(np.full((2, 3), np.nan), targets[:2])) == {}


def test_picks_false_alarms_and_misses_by_their_thresholds() -> None:
    scores = np.array([[0.9, 0.2], [0.6, 0.55], [0.1, 0.3]])
    targets = np.array([[0, 0], [1, 0], [1, 1]])
    picked = pick(made(scores, targets, "multilabel", ["a", "b"], thresholds=np.array([0.5, 0.15])))
    assert [(p.index, p.label) for p in picked["False alarms"]] == [(0, 0), (1, 1)]  # 0.40 above, 0.40 above
    assert [(p.index, p.label) for p in picked["Misses"]] == [(2, 0)]  # b is called at 0.3
    assert "0.90, threshold 0.50" in picked["False alarms"][0].why


def sections(task: str = "multiclass", seconds: float = 1.0, n_clips: int = 6, rate: int = 16000) -> list[Section]:
    rng = np.random.default_rng(0)
    targets = np.eye(3)[np.arange(n_clips) % 3]
    scores = rng.dirichlet(np.ones(3), n_clips)
    sound = (0.1 * rng.standard_normal(round(seconds * rate))).astype(np.float32)
    ids = [f"{NASTY}{k}" for k in range(n_clips)]
    return audit_sections(made(scores, targets, task, CLASSES, clips=ids), lambda _: sound, rate)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_audit_page_plays_shows_and_escapes(task: str) -> None:
    import soundfile as sf

    page = render_page("audit", sections(task))
    cards = page.count('<article class="clip">')
    assert cards >= 6
    assert page.count('<audio controls preload="none"') == page.count("data:image/png;base64,") == cards
    assert "document.title='owned'</script>" not in page
    media, packed = re.findall(r'src="data:(audio/[a-z]+);base64,([^"]+)"', page)[0]
    assert media in ("audio/mpeg", "audio/flac", "audio/wav")
    heard, rate = sf.read(io.BytesIO(base64.b64decode(packed)))
    assert rate == 16000
    assert heard.ndim == 1
    assert len(heard) / rate == pytest.approx(1.0, abs=0.1)
    assert heard.std() == pytest.approx(0.1, rel=0.2)
    assert page.count("<script>") == 2
    assert page.count("</script>") == 2  # the audit's and the page's own


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.4])
def test_short_clips_have_a_card(seconds: float) -> None:
    page = render_page("audit", sections(seconds=seconds))
    assert page.count('<article class="clip">') == 6
    assert ("the clip is empty" in page) == (seconds == 0)


def test_a_page_of_24_clips_is_small_and_long_clips_are_cut_to_their_loudest_part() -> None:
    from audio_cls.report.audit import _loudest

    assert len(render_page("audit", sections(seconds=5.0, n_clips=40, rate=44100))) < 6e6
    wave = np.r_[np.zeros(1000), np.ones(100), np.zeros(500)].astype(np.float32)
    part, start = _loudest(wave, 200)
    assert len(part) == 200
    assert part.sum() == 100
    assert 900 <= start <= 1000


@pytest.mark.parametrize("rate", [8000, 12345, 44100, 96000])
def test_any_sample_rate_is_encoded(rate: int) -> None:
    import soundfile as sf

    uri = encode_audio((0.5 * np.sin(np.arange(rate) * 0.3)).astype(np.float32), rate)
    heard, found = sf.read(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert found == rate
    assert np.abs(heard).max() == pytest.approx(0.5, abs=0.06)


def test_nothing_to_hear_says_so() -> None:
    targets = np.eye(3)
    page = render_page("audit", audit_sections(made(targets, targets, classes=CLASSES), lambda _: np.zeros(800, np.float32), 8000))  # fmt: skip
    assert "There are none: most confident mistakes" in page
    nan = audit_sections(made(targets * np.nan, targets), lambda _: np.zeros(1, np.float32), 8000)  # fmt: skip
    assert "diverged" in render_page("audit", nan)


def test_png_has_the_first_row_below_and_clips() -> None:
    image = Image.open(io.BytesIO(png(np.array([[0.0, 0.5, 1.0], [2.0, -3.0, 1.0]]), 0.0, 1.0)))
    assert np.asarray(image).tolist() == [[255, 0, 255], [0, 128, 255]]
    assert np.asarray(image.convert("RGB"))[0, 0].tolist() == colour_map()[255].tolist()


def test_lightness_of_the_colour_map_rises() -> None:
    linear = (colour_map() / 255.0) ** 2.2
    lightness = linear @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) >= -1e-3).all()
    assert lightness[-1] - lightness[0] > 0.8


# --- the command


@pytest.fixture(scope="module")
def trained(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """A workspace, and the id of a complete run in it."""
    import torch

    from audio_cls.core.workspace import Workspace
    from audio_cls.experiment import Experiment
    from audio_cls.runs.objective import Record, run_experiment
    from audio_cls.runs.preparation import Runtime
    from audio_cls.tracking import Tracker
    from audio_cls.training.checkpoint import CheckpointStore

    workspace = Workspace(tmp_path_factory.mktemp("report"))
    shutil.copytree(tones_corpus, workspace.corpora / "tones")
    changes = {"data.corpus": "tones", "data.sample_rate": 8000, "data.clip_seconds": 1.0, "training.epochs": 2}
    sizes = {"features.n_fft": 256, "features.hop_length": 128, "features.n_mels": 32, "training.batch_size": 8}
    runtime = Runtime(workspace, Tracker(workspace), torch.device("cpu"))
    seen: list[str] = []
    outcome = run_experiment(
        Experiment().override(changes | sizes),
        runtime,
        Record("first run", on_run_id=seen.append),
        CheckpointStore(workspace.checkpoints / "first"),
    )
    assert outcome.state == "COMPLETE"
    return workspace, seen[0]


@pytest.mark.slow
def test_report_of_a_run(trained: tuple[Any, str], capsys: pytest.CaptureFixture[str]) -> None:
    from audio_cls.tracking import Tracker

    workspace, _ = trained
    out = call(capsys, workspace.root, "report", "first run", "--device", "cpu")
    info = Tracker(workspace).resolve("first run")
    written = Path(out.split(" (")[0])
    assert written == workspace.reports / f"run-first-run-{info.run_id[:8]}.html"
    page = written.read_text(encoding="utf-8")
    logged = Tracker(workspace).download(info.run_id, "report.html").read_text(encoding="utf-8")
    assert logged == page
    assert info.state == "COMPLETE"  # reopening it has not changed how it ended
    found = headings(page)
    assert {"Listen: most confident mistakes", "Listen: least confident hits", "Calibration", "Training"} <= set(found)
    shown = float(re.findall(r"<dt>macro_f1</dt><dd>([\d.]+)", page)[0])
    assert shown == pytest.approx(info.metrics["best/macro_f1"], abs=6e-4)  # computed anew, the same
    n_clips = int(re.findall(r"([\d,]+) clips of the validation set", page)[0])
    # Figures stand beside those of a model that learned nothing; epochs count from 1, MLflow's steps from 0.
    baseline = float(
        re.findall(r"<dt>macro_f1</dt><dd>[\d.]+</dd><dd class=beside>majority baseline ([\d.]+)", page)[0]
    )
    assert baseline == pytest.approx(info.metrics["baseline/macro_f1"], abs=6e-4)
    best = f"{info.metrics['best/epoch'] + 1:g}"
    assert f"by val/macro_f1 is epoch {best}." in page
    assert f"best: epoch {best}" in page
    assert f"<tr><td>best epoch</td><td>{best}</td></tr>" in page
    assert "Fewer than 10 validation clips in all 3 classes (2 each)" in page
    assert "Fewer than 10 validation clips" in info.tags["findings"]
    assert page.count('<article class="clip">') == n_clips  # 6 clips of fold 2, each a mistake or a hit


@pytest.mark.slow
def test_report_refuses_what_it_has_no_page_for(
    trained: tuple[Any, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from audio_cls.tracking import Tracker

    workspace, _ = trained
    said = call(capsys, workspace.root, "report", "frist run", code=2)
    assert re.search(r"no run has the id or the name 'frist run'.*Did you mean 'first run'.*Studies: none", said)
    tracker = Tracker(workspace)
    parent = tracker.start("e", "all folds", kind="cross-validation")
    tracker.start("e", "one fold", kind="fold", parent=parent.id).finish("FAILED", "oom")
    parent.finish("COMPLETE")
    said = call(capsys, workspace.root, "report", "all folds", code=2)
    assert "is a cross-validation: name one of the runs below it. Below it: one fold (" in said
    assert "is FAILED: only a COMPLETE run" in call(capsys, workspace.root, "report", "one fold", code=2)
    (tmp_path / "file").write_text("")
    page = str(tmp_path / "file" / "page.html")
    said = call(capsys, workspace.root, "report", "first run", "--html", page, "--device", "cpu", code=2)
    assert "cannot be written" in said


def test_report_of_a_study(searched: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from audio_cls.core.workspace import Workspace
    from audio_cls.queue.storage import open_storage

    optuna = pytest.importorskip("optuna")
    workspace = Workspace(tmp_path)
    storage = open_storage(workspace.optuna_db)
    foreign = optuna.create_study(storage=storage.backend, study_name="made/elsewhere", direction="maximize")
    foreign.add_trials(searched.trials[:6])
    out = call(capsys, workspace.root, "report", "made/elsewhere")
    assert out.startswith(f"{workspace.reports / 'study-made-elsewhere.html'} (")
    assert "in MLflow" not in out  # the study has no run there
    page = (workspace.reports / "study-made-elsewhere.html").read_text(encoding="utf-8")
    assert "Leaderboard" in headings(page)
