"""`python -m app.healthcheck`: the container's health check. Asks /readyz, which runs both models."""

import os
import sys
import urllib.error
import urllib.request

TIMEOUT = 10  # seconds


def main() -> int:
    port = os.environ.get("APP_PORT") or "8000"
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=TIMEOUT) as answer:
            print(answer.read().decode("utf-8"))
    except urllib.error.HTTPError as error:
        print(error.read().decode("utf-8", errors="replace"), file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The app does not answer on port {port}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
