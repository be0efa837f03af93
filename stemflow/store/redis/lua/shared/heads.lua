-- The first leaf that is ready among the first entries of a queue; entries that are no longer true are passed over.

local function first_live(entries)
  local wanted = {}
  for i, entry in ipairs(entries) do wanted[2 * i - 1], wanted[2 * i] = run_in(sub(entry, 10)) end
  load(wanted)
  for i, entry in ipairs(entries) do
    local run, path = wanted[2 * i - 1], wanted[2 * i]
    local value = V[run .. path]
    if value and state_of(value) == STATE.ready and sub(value, 8, 11) == sub(entry, 6, 9) then
      return {run = run, path = path, value = value, order = order_of(value)}
    end
  end
end

local function head(command, key) return first_live(call(command, key, 0, LIMIT.heads - 1)) end

local function head_of_delayed(queue, from, until_ms)
  local entries = {}
  for i, member in ipairs(call('ZRANGEBYSCORE', P .. KEY.delayed .. queue, from, until_ms, 'LIMIT', 0, LIMIT.heads)) do
    entries[i] = #member > 1 and sub(member, 3 + unpacked('>I2', member)) or ''
  end
  return first_live(entries)
end
