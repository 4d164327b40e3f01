-- Takes instances out whose lease has ended, and logs them. Anyone may call it, as often as they like.
--
-- KEYS  1 head  2 log  3 services  4 seen
-- ARGV  1 key prefix  2 ttl_ms  3 shortest time between two sweeps, ms  4 nonce (random)  5 log length
--       6 retention_ms
-- Result  { 'empty' | 'early' | 'held' | 'swept', service, id, service, id, … }
--
-- Invariants
--   * Guard 1: after an absence of Redis (see guard()), nothing is taken out and every lease is extended.
--   * Guard 2: at most 15 % of a service's instances per sweep, at least one (Eureka's self-preservation).
--   * Both hold across the fleet: sweeps closer together than ARGV 3 do nothing.
--   * Record, lease, load, wish and `seen` of an instance end together; a record without a lease gets one.

local prefix, ttl, nonce = ARGV[1], tonumber(ARGV[2]), ARGV[4]
local now = now_ms()
local head = read_head(KEYS[1])
if not head then
  return { 'empty' }
end
if not sweep_due(head, now, tonumber(ARGV[3])) then
  return { 'early' }
end
redis.call('HSET', KEYS[1], 'swept_ms', int(now))
if guard(head, prefix, KEYS[3], ttl, now) then
  redis.call('HSET', KEYS[1], 'beat_ms', int(now))
  return { 'held' }
end

-- One of the keys may have been lost alone (eviction, a careless hand).
local function repair(records, leases, loads)
  if redis.call('HLEN', records) == redis.call('ZCARD', leases)
    and redis.call('HLEN', records) >= redis.call('HLEN', loads) then
    return
  end
  for _, id in ipairs(redis.call('HKEYS', records)) do
    redis.call('ZADD', leases, 'NX', int(now + ttl), id)
  end
  for _, id in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
    if redis.call('HEXISTS', records, id) == 0 then
      redis.call('ZREM', leases, id)
    end
  end
  for _, id in ipairs(redis.call('HKEYS', loads)) do
    if redis.call('HEXISTS', records, id) == 0 then
      redis.call('HDEL', loads, id)
    end
  end
  redis.call('PEXPIRE', leases, ARGV[6])
end

-- `seen` has no record of its own to lean on: what is left of instances that are gone is looked for when it shows.
local function repair_seen(records)
  if redis.call('ZCARD', KEYS[4]) <= records then
    return
  end
  for _, member in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
    local service, id = string.match(member, '^([^:]+):(.+)$')
    if not service or redis.call('HEXISTS', prefix .. 'svc:' .. service, id) == 0 then
      redis.call('ZREM', KEYS[4], member)
    end
  end
end

local result, left = { 'swept' }, 0
local services = redis.call('SMEMBERS', KEYS[3])
table.sort(services)
for _, service in ipairs(services) do
  local records, leases, loads = prefix .. 'svc:' .. service, prefix .. 'exp:' .. service, prefix .. 'load:' .. service
  repair(records, leases, loads)
  local most = math.max(1, math.floor(redis.call('HLEN', records) * 0.15))
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', int(now), 'LIMIT', 0, most)) do
    redis.call('HDEL', records, id)
    redis.call('HDEL', loads, id)
    redis.call('ZREM', leases, id)
    redis.call('ZREM', KEYS[4], service .. ':' .. id)
    redis.call('DEL', prefix .. 'wish:' .. service .. ':' .. id)
    append(head, KEYS[2], ARGV[5], nonce, 'expired', service, id, '')
    table.insert(result, service)
    table.insert(result, id)
  end
  left = left + redis.call('HLEN', records)
  if redis.call('EXISTS', records) == 0 then
    redis.call('SREM', KEYS[3], service)
  end
end
repair_seen(left)
redis.call('PEXPIRE', KEYS[2], ARGV[6])
return result
