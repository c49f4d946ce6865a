"""`python -m worker`: index documents until SIGTERM."""

import os
import signal
import sys
from types import FrameType

from app.log import log, set_level, take_over_logging
from app.metrics import ListenError, listen
from store.connection import conninfo
from store.errors import StoreError
from worker import settings
from worker.loop import Worker

NICENESS = 10  # a query's inference goes first


def main() -> int:
    take_over_logging()
    os.nice(NICENESS)
    try:
        configured = settings.from_environment()
        set_level(configured.log_level)
        worker = Worker(conninfo(), configured)
        listen(worker.metrics.registry, configured.metrics_port)
    except (settings.SettingsError, StoreError, ListenError) as error:
        print(f"worker: {error}", file=sys.stderr)
        return 1
    configured.heartbeat.unlink(missing_ok=True)

    def stop(_: int, __: FrameType | None) -> None:
        worker.stop.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log("starting", worker=worker.name, threads=configured.threads)
    worker.run()
    log("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
