#!lua flags=allow-oom
-- Keeps a hint for a time, in place of the one of that name, and notifies followers.
--
-- KEYS[1]  P, prefix of the partition
-- ARGV[1]  MessagePack: {now_ms or 0, topic, name, body, ttl_ms, run or false}
-- ARGV[2]  base of the names of channels
-- Answers  now_ms

--@include records
--@include clock
--@include waiting

local request = cmsgpack.unpack(ARGV[1])
local now, key = clock(request[HINT.now_ms]), P .. KEY.hints .. request[HINT.topic]
call('HSET', key, request[HINT.name], pack('<I6', now + request[HINT.ttl_ms]) .. request[HINT.body])
call('PEXPIRE', key, math.max(call('PTTL', key), request[HINT.ttl_ms] + LIMIT.hint_margin_ms))
if call('HLEN', key) > LIMIT.hints then
  local all = call('HGETALL', key)
  for i = 1, #all, 2 do
    if #all[i + 1] < 6 or unpacked('<I6', all[i + 1]) <= now then call('HDEL', key, all[i]) end
  end
end
notify_followers(request[HINT.run] and {[request[HINT.run]] = true} or {[''] = true})
return now
