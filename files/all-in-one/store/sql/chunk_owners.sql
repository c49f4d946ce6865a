SELECT id, document_id, {latin} AS latin,
       -(embedding <#> %(vector)s::vector) AS similarity
FROM {chunks}
WHERE id = ANY(%(chunks)s)
