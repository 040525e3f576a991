-- The load of `loadtest run --task transfer` for wrk: POST /transaction between two
-- different accounts, with an Idempotency-Key of its own on each request.
--
--   wrk -t1 -c64 -d10s -s ops/bench.d/transfer.lua http://127.0.0.1:PORT
--
-- With TRANSFER_STATIC=1 in the environment every request is the same one: what wrk
-- itself can send, and no transfer after the first. The key is then the same, too.
-- Prints one line of JSON at the end.

local ACCOUNTS = 1000
local KEY_FORMAT = "%016x-%08x-%012x"

-- Bytes of one length, as loadtest does it: ids are padded with spaces, which JSON allows.
local body_format = '{"from":%4d,"to":%4d,"amount":1}'
local length = #body_format:format(1, 2)

local threads = 0

function setup(thread)
   threads = threads + 1
   thread:set("number", threads)
end

function init(args)
   math.randomseed(os.time() + number)
   -- Two halves: numbers of Lua are exact up to 2^53 only.
   local seed = math.random(0, 2 ^ 31 - 1)
   local head = "POST /transaction HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port
      .. "\r\nContent-Type: application/json\r\nContent-Length: " .. length
      .. "\r\nIdempotency-Key: "
   -- One call of string.format for a request: the fastest found.
   whole = head .. KEY_FORMAT:format(seed, number, 0):sub(1, -13) .. "%012x\r\n\r\n" .. body_format
   counter = 0
end

local function transfer()
   counter = counter + 1
   local from = math.random(ACCOUNTS)
   local to = math.random(ACCOUNTS - 1)
   if to >= from then to = to + 1 end
   return whole:format(counter, from, to)
end

-- wrk calls a global `request` for each request; without one it sends what it made once.
if os.getenv("TRANSFER_STATIC") then
   wrk.method = "POST"
   wrk.path = "/transaction"
   wrk.headers["Content-Type"] = "application/json"
   wrk.headers["Idempotency-Key"] = KEY_FORMAT:format(0, 0, 0)
   wrk.body = body_format:format(1, 2)
else
   request = transfer
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"errors":%d}\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
      errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
