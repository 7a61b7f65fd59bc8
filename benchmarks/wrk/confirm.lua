-- A payment is created, and then confirmed: two requests each, on MockPay or on localstripe, as PEER says.
local tokens = {}
for line in io.lines(os.getenv("KEYS")) do tokens[#tokens + 1] = line end
local created, counter = {}, 0

local peers = {}
peers.mockpay = {
  create = function(token)
    local headers = {["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/json",
                     ["Idempotency-Key"] = prefix .. counter}
    return wrk.format("POST", "/api/payments", headers, '{"amount": 49.99, "currency": "USD"}')
  end,
  confirm = function(id, token)
    local headers = {["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/json"}
    return wrk.format("POST", "/api/payments/" .. id .. "/simulate", headers, '{"status": "success"}')
  end,
  waits = '"status":"pending"', is_done = '"status":"success"', id = '"id":"([%x-]+)"',
}
-- Its token is the id of a payment method, made before.
peers.localstripe = {
  create = function(token)
    local headers = {["Authorization"] = "Bearer sk_test_1", ["Content-Type"] = "application/x-www-form-urlencoded"}
    return wrk.format("POST", "/v1/payment_intents", headers, "amount=4999&currency=usd&payment_method=" .. token)
  end,
  confirm = function(id)
    return wrk.format("POST", "/v1/payment_intents/" .. id .. "/confirm", {["Authorization"] = "Bearer sk_test_1"})
  end,
  waits = '"status": "requires_confirmation"', is_done = '"status": "succeeded"', id = '"id": "(pi_%w+)"',
}
local peer = peers[os.getenv("PEER")]
local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

function init()
  math.randomseed(os.time())
  prefix = os.time() .. "-" .. math.random(1000000000) .. "-"
  confirmed = 0
end

function request()
  local waiting = table.remove(created)
  if waiting then return peer.confirm(waiting, tokens[1]) end
  counter = counter + 1
  return peer.create(tokens[1])
end

function response(status, headers, body)
  if body:find(peer.is_done, 1, true) then
    confirmed = confirmed + 1
  elseif body:find(peer.waits, 1, true) then
    created[#created + 1] = body:match(peer.id)
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("CONFIRMED %d\n", threads[1]:get("confirmed")))
  io.write(string.format("RESULT %d %d %.1f %.1f %.1f %d\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(95), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
