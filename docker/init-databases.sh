#!/usr/bin/env bash
# Run once by the PostgreSQL image on a fresh volume: a database and an owner each for Optuna and MLflow. They must not share
# one (both keep their version in a table of the same name), and neither owner can open the other's.
set -euo pipefail

secret() { # the value of $1, or what the file $1_FILE holds
    local file="$1_FILE"
    if [ -n "${!file:-}" ]; then cat "${!file}"; else printf '%s' "${!1:?$1 or $1_FILE is needed}"; fi
}

for owner in optuna mlflow; do
    # By the environment: no password stands on a command line, and psql quotes what it puts in.
    OWNER="$owner" OWNER_PASSWORD="$(secret "${owner^^}_DB_PASSWORD")" \
        psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\getenv owner OWNER
\getenv password OWNER_PASSWORD
create role :"owner" login password :'password';
create database :"owner" owner :"owner";
revoke connect on database :"owner" from public;
SQL
done
