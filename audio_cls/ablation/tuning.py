"""An equal search for each arm of a suite before it runs, so that no arm is judged by settings that suit another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from audio_cls.ablation.contract import check_plan
from audio_cls.ablation.declaration import Ablation, load_ablation
from audio_cls.ablation.settling import settle
from audio_cls.ablation.stored import store_state
from audio_cls.ablation.suite import Suite, tuned
from audio_cls.core.config import Component, parse_assignment
from audio_cls.core.device import choose_device
from audio_cls.core.errors import UserError
from audio_cls.core.notices import say
from audio_cls.core.rng import TUNING_OFFSET
from audio_cls.core.stopping import Interrupted
from audio_cls.experiment import Experiment
from audio_cls.metrics.classification import check_metric
from audio_cls.queue.options import QueueOptions
from audio_cls.queue.process import Session, Worked, WorkTarget
from audio_cls.queue.storage import open_study
from audio_cls.queue.supervisor import run_workers
from audio_cls.study.declaration import TPE, TRAINING, NoPruning, Settled, Study
from audio_cls.study.losses import check_losses
from audio_cls.study.opening import PARENT
from audio_cls.study.search import open_parent, study_identity, trial_objective
from audio_cls.study.versions import stored_identity
from audio_cls.training.rules import FORMER, RULES

__all__ = ["arm_search", "tune_arms"]


def tune_arms(suite: Suite, options: QueueOptions) -> Suite:
    """Search for every arm that has not been searched for yet. Returns the suite with what was found in its plan.

    Each arm gets a study `SUITE.ARM` of the same sampler, space and number of trials, on the first fold and a seed outside the
    grid, worked by `options.workers` processes.

    Raises:
        UserError: where a search finds nothing, or what it finds breaks the contract.
        Interrupted: when asked to leave; the same command continues.
    """
    ablation, tune, storage = suite.ablation, suite.ablation.tune, suite.storage
    assert tune is not None
    assert storage is not None
    if suite.file is None:
        raise UserError(
            f"ablation {ablation.name!r}: tune=... needs a file that declares the suite, from which workers take the space: "
            "put it into a .py file, or leave tune out"
        )
    seed, fold = max(ablation.seeds) + TUNING_OFFSET, suite.plan.folds[0]
    for arm in ablation.arms:
        if arm in suite.state.tuned:
            continue
        begun = stored_identity(f"{ablation.name}.{arm}", storage)
        training = RULES if begun is None else int(begun.get(TRAINING, FORMER))
        study = _study(ablation, (arm, seed, fold), suite.state.data_rules, training)
        say(f"{study.name}: searching, {tune.trials} trials")
        identity = study_identity(suite.corpus)
        if begun is None:
            check_losses(study)
        opened = open_study(study, storage, extra=identity)
        parent = open_parent(suite.tracker, study, suite.corpus, suite.file, opened.user_attrs.get(PARENT))
        opened.set_user_attr(PARENT, parent.id)
        parent.tags({"ablation.suite": ablation.name, "ablation.arm": arm})
        arguments = {
            "file": str(suite.file),
            "assignments": list(suite.assignments),
            "cell": {"arm": arm, "seed": seed, "fold": fold},
            "rules": suite.state.data_rules,
            "training": training,
            "parent": parent.id,
        }
        target = WorkTarget(f"{__name__}:arm_search", arguments)
        status = run_workers(study, suite.workspace, tune.trials, target, options, identity=identity)
        if status.finished < tune.trials:
            parent.finish("INTERRUPTED", f"{status.finished} of {tune.trials} trials")
            suite.tracker.flush()
            raise Interrupted(f"{study.name}: {status.finished} of {tune.trials} trials; the same command goes on")
        if status.best is None:
            parent.finish("FAILED", "no complete trial")
            raise UserError(
                f"{study.name}: none of {tune.trials} trials is complete: audio-cls study status {study.name}"
            )
        found: dict[str, Any] = dict(status.best.record.overrides)
        parent.finish("COMPLETE")
        suite.state.tuned[arm] = found
        store_state(suite.state, storage, lambda: None)
        say(f"{study.name}: {study.metric} {status.best.value:.4f} with {found}")
    plan = check_plan(tuned(ablation, suite.state), suite.corpus, choose_device(options.device))
    return replace(suite, plan=plan)


def arm_search(
    session: Session,
    file: str,
    assignments: Sequence[str],
    cell: Mapping[str, Any],
    rules: int,
    training: int,
    parent: str,
) -> Worked:
    """Return the search of an arm for a worker process; see `queue.process.WorkTarget`."""
    runtime = session.runtime()
    declared = load_ablation(Path(file))
    declared = replace(declared, base=declared.base.override(dict(parse_assignment(a) for a in assignments)))
    corpus = runtime.corpus(declared.base.data)
    ablation, _ = settle(declared, corpus, rules)
    study = _study(ablation, (cell["arm"], cell["seed"], cell["fold"]), rules, training)
    objective = trial_objective(runtime, study, parent, Path(file))
    return Worked(study, objective, study_identity(corpus), runtime.tracker.flush)


def _study(ablation: Ablation, place: tuple[str, int, int], rules: int, training: int) -> Study:
    """Return the search of an (arm, seed, fold), by versions of the rules for the data and for the training."""
    arm, seed, fold = place
    tune = ablation.tune
    assert tune is not None

    def complete(experiment: Component) -> Component:
        assert isinstance(experiment, Experiment)
        return experiment if ablation.complete is None else ablation.complete(experiment)

    base = ablation.experiment(arm, seed, fold)
    metric = base.training.metric
    return Study(
        f"{ablation.name}.{arm}", base, tune.space, metric, check_metric(metric), TPE(seed=tune.seed), NoPruning(),
        settled=Settled(rules, complete, training=training),
    )  # fmt: skip
