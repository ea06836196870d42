"""How often a suite of arms that are equally good is told otherwise: simulated suites through `compare` and `verdicts`.

    OMP_NUM_THREADS=1 python benchmarks/false_verdicts.py [--repeats 400]

About 2 minutes on one core. Every run is a set of right and wrong answers on test clips, drawn from a logistic model in
which clips differ in difficulty and each arm has its own effects of seed (alike in all folds) and of run:

    identical    the arms differ by seed noise only (an A/A suite)
    equal worth  besides, the arms get different clips right, and profit differently from a training set, of which K folds
                 share all but 1/(K - 1); on average over clips and training sets they are equally good

Prints the share of suites with at least one false verdict ("helps" or "hurts"; five arms after Holm), with a 95 % binomial
interval; "no difference" where the true difference is exactly the margin; how often intervals cover the truth; how often
3 points are found; and what other tests would say of the same figures. Ends with an error when a share is above
`--at-most` (0.05) by more than chance allows.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from audio_cls.metrics.crossed import estimate_mean
from audio_cls.metrics.paired import Comparison, compare
from audio_cls.metrics.verdict import MARGIN, Verdict, verdicts

Figures = NDArray[np.float64]

DIFFICULTY, RUN, SEED = 4.0, 0.3, 0.1  # standard deviations, in logits (0.1 is about half a point)
CLIP_BY_ARM, SPLIT_BY_ARM = 1.5, 0.1  # of arms that differ
LEVEL = 3.7  # mean logit: an accuracy of about 0.8, and two runs of an arm disagree on one clip in ten


def simulate(
    rng: np.random.Generator, repeats: int, arms: int, seeds: int, folds: int, clips: int, differ: float
) -> Figures:
    """Accuracies, (repeats, arms, seeds, folds), of arms that are equally good on average.

    differ: 0 for identical arms; else a factor on the training set's effect.
    """
    logits = LEVEL + rng.normal(0, DIFFICULTY, (repeats, 1, 1, folds, clips))
    logits = logits + rng.normal(0, SEED, (repeats, arms, seeds, 1, 1))
    logits = logits + rng.normal(0, RUN, (repeats, arms, seeds, folds, 1))
    if differ:
        shared = (folds - 2) / (folds - 1) if folds > 1 else 0.0
        split = np.sqrt(shared) * rng.normal(size=(repeats, arms, 1, 1, 1))
        split = split + np.sqrt(1 - shared) * rng.normal(size=(repeats, arms, 1, folds, 1))
        logits = logits + differ * SPLIT_BY_ARM * split + rng.normal(0, CLIP_BY_ARM, (repeats, arms, 1, folds, clips))
    right = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    accuracy: Figures = right.mean(axis=-1)
    return accuracy


def judge(figures: Figures, shift: float = 0.0) -> tuple[dict[str, Comparison], dict[str, Verdict]]:
    """One suite, (1 + arms, seeds, folds), the first of which is the reference; `shift` is added to the arms."""
    _, seeds, folds = figures.shape
    ratio = 1 / (folds - 1) if folds > 1 else 0.25
    cells = [(s, k) for s in range(seeds) for k in range(folds)]
    by_cell = [dict(zip(cells, arm.ravel().tolist(), strict=True)) for arm in figures]
    comparisons = {
        f"arm{i}": compare({c: v + shift for c, v in arm.items()}, by_cell[0], test_to_train=ratio)
        for i, arm in enumerate(by_cell[1:], 1)
    }
    return comparisons, verdicts(comparisons)


def other_tests(figures: Figures) -> dict[str, float]:
    """The share of p < 0.05 by other tests on the first arm's differences of every suite."""
    d = figures[:, 1] - figures[:, 0]
    repeats, seeds, folds = d.shape
    n, mean, by_fold = seeds * folds, d.mean(axis=(1, 2)), d.mean(axis=1)
    total, between = d.reshape(repeats, -1).var(axis=1, ddof=1), by_fold.var(axis=1, ddof=1)
    ratio = 1 / (folds - 1)
    cells = [(s, k) for s in range(seeds) for k in range(folds)]
    ours = estimate_mean(cells, d.reshape(repeats, -1), ratio)

    def share(variance: Figures, df: float | Figures) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            return float((2 * stats.t.sf(np.abs(mean) / np.sqrt(variance), df) < 0.05).mean())

    return {
        "variance components (ours)": share(ours.variance, ours.df),
        "seeds averaged, Nadeau-Bengio over folds": share(between * (1 / folds + ratio), folds - 1),
        "seeds averaged, t over folds": share(between / folds, folds - 1),
        "Bouckaert-Frank over all runs": share(total * (1 / n + ratio), n - 1),
        "paired t over all runs": share(total / n, n - 1),
    }


