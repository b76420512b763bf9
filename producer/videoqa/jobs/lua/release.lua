-- Gives a job back from a worker that shuts down; the attempt is not counted.
-- prefix, id, token, kept -> the queue to ring, or ''
local id = ARGV[2]
local rec = read(id)
local answer = fence(rec, ARGV[3])
if answer == 'lost' then return '' end
if answer == 'cancel' then
  cancel_now(rec, rec.stage)
  return ''
end
if ARGV[4] ~= '' then keep(rec, ARGV[4]) end
redis.call('HINCRBY', job_key(id), 'max_attempts', 1)
note_attempt(rec, 'returned')
requeue(rec)
emit(id, 'state', 'queued', rec.attempt, 'message', 'given back by a worker that shuts down')
return enqueue(rec) or ''
