-- uses: base session slots
local now = clock()
local fingerprint = call('HGET', key('fleet', args.name), 'fingerprint')
if not fingerprint then return refuse('NoSuchFleet', 'no fleet ' .. namespace .. '/' .. args.name) end
local total = {slots = 0, resident = 0, running = 0, free = 0, workers = 0}
for _, id in ipairs(call('SMEMBERS', key('fleet', args.name, 'workers'))) do
  local w = worker(id)
  if w then
    load_of(w, now)
    total.workers, total.slots = total.workers + 1, total.slots + w.slots
    total.resident, total.running = total.resident + w.resident, total.running + w.running
    if usable(w, now) then total.free = total.free + math.max(w.free, 0) end
  end
end
total.namespace, total.name, total.fingerprint = namespace, args.name, fingerprint
local waiting = call('ZRANGEBYSCORE', key('fleet', args.name, 'waiting'), '(' .. int(now), '+inf')
total.pending = #waiting
total.hibernated = call('SCARD', key('fleet', args.name, 'sessions')) - total.resident
-- Where the only worker is suspect, turns wait whose sessions are resident there.
for _, name in ipairs(waiting) do
  if not worker(call('HGET', key('session', name), 'worker') or '') then total.hibernated = total.hibernated - 1 end
end
total.hibernated = math.max(total.hibernated, 0)
return ok(total)
