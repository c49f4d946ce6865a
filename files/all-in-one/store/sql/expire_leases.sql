-- Skips what another worker is expiring at this moment.
UPDATE items
SET state = CASE WHEN attempts >= %(max_attempts)s THEN 'parked' ELSE 'queued' END,
    reason = format('worker %%s died or lost its lease at attempt %%s', worker, attempts),
    finished_at = CASE WHEN attempts >= %(max_attempts)s THEN now() END,
    worker = NULL,
    lease_until = NULL
WHERE id IN (
    SELECT id FROM items WHERE state = 'running' AND lease_until < now() FOR UPDATE SKIP LOCKED
)
