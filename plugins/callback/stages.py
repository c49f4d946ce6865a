# SPDX-License-Identifier: MIT
"""Standard output for people: one line a stage with the elapsed time, and everything where something fails."""

from __future__ import annotations

import json
import time

from ansible import constants as C
from ansible.plugins.callback.default import CallbackModule as DefaultCallback

DOCUMENTATION = """
name: stages
type: stdout
short_description: One line a task with the elapsed time; results only where something changed or failed
description:
  - Prints when each task starts, seconds since the beginning first, and says what a task did only when it
    changed something or failed. C(-v) brings back the whole default output.
extends_documentation_fragment:
  - default_callback
"""

# What only steers the play is no news to a person.
SILENT_ACTIONS = {
    *C._ACTION_SET_FACT,
    *C._ACTION_META,
    *C._ACTION_DEBUG,
    *C._ACTION_ALL_INCLUDES,
    *C._ACTION_INCLUDE_ROLE,
    "ansible.builtin.fail",
    "ansible.builtin.validate_argument_spec",
}


def failure_lines(result: dict) -> list[str]:
    """What a failed task has to say, for people: its message, then what the command wrote."""
    message = result.get("msg") or result.get("censored", "")
    lines = [str(line) for line in message] if isinstance(message, list) else str(message).splitlines()
    for stream in ("stderr_lines", "stdout_lines"):
        if result.get("rc") and result.get(stream):
            return lines + result[stream][-40:]
    return lines


def progress_lines(result: dict) -> list[str]:
    """What a command that is asked again and again has to tell: the `lines` of the JSON it printed last."""
    try:
        told = json.loads((result.get("stdout") or "").splitlines()[-1])
    except (IndexError, ValueError):
        return []
    return [str(line) for line in told.get("lines", [])] if isinstance(told, dict) else []


class CallbackModule(DefaultCallback):
    """The default callback with quieter results and a clock."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "stages"

    def __init__(self) -> None:
        super().__init__()
        self._start = time.monotonic()
        # A loop's own result names no item: what its failed items said is kept until it is known whether it counts.
        self._failed_items: dict[str, list[dict]] = {}

    def set_options(self, task_keys=None, var_options=None, direct=None) -> None:
        super().set_options(task_keys=task_keys, var_options=var_options, direct=direct)
        if self._display.verbosity == 0:
            self.set_option("display_skipped_hosts", False)
            self.set_option("display_ok_hosts", False)

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        return f"[{minutes:d}:{seconds:02d}]"

    def v2_playbook_on_play_start(self, play) -> None:
        if self._display.verbosity:
            super().v2_playbook_on_play_start(play)
            return
        self._play = play
        self._display.display(f"\n{self._clock()} {play.get_name().strip()}", color="bright blue")

    def v2_playbook_on_task_start(self, task, is_conditional) -> None:
        if self._display.verbosity:
            super().v2_playbook_on_task_start(task, is_conditional)
            return
        self._failed_items = {}
        # At the start, not with the first result: a person sees what is running now.
        self._last_task_banner = task._uuid
        if task.action not in SILENT_ACTIONS:
            self._display.display(f"{self._clock()}   {task.get_name().strip()}")

    def v2_runner_on_ok(self, result) -> None:
        if self._display.verbosity or result.task.action not in C._ACTION_DEBUG:
            # The last answer of a command that was asked again and again.
            if not self._display.verbosity and result.task.until:
                self._show_progress(result)
            super().v2_runner_on_ok(result)
            return
        message = result.result.get("msg", "")
        for line in message if isinstance(message, list) else [message]:
            self._display.display(f"         {line}", color=C.COLOR_CHANGED if result.result.get("changed") else None)

    def v2_runner_on_failed(self, result, ignore_errors=False) -> None:
        if self._display.verbosity or ignore_errors:
            if self._display.verbosity:
                super().v2_runner_on_failed(result, ignore_errors)
            return
        failed = self._failed_items.get(result.host.get_name()) or [result.result]
        self._display.display(
            f"{self._clock()}   FAILED on {self.host_label(result)}: {result.task.get_name().strip()}",
            color=C.COLOR_ERROR,
        )
        for line in [line for one in failed for line in failure_lines(one)]:
            self._display.display(f"         {line}", color=C.COLOR_ERROR)

    def v2_runner_retry(self, result) -> None:
        if self._display.verbosity:
            super().v2_runner_retry(result)
            return
        self._show_progress(result)

    def _show_progress(self, result) -> None:
        for line in progress_lines(result.result):
            self._display.display(f"{self._clock()}     {line}")

    def v2_runner_item_on_failed(self, result) -> None:
        if self._display.verbosity:
            super().v2_runner_item_on_failed(result)
        self._failed_items.setdefault(result.host.get_name(), []).append(result.result)

    def v2_runner_on_unreachable(self, result) -> None:
        if self._display.verbosity or not result.task.ignore_unreachable:
            super().v2_runner_on_unreachable(result)

    def v2_playbook_on_handler_task_start(self, task) -> None:
        self.v2_playbook_on_task_start(task, False)

    def v2_playbook_on_include(self, included_file) -> None:
        if self._display.verbosity:
            super().v2_playbook_on_include(included_file)
