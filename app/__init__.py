"""Flask Mesh: async Flask services on Hypercorn that find, call and survive one another through Redis.

The map of the house; a room may import the rooms below it, never above, never sideways across ``|``
(``scripts/check`` enforces it):

    cli                              the ``mesh`` command
    dev | lab                        local processes and embedded Redis | load, scaling, faults
    asgi                             front door of one process: one service, one event loop
    services.* | gateway             strangers to one another | the public edge
    web                              Flask on ASGI: bridge, factory, problems, OpenAPI, health
    resources | production           what one process opens and closes | what must not go into production
    service                          what a service is
    auth | events                    guard | outbox, relay, consumer on Redis Streams
    data | mesh                      SQL | registry, balancing, client, cache, coordination
    telemetry                        logs and metrics
    settings | context | deadline | redis_client
                                     configuration, read once | the contextvars of one request | bounded time | Redis by URL
    errors                           the one error tree
"""
