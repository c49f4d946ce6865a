-- Each from its own index.
SELECT id, document_id, latin, similarity
FROM (
    (SELECT id, document_id, true AS latin, -(embedding <#> %(vector)s::vector) AS similarity
     FROM {chunks}
     WHERE {latin} AND {allowed}
     ORDER BY embedding <#> %(vector)s::vector
     LIMIT %(limit)s)
    UNION ALL
    (SELECT id, document_id, false AS latin, -(embedding <#> %(vector)s::vector) AS similarity
     FROM {chunks}
     WHERE NOT ({latin}) AND {allowed}
     ORDER BY embedding <#> %(vector)s::vector
     LIMIT %(limit)s)
) AS nearest
ORDER BY similarity DESC, id
