-- Cuts the beginning off a stream. In whole blocks, which is cheap: some more may stay.
--
-- KEYS  1 the stream
-- ARGV  1 MINID or MAXLEN  2 the first id that stays, or how many stay
-- Result  how many entries went

return redis.call('XTRIM', KEYS[1], ARGV[1], '~', ARGV[2])
