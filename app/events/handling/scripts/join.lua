-- Makes a group on streams where it is missing. It begins with what is there, never with what comes: a group that somebody has
-- removed must not miss anything.
--
-- KEYS  the streams
-- ARGV  1 group  2 life of a stream that is made here, ms
-- Result  how many were missing

local made = 0
for i = 1, #KEYS do
  local there = redis.call('EXISTS', KEYS[i]) == 1
  local reply = redis.pcall('XGROUP', 'CREATE', KEYS[i], ARGV[1], '0', 'MKSTREAM')
  if reply.err then
    if not string.find(reply.err, 'BUSYGROUP', 1, true) then return redis.error_reply(reply.err) end
  else
    made = made + 1
    if not there then redis.call('PEXPIRE', KEYS[i], ARGV[2]) end
  end
end
return made
