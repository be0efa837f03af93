-- Notifications: of work to idle workers, one each; of changes and ends to those who follow or watch a run.
local BASE, SELF = ARGV[2], ARGV[3]

local ANY = string.rep('-', LIMIT.digest)

-- The queue and the task of a place; no task where it is not known.
local function split(place)
  local queue, task = string.match(place, '^(.*)\31([^\31]*)$')
  return queue or place, task
end

-- Whether a worker whose tasks have this digest has the task.
local function has_task(digest, task)
  return not task or digest == ANY or call('SISMEMBER', P .. KEY.tasks .. digest, task) == 1
end

-- The sets of idle workers: all of them, and by queue, or those that serve every queue (false).
local function idle_keys(queues)
  if not queues then return {P .. KEY.idle, P .. KEY.idle_for_all} end
  local keys = {P .. KEY.idle}
  for _, queue in ipairs(queues) do keys[#keys + 1] = P .. KEY.idle_for_queue .. queue end
  return keys
end

local function idle_name(want) return (want.tasks or ANY) .. want.owner end

local function no_longer_idle(want)
  for _, key in ipairs(idle_keys(want.queues)) do call('ZREM', key, idle_name(want)) end
end

local function idle(want, now)
  for _, key in ipairs(idle_keys(want.queues)) do
    call('ZADD', key, now, idle_name(want))
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

-- Notifies up to `count` idle workers under `key` that have the task, passing over those that are gone; answers how many
-- are missing. A worker to which `give` pushed a lease stays idle.
local function wake(key, count, task, give)
  if count <= 0 then return count end
  for _, name in ipairs(call('ZRANGE', key, 0, -1)) do
    if count <= 0 then return count end
    local owner = sub(name, LIMIT.digest + 1)
    if has_task(sub(name, 1, LIMIT.digest), task) then
      if give and give(owner) then
        count = count - 1
      else
        call('ZREM', key, name)
        if call('PUBLISH', BASE .. CHANNEL.work .. owner, '') > 0 then count = count - 1 end
      end
    end
  end
  return count
end

-- Workers that serve the queue of this place alone come first.
local function wake_for(place, count, give)
  local queue, task = split(place)
  local missing = wake(P .. KEY.idle_for_queue .. queue, count, task, give)
  wake(P .. KEY.idle_for_all, missing, task, give)
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
