#!/bin/sh
# Make the database on an empty data folder, refuse a folder of another major version, then become postgres.
# Arguments are passed to postgres (for example: -c shared_buffers=256MB).
set -eu

PGDATA=${PGDATA:-/var/lib/postgresql/data}
DATABASE_NAME=${DATABASE_NAME:-onebox}
DATABASE_USER=${DATABASE_USER:-onebox}
DATABASE_PASSWORD_FILE=${DATABASE_PASSWORD_FILE:-/run/secrets/postgres_password}

fail() {
    echo "postgres-entrypoint: $*" >&2
    exit 1
}

wanted=$(postgres --version | sed -E 's/^.* ([0-9]+)\..*$/\1/')

if [ ! -w "$PGDATA" ]; then
    fail "cannot write to $PGDATA as uid $(id -u); it must belong to $(id -u):$(id -g). Run: chown -R $(id -u):$(id -g) on the mounted folder."
fi

if [ -s "$PGDATA/PG_VERSION" ]; then
    found=$(cat "$PGDATA/PG_VERSION")
    if [ "$found" != "$wanted" ]; then
        fail "$PGDATA holds data of PostgreSQL $found, this image is PostgreSQL $wanted." \
            "Start the previous deployment, back up, and restore into an empty folder."
    fi
    rm -rf "$PGDATA/.initdb" "$PGDATA/.initdb-complete"
else
    # initdb runs in a folder of its own, which is renamed when complete, then emptied into the data folder, PG_VERSION
    # last: a container killed at any point of this goes on, or starts again, and never runs on half a database.
    building=$PGDATA/.initdb
    complete=$PGDATA/.initdb-complete
    rm -rf "$building"
    if [ ! -d "$complete" ]; then
        [ -r "$DATABASE_PASSWORD_FILE" ] || fail "cannot read the password file $DATABASE_PASSWORD_FILE; mount the secret there."
        [ -s "$DATABASE_PASSWORD_FILE" ] || fail "the password file $DATABASE_PASSWORD_FILE is empty; write a password into it."
        leftovers=$(find "$PGDATA" -mindepth 1 -maxdepth 1 ! -name lost+found)
        [ -z "$leftovers" ] || fail "$PGDATA is not empty and holds no PostgreSQL data; empty it or mount another folder."
        initdb --pgdata="$building" --username="$DATABASE_USER" --pwfile="$DATABASE_PASSWORD_FILE" \
            --auth-local=trust --auth-host=scram-sha-256 --data-checksums \
            --encoding=UTF8 --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8 >&2
        echo "host all all all scram-sha-256" >> "$building/pg_hba.conf"
        if [ "$DATABASE_NAME" != postgres ]; then
            printf 'CREATE DATABASE "%s";\n' "$DATABASE_NAME" | postgres --single -j -D "$building" postgres >/dev/null
        fi
        mv "$building" "$complete"
    fi
    find "$complete" -mindepth 1 -maxdepth 1 ! -name PG_VERSION -exec mv -t "$PGDATA" {} +
    mv "$complete/PG_VERSION" "$PGDATA/PG_VERSION"
    rmdir "$complete"
fi

exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/run/postgresql "$@"
