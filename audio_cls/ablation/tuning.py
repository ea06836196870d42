"""An equal search for each arm of a suite before it runs, so that no arm is judged by settings that suit another one."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from audio_cls.ablation.contract import check_plan
from audio_cls.ablation.record import write_suite
from audio_cls.ablation.running import Suite, tuned
from audio_cls.core.config import Component
from audio_cls.core.errors import UserError
from audio_cls.core.notices import progress, say
from audio_cls.core.stopping import GRACE_SECONDS, StopRequest, Watch
from audio_cls.experiment import Experiment

__all__ = ["tune_arms"]

FAR = 1000  # seeds of the search lie so far behind the grid's


def tune_arms(suite: Suite, file: Path, *, device: str, grace: float = GRACE_SECONDS) -> Suite:
    """Search for every arm that has not been searched for yet; the suite with what was found in its plan.

    Each arm gets a study `SUITE.ARM` of the same sampler, space and number of trials, on the first fold and a seed outside the grid.

    Raises:
        UserError: where a search finds nothing, or what it finds breaks the contract.
        SystemExit: 130 when interrupted; the same command goes on.
    """
    from audio_cls.core.device import choose_device, tune_process
    from audio_cls.metrics.classification import check_metric
    from audio_cls.queue.status import study_status
    from audio_cls.queue.storage import open_storage, open_study
    from audio_cls.queue.worker import Shift, run_worker
    from audio_cls.runs.preparation import Runtime
    from audio_cls.study.declaration import TPE, NoPruning, Settled, Study
    from audio_cls.study.opening import PARENT
    from audio_cls.study.search import open_parent, study_identity, trial_objective

    ablation, tune = suite.ablation, suite.ablation.tune
    assert tune is not None
    tune_process()
    runtime = Runtime(suite.workspace, suite.tracker, choose_device(device))
    runtime.corpora[suite.corpus.name] = suite.corpus

    def complete(experiment: Component) -> Component:
        assert isinstance(experiment, Experiment)
        return experiment if ablation.complete is None else ablation.complete(experiment)

    for arm in ablation.arms:
        if arm in suite.state.tuned:
            continue
        base = ablation.experiment(arm, max(ablation.seeds) + FAR, suite.plan.folds[0])
        metric = base.training.metric
        study = Study(
            f"{ablation.name}.{arm}", base, tune.space, metric, check_metric(metric), TPE(seed=tune.seed), NoPruning(),
            settled=Settled(suite.state.data_rules, complete),
        )  # fmt: skip
        say(f"{study.name}: searching, {tune.trials} trials")
        identity = study_identity(suite.corpus)
        opened = open_study(study, open_storage(suite.workspace.optuna_db), extra=identity)
        parent = open_parent(suite.tracker, study, suite.corpus, file, opened.user_attrs.get(PARENT))
        opened.set_user_attr(PARENT, parent.id)
        parent.tags({"ablation.suite": ablation.name, "ablation.arm": arm})
        logging.getLogger("audio_cls").setLevel(logging.WARNING)
        objective = trial_objective(runtime, study, parent.id, file)
        with StopRequest(grace=grace) as stop, progress(study.name) as show:
            runtime.watch = Watch(stop, show.phase)
            run_worker(study, suite.workspace.root, tune.trials, objective, identity=identity, shift=Shift(stop=stop))
        status = study_status(opened, tune.trials)
        if status.finished < tune.trials:
            parent.finish("INTERRUPTED", f"{status.finished} of {tune.trials} trials")
            say(f"{study.name}: {status.finished} of {tune.trials} trials; the same command goes on")
            raise SystemExit(130)
        if status.best is None:
            parent.finish("FAILED", "no complete trial")
            raise UserError(
                f"{study.name}: none of {tune.trials} trials is complete: audio-cls study status {study.name}"
            )
        found: dict[str, Any] = dict(status.best.record.overrides)
        parent.finish("COMPLETE")
        suite.state.tuned[arm] = found
        write_suite(suite.workspace, suite.state)
        say(f"{study.name}: {metric} {status.best.value:.4f} with {found}")
    return replace(suite, plan=check_plan(tuned(ablation, suite.state), suite.corpus, runtime.device))
