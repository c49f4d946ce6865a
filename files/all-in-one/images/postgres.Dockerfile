# PostgreSQL 17 with pgvector, from Debian. Runs as uid 10002 on a read-only root; data in /var/lib/postgresql/data.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
# The packages' scripts would make a cluster of their own and a user with a floating id.
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=tmpfs,target=/var/lib/apt/lists \
    rm -f /etc/apt/apt.conf.d/docker-clean \
    && groupadd --gid 10002 postgres \
    && useradd --uid 10002 --gid 10002 --home-dir /var/lib/postgresql --shell /bin/sh postgres \
    && mkdir -p /etc/postgresql-common \
    && echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf \
    && apt-get update -q \
    && apt-get install -qy --no-install-recommends postgresql-17 postgresql-17-pgvector \
    && rm -rf /usr/share/doc/* /usr/share/man/* /usr/lib/postgresql/17/lib/bitcode /var/log/postgresql/* \
    && install -d -o postgres -g postgres -m 0700 /var/lib/postgresql/data \
    && install -d -o postgres -g postgres -m 0775 /run/postgresql
COPY --chmod=0755 images/postgres-entrypoint.sh /usr/local/bin/postgres-entrypoint
ENV PATH=/usr/lib/postgresql/17/bin:$PATH PGDATA=/var/lib/postgresql/data
USER 10002:10002
STOPSIGNAL SIGINT
ENTRYPOINT ["postgres-entrypoint"]
