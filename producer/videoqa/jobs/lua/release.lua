-- Gives a job back from a worker that shuts down; the attempt is not counted.
-- prefix, id, token, kept -> {id, attempt, bell, queue} to ring, or {} where there is nothing to give
local id = ARGV[2]
local answer, attempt = fence(id, ARGV[3])
if answer == 'lost' then return {} end
if answer == 'cancel' then
  cancel_now(id, attempt, get(id, 'stage')[1] or nil)
  return {}
end
if ARGV[4] ~= '' then keep(id, ARGV[4]) end
redis.call('HINCRBY', job_key(id), 'max_attempts', 1)
requeue(id)
emit(id, 'state', 'queued', attempt, 'message', 'given back by a worker that shuts down')
return enqueue(id)
