-- A worker as people see it: who runs there, who only holds a slot there (a turn whose gateway died is no longer running).
local function describe(w, now)
  local running, idle = key('worker', w.id, 'running'), key('worker', w.id, 'idle')
  local resting = call('ZRANGE', idle, 0, -1)
  for _, name in ipairs(call('ZRANGEBYSCORE', running, '-inf', int(now))) do resting[#resting + 1] = name end
  return {
    id = w.id, namespace = namespace, fleet = w.fleet, url = w.url, slots = w.slots, fingerprint = w.fingerprint,
    cordoned = w.cordoned, suspect = w.suspect_until > now, idle = resting,
    running = call('ZRANGEBYSCORE', running, '(' .. int(now), '+inf'),
    waiting = call('ZCOUNT', key('fleet', w.fleet, 'waiting'), '(' .. int(now), '+inf'),
  }
end
