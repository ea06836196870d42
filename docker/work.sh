#!/usr/bin/env bash
# Any audio-cls command in the workspace, on the shared databases:   work study run studies/demo.py --trials 100 --workers 2
set -euo pipefail

if [ -n "${OPTUNA_DB_PASSWORD_FILE:-}" ]; then
    OPTUNA_DB_PASSWORD="$(cat "$OPTUNA_DB_PASSWORD_FILE")"
fi
PGPASSWORD="${OPTUNA_DB_PASSWORD:?OPTUNA_DB_PASSWORD or OPTUNA_DB_PASSWORD_FILE is needed}"
export PGPASSWORD
unset OPTUNA_DB_PASSWORD
export AUDIO_CLS_STORAGE="postgresql://${OPTUNA_DB_USER:-optuna}@${DB_HOST:-db}:${DB_PORT:-5432}/${OPTUNA_DB_NAME:-optuna}"
export AUDIO_CLS_TRACKING="${AUDIO_CLS_TRACKING-http://mlflow:5000}"
export AUDIO_CLS_WORKSPACE="${AUDIO_CLS_WORKSPACE:-/workspace}"

# In the place of this shell: a signal to the container is one to the supervisor, which lets the workers finish their epoch.
exec "${PYTHON:-python}" -m audio_cls.cli "$@"
