"""The `mesh` command: it parses, calls and prints; what it calls lives elsewhere.

main.py       the table of commands, and how errors leave
up.py         up, down
run.py        run SERVICE: one process in the foreground, as in production
ps.py         ps: who is in the registry
call.py       call SERVICE METHOD PATH: through the mesh client
db.py         db upgrade, db status, db revise
services.py   services: what there is to run
running.py    finds the running system
terminal.py   tables and progress; plain lines when nobody watches
"""
