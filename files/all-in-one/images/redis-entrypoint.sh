#!/bin/sh
# REDIS_MAXMEMORY: what the cache may hold, for example 128mb. It must stay below the container's memory limit.
set -eu
exec valkey-server --bind '*' --port 6379 --protected-mode no --dir /tmp --save '' --appendonly no \
    --maxmemory "${REDIS_MAXMEMORY:-128mb}" --maxmemory-policy allkeys-lru "$@"
