#!lua flags=allow-oom
-- Keeps a hint for a time, in place of the one of that name, and tells whoever follows.
--
-- KEYS[1]  P, prefix of the partition
-- ARGV[1]  MessagePack: {now_ms or 0, topic, name, body, ttl_ms, run or false}
-- ARGV[2]  base of the names of channels
-- Answers  now_ms

--@include records
--@include clock
--@include waiting

local MARGIN_MS, MANY = 3600000, 100

local request = cmsgpack.unpack(ARGV[1])
local now, key = clock(request[1]), P .. 'N' .. request[2]
call('HSET', key, request[3], pack('<I6', now + request[5]) .. request[4])
call('PEXPIRE', key, math.max(call('PTTL', key), request[5] + MARGIN_MS))
if call('HLEN', key) > MANY then
  local all = call('HGETALL', key)
  for i = 1, #all, 2 do
    if unpacked('<I6', all[i + 1]) <= now then call('HDEL', key, all[i]) end
  end
end
tell_followers(request[6] and {[request[6]] = true} or {[''] = true})
return now
