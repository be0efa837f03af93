#!lua flags=allow-oom
-- Deletes dead letters that are past their time, names of runs that have expired, and names of empty queues.
--
-- KEYS[1]  P, prefix of the partition
-- ARGV[1]  MessagePack: {now_ms or 0, limit}
-- Answers  how many were deleted

--@include records
--@include clock

local MOST = 1000

local request = cmsgpack.unpack(ARGV[1])
local now, limit = clock(request[1]), request[2]
local past = call('ZRANGEBYSCORE', P .. 'U', '-inf', now, 'LIMIT', 0, limit)
if #past > 0 then
  each_chunk('HDEL', P .. 'D', past)
  each_chunk('ZREM', P .. 'U', past)
end
local gone = #past

-- Names of runs that have expired. The oldest are looked at first; where those live on, the next call goes on behind them.
local function unlist()
  local length, behind = call('LLEN', P .. 'L'), tonumber(call('HGET', P .. 'm', 'listed') or 0)
  if behind >= length then behind = 0 end
  local names = call('LRANGE', P .. 'L', -behind - math.min(limit, MOST), -behind - 1)
  local expired, alive = 0, 0
  for i = #names, 1, -1 do
    if call('EXISTS', P .. names[i]) == 1 then
      alive = alive + 1
    else
      expired = expired + 1
      call('LSET', P .. 'L', -behind - (#names - i + 1), '')
    end
  end
  if expired > 0 then call('LREM', P .. 'L', -expired, '') end
  call('HSET', P .. 'm', 'listed', behind + alive)
  return expired
end

local function unlist_queues()
  for _, queue in ipairs(call('SMEMBERS', P .. 'K')) do
    if call('EXISTS', P .. 'l' .. queue, P .. 'd' .. queue, P .. 'H' .. queue) == 0 then call('SREM', P .. 'K', queue) end
  end
end

unlist_queues()
return gone + unlist()
