-- Moves a dead letter back to those who handle it: there and gone from here, or neither.
--
-- KEYS  1 dead:<group>  2 again:<group>:<partition>
-- ARGV  1 the dead letter's id  2 life of the stream in ms
-- Result  1, or 0 if there is no such letter

local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if not found[1] then return 0 end
local fields = found[1][2]
for i = 1, #fields, 2 do
  if fields[i] == 'event' then
    redis.call('XADD', KEYS[2], '*', 'event', fields[i + 1])
    redis.call('PEXPIRE', KEYS[2], ARGV[2])
    redis.call('XDEL', KEYS[1], ARGV[1])
    return 1
  end
end
return 0
