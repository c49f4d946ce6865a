"""Results as a table of figures, a table of ratios with what was aimed at, and a plot."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Results = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A ratio or figure that was aimed at: `most` says on which side of `value` it should lie."""

    name: str
    figure: Callable[[Results], float]
    value: float
    most: bool
    digits: int = 2

    def line(self, results: Results) -> str:
        found = self.figure(results)
        reached = found <= self.value if self.most else found >= self.value
        aim = f"at {'most' if self.most else 'least'} {self.value:g}"
        return f"| {self.name} | {found:.{self.digits}f} | {aim} | {'yes' if reached else 'no'} |"


def _method(results: Results, name: str) -> Any:
    return results["methods"]["methods"][name]


def _faster(other: str) -> Callable[[Results], float]:
    return lambda r: _method(r, "onebox")["texts_per_s"] / _method(r, other)["texts_per_s"]


def _beside(situation: str) -> Callable[[Results], float]:
    return lambda r: r["box"][situation]["embedding"]["p95_ms"] / r["box"]["idle"]["embedding"]["p95_ms"]


TARGETS: dict[str, tuple[Target, ...]] = {
    "methods": (
        Target("mixed lengths, texts/s by the original's way", _faster("original"), 4.2, most=False),
        Target("… by sentence-transformers float at its best batch", _faster("sentence-transformers"), 3.5, most=False),
        Target("… by fastembed, same file, default batch", _faster("fastembed, default batch"), 4.0, most=False),
        Target("… by fastembed, same file, best batch", _faster("fastembed, best batch"), 1.5, most=False),
        Target(
            "one short query, p50 by the original's way",
            lambda r: _method(r, "onebox")["idle"]["p50_ms"] / _method(r, "original")["idle"]["p50_ms"],
            0.5,
            most=True,
        ),
        Target(
            "one short query beside bulk work in its process, p95 by idle",
            lambda r: _method(r, "onebox")["beside_bulk"]["p95_ms"] / _method(r, "onebox")["idle"]["p95_ms"],
            3.0,
            most=True,
        ),
        Target(
            "CPU seconds a text, by sentence-transformers float",
            lambda r: _method(r, "onebox")["cpu_s_per_1000"] / _method(r, "sentence-transformers")["cpu_s_per_1000"],
            0.3,
            most=True,
        ),
    ),
    "identity": (
        Target(
            "largest difference of a vector, alone or among others, on any thread or lane",
            lambda r: max(r["identity"]["largest_difference"].values()),
            0.0,
            most=True,
        ),
    ),
    "memory": (
        Target(
            "resident memory after 20,000 texts, MB", lambda r: r["memory"]["after_20000"]["rss_mb"], 450, most=True
        ),
        Target("its growth since 1,000 texts, %", lambda r: 100 * r["memory"]["growth"], 5, most=True),
    ),
    "quota": (
        Target("inference threads with --cpus 1", lambda r: r["quota"]["threads"], 1, most=True, digits=0),
        Target("time held back with --cpus 1, %", lambda r: 100 * r["quota"]["throttled_share"], 5, most=True),
    ),
    "box": (
        Target("one short query over HTTP beside bulk embedding, p95 by idle", _beside("beside_bulk"), 3.0, most=True),
        Target("… beside ingestion in the worker, p95 by idle", _beside("beside_ingestion"), 3.0, most=True),
    ),
    "index": (
        Target(
            "one search of 100,000 chunks, not reranked, p95 in ms",
            lambda r: r["index"]["search"]["p95_ms"],
            60.0,
            most=True,
            digits=1,
        ),
        Target(
            "share of the 100 nearest chunks that the index finds", lambda r: r["index"]["recall@100"], 0.97, most=False
        ),
    ),
}


