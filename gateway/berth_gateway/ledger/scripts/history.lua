-- uses: base session
-- Where the ids are, not the ids: megabytes are slow to pass through Lua. A uid's turns never change, so the client may
-- read them after this.
local session, refusal = find(args.name, args.uid)
if not session then return refusal end
if not intact(session) then return history_lost(session) end
local start, stop = args.start, args.stop or session.turns
if stop > session.turns or start > stop then
  return refuse('InvalidRequest', 'turns [' .. int(start) .. ', ' .. int(stop) .. ') of ' .. int(session.turns),
    {field = stop > session.turns and 'stop' or 'start'})
end
local function head_after(count)
  return count == 0 and '' or call('HGET', key('session', args.name), 'head:' .. int(count - 1))
end
local base, head = head_after(start), head_after(stop)
if not base or not head then return history_lost(session) end
return ok({start = start, stop = stop, base = base, head = head})
