"""A plain Optuna study over audio_cls: any sampler, pruner, storage and callback of Optuna's.

    python examples/plain_optuna.py

Cost: under a minute on two cores, on sounds that the script makes itself. Expect a best val/macro_f1 of about 0.9 to 1.0.
Everything is kept in the folder plain_optuna: run it again, and six more trials join the study.
"""

from __future__ import annotations

from typing import Any

import optuna

import audio_cls as ac

PLACE = ac.Workspace("plain_optuna")
BASE = ac.Experiment().override(
    {"data.corpus": "sounds", "data.clip_seconds": 0.5, "features.n_mels": 32, "training.epochs": 8}
)


def space(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "optimizer.lr": trial.suggest_float("lr", 1e-4, 3e-2, log=True),
        "augment.mixup": trial.suggest_categorical("mixup", ["on", "none"]),
    }


def announce(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    run = ac.open_run(trial.user_attrs["mlflow_run_id"], workspace=PLACE)
    print(f"trial {trial.number}: {trial.state.name}, {len(run.history)} epochs, run {run.id[:8]}")


if not (PLACE.corpora / "sounds").exists():
    wav = ac.generate(PLACE.root / "wav", n_clips=120, clip_seconds=0.5, classes=("rain", "siren", "bird"))
    ac.prepare(wav, name="sounds", workspace=PLACE)

study = optuna.create_study(
    study_name="plain",
    storage=f"sqlite:///{PLACE.root}/plain.db",
    load_if_exists=True,
    direction="maximize",
    sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=4),
    pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2),
)
study.optimize(ac.objective(BASE, space, workspace=PLACE), n_trials=6, callbacks=[announce], catch=(ac.RunFailed,))
print(f"best val/macro_f1 {study.best_value:.3f} with {study.best_params}")
