-- Prepended to every script: time, the head, the guard and the log. Redis 6.2 commands only.
--
-- Invariants
--   * seq and mark move together, exactly once per log entry, and only through append().
--   * A head that is not whole starts a new epoch; its seq starts from TIME in us, beyond every seq of before.
--   * Keys that are not in KEYS are derived from the namespace's prefix and share its hash tag.

local function now_us()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

local function now_ms()
  return math.floor(now_us() / 1000)
end

-- Lua prints large numbers as 1.7e+12; Redis wants integers.
local function int(n)
  return string.format('%.0f', n)
end

local function generation_of(record)
  return record and tonumber(string.match(record, '^(%d+) '))
end

-- Of a flat list of names and values, as XRANGE returns them.
local function field_of(flat, name)
  for i = 1, #flat, 2 do
    if flat[i] == name then
      return flat[i + 1]
    end
  end
  return nil
end

local function read_head(key)
  local h = redis.call('HMGET', key, 'epoch', 'seq', 'mark', 'beat_ms', 'swept_ms')
  local head = {
    key = key, epoch = h[1], seq = tonumber(h[2] or ''), mark = h[3],
    beat_ms = tonumber(h[4] or ''), swept_ms = tonumber(h[5] or ''),
  }
  if head.epoch and head.seq and head.mark then
    return head
  end
  return nil
end

local function open_head(key, log, nonce)
  local head = read_head(key)
  if head then
    return head
  end
  redis.call('DEL', key, log)
  local first = now_us()
  redis.call('HSET', key, 'epoch', nonce, 'seq', int(first), 'mark', nonce)
  return { key = key, epoch = nonce, seq = first, mark = nonce }
end

-- Whether change `seq` with that `mark` is of this history. One that has been trimmed from the log is believed: it is
-- long past, whichever history it was of.
local function happened(head, log, seq, mark)
  if seq > head.seq then
    return false
  end
  local known = head.mark
  if seq < head.seq then
    local entry = redis.call('XRANGE', log, int(seq) .. '-0', int(seq) .. '-0')[1]
    known = entry and field_of(entry[2], 'mark') or mark
  end
  return known == mark
end

local function append(head, log, length, nonce, op, service, id, record)
  local seq = head.seq + 1
  local mark = nonce .. '.' .. int(seq)
  redis.call('XADD', log, 'MAXLEN', '~', length, int(seq) .. '-0',
    'epoch', head.epoch, 'prev', head.mark, 'mark', mark,
    'op', op, 'service', service, 'id', id, 'record', record)
  redis.call('HSET', head.key, 'seq', int(seq), 'mark', mark)
  head.seq, head.mark = seq, mark
end

-- Sweeps of the whole fleet lie at least `apart` ms from one another; a TIME that jumped back does not stop them.
local function sweep_due(head, now, apart)
  return not (head.swept_ms and now >= head.swept_ms and now - head.swept_ms < apart)
end

-- If nobody at all renewed for more than half a TTL, or TIME jumped by as much in either direction, then Redis was
-- away and not its clients: every lease is extended to one whole TTL from now. Returns whether it was.
local function guard(head, prefix, services, ttl, now)
  if not head.beat_ms or math.abs(now - head.beat_ms) <= ttl / 2 then
    return false
  end
  for _, service in ipairs(redis.call('SMEMBERS', services)) do
    local leases = prefix .. 'exp:' .. service
    for _, id in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
      redis.call('ZADD', leases, int(now + ttl), id)
    end
  end
  return true
end
