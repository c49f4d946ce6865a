"""Downloads from the model hub, or from the mirror that HF_ENDPOINT names: pinned, patient, resumed, checked."""

import fnmatch
import functools
import os
import posixpath
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from modelbuild.errors import BuildError
from modelbuild.graph import tensor_locations
from modelbuild.hub_errors import explain, http_status, retry_after
from modelbuild.hub_progress import shown
from modelbuild.profile import Profile
from modelbuild.progress import say
from modelbuild.snapshot import file_digests

METADATA_FILES = ("*.json", "*.txt", "*.model")
UNUSED_FOLDERS = ("openvino/*", "onnx/*", "original/*", "coreml/*")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
ATTEMPTS = 4  # after the first one, where the connection broke
LONGEST_WAIT = 600.0  # seconds that a rate limit may cost altogether
RESERVE = 1 << 29  # bytes of the disk that stay free: others write there too


def download(profile: Profile, folder: Path) -> None:
    """Download the profile's files into `folder`, resuming what is there, and check them by the hub's hashes.

    BuildError, with what to do next, for whatever goes wrong; what arrived stays, so that the next run goes on from it.
    """
    repository, revision = profile.source["repository"], profile.source["revision"]
    # Read when the package is imported. Progress is told in lines; its own bars would fill a play's output.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Its own protocol for large files does not resume, and goes past mirrors and proxies.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    from huggingface_hub import HfApi, constants, hf_hub_download  # noqa: PLC0415

    what = f"{repository}@{revision[:12]} at {constants.ENDPOINT}"

    def fetch_file(name: str) -> None:
        hf_hub_download(repository, name, revision=revision, local_dir=folder)

    def fetch_files(names: Sequence[str]) -> None:
        total = sum(int(published[name].size or 0) for name in names)
        _check_room(what, total, folder)
        with shown(folder, total):
            for name in names:
                _patiently(functools.partial(fetch_file, name))
        _check_hashes(what, folder, [published[name] for name in names])

    try:
        listing = _patiently(
            lambda: HfApi().model_info(repository, revision=revision, files_metadata=True), server_errors=True
        )
        published = {entry.rfilename: entry for entry in listing.siblings or []}
        names = choose(profile, sorted(published))
        fetch_files(names)
        if profile.file in names and (tensors := _tensor_files(what, profile, folder, published)):
            fetch_files([*names, *tensors])
    except BuildError:
        raise
    except Exception as error:
        raise BuildError(explain(error, what)) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def choose(profile: Profile, names: Sequence[str]) -> list[str]:
    """Which of a repository's files a profile needs, as far as their names tell: a graph's tensors it names itself.

    BuildError where the weights are only in a form that runs code.
    """
    code = [name for name in names if name.endswith(".py")] if profile.trusts_code else []
    wanted = [name for name in names if _matches(name, METADATA_FILES) and not _matches(name, UNUSED_FOLDERS)]
    if profile.route == "prebuilt":
        return [*wanted, *(name for name in names if name == profile.file), *code]
    weights = [name for name in names if name.endswith(".safetensors") and not _matches(name, UNUSED_FOLDERS)]
    pickled = [name for name in names if _matches(name, PICKLED)]
    if pickled and not weights:
        raise BuildError(refuse_pickle(profile.source["repository"], pickled[0]))
    return [*wanted, *weights, *code]


def beside_graph(profile: Profile, names: Sequence[str]) -> list[str]:
    """Files that may hold tensors of a prebuilt graph, as far as their names tell; it names the right ones itself."""
    folder = posixpath.dirname(profile.file)
    beside = [
        name
        for name in names
        if posixpath.dirname(name) == folder and not _matches(posixpath.basename(name), METADATA_FILES)
    ]
    graphs = [name for name in beside if name.endswith(".onnx")]
    return [name for name in beside if not name.startswith(tuple(graphs)) or name.startswith(profile.file)]


def _tensor_files(what: str, profile: Profile, folder: Path, published: Iterable[str]) -> list[str]:
    """The files that the downloaded graph keeps tensors in, by their names in the repository."""
    locations = tensor_locations(folder / profile.file)
    names = [posixpath.normpath(posixpath.join(posixpath.dirname(profile.file), location)) for location in locations]
    if missing := sorted(set(names) - set(published)):
        raise BuildError(
            f"{what}: {profile.file} keeps tensors in {missing[0]}, which the repository does not have. Take another "
            "revision, or another `file` in the profile."
        )
    return names


def refuse_pickle(where: str, name: str) -> str:
    return (
        f"{where}: its weights are in {name}, and loading such a file runs the code in it. Take a revision that has "
        "safetensors, or convert the weights elsewhere and use the folder as the source."
    )


def resolve_revision(repository: str, revision: str | None) -> str:
    """The commit a branch or tag (default: main) points to now."""
    from huggingface_hub import HfApi, constants  # noqa: PLC0415

    try:
        return str(_patiently(lambda: HfApi().model_info(repository, revision=revision), server_errors=True).sha)
    except Exception as error:
        what = f"{repository}@{(revision or 'main')[:12]} at {constants.ENDPOINT}"
        raise BuildError(explain(error, what)) from error


def _patiently(work: Callable[[], Any], *, server_errors: bool = False) -> Any:
    """The result of `work`, tried again where waiting may help: as told by a rate limit, else longer each time.

    `server_errors`: also where the server failed (5xx). In a file's download the library itself waits for it half a
    minute, in a listing not at all.
    """
    import requests  # noqa: PLC0415

    broken = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    failures, waited = 0, 0.0
    while True:
        try:
            return work()
        except Exception as error:
            status = http_status(error)
            pause = float(2**failures)
            if status == 429:
                pause = retry_after(error)
                if waited + pause > LONGEST_WAIT:
                    raise
                say("fetch", f"the hub limits the rate of requests: waiting {pause:.0f} s as it asks")
                waited += pause
            elif failures < ATTEMPTS and server_errors and status >= 500:
                failures += 1
                say("fetch", f"the server failed ({status}): asking again in {pause:.0f} s")
            elif failures < ATTEMPTS and isinstance(error, broken):
                failures += 1
                say("fetch", f"the connection broke ({type(error).__name__}): going on in {pause:.0f} s")
            else:
                raise
            time.sleep(pause)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _check_room(what: str, total: int, folder: Path) -> None:
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free
    if total - there + RESERVE > free:
        raise BuildError(
            f"{what}: {(total - there) / 1e6:.0f} MB are to come, and {folder} has {free / 1e6:.0f} MB free, of which "
            f"{RESERVE / 1e6:.0f} MB must stay. Free some space there or enlarge the disk, then run this again."
        )


def _check_hashes(what: str, folder: Path, published: Sequence[Any]) -> None:
    """Compare with what the hub publishes: a sha256 for large files, git's name for small ones."""
    for entry in published:
        path = folder / entry.rfilename
        sha256, blob = file_digests(path)
        if entry.lfs is not None:
            found, expected = sha256, entry.lfs.sha256
        elif entry.blob_id:
            found, expected = blob, entry.blob_id
        else:
            say("fetch", f"{entry.rfilename}: no hash is published for it, so only its own hash is recorded")
            continue
        if found != expected:
            path.unlink()
            raise BuildError(
                f"{what}: {entry.rfilename} arrived with the hash {found[:12]}…, expected {expected[:12]}…. It is "
                "removed: run this again; if it repeats, the mirror or a proxy on the way changes files."
            )
