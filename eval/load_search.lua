-- The load of eval.load by another tool, wrk (4.1 or later), to check one by the other; see docs/operations.md.
--
--   wrk -t1 -c CONNECTIONS -d SECONDS --timeout 120s -s eval/load_search.lua URL -- SET COLLECTION [RATE]
--
-- URL ends in /v1/search or /v1/ask, and SET is an evaluation set, whose questions are asked in turn. Each connection
-- sends as soon as it may; with RATE, so many requests a second are sent whatever the service does, as long as one of
-- the connections is free. wrk's own latencies count every status together and make up what a stalled connection
-- would have sent; those that are printed here are of each status by itself, as they were.

local ffi = require("ffi")
ffi.cdef("typedef struct { long s; long us; } clock_tv; int gettimeofday(clock_tv *now, void *zone);")

local threads = {}

local function now_ms()
  local now = ffi.new("clock_tv[1]")
  ffi.C.gettimeofday(now, nil)
  return tonumber(now[0].s) * 1000 + tonumber(now[0].us) / 1000
end

-- The questions as they stand in JSON, escapes and all.
local function read_questions(set)
  local found = {}
  for line in io.lines(set) do
    local question = line:match('"question":%s*"(.-[^\\])"')
    if question then
      found[#found + 1] = question
    end
  end
  return found
end

function setup(thread)
  threads[#threads + 1] = thread
end

function init(args)
  questions = read_questions(assert(args[1], "the evaluation set is missing"))
  assert(#questions > 0, args[1] .. " has no questions")
  collection = assert(args[2], "the collection is missing")
  local rate = tonumber(args[3])
  gap_ms = rate and 1000 / rate
  sent, sent_at, statuses, latencies = 0, {}, {}, {}  -- flat, since wrk hands over no tables in tables
  if not gap_ms then
    delay = nil
  end
end

-- The next free place in the schedule is this connection's.
function delay()
  next_at = math.max(next_at and next_at + gap_ms or 0, now_ms())
  return math.floor(next_at - now_ms())
end

function request()
  local question = questions[sent % #questions + 1]
  sent = sent + 1
  sent_at[tostring(sent)] = now_ms()
  local style = wrk.path:find("/ask$") and ', "style": "short"' or ""
  local body = string.format('{"question": "%s", "collection": "%s"%s}', question, collection, style)
  local headers = { ["Content-Type"] = "application/json", ["X-Request-Id"] = tostring(sent) }
  return wrk.format("POST", nil, headers, body)
end

function response(status, headers)
  local id = headers["x-request-id"]
  statuses[#statuses + 1] = status
  latencies[#latencies + 1] = now_ms() - sent_at[id]
  sent_at[id] = nil
end

local function mark(ordered, share)
  return ordered[math.max(1, math.ceil(#ordered * share))]
end

function done(summary, wrks)
  local by_status, all = {}, 0
  for _, thread in ipairs(threads) do
    local latencies = thread:get("latencies")
    for place, status in ipairs(thread:get("statuses")) do
      by_status[status] = by_status[status] or {}
      table.insert(by_status[status], latencies[place])
      all = all + 1
    end
  end
  local errors, seconds = summary.errors, summary.duration / 1e6
  print(string.format("%d responses in %.1f s, %.2f a second", all, seconds, all / seconds))
  print(string.format("errors: connect %d, read %d, write %d, timeout %d, status other than 2xx or 3xx %d",
    errors.connect, errors.read, errors.write, errors.timeout, errors.status))
  print(string.format("wrk's own, all together: p50 %.0f ms, p95 %.0f ms, p99 %.0f ms, max %.0f ms",
    wrks:percentile(50) / 1000, wrks:percentile(95) / 1000, wrks:percentile(99) / 1000, wrks.max / 1000))
  print("| outcome | n | share | p50 ms | p95 ms | p99 ms | max ms |\n|---|---|---|---|---|---|---|")
  for status, times in pairs(by_status) do
    table.sort(times)
    print(string.format("| %s | %d | %.1f%% | %.0f | %.0f | %.0f | %.0f |", status, #times, 100 * #times / all,
      mark(times, 0.5), mark(times, 0.95), mark(times, 0.99), times[#times]))
  end
end
