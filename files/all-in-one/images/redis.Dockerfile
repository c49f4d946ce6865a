# Valkey as a cache: nothing is kept on disk, the oldest keys give way. Runs as uid 10003 on a read-only root.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=tmpfs,target=/var/lib/apt/lists \
    rm -f /etc/apt/apt.conf.d/docker-clean \
    && groupadd --gid 10003 valkey \
    && useradd --uid 10003 --gid 10003 --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin valkey \
    && apt-get update -q \
    && apt-get install -qy --no-install-recommends valkey-server valkey-tools \
    && rm -rf /usr/share/doc/* /usr/share/man/*
COPY --chmod=0755 images/redis-entrypoint.sh /usr/local/bin/redis-entrypoint
USER 10003:10003
ENTRYPOINT ["redis-entrypoint"]
