-- Takes an instance out at its own wish, at once: no guard applies to a voluntary leave.
--
-- KEYS  1 head  2 log  3 services  4 svc:<service>  5 exp:<service>  6 load:<service>  7 seen
--       8 left:<service>:<id>  9 wish:<service>:<id>
-- ARGV  1 service  2 id  3 generation  4 ttl_ms of the mark that it left  5 nonce (random)  6 log length
--       7 retention_ms
-- Result  { 'left' | 'absent' | 'refused', epoch, seq, mark }
--
-- Invariants
--   * A lower generation than the stored one takes nothing out.
--   * A heartbeat of this generation that arrives later (a hung connection) does not bring the instance back.

local service, id, generation = ARGV[1], ARGV[2], tonumber(ARGV[3])
local head = open_head(KEYS[1], KEYS[2], ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[7])

local stored = redis.call('HGET', KEYS[4], id)
local current = generation_of(stored)
if current and generation < current then
  return { 'refused', head.epoch, int(head.seq), head.mark }
end

redis.call('SET', KEYS[8], ARGV[3], 'PX', ARGV[4])
redis.call('DEL', KEYS[9])
redis.call('HDEL', KEYS[6], id)
redis.call('ZREM', KEYS[5], id)
redis.call('ZREM', KEYS[7], service .. ':' .. id)
if not stored then
  return { 'absent', head.epoch, int(head.seq), head.mark }
end
redis.call('HDEL', KEYS[4], id)
if redis.call('EXISTS', KEYS[4]) == 0 then
  redis.call('SREM', KEYS[3], service)
end
append(head, KEYS[2], ARGV[6], ARGV[5], 'left', service, id, '')
redis.call('PEXPIRE', KEYS[2], ARGV[7])
return { 'left', head.epoch, int(head.seq), head.mark }
