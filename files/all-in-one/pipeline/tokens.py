"""Token IDs from tokenizer.json: truncation that keeps special tokens and says that it happened."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pipeline.engine import limit_tokenizer_threads
from pipeline.errors import ModelError


@dataclass(frozen=True)
class TokenSequence:
    """One model input: IDs with special tokens, the tokenizer's type IDs, and whether text was cut off."""

    ids: list[int]
    type_ids: list[int]
    truncated: bool


class TextTokenizer:
    """`raw` is the tokenizer without truncation and padding, which a chunker can use as it is."""

    def __init__(self, tokenizer_file: Path, max_length: int) -> None:
        limit_tokenizer_threads()
        try:
            self.raw = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:
            raise ModelError(f"{tokenizer_file}: is not a tokenizer ({error}). Export the model again.") from error
        self.raw.no_truncation()
        self.raw.no_padding()
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
