UPDATE items
SET state = 'superseded', reason = 'it was submitted again', worker = NULL, lease_until = NULL, finished_at = now()
FROM unnest(%(ids)s::text[], %(hashes)s::bytea[]) AS given (id, content_hash)
WHERE items.document_id = given.id
  -- A parked item gives way to the same content too: submitting it again is how one asks for another try.
  AND (items.state = 'parked'
       OR (items.state IN ('queued', 'running') AND items.content_hash <> given.content_hash))
