#!lua flags=allow-oom
-- Makes a partition, or finds it, and says how much of what the caller was told of the server may have lost.
--
-- Each start of the server, and each promotion of a replica, is a boot. The first caller in a new one notes at which
-- position the data then stood: what lay behind it is lost.
--
-- KEYS[1]  P, prefix of the partition
-- ARGV[1]  MessagePack: {now_ms or 0, id of a partition that is made now, boot, boot that the caller knew or false,
--          number of partitions of the store, number of the boot that the caller knew}
-- Answers  {now_ms, id, position, least, parts, number}
--            least: the position at which those boots began that the caller has missed, the lowest of them;
--            -1 when it has missed more of them than are kept, or what it knew is not among them;
--            parts: the number with which the store was made;   number: of this boot. A server that gives its place
--            away and gets it back is the same process, under another number

--@include records
--@include clock

local BOOTS = 16

local request = cmsgpack.unpack(ARGV[1])
local boot, known = request[3], request[4]
local now, id = clock(request[1]), call('HGET', P .. 'm', 'epoch')
local boots = {}
if id then
  local kept = call('GET', P .. 'b')
  if kept then boots = cmsgpack.unpack(kept) end
else
  id = request[2]
  call('HSET', P .. 'm', 'epoch', id, 'now', now, 'position', 0, 'parts', request[5])
end
local parts = tonumber(call('HGET', P .. 'm', 'parts') or 1)
if parts ~= request[5] then return {now, id, 0, 0, parts, 0} end
local position = tonumber(call('HGET', P .. 'm', 'position') or 0)
local number = tonumber(call('HGET', P .. 'm', 'boots') or #boots / 2)
if boots[#boots - 1] ~= boot then
  number = number + 1
  boots[#boots + 1], boots[#boots + 2] = boot, position
  while #boots > 2 * BOOTS do
    table.remove(boots, 1)
    table.remove(boots, 1)
  end
  call('HSET', P .. 'm', 'boots', number)
  call('SET', P .. 'b', cmsgpack.pack(boots))
end
local least, this = position, number
for i = #boots, 2, -2 do
  if this == request[6] then
    if boots[i - 1] ~= known then break end
    return {now, id, position, least, parts, number}
  end
  least, this = math.min(least, boots[i]), this - 1
end
return {now, id, position, -1, parts, number}
