-- Renews an instance's lease and stores its whole record: an upsert, so that a flushed registry heals by itself.
--
-- KEYS  1 head  2 log  3 services  4 svc:<service>  5 exp:<service>  6 load:<service>  7 left:<service>:<id>
-- ARGV  1 service  2 id  3 generation  4 record ("<generation> <JSON>")  5 load JSON  6 ttl_ms  7 nonce (random)
--       8 log length  9 retention_ms  10 key prefix
-- Result  { 'changed' | 'same' | 'refused', epoch, seq, mark }
--
-- Invariants
--   * A generation lower than the stored one, or not above one that left, changes nothing at all.
--   * seq and log move only if the record is new or differs; load figures and the lease are no change.
--   * Afterwards every key written has a TTL.

local service, id, generation = ARGV[1], ARGV[2], tonumber(ARGV[3])
local record, ttl, nonce = ARGV[4], tonumber(ARGV[6]), ARGV[7]
local now = now_ms()
local head = open_head(KEYS[1], KEYS[2], nonce, now)

local left = tonumber(redis.call('GET', KEYS[7]) or '')
local stored = redis.call('HGET', KEYS[4], id)
local current = generation_of(stored)
if (left and generation <= left) or (current and generation < current) then
  redis.call('PEXPIRE', KEYS[1], ARGV[9])
  return { 'refused', head.epoch, int(head.seq), head.mark }
end

guard(head, ARGV[10], KEYS[3], ttl, now)
redis.call('SADD', KEYS[3], service)
redis.call('ZADD', KEYS[5], int(now + ttl), id)
redis.call('HSET', KEYS[6], id, int(now) .. ' ' .. ARGV[5])
redis.call('HSET', KEYS[1], 'beat_ms', int(now))

local result = 'same'
if stored ~= record then
  redis.call('HSET', KEYS[4], id, record)
  append(head, KEYS[2], ARGV[8], nonce, 'up', service, id, record)
  result = 'changed'
end
for i = 1, 6 do
  redis.call('PEXPIRE', KEYS[i], ARGV[9])
end
return { result, head.epoch, int(head.seq), head.mark }
