-- Prepended to every script of the cache: time, tags, and how a stored value is read. Redis 6.2 commands only.
--
-- A value is one string: its head, a line feed, its bytes. The head is JSON:
--   k kind of the bytes  s stamp of who stored it  m made, e fresh until, u usable until (all ms of TIME)
--   d how long it took to make, ms  t tag → version
-- A head of kind "pending" stands for a value that is being loaded; its stamp is what the load is told.
--
-- Invariants
--   * A value counts only if every version in its head is the present one: a tag that was deleted, evicted or flushed
--     takes its values along.
--   * A version is a random word of whoever found the tag absent: none ever comes back.
--   * Keys of tags are derived from a prefix that has the namespace's hash tag.

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

local function int(n)
  return string.format('%.0f', n)
end

local function is_head(head)
  return type(head) == 'table' and type(head.k) == 'string' and type(head.s) == 'string' and type(head.t) == 'table'
    and tonumber(head.m) and tonumber(head.e) and tonumber(head.u) and tonumber(head.d)
end

-- Returns 'none' | 'poisoned' | 'pending' | 'broken' | 'valid', the head, the whole string.
local function read(key, tags, most)
  local length = redis.pcall('STRLEN', key)
  if type(length) ~= 'number' or length > most then
    return 'poisoned'
  end
  local raw = redis.call('GET', key)
  if not raw then
    return 'none'
  end
  local cut = string.find(raw, '\n', 1, true)
  local whole, head = pcall(cjson.decode, string.sub(raw, 1, (cut or 1) - 1))
  if not cut or not whole or not is_head(head) then
    return 'poisoned'
  end
  for tag, version in pairs(head.t) do
    if redis.call('GET', tags .. tag) ~= version then
      return 'broken'
    end
  end
  if head.k == 'pending' then
    return 'pending', head
  end
  return 'valid', head, raw
end

-- The present versions of the tags ARGV[from] …, as a list and by name; each of them lives for at least `hold` ms.
local function hold_tags(tags, from, version, hold)
  local versions, named = {}, {}
  for i = from, #ARGV do
    local key = tags .. ARGV[i]
    local present = redis.call('GET', key)
    if not present then
      redis.call('SET', key, version, 'PX', hold)
    elseif redis.call('PTTL', key) < tonumber(hold) then
      redis.call('PEXPIRE', key, hold)
    end
    versions[#versions + 1] = present or version
    named[ARGV[i]] = present or version
  end
  return versions, named
end

local function encode(kind, stamp, made, fresh, usable, cost, tags)
  return cjson.encode({
    k = kind, s = stamp, m = int(made), e = int(fresh), u = int(usable), d = cost, t = tags,
  }) .. '\n'
end
