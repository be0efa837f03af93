-- Who waits is told: idle workers of work, one each; whoever follows or watches a run, of changes and of its end.
local BASE, SELF = ARGV[2], ARGV[3]
local IDLE_MS = 60000
-- How long an offer to be handed a lease stands, and how long it is remembered how many were.
local OFFER_MS, HANDED_MS = 1500, 60000

-- Where those stand who wait for work: all of them, and by queue, or among those that serve every queue (false).
local function idle_keys(queues)
  if not queues then return {P .. 'I', P .. 'A'} end
  local keys = {P .. 'I'}
  for _, queue in ipairs(queues) do keys[#keys + 1] = P .. 'i' .. queue end
  return keys
end

local function no_longer_idle(owner, queues)
  for _, key in ipairs(idle_keys(queues)) do call('ZREM', key, owner) end
end

local function idle(owner, queues, now)
  for _, key in ipairs(idle_keys(queues)) do
    call('ZADD', key, now, owner)
    call('PEXPIRE', key, IDLE_MS)
  end
end

-- Who has nothing to do offers to be handed a lease by whoever makes something ready, which saves it the asking. It
-- says how many it was handed so far: where one was not heard, no other follows it.
--   y<owner>  the instant of the offer       z<owner>  how many were handed
local function offer(owner, handed, now)
  local known = handed and call('GET', P .. 'z' .. owner)
  if handed and (not known or tonumber(known) == handed) then
    call('SET', P .. 'z' .. owner, handed, 'PX', HANDED_MS)
    call('SET', P .. 'y' .. owner, string.format('%.0f', now), 'PX', HANDED_MS)
  else
    call('DEL', P .. 'y' .. owner)
  end
end

-- Whether `owner` may be handed a lease, and hears of it; an offer is good for one.
local function accepts(owner, now)
  local at = call('GET', P .. 'y' .. owner)
  if not at then return false end
  call('DEL', P .. 'y' .. owner)
  return now - at <= OFFER_MS and call('PUBSUB', 'NUMSUB', BASE .. ':k:' .. owner)[2] > 0
end

-- Wakes up to `count` of those who are idle under `key`; who is not there any more is passed over. How many are missing.
-- One whom `give` gives something stays idle.
local function wake(key, count, give)
  while count > 0 do
    local idle = call('ZPOPMIN', key)
    local owner = idle[1]
    if not owner then return count end
    if give and give(owner) then
      call('ZADD', key, idle[2], owner)
      count = count - 1
    elseif call('PUBLISH', BASE .. ':k:' .. owner, '') > 0 then
      count = count - 1
    end
  end
  return count
end

-- Those that serve this queue alone come first.
local function wake_for(queue, count, give) wake(P .. 'A', wake(P .. 'i' .. queue, count, give), give) end

local function tell_followers(runs)
  if next(runs) == nil or call('EXISTS', P .. 'f') == 0 then return end
  for run in pairs(runs) do call('PUBLISH', BASE .. ':x:' .. run, '') end
  call('PUBLISH', BASE .. ':x:', '')
end

local MOST = 4096

-- To the address of who submitted the run, unless that is who asks, and to whoever watches it: the run and, if it is
-- not too big, its root.
local function tell_end(run)
  local root = V[run]
  local news, section = run, root and section_of(root) or ''
  if root and #root <= MOST then news = run .. root end
  local address = section ~= '' and sub(section, 2, 1 + byte(section)) or ''
  if address ~= '' and address ~= SELF then call('PUBLISH', BASE .. ':a:' .. address, news) end
  call('PUBLISH', BASE .. ':e:' .. run, news)
end
