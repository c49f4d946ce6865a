"""`python -m app`: serve until SIGTERM, then finish what has begun."""

import signal
import sys

import uvicorn

from app import services, settings
from app.log import log, take_over_logging
from app.main import create_app
from store.connection import conninfo
from store.errors import StoreError

DRAIN_SECONDS = 20


def main() -> int:
    take_over_logging()
    try:
        configured = settings.from_environment()
        made = services.make(configured, conninfo())
    except (settings.SettingsError, StoreError) as error:
        print(f"app: {error}", file=sys.stderr)
        return 1
    if made.keys.required:
        made.keys.hand_over(configured.selftest_key_file)
    log("starting", port=configured.port, key_required=made.keys.required, deployment=configured.deployment)
    # uvicorn drains on the first SIGTERM and then sends it again to whoever handled it before; the end is orderly.
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.run(
        create_app(made),
        host="0.0.0.0",  # inside the container; compose publishes it on stack_listen
        port=configured.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    log("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
