CREATE INDEX documents_metadata ON documents USING gin (metadata jsonb_path_ops);