def markdown(results: Results) -> str:
    """All of it, as docs/performance.md shows it."""
    sections = [_preamble(results), *_figures(results), _targets(results)]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _preamble(results: Results) -> list[str]:
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lengths = results["inputs"]["mixed"]
    return [
        f"{results['date']}, {machine['cpu']} ({machine['class']}), {machine['cores']} cores, "
        f"{machine['memory_gb']:.0f} GB, load before {machine['load_before']}, "
        f"{machine['stolen_share']:.1%} of the time taken by other machines. {versions}.",
        "",
        f"Embedding: {results['models']['emb']['id']} ({results['models']['emb']['recipe']}). "
        f"{lengths['count']} texts of {lengths['min']} to {lengths['max']} tokens, mean {lengths['mean']:g}, "
        f"half of them Korean; {results['inputs']['padding_share']:.0%} of padded batches of 32 are padding.",
        "",
        f"onebox runs as the app does, with {machine['allocator'] or 'no settings of the C library'}; "
        f"large pages are to be had by {machine['large_pages']}.",
    ]


def _figures(results: Results) -> Iterator[list[str]]:
    if "methods" in results:
        yield _method_table(results["methods"])
    if results.get("products"):
        yield _products_table(results["products"])
    if "rerank" in results:
        yield _rerank_table(results["rerank"])
    if "memory" in results:
        yield _memory_table(results["memory"])
    if "quota" in results:
        quota = results["quota"]
        yield [
            f"With --cpus {quota['cpus']} on {quota['cores_visible']} cores: {quota['threads']} thread, "
            f"{quota['texts_per_s']:.0f} texts/s, held back for {quota['throttled_share']:.1%} of the time."
        ]
    if "box" in results:
        yield _box_table(results["box"])
        yield _stages_table(results["box"]["search"])
    if "index" in results:
        yield _index_table(results["index"])


def _table(head: str, rows: Iterable[str]) -> list[str]:
    return [head, "|" + "---|" * (head.count("|") - 1), *rows]


def _method_table(measured: Results) -> list[str]:
    head = (
        "| | texts/s | of them, slowest and fastest round | one short query p50 | p95 | beside bulk p95 "
        "| CPU s per 1,000 | peak MB | cosine to float, mean and least |"
    )
    rows = (
        f"| {_named(name, found['batch_size'])} | {found['texts_per_s']:.1f} "
        f"| {found['slowest']:.1f} to {found['fastest']:.1f} "
        f"| {found['idle']['p50_ms']:.1f} ms | {found['idle']['p95_ms']:.1f} ms "
        f"| {found['beside_bulk']['p95_ms']:.0f} ms | {found['cpu_s_per_1000']:.1f} | {found['peak_mb']:.0f} "
        f"| {found['cosine']['mean']:.4f}, {found['cosine']['min']:.4f} |"
        for name, found in measured["methods"].items()
    )
    return _table(head, rows)


def _named(method: str, batch_size: int | None) -> str:
    return f"{method} ({batch_size})" if batch_size else method


def _products_table(measured: Results) -> list[str]:
    head = (
        f"| {measured['tokens']} tokens, the quantised products and nothing else | a few of them again and again "
        f"| all of them, {measured['weights_mb']:.0f} MB of weights | memory is read at |"
    )
    rows = (
        f"| threads: {threads} | {found['few_ms']:.1f} ms | {found['all_ms']:.1f} ms "
        f"| {found['read_gb_per_s']:.1f} GB/s |"
        for threads, found in measured["threads"].items()
    )
    return _table(head, rows)


def _rerank_table(measured: Results) -> list[str]:
    head = f"| rerank {measured['candidates']} candidates | p50 | p95 | CPU | peak MB | score difference to float |"
    rows = (
        f"| {name} | {found['p50_ms']:.0f} ms | {found['p95_ms']:.0f} ms | {found['cpu_ms']:.0f} ms "
        f"| {found['peak_mb']:.0f} | {found['largest_score_difference']:.4f} |"
        for name, found in measured["methods"].items()
    )
    return _table(head, rows)


