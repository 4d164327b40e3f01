-- Adds events to streams, each only if it ends where the relay believes that it ends; says where each ends now.
--
-- KEYS  the streams
-- ARGV  1 life of the streams in ms, then for each stream: the id with which it should end (0-0: empty or not there), how many
--       entries follow, and those: id, content
-- Result  { for each stream: 1 if it was as expected, else 0; the id with which it ends now }
--
-- Invariants
--   * A stream that has lost something (flushed, deleted, a stale replica) gets nothing new before what it has lost: ids only
--     grow, so that could never be put in afterwards.
--   * Doing it twice adds nothing: the second time the stream ends elsewhere.

local function last_of(stream)
  local info = redis.pcall('XINFO', 'STREAM', stream)
  if info.err then
    if redis.call('EXISTS', stream) == 0 then return '0-0' end
    return redis.error_reply(info.err)
  end
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end

local result, at = {}, 2
for i = 1, #KEYS do
  local expected, count = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  local last = last_of(KEYS[i])
  if type(last) == 'table' then return last end
  local as_expected = last == expected
  for n = 0, count - 1 do
    if as_expected then
      last = redis.call('XADD', KEYS[i], ARGV[at + 2 * n], 'event', ARGV[at + 2 * n + 1])
    end
  end
  at = at + 2 * count
  redis.call('PEXPIRE', KEYS[i], ARGV[1])
  result[#result + 1] = { as_expected and 1 or 0, last }
end
return result
