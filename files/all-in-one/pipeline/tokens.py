"""Token IDs from tokenizer.json: truncation that keeps special tokens and says that it happened."""

import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from pipeline.errors import ModelError
from pipeline.heap import give_back
from pipeline.unigram import load_tokenizer

# The threads of a lane tokenise; the library's own pool would take the cores from queries for bulk work.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@dataclass(frozen=True)
class TokenSequence:
    """One model input: IDs with special tokens, the tokenizer's type IDs, and whether text was cut off."""

    ids: list[int]
    type_ids: list[int]
    truncated: bool


class _Shared:
    """A tokenizer that several models of this process may use, in an object that can be referred to weakly."""

    def __init__(self, tokenizer_file: Path, content: bytes) -> None:
        try:
            self.raw = load_tokenizer(content.decode("utf-8"))
        except Exception as error:
            raise ModelError(f"{tokenizer_file}: is not a tokenizer ({error}). Export the model again.") from error
        self.raw.no_truncation()
        self.raw.no_padding()
        give_back()


_known: WeakValueDictionary[str, _Shared] = WeakValueDictionary()
_guard = threading.Lock()


def _read_shared(tokenizer_file: Path) -> _Shared:
    """One object for equal files: a multilingual vocabulary takes some 125 MB, and many models have the same one."""
    try:
        content = tokenizer_file.read_bytes()
    except OSError as error:
        raise ModelError(f"{tokenizer_file}: cannot be read ({error.strerror}). Export the model again.") from error
    digest = hashlib.sha256(content).hexdigest()
    with _guard:
        shared = _known.get(digest)
        if shared is None:
            shared = _known[digest] = _Shared(tokenizer_file, content)
        return shared


class TextTokenizer:
    """`raw` is the tokenizer without truncation and padding, which a chunker can use as it is."""

    def __init__(self, tokenizer_file: Path, max_length: int) -> None:
        self._shared = _read_shared(tokenizer_file)
        self.raw = self._shared.raw
        self.max_length = max_length
        self._single_budget = max_length - self.raw.num_special_tokens_to_add(False)
        self._pair_budget = max_length - self.raw.num_special_tokens_to_add(True)

    def count(self, text: str) -> int:
        """Tokens of `text` with special tokens, not truncated."""
        return len(self.raw.encode(text).ids)

    def singles(self, texts: Sequence[str]) -> list[TokenSequence]:
        """One sequence per text, at most max_length tokens each."""
        encodings = self.raw.encode_batch(list(texts), add_special_tokens=False)
        return [self._finish(encoding, None, self._single_budget) for encoding in encodings]

    def windows(self, prefix: str, text: str) -> list[tuple[TokenSequence, int]]:
        """`text` in pieces that each fit with `prefix`: (sequence, tokens of the piece itself), in order.

        Pieces are cut between the tokens of the whole text.
        """
        size = max(1, self._single_budget - len(self.raw.encode(prefix, add_special_tokens=False).ids) - 1)
        offsets = [
            (start, end) for start, end in self.raw.encode(text, add_special_tokens=False).offsets if end > start
        ]
        starts = [offsets[index][0] for index in range(0, len(offsets), size)]
        pieces = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
        weights = [min(size, len(offsets) - index) for index in range(0, len(offsets), size)]
        return list(zip(self.singles([prefix + piece for piece in pieces]), weights, strict=True))

    def query(self, text: str) -> Any:
        """A query ready to be paired with many documents; it may take half of the length at most."""
        encoding = self.raw.encode(text, add_special_tokens=False)
        encoding.truncate(max(1, self._pair_budget // 2))
        return encoding

    def pair(self, query: Any, document: str) -> TokenSequence:
        """`query` (from `query()`) with a document; only the document is cut to fit."""
        encoding = self.raw.encode(document, add_special_tokens=False)
        return self._finish(encoding, query, self._pair_budget - len(query.ids))

    def _finish(self, encoding: Any, query: Any, budget: int) -> TokenSequence:
        truncated = len(encoding.ids) > budget
        if truncated:
            encoding.truncate(budget)
        done = self.raw.post_process(encoding) if query is None else self.raw.post_process(query, encoding)
        return TokenSequence(done.ids, done.type_ids, truncated)
