"""An application that serves by itself: its module has ``async serve(sock, stop)``."""

from __future__ import annotations

import importlib

from app.lab.bench import footing


def serve(module: str, fd: int) -> None:
    serve_alone = importlib.import_module(module).serve

    async def main() -> None:
        await serve_alone(footing.inherited(fd), footing.stop_on_sigterm())

    footing.run(main)
