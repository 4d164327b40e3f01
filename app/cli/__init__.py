"""The `mesh` command: it parses, calls and prints; what it calls lives elsewhere.

main.py       the table of commands, and how errors leave
up.py         up
down.py       down
run.py        run SERVICE: one process in the foreground, as in production
ps.py         ps: who is in the registry
inspection.py inspect INSTANCE: what it says of itself
call.py       call SERVICE METHOD PATH: through the mesh client
token.py      token: an access token, for a shell
rollout.py    rollout SERVICE…: a rolling restart of what `mesh up` runs
drain.py      drain INSTANCE: out of the traffic, and back
weight.py     weight SERVICE RULE…: who gets how much of it
events.py     events lag, events forget: who is how far behind
tail.py       events tail: what is published
dead.py       events dead: what nobody could handle
outboxes.py   what waits to be sent
db.py         db upgrade, db downgrade, db status, db revision
user.py       user add, user list, user disable
client.py     client add, client list, client rotate
identity.py   opens identity's database for those
services.py   services: what there is to run
tokens.py     gets the token that a command prints or carries
running.py    finds the running system
instances.py  finds the instance that is named
news.py       what a supervisor reports, shown as it comes
terminal.py   tables and progress; plain lines when nobody watches
"""
