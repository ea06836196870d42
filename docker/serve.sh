#!/usr/bin/env bash
# The MLflow server: runs in PostgreSQL, artifacts in its own folder and handed out by it, so that no path of this machine is stored.
set -euo pipefail

secret() { # the value of $1, or what the file $1_FILE holds
    local file="$1_FILE"
    if [ -n "${!file:-}" ]; then cat "${!file}"; else printf '%s' "${!1:?$1 or $1_FILE is needed}"; fi
}

# libpq reads the password from here: it stands neither in an address nor on a command line.
PGPASSWORD="$(secret MLFLOW_DB_PASSWORD)"
export PGPASSWORD
export MLFLOW_BACKEND_STORE_URI="postgresql+psycopg://${MLFLOW_DB_USER:-mlflow}@${DB_HOST:-db}:${DB_PORT:-5432}/${MLFLOW_DB_NAME:-mlflow}"

exec "${PYTHON:-python}" -m mlflow server \
    --backend-store-uri "$MLFLOW_BACKEND_STORE_URI" \
    --artifacts-destination "${MLFLOW_ARTIFACTS:-/artifacts}" \
    --host "${MLFLOW_HOST:-0.0.0.0}" --port "${MLFLOW_PORT:-5000}" \
    --workers "${MLFLOW_WORKERS:-2}" \
    --allowed-hosts "${MLFLOW_ALLOWED_HOSTS:-localhost:*,127.0.0.1:*,mlflow:*}"
