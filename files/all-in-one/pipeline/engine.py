"""One ONNX graph and the policy it is served with: one unpadded sequence per run, one core per run.

A dynamically quantised graph takes one scale over the whole activation tensor, so a padded or grouped batch makes a
text's result depend on its neighbours. Alone, it does not; and short unpadded runs side by side beat batches on CPUs.
"""

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from pipeline.cpu import detect
from pipeline.errors import ModelError
from pipeline.threads import available_threads

KNOWN_INPUTS = {"input_ids", "attention_mask", "token_type_ids", "position_ids"}
INTEGER_TYPES: dict[str, Any] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


def session_options() -> ort.SessionOptions:
    """Options every model is proven and served with."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # The arena keeps its largest extent for ever, and patterns are planned per shape: lengths differ on every run.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Makes weights unsigned where products of unsigned and signed bytes saturate. Where they do not, it would cost half
    # the speed: it turns to the unsigned kernels there too.
    if detect().saturates:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def build_feed(
    inputs: Mapping[str, type[np.signedinteger[Any]]], token_ids: Sequence[int], type_ids: Sequence[int] | None
) -> dict[str, np.ndarray[Any, Any]]:
    """The declared `inputs` (name and integer type) for one sequence; token types are zeros where there are none."""
    length = len(token_ids)
    values: dict[str, Any] = {
        "input_ids": token_ids,
        "attention_mask": np.ones(length),
        "token_type_ids": np.zeros(length) if type_ids is None else type_ids,
        "position_ids": np.arange(length),
    }
    return {name: np.asarray(values[name], dtype=kind)[None, :] for name, kind in inputs.items()}


class Engine:
    """Runs a graph on token IDs, at most `threads` sequences at a time."""

    def __init__(self, model_file: Path, *, output: str | None = None, threads: int | None = None) -> None:
        """`output` names the graph output to return (default: its first). ModelError if the graph cannot be fed."""
        self.threads = threads or available_threads()
        try:
            self._session = ort.InferenceSession(
                str(model_file), sess_options=session_options(), providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ModelError(
                f"{model_file}: onnxruntime {ort.__version__} cannot load it ({error}). Build the model again."
            ) from error
        self.inputs = {entry.name: self._integer_type(model_file, entry) for entry in self._session.get_inputs()}
        self.outputs = {entry.name: entry.shape for entry in self._session.get_outputs()}
        self.output = output or next(iter(self.outputs))
        if self.output not in self.outputs:
            raise ModelError(f"{model_file}: has no output {self.output!r}, only {', '.join(self.outputs)}.")
        self._slots = threading.BoundedSemaphore(self.threads)
        self._pool: ThreadPoolExecutor | None = None
        self._pool_guard = threading.Lock()

    @staticmethod
    def _integer_type(model_file: Path, entry: Any) -> type[np.signedinteger[Any]]:
        if entry.name not in KNOWN_INPUTS or entry.type not in INTEGER_TYPES:
            raise ModelError(
                f"{model_file}: the graph demands the input {entry.name!r} of type {entry.type}; a text model takes "
                f"{', '.join(sorted(KNOWN_INPUTS))} as integers. Export it again for this task."
            )
        return INTEGER_TYPES[entry.type]

    def run(self, token_ids: Sequence[int], type_ids: Sequence[int] | None = None) -> np.ndarray[Any, Any]:
        """Output for one sequence, without the batch axis. Only inputs the graph declares are fed."""
        feed = build_feed(self.inputs, token_ids, type_ids)
        with self._slots:
            result: np.ndarray[Any, Any] = self._session.run([self.output], feed)[0]
        return result[0]

    def each(self, job: Callable[[int], None], order: Iterable[int]) -> None:
        """Call `job(i)` for every i in `order`, spread over the threads; the first error is raised, the rest stops."""
        indices = list(order)
        helpers = min(self.threads, len(indices))
        if helpers <= 1:
            for index in indices:
                job(index)
            return
        queue = iter(indices)
        guard = threading.Lock()
        stop = threading.Event()

        def drain() -> None:
            while not stop.is_set():
                with guard:
                    index = next(queue, None)
                if index is None:
                    return
                try:
                    job(index)
                except BaseException:
                    stop.set()
                    raise

        futures = [self._executor().submit(drain) for _ in range(helpers)]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            future.result()

    def _executor(self) -> ThreadPoolExecutor:
        with self._pool_guard:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="inference")
            return self._pool


def limit_tokenizer_threads() -> None:
    """Keep the tokenizer's own pool to what the cgroup grants; an operator's setting wins."""
    os.environ.setdefault("RAYON_NUM_THREADS", str(available_threads()))
