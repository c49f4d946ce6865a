"""Texts to vectors."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.engine import Engine
from pipeline.errors import ModelError, TooLongError
from pipeline.fallback import SentenceTransformersBackend
from pipeline.lanes import Job, LaneName, Lanes
from pipeline.manifest import ModelFolder, read_folder
from pipeline.tokens import TextTokenizer, TokenSequence

Vectors = np.ndarray[Any, np.dtype[np.float32]]
LongTexts = Literal["cut", "refuse", "windows"]

INPUT_TYPES = ("query", "passage")
# Texts with as many characters altogether are a query's work, a fraction of a second; more is bulk work.
QUERY_CHARACTERS = 2_000
# A run of fewer tokens a thread ends sooner on one core: waking the others takes longer than what they save.
WIDE_TOKENS_A_THREAD = 4
ORDERED_AT_ONCE = 4096  # texts, so that memory stays bounded
TOKENISED_AT_ONCE = 32  # texts a thread takes before another's turn
# Before texts are tokenised: about as many characters make a token, in Korean and English together.
CHARACTERS_PER_TOKEN = 3


@dataclass(frozen=True)
class EncodedTexts:
    """Vectors [n, dim] float32 in the caller's order; tokens used per text, and whether each was cut to fit."""

    vectors: Vectors
    tokens: list[int]
    truncated: list[bool]


@dataclass(frozen=True)
class _Piece:
    """What one run computes: a whole text, or one window of text number `text` with its weight."""

    text: int
    sequence: TokenSequence
    weight: int = 1


