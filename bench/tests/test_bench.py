"""What the benchmark computes by itself: lengths, percentiles, what the kernel says, and the tables."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import report
from bench.figures import cosines, difference, latency, percentile, speed
from bench.processes import Worker
from bench.system import Throttling, memory, peak_mb, stolen, throttling
from bench.texts import describe, every_length, mixed_lengths, padding_share, read_material

ROOT = Path(__file__).resolve().parents[2]


def test_mixed_lengths_are_those_that_are_promised() -> None:
    lengths = mixed_lengths(256)
    assert (min(lengths), max(lengths), len(lengths)) == (3, 284, 256)
    assert 45 <= statistics.fmean(lengths) <= 55
    assert mixed_lengths(256) == lengths


def test_every_length_is_met_and_most_texts_are_short() -> None:
    lengths = every_length(2000, 512)
    assert len(lengths) == 2000 and set(range(1, 513)) <= set(lengths)
    assert statistics.median(lengths) < 128


def test_lengths_are_described() -> None:
    assert describe([1, 2, 3, 10]) == {"count": 4, "min": 1, "mean": 4.0, "median": 2.5, "p95": 3, "max": 10}


def test_padding_is_what_the_shorter_texts_of_a_batch_lack() -> None:
    assert padding_share([10, 5, 5, 4], 2) == pytest.approx(1 - 24 / 30)
    assert padding_share([7, 7], 2) == 0.0


def test_both_languages_have_text_and_questions() -> None:
    material = read_material(ROOT / "demo/corpus", ROOT / "files/all-in-one/modelbuild/faq")
    for language in ("ko", "en"):
        assert len(material.passages[language]) > 20_000 and len(material.queries[language]) > 100


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.95), percentile([7.0], 0.95)) == (50.0, 95.0, 7.0)
    with pytest.raises(ValueError, match="nothing was measured"):
        percentile([], 0.5)


def test_latency_is_in_milliseconds_and_speed_that_of_the_median_round() -> None:
    assert latency([0.001, 0.002, 0.003]) == {"count": 3, "p50_ms": 2.0, "p95_ms": 3.0}
    found = speed(100, [1.0, 2.0, 4.0], [1.0, 3.0, 5.0])
    assert found == {"texts_per_s": 50.0, "slowest": 25.0, "fastest": 100.0, "cpu_s_per_1000": 30.0}


def test_vectors_are_compared_by_direction_and_bit_for_bit() -> None:
    left = np.array([[1.0, 0.0], [0.0, 2.0]])
    assert cosines(left * 3, left) == {"mean": 1.0, "min": 1.0}
    assert difference(left, left) == 0.0 and difference(left + 1e-7, left) > 0.0


def test_throttling_is_read_from_both_versions_of_control_groups() -> None:
    v1 = throttling("nr_periods 10\nnr_throttled 2\nthrottled_time 1500000000\n")
    v2 = throttling("usage_usec 5\nnr_periods 10\nnr_throttled 2\nthrottled_usec 1500000\n")
    assert v1 == v2 == Throttling(1.5, 10, 2)
    with pytest.raises(ValueError, match="no quota is set"):
        throttling("usage_usec 5\n")


def test_memory_is_this_process_own() -> None:
    found = memory()
    assert found["rss_mb"] == pytest.approx(found["anonymous_mb"] + found["file_mb"], abs=0.2)
    assert 0 < found["pss_mb"] <= found["rss_mb"] <= peak_mb() + 1


def test_time_that_others_took_is_a_share() -> None:
    assert stolen([0] * 10, [50, 0, 20, 20, 0, 0, 0, 10, 0, 0]) == 0.1


def method(texts_per_s: float, p50: float, p95: float, cpu: float) -> dict[str, Any]:
    times = {"count": 3, "p50_ms": p50, "p95_ms": p95}
    return {
        "texts_per_s": texts_per_s,
        "slowest": texts_per_s,
        "fastest": texts_per_s,
        "cpu_s_per_1000": cpu,
        "batch_size": None,
        "peak_mb": 400.0,
        "cosine": {"mean": 0.999, "min": 0.998},
        "idle": times,
        "beside_bulk": times,
    }


def results() -> dict[str, Any]:
    machine = {"cpu": "A CPU", "class": "x86-vnni", "cores": 2, "memory_gb": 24.0, "load_before": 0.1, "versions": {}}
    machine |= {"allocator": "GLIBC_TUNABLES=glibc.malloc.hugetlb=1", "large_pages": "madvise"}
    return {
        "date": "2026-01-01",
        "machine": machine | {"stolen_share": 0.0},
        "models": {"emb": {"id": "e5-1", "recipe": "int8"}},
        "inputs": {"mixed": describe([3, 284]), "padding_share": 0.7},
        "methods": {
            "methods": {
                "original": method(20, 8, 9, 100),
                "sentence-transformers": method(25, 20, 30, 80),
                "fastembed, default batch": method(10, 8, 9, 200),
                "fastembed, best batch": method(50, 8, 9, 40),
                "onebox": method(90, 5, 6, 22),
            }
        },
    }


def test_ratios_stand_beside_what_was_aimed_at() -> None:
    table = report.markdown(results())
    assert "| mixed lengths, texts/s by the original's way | 4.50 | at least 4.2 | yes |" in table
    assert "| one short query, p50 by the original's way | 0.62 | at most 0.5 | no |" in table
    assert "rerank" not in table  # it was not measured


def test_products_stand_beside_what_reads_their_weights() -> None:
    threads = {
        "1": {"few_ms": 3.5, "all_ms": 5.21, "read_gb_per_s": 9.3},
        "2": {"few_ms": 2.0, "all_ms": 4.0, "read_gb_per_s": 18.6},
    }
    table = report.markdown(results() | {"products": {"tokens": 10, "weights_mb": 21.2, "threads": threads}})
    assert "| all of them, 21 MB of weights |" in table
    assert "| threads: 1 | 3.5 ms | 5.2 ms | 9.3 GB/s |" in table
    assert "| threads: 2 | 2.0 ms | 4.0 ms | 18.6 GB/s |" in table


def test_a_release_that_is_not_quantised_has_no_products_to_show() -> None:
    assert report.markdown(results() | {"products": {}}) == report.markdown(results())


def test_a_method_runs_with_its_own_variables() -> None:
    with Worker(dict, environment={"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}) as own, Worker(dict) as other:
        assert own.do(variable, "GLIBC_TUNABLES") == "glibc.malloc.hugetlb=1"
        assert other.do(variable, "GLIBC_TUNABLES") == os.environ.get("GLIBC_TUNABLES")


def variable(_: Any, name: str) -> str | None:
    return os.environ.get(name)


def test_an_index_is_measured_by_the_time_of_a_search_and_by_what_it_finds() -> None:
    measured = {
        "chunks": 100_000, "embed_seconds": 900, "analyse_seconds": 120, "index_build_seconds": 80,
        "index_build_memory": "256MB", "index_built_in_memory": False,
        "index_mb": 195, "chunks_mb": 210, "words_mb": 180, "recall@10": 0.99, "recall@100": 0.96,
        "first_searches": {"count": 300, "p50_ms": 30.0, "p95_ms": 50.0},
        "search": {"count": 300, "p50_ms": 20.0, "p95_ms": 40.0},
        "stages_p95_ms": {"embed": 9.0, "vectors": 12.5, "total": 40.0},
    }  # fmt: skip
    table = report.markdown(results() | {"index": measured})
    assert "| one search of 100,000 chunks, not reranked, p95 in ms | 40.0 | at most 60 | yes |" in table
    assert "| share of the 100 nearest chunks that the index finds | 0.96 | at least 0.97 | no |" in table
    assert "| building the indexes of the vectors | 80 s, which did not fit into the 256MB that" in table
    assert "| the first 300 searches, not reranked, p50, p95 | 30.0 ms, 50.0 ms |" in table
    assert "| as many others after them | 20.0 ms, 40.0 ms |" in table
    assert "| its stages, p95 in ms | embed 9.0, vectors 12.5 |" in table
