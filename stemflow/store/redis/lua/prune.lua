#!lua flags=allow-oom
-- Deletes expired dead letters, names of runs that have expired, and names of empty queues.
--
-- KEYS[1]  P, prefix of the partition
-- ARGV[1]  MessagePack: {now_ms or 0, limit}
-- Answers  how many were deleted

--@include records
--@include clock

local request = cmsgpack.unpack(ARGV[1])
local now, limit = clock(request[PRUNING.now_ms]), request[PRUNING.limit]
local past = call('ZRANGEBYSCORE', P .. KEY.dead_letters_by_end, '-inf', now, 'LIMIT', 0, limit)
if #past > 0 then
  each_chunk('HDEL', P .. KEY.dead_letters, past)
  each_chunk('ZREM', P .. KEY.dead_letters_by_end, past)
end
local gone = #past

-- Names of runs that have expired. The oldest are looked at first; the next call goes on after those that live on.
local function unlist()
  local length, behind = call('LLEN', P .. KEY.runs), tonumber(call('HGET', P .. KEY.meta, 'listed') or 0)
  if behind >= length then behind = 0 end
  local names = call('LRANGE', P .. KEY.runs, -behind - math.min(limit, LIMIT.pruned_names), -behind - 1)
  local expired, alive = 0, 0
  for i = #names, 1, -1 do
    if call('EXISTS', P .. names[i]) == 1 then
      alive = alive + 1
    else
      expired = expired + 1
      call('LSET', P .. KEY.runs, -behind - (#names - i + 1), '')
    end
  end
  if expired > 0 then call('LREM', P .. KEY.runs, -expired, '') end
  call('HSET', P .. KEY.meta, 'listed', behind + alive)
  return expired
end

-- The same for those that failed or were cancelled, which are not counted: they are in the list of all runs, too.
local function unlist_ended(key)
  local length, behind = call('ZCARD', P .. key), tonumber(call('HGET', P .. KEY.meta, 'listed' .. key) or 0)
  if behind >= length then behind = 0 end
  local expired, alive = {}, 0
  for _, name in ipairs(call('ZRANGE', P .. key, -behind - math.min(limit, LIMIT.pruned_names), -behind - 1)) do
    if call('EXISTS', P .. name) == 1 then alive = alive + 1 else expired[#expired + 1] = name end
  end
  if #expired > 0 then each_chunk('ZREM', P .. key, expired) end
  if length > 0 then call('HSET', P .. KEY.meta, 'listed' .. key, behind + alive) end
end

local function unlist_queues()
  for _, queue in ipairs(call('SMEMBERS', P .. KEY.queues)) do
    local keys = {P .. KEY.unlimited_lanes .. queue, P .. KEY.delayed .. queue, P .. KEY.limited_lanes .. queue}
    if call('EXISTS', unpack(keys)) == 0 then call('SREM', P .. KEY.queues, queue) end
  end
end

unlist_queues()
unlist_ended(KEY.failed)
unlist_ended(KEY.cancelled)
return gone + unlist()
