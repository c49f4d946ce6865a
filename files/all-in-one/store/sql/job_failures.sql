SELECT items.document_id AS document, items.reason
FROM job_items
JOIN items ON items.id = job_items.item_id
WHERE job_items.job_id = %(job)s AND items.state = 'parked'
ORDER BY items.id
LIMIT %(most)s
