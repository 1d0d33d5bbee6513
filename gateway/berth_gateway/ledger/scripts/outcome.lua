-- uses: base session slots turn
local session, refusal = find(args.name)
if not session then return refusal end
if session.owner == args.turn then return ok(current(session, clock())) end
local outcome = outcome_of(session, args.turn)
if outcome then return ok(outcome) end
return refuse('NoSuchTurn', 'no turn ' .. args.turn .. ' of session ' .. args.name)
