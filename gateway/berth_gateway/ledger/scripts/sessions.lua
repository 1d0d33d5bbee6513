-- uses: base session view
local now, found = clock(), {}
local from = args.after == '' and '-' or '(' .. args.after
local names = call('ZRANGEBYLEX', key('sessions'), from, '+', 'LIMIT', 0, args.limit + 1)
local more = #names > args.limit
for i, name in ipairs(names) do
  local session = i <= args.limit and load(name)
  if session and (not args.origin or session.origin == args.origin) then found[#found + 1] = view(session, now) end
end
return ok({sessions = found, next = more and names[args.limit] or nil})
