-- uses: base session slots turn
local done = before()
if done then return done end
local session, refusal = find(args.name, args.uid)
if not session then return refusal end
if session.owner ~= '' then return ok({uid = session.uid, deferred = true}) end
local release = unbind(session, 'hibernated')
schedule(session)
return once({uid = session.uid, release = release})
