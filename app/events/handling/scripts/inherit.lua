-- Hands what all consumers of a group have taken and not finished to the new owner of the partition, and forgets consumers
-- that have nothing left.
--
-- KEYS  1 lock:<lease>  2 the stream
-- ARGV  1 owner  2 group  3 consumer  4 after this id  5 how many at most
-- Result  { 0 } if the lease is lost, { -1 } if the group is missing,
--         else { 1, { { id, content or '', how often it was handed out before }, … } }
--
-- Invariants
--   * An entry that is no longer in the stream is acknowledged: nobody can handle it.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return { 0 } end

local pending = redis.pcall('XPENDING', KEYS[2], ARGV[2], '(' .. ARGV[4], '+', ARGV[5])
if pending.err then
  if string.find(pending.err, 'NOGROUP', 1, true) then return { -1 } end
  return redis.error_reply(pending.err)
end
local found = {}
for _, entry in ipairs(pending) do
  local id, times = entry[1], entry[4]
  local kept = redis.call('XRANGE', KEYS[2], id, id)
  if kept[1] then
    redis.call('XCLAIM', KEYS[2], ARGV[2], ARGV[3], 0, id, 'RETRYCOUNT', times + 1, 'JUSTID')
    found[#found + 1] = { id, kept[1][2], times }
  else
    redis.call('XACK', KEYS[2], ARGV[2], id)
    found[#found + 1] = { id, {}, times }
  end
end
if #pending == 0 then
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[2], ARGV[2])) do
    if consumer[2] ~= ARGV[3] and consumer[4] == 0 then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[2], ARGV[2], consumer[2])
    end
  end
end
return { 1, found }
