"""The HTTP service: embeddings, reranking, documents, search."""
