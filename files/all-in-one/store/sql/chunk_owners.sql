SELECT id, document_id FROM {chunks} WHERE id = ANY(%(chunks)s)
