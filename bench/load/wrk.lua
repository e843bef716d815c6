-- For wrk: sends the signed requests of the file named by REQUESTS, in turn, and prints a summary
-- as one line of JSON. A record of the file is a line for the path (empty: that of the URL), one for
-- each header, an empty one, and one for the body.

local requests, at = {}, 0

function init()
  local lines = io.lines(os.getenv("REQUESTS"))
  for path in lines do
    local headers = {["Host"] = wrk.host, ["Content-Type"] = "application/json"}
    for line in lines do
      if line == "" then break end
      local name, value = line:match("^(.-): (.*)$")
      headers[name] = value
    end
    requests[#requests + 1] = wrk.format("POST", path ~= "" and path or nil, headers, lines())
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  io.write(string.format(
    '{"requests":%d,"seconds":%f,"p50":%f,"p99":%f,"max":%f,"refused":%d,"broken":%d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
