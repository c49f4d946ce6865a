SELECT DISTINCT ON (passage_hash) passage_hash, embedding::text AS vector
FROM {chunks}
WHERE passage_hash = ANY(%(hashes)s)
