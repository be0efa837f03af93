-- Who waits is told: idle workers of work, one each; whoever follows or watches a run, of changes and of its end.
local BASE, SELF = ARGV[2], ARGV[3]
local IDLE_MS = 60000

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

-- Wakes up to `count` of those who are idle under `key`; who is not there any more is passed over. How many are missing.
local function wake(key, count)
  while count > 0 do
    local owner = call('ZPOPMIN', key)[1]
    if not owner then return count end
    if call('PUBLISH', BASE .. ':k:' .. owner, '') > 0 then count = count - 1 end
  end
  return count
end

-- Those that serve this queue alone come first.
local function wake_for(queue, count) wake(P .. 'A', wake(P .. 'i' .. queue, count)) end

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
