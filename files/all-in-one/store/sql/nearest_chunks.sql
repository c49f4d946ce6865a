-- Each from its own index.
SELECT id, similarity
FROM (
    (SELECT id, -(embedding <#> %(vector)s::vector) AS similarity
     FROM {chunks}
     WHERE {latin} AND {allowed}
     ORDER BY embedding <#> %(vector)s::vector
     LIMIT %(limit)s)
    UNION ALL
    (SELECT id, -(embedding <#> %(vector)s::vector) AS similarity
     FROM {chunks}
     WHERE NOT ({latin}) AND {allowed}
     ORDER BY embedding <#> %(vector)s::vector
     LIMIT %(limit)s)
) AS nearest
ORDER BY similarity DESC, id
