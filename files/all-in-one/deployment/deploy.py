"""deploy: from an assembled deployment to a verified one that the links agree with, or back to what served before.

All of it happens in one process, which holds the VM's lock: no other run changes links, index or containers meanwhile.
Killed half-way it leaves no mark of a verified deployment, and the next run finishes the work.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deployment import releases
from deployment.releases import DeploymentError
from modelbuild.activate import activate
from modelbuild.errors import BuildError
from modelbuild.workspace import Workspace

MODELS = {"embedding": "EMBED_RELEASE", "reranker": "RERANK_RELEASE"}
LOG_LINES = "40"
SERVICES = {"postgres", "redis", "app", "worker"}
LABEL = "com.docker.compose"
CONTAINERS = (
    *("docker", "ps", "--all", f"--filter=label={LABEL}.project=onebox", f"--filter=label={LABEL}.oneoff=False"),
    f'--format={{{{.Label "{LABEL}.service"}}}}\t{{{{.Label "{LABEL}.project.working_dir"}}}}\t{{{{.Status}}}}',
)
VERIFY = "Verify with an embed, a rerank and a search"
SELFTEST = ("exec", "--no-TTY", "app", "python", "-m", "app.selftest")
ONE_SHOT = ("run", "--rm", "--no-deps", "--no-TTY")


class StepError(Exception):
    """A step that failed: which, and what it said."""

    def __init__(self, step: str, said: str) -> None:
        super().__init__(f"{step}: {said}")
        self.step, self.said = step, said


def selftest(folder: Path) -> None:
    """Let the app of the deployment in `folder` answer an embed, a rerank and a search; StepError if it does not."""
    _step(folder, VERIFY, *SELFTEST)


def _step(folder: Path, step: str, *arguments: str) -> None:
    done = _compose(folder, *arguments)
    if done.returncode:
        raise StepError(step, done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}")


def _compose(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    compose = ["docker", "compose", "--project-directory", str(folder)]
    # Ends with this process: whoever takes the lock over then is alone with the containers.
    command = ["setpriv", "--pdeathsig=TERM", *compose, *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Box:
    """The folders of one VM. `still_held` raises if the lock was lost; `patience` seconds are given to containers."""

    root: Path
    state: Path
    models: Path
    patience: int
    still_held: Callable[[], None] = lambda: None

    def is_done(self, digest: str) -> bool:
        """Whether this very deployment was verified last, and the links name its models."""
        served = (releases.current(self.root), releases.verified(self.state))
        if served != (digest, digest):
            return False
        return all(self._workspace.linked(kind) == release for kind, release in self._named(digest).items())

    def deploy(self, digest: str) -> None:
        """DeploymentError with the whole story if it failed; what served before serves again then, if it can."""
        previous = releases.current(self.root)
        try:
            self._try_out(digest)
            self.still_held()
            releases.begin(self.state, digest)
            self._serve(digest)
        except StepError as error:
            logs = self._logs(digest)
            ending = self._put_back(previous, digest)
            raise DeploymentError(
                "\n".join(
                    [
                        f"Deployment {digest} failed at: {error.step}",
                        error.said,
                        "The containers' last lines:",
                        logs,
                        ending,
                    ]
                )
            ) from error

    def _try_out(self, digest: str) -> None:
        """Everything that can fail before anything running is touched."""
        step = "Start database and cache, if they do not run yet"
        self._compose(digest, step, *self._up("--no-recreate"), "postgres", "redis")
        self._compose(digest, "Migrate the database", *ONE_SHOT, "migrate")
        if self._stands(digest):
            return
        step = "Let a candidate answer an embed, a rerank and a search before anything running is touched"
        self._compose(digest, step, *ONE_SHOT, "candidate")

    def _serve(self, digest: str) -> None:
        """Let its containers be those that run, its models those that the links name, and note that it was verified."""
        if not self._stands(digest):
            step = "Start the containers and wait until they are healthy"
            self._compose(digest, step, *self._up("--no-build", "--pull", "never", "--remove-orphans"))
        self._compose(digest, VERIFY, *SELFTEST)
        self._activate(digest)
        self.still_held()
        releases.accept(self.root, self.state, digest)

    def _stands(self, digest: str) -> bool:
        """Whether healthy containers run already that differ from the deployment's in nothing but the wanted embedding.

        The app goes over to that one by itself, when the index is there: no container has to be made again.
        """
        found = self._containers()
        if not found.keys() >= SERVICES or not all("(healthy)" in status for _, status in found.values()):
            return False
        # Database and cache stay as they were through many a deployment; these two mount a part of theirs.
        made_from = {found[service][0] for service in ("app", "worker")}
        folder = made_from.pop()
        if made_from or folder.parent != self.root / "releases" or not folder.is_dir():
            return False
        return releases.alike(folder, self.root / "releases" / digest)

    def in_use(self) -> set[str]:
        """Deployments that containers were made from, and mount a part of, whichever is current."""
        return {folder.name for folder, _ in self._containers().values()}

    def _containers(self) -> dict[str, tuple[Path, str]]:
        """{service: (folder of the deployment it was made from, status in Docker's words)}."""
        done = subprocess.run(CONTAINERS, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StepError("Look at the containers", done.stderr.strip() or f"exit code {done.returncode}")
        lines = (line.split("\t") for line in done.stdout.splitlines())
        return {service: (Path(folder), status) for service, folder, status in lines}

    def _put_back(self, previous: str | None, failed: str) -> str:
        """How it ended, in a sentence."""
        if previous is None or previous == failed:
            return "There is no previous deployment to put back."
        print(f"putting back {previous}", file=sys.stderr, flush=True)
        told = []
        try:
            # The index names the release that computes its vectors: that of the deployment that serves.
            self._compose(previous, "Migrate the database", *ONE_SHOT, "migrate")
        except StepError as error:
            told.append(f"The index could not be put back to its release ({error.said}).")
        try:
            self._serve(previous)
        except StepError as error:
            return " ".join([*told, f"The previous deployment {previous} could not be put back: {error}"])
        return " ".join([*told, f"The previous deployment {previous} serves again."])

    def _activate(self, digest: str) -> None:
        for kind, release in self._named(digest).items():
            try:
                activate(self._workspace, kind, release, self.still_held)
            except BuildError as error:
                raise StepError("Activate its models", str(error)) from error

    def _named(self, digest: str) -> dict[str, str]:
        """The model releases by kind that a deployment's .env names."""
        lines = (self.root / "releases" / digest / ".env").read_text(encoding="utf-8").splitlines()
        values = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        return {kind: values[name] for kind, name in MODELS.items() if values.get(name)}

    @property
    def _workspace(self) -> Workspace:
        return Workspace(self.models, self.models, self.state)

    def _up(self, *options: str) -> list[str]:
        return ["up", "--detach", "--wait", "--wait-timeout", str(self.patience), *options]

    def _compose(self, digest: str, step: str, *arguments: str) -> None:
        print(step, file=sys.stderr, flush=True)
        _step(self.root / "releases" / digest, step, *arguments)

    def _logs(self, digest: str) -> str:
        return _compose(self.root / "releases" / digest, "logs", "--no-color", "--tail", LOG_LINES).stdout.rstrip()
