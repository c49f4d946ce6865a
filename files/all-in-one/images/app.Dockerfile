# The image of app, worker and migrations. Built from files/all-in-one. ./pipeline and /opt/models are mounted, not copied.
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS python
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=tmpfs,target=/var/lib/apt/lists \
    rm -f /etc/apt/apt.conf.d/docker-clean \
    && if ! python3 -c "import asyncio, ctypes, ssl, sqlite3" 2>/dev/null; then \
        apt-get update -q && apt-get install -qy --no-install-recommends python3 ca-certificates; \
    fi

FROM python AS venv
COPY app/build-requirements.txt app/requirements.txt images/prune_venv.sh /tmp/build/
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=tmpfs,target=/var/lib/apt/lists \
    apt-get update -q && apt-get install -qy --no-install-recommends python3-venv binutils
# --no-deps: the lock is complete, and leaves out on purpose what app/excludes.in names.
# --no-build-isolation: kiwipiepy-model is published as source only, and what packs its data is locked too.
RUN --mount=type=cache,target=/root/.cache/pip,sharing=locked \
    python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-deps --only-binary :all: --require-hashes -r /tmp/build/build-requirements.txt \
    && /opt/venv/bin/pip install --no-deps --no-build-isolation --only-binary :all: --no-binary kiwipiepy-model \
        --require-hashes -r /tmp/build/requirements.txt \
    && sh /tmp/build/prune_venv.sh /opt/venv

FROM python
COPY --from=venv /opt/venv /opt/venv
COPY app /srv/onebox/app
COPY worker /srv/onebox/worker
COPY store /srv/onebox/store
COPY text /srv/onebox/text
RUN mkdir /srv/onebox/pipeline /models \
    && PYTHONPATH=/srv/onebox /opt/venv/bin/python -m compileall -q /srv/onebox
# Large pages under what is allocated: a query reads all weights of a model, and looking up a page of 4 KB for every 64
# cache lines takes up to an eighth of a short one's time.
ENV GLIBC_TUNABLES=glibc.malloc.hugetlb=1
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/srv/onebox PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /srv/onebox
USER 10001:10001
CMD ["python", "-m", "app"]
