"""Hypercorn as it ships, through its own Python API."""

from __future__ import annotations

import hypercorn.asyncio
from hypercorn.config import Config

from app.lab.bench import footing

_WITHOUT_END = 10**9


def serve(module: str, fd: int) -> None:
    config = Config()
    config.bind = [f"fd://{fd}"]
    config.backlog = footing.BACKLOG
    config.keep_alive_timeout = footing.KEEP_ALIVE_SECONDS
    config.keep_alive_max_requests = _WITHOUT_END
    config.graceful_timeout = footing.DRAIN_SECONDS

    async def main() -> None:
        stop = footing.stop_on_sigterm()
        # Hypercorn makes a socket object of the descriptor for itself.
        sock = footing.inherited(fd)
        app = footing.make(module, sock)
        sock.detach()
        await hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait)

    footing.run(main)
