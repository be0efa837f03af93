-- Records as this script finds and leaves them.
--
-- KEYS[1] P      prefix of a partition, with its hash tag
-- A run is named by bytes that say where they end: 'r' and 16 bytes, or 't', two bytes of length and a text.
-- A node's value: order (5 bytes, big endian), state, flags, rev (4), delivery (4), lease_ms (4), length of the section
-- (2), the section (root only: length of the address, address, header), due_at_ms (6, if FLAG.expires), a body that is
-- not read here. VALUE says where each begins.

local P, call = KEYS[1], redis.call
local byte, char, sub = string.byte, string.char, string.sub
local pack, unpacked = struct.pack, struct.unpack

-- Values by name. One that is too short to be a record counts as none, and so does a key of another type.
local V, wrong_type = {}, {}

local function record_or_none(run, value)
  if not value or #value < (run == '' and 7 or VALUE.section - 1) then return false end
  return value
end

local function run_in(name)
  if byte(name) == 114 then return sub(name, 1, 17), sub(name, 18) end
  local length = (byte(name, 2) or 0) * 256 + (byte(name, 3) or 0)
  return sub(name, 1, 3 + length), sub(name, 4 + length)
end

local function id_of(run, path)
  if run == '' then return KEY.claim .. path end
  return run .. path
end

local function in_chunks(items, work)
  for first = 1, #items, LIMIT.chunk do
    work(first, math.min(first + LIMIT.chunk - 1, #items))
  end
end

local function each_chunk(command, key, items)
  in_chunks(items, function(first, last) call(command, key, unpack(items, first, last)) end)
end

-- Reads what is not yet known of {run, path, run, path, ...}: all strings at once, the nodes of each run at once.
local function load(wanted)
  local names, ids, owners, runs, paths = {}, {}, {}, {}, {}
  for i = 1, #wanted, 2 do
    local run, path = wanted[i], wanted[i + 1]
    local id = id_of(run, path)
    if V[id] == nil then
      V[id] = false
      if run == '' or path == '' then
        names[#names + 1], ids[#ids + 1], owners[#owners + 1] = P .. id, id, run
      else
        local some = paths[run]
        if not some then
          some = {}
          paths[run], runs[#runs + 1] = some, run
        end
        some[#some + 1] = path
      end
    end
  end
  in_chunks(names, function(first, last)
    for i, value in ipairs(call('MGET', unpack(names, first, last))) do
      V[ids[first + i - 1]] = record_or_none(owners[first + i - 1], value)
    end
  end)
  for _, run in ipairs(runs) do
    local some = paths[run]
    in_chunks(some, function(first, last)
      local found = redis.pcall('HMGET', P .. KEY.nodes .. run, unpack(some, first, last))
      if found.err then found, wrong_type[run] = {}, true end
      for i = first, last do V[run .. some[i]] = record_or_none(run, found[i - first + 1]) end
    end)
  end
end

local function save(run, path, value, fresh)
  V[run .. path] = value
  if path ~= '' then
    if wrong_type[run] then call('DEL', P .. KEY.nodes .. run) end
    wrong_type[run] = nil
    call('HSET', P .. KEY.nodes .. run, path, value)
  elseif fresh then
    call('SET', P .. run, value)
  else
    call('SET', P .. run, value, 'KEEPTTL')
  end
end

local function state_of(value) return byte(value, VALUE.state) end
local function flag(value, which) return bit.band(byte(value, VALUE.flags), which) ~= 0 end
local function rev_of(value) return (unpacked('<I4', value, VALUE.rev)) end
local function token_of(value) return (unpacked('<I4', value, VALUE.token)) end
local function lease_ms_of(value) return (unpacked('<I4', value, VALUE.lease_ms)) end
local function due_of(value)
  local at = VALUE.section + unpacked('<I2', value, VALUE.length)
  return #value >= at + 5 and (unpacked('<I6', value, at)) or math.huge
end
local function order_of(value) return (unpacked('>I5', value)) end
local function section_of(value)
  return sub(value, VALUE.section, VALUE.section - 1 + unpacked('<I2', value, VALUE.length))
end

-- Whether a root's section holds the header; one that is too large for it has a key of its own.
local function header_inside(value)
  local section = section_of(value)
  return section ~= '' and #section > 1 + byte(section)
end

local function separate_header(run, path, value)
  if path ~= '' or section_of(value) == '' or header_inside(value) then return '' end
  return call('GET', P .. KEY.header .. run) or ''
end

-- The same value under another token and, where given, in another state; only the fixed part is written.
local function retoken(run, path, value, state, flags)
  state, flags = state or state_of(value), flags or byte(value, VALUE.flags)
  local part = char(state, flags) .. sub(value, 8, 11) .. pack('<I4', token_of(value) + 1)
  value = sub(value, 1, 5) .. part .. sub(value, 16)
  V[run .. path] = value
  if path == '' then
    call('SETRANGE', P .. run, 5, part)
  else
    call('HSET', P .. KEY.nodes .. run, path, value)
  end
  return value
end
