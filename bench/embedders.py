"""Four ways to turn texts into vectors, with one interface: `passages(texts)` and `query(text)`.

Each runs in a process of its own (processes.py), so that what it imports and allocates is its own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Vectors = np.ndarray[Any, np.dtype[np.float32]]
DEFAULT_BATCH = 32
MAX_LENGTH = 512
ORIGINAL_THREADS = 2


class Method(Protocol):
    """One way to embed. `batch_size` means nothing where texts are not computed in batches."""

    def passages(self, texts: Sequence[str], batch_size: int | None = None) -> Vectors: ...

    def query(self, text: str) -> Vectors: ...


class Original:
    """The original bundle's `encode`: batches of 32 in arrival order, padded to the longest, two threads."""

    def __init__(self, graph: Path, tokenizer: Path, prefixes: dict[str, str]) -> None:
        import onnxruntime as ort  # noqa: PLC0415

        options = ort.SessionOptions()
        options.intra_op_num_threads = ORIGINAL_THREADS
        self._session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self._tokenizer = padding_tokenizer(tokenizer)
        self._prefixes = prefixes

    def passages(self, texts: Sequence[str], batch_size: int | None = None) -> Vectors:
        return self._encode([self._prefixes["passage"] + text for text in texts], batch_size or DEFAULT_BATCH)

    def query(self, text: str) -> Vectors:
        vector: Vectors = self._encode([self._prefixes["query"] + text], 1)[0]
        return vector

    def _encode(self, texts: list[str], batch_size: int) -> Vectors:
        return np.vstack([self._batch(texts[at : at + batch_size]) for at in range(0, len(texts), batch_size)])

    def _batch(self, texts: list[str]) -> Vectors:
        feed = padded_feed(self._session, self._tokenizer.encode_batch(texts))
        hidden = self._session.run(["last_hidden_state"], feed)[0]
        mask = feed["attention_mask"][:, :, None].astype(np.float32)
        pooled = (hidden * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1e-9)
        vectors: Vectors = pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
        return vectors


class SentenceTransformers:
    """The float model as most people run it: PyTorch on all cores. The library orders a batch by length itself."""

    def __init__(self, snapshot: Path, prefixes: dict[str, str]) -> None:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415

        self._model = SentenceTransformer(str(snapshot), device="cpu", local_files_only=True)
        self._model.max_seq_length = MAX_LENGTH
        self._prefixes = prefixes

    def passages(self, texts: Sequence[str], batch_size: int | None = None) -> Vectors:
        return self._encode([self._prefixes["passage"] + text for text in texts], batch_size or DEFAULT_BATCH)

    def query(self, text: str) -> Vectors:
        vector: Vectors = self._encode([self._prefixes["query"] + text], 1)[0]
        return vector

    def _encode(self, texts: list[str], batch_size: int) -> Vectors:
        vectors = self._model.encode(
            texts, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(vectors, dtype=np.float32)


class FastEmbed:
    """fastembed with the very file that the box serves, with the library's own session options."""

    DEFAULT_BATCH = 256

    def __init__(self, folder: Path, file: str, dimension: int, prefixes: dict[str, str]) -> None:
        from fastembed import TextEmbedding  # noqa: PLC0415
        from fastembed.common.model_description import ModelSource, PoolingType  # noqa: PLC0415

        name = "onebox/released"
        TextEmbedding.add_custom_model(
            model=name,
            # The graph pools and normalises.
            pooling=PoolingType.DISABLED,
            normalization=False,
            sources=ModelSource(hf=name),
            dim=dimension,
            model_file=file,
            additional_files=[path.name for path in folder.glob(f"{file}?data")],
        )
        self._model = TextEmbedding(name, specific_model_path=str(folder), local_files_only=True)
        self._prefixes = prefixes

    def passages(self, texts: Sequence[str], batch_size: int | None = None) -> Vectors:
        prefixed = [self._prefixes["passage"] + text for text in texts]
        return np.vstack(list(self._model.embed(prefixed, batch_size=batch_size or self.DEFAULT_BATCH)))

    def query(self, text: str) -> Vectors:
        vector: Vectors = next(iter(self._model.embed([self._prefixes["query"] + text])))
        return vector


class Onebox:
    """The box's own pipeline with the active release."""

    def __init__(self, release: Path, threads: int | None = None) -> None:
        from pipeline.embedder import Embedder  # noqa: PLC0415

        self.embedder = Embedder(release, threads=threads)

    def passages(self, texts: Sequence[str], batch_size: int | None = None) -> Vectors:
        return self.embedder.encode_array(texts, input_type="passage")

    def query(self, text: str) -> Vectors:
        vector: Vectors = self.embedder.encode_array([text], input_type="query")[0]
        return vector


def padding_tokenizer(file: Path) -> Any:
    """A tokenizer that pads to the longest of a batch with its own padding token, and cuts at 512 tokens."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    tokenizer = Tokenizer.from_file(str(file))
    token = "<pad>" if tokenizer.token_to_id("<pad>") is not None else "[PAD]"
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(token), pad_token=token)
    return tokenizer


def padded_feed(session: Any, encodings: Sequence[Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs [n, longest] for those that the graph declares."""
    values = {
        "input_ids": np.array([encoding.ids for encoding in encodings], dtype=np.int64),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64),
        "token_type_ids": np.array([encoding.type_ids for encoding in encodings], dtype=np.int64),
    }
    return {entry.name: values[entry.name] for entry in session.get_inputs()}
