-- uses: base session
local session, refusal = find(args.name, args.uid)
if not session then return refusal end
if not intact(session) then return history_lost(session) end
local heads = {''}
for first = 0, session.turns - 1, 1000 do
  local fields = {}
  for i = first, math.min(first + 1000, session.turns) - 1 do fields[#fields + 1] = 'head:' .. int(i) end
  for _, head in ipairs(call('HMGET', key('session', args.name), unpack(fields))) do
    if not head then return history_lost(session) end
    heads[#heads + 1] = head
  end
end
return ok(heads)
