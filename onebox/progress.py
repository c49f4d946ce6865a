"""How far an ingestion is: two bars on a terminal, a line every few seconds elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

LINE_EVERY_S = 10.0


class Progress:
    """Use it as a context manager. Problems are lines above the bars: `origin: what is wrong`."""

    def __init__(self, size: int, console: Console) -> None:
        """`size`: bytes of all files."""
        self._console = console
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._reading = self._bars.add_task("sent   ", total=size, count="0 documents")
        self._indexing = self._bars.add_task("indexed", total=None, count="0 documents")
        self._sent = 0
        self._told = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._bars.stop()

    def read(self, size: int) -> None:
        """So many more bytes of the files."""
        self._bars.advance(self._reading, size)

    def sent(self, documents: int) -> None:
        """So many documents so far."""
        self._sent = documents
        self._bars.update(self._reading, count=f"{documents:,} documents")
        self._bars.update(self._indexing, total=documents)
        self._tell(f"sent {documents:,} documents")

    def indexed(self, documents: int) -> None:
        """So many documents so far, of all that were sent."""
        self._bars.update(self._indexing, completed=documents, count=f"{documents:,} of {self._sent:,} documents")
        self._tell(f"indexed {documents:,} of {self._sent:,} documents")

    def problem(self, origin: str, reason: str) -> None:
        self._console.print(f"{origin}: {reason}", markup=False, highlight=False, soft_wrap=True)

    def _tell(self, line: str) -> None:
        if not self._console.is_terminal and time.monotonic() - self._told >= LINE_EVERY_S:
            self._told = time.monotonic()
            self._console.print(line, highlight=False)
