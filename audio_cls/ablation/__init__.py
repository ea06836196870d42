"""Suites of runs that are compared: arms, folds, seeds, confirmed trials. Law: comparable or refused; a suite is the queue, and is judged whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio_cls.core.lazy import face

if TYPE_CHECKING:
    from audio_cls.ablation.confirmation import confirm as confirm
    from audio_cls.ablation.confirmation import plan_confirmation as plan_confirmation
    from audio_cls.ablation.cross_validation import cross_validate as cross_validate
    from audio_cls.ablation.cross_validation import plan_cross_validation as plan_cross_validation
    from audio_cls.ablation.declaration import Ablation as Ablation
    from audio_cls.ablation.declaration import load_ablation as load_ablation
    from audio_cls.ablation.results import SuiteResult as SuiteResult
    from audio_cls.ablation.running import run_suite as run_suite
    from audio_cls.ablation.suite import Suite as Suite
    from audio_cls.ablation.suite import open_suite as open_suite
    from audio_cls.ablation.suite import reopen_suite as reopen_suite

__getattr__, __dir__, __all__ = face(__name__, __file__)
