"""How many requests a minute: counted in Redis, or by this process alone while Redis does not answer.

One number per client says when its allowance is whole again; each request moves it by the time it takes to earn one.
So a client may ask `limit` times at once and as often as that a minute in the long run, and what is refused is told
the moment from which it would not be.
"""

import math
import time
from collections import OrderedDict
from typing import Any

import redis
import redis.asyncio

from app.log import log

MINUTE = 60.0  # seconds
TIMEOUT = 0.25  # seconds
PAUSE = 5.0  # seconds without Redis after it failed
CLIENTS = 10_000  # that are counted here at most, while Redis is away

# KEYS: the client. ARGV: limit, seconds that it is for. Returns the seconds to wait, 0 for none, as text.
SCRIPT = """
local now = redis.call('TIME')
now = tonumber(now[1]) + tonumber(now[2]) / 1000000
local window = tonumber(ARGV[2])
local whole = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + window / tonumber(ARGV[1])
if whole - now > window then return tostring(whole - now - window) end
redis.call('SET', KEYS[1], string.format('%.6f', whole), 'PX', math.ceil((whole - now) * 1000))
return '0'
"""


class Limiter:
    """Without a URL every process counts for itself, and that is no degradation."""

    def __init__(self, url: str) -> None:
        self._client: Any = _connect(url) if url else None
        self._script = self._client.register_script(SCRIPT) if self._client else None
        self._failed_at = float("-inf")
        self._local: OrderedDict[str, float] = OrderedDict()
        self.refused = {"key": 0, "address": 0}

    async def wait(self, kind: str, client: str, limit: int) -> int:
        """0 for a request that is within the limit, else the whole seconds until one would be. `limit` 0 is none."""
        if not limit:
            return 0
        seconds = await self._count(f"rate:{kind}:{client}", limit)
        # A hair above the limit is rounding, not a request too many.
        if seconds < 1e-3:
            return 0
        self.refused[kind] += 1
        return math.ceil(seconds)

    async def close(self) -> None:
        if self._client:
            await self._client.aclose()

    async def _count(self, client: str, limit: int) -> float:
        if self._script and time.monotonic() - self._failed_at > PAUSE:
            try:
                seconds = float(await self._script(keys=[client], args=[limit, MINUTE]))
            except redis.RedisError as error:
                if self._failed_at == float("-inf"):
                    log("rate_limits_local", "warning", error=type(error).__name__)
                self._failed_at = time.monotonic()
            else:
                self._failed_at = float("-inf")
                return seconds
        return self._count_here(client, limit)

    def _count_here(self, client: str, limit: int) -> float:
        now = time.monotonic()
        whole = max(self._local.get(client, 0.0), now) + MINUTE / limit
        if whole - now > MINUTE:
            return whole - now - MINUTE
        self._local[client] = whole
        self._local.move_to_end(client)
        if len(self._local) > CLIENTS:
            self._local.popitem(last=False)
        return 0.0


def _connect(url: str) -> Any:
    return redis.asyncio.Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=None)
