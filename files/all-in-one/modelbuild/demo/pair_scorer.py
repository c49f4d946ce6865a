"""The demo reranker's network: two texts in one input, read apart, compared token by token.

A cross-encoder that lets the texts attend to each other needs more labelled pairs than a demo can bring: trained on a
few hundred, it ranks worse than the embedding that it should correct. This one keeps what the embedding knows. In all
layers a token attends to its own text only (the token types say which), so that both texts get the states that they
have alone; the head compares their means and, as ColBERT does (Khattab and Zaharia, 2020), each query token with the
passage token that is nearest to it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

MASKED = -1e4  # added to an attention score that must not count; finite, so that a row of them stays a number


class Head(nn.Module):
    """Logit of a pair from the states of its tokens."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.query_centre = nn.Parameter(torch.zeros(hidden))
        self.passage_centre = nn.Parameter(torch.zeros(hidden))
        self.log_scale = nn.Parameter(torch.tensor(3.0))
        self.token_weight = nn.Parameter(torch.tensor(0.2))
        self.bias = nn.Parameter(torch.tensor(0.0))

    def text(self, states: Tensor, mask: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
        """(direction of the mean [n, hidden], directions of the tokens [n, tokens, hidden]), both less `centre`."""
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return functional.normalize(mean - centre, dim=-1), functional.normalize(states - centre, dim=-1)

    def combine(self, means: Tensor, nearest: Tensor) -> Tensor:
        """Logit from the cosine of the means and the mean of each query token's best cosine."""
        return self.log_scale.exp() * (means + self.token_weight * nearest) + self.bias

    def forward(self, query: tuple[Tensor, Tensor], passage: tuple[Tensor, Tensor]) -> Tensor:
        """Logits [queries, passages]; each side is (states [n, tokens, hidden], mask [n, tokens] of 0 and 1)."""
        query_mean, query_tokens = self.text(*query, self.query_centre)
        passage_mean, passage_tokens = self.text(*passage, self.passage_centre)
        cosines = torch.einsum("qth,psh->qpts", query_tokens, passage_tokens) + (passage[1][None, :, None, :] - 1) * 2
        weights = query[1] / query[1].sum(1, keepdim=True)
        nearest = torch.einsum("qpt,qt->qp", cosines.amax(-1), weights)
        return self.combine(query_mean @ passage_mean.T, nearest)


class PairScorer(nn.Module):
    """input_ids, attention_mask, token_type_ids [batch, tokens] of int64 to logits [batch, 1].

    Token type 0 is the query with its special tokens, 1 the passage with its own.
    """

    def __init__(self, bert: Any, head: Head) -> None:
        super().__init__()
        self.bert, self.head = bert, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        present = attention_mask.to(torch.float32)
        is_passage = token_type_ids.to(torch.float32)
        same = 1.0 - (is_passage[:, :, None] - is_passage[:, None, :]).abs()
        mask = (1.0 - same * present[:, None, :])[:, None] * MASKED
        states = self._embed(input_ids, token_type_ids)
        for layer in self.bert.encoder.layer:
            states = layer(states, attention_mask=mask)[0]
        return self._score(states, (1 - is_passage) * present, is_passage * present)

    def _embed(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Positions count from the beginning of each text; the embedding knows one token type only."""
        embeddings = self.bert.embeddings
        index = torch.cumsum(torch.ones_like(input_ids), dim=1) - 1
        position = index - token_type_ids * (1 - token_type_ids).sum(1, keepdim=True)
        summed = embeddings.word_embeddings(input_ids) + embeddings.position_embeddings(position)
        return embeddings.LayerNorm(summed + embeddings.token_type_embeddings.weight[0])

    def _score(self, states: Tensor, query: Tensor, passage: Tensor) -> Tensor:
        query_mean, query_tokens = self.head.text(states, query, self.head.query_centre)
        passage_mean, passage_tokens = self.head.text(states, passage, self.head.passage_centre)
        cosines = query_tokens @ passage_tokens.transpose(1, 2) + (passage[:, None, :] - 1) * 2
        nearest = (cosines.amax(-1) * query).sum(1) / query.sum(1)
        return self.head.combine((query_mean * passage_mean).sum(-1), nearest)[:, None]
