-- Adds the events that are behind a lane's cursor, in their order, and moves the cursor.
-- KEYS: the stream, the hash of its cursors.
-- ARGV: the lane's id, empty where positions do not count; how many entries are kept, or empty;
-- then for each event epoch, offset, the number of arguments, and these.
-- Returns how many events are dealt with, and the error that stopped it at the next one.
local pcall, stream, kept = redis.pcall, KEYS[1], ARGV[2]
local live = ARGV[1] ~= ''
local epoch, offset = -1, -1
if live then
    local cursor = redis.call('HGET', KEYS[2], ARGV[1])
    if cursor then
        local e, o = string.match(cursor, '^(%d+)-(%d+)$')
        epoch, offset = tonumber(e), tonumber(o)
    end
end

-- Handed on from where it stands: a table for each entry would cost a quarter of the whole.
local function add(from, to)
    if kept ~= '' then
        return pcall('XADD', stream, 'MAXLEN', '~', kept, '*', unpack(ARGV, from, to))
    end
    return pcall('XADD', stream, '*', unpack(ARGV, from, to))
end

local at, done, added, stopped = 3, 0, 0, false
while at <= #ARGV do
    local e, o, count = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    if not live or e > epoch or (e == epoch and o > offset) then
        local answer = add(at + 3, at + 2 + count)
        if type(answer) == 'table' and answer.err then
            stopped = answer.err
            break
        end
        epoch, offset, added = e, o, added + 1
    end
    at, done = at + 3 + count, done + 1
end
if live and added > 0 then
    redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f-%.0f', epoch, offset))
end
return { done, stopped }
