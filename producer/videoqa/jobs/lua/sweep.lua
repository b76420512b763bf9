-- Removes ids whose records are gone from lists of dead letters, the oldest and some others of each: counts come from
-- these lists, and a list that no job joins any more is trimmed by nothing else.
-- prefix, tenant, codes... -> 0
local MOST_ROUNDS = 20
for n = 3, #ARGV do
  local keys = make_list_keys({tenant = ARGV[2]}, 'dead', ARGV[n])
  local key, before = keys[#keys], call_anew('ZCARD', keys[#keys])
  for _ = 1, before > 0 and MOST_ROUNDS or 0 do
    trim(key)
    local after = redis.call('ZCARD', key)
    if before - after < TRIMMED then break end
    before = after
  end
end
return 0
