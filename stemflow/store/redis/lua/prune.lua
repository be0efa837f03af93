#!lua flags=allow-oom
-- Deletes dead letters that are past their time, and the names of the oldest runs that have expired.
--
-- KEYS[1]  P, prefix of the partition
-- ARGV[1]  MessagePack: {now_ms or 0, limit}
-- Answers  how many were deleted

--@include records
--@include clock

local request = cmsgpack.unpack(ARGV[1])
local now, limit = clock(request[1]), request[2]
local past = call('ZRANGEBYSCORE', P .. 'U', '-inf', now, 'LIMIT', 0, limit)
if #past > 0 then
  each_chunk('HDEL', P .. 'D', past)
  each_chunk('ZREM', P .. 'U', past)
end
local gone = #past
while gone < limit do
  local oldest = call('LINDEX', P .. 'L', -1)
  if not oldest or call('EXISTS', P .. oldest) == 1 then break end
  call('RPOP', P .. 'L')
  gone = gone + 1
end
return gone
