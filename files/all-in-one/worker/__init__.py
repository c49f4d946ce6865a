"""The ingestion service: takes queued documents, computes their chunks, vectors and lexemes, stores them."""
