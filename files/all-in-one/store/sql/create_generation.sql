CREATE TABLE {chunks} (
    id            bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    document_id   text     NOT NULL,  -- no foreign key: dropping one would keep every search waiting
    ordinal       integer  NOT NULL,
    start_offset  integer  NOT NULL,  -- characters of the document's text, from 0
    end_offset    integer  NOT NULL,
    content       text     NOT NULL,  -- kept: the document's own text may already be newer than its index
    tokens        integer  NOT NULL,
    passage_hash  bytea,              -- of what was embedded; NULL in rows older than the column
    -- A zero vector has no direction: its inner product ranks it anywhere.
    embedding     vector({dimension}) NOT NULL CHECK (vector_norm(embedding) > 0),
    UNIQUE (document_id, ordinal)
);
-- In line with its row: the index reads vectors, not words, and a detour through TOAST for each would dominate.
ALTER TABLE {chunks} ALTER COLUMN embedding SET STORAGE {storage};
-- One for each script: texts of two languages are two regions of the space that hardly a link of a graph joins, and a
-- search that begins in the wrong one stays there. m and ef_construction: docs/performance.md, 100,000 chunks.
CREATE INDEX ON {chunks} USING hnsw (embedding vector_ip_ops) WITH (m = 24, ef_construction = 200) WHERE {latin};
CREATE INDEX ON {chunks} USING hnsw (embedding vector_ip_ops) WITH (m = 24, ef_construction = 200) WHERE NOT ({latin});
CREATE INDEX ON {chunks} (passage_hash);

CREATE TABLE {lexemes} (
    lexeme       text      NOT NULL,
    chunk_id     bigint    NOT NULL REFERENCES {chunks} ON DELETE CASCADE,
    occurrences  smallint  NOT NULL,
    length       integer   NOT NULL,  -- lexemes in the whole chunk, here so that scoring reads one index and no table
    places       int4multirange,      -- of the chunk's content, in characters; NULL in rows older than the column
    PRIMARY KEY (lexeme, chunk_id) INCLUDE (occurrences, length)
);
CREATE INDEX ON {lexemes} (chunk_id);

-- In how many chunks a lexeme occurs.
CREATE TABLE {frequencies} (
    lexeme  text    PRIMARY KEY,
    chunks  bigint  NOT NULL
);
