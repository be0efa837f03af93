#!lua flags=allow-oom
-- Makes a partition, or finds it, and says how much of what was acknowledged to the caller the server may have lost.
--
-- Each start of the server, and each promotion of a replica, is a boot. The first caller in a new one notes at which
-- position the data was then: what was written after it is lost.
--
-- KEYS[1]  P, prefix of the partition
-- ARGV[1]  MessagePack: {now_ms or 0, id of a partition that is made now, boot, boot that the caller knew or false,
--          number of partitions of the store, number of the boot that the caller knew}
-- Answers  {now_ms, id, position, least, parts, number, format}
--            least: the position at which those boots began that the caller has missed, the lowest of them;
--            -1 when it has missed more of them than are kept, or what it knew is not among them;
--            format: of the layout;   parts: the number with which the store was made;   number: of this boot. A server that gives its place
--            away and gets it back is the same process, under another number

--@include records
--@include clock

local request = cmsgpack.unpack(ARGV[1])
local boot, known = request[OPENING.boot], request[OPENING.known_boot]
local now, id = clock(request[OPENING.now_ms]), call('HGET', P .. KEY.meta, 'epoch')
local boots = {}
if id then
  local kept = call('GET', P .. KEY.boots)
  local readable, known_boots = pcall(cmsgpack.unpack, kept or '')
  if kept and readable and type(known_boots) == 'table' then boots = known_boots end
else
  id = request[OPENING.made]
  call('HSET', P .. KEY.meta, 'epoch', id, 'now', now, 'position', 0, 'parts', request[OPENING.partitions],
    'format', LIMIT.format)
end
local parts = tonumber(call('HGET', P .. KEY.meta, 'parts') or 1)
local format = tonumber(call('HGET', P .. KEY.meta, 'format') or 0)
if parts ~= request[OPENING.partitions] or format ~= LIMIT.format then return {now, id, 0, 0, parts, 0, format} end
local position = tonumber(call('HGET', P .. KEY.meta, 'position') or 0)
local number = tonumber(call('HGET', P .. KEY.meta, 'boots') or #boots / 2)
if boots[#boots - 1] ~= boot then
  number = number + 1
  boots[#boots + 1], boots[#boots + 2] = boot, position
  while #boots > 2 * LIMIT.boots do
    table.remove(boots, 1)
    table.remove(boots, 1)
  end
  call('HSET', P .. KEY.meta, 'boots', number)
  call('SET', P .. KEY.boots, cmsgpack.pack(boots))
end
local least, this = position, number
for i = #boots, 2, -2 do
  if this == request[OPENING.known_number] then
    if boots[i - 1] ~= known then break end
    return {now, id, position, least, parts, number, format}
  end
  least, this = math.min(least, boots[i]), this - 1
end
return {now, id, position, -1, parts, number, format}
