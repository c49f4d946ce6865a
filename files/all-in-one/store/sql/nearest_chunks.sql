-- From the script's own index.
SELECT id, document_id, {latin} AS latin, -(embedding <#> %(vector)s::vector) AS similarity
FROM {chunks}
WHERE {script} AND {allowed}
ORDER BY embedding <#> %(vector)s::vector
LIMIT %(limit)s
