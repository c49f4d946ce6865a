CREATE EXTENSION IF NOT EXISTS vector;

-- What was given to the box. Belongs to no generation.
CREATE TABLE documents (
    id            text        PRIMARY KEY,
    title         text        NOT NULL,
    text          text        NOT NULL,
    metadata      jsonb       NOT NULL,
    source        text,
    content_hash  bytea       NOT NULL,  -- of title and text: what decides whether there is anything to embed
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);

-- One embedding space and everything computed in it. Its tables are generation_<id>_chunks, _lexemes and _frequencies.
CREATE TABLE generations (
    id            integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    state         text        NOT NULL CHECK (state IN ('building', 'active', 'retired')),
    space         jsonb       NOT NULL,
    release       text        NOT NULL,
    dimension     integer     NOT NULL CHECK (dimension BETWEEN 1 AND 2000),
    chunker       text        NOT NULL,
    analyser      text        NOT NULL,
    chunks        bigint      NOT NULL DEFAULT 0,
    lexemes       bigint      NOT NULL DEFAULT 0,  -- over all chunks, for the mean length that BM25 asks for
    created_at    timestamptz NOT NULL DEFAULT now()
);

-- The one generation that answers searches.
CREATE TABLE active_generation (
    singleton      boolean     PRIMARY KEY DEFAULT true CHECK (singleton),
    generation_id  integer     NOT NULL REFERENCES generations,
    activated_at   timestamptz NOT NULL DEFAULT now()
);

-- One accepted request to ingest.
CREATE TABLE jobs (
    id          uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    documents   integer     NOT NULL,
    unchanged   integer     NOT NULL,  -- already indexed with the same content
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- One content of one document to be indexed in one generation.
--   queued -> running -> done
--   running -> queued      (the worker stopped, failed, or died: its lease ran out)
--   running -> parked      (failed or died too often; reason says how)
--   queued, running -> superseded  (newer content came, or the document was deleted)
CREATE TABLE items (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    document_id    text        NOT NULL,
    content_hash   bytea       NOT NULL,
    generation_id  integer     NOT NULL REFERENCES generations ON DELETE CASCADE,
    state          text        NOT NULL DEFAULT 'queued'
                   CHECK (state IN ('queued', 'running', 'done', 'parked', 'superseded')),
    attempts       integer     NOT NULL DEFAULT 0,
    available_at   timestamptz NOT NULL DEFAULT now(),
    worker         text,
    lease_until    timestamptz,
    reason         text,
    created_at     timestamptz NOT NULL DEFAULT now(),
    finished_at    timestamptz,
    CHECK ((state = 'running') = (worker IS NOT NULL AND lease_until IS NOT NULL))
);
CREATE INDEX items_queued ON items (available_at, id) WHERE state = 'queued';
CREATE INDEX items_running ON items (lease_until) WHERE state = 'running';
CREATE INDEX items_parked ON items (id) WHERE state = 'parked';
CREATE INDEX items_of_document ON items (document_id, generation_id);
-- The same content is never queued twice.
CREATE UNIQUE INDEX items_pending ON items (document_id, generation_id, content_hash)
    WHERE state IN ('queued', 'running');

-- What a generation holds now: one row per document whose chunks, vectors and lexemes are in its tables.
CREATE TABLE indexed (
    document_id    text         NOT NULL REFERENCES documents ON DELETE CASCADE,
    generation_id  integer      NOT NULL REFERENCES generations ON DELETE CASCADE,
    content_hash   bytea        NOT NULL,
    chunks         integer      NOT NULL,
    indexed_at     timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (document_id, generation_id)
);

CREATE TABLE job_items (
    job_id   uuid    NOT NULL REFERENCES jobs ON DELETE CASCADE,
    item_id  bigint  NOT NULL REFERENCES items ON DELETE CASCADE,
    PRIMARY KEY (job_id, item_id)
);
CREATE INDEX job_items_of_item ON job_items (item_id);
