-- Tells the service's relay that something was committed, in whichever process it runs.
--
-- KEYS  1 wake:<service>
-- ARGV  1 life in ms
-- Result  the entry's id

local id = redis.call('XADD', KEYS[1], 'MAXLEN', 1, '*', 'due', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return id
