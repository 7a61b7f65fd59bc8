-- The load that wrk makes. What to ask is in the environment: CASE, and a file of API keys, one for each tenant.
local case = os.getenv("CASE")
local keys = {}
for line in io.lines(os.getenv("KEYS")) do keys[#keys + 1] = line end
local ids = {}
if os.getenv("IDS") then for line in io.lines(os.getenv("IDS")) do ids[#ids + 1] = line end end
local body = '{"amount": 49.99, "currency": "USD", "description": "benchmark"}'
-- With RATE it is that many requests a second, evenly, as far as the server can: see delay. With SINK the webhooks of
-- every tenth payment go there.
local rate, sink = tonumber(os.getenv("RATE")), os.getenv("SINK")
local body_with_webhook = sink and body:gsub("}", ', "webhook_url": "' .. sink .. '"}')
local counter = 0

local function headers(idempotency_key)
  local tenant = keys[counter % #keys + 1]
  local found = {["Authorization"] = "Bearer " .. tenant}
  if idempotency_key then
    found["Content-Type"] = "application/json"
    found["Idempotency-Key"] = idempotency_key
  end
  return found
end

local cases = {}
function cases.create()
  local with_webhook = sink and counter % 20 == 0
  return wrk.format("POST", "/api/payments", headers(prefix .. counter), with_webhook and body_with_webhook or body)
end
function cases.replay()
  return wrk.format("POST", "/api/payments", headers("the same key"), body)
end
function cases.list()
  return wrk.format("GET", "/api/payments?limit=10", headers())
end
function cases.read()
  return wrk.format("GET", "/api/payments/" .. ids[counter % #ids + 1], headers())
end
-- Of ten requests five create, two read, two list, one is a retry.
function cases.mixed()
  local turn = counter % 10
  if turn < 5 then return cases.create() end
  if turn < 7 then return cases.read() end
  if turn < 9 then return cases.list() end
  return cases.replay()
end

function init()
  math.randomseed(os.time())
  prefix = os.time() .. "-" .. math.random(1000000000) .. "-"
end

function request()
  counter = counter + 1
  return cases[case]()
end

if rate then
  local ffi = require("ffi")
  ffi.cdef "typedef struct { long seconds, nanoseconds; } moment; int clock_gettime(int, moment *);"
  local moment, due = ffi.new("moment"), nil
  -- Milliseconds until the next request of whichever connection is free.
  function delay()
    ffi.C.clock_gettime(1, moment)
    local now = tonumber(moment.seconds) * 1000 + tonumber(moment.nanoseconds) / 1e6
    due = math.max((due or now) + 1000 / rate, now - 100)
    return math.max(0, due - now)
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %.1f %.1f %.1f %d\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(95), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
