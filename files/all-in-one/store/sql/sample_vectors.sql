-- Spread over the table; the same ones each time.
SELECT embedding::text AS vector
FROM {chunks}
ORDER BY hashint8(id)
LIMIT %(sample)s
