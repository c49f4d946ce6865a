"""Part `rerank`: twenty candidates of about sixty tokens, by the original's way and by the box's."""

from typing import Any

from bench import graphs, processes, rerankers
from bench.box import Box
from bench.figures import latency
from bench.inputs import Inputs
from bench.processes import Worker
from modelbuild.progress import say

QUERIES = 4  # of each language, a round


def measure(box: Box, inputs: Inputs, rounds: int) -> dict[str, Any]:
    """Figures by method: time of one reranking, CPU seconds, memory, and the largest score difference from float."""
    workers, float_name = _workers(box)
    questions = [(query, inputs.candidates["ko" if at % 2 == 0 else "en"]) for at, query in enumerate(inputs.queries)]
    questions = questions[: 2 * QUERIES]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    try:
        for worker in workers.values():
            worker.do(processes.rerank, *questions[0])
        for _ in range(rounds):
            for query, candidates in questions:
                for name, worker in workers.items():
                    runs[name].append(worker.do(processes.rerank, query, candidates))
        found = {name: _figures(run, runs[float_name]) for name, run in runs.items()}
        for name, worker in workers.items():
            found[name]["peak_mb"] = worker.do(processes.peak)
            say("rerank", f"{name}: {found[name]['p50_ms']:.0f} ms for {len(questions[0][1])} candidates")
    finally:
        for worker in workers.values():
            worker.close()
    return {"methods": found, "float": float_name, "candidates": len(questions[0][1])}


def _workers(box: Box) -> tuple[dict[str, Worker], str]:
    """The methods, and which of them is the float model."""
    onebox = Worker(rerankers.OneboxReranker, environment=box.allocator(), release=box.reranker)
    plain = graphs.original_reranker(box)
    if plain is None:
        snapshot = box.snapshot(box.reranker)
        return {"sentence-transformers": Worker(rerankers.CrossEncoderReranker, snapshot=snapshot), "onebox": onebox}, (
            "sentence-transformers"
        )
    tokenizer = box.snapshot(box.reranker) / "tokenizer.json"
    # A repository's own ONNX file is no checkpoint that a CrossEncoder could load: float runs the original's way too.
    return {
        "original": Worker(rerankers.OriginalReranker, graph=plain / graphs.INT8, tokenizer=tokenizer),
        "original, float": Worker(rerankers.OriginalReranker, graph=plain / graphs.FLOAT, tokenizer=tokenizer),
        "onebox": onebox,
    }, "original, float"


def _figures(runs: list[dict[str, Any]], reference: list[dict[str, Any]]) -> dict[str, Any]:
    differences = [
        abs(score - exact)
        for run, other in zip(runs, reference, strict=True)
        for score, exact in zip(run["scores"], other["scores"], strict=True)
    ]
    cpu = sum(run["cpu_seconds"] for run in runs) / len(runs)
    return {
        **latency([run["seconds"] for run in runs]),
        "cpu_ms": round(cpu * 1000, 1),
        "largest_score_difference": round(max(differences), 4),
    }
