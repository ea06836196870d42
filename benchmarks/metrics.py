"""The time of our mAP, AUC and lwlrap against scikit-learn's, on the same predictions, interleaved in one run.

    OMP_NUM_THREADS=1 python benchmarks/metrics.py [--clips 10000] [--classes 200] [--rounds 5]

About 15 seconds on one core. Prints the medians and their ratio for scores without and with many ties and ends with an
error when a value differs from scikit-learn's by more than rounding or the ratio is below `--at-least` (20).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, roc_auc_score

from audio_cls.metrics.classification import evaluate
from audio_cls.metrics.ranking import average_precision, lwlrap, rank, roc_auc

Values = tuple[float, float, float]


def ours(scores: np.ndarray, targets: np.ndarray) -> Values:
    pairs = np.array([(average_precision(r), roc_auc(r)) for r in rank(scores, targets)])
    return float(pairs[:, 0].mean()), float(pairs[:, 1].mean()), lwlrap(scores, targets)[0]


def everything(scores: np.ndarray, targets: np.ndarray) -> Values:
    overall = evaluate(scores, targets, "multilabel").overall
    return overall["map"], overall["auc"], overall["lwlrap"]


def reference(scores: np.ndarray, targets: np.ndarray) -> Values:
    return (
        float(average_precision_score(targets, scores, average="macro")),
        float(roc_auc_score(targets, scores, average="macro")),
        float(label_ranking_average_precision_score(targets, scores, sample_weight=targets.sum(axis=1))),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--labels", type=float, default=3.9, help="mean number of labels of a clip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-least", type=float, default=20.0)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    targets = (rng.random((asked.clips, asked.classes)) < asked.labels / asked.classes).astype(np.int8)
    logits = rng.standard_normal((asked.clips, asked.classes)) + 1.5 * targets
    smooth = (1 / (1 + np.exp(-logits))).astype(np.float32)
    routes: dict[str, Callable[[np.ndarray, np.ndarray], Values]] = {
        "scikit-learn": reference,
        "mAP + AUC + lwlrap": ours,
        "evaluate(), all metrics": everything,
    }
    failed = False
    for name, scores in {
        "float32": smooth,
        "float64": smooth.astype(np.float64),
        "2 decimals": smooth.round(2),
    }.items():
        seconds: dict[str, list[float]] = {route: [] for route in routes}
        values: dict[str, Values] = {}
        for _ in range(asked.rounds):
            for route, run in routes.items():
                start = time.perf_counter()
                values[route] = run(scores, targets)
                seconds[route].append(time.perf_counter() - start)
        base = statistics.median(seconds["scikit-learn"])
        print(f"{asked.clips} x {asked.classes}, {name}: scikit-learn {1e3 * base:.0f} ms")
        for route in list(routes)[1:]:
            took = statistics.median(seconds[route])
            off = max(abs(a - b) for a, b in zip(values[route], values["scikit-learn"]))
            print(f"  {route:<24} {1e3 * took:7.1f} ms  {base / took:6.1f} times as fast  largest difference {off:.1e}")
            failed |= off > 1e-12 or base / took < asked.at_least
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
