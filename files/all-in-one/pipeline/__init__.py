"""Inference with onnxruntime, tokenizers and numpy: shared by the build, the app and the worker.

Importing the package loads nothing; take `pipeline.embedder.Embedder` and `pipeline.reranker.Reranker`.
"""
