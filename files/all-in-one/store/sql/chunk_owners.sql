SELECT id, document_id, octet_length(content) < 1.5 * length(content) AS latin,
       -(embedding <#> %(vector)s::vector) AS similarity
FROM {chunks}
WHERE id = ANY(%(chunks)s)
