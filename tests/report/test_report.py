"""Figures, pages and CSV tables: what they show, that text stays text, and that a page works in a browser without a network."""

from __future__ import annotations

import base64
import csv
import dataclasses
import gzip
import html
import http.server
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import threading
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from audio_cls.core.errors import UserError
from audio_cls.metrics.classification import evaluate, fit_thresholds
from audio_cls.report.data_figures import clip_figure, count_figure, duration_figure
from audio_cls.report.figures import class_bars, confusion_figure, curve_figure
from audio_cls.report.page import Cards, Section, Table, format_number, render_page
from audio_cls.report.ranking_figures import precision_recall_figure, roc_figure
from audio_cls.report.run_figures import ON_THE_PAGE, confused_pairs
from audio_cls.report.tables import average_rows, confusion_csv, decision_margin, per_class_csv, predictions_csv
from audio_cls.report.training_figures import LOSS_GAP, overtraining_figure
from audio_cls.runs.page import RunReport, best_epoch, run_figures, run_report
from tests.predictions import made

NASTY = "</script><script>document.title='owned'</script><b>&amp;"


def example(task: str = "multiclass", n_clips: int = 60, n_classes: int = 4) -> RunReport:
    rng = np.random.default_rng(0)
    if task == "multiclass":
        targets = np.eye(n_classes)[rng.integers(0, n_classes, n_clips)]
    else:
        targets = (rng.random((n_clips, n_classes)) < 0.4).astype(float)
    scores = 1 / (1 + np.exp(1 - 2 * targets - rng.standard_normal(targets.shape)))
    if task == "multiclass":
        scores /= scores.sum(axis=1, keepdims=True)
    curves = [
        {
            "epoch": e,
            "train/loss": 1 / e,
            "val/loss": 1.1 / e,
            "val/macro_f1": min(e, 3) / 4,
            "val/d_prime": e / 3,
            "lr": 0.1,
        }
        for e in range(1, 6)
    ]
    return RunReport(
        title="a run",
        predictions=made(
            scores.astype(np.float32),
            targets,
            task,
            clips=[f"clip-{k}" for k in range(n_clips)],
            thresholds=fit_thresholds(scores, targets) if task == "multilabel" else None,
        ),
        curves=curves,
        config={"model": {"kind": "small_cnn", "width": (16, 32)}, "augment": {"mixup": None}, "seed": 0},
        facts={"device": "cpu", "seconds": 1.23456789},
    )


