"""What a suite leaves to the data, chosen for its corpus: of the base first, then of each arm after its overrides."""

from __future__ import annotations

from dataclasses import replace

from audio_cls.ablation.declaration import Ablation
from audio_cls.core.auto import AUTO
from audio_cls.data.corpus import Corpus
from audio_cls.experiment import Experiment
from audio_cls.runs.resolve import RULES, Resolved, resolve

__all__ = ["settle"]


def settle(ablation: Ablation, corpus: Corpus, rules: int = RULES) -> tuple[Ablation, Resolved]:
    """Return the suite on a corpus, and what was chosen for its base.

    The base is resolved before an arm's overrides are applied, so that an arm which changes `features.n_mels` keeps the base's
    hop. `folds="all"` of a split without folds (an official one) is that one split.

    Args:
        rules: the version of the rules that the suite was started with.

    Raises:
        UserError: for a corpus that no split fits, and folds that the split does not have.
    """

    def complete(experiment: Experiment) -> Experiment:
        return resolve(experiment, corpus, rules=rules).experiment

    resolved = resolve(ablation.base, corpus, rules=rules)
    folds = ablation.folds
    scheme = resolved.experiment.data.split
    left_to_data = ablation.base.data.split.kind == AUTO
    if folds == "all" and not (scheme.folds(corpus) if left_to_data else scheme.fold_key):
        folds = None
    return replace(ablation, base=resolved.experiment, folds=folds, complete=complete), resolved
