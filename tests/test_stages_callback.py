"""What a person sees of a real play: stages with a clock, what changed, and why something failed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
PYTHON = ["--extra-vars", f"ansible_python_interpreter={sys.executable}"]

PLAY = """
- name: Prepare the box
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Look around
      ansible.builtin.command: "true"
      changed_when: false
    - name: Pass over this
      ansible.builtin.command: "false"
      when: false
    - name: Remember something
      ansible.builtin.set_fact:
        remembered: yes
    - name: Tell
      ansible.builtin.debug:
        msg: [first line, second line]
"""


class Run:
    """One run of ansible-playbook with the project's configuration, on this machine."""

    def __init__(self, folder: Path, tasks: str, *options: str) -> None:
        playbook = folder / "play.yml"
        playbook.write_text(PLAY + tasks)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        done = subprocess.run(
            [ANSIBLE, "--inventory=localhost,", "--connection=local", *PYTHON, *options, playbook],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=environment | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        )
        self.code, self.text, self.lines = done.returncode, done.stdout, done.stdout.splitlines()

    def line(self, ending: str) -> str:
        """The one line that ends so."""
        found = [line for line in self.lines if line.endswith(ending)]
        assert len(found) == 1, (ending, self.text)
        return found[0]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("good"), "")


def test_a_stage_is_one_line_with_the_elapsed_time(good: Run) -> None:
    assert good.code == 0
    assert re.fullmatch(r"\[\d+:\d\d\] Prepare the box", good.line("Prepare the box"))
    assert re.fullmatch(r"\[\d+:\d\d\]   Look around", good.line("Look around"))


def test_a_message_is_printed_in_plain_lines(good: Run) -> None:
    at = good.lines.index("         first line")
    assert good.lines[at + 1] == "         second line"


def test_what_only_steers_the_play_is_no_news(good: Run) -> None:
    assert "Remember something" not in good.text
    assert "skipping" not in good.text and "ok: [" not in good.text


def test_the_recap_stays(good: Run) -> None:
    assert re.search(r"^localhost +: ok=\d+ +changed=0 ", good.text, re.MULTILINE)


def test_a_change_is_marked(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        """
    - name: Change something
      ansible.builtin.command: "true"
      changed_when: true
""",
    )
    assert "changed: [localhost]" in run.text


def test_a_failure_says_where_and_why_in_plain_lines(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        """
    - name: Check the disk
      ansible.builtin.fail:
        msg:
          - Disk too small.
          - Enlarge it.
""",
    )
    assert run.code != 0
    at = run.lines.index("         Disk too small.")
    assert run.lines[at - 1].endswith("FAILED on localhost: Check the disk")
    assert run.lines[at + 1] == "         Enlarge it."


def test_a_message_of_several_lines_keeps_its_lines(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        r"""
    - name: Build
      ansible.builtin.fail:
        msg: "Build failed; its last lines:\nfirst\nsecond"
""",
    )
    at = run.lines.index("         Build failed; its last lines:")
    assert run.lines[at + 1 : at + 3] == ["         first", "         second"]


def test_a_failed_command_shows_what_it_wrote(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        """
    - name: Start
      ansible.builtin.command:
        argv: [sh, -c, "echo port taken >&2; exit 3"]
""",
    )
    assert run.code != 0
    assert "         port taken" in run.lines
    assert '"stderr"' not in run.text, "people do not read JSON"


def test_a_failed_loop_shows_the_failed_item_only(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        """
    - name: Check each
      ansible.builtin.command:
        argv: [sh, -c, "echo item {{ item }}; exit {{ item }}"]
      loop: [0, 4]
      changed_when: false
""",
    )
    assert run.code != 0
    assert "         item 4" in run.lines and "         item 0" not in run.lines


def test_an_ignored_failure_is_no_news(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        """
    - name: Try
      ansible.builtin.command: "false"
      ignore_errors: true
""",
    )
    assert run.code == 0
    assert "FAILED" not in run.text


def test_a_rescued_failure_is_shown_and_the_play_goes_on(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        """
    - name: Deploy
      block:
        - name: Start
          ansible.builtin.fail: {msg: it broke}
      rescue:
        - name: Put back
          ansible.builtin.debug: {msg: all is as it was}
""",
    )
    assert run.code == 0
    assert run.lines.index("         it broke") < run.lines.index("         all is as it was")


def test_a_secret_stays_one_when_its_task_fails(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        """
    - name: Use the secret
      ansible.builtin.command:
        argv: [sh, -c, "echo hunter2 >&2; exit 1"]
      no_log: true
""",
    )
    assert run.code != 0
    assert "hunter2" not in run.text
    assert "FAILED on localhost: Use the secret" in run.text
    assert "no_log" in run.text, "it says why there is nothing to read"


def test_an_unreachable_host_is_an_error(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        """
    - name: Reach
      ansible.builtin.command: "true"
      vars: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}
""",
    )
    assert run.code != 0
    assert "UNREACHABLE" in run.text


def test_v_brings_back_all_output(tmp_path: Path) -> None:
    run = Run(tmp_path, "", "-v")
    assert "TASK [Look around]" in run.text
    assert "ok: [localhost]" in run.text


def test_a_command_that_is_asked_until_it_is_done_tells_what_is_new(tmp_path: Path) -> None:
    """As the role models follows a build: what each answer tells is printed once, with the clock."""
    asked = tmp_path / "asked.py"
    asked.write_text(
        "import json, pathlib\n"
        f"seen = pathlib.Path({str(tmp_path / 'seen')!r})\n"
        "count = len(seen.read_text()) if seen.exists() else 0\n"
        "seen.write_text('x' * (count + 1))\n"
        "print(json.dumps({'lines': [f'step {count}'], 'finished': count == 2}))\n"
    )
    run = Run(
        tmp_path,
        f"""
    - name: Build
      ansible.builtin.command: {sys.executable} {asked}
      register: built
      until: (built.stdout | from_json).finished
      retries: 5
      delay: 0
      changed_when: false
""",
    )
    assert run.code == 0, run.text
    for step in range(3):
        assert re.fullmatch(r"\[\d+:\d\d\]     step \d", run.line(f"step {step}"))
    assert "RETRYING" not in run.text
