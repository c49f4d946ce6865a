"""A box's command-line client: `onebox ingest PATH…`, `onebox search …`."""
