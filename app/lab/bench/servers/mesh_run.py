"""What ``mesh run`` does: `app.web.serving.server.serve`."""

from __future__ import annotations

from app.lab.bench import footing
from app.web.serving import server


def serve(module: str, fd: int) -> None:
    sock = footing.inherited(fd)

    async def main() -> None:
        app = footing.make(module, sock)
        await server.serve(
            app,
            sock,
            stop=server.stop_on_signals(),
            drain_seconds=footing.DRAIN_SECONDS,
            on_stop=getattr(app, "leave", _nothing),
            on_ready=server.calm_collector,
        )

    server.run(main)


async def _nothing() -> None:
    """Nobody needs to be told."""
