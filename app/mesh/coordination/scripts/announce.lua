-- Prepended to every script that writes to a log which other processes watch. Redis 6.2 commands only.

-- One entry of the log: who invalidates what, and the entry before it, so that a reader sees a gap.
local function announce(log, length, life, origin, names)
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
  redis.call('XADD', log, 'MAXLEN', '~', length, '*',
    'prev', last[1] and last[1][1] or '0-0', 'origin', origin, 'names', cjson.encode(names))
  redis.call('PEXPIRE', log, life)
end