def _memory_table(measured: Results) -> list[str]:
    head = "| memory of the engine, MB | resident | of it anonymous | of it mapped files | its share |"
    found = {name: measured[name] for name in ("loaded", "after_1000", "after_20000")}
    rows = (
        f"| {name.replace('_', ' ')} | {mb['rss_mb']:.0f} | {mb['anonymous_mb']:.0f} "
        f"| {mb['file_mb']:.0f} | {mb['pss_mb']:.0f} |"
        for name, mb in found.items()
    )
    return _table(head, rows)


def _box_table(measured: Results) -> list[str]:
    head = "| over HTTP | embedding p50 | p95 | search without reranking p50 | p95 | meanwhile |"
    rows = []
    for name in ("idle", "beside_bulk", "beside_ingestion"):
        found = measured[name]
        times = [found[kind][side] for kind in ("embedding", "search") for side in ("p50_ms", "p95_ms")]
        told = " | ".join(f"{ms:.1f} ms" for ms in times)
        rows.append(f"| {name.replace('_', ' ')} | {told} | {found.get('work', '')} |")
    return _table(head, rows)


def _stages_table(search: Results) -> list[str]:
    rows = [f"| {name} | {ms:.1f} ms |" for name, ms in search["stages_ms"].items()]
    waits = f"| what the client waits | {search['p50_ms']:.1f} ms |"
    return _table("| stage of one search, reranked | median |", [*rows, waits])


def _index_table(measured: Results) -> list[str]:
    fits = "within" if measured["index_built_in_memory"] else "which did not fit into"
    seconds = measured["embed_seconds"]
    embedding = "by an earlier run" if seconds is None else f"{seconds:.0f} s"
    rows = [
        f"| embedding them, analysing their words | {embedding}, {measured['analyse_seconds']:.0f} s |",
        f"| building the indexes of the vectors | {measured['index_build_seconds']:.0f} s, {fits} the "
        f"{measured['index_build_memory']} that Postgres gives it |",
        f"| their size; of the chunks; of their words | {measured['index_mb']:.0f} MB; {measured['chunks_mb']:.0f} MB; "
        f"{measured['words_mb']:.0f} MB |",
        f"| of the 10 and 100 nearest they find | {measured['recall@10']:.1%}, {measured['recall@100']:.1%} |",
        f"| the first {measured['first_searches']['count']} searches, not reranked, p50, p95 | "
        f"{measured['first_searches']['p50_ms']:.1f} ms, {measured['first_searches']['p95_ms']:.1f} ms |",
        f"| as many others after them | {measured['search']['p50_ms']:.1f} ms, {measured['search']['p95_ms']:.1f} ms |",
    ]
    stages = ", ".join(f"{name} {ms:.1f}" for name, ms in measured["stages_p95_ms"].items() if name != "total")
    return _table(f"| {measured['chunks']} chunks | |", [*rows, f"| its stages, p95 in ms | {stages} |"])


def _targets(results: Results) -> list[str]:
    targets = [target for part, of_part in TARGETS.items() if part in results for target in of_part]
    if not targets:
        return []
    return _table("| onebox | found | aimed at | reached |", [target.line(results) for target in targets])


def plot(results: Results, file: Path) -> None:
    """Texts per second by method as bars; nothing where the methods were not measured."""
    if "methods" not in results:
        return
    import matplotlib  # noqa: PLC0415

    matplotlib.use("svg")
    # The same figures give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "onebox"
    from matplotlib import pyplot  # noqa: PLC0415

    found = results["methods"]["methods"]
    names = list(found)[::-1]
    speeds = [found[name]["texts_per_s"] for name in names]
    figure, axes = pyplot.subplots(figsize=(8, 3.2), layout="constrained")
    bars = axes.barh(names, speeds, color=["#0b7285" if name.startswith("onebox") else "#adb5bd" for name in names])
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_xlabel("texts per second, mixed lengths")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})
