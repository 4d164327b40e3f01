"""From the streams to an effect, once, and in order for each key.

handlers     who handles which event
inbox        whether an event has had its effect
retrying     what a failure is followed by: another try, or the dead letters
desk         one event: handled, tried again, or given up
lane         the events of one key, one after the other
group        what a consumer says to Redis
worker       one partition of all streams that a service hears
wishes       who would like to have a partition
consumer     which partitions this process works on
scripts/     the atomic steps, in Lua
"""
