"""Metrics, rankings, and the statistics of comparisons: intervals, paired tests, verdicts. Imports `core` only."""
