-- Moves an event to the dead letters of a group: there and acknowledged, or neither.
--
-- KEYS  1 dead:<group>  2 the stream
-- ARGV  1 group  2 the entry's id  3 how many dead letters are kept  4 their life in ms  5 … fields and values of the letter
-- Result  the dead letter's id

local letter = {}
for i = 5, #ARGV do letter[#letter + 1] = ARGV[i] end
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', unpack(letter))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('XACK', KEYS[2], ARGV[1], ARGV[2])
return id
