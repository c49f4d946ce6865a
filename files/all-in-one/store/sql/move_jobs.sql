-- Jobs wait for their documents in the generation that serves from now on.
INSERT INTO job_items (job_id, item_id)
SELECT DISTINCT job_items.job_id, there.id
FROM items AS here
JOIN job_items ON job_items.item_id = here.id
JOIN items AS there
    ON there.document_id = here.document_id
    AND there.content_hash = here.content_hash
    AND there.generation_id = %(now)s
    AND there.state IN ('queued', 'running', 'parked')
WHERE here.generation_id = %(before)s AND here.state IN ('queued', 'running', 'parked')
ON CONFLICT DO NOTHING
