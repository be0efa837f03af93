-- Notifications: of work to idle workers, one each; of changes and ends to those who follow or watch a run.
local BASE, SELF = ARGV[2], ARGV[3]

-- The sets of idle workers: all of them, and by queue, or those that serve every queue (false).
local function idle_keys(queues)
  if not queues then return {P .. KEY.idle, P .. KEY.idle_for_all} end
  local keys = {P .. KEY.idle}
  for _, queue in ipairs(queues) do keys[#keys + 1] = P .. KEY.idle_for_queue .. queue end
  return keys
end

local function no_longer_idle(owner, queues)
  for _, key in ipairs(idle_keys(queues)) do call('ZREM', key, owner) end
end

local function idle(owner, queues, now)
  for _, key in ipairs(idle_keys(queues)) do
    call('ZADD', key, now, owner)
    call('PEXPIRE', key, LIMIT.idle_ms)
  end
end

-- An idle worker offers to be pushed a lease by the worker that makes a leaf ready, which saves it a request. It says how many
-- pushed leases it has received: while one is missing, no other is pushed.
local function offer(owner, pushes, now)
  local known = pushes and call('GET', P .. KEY.push_count .. owner)
  if pushes and (not known or tonumber(known) == pushes) then
    call('SET', P .. KEY.push_count .. owner, pushes, 'PX', LIMIT.pushed_ms)
    call('SET', P .. KEY.push_offer .. owner, string.format('%.0f', now), 'PX', LIMIT.pushed_ms)
  else
    call('DEL', P .. KEY.push_offer .. owner)
  end
end

-- Whether a lease may be pushed to `owner`, which must be subscribed; an offer is good for one.
local function accepts(owner, now)
  local at = call('GET', P .. KEY.push_offer .. owner)
  if not at then return false end
  call('DEL', P .. KEY.push_offer .. owner)
  return now - at <= LIMIT.offer_ms and call('PUBSUB', 'NUMSUB', BASE .. CHANNEL.work .. owner)[2] > 0
end

-- Notifies up to `count` idle workers under `key`, passing over those that are gone; answers how many are missing. A
-- worker to which `give` pushed a lease stays idle.
local function wake(key, count, give)
  while count > 0 do
    local idle = call('ZPOPMIN', key)
    local owner = idle[1]
    if not owner then return count end
    if give and give(owner) then
      call('ZADD', key, idle[2], owner)
      count = count - 1
    elseif call('PUBLISH', BASE .. CHANNEL.work .. owner, '') > 0 then
      count = count - 1
    end
  end
  return count
end

-- Workers that serve this queue alone come first.
local function wake_for(queue, count, give)
  wake(P .. KEY.idle_for_all, wake(P .. KEY.idle_for_queue .. queue, count, give), give)
end

local function notify_followers(runs)
  if next(runs) == nil or call('EXISTS', P .. KEY.followers) == 0 then return end
  for run in pairs(runs) do call('PUBLISH', BASE .. CHANNEL.changes .. run, '') end
  call('PUBLISH', BASE .. CHANNEL.changes, '')
end

-- To the address that submitted the run, unless it sent this request, and to those who watch it: the run and, if it is
-- not too large, its root.
local function notify_end(run)
  local root = V[run]
  local message, section = run, root and section_of(root) or ''
  if root and #root <= LIMIT.largest_root then message = run .. root end
  local address = section ~= '' and sub(section, 2, 1 + byte(section)) or ''
  if address ~= '' and address ~= SELF then call('PUBLISH', BASE .. CHANNEL.address .. address, message) end
  call('PUBLISH', BASE .. CHANNEL.end .. run, message)
end
