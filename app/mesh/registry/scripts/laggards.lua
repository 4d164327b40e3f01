-- Who has not yet applied a change: what an instance that drains waits for. Writes nothing.
--
-- KEYS  1 head  2 seen  3 log
-- ARGV  1 key prefix  2 epoch  3 seq  4 mark of the change (may be empty)  5 whom not to wait for ("<service>:<id>")
--       6 how many at most
-- Result  { 1, "<service>:<id>", … }, or { 0 } if that change is not of the history that Redis knows (now)
--
-- Invariants
--   * Named are only those whose lease holds: nobody waits for the dead.
--   * Who never said what it has applied has no directory, and is not named.

local page = 500
local head = read_head(KEYS[1])
local seq, mark = tonumber(ARGV[3]), ARGV[4]
if not head or head.epoch ~= ARGV[2] or seq > head.seq or (mark ~= '' and not happened(head, KEYS[3], seq, mark)) then
  return { 0 }
end

local now, most = now_ms(), tonumber(ARGV[6])
local result, from = { 1 }, 0
local function holds(member)
  local service, id = string.match(member, '^([^:]+):(.+)$')
  local lease = service and redis.call('ZSCORE', ARGV[1] .. 'exp:' .. service, id)
  return lease and tonumber(lease) > now
end
while #result <= most do
  local behind = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[3], 'LIMIT', from, page)
  for _, member in ipairs(behind) do
    if member ~= ARGV[5] and #result <= most and holds(member) then
      result[#result + 1] = member
    end
  end
  if #behind < page then
    break
  end
  from = from + page
end
return result
