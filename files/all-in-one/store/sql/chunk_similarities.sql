SELECT id, -(embedding <#> %(vector)s::vector) AS similarity FROM {chunks} WHERE id = ANY(%(chunks)s)
