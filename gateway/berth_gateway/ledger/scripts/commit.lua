-- uses: base session slots turn
local now, fence, ids = clock(), args.fence, ARGV[2]
local session = load(fence.name)
local answer = answered(session, fence)
if answer and answer.outcome.state == 'committed' then return ok(answer) end
if not holds(session, fence) then return fence_lost(fence) end
if session.head ~= args.parent or not intact(session) then return history_lost(session) end

local position = session.turns
local outcome = current(session, now)
outcome.state, outcome.head, outcome.position = 'committed', args.head, position
outcome.input_tokens, outcome.finish, outcome.usage = args.input_tokens, args.finish, args.usage
store(session, {
  ['turn:' .. int(position)] = ids, ['head:' .. int(position)] = args.head,
  ['input:' .. int(position)] = args.input_tokens, head = args.head, held = args.head,
  turns = position + 1, tokens = session.tokens + #ids / 4,
})
-- The first alone: a resource must have seen that there is a history, to tell its loss from one that never was.
if position == 0 then changed('session', session.name, 'begun') end
return ok(finish(session, outcome, now))
