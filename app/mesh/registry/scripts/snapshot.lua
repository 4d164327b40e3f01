-- Everything at one instant: what a directory starts from. Writes nothing.
--
-- KEYS  1 head  2 services
-- ARGV  1 key prefix  2 longest record in bytes
-- Result  { epoch, seq, mark, now_ms, { service, id, record, load, lease_end_ms, … } }; epoch '' for an empty registry
--
-- Invariants
--   * The records are exactly those after change seq: the script is atomic.
--   * A record over the bound (a poisoned one) travels as an empty string, so that it cannot flood its readers.

local prefix, longest = ARGV[1], tonumber(ARGV[2])
local head = read_head(KEYS[1]) or { epoch = '', seq = 0, mark = '' }
local entries = {}
for _, service in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local records, leases, loads = prefix .. 'svc:' .. service, prefix .. 'exp:' .. service, prefix .. 'load:' .. service
  for _, id in ipairs(redis.call('HKEYS', records)) do
    local fits = redis.call('HSTRLEN', records, id) <= longest
    local n = #entries
    entries[n + 1], entries[n + 2] = service, id
    entries[n + 3] = fits and redis.call('HGET', records, id) or ''
    entries[n + 4] = redis.call('HSTRLEN', loads, id) <= longest and redis.call('HGET', loads, id) or ''
    entries[n + 5] = redis.call('ZSCORE', leases, id) or '0'
  end
end
return { head.epoch, int(head.seq), head.mark, int(now_ms()), entries }
