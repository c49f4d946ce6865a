SELECT id, -(embedding <#> %(vector)s::vector) AS similarity
FROM {chunks}
ORDER BY embedding <#> %(vector)s::vector
LIMIT %(limit)s
