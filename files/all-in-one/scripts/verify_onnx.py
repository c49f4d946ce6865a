#!/usr/bin/env python3
"""Run a model folder with the serving code and say what it computes: verify_onnx.py emb|rerank DIR [TEXT].

TEXT is embedded, or taken as the query whose candidates are ranked. Exits 1 when the model cannot be served, or when it
prefers an irrelevant text to a relevant one in every language tried. Needs onnxruntime, tokenizers and numpy.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from modelbuild.texts import EVERY_LANGUAGE, sanity_triples

DEFAULT_TEXT = "What is the capital of France?"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("emb", "rerank"))
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("text", nargs="?", default=DEFAULT_TEXT, metavar="TEXT")
    options = parser.parse_args()
    # A verification that falls back to something else would verify that.
    for name in ("EMBED_FALLBACK", "RERANK_FALLBACK"):
        os.environ.pop(name, None)
    try:
        from pipeline.errors import ModelError  # noqa: PLC0415

        verify = verify_embedding if options.kind == "emb" else verify_reranker
        try:
            good = verify(options.folder, options.text)
        except ModelError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    except ModuleNotFoundError as error:
        print(f"error: the package {error.name} is missing in {sys.prefix}; use export_onnx.sh's.", file=sys.stderr)
        return 1
    print("ok" if good else "error: irrelevant texts score above relevant ones; export the model again")
    return 0 if good else 1


def verify_embedding(folder: Path, text: str) -> bool:
    """Print the vector's shape and the sanity pairs; False when all of the pairs are the wrong way round."""
    from pipeline.embedder import Embedder  # noqa: PLC0415

    embedder = Embedder(folder)
    start = time.perf_counter()
    encoded = embedder.encode_with_info([text])
    took = (time.perf_counter() - start) * 1000
    vector = encoded.vectors[0]
    print(f"model      {_describe(embedder)}")
    print(f"dimension  {embedder.dim}")
    print(f"tokens     {encoded.tokens[0]}{' (truncated)' if encoded.truncated[0] else ''}")
    print(f"length     {float((vector**2).sum()) ** 0.5:.4f}")
    print(f"vector     {', '.join(f'{value:.4f}' for value in vector[:6])}, …")
    print(f"took       {took:.1f} ms")
    right = []
    for query, relevant, irrelevant in sanity_triples((EVERY_LANGUAGE,)):
        asked = embedder.encode_array([query], input_type="query")[0]
        near, far = embedder.encode_array([relevant, irrelevant], input_type="passage") @ asked
        print(f"cosine     {near:.4f} to the answer, {far:.4f} to another text: {query}")
        right.append(near > far)
    return any(right)


def verify_reranker(folder: Path, query: str) -> bool:
    """Print a ranking and the sanity pairs; False when all of the pairs are the wrong way round."""
    from pipeline.reranker import Reranker  # noqa: PLC0415

    reranker = Reranker(folder)
    triples = sanity_triples((EVERY_LANGUAGE,))
    candidates = [text for _, relevant, irrelevant in triples for text in (relevant, irrelevant)]
    start = time.perf_counter()
    ranking = reranker.rerank(query, candidates)
    took = (time.perf_counter() - start) * 1000
    print(f"model      {_describe(reranker)}")
    print(f"query      {query}")
    for place in ranking:
        print(f"score      {place['score']:.4f}  {candidates[place['idx']]}")
    print(f"took       {took:.1f} ms for {len(candidates)} pairs")
    scores = [reranker.score(asked, [relevant, irrelevant]) for asked, relevant, irrelevant in triples]
    return any((near or 0.0) > (far or 0.0) for near, far in scores)


def _describe(model: Any) -> str:
    return f"{model.folder.file}{f' (release {model.release_id})' if model.release_id else ''}"


if __name__ == "__main__":
    sys.exit(main())
