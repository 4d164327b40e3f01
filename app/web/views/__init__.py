"""What views use: proxies and decorators.

current        database, mesh, cache and coordination, as proxies
guarding       who may: the rules of the routes, enforced before the views
preconditions  ETag, If-None-Match and If-Match: versions as conditions
idempotency    Idempotency-Key: a request that comes again has its effect once
prefer         Prefer: wait
caching        @cached and @cached_view
kept           a whole answer as bytes, and whether it may be kept
coordinating   mesh_lock and @rate_limited
decorating     how a decorator stands for a view, async or plain
"""
