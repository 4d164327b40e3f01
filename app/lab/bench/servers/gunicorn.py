"""gunicorn's threads: one worker, which is the process that works; its master only watches."""

from __future__ import annotations

import os
import sys

from app.lab.bench import footing

# More than there are connections, so that none waits for another.
_THREADS = 64


def serve(module: str, fd: int) -> None:
    options = {
        "--bind": f"fd://{fd}",
        "--backlog": footing.BACKLOG,
        "--workers": 1,
        "--worker-class": "gthread",
        "--threads": _THREADS,
        "--keep-alive": footing.KEEP_ALIVE_SECONDS,
        "--graceful-timeout": footing.DRAIN_SECONDS,
        "--log-level": "warning",
    }
    argv = [str(part) for option in options.items() for part in option]
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *argv, f"{module}:make('')"])  # noqa: S606  # a shell is what we do not want
