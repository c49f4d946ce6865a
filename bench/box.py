"""Where things are on the VM that is measured: the deployment, its models, their snapshots, its address and image."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelbuild.profile import Profile, parse_profile
from modelbuild.request import source_fingerprint
from modelbuild.snapshot import read_snapshot, snapshot_folder
from modelbuild.workspace import Workspace, read_json


@dataclass(frozen=True)
class Box:
    """`deployment` is /opt/onebox/current; `work` keeps what the benchmark makes once and uses again."""

    deployment: Path
    models: Path
    cache: Path
    state: Path
    code: Path
    work: Path

    @property
    def embedding(self) -> Path:
        return self.models / "emb"

    @property
    def reranker(self) -> Path:
        return self.models / "rerank"

    @property
    def tokenizer(self) -> Path:
        return self.embedding / "tokenizer.json"

    @property
    def prefixes(self) -> dict[str, str]:
        given = manifest(self.embedding)["profile"].get("prefixes") or {}
        return {"query": "", "passage": ""} | given

    def snapshot(self, release: Path) -> Path:
        """The float model that a release was made from. BuildError when it is not kept any more."""
        profile = profile_of(release)
        workspace = Workspace(self.models, self.cache, self.state)
        return read_snapshot(snapshot_folder(workspace, profile, source_fingerprint(profile))).folder

    def key(self) -> str:
        """The box's API key."""
        return (self.state / "secrets" / "api_key").read_text(encoding="utf-8").split()[0]

    def url(self) -> str:
        """The app's address as compose published it. CalledProcessError while it does not run."""
        port = self._compose("port", "app", "8000").rpartition(":")[2]
        return f"http://127.0.0.1:{port}"

    def image(self) -> str:
        """ID of the image that the app runs from."""
        return _output("docker", "inspect", "--format", "{{.Image}}", self._app())

    def allocator(self) -> dict[str, str]:
        """The app's settings of the C library: what computes as the app does needs them too."""
        variables = json.loads(_output("docker", "inspect", "--format", "{{json .Config.Env}}", self._app()))
        return dict(pair.split("=", 1) for pair in variables if pair.startswith("GLIBC_TUNABLES="))

    def _app(self) -> str:
        """ID of the app's container."""
        container = self._compose("ps", "--quiet", "app")
        if not container:
            raise RuntimeError(
                f"{self.deployment}: no app runs, which is what is measured. Deploy it: playbooks/site.yml."
            )
        return container

    def _compose(self, *arguments: str) -> str:
        return _output("docker", "compose", "--project-directory", str(self.deployment), *arguments)


def manifest(release: Path) -> dict[str, Any]:
    return read_json(release / "manifest.json")


def profile_of(release: Path) -> Profile:
    return parse_profile(manifest(release)["profile"], str(release))


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
