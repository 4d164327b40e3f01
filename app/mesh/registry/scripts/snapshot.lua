-- Everything at one instant: what a directory starts from, and what an operator looks at. Writes nothing.
--
-- KEYS  1 head  2 services  3 rules
-- ARGV  1 key prefix  2 longest record in bytes  3 1: also load figures and leases; 0: records alone
-- Result  { epoch, seq, mark, now_ms,
--           { service, { id, record, … }, { id, load, … }, { id, lease_end_ms, … }, … }, { service, rule, … } };
--         epoch '' for an empty registry
--
-- Invariants
--   * The records are exactly those after change seq: the script is atomic.
--   * What is over the bound (a poisoned one) travels as an empty string, so that it cannot flood its readers.

local prefix, longest, whole = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local head = read_head(KEYS[1]) or { epoch = '', seq = 0, mark = '' }

local function bounded(flat)
  for i = 2, #flat, 2 do
    if #flat[i] > longest then
      flat[i] = ''
    end
  end
  return flat
end

-- As Redis returns them, not joined here: of ten thousand records that would take it as long again.
local found = {}
for _, service in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local n = #found
  found[n + 1] = service
  found[n + 2] = bounded(redis.call('HGETALL', prefix .. 'svc:' .. service))
  found[n + 3] = whole and bounded(redis.call('HGETALL', prefix .. 'load:' .. service)) or {}
  found[n + 4] = whole and redis.call('ZRANGE', prefix .. 'exp:' .. service, 0, -1, 'WITHSCORES') or {}
end
return { head.epoch, int(head.seq), head.mark, int(now_ms()), found, bounded(redis.call('HGETALL', KEYS[3])) }
