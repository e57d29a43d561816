#!/bin/sh
# PostgreSQL runs this once, when its data folder is new: a database and a role for each service, and no way into the
# database of another.
set -eu
for service in products orders inventory payments notifications; do
	psql -v ON_ERROR_STOP=1 -v service="$service" -v password="$(cat "/run/secrets/${service}_password")" --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE :"service" LOGIN PASSWORD :'password' NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT 15;
CREATE DATABASE :"service" OWNER :"service";
REVOKE ALL ON DATABASE :"service" FROM PUBLIC;
SQL
done
