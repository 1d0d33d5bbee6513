-- uses: base session slots turn
local now, fence = clock(), args.fence
local session = load(fence.name)
if holds(session, fence) then return ok(finish_aborted(session, args.reason, args.retry_safe, now)) end
local answer = answered(session, fence)
if answer then return ok(answer) end
return fence_lost(fence)