def correlation(figures: Figures) -> float:
    """Between folds, of the seed-averaged differences (whose true mean is 0), over all suites."""
    d = (figures[:, 1] - figures[:, 0]).mean(axis=1)
    folds = d.shape[1]
    return float(((d.sum(axis=1) ** 2).mean() / (d**2).sum(axis=1).mean() - 1) / (folds - 1))


def told(count: int, of: int) -> str:
    interval = stats.binomtest(count, of).proportion_ci(0.95)
    return f"{100 * count / of:5.1f} %  [{100 * interval.low:.1f}, {100 * interval.high:.1f}]  ({count} of {of})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--clips", type=int, default=80, help="test clips of a fold")
    parser.add_argument("--at-most", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, began, too_many = np.random.default_rng(options.seed), time.monotonic(), False

    def check(count: int, of: int) -> str:
        nonlocal too_many
        above = stats.binomtest(count, of, options.at_most, alternative="greater").pvalue < 0.01
        too_many = too_many or above
        return told(count, of) + ("  TOO MANY" if above else "")

    for differ, name in ((0.0, "identical"), (1.0, "equal worth")):
        for seeds, folds in ((3, 5), (1, 5), (5, 1), (3, 10)):
            if differ and folds == 1:
                continue  # one split cannot speak of others, and does not claim to
            print(f"\n{name}, {seeds} seeds x {folds} folds, {options.clips} clips each")
            for arms in (1, 5):
                figures = simulate(rng, options.repeats, arms + 1, seeds, folds, options.clips, differ)
                suites = [judge(f) for f in figures]
                false = sum(any(v.word in ("helps", "hurts") for v in judged.values()) for _, judged in suites)
                print(f"  false verdict, {arms} arm{'s' * (arms > 1)}:       {check(false, len(suites))}")
                if arms > 1:
                    continue
                every = [c for comparisons, _ in suites for c in comparisons.values()]
                covered = sum(c.low <= 0 <= c.high for c in every if c.decidable)
                print(f"  interval covers the truth:  {told(covered, sum(c.decidable for c in every))}")
                equal = sum(judge(f, MARGIN)[1]["arm1"].word == "no difference" for f in figures)
                print(f"  'no difference' at margin:  {check(equal, len(suites))}")
                found = sum(judge(f, 0.03)[1]["arm1"].word == "helps" for f in figures)
                print(f"  3 points found:             {told(found, len(suites))}")

    for seeds, folds in ((3, 5), (10, 5), (3, 10)):
        print(f"\nshare of p < 0.05 by test, 5,000 suites of one arm, {seeds} seeds x {folds} folds")
        print(f"  {'':42s} identical  equal worth  and training sets matter 3 times as much")
        shares, correlations = [], []
        for differ in (0.0, 1.0, 3.0):
            batches = [simulate(rng, 100, 2, seeds, folds, options.clips, differ) for _ in range(50)]
            shares.append(other_tests(np.concatenate(batches)))
            correlations.append(correlation(np.concatenate(batches)))
        for test in shares[0]:
            print(f"  {test:42s}" + "".join(f"{100 * share[test]:9.1f} %" for share in shares))
        measured = "".join(f"{value:11.2f}" for value in correlations)
        print(f"  {'correlation between folds':42s}{measured}  (Nadeau-Bengio suppose {1 / folds:.2f})")
    print(f"\n{time.monotonic() - began:.0f} s")
    return 1 if too_many else 0


if __name__ == "__main__":
    sys.exit(main())
