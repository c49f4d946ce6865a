-- Of the generation that serves: what others still lack is told with them.
SELECT count(*) FILTER (WHERE state = 'queued') AS queued,
       count(*) FILTER (WHERE state = 'running') AS running,
       count(*) FILTER (WHERE state = 'parked') AS parked,
       coalesce(extract(epoch FROM now() - min(created_at) FILTER (WHERE state = 'queued')), 0)::float8
           AS oldest_seconds
FROM items
JOIN active_generation USING (generation_id)
WHERE state IN ('queued', 'running', 'parked')
