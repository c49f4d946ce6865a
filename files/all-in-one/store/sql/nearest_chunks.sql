SELECT id, -(embedding <#> %(vector)s::vector) AS similarity
FROM {chunks}
WHERE {allowed}
ORDER BY embedding <#> %(vector)s::vector
LIMIT %(limit)s
