"""`python -m worker.healthcheck`: the container's health check. The worker beats after real inferences."""

import sys

from worker import heartbeat, settings


def main() -> int:
    seconds = heartbeat.age(settings.from_environment().heartbeat)
    if seconds is None:
        print("The worker has not loaded its model yet.", file=sys.stderr)
        return 1
    if seconds > heartbeat.FRESH:
        print(f"The worker got nowhere for {seconds:.0f} s ({heartbeat.FRESH:.0f} s are allowed).", file=sys.stderr)
        return 1
    print(f"alive {seconds:.0f} s ago")
    return 0


if __name__ == "__main__":
    sys.exit(main())
