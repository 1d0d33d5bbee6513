-- uses: base session slots turn
local done = before()
if done then return done end
local now = clock()
local session, refusal = find(args.name, args.uid)
if not session then
  local stone = args.uid and tombstone(args.uid)
  if stone then return ok({uid = args.uid, release = stone.answer.release}) end
  return refusal
end
if args.by == 'http' and session.origin == 'cr' then
  return refuse('ManagedByResource', 'session ' .. args.name .. ' belongs to a resource of that name')
end
if args.by == 'cr' and session.deletion_policy == 'Retain' then
  if session.origin == 'cr' then
    store(session, {origin = 'http', suspended = ''})
    changed('session', session.name, 'retained')
  end
  return once({uid = session.uid, retained = true})
end
if args.by == 'cr' and session.origin ~= 'cr' then return no_session(args.name) end

if leased(session, now) then
  if session.closing == '' then
    store(session, {closing = args.reason})
    changed('session', session.name, 'closing')
  end
  return once({uid = session.uid, deferred = true})
end
if session.owner ~= '' then
  store(session, {closing = args.reason})
  return once({uid = session.uid, release = finish_aborted(session, 'gateway_lost', true, now).release})
end
return once(entomb(session, args.reason, {}))
