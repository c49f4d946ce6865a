SELECT count(*) AS documents FROM (SELECT FROM documents WHERE {condition} LIMIT %(most)s) AS allowed
