-- Takes new entries for a group, if the consumer still owns the partition. Without the look at its lease one that was paused
-- could take what its successor is to handle, and upset the order.
--
-- KEYS  1 lock:<lease>, then the streams
-- ARGV  1 owner  2 group  3 consumer  4 how many entries at most, of each stream
-- Result  { 0 } if the lease is lost, { -1 } if a group or a stream is missing,
--         else { 1, { for each stream: { entry, … } }, { for each stream: the id with which it ends } }

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return { 0 } end

local taken, ends = {}, {}
for i = 2, #KEYS do
  local reply = redis.pcall('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', ARGV[4], 'STREAMS', KEYS[i], '>')
  if reply and reply.err then
    if string.find(reply.err, 'NOGROUP', 1, true) then return { -1 } end
    return redis.error_reply(reply.err)
  end
  taken[i - 1] = reply and reply[1][2] or {}
  local info = redis.call('XINFO', 'STREAM', KEYS[i])
  for n = 1, #info, 2 do
    if info[n] == 'last-generated-id' then ends[i - 1] = info[n + 1] end
  end
end
return { 1, taken, ends }
