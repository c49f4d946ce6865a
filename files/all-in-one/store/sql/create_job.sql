-- The job waits for every pending item of its documents in the generation that serves, whoever queued it: it is done
-- when they are found. Another generation gets them too, and does not serve before it has.
WITH given AS (
    SELECT * FROM unnest(%(ids)s::text[], %(hashes)s::bytea[]) AS given (id, content_hash)
),
pending AS (
    SELECT items.id, items.document_id
    FROM given
    JOIN items ON items.document_id = given.id AND items.content_hash = given.content_hash
    JOIN active_generation USING (generation_id)
    -- Parked: one that was at work as it was submitted, and has failed for the last time since.
    WHERE items.state IN ('queued', 'running', 'parked')
),
job AS (
    INSERT INTO jobs (documents, unchanged)
    SELECT (SELECT count(*) FROM given), (SELECT count(*) FROM given) - (SELECT count(DISTINCT document_id) FROM pending)
    RETURNING id
),
linked AS (
    INSERT INTO job_items (job_id, item_id) SELECT job.id, pending.id FROM job, pending
)
SELECT id FROM job
