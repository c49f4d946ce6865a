SELECT line, reason FROM job_refusals WHERE job_id = %(job)s ORDER BY line LIMIT %(most)s
