"""How often one may try, in the whole fleet. An account's own lock is beneath this, and needs no Redis."""

from __future__ import annotations

import math

from app.errors import TooManyRequests
from app.mesh.coordination import Rate
from app.web import coordination

# A household or an office behind one address may log in together; a list of names or passwords takes days.
LOGINS = Rate(tokens=20, seconds=60.0)
# A user code is one of some 25 thousand million, and lives for ten minutes.
USER_CODES = Rate(tokens=10, seconds=60.0)


async def require(name: str, rate: Rate, who: str) -> None:
    """Take one try of `who`. Raises TooManyRequests: says when the next one is welcome."""
    verdict = await coordination.limiter(name, rate).take(who)
    if not verdict.allowed:
        seconds = max(1, math.ceil(verdict.retry_after))
        raise TooManyRequests(f"Too many attempts: try again in {seconds} seconds", retry_after=verdict.retry_after)
