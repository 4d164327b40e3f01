"""uvicorn with uvloop and httptools, its fastest."""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import uvicorn

from app.lab.bench import footing


def serve(module: str, fd: int) -> None:
    sock = footing.inherited(fd)
    config = uvicorn.Config(
        footing.make(module, sock),
        loop="uvloop",
        http="httptools",
        backlog=footing.BACKLOG,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=footing.KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=footing.DRAIN_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[sock])
