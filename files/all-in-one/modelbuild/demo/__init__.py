"""The demo's models, built from packages and from text that this repository carries.

A demo must not need a model hub, an account or a licence decision. So the embedding is rebuilt from two packages of the
Python package index (`e5`), and the reranker is trained on the machine itself (`reranker`). Both builders write plain
Hugging Face checkpoint folders, which go through the same export, quantise and prove stages as any downloaded model.
"""
