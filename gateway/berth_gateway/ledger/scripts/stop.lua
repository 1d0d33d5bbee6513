-- uses: base session slots turn
local done = before()
if done then return done end
local now = clock()
local session, refusal = find(args.name)
if not session then return refusal end
if session.owner == args.turn then
  if not leased(session, now) then return once(finish_aborted(session, 'gateway_lost', true, now)) end
  if session.order ~= 'abort' then store(session, {order = args.mode}) end
  command(session, session.order)
  return ok({outcome = current(session, now)})
end
local outcome = outcome_of(session, args.turn)
if outcome then return ok({outcome = outcome}) end
return refuse('NoSuchTurn', 'no turn ' .. args.turn .. ' of session ' .. args.name)
