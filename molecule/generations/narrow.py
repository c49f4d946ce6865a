"""Run on the VM by the export environment: the demo's embedding with 256 dimensions, as a sentence-transformers folder.

usage: narrow.py SNAPSHOT OUT [--blind]

Vectors go through an orthogonal projection (fixed seed), as through the Dense module of a distilled model, and are
normalised again: another embedding space, which still ranks. Blind, every word has the same embedding: a model that
knows a text's length and nothing else, as one might whose download went wrong unnoticed.
"""

import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

DIMENSION = 256


def main(snapshot: Path, out: Path, *, blind: bool) -> None:
    transformer = Transformer(str(snapshot), max_seq_length=512)
    width = transformer.get_embedding_dimension()
    dense = Dense(width, DIMENSION, bias=False, activation_function=torch.nn.Identity())
    torch.manual_seed(7)
    with torch.no_grad():
        dense.linear.weight.copy_(torch.linalg.qr(torch.randn(width, DIMENSION)).Q.T)
        if blind:
            transformer.auto_model.get_input_embeddings().weight.zero_()
    modules = [transformer, Pooling(width, pooling_mode="mean"), dense, Normalize()]
    SentenceTransformer(modules=modules).save(str(out), create_model_card=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), blind="--blind" in sys.argv[3:])
