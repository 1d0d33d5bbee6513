-- uses: base session slots turn
-- The committed turns that are still remembered, in the order of their commits.
local session, refusal = find(args.name, args.uid)
if not session then return refusal end
local found = {}
for _, turn in ipairs(call('LRANGE', key('commits', session.uid), 0, -1)) do
  local outcome = outcome_of(session, turn)
  if outcome then found[#found + 1] = outcome end
end
return ok(found)
