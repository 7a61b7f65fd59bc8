#!/bin/sh
# Run by the image of PostgreSQL when it makes its data folder: the two roles of docs/operations.md, and the database.
# Requests are served as the one that can't change the schema; the other one owns it, and migrates.
set -e
psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres \
    --set=owner_password="${DATABASE_OWNER_PASSWORD:?}" --set=application_password="${DATABASE_APPLICATION_PASSWORD:?}" <<'SQL'
CREATE ROLE mockpay LOGIN PASSWORD :'owner_password';
CREATE ROLE mockpay_application LOGIN PASSWORD :'application_password';
CREATE DATABASE mockpay OWNER mockpay ENCODING 'UTF8' TEMPLATE template0;
SQL
