"""The servers: each module's ``serve(module, fd)`` serves an application on a listening socket until SIGTERM.

All run uvloop and one process, with long keep-alive and without an access log of their own; the rest is as each
server ships. A module loads nothing that is not its own: a foreign side must not carry this house's imports, whose
objects would cost it time in every garbage collection.

mesh_run     what ``mesh run`` does
hypercorn    Hypercorn as it ships
uvicorn      uvicorn with httptools
gunicorn     gunicorn's threads
alone        an application that serves by itself
"""
