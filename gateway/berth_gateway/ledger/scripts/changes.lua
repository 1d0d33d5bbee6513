-- uses: base
-- The id is the ledger's own and the server's run: a server that came back may have come back older.
call('SET', key('ledger_id'), args.fresh, 'NX')
local id = call('GET', key('ledger_id')) .. '.' .. string.match(call('INFO', 'server'), 'run_id:(%x+)')
local last = tonumber(call('GET', key('changed'))) or 0
if not args.after then return ok({id = id, last = last, changes = {}}) end

local gone = args.id ~= id or args.after > last
local entries = {}
if not gone and args.after < last then
  entries = call('XRANGE', key('changes'), int(args.after + 1) .. '-0', '+', 'COUNT', args.limit)
  gone = #entries == 0 or entries[1][1] ~= int(args.after + 1) .. '-0'
end
if gone then return refuse('CursorGone', 'the cursor is too old or of another ledger: list again') end
local changes = {}
for i, entry in ipairs(entries) do
  local fields = entry[2]
  changes[i] = {kind = fields[2], name = fields[4], what = fields[6]}
  args.after = args.after + 1
end
return ok({id = id, last = args.after, changes = changes})
