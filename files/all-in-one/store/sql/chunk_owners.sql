SELECT id, document_id, octet_length(content) < 1.5 * length(content) AS latin
FROM {chunks}
WHERE id = ANY(%(chunks)s)
