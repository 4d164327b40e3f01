-- Writes down what an operator wants of an instance; watchers hear of it at once, its next heartbeat repeats it.
--
-- KEYS  1 head  2 log  3 svc:<service>  4 wish:<service>:<id>
-- ARGV  1 service  2 id  3 state  4 ttl_ms of the wish  5 nonce (random)  6 log length  7 retention_ms
-- Result  { 'noted' | 'absent', epoch, seq, mark }
--
-- Invariants
--   * Only of an instance that is registered, and only of its present generation.
--   * The newest wish replaces the one before; its mark tells it from every other.

local service, id = ARGV[1], ARGV[2]
local head = read_head(KEYS[1])
local generation = generation_of(redis.call('HGET', KEYS[3], id))
if not head or not generation then
  return { 'absent', head and head.epoch or '', head and int(head.seq) or 0, head and head.mark or '' }
end
local said = int(generation) .. ' ' .. ARGV[3]
append(head, KEYS[2], ARGV[6], ARGV[5], 'wish', service, id, said)
redis.call('SET', KEYS[4], head.mark .. ' ' .. said, 'PX', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[7])
return { 'noted', head.epoch, int(head.seq), head.mark }
