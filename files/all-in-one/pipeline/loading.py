"""Loads models that are as they were proven: whole by their manifest, and right on this machine."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline import golden
from pipeline.embedder import Embedder
from pipeline.errors import ModelError, NotAsProvenError
from pipeline.manifest import check_files, read_folder
from pipeline.reranker import Reranker

RETRY = 60.0  # seconds until a release that could not be loaded is tried again with the same files
NAMES = {"embedding": "embedding model", "reranker": "reranker"}
NOTHING_LEFT = {
    "embedding": "No other release of its embedding space can take its place.",
    "reranker": "No previous release can take its place, so nothing is reranked.",
}
MEND = "`ansible-playbook -i INVENTORY playbooks/models.yml` builds it again."


class Loader[Model: (Embedder, Reranker)]:
    """The best model of one kind that can be served: `model`, None without any.

    `degraded` says why it is not the wanted one, in words for an operator; None while it is.
    """

    def __init__(self, kind: str, make: Callable[[Path], Model], *, checked: bool = True) -> None:
        """`kind` is embedding or reranker. Not `checked` is for development, where something may stand in."""
        self.model: Model | None = None
        self.degraded: str | None = None
        self._kind = kind
        self._make: Callable[[Path], Model] = make
        self._checked = checked
        self._source: Path | None = None
        self._refused: dict[Path, _Refusal] = {}

    def choose(self, folders: Iterable[Path]) -> Model | None:
        """Make `model` the first of the folders that can be served; the very first is the wanted one.

        Cheap when nothing changed: what serves is kept, and what was refused is not read again while its files are the
        same.
        """
        reasons: list[str] = []
        for folder in folders:
            source = folder.resolve()
            try:
                self.model = self._load(source)
            except ModelError as error:
                reasons.append(str(error))
            else:
                self._source = source
                break
        else:
            self.model = self._source = None
        self.degraded = self._explain(reasons) if reasons else self.model.degraded if self.model else None
        return self.model

    def need(self, folders: Iterable[Path]) -> Model:
        """As `choose`. ModelError when none can be served."""
        model = self.choose(folders)
        if model is None:
            raise ModelError(self.degraded)
        return model

    def _load(self, folder: Path) -> Model:
        if self.model is not None and folder == self._source:
            return self.model
        files = _state(folder)
        refused = self._refused.get(folder)
        if refused and refused.files == files and time.monotonic() < refused.until:
            raise ModelError(refused.why)
        try:
            return self._prove(folder)
        except OSError as error:
            why = f"{error.filename or folder} cannot be read ({error.strerror})."
            until = time.monotonic() + RETRY
        except ModelError as error:
            why = str(error)
            until = float("inf") if isinstance(error, NotAsProvenError) else time.monotonic() + RETRY
        self._refused[folder] = _Refusal(files, until, why)
        raise ModelError(why)

    def _prove(self, folder: Path) -> Model:
        if not self._checked:
            return self._make(folder)
        check_files(read_folder(folder, self._kind))
        model = self._make(folder)
        if model.folder and model.folder.manifest and not golden.proven_here(model.folder.manifest):
            golden.check(model)
        return model

    def _explain(self, reasons: list[str]) -> str:
        wanted, *others = reasons
        parts: list[str] = [f"The wanted {NAMES[self._kind]} cannot serve: {wanted}"]
        parts += [f"Nor can another: {reason}" for reason in others]
        parts.append(f"{self.model.release_id} serves instead." if self.model else NOTHING_LEFT[self._kind])
        return " ".join([*parts, MEND])


@dataclass(frozen=True)
class _Refusal:
    """Why a folder cannot be served, while its files are those and the time is not over (time.monotonic())."""

    files: object
    until: float
    why: str


def _state(folder: Path) -> object:
    """Differs as soon as a file of the folder was written, replaced, added or removed."""
    found = []
    # A bare model may be named by its file; what lies beside it matters too.
    paths = folder.parent.glob("*") if folder.suffix == ".onnx" else folder.rglob("*")
    try:
        for path in sorted(paths):
            status = path.stat()
            found.append((str(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    except OSError:
        return None
    return found
