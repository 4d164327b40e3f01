-- Moves a dead letter back to those who handle it: there and gone from here, or neither.
--
-- KEYS  1 dead:<group>  2 again:<group>:<partition>
-- ARGV  1 the dead letter's id  2 life of the stream in ms  3 group
-- Result  1, 0 if there is no such letter, -1 if it holds no event, or -2 if the group does not read that partition

local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if not found[1] then return 0 end
local event
local fields = found[1][2]
for i = 1, #fields, 2 do
  if fields[i] == 'event' then event = fields[i + 1] end
end
if not event then return -1 end
-- Where nobody reads it would lapse after some days, and nobody would know.
local groups, read = redis.pcall('XINFO', 'GROUPS', KEYS[2]), false
for _, group in ipairs(groups) do
  for i = 1, #group, 2 do
    if group[i] == 'name' and group[i + 1] == ARGV[3] then read = true end
  end
end
if not read then return -2 end
redis.call('XADD', KEYS[2], '*', 'event', event)
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
