"""Downloads from the model hub, or from the mirror that HF_ENDPOINT names."""

import hashlib
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from modelbuild.errors import BuildError
from modelbuild.profile import Profile
from modelbuild.progress import say
from modelbuild.request import file_sha256

METADATA_FILES = ["*.json", "*.txt", "*.model"]
UNUSED_FOLDERS = ["openvino/*", "onnx/*", "original/*", "coreml/*"]
CHUNK = 1 << 20
ATTEMPTS = 3


def download(profile: Profile, folder: Path) -> None:
    """Download the profile's files into `folder`, resuming what is there, and check them by the hub's hashes."""
    repository, revision = profile.source["repository"], profile.source["revision"]
    # Read when the package is imported: progress bars would fill a play's output.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, constants  # noqa: PLC0415

    try:
        published = HfApi().model_info(repository, revision=revision, files_metadata=True)
        _download(profile, folder)
    except Exception as error:
        raise BuildError(_explain(error, repository, revision, constants.ENDPOINT)) from error
    bad = _damaged(folder, published.siblings or [])
    if bad:
        for name in bad:
            (folder / name).unlink()
        raise BuildError(
            f"{repository}@{revision[:12]}: {', '.join(bad)} arrived with another hash than {constants.ENDPOINT} "
            "states. The bad files are removed: run the same command again; if it repeats, the mirror is damaged."
        )
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def _download(profile: Profile, folder: Path) -> None:
    """Download, going on where a connection broke."""
    import requests  # noqa: PLC0415
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    broken = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            snapshot_download(
                profile.source["repository"],
                revision=profile.source["revision"],
                local_dir=folder,
                allow_patterns=_wanted(profile),
                ignore_patterns=None if profile.route == "prebuilt" else UNUSED_FOLDERS,
            )
            return
        except broken as error:
            if attempt == ATTEMPTS:
                raise
            say("fetch", f"the connection broke ({type(error).__name__}), going on from there")
            time.sleep(attempt)


def resolve_revision(repository: str, revision: str | None) -> str:
    """The commit a branch or tag (default: main) points to now."""
    from huggingface_hub import HfApi, constants  # noqa: PLC0415

    try:
        return str(HfApi().model_info(repository, revision=revision).sha)
    except Exception as error:
        raise BuildError(_explain(error, repository, revision or "main", constants.ENDPOINT)) from error


def _wanted(profile: Profile) -> list[str]:
    code = ["*.py"] if profile.trusts_code else []
    if profile.route == "prebuilt":
        return [*METADATA_FILES, profile.file, f"{profile.file}_data", f"{profile.file}.data", *code]
    return [*METADATA_FILES, "*.safetensors", *code]


def _damaged(folder: Path, published: Iterable[Any]) -> list[str]:
    """Names of the downloaded files whose content differs from what the hub publishes about them."""
    bad = []
    for entry in published:
        path = folder / entry.rfilename
        if not path.is_file():
            continue
        if entry.lfs is not None:
            matches = file_sha256(path) == entry.lfs.sha256
        elif entry.blob_id:
            matches = _git_blob_sha1(path) == entry.blob_id
        else:
            say("fetch", f"{entry.rfilename}: no hash is published for it, so only its own hash is recorded")
            continue
        if not matches:
            bad.append(str(entry.rfilename))
    return bad


def _git_blob_sha1(path: Path) -> str:
    """Git's name for a file's content, which the hub publishes for small files."""
    name = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            name.update(chunk)
    return name.hexdigest()


def _explain(error: Exception, repository: str, revision: str, endpoint: str) -> str:
    from huggingface_hub import errors  # noqa: PLC0415

    what = f"{repository}@{revision[:12]} at {endpoint}"
    if isinstance(error, errors.GatedRepoError):
        return f"{what}: access needs a licence accepted on the hub. Accept it and give HF_TOKEN to this command."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{what}: there is no such revision. Take the commit hash from the repository's history."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{what}: there is no such repository, or it is private. Check the name, or set HF_TOKEN."
    return (
        f"{what}: the download failed ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}). "
        "What arrived is kept; run the same command again to resume, or set HF_ENDPOINT to a mirror that answers."
    )
