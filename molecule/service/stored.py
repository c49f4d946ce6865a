"""What Postgres itself says is stored, asked with psql inside its container: nothing that the app says is believed."""

from __future__ import annotations

import json
from typing import Any

from outside import sql

# Of documents whose ids begin alike, over the active generation. What must hold is a count of what breaks it.
STATE = """
WITH documents AS (SELECT * FROM documents WHERE starts_with(id, '{prefix}')),
     generation AS (SELECT generations.* FROM generations JOIN active_generation ON generation_id = generations.id),
     chunks AS (SELECT * FROM generation_{generation}_chunks WHERE starts_with(document_id, '{prefix}')),
     indexed AS (SELECT indexed.* FROM indexed JOIN generation ON generation.id = generation_id
                 WHERE starts_with(document_id, '{prefix}')),
     items AS (SELECT * FROM items WHERE starts_with(document_id, '{prefix}')),
     cut AS (SELECT document_id, count(*) AS chunks, max(ordinal) + 1 AS last FROM chunks GROUP BY document_id)
SELECT json_build_object(
    'documents', (SELECT count(*) FROM documents),
    'not indexed', (SELECT count(*) FROM documents LEFT JOIN indexed ON document_id = id
                    WHERE indexed.content_hash IS DISTINCT FROM documents.content_hash),
    'indexed otherwise', (SELECT count(*) FROM indexed LEFT JOIN cut USING (document_id)
                          WHERE cut.chunks IS DISTINCT FROM indexed.chunks OR last <> indexed.chunks),
    'chunks', (SELECT count(*) FROM chunks),
    'chunks of no index entry', (SELECT count(*) FROM chunks LEFT JOIN indexed USING (document_id)
                                 WHERE indexed.document_id IS NULL),
    'chunks without a whole vector', (SELECT count(*) FROM chunks, generation
        WHERE abs(vector_norm(embedding) - 1) > 0.001 OR vector_dims(embedding) <> dimension),
    'documents not done exactly once', (SELECT count(*) FROM
        (SELECT FROM documents LEFT JOIN items ON document_id = documents.id GROUP BY documents.id
         HAVING count(*) <> 1 OR bool_or(items.state IS DISTINCT FROM 'done')) AS wrong),
    'total of chunks off by',
        (SELECT generation.chunks - (SELECT count(*) FROM generation_{generation}_chunks) FROM generation),
    'total of lexemes off by',
        (SELECT generation.lexemes - (SELECT sum(occurrences) FROM generation_{generation}_lexemes) FROM generation),
    'frequencies off', (SELECT count(*) FROM generation_{generation}_frequencies AS told
        FULL JOIN (SELECT lexeme, count(*) AS chunks FROM generation_{generation}_lexemes GROUP BY lexeme) AS counted
        USING (lexeme) WHERE told.chunks IS DISTINCT FROM coalesce(counted.chunks, 0)),
    'jobs with something left', (SELECT count(DISTINCT job_id) FROM job_items JOIN items ON items.id = item_id
                                 WHERE items.state <> 'done')
)
"""


def generation() -> int:
    """The id of the active one."""
    return int(sql("SELECT generation_id FROM active_generation"))


def state(prefix: str) -> dict[str, Any]:
    """Of the documents whose ids begin with `prefix`: how many there are, and how much of them is not as it must be."""
    found: dict[str, Any] = json.loads(sql(STATE.format(prefix=prefix, generation=generation())))
    return found


def texts(prefix: str) -> dict[str, str]:
    """{id: MD5 of the text} of the documents whose ids begin with `prefix`."""
    rows = sql(f"SELECT id, md5(text) FROM documents WHERE starts_with(id, '{prefix}')").splitlines()
    return dict(row.split("|") for row in rows)


def counts() -> str:
    """How many documents, jobs, items and chunks there are."""
    tables = ("documents", "jobs", "items", f"generation_{generation()}_chunks")
    return sql("SELECT " + ", ".join(f"(SELECT count(*) FROM {table})" for table in tables))
