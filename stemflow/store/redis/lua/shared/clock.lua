-- The store's clock: the server's, or the one given by a test, and never before what was seen last.
local function clock(given, last)
  local now = given
  last = tonumber(last or call('HGET', P .. KEY.meta, 'now') or 0)
  if now == 0 then
    local time = call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return math.max(now, last)
end
