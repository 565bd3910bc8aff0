-- POST one body again and again, with an id that is never the same, and print counts as JSON.
-- Arguments: what stands before the id in the body, what stands after it, "Name: value" headers.
local head, tail, count = "", "", 0

function init(args)
  head, tail = args[1], args[2]
  wrk.method = "POST"
  for i = 3, #args do
    local name, value = args[i]:match("^([^:]+): (.*)$")
    wrk.headers[name] = value
  end
end

function request()
  count = count + 1
  return wrk.format(nil, nil, nil, head .. count .. tail)
end

function done(summary, latency)
  local e = summary.errors
  local failed = e.status + e.connect + e.read + e.write + e.timeout
  local p50 = latency:percentile(50) / 1e6
  local text = '{"calls": %d, "seconds": %f, "failed": %d, "p50": %f}\n'
  io.write(text:format(summary.requests, summary.duration / 1e6, failed, p50))
end
