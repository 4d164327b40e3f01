"""`json`: one async view that answers JSON at once. What is left is the framework and the server."""

from __future__ import annotations

from app.lab.bench.lab import CPU, RATE, UNDER_LOAD, Lab
from app.lab.bench.model import Comparison, Limit, Result, Subject
from app.lab.bench.subjects import views
from app.lab.figures import Goal

SERVICE = Subject("service", "whole service, `mesh run`", "service", "mesh_run")
OURS = Subject("ours", "Flask on the bridge, `mesh run`'s server", "ours", "mesh_run")
OURS_STOCK = Subject("ours-hypercorn", "Flask on the bridge, stock Hypercorn", "ours", "hypercorn")
QUART = Subject("quart", "Quart, stock Hypercorn", "quart", "hypercorn")
WSGI_TO_ASGI = Subject("wsgi-to-asgi", "Flask in WsgiToAsgi, stock Hypercorn", "flask", "hypercorn")
BARE = Subject("bare", "bare ASGI, `mesh run`'s server", "bare", "mesh_run")
BARE_STOCK = Subject("bare-hypercorn", "bare ASGI, stock Hypercorn", "bare", "hypercorn")

SUBJECTS = (SERVICE, OURS, OURS_STOCK, QUART, WSGI_TO_ASGI, BARE, BARE_STOCK)
AGAINST_QUART, AGAINST_WSGI = Goal("at least", 1.3), Goal("at least", 3.0)
_METRICS = (CPU.key, RATE.key)


async def run(lab: Lab) -> Result:
    subjects = lab.options.chosen(SUBJECTS)
    samples = await lab.rounds(
        "json", subjects, lambda process: lab.under_load(process, views.USER_PATH), ready=views.USER_PATH
    )
    ours = (OURS.key, OURS_STOCK.key, SERVICE.key)
    goals = ((QUART.key, AGAINST_QUART), (WSGI_TO_ASGI.key, AGAINST_WSGI))
    return Result(
        "json",
        f"GET {views.USER_PATH}, an async view that answers JSON; {lab.options.connections} connections",
        (
            "A whole service does more per request than any other line: request id, deadline, metrics, access log.",
            "Stock Hypercorn: its own API and defaults, but uvloop, a backlog of 2,048 and keep-alive without end.",
        ),
        subjects,
        UNDER_LOAD,
        tuple(samples),
        (
            *(Comparison(one, other, _METRICS, goal) for one in ours for other, goal in goals),
            Comparison(OURS.key, BARE.key, _METRICS),
            Comparison(OURS_STOCK.key, BARE_STOCK.key, _METRICS),
        ),
        tuple(Limit(one, "errors", Goal("at most", 0)) for one in ours),
    )
