#!lua
-- Makes a partition, or finds it; answers the server's time.
--
-- KEYS[1]  P, prefix of the partition
-- ARGV[1]  MessagePack: {now_ms or 0}

--@include records
--@include clock

call('HSETNX', P .. 'm', 'epoch', 1)
local now = clock(cmsgpack.unpack(ARGV[1])[1])
call('HSET', P .. 'm', 'now', now)
return now
