"""Part `identity`: is a text's vector the same alone, among others, as a query, on one thread and on all?"""

import random
from typing import Any

import numpy as np

from bench import processes
from bench.box import Box
from bench.embedders import Onebox
from bench.figures import difference
from bench.inputs import Inputs
from bench.processes import Worker
from modelbuild.progress import say

SAME = 24


def measure(box: Box, inputs: Inputs, rounds: int) -> dict[str, Any]:
    """The largest difference of each way from a text embedded alone on all threads; 0.0 is bit for bit the same."""
    own: dict[str, Any] = {"environment": box.allocator(), "release": box.embedding}
    with Worker(Onebox, **own) as every, Worker(Onebox, **own, threads=1) as one:
        alone = every.do(processes.one_by_one, inputs.mixed)
        shuffled = list(range(len(inputs.mixed)))
        random.Random(4).shuffle(shuffled)
        reordered = every.do(processes.embed, [inputs.mixed[index] for index in shuffled])["vectors"]
        queries = inputs.queries[:SAME]
        found = {
            "among others": difference(every.do(processes.embed, inputs.mixed)["vectors"], alone),
            "among others, in another order": difference(reordered, np.array(alone)[shuffled]),
            "one thread, among others": difference(one.do(processes.embed, inputs.mixed)["vectors"], alone),
            "one thread, alone": difference(one.do(processes.one_by_one, inputs.mixed), alone),
            "query lane and bulk lane": difference(
                every.do(as_single_queries, queries), every.do(as_many_queries, queries)
            ),
        }
    say("identity", ", ".join(f"{name}: {value:g}" for name, value in found.items()))
    return {"texts": len(inputs.mixed), "largest_difference": found}


def as_single_queries(method: Onebox, queries: list[str]) -> Any:
    """Query vectors, each asked alone."""
    return [method.query(query) for query in queries]


def as_many_queries(method: Onebox, queries: list[str]) -> Any:
    """Query vectors in one call among many: more than the engine takes for a single question."""
    many = queries * 8
    return method.embedder.encode_array(many, input_type="query")[: len(queries)]
