-- uses: base session view
local session, refusal = find(args.name)
if not session then return refusal end
return ok(view(session, clock()))
