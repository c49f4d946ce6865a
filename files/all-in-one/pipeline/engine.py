"""One ONNX graph and the policy it is served with: one unpadded sequence per run, one core per run.

A dynamically quantised graph takes one scale over the whole activation tensor, so a padded or grouped batch makes a
text's result depend on its neighbours. Alone, it does not; and short unpadded runs side by side beat batches on CPUs.
Only a longer sequence that has the box to itself gets all cores for its one run; the result is the same.
"""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from pipeline.cpu import detect
from pipeline.errors import ModelError
from pipeline.heap import keep_freed_memory
from pipeline.lanes import Lanes, default_lanes

KNOWN_INPUTS = {"input_ids", "attention_mask", "token_type_ids", "position_ids"}
INTEGER_TYPES: dict[str, Any] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


def open_session(model_file: Path, threads: int = 1) -> ort.InferenceSession:
    """A session as every model is proven and served with; `threads` share each operator."""
    keep_freed_memory()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
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
    return ort.InferenceSession(
        str(model_file),
        sess_options=options,
        providers=["CPUExecutionProvider"],
        # The fused operator goes through a row value by value; an addition and a normalisation take vector registers,
        # and a seventh of its time.
        disabled_optimizers=["SkipLayerNormFusion"],
    )


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
    """Runs a graph on token IDs. `lanes` says who runs when; the caller takes its place there."""

    def __init__(self, model_file: Path, *, output: str | None = None, lanes: Lanes | None = None) -> None:
        """`output` names the graph output to return (default: its first). ModelError if the graph cannot be fed."""
        self.lanes = lanes or default_lanes()
        self._model_file = model_file
        self._session = self._open(1)
        self._wide: ort.InferenceSession | None = None
        self._wide_guard = threading.Lock()
        self.inputs = {entry.name: self._integer_type(entry) for entry in self._session.get_inputs()}
        self.outputs = {entry.name: entry.shape for entry in self._session.get_outputs()}
        self.output = output or next(iter(self.outputs))
        if self.output not in self.outputs:
            raise ModelError(f"{model_file}: has no output {self.output!r}, only {', '.join(self.outputs)}.")

    def run(
        self, token_ids: Sequence[int], type_ids: Sequence[int] | None = None, *, wide: bool = False
    ) -> np.ndarray[Any, Any]:
        """Output for one sequence, without the batch axis. Only inputs the graph declares are fed.

        `wide` shares the work of this one run among all threads.
        """
        feed = build_feed(self.inputs, token_ids, type_ids)
        session = self._wide_session() if wide and self.lanes.threads > 1 else self._session
        result: np.ndarray[Any, Any] = session.run([self.output], feed)[0]
        return result[0]

    def _wide_session(self) -> ort.InferenceSession:
        """Made when it is first needed; where tensors lie in a file of their own, both sessions map the same pages."""
        with self._wide_guard:
            if self._wide is None:
                self._wide = self._open(self.lanes.threads)
            return self._wide

    def _open(self, threads: int) -> ort.InferenceSession:
        try:
            return open_session(self._model_file, threads)
        except Exception as error:
            raise ModelError(
                f"{self._model_file}: onnxruntime {ort.__version__} cannot load it ({error}). Build the model again."
            ) from error

    def _integer_type(self, entry: Any) -> type[np.signedinteger[Any]]:
        if entry.name not in KNOWN_INPUTS or entry.type not in INTEGER_TYPES:
            raise ModelError(
                f"{self._model_file}: the graph demands the input {entry.name!r} of type {entry.type}; a text model "
                f"takes {', '.join(sorted(KNOWN_INPUTS))} as integers. Export it again for this task."
            )
        return INTEGER_TYPES[entry.type]