class Embedder:
    """Sentence embeddings from an ONNX folder.

    Without arguments EMBED_ONNX_PATH (a file) or EMBED_ONNX_DIR says where the model is. EMBED_MODEL names it. Only
    EMBED_FALLBACK=sentence-transformers allows PyTorch in its place; `degraded` then says why, otherwise it is None.
    """

    def __init__(
        self, onnx_dir: str | Path | None = None, *, threads: int | None = None, lanes: Lanes | None = None
    ) -> None:
        """`lanes` are shared with other models; alone, the model gets lanes of `threads` threads or the process's."""
        self.degraded: str | None = None
        self.folder: ModelFolder | None = None
        name = os.environ.get("EMBED_MODEL", "")
        try:
            self.folder = read_folder(onnx_dir or _configured_path(), "embedding", name)
            self._load(self.folder, lanes or (Lanes(threads) if threads else None))
        except ModelError as error:
            if os.environ.get("EMBED_FALLBACK") != "sentence-transformers":
                raise
            self.folder = None
            self._fallback = SentenceTransformersBackend(name, str(error))
            self.dim = self._fallback.dim
            self.release_id = ""
            self.degraded = self._fallback.why

    def _load(self, folder: ModelFolder, lanes: Lanes | None) -> None:
        self._tokens = TextTokenizer(folder.tokenizer_file, folder.max_length)
        self.engine = Engine(folder.file, output=folder.output, lanes=lanes)
        if folder.output is None and "sentence_embedding" in self.engine.outputs:
            self.engine.output = "sentence_embedding"
        self.release_id = folder.release_id
        empty = self._tokens.singles([""])[0]
        self.dim = int(self._embed(empty).shape[0])
        self._embed(empty, wide=True)  # whoever asks first shall not wait for the session that all threads share
        if folder.dimension not in (None, self.dim):
            raise ModelError(
                f"{folder.file}: gives {self.dim} dimensions where its profile says {folder.dimension}. "
                "Correct the profile's route or dimension and build the model again."
            )

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer (tokenizers.Tokenizer) without truncation and padding."""
        self._need_onnx("a tokenizer")
        return self._tokens.raw

    @property
    def max_length(self) -> int:
        """Tokens one text may have, special tokens and prefix included."""
        self._need_onnx("a token limit")
        return self._tokens.max_length

    def count_tokens(self, text: str, *, input_type: str | None = None) -> int:
        """Tokens the text would take with its prefix and special tokens, not truncated."""
        self._need_onnx("token counts")
        return self._tokens.count(self._prefix(input_type) + text)

    def encode(self, texts: Sequence[str], *, input_type: str | None = None) -> list[list[float]]:
        """Vectors in the order of `texts`. `input_type` is query, passage, or None for the model's default."""
        vectors: list[list[float]] = self.encode_array(texts, input_type=input_type).tolist()
        return vectors

    def encode_array(self, texts: Sequence[str], *, input_type: str | None = None) -> Vectors:
        """As `encode`, as an array [n, dim] float32."""
        return self.encode_with_info(texts, input_type=input_type).vectors

    def encode_with_info(
        self,
        texts: Sequence[str],
        *,
        input_type: str | None = None,
        long_texts: LongTexts = "cut",
        lane: LaneName | None = None,
        gone: Callable[[], bool] | None = None,
    ) -> EncodedTexts:
        """As `encode_array`, with the tokens each text took and whether it was truncated.

        A text longer than the model reads loses its end, is refused with TooLongError, or becomes the mean of its
        windows' vectors, weighted by their tokens. `lane` is chosen by the work unless it is given. OverloadedError
        when there is no room for it; AbandonedError once `gone()`.
        """
        if isinstance(texts, str):
            raise TypeError("encode() takes a list of texts; wrap a single text in a list.")
        prefix = self._prefix(input_type)
        if self.folder is None:
            return EncodedTexts(self._fallback.encode(texts, prefix), [0] * len(texts), [False] * len(texts))
        sizes = [min(self.max_length, 2 + (len(prefix) + len(text)) // CHARACTERS_PER_TOKEN) for text in texts]
        chosen_lane = self.engine.lanes.named(lane or self.lane_for(texts))
        with chosen_lane.job(sum(sizes), sequences=len(texts), gone=gone) as job:
            parts = []
            for start in range(0, max(1, len(texts)), ORDERED_AT_ONCE):
                chosen = texts[start : start + ORDERED_AT_ONCE]
                pieces = self._pieces(job, chosen, prefix, long_texts, start)
                job.resize(sum(len(piece.sequence.ids) for piece in pieces) + sum(sizes[start + len(chosen) :]))
                parts.append(self._encode_pieces(job, pieces, len(chosen)))
        return EncodedTexts(
            np.concatenate([part.vectors for part in parts]),
            [tokens for part in parts for tokens in part.tokens],
            [truncated for part in parts for truncated in part.truncated],
        )

    def lane_for(self, texts: Sequence[str]) -> LaneName:
        """The lane that texts go into by their amount."""
        return "query" if sum(map(len, texts)) <= QUERY_CHARACTERS else "bulk"

    def _pieces(self, job: Job, texts: Sequence[str], prefix: str, long_texts: LongTexts, offset: int) -> list[_Piece]:
        """Tokenised, bulk work on the lane's threads; `offset` is the position of the first text among the caller's."""
        sequences: list[TokenSequence] = [TokenSequence([], [], False)] * len(texts)

        def tokenise(start: int) -> int:
            end = min(start + TOKENISED_AT_ONCE, len(texts))
            sequences[start:end] = self._tokens.singles([prefix + text for text in texts[start:end]])
            return 0

        starts = range(0, len(texts), TOKENISED_AT_ONCE)
        if job.lane == "query":  # takes less than to wait for a turn
            for start in starts:
                tokenise(start)
        else:
            job.each(tokenise, starts)
        pieces: list[_Piece] = []
        for index, sequence in enumerate(sequences):
            if sequence.truncated and long_texts == "refuse":
                raise TooLongError(offset + index, self._tokens.count(prefix + texts[index]), self.max_length)
            if sequence.truncated and long_texts == "windows":
                pieces += [_Piece(index, *window) for window in self._tokens.windows(prefix, texts[index])]
            else:
                pieces.append(_Piece(index, sequence))
        return pieces

    def _encode_pieces(self, job: Job, pieces: list[_Piece], count: int) -> EncodedTexts:
        vectors = np.empty((len(pieces), self.dim), dtype=np.float32)
        least = WIDE_TOKENS_A_THREAD * self.engine.lanes.threads
        # Not bulk work: the threads of that session have the priority of queries.
        alone = job.lane == "query" and job.alone and len(pieces) == 1
        wide = alone and len(pieces[0].sequence.ids) >= least
        job.cores = self.engine.lanes.threads if wide else 1

        def embed(index: int) -> int:
            sequence = pieces[index].sequence
            vectors[index] = self._embed(sequence, wide=wide)
            return len(sequence.ids)

        # Longest first: the threads then finish together.
        job.each(embed, sorted(range(len(pieces)), key=lambda i: -len(pieces[i].sequence.ids)))
        tokens, truncated = [0] * count, [False] * count
        for piece in pieces:
            tokens[piece.text] += len(piece.sequence.ids)
            truncated[piece.text] |= piece.sequence.truncated
        return EncodedTexts(vectors if len(pieces) == count else self._mean(pieces, vectors, count), tokens, truncated)

    def _mean(self, pieces: list[_Piece], vectors: Vectors, count: int) -> Vectors:
        """One vector a text: the mean of its windows' vectors by their tokens, of unit length where the model's are."""
        weights = np.array([piece.weight for piece in pieces], dtype=np.float32)
        owners = np.array([piece.text for piece in pieces])
        means = np.zeros((count, self.dim), dtype=np.float32)
        np.add.at(means, owners, vectors * weights[:, None])
        means /= np.bincount(owners, weights, minlength=count)[:, None].astype(np.float32)
        several = np.bincount(owners, minlength=count) > 1
        for index in np.flatnonzero(several):
            means[index] = self._finish(means[index])
        means[owners[~several[owners]]] = vectors[~several[owners]]  # of whole texts, bit for bit
        return means

    def _embed(self, sequence: TokenSequence, *, wide: bool = False) -> Vectors:
        assert self.folder is not None
        output = self.engine.run(sequence.ids, sequence.type_ids, wide=wide)
        if output.ndim == 2:
            output = output[0] if self.folder.pooling == "cls" else output.mean(axis=0)
        return self._finish(output.astype(np.float32))

    def _finish(self, vector: Vectors) -> Vectors:
        assert self.folder is not None
        if self.folder.normalize:
            vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        if not np.isfinite(vector).all():
            raise ModelError(f"{self.folder.file}: gave a vector that is not finite. Build the model again.")
        return vector

    def _prefix(self, input_type: str | None) -> str:
        if input_type not in (None, *INPUT_TYPES):
            raise ValueError(f"input_type {input_type!r} is none of {', '.join(INPUT_TYPES)}.")
        if self.folder is None:
            return self._fallback.prefix(input_type)
        return self.folder.prefixes.get(input_type or self.folder.default_input_type or "", "")

    def _need_onnx(self, what: str) -> None:
        if self.folder is None:
            raise ModelError(f"The fallback gives no {what.removeprefix('a ')}: {self.degraded}")


def _configured_path() -> str:
    path = os.environ.get("EMBED_ONNX_PATH") or os.environ.get("EMBED_ONNX_DIR")
    if not path:
        raise ModelError("No embedding model is configured: set EMBED_ONNX_DIR (a folder) or EMBED_ONNX_PATH (a file).")
    return path
