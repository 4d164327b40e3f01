"""What people see of the events, and what they do about those that failed.

dead         dead letters: list, show, replay, drop
survey       how far behind everybody is
surveyor     asks Redis for that, and has a group forgotten
meter        how much waits, every few seconds
tail         what is published, as it comes
scripts/     the atomic steps, in Lua
"""
