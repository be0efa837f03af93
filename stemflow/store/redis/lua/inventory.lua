#!lua flags=no-writes
-- Counts what is in a partition.
--
-- KEYS[1]  P, prefix of the partition
-- ARGV[1]  MessagePack: {now_ms or 0}
-- Answers  {now_ms, leased, late, late_since_ms, overdue_since_ms, letters, runs, queues}; -1 is no instant
--            queues: {queue, ready, delayed, run or '', path, value, run or '', path, value, ...}, of the oldest ready
--            leaf and of the delayed one that is due first, then {limits, ready, ...} of the lanes with rate limits

--@include records
--@include clock
--@include heads

local now = clock(cmsgpack.unpack(ARGV[1])[1])

local function first_before_now(key)
  local first = call('ZRANGEBYSCORE', key, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 1)
  return tonumber(first[2]) or -1
end

local NONE, queues = {run = '', path = '', value = ''}, {}
for _, queue in ipairs(call('SMEMBERS', P .. KEY.queues)) do
  local due = call('ZCOUNT', P .. KEY.delayed .. queue, '-inf', now)
  local ready, delayed, oldest = due, call('ZCARD', P .. KEY.delayed .. queue) - due, nil
  local function consider(one)
    if one and (not oldest or one.order < oldest.order) then oldest = one end
  end
  local limited = {}
  local lanes = call('ZRANGE', P .. KEY.unlimited_lanes .. queue, 0, -1)
  for _, lane in ipairs(call('HKEYS', P .. KEY.limited_lanes .. queue)) do lanes[#lanes + 1] = lane end
  for _, lane in ipairs(lanes) do
    local list, back = P .. KEY.ready .. queue .. '\0' .. lane, P .. KEY.returned .. queue .. '\0' .. lane
    local count, limits = call('LLEN', list) + call('ZCARD', back), sub(lane, string.find(lane, ':', 1, true) + 1)
    ready = ready + count
    if limits ~= '' then limited[#limited + 1], limited[#limited + 2] = limits, count end
    consider(head('LRANGE', list))
    consider(head('ZRANGE', back))
  end
  consider(head_of_delayed(queue, '-inf', now))
  local later = head_of_delayed(queue, '(' .. string.format('%.0f', now), '+inf')
  if ready + delayed > 0 then
    for _, item in ipairs({queue, ready, delayed}) do queues[#queues + 1] = item end
    for _, one in ipairs({oldest or NONE, later or NONE}) do
      for _, item in ipairs({one.run, one.path, one.value}) do queues[#queues + 1] = item end
    end
    queues[#queues + 1] = limited
  end
end
return {
  now, call('ZCARD', P .. KEY.leases), call('ZCOUNT', P .. KEY.leases, '-inf', now), first_before_now(P .. KEY.leases),
  first_before_now(P .. KEY.timers),
  call('ZCOUNT', P .. KEY.dead_letters_by_end, '(' .. string.format('%.0f', now), '+inf'),
  call('LLEN', P .. KEY.runs), queues,
}
