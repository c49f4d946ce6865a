SELECT id AS item, document_id AS document, generation_id AS generation, attempts, reason, created_at, finished_at
FROM items
WHERE state = 'parked' AND id > %(after)s
ORDER BY id
LIMIT %(limit)s
