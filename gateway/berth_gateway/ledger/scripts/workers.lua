-- uses: base session slots roster
local now, found = clock(), {}
local ids = {args.id}
if not args.id then
  for _, fleet in ipairs(args.fleet and {args.fleet} or call('SMEMBERS', key('fleets'))) do
    for _, id in ipairs(call('SMEMBERS', key('fleet', fleet, 'workers'))) do ids[#ids + 1] = id end
  end
  table.sort(ids)
end
for _, id in ipairs(ids) do
  local w = worker(id)
  if w then found[#found + 1] = describe(w, now) end
end
return ok(found)
