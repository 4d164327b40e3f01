"""Values that are dear to make: kept in this process and in Redis, made once for all who ask.

    get_or_load ─► in this process? ─► fresh: that is all (a few are sent to refresh it early, XFetch)
                        │ no
                        ▼
                   a load under way here? ─► wait for it
                        │ no
                        ▼
                   Redis: fresh? ─► keep it here
                        │ no: whoever gets the lock loads, the other processes look again, for a bounded time
                        ▼
                   loader ─► stored, unless it was invalidated meanwhile; should it fail: the last value stands in

cache       the door: get_or_load, get, set, delete, invalidate, describe
cached      ``@cached`` for async functions, and how arguments become a key
plan        what is asked for; what a loader may answer
making      from Redis, from another process's load, or by loading
flights     one load per key in this process
shelf       what this process keeps, behind the fence
local       the bounded tier
entry       one value and its times
fence       what was invalidated while something was being loaded
codec       plain data as JSON, bytes as they are
remote      the tier in Redis; scripts/ has the atomic steps, in Lua
announcer   sends invalidations, coalesced; those of others come by `app.mesh.coordination.watch`
assembly    `open_cache`: puts them together

What holds: this process serves no value older than an invalidation that it has made or heard of; Redis takes none that
was loaded before one. What does not: an invalidation that is lost with a Redis that fails over to a stale replica, or
with a process that ends while Redis is away, is bounded by the value's time of life; another process hears of an
invalidation after milliseconds, or, if its connection died without a word, after ``watch_seconds``. On a Redis Cluster
everything of one namespace is in one slot, so on one node.
"""

from app.mesh.cache.assembly import open_cache
from app.mesh.cache.cache import Cache, Found
from app.mesh.cache.cached import cached
from app.mesh.cache.plan import Keep, Uncached

__all__ = ["Cache", "Found", "Keep", "Uncached", "cached", "open_cache"]
