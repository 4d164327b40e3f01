-- Reads a value, and where there is no fresh one says who may load it.
--
-- KEYS  1 cache:val:<key>  2 cache:lock:<key>
-- ARGV  1 'read' | 'load' | 'refresh'  2 the caller's word (random)
--       3 lock_ms  4 how long a pending value and the tags are held, ms  5 largest value in bytes
--       6 prefix of tags  7 for 'refresh': the stamp of the value to be replaced  8 … the tags of the value to come
-- Result  { state, raw value, now ms, 'hit' | 'lead' | 'wait' | 'none', stamp, version, version … }; the value comes
--         with 'hit' and 'none', fresh or, when it was only to be read, as it is
--
-- Invariants
--   * One caller at a time leads; its lock ends by itself. Asking again with the same word is answered the same.
--   * Whoever leads has left a pending value, or found a valid one: if there is none any more, what is being loaded is
--     old, and nobody waits for it.
--   * Before anybody loads, the value's stamp and the tags' versions are fixed: whatever is deleted, set or invalidated
--     later changes one of them, and `store` then refuses what was loaded.
--   * Every key written has a TTL.

local mode, word, hold, tags = ARGV[1], ARGV[2], ARGV[4], ARGV[6]
local now = now_ms()
local state, head, raw = read(KEYS[1], tags, tonumber(ARGV[5]))
local fresh = state == 'valid' and tonumber(head.e) > now
if mode == 'read' then
  return { state, raw or '', int(now), 'none', '' }
end
if fresh and (mode ~= 'refresh' or head.s ~= ARGV[7]) then
  return { state, raw, int(now), 'hit', head.s }
end

local versions, named = hold_tags(tags, 8, word, hold)
local leads
if not head then
  redis.call('SET', KEYS[1], encode('pending', word, now, 0, 0, 0, named), 'PX', hold)
  leads = redis.call('SET', KEYS[2], word, 'PX', ARGV[3])
else
  if redis.call('PTTL', KEYS[1]) < tonumber(hold) then
    redis.call('PEXPIRE', KEYS[1], hold)
  end
  leads = redis.call('SET', KEYS[2], word, 'NX', 'PX', ARGV[3]) or redis.call('GET', KEYS[2]) == word
end
local result = { state, '', int(now), leads and 'lead' or 'wait', head and head.s or word }
for _, version in ipairs(versions) do
  result[#result + 1] = version
end
return result
