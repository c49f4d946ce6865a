"""Container images, built on the VM and named by the digest of what they are made from.

`base` is a Debian root file system made by mmdebstrap, so that no registry is needed; the others are built on top of
it. An image whose tag exists is never built again.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from deployment.files import digest

CERTIFICATES = Path("/usr/local/share/ca-certificates")
BASE_PACKAGES = "ca-certificates,python3"
# Part of the base image's name: raise it when the way it is made changes.
BASE_RECIPE = 1


class ImageError(Exception):
    """An image that could not be built, with the last lines of its log."""


@dataclass(frozen=True)
class Image:
    """One image: the parts of the payload that go into it."""

    name: str
    parts: tuple[str, ...]

    @property
    def dockerfile(self) -> str:
        return f"images/{self.name}.Dockerfile"


IMAGES = (
    Image("postgres", ("images/postgres.Dockerfile", "images/postgres-entrypoint.sh")),
    Image("redis", ("images/redis.Dockerfile", "images/redis-entrypoint.sh")),
    Image("app", ("images/app.Dockerfile", "images/prune_venv.sh", ".dockerignore", "app", "worker", "store", "text")),
)


def base_tag(suite: str, mirror: str, registry_image: str | None) -> str:
    """Name of the base image: the registry's, or one named by suite, mirror and the certificates it trusts."""
    if registry_image:
        return registry_image
    certificates = digest(CERTIFICATES, (path.name for path in CERTIFICATES.glob("*.crt")))
    return _named("base", f"{BASE_RECIPE} {BASE_PACKAGES} {suite} {mirror} {certificates}")


def tags(payload: Path, base: str) -> dict[str, str]:
    """Image names by service, base included."""
    named = {"base": base}
    for image in IMAGES:
        named[image.name] = _named(image.name, f"{base} {digest(payload, image.parts)}")
    return named


def _named(name: str, inputs: str) -> str:
    return f"onebox-{name}:{hashlib.sha256(inputs.encode()).hexdigest()[:12]}"


def present(tag: str) -> bool:
    """Whether the Docker Engine has an image of this name."""
    return subprocess.run(["docker", "image", "inspect", tag], capture_output=True, check=False).returncode == 0


def build_base(tag: str, suite: str, mirror: str) -> None:
    """Make the Debian root file system with the host's extra certificates and import it as `tag`."""
    hooks = ['rm -rf "$1"/usr/share/locale/* "$1"/usr/share/doc/* "$1"/usr/share/man/*']
    for certificate in sorted(CERTIFICATES.glob("*.crt")):
        hooks.append(f'install -D -m 0644 "{certificate}" "$1{certificate}"')
    hooks.append('chroot "$1" update-ca-certificates >/dev/null')
    with tempfile.TemporaryDirectory(dir="/var/tmp") as work:
        archive = f"{work}/base.tar"
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={BASE_PACKAGES}"]
        command += [f"--customize-hook={hook}" for hook in hooks]
        command += [suite, archive, f"deb {mirror}/debian {suite} main", f"deb {mirror}/debian {suite}-updates main"]
        command += [f"deb {mirror}/debian-security {suite}-security main"]
        # /tmp may be mounted noexec, and package scripts run from there.
        _run(command, {"TMPDIR": "/var/tmp"})
        _run(["docker", "import", archive, tag], {})


def build(name: str, tag: str, base: str, payload: Path) -> None:
    """Build the image of service `name` from the payload."""
    image = next(image for image in IMAGES if image.name == name)
    command = ["docker", "buildx", "build", "--load", "--progress=plain", f"--build-arg=BASE_IMAGE={base}"]
    command += [f"--tag={tag}", f"--file={payload / image.dockerfile}", str(payload)]
    _run(command, {})


def _run(command: list[str], environment: dict[str, str]) -> None:
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    if finished.returncode != 0:
        lines = (finished.stdout + finished.stderr).strip().splitlines()[-25:]
        raise ImageError(
            f"{' '.join(command[:3])} failed with exit code {finished.returncode}; its last lines:\n" + "\n".join(lines)
        )
