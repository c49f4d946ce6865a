"""`python -m app`: serve until SIGTERM, then finish what has begun."""

import signal
import sys
from types import FrameType

import uvicorn

from app import services, settings
from app.log import log, set_level, take_over_logging
from app.main import create_app
from app.metrics import ListenError, listen
from store.connection import conninfo
from store.errors import StoreError


def main() -> int:
    take_over_logging()
    try:
        configured = settings.from_environment()
        set_level(configured.log_level)
        made = services.make(configured, conninfo())
        app = create_app(made)
        listen(made.metrics.registry, configured.metrics_port)
    except (settings.SettingsError, StoreError, ListenError) as error:
        print(f"app: {error}", file=sys.stderr)
        return 1
    if made.keys.required:
        made.keys.hand_over(configured.selftest_key_file)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host="0.0.0.0",  # inside the container; compose publishes it on stack_listen
            port=configured.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=configured.drain,
        )
    )

    def stop(_: int, __: FrameType | None) -> None:
        server.should_exit = True

    # Until uvicorn listens to signals itself. It drains on the first, and sends it again to this in the end.
    signal.signal(signal.SIGTERM, stop)
    log("starting", port=configured.port, key_required=made.keys.required, deployment=configured.deployment)
    server.run()
    if not server.started:
        return 3
    log("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
