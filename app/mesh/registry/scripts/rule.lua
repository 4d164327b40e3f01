-- Sets a service's rule as a whole: at an operator's word, or again by a directory that still knows one that was lost.
--
-- KEYS  1 head  2 log  3 rules
-- ARGV  1 service  2 'put' | 'clear' | 'restore'  3 revision: of the rule that the operator changed (put), the rule's own
--       (restore)  4 rule JSON  5 nonce (random)  6 log length  7 retention_ms
-- Result  { 'changed' | 'conflict' | 'same', revision, epoch, seq, mark }
--
-- Invariants
--   * The revision only grows: beyond the stored one and beyond TIME in ms, so also beyond those that were lost.
--   * put is a compare-and-set; clear leaves an empty rule, so that nobody brings the cleared one back.
--   * restore is idempotent: of two rules the higher revision stays.

local service, how, given = ARGV[1], ARGV[2], tonumber(ARGV[3])
local head = open_head(KEYS[1], KEYS[2], ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
local stored = generation_of(redis.call('HGET', KEYS[3], service)) or 0

local function told(outcome, revision)
  return { outcome, int(revision), head.epoch, int(head.seq), head.mark }
end
if how == 'restore' and given <= stored then
  return told('same', stored)
end
if how == 'put' and given ~= stored then
  return told('conflict', stored)
end
local revision = how == 'restore' and given or math.max(stored + 1, now_ms())
local rule = int(revision) .. ' ' .. ARGV[4]
redis.call('HSET', KEYS[3], service, rule)
append(head, KEYS[2], ARGV[6], ARGV[5], 'rule', service, '', rule)
redis.call('PEXPIRE', KEYS[2], ARGV[7])
redis.call('PEXPIRE', KEYS[3], ARGV[7])
return told('changed', revision)