class Reader(HTMLParser):
    """Text, tags, ids and links of a page, as a browser would parse it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


def figures_in(page: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page, re.S)]


# --- figures


def test_confusion_figure_has_both_axes_in_class_order_and_row_shares() -> None:
    matrix = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 2]])
    figure = confusion_figure(matrix, ["a", "b", "c"])
    heat = figure.data[0]
    assert list(heat.x) == list(heat.y) == ["a", "b", "c"]
    assert figure.layout.yaxis.autorange == "reversed"  # the first class at the top, as it is at the left
    np.testing.assert_allclose(heat.z, np.array([[0.75, 0.25, 0], [0, 0, 0], [0.5, 0, 0.5]]))
    np.testing.assert_array_equal(heat.customdata, matrix)
    assert heat.text[0][0] == "3<br>75%"
    assert heat.text[0][2] == ""
    shares = confusion_figure(matrix, ["a", "b", "c"], support=np.array([8, 1, 4])).data[0].z
    assert shares[0][0] == pytest.approx(3 / 8)


def test_a_confusion_matrix_of_many_classes_keeps_those_that_are_confused() -> None:
    matrix = np.diag(np.full(200, 10))
    matrix[150, 20], matrix[20, 150], matrix[3, 199] = 5, 3, 4
    heat = confusion_figure(matrix, [f"class {k}" for k in range(200)]).data[0]
    assert len(heat.x) == 40
    assert {"class 3", "class 20", "class 150", "class 199"} <= set(heat.x)
    row, column = list(heat.y).index("class 150"), list(heat.x).index("class 20")
    assert heat.customdata[row][column] == 5
    assert heat.z[row][column] == pytest.approx(5 / 15)


def test_confused_pairs_are_the_15_largest_and_slices_have_their_intervals() -> None:
    report = example("multiclass", 200, 8)
    pairs = confused_pairs(report.predictions)
    bars = run_figures(report)["confused_pairs"].data[0]
    assert len(pairs) == len(bars.x) == 15
    assert list(bars.x) == sorted(bars.x, reverse=True)
    assert bars.customdata[0][0] == f"{pairs[0].true} → {pairs[0].predicted}"
    wrong = np.asarray(report.predictions.confusion)
    assert max(bars.x) == (wrong - np.diag(wrong.diagonal())).max()
    values = ["10" if k % 4 else "9" for k in range(200)]
    figures = run_figures(dataclasses.replace(report, columns={"salience": values, "constant": ["a"] * 200}))
    groups = figures["by_salience"].data[0]
    hits = (np.asarray(report.predictions.scores).argmax(1) == np.asarray(report.predictions.targets).argmax(1)).astype(
        float
    )
    assert [name.split()[0] for name in figures["by_salience"].layout.yaxis.ticktext] == [
        "9",
        "10",
    ]  # in the order of numbers
    assert list(groups.x) == pytest.approx([hits[::4].mean(), np.delete(hits, np.s_[::4]).mean()])
    assert groups.error_x.array[0] > groups.error_x.array[1] > 0  # a third of the clips
    assert "Groups of clips" in run_report(dataclasses.replace(report, columns={"salience": values}))


def test_overtraining_shows_the_gap_between_the_losses() -> None:
    curves = example().curves
    figure = overtraining_figure(curves, "val/macro_f1", 3)
    assert figure is not None
    by_name = {trace.name: trace for trace in figure.data}
    assert set(by_name) == {"val/macro_f1", LOSS_GAP}
    assert list(by_name[LOSS_GAP].y) == pytest.approx([row["val/loss"] - row["train/loss"] for row in curves])
    with_train = [{**row, "train/macro_f1": 0.5} for row in curves]
    both = overtraining_figure(with_train, "val/macro_f1", 3)
    assert both is not None
    assert {trace.name for trace in both.data} == {"train/macro_f1", "val/macro_f1", LOSS_GAP}
    assert overtraining_figure([{"epoch": 1, "val/loss": 1.0}], "val/macro_f1", None) is None


def test_averages_over_classes_are_those_of_a_classification_report() -> None:
    rng = np.random.default_rng(3)
    truth, guess = rng.integers(0, 5, 80), rng.integers(0, 3, 80)  # two classes are never called
    evaluation = evaluate(np.eye(5)[guess], np.eye(5)[truth], "multiclass")
    rows = average_rows(evaluation.per_class, ["support", "precision", "recall", "f1"])
    for row, average in zip(rows, ("macro", "weighted"), strict=True):
        expected = sk.precision_recall_fscore_support(truth, guess, average=average, zero_division=0)[:3]
        assert row[0] == f"{average} average"
        assert row[1] == 80
        assert row[2:] == pytest.approx(list(expected))
    assert rows[1][4] == pytest.approx(evaluation.overall["weighted_f1"])


def test_long_equal_beginnings_do_not_merge_classes() -> None:
    names = ["x" * 60 + "1", "x" * 60 + "2"]
    assert len(set(confusion_figure(np.eye(2), names).data[0].x)) == 2


@pytest.mark.parametrize("n_classes", [3, 12])
def test_class_lines_carry_the_exact_areas(n_classes: int) -> None:
    report = example("multilabel", 80, n_classes)
    evaluation = evaluate(report.predictions.scores, report.predictions.targets, "multilabel")
    for figure, key, overall in (
        (roc_figure(report.predictions.scores, report.predictions.targets, report.predictions.classes), "auc", "auc"),
        (
            precision_recall_figure(report.predictions.scores, report.predictions.targets, report.predictions.classes),
            "ap",
            "map",
        ),
    ):
        assert len(figure.data) == n_classes + 2
        named = {trace.name for trace in figure.data if trace.showlegend}
        weakest = np.argsort(evaluation.per_class[key])[:10]
        assert named == {f"class {k} {evaluation.per_class[key][k]:.3f}" for k in weakest}
        assert figure.data[-1].name.endswith(f"{evaluation.overall[overall]:.3f}")
        pooled = np.asarray(report.predictions.targets).ravel(), np.asarray(report.predictions.scores).ravel()
        area = sk.roc_auc_score(*pooled) if key == "auc" else sk.average_precision_score(*pooled)
        assert figure.data[-2].name == f"micro average {area:.3f}"


def test_drawn_precision_recall_steps_enclose_the_average_precision() -> None:
    report = example("multilabel", 40, 3)
    figure = precision_recall_figure(report.predictions.scores, report.predictions.targets, report.predictions.classes)
    ap = evaluate(report.predictions.scores, report.predictions.targets, "multilabel").per_class["ap"]
    assert figure.data[-2].line.shape == "vh"
    for trace in figure.data[:-2]:
        assert trace.line.shape == "vh"  # precision at a recall holds from the recall before it
        area = float(np.sum(np.diff(trace.x) * np.asarray(trace.y)[1:]))
        assert area == pytest.approx(ap[int(trace.name.split()[1])], abs=1e-6)
    assert np.mean(figure.data[-1].y) == pytest.approx(ap.mean(), abs=0.02)


def test_undefined_classes_have_no_curve() -> None:
    report = example("multilabel", 40, 3)
    targets = report.predictions.targets.copy()
    targets[:, 1] = 0
    assert len(roc_figure(report.predictions.scores, targets, report.predictions.classes).data) == 4
    assert len(roc_figure(report.predictions.scores, np.zeros_like(targets), report.predictions.classes).data) == 0
    assert (
        len(precision_recall_figure(report.predictions.scores[:0], targets[:0], report.predictions.classes).data) == 0
    )


def test_class_bars_are_sorted_and_undefined_ones_last() -> None:
    per_class = {k: np.array([0.2, np.nan, 0.9]) for k in ("f1", "recall", "ap")} | {"support": np.array([4, 0, 5])}
    figure = class_bars(per_class, ["a", "b", "c"])
    assert list(figure.layout.yaxis.ticktext) == ["c (5)", "a (4)", "b (0)"]
    assert list(figure.data[0].x)[:2] == [0.9, 0.2]
    many = {k: np.linspace(0, 1, 90) for k in ("f1", "recall", "ap")} | {"support": np.ones(90, int)}
    assert list(class_bars(many, [str(k) for k in range(90)]).layout.yaxis.ticktext)[-1] == "0 (1)"
    assert len(class_bars(many, [str(k) for k in range(90)]).data[0].x) == 40


def test_curves_mark_the_best_epoch_and_leave_gaps() -> None:
    figure = curve_figure([{"epoch": 1, "a": 1.0}, {"epoch": 2}, {"epoch": 3, "a": 2.0}], ["a"], "t", best_epoch=3)
    assert list(figure.data[0].y) == [1.0, None, 2.0]
    assert figure.layout.shapes[0].x0 == 3
    assert "epoch 3" in figure.layout.annotations[0].text


def test_data_figures() -> None:
    counts = count_figure({"fold 1": np.array([1, 5]), "fold 2": np.array([1, 2])}, ["rare", "common"])
    assert list(counts.layout.yaxis.ticktext) == ["common", "rare"]
    assert [list(bar.x) for bar in counts.data] == [[5, 1], [2, 1]]
    assert counts.layout.barmode == "stack"
    assert int(np.sum(duration_figure(np.array([1.0, 2, 2, 5])).data[0].y)) == 4
    assert int(np.sum(duration_figure(np.full(7, 3.0)).data[0].y)) == 7


@pytest.mark.parametrize("n_samples", [0, 10, 999, 40_001])
def test_clip_figure_keeps_the_peaks(n_samples: int) -> None:
    wave = np.sin(np.arange(n_samples)).astype(np.float32)
    if n_samples:
        wave[n_samples // 2] = 3.0
    figure = clip_figure(wave, 8000, np.zeros((4, 7)), 64, frequencies=np.array([100.0, 200, 400, 800]))
    drawn = np.asarray(figure.data[0].y)
    assert len(drawn) <= 2002
    assert (drawn.max() == 3.0) if n_samples else len(drawn) == 0
    assert figure.data[1].x[1] == pytest.approx(64 / 8000)


def test_names_are_escaped_in_figures() -> None:
    figure = confusion_figure(np.eye(2, dtype=int), [NASTY, "b"])
    assert "<b>" not in figure.to_json()
    assert html.unescape(figure.data[0].y[0]).startswith("</script>")


# --- page


def test_page_escapes_all_text(tmp_path: Path) -> None:
    report = example()
    report = dataclasses.replace(
        report,
        title=NASTY,
        predictions=dataclasses.replace(report.predictions, classes=(NASTY, "b", "c", "d"), clips=(NASTY,) * 60),
        config={NASTY: NASTY},
        facts={NASTY: NASTY},
    )
    page = run_report(report, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    assert os.listdir(tmp_path) == ["page.html"]
    reader = Reader(page)
    assert "b" not in reader.tags
    figures = len(figures_in(page))
    assert reader.tags.count("script") == figures + 2  # each figure's data, plotly, and the page's own
    assert page.count("document.title='owned'") == 0
    assert reader.text.count(NASTY) > 5
    assert len(figures_in(page)) == len(run_figures(report))


def test_page_holds_plotly_once_and_needs_no_network() -> None:
    page = run_report(example())
    packed = re.findall(r'id="plotly-gz">([^<]*)<', page)
    assert len(packed) == 1
    assert b"plotly.js v" in gzip.decompress(base64.b64decode(packed[0]))[:200]
    assert len(page) < 2.6e6
    reader = Reader(page)
    assert not {"link", "iframe", "img"} & set(reader.tags)
    assert reader.all("src") == []
    assert all(target.startswith("#") for target in reader.all("href"))
    assert "@import" not in page
    assert "url(" not in page


def test_page_without_figures_is_small() -> None:
    page = render_page("t", [Section("only text", ["one\n\ntwo", Cards({"map": 0.5})])])
    assert len(page) < 20_000
    assert "<p>one</p>\n<p>two</p>" in page


def test_contents_link_to_every_section_even_of_equal_names() -> None:
    page = render_page("t", [Section("Data"), Section("Data"), Section("日本")])
    reader = Reader(page)
    ids = [value for value in reader.all("id") if value != "plotly-gz"]
    assert reader.all("href") == [f"#{i}" for i in ids]
    assert len(set(ids)) == 3


def test_table_cells() -> None:
    rows: list[list[Any]] = [[1, np.float32(0.25), "x"], [None, math.nan, True], [3, math.inf, None]]
    page = render_page("t", [Section("s", [Table(("a", "b", "c"), rows)])])
    assert '<td class="n" data-v="0.25">0.250</td>' in page
    assert '<td class="n" data-v="nan">–</td>' in page
    assert '<td class="n" data-v="Infinity">∞</td>' in page
    assert '<td class="n" data-v=""></td>' in page
    assert "<td>yes</td>" in page
    with pytest.raises(ValueError, match=r"row 1 .* 1 cells for 2 columns"):
        render_page("t", [Section("s", [Table(("a", "b"), [(1, 2), (3,)])])])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.12345, "0.123"), (0.0, "0.000"), (1e-5, "1e−05"), (-2.5, "−2.500"), (1234567.0, "1.23e+06"), (-math.inf, "−∞")],
)
def test_format_number(value: float, shown: str) -> None:
    assert format_number(value) == shown


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_run_report_says_what_was_reached(task: str) -> None:
    report = example(task)
    page = run_report(report)
    reader = Reader(page)
    overall = evaluate(
        report.predictions.scores, report.predictions.targets, task, thresholds=report.predictions.thresholds
    ).overall
    for key, value in overall.items():
        assert f"<dt>{key}</dt><dd>{value:.3f}</dd>" in page
    assert "<div class=chosen><dt>macro_f1" in page
    assert "is epoch 3." in reader.text
    assert "augment.mixup" in reader.text
    assert "<td>none</td>" in page
    assert ("threshold" in reader.text) == (task == "multilabel")
    names = set(run_figures(report))
    assert names == set(ON_THE_PAGE)
    assert [t.name for t in run_figures(report)["curves_metrics"].data] == ["val/macro_f1"]  # no lr, no d'


def test_most_certain_mistake_comes_first() -> None:
    scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]])
    targets = np.array([[0, 1], [1, 0], [1, 0]])
    report = dataclasses.replace(example(), predictions=made(scores, targets, clips=["p", "q", "r"]))
    page = run_report(report)
    assert "2 of 2 wrong clips" in page
    assert page.index("<td>p</td>") < page.index("<td>q</td>")
    assert "<td>r</td>" not in page


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("spoil", ["nan", "empty", "one class", "no curves", "absent"])
def test_odd_runs_still_have_a_report(task: str, spoil: str) -> None:
    report = example(task)
    scores, targets = report.predictions.scores.copy(), report.predictions.targets.copy()
    if spoil == "nan":
        scores[3, 1] = np.nan
    if spoil == "absent":
        keep = targets[:, 2] == 0
        scores, targets = scores[keep], targets[keep]
    if spoil == "empty":
        scores, targets = scores[:0], targets[:0]
    if spoil == "one class":
        scores, targets = scores[:, :1], np.ones_like(targets[:, :1])  # without negatives: no AUC
    one = spoil == "one class"
    predictions = made(
        scores, targets, task, ["only"] if one else (), thresholds=None if one else report.predictions.thresholds
    )
    report = dataclasses.replace(report, predictions=predictions)
    if spoil == "no curves":
        report = dataclasses.replace(report, curves=(), config={}, facts={})
    page = run_report(report)
    drawn = {"nan": 9, "empty": 8, "one class": 8, "no curves": 6, "absent": 9}[spoil]  # pairs, where any were confused
    assert len(figures_in(page)) == drawn
    assert ("–" in page) == (spoil in ("nan", "empty", "one class", "absent"))


def test_best_epoch() -> None:
    curves = [{"epoch": 1, "val/loss": math.nan}, {"epoch": 2, "val/loss": 0.5}, {"epoch": 3, "val/loss": 0.5}]
    assert best_epoch(curves, "val/loss") == 2
    assert best_epoch([{"epoch": e, "val/map": e} for e in (0, 1, 2)], "val/map") == 2
    assert best_epoch(curves, "val/map") is None
    with pytest.raises(UserError, match="macro_f1"):
        best_epoch(curves, "val/f1_macro")


# --- CSV


def test_predictions_csv() -> None:
    scores = np.array([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])
    text = predictions_csv(made(scores, np.eye(3)[[1, 2]], classes=["a", "b,b", "c"], clips=["x,1", 'y"2']))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["clip"] for row in rows] == ["x,1", 'y"2']
    assert rows[0] == {
        "clip": "x,1", "true": "b,b", "predicted": "b,b", "correct": "yes", "margin": "0.2",
        "class_1": "b,b", "score_1": "0.5", "class_2": "c", "score_2": "0.3", "class_3": "a", "score_3": "0.2",
    }  # fmt: skip
    assert (rows[1]["true"], rows[1]["predicted"], rows[1]["correct"]) == ("c", "a", "no")


def test_predictions_csv_of_labels_uses_the_thresholds() -> None:
    scores, targets = np.array([[0.2, 0.45], [0.6, 0.3]]), np.array([[0, 1], [1, 1]])
    text = predictions_csv(made(scores, targets, "multilabel", ["a", "b"], thresholds=np.array([0.5, 0.4])))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(r["true"], r["predicted"], r["correct"]) for r in rows] == [("b", "b", "yes"), ("a;b", "a", "no")]
    assert [float(r["margin"]) for r in rows] == pytest.approx([0.05, 0.1])
    assert "class_3" not in rows[0]


def test_decision_margin_of_one_class_is_not_defined() -> None:
    assert np.isnan(decision_margin(np.ones((2, 1)), "multiclass")).all()


def test_per_class_and_confusion_csv() -> None:
    evaluation = evaluate(np.eye(3)[[0, 0, 1]], np.eye(3)[[0, 1, 1]], "multiclass")
    rows = list(csv.DictReader(io.StringIO(per_class_csv(evaluation, ["a", "b", "c"]))))
    assert [row["support"] for row in rows] == ["1", "2", "0"]
    assert rows[2]["recall"] == ""
    assert float(rows[1]["recall"]) == 0.5
    assert confusion_csv(np.array([[1, 2], [3, 4]]), ["a", "b,c"]) == 'true\\predicted,a,"b,c"\na,1,2\n"b,c",3,4\n'


# --- in a browser

PROBE = """<script>
const errors = [];
addEventListener("error", (e) => errors.push(e.message));
addEventListener("unhandledrejection", (e) => errors.push(String(e.reason)));
function probe() {
  const drawn = document.documentElement.dataset.figures;
  if (!drawn) return setTimeout(probe, 100);
  const table = document.querySelector("table");
  const column = (k) => [...table.tBodies[0].rows].map((row) => row.cells[k].textContent);
  const folds = [...document.querySelectorAll("details .figure")];
  if (folds.length && !document.querySelector("details").open) {
    document.querySelectorAll("nav a")[1].click();
    return setTimeout(probe, 1500);
  }
  const click = (k) => (table.tHead.rows[0].cells[k].querySelector("button").click(), column(0));
  parent.postMessage(JSON.stringify({
    drawn, errors, by_number: click(1), by_number_again: click(1), by_name: click(0), title: document.title,
    plots: document.querySelectorAll(".js-plotly-plot .main-svg").length, text: document.querySelector(".figure").textContent,
    opened: folds.map((div) => div.querySelector(".main-svg").getBoundingClientRect().width),
    overflow: document.documentElement.scrollWidth - innerWidth, buttons: document.querySelectorAll(".modebar-btn").length,
  }), "*");
}
probe();
</script>"""


@pytest.mark.slow
def test_page_draws_and_sorts_in_a_sandboxed_frame(tmp_path: Path) -> None:
    """As MLflow shows an artifact: a blob in a frame that may only run scripts; 390 pixels wide, as a phone."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium here")
    table = Table(("name", "value"), [["b10", 0.5], ["a", math.nan], ["b9", math.inf], ["c", -3.0]])
    sections = [Section("one", [table, confusion_figure(np.eye(2, dtype=int), [NASTY, "b"])])]
    sections.append(Section("two", list(run_figures(example()).values()), folded=True))
    page = render_page(NASTY, sections) + PROBE
    packed = base64.b64encode(page.encode()).decode()
    wrapper = f"""<!doctype html><meta charset="utf-8">
        <iframe id="f" sandbox="allow-scripts" style="width:390px;height:4000px"></iframe><script>
        addEventListener("message", (e) => fetch("/result", {{ method: "POST", body: e.data }}));
        const text = new TextDecoder().decode(Uint8Array.from(atob("{packed}"), (c) => c.charCodeAt(0)));
        document.getElementById("f").src = URL.createObjectURL(new Blob([text], {{ type: "text/html" }}));</script>"""
    results: list[dict[str, Any]] = []
    arrived = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(wrapper.encode() if self.path == "/" else b"")

        def do_POST(self) -> None:
            results.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer(b"")
            arrived.set()

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    process = subprocess.Popen(
        [*command, "--remote-debugging-port=0", f"http://127.0.0.1:{server.server_port}/"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert arrived.wait(60), "the page did not finish drawing"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        server.shutdown()
        server.server_close()
    result = results[0]
    assert result["errors"] == []
    assert result["drawn"] == "10/10"
    assert result["plots"] >= 7
    folded = len(run_figures(example()))
    assert (
        len(result["opened"]) == folded
    )  # drawn while they were folded away, and as wide as the page once its link is followed
    assert all(250 < width <= 390 for width in result["opened"])
    assert result["by_number"] == ["b9", "b10", "c", "a"]  # falling first, undefined last
    assert result["by_number_again"] == ["c", "b10", "b9", "a"]
    assert result["by_name"] == ["a", "b9", "b10", "c"]
    assert result["title"] == NASTY
    assert "</script>" in result["text"]  # the class is shown under its literal name
    assert result["overflow"] <= 0
    assert result["buttons"] == 0
