# SPDX-License-Identifier: MIT
"""Standard output for people: one line a stage with the elapsed time, and everything where something fails."""

from __future__ import annotations

import time

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


class CallbackModule(DefaultCallback):
    """The default callback with quieter results and a clock."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "stages"

    def __init__(self) -> None:
        super().__init__()
        self._start = time.monotonic()

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
        # At the start, not with the first result: a person sees what is running now.
        self._last_task_banner = task._uuid
        if "Validating arguments against arg spec" not in task.get_name():
            self._display.display(f"{self._clock()}   {task.get_name().strip()}")

    def v2_playbook_on_handler_task_start(self, task) -> None:
        self.v2_playbook_on_task_start(task, False)

    def v2_playbook_on_include(self, included_file) -> None:
        if self._display.verbosity:
            super().v2_playbook_on_include(included_file)
