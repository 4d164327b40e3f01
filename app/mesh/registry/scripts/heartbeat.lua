-- Renews an instance's lease and stores its whole record: an upsert, so that a flushed registry heals by itself.
--
-- KEYS  1 head  2 log  3 services  4 svc:<service>  5 exp:<service>  6 load:<service>  7 seen  8 rules
--       9 left:<service>:<id>  10 wish:<service>:<id>
-- ARGV  1 service  2 id  3 generation  4 record ("<generation> <JSON>")  5 load JSON  6 ttl_ms  7 nonce (random)
--       8 log length  9 retention_ms  10 key prefix  11 what its directory has applied ("<epoch> <seq> <mark>"; empty:
--       it has none)  12 shortest time between two sweeps, ms
-- Result  { 'changed' | 'same' | 'refused', epoch, seq, mark, wish ("<mark> <generation> <state>" or ''),
--           1 if a sweep is due, else 0 }
--
-- Invariants
--   * A generation lower than the stored one, or not above one that left, changes nothing at all.
--   * seq and log move only if the record is new or differs; load figures, lease and `seen` are no change.
--   * `seen` never says more than what was applied of *this* history: another past counts as nothing.
--   * A wish lives as long as the generation that it was made for.
--   * Afterwards every key written has a TTL.

local service, id, generation = ARGV[1], ARGV[2], tonumber(ARGV[3])
local record, ttl, nonce = ARGV[4], tonumber(ARGV[6]), ARGV[7]
local now = now_ms()
local head = open_head(KEYS[1], KEYS[2], nonce)
local due = sweep_due(head, now, tonumber(ARGV[12])) and 1 or 0

local left = tonumber(redis.call('GET', KEYS[9]) or '')
local stored = redis.call('HGET', KEYS[4], id)
local current = generation_of(stored)
if (left and generation <= left) or (current and generation < current) then
  redis.call('PEXPIRE', KEYS[1], ARGV[9])
  return { 'refused', head.epoch, int(head.seq), head.mark, '', due }
end

-- How far the directory has come in this history; 0 if what it has applied is not of it.
local function applied()
  local epoch, seq, mark = string.match(ARGV[11], '^(%S*) (%d+) (%S*)$')
  local n = tonumber(seq)
  return n and epoch == head.epoch and happened(head, KEYS[2], n, mark) and n or 0
end

local function wish()
  local said = redis.call('GET', KEYS[10])
  if not said then
    return ''
  end
  if tonumber(string.match(said, '^%S+ (%d+) ')) ~= generation then
    redis.call('DEL', KEYS[10])
    return ''
  end
  redis.call('PEXPIRE', KEYS[10], int(2 * ttl))
  return said
end

guard(head, ARGV[10], KEYS[3], ttl, now)
redis.call('SADD', KEYS[3], service)
redis.call('ZADD', KEYS[5], int(now + ttl), id)
redis.call('HSET', KEYS[6], id, int(now) .. ' ' .. ARGV[5])
redis.call('HSET', KEYS[1], 'beat_ms', int(now))
if ARGV[11] ~= '' then
  redis.call('ZADD', KEYS[7], int(applied()), service .. ':' .. id)
end

local result = 'same'
if stored ~= record then
  redis.call('HSET', KEYS[4], id, record)
  append(head, KEYS[2], ARGV[8], nonce, 'up', service, id, record)
  result = 'changed'
end
for i = 1, 8 do
  redis.call('PEXPIRE', KEYS[i], ARGV[9])
end
return { result, head.epoch, int(head.seq), head.mark, wish(), due }
