-- A document counts once, whatever the number of generations it is indexed in.
WITH per_document AS (
    SELECT items.document_id,
           bool_or(items.state = 'running') AS running,
           bool_or(items.state = 'queued') AS queued,
           bool_or(items.state = 'parked') AS parked
    FROM job_items
    JOIN items ON items.id = job_items.item_id
    WHERE job_items.job_id = %(job)s
    GROUP BY items.document_id
)
SELECT jobs.id, jobs.documents, jobs.unchanged, jobs.created_at,
       count(*) FILTER (WHERE running) AS running,
       count(*) FILTER (WHERE queued AND NOT running) AS queued,
       count(*) FILTER (WHERE parked AND NOT queued AND NOT running) AS parked
FROM jobs
LEFT JOIN per_document ON true
WHERE jobs.id = %(job)s
GROUP BY jobs.id
