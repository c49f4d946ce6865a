UPDATE items
SET state = CASE WHEN attempts >= %(max_attempts)s THEN 'parked' ELSE 'queued' END,
    reason = %(reason)s,
    available_at = now() + make_interval(secs => %(retry)s),
    finished_at = CASE WHEN attempts >= %(max_attempts)s THEN now() END,
    worker = NULL,
    lease_until = NULL
WHERE id = %(id)s AND worker = %(worker)s AND state = 'running'
RETURNING state
