-- Puts entries, each only if it says something newer than what is stored.
--
-- KEYS     one per entry
-- ARGV[1]  time to live in milliseconds, of an entry that is stored
-- ARGV[2]  and on: one entry per key, "<version> <as of, Unix ms> ..."
-- Returns  how many were stored; the rest were refused.
--
-- A refused entry changes nothing, the remaining time to live included: what is
-- stored must not live longer because something older passed by. The same
-- version read again later is newer knowledge of the same balance, so it is
-- stored and starts a new life.

-- Lua's numbers are doubles, exact to 2^53 only; versions are 64 bit. Canonical
-- decimals without a sign compare exactly by length, then by digits.
local function above(left, right)
  if #left ~= #right then
    return #left > #right
  end
  return left > right
end

local INT64_MAX = '9223372036854775807'

local function newer(entry, key)
  local version, as_of = string.match(entry, '^(%d+) (%d+) ')
  -- pcall: a key of another type answers an error, and is replaced.
  local stored = redis.pcall('GET', key)
  if type(stored) ~= 'string' then
    return true
  end
  local stored_version, stored_as_of = string.match(stored, '^(%d+) (%d+) ')
  if not stored_version or above(stored_version, INT64_MAX) then
    return true
  end
  if above(version, stored_version) then
    return true
  end
  if version == stored_version and above(as_of, stored_as_of) then
    return true
  end
  -- Every entry of ours expires: one that does not was planted, and would
  -- otherwise keep this account out of the cache for ever.
  return redis.call('PTTL', key) == -1
end

local stored_count = 0
for index, key in ipairs(KEYS) do
  local entry = ARGV[index + 1]
  if newer(entry, key) then
    redis.call('SET', key, entry, 'PX', ARGV[1])
    stored_count = stored_count + 1
  end
end
return stored_count
