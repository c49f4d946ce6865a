"""Trains the head and the last layers of the pair scorer on questions and the passages that answer them.

The layers below stay as the embedding's and run once for each text. The texts of a pair do not attend to each other, so
that a step can compare all its queries with all its passages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from modelbuild.demo.pair_scorer import MASKED, Head
from modelbuild.progress import say

MAX_TOKENS = 400
TUNED_LAYERS = 3
EPOCHS = 2
QUERIES_PER_STEP = 48
NEGATIVES_PER_STEP = 30
NEGATIVES_PER_QUERY = 6
LAYER_RATE, HEAD_RATE = 5e-5, 1e-3
# Half of the loss is the label, half the embedding's own opinion of all candidates, sharpened by the temperature.
TEACHER_SHARE, TEACHER_TEMPERATURE = 0.5, 0.05
# Share of the mean vector that is taken off before comparing: e5's vectors lie in a narrow cone around it.
CENTRE_SHARE = 0.7

Batch = tuple[Tensor, Tensor]  # states [texts, tokens, hidden], mask [texts, tokens] of 0 and 1


@dataclass(frozen=True)
class Texts:
    """States [tokens, hidden] of each text, without padding."""

    states: list[Tensor]

    def batch(self, chosen: list[int]) -> Batch:
        """Some texts, padded to the longest."""
        states = [self.states[index] for index in chosen]
        mask = pad_sequence([torch.ones(len(state)) for state in states], batch_first=True)
        return pad_sequence(states, batch_first=True), mask

    def steps(self) -> Iterator[list[int]]:
        """All texts in order, a step's worth at a time."""
        for chosen in torch.arange(len(self.states)).split(QUERIES_PER_STEP):
            yield chosen.tolist()


@dataclass(frozen=True)
class Lesson:
    """What is learned. `answers[query]` is the number of its passage; `teacher`: similarities [queries, passages]."""

    queries: Texts
    passages: Texts
    answers: list[int]
    teacher: Tensor


def train(bert: Any, tokenizer: Tokenizer, queries: list[str], passages: list[str], answers: list[int]) -> Head:
    """Change the last layers of `bert` in place and return the head."""
    below, above = bert.encoder.layer[:-TUNED_LAYERS], bert.encoder.layer[-TUNED_LAYERS:]
    query_texts, passage_texts = (_read(bert, below, tokenizer, texts) for texts in (queries, passages))
    head = Head(bert.config.hidden_size)
    teacher = _teacher(above, query_texts, passage_texts, head)
    lesson = Lesson(query_texts, passage_texts, answers, teacher)
    steps = EPOCHS * -(-len(queries) // QUERIES_PER_STEP)
    optimiser = torch.optim.AdamW(
        [{"params": head.parameters(), "lr": HEAD_RATE}, {"params": above.parameters(), "lr": LAYER_RATE}]
    )
    # A tenth of the steps warms up, then the rate falls to nearly nothing.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, 10 * (step + 1) / steps, 1.02 - step / steps)
    )
    for epoch in range(EPOCHS):
        losses = []
        for chosen in torch.randperm(len(queries)).split(QUERIES_PER_STEP):
            loss = _loss(above, head, lesson, chosen.tolist())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
        say("fetch", f"training demo-reranker: epoch {epoch + 1} of {EPOCHS}, loss {sum(losses) / len(losses):.3f}")
    _calibrate(above, head, lesson)
    return head


@torch.no_grad()
def _read(bert: Any, layers: Any, tokenizer: Tokenizer, texts: list[str]) -> Texts:
    states = []
    for encoding in tokenizer.encode_batch(texts):
        state = bert.embeddings(torch.tensor([encoding.ids[:MAX_TOKENS]]))
        for layer in layers:
            state = layer(state)[0]
        states.append(state[0])
    return Texts(states)


def _finish(layers: Any, batch: Batch) -> Batch:
    states, present = batch
    mask = (1 - present)[:, None, None, :] * MASKED
    for layer in layers:
        states = layer(states, attention_mask=mask)[0]
    return states, present


@torch.no_grad()
def _finish_all(layers: Any, texts: Texts) -> Batch:
    finished: list[Tensor] = []
    for chosen in texts.steps():
        states, present = _finish(layers, texts.batch(chosen))
        finished += [state[: int(mask.sum())] for state, mask in zip(states, present, strict=True)]
    return Texts(finished).batch(list(range(len(finished))))


def _teacher(layers: Any, queries: Texts, passages: Texts, head: Head) -> Tensor:
    """The embedding's own similarities [queries, passages], centred; sets the head's centres, too."""
    sides = []
    for texts, centre in ((queries, head.query_centre), (passages, head.passage_centre)):
        states, mask = _finish_all(layers, texts)
        means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        centre.data = CENTRE_SHARE * means.mean(0)
        sides.append(functional.normalize(means - means.mean(0), dim=-1))
    return sides[0] @ sides[1].T


def _loss(layers: Any, head: Head, lesson: Lesson, chosen: list[int]) -> Tensor:
    """Cross entropy over the answers of a step and the passages most easily mistaken for them."""
    candidates = list(dict.fromkeys(lesson.answers[query] for query in chosen))
    ranked = lesson.teacher[chosen].argsort(descending=True)[:, :NEGATIVES_PER_QUERY]
    mistakable = [passage for passage in dict.fromkeys(ranked.flatten().tolist()) if passage not in candidates]
    candidates += [mistakable[number] for number in torch.randperm(len(mistakable))[:NEGATIVES_PER_STEP].tolist()]
    logits = head(_finish(layers, lesson.queries.batch(chosen)), _finish(layers, lesson.passages.batch(candidates)))
    labels = torch.tensor([candidates.index(lesson.answers[query]) for query in chosen])
    opinion = (lesson.teacher[chosen][:, candidates] / TEACHER_TEMPERATURE).softmax(-1)
    distance = -(opinion * logits.log_softmax(-1)).sum(-1).mean()
    return (1 - TEACHER_SHARE) * functional.cross_entropy(logits, labels) + TEACHER_SHARE * distance


@torch.no_grad()
def _calibrate(layers: Any, head: Head, lesson: Lesson) -> None:
    """Set the bias such that a typical query's right passage scores above 0.5, and the best wrong one below."""
    finished = _finish_all(layers, lesson.passages)
    middles = []
    for chosen in lesson.queries.steps():
        logits = head(_finish(layers, lesson.queries.batch(chosen)), finished)
        answers = torch.tensor([[lesson.answers[query]] for query in chosen])
        wrong = logits.scatter(1, answers, -torch.inf).amax(1, keepdim=True)
        middles.append((logits.gather(1, answers) + wrong) / 2)
    head.bias.data -= torch.cat(middles).median()
