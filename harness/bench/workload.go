package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// workload is a kind of traffic.
type workload struct {
	Name        string `json:"name"`
	Title       string `json:"title"`
	Capacity    int    `json:"capacity"`
	Rate        int    `json:"rate"`   // tokens a period
	Period      string `json:"period"` // of the rate
	Gateways    int    `json:"gateways"`
	Connections int    `json:"connections"`

	clients    clients
	refused    float64 // least share of refused requests; 0: none at all
	open       bool    // the circuit is opened first
	several    bool    // requests are under two more limits, which none reaches: of the client for an hour, and of all clients
	keepsState bool    // leases and keys last from one round to the next; otherwise Redis is empty at the start of each
}

var workloads = []workload{
	{
		Name: "a", Title: "one hot client", Capacity: 1000000, Rate: 1000000, Period: "1s", Gateways: 1, Connections: 16,
		clients: hot,
	},
	{
		Name: "b", Title: "10,000 clients, Zipf", Capacity: 10000, Rate: 10000, Period: "1s", Gateways: 1, Connections: 16,
		clients: zipf, keepsState: true,
	},
	{
		Name: "c", Title: "200,000 clients, uniform", Capacity: 10000, Rate: 1, Period: "1m", Gateways: 1, Connections: 64,
		clients: uniform,
	},
	{
		Name: "c256", Title: "200,000 clients, uniform, 256 connections", Capacity: 10000, Rate: 1, Period: "1m", Gateways: 1, Connections: 256,
		clients: uniform,
	},
	{
		Name: "d", Title: "a flood, nearly all refused", Capacity: 100, Rate: 10, Period: "1s", Gateways: 1, Connections: 16,
		clients: hot, refused: 0.8,
	},
	{
		Name: "e", Title: "circuit open", Capacity: 1000000, Rate: 1000000, Period: "1s", Gateways: 1, Connections: 16,
		clients: hot, refused: 1, open: true,
	},
	{
		Name: "f", Title: "two gateways, 10,000 clients, Zipf", Capacity: 10000, Rate: 10000, Period: "1s", Gateways: 2, Connections: 16,
		clients: zipf, keepsState: true,
	},
	{
		Name: "g", Title: "three limits, one hot client", Capacity: 1000000, Rate: 1000000, Period: "1s", Gateways: 1, Connections: 16,
		clients: hot, several: true,
	},
}

// perHour is the limit for an hour of a workload with several limits.
const perHour = 100000000

// chooseWorkloads returns those whose names are in a list separated by commas; an empty list means all.
func chooseWorkloads(names string) ([]workload, error) {
	if names == "" {
		return workloads, nil
	}
	var chosen []workload
	for _, name := range strings.Split(names, ",") {
		i := slices.IndexFunc(workloads, func(w workload) bool { return w.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only: there is no workload %q; use %s", name, strings.Join(workloadNames(), ", "))
		}
		chosen = append(chosen, workloads[i])
	}
	return chosen, nil
}

func workloadNames() []string {
	var names []string
	for _, w := range workloads {
		names = append(names, w.Name)
	}
	return names
}

// warmUp returns how long a contender is under load before it is measured, in whole seconds as wrk requires. Where state is kept, the plugin
// gets time to take its leases: before the first round the lifetime of a lease, and before each later round enough to renew the
// leases that ended while the other contenders were measured.
func (w workload) warmUp(c contender, round int) time.Duration {
	if !w.keepsState || c != ours {
		return time.Second
	}
	if round == 0 {
		return 2 * time.Minute
	}
	return 12 * time.Second
}

// baseline returns the contender that the plugin is compared with.
func (w workload) baseline() contender {
	if w.open {
		return builtinOpen
	}
	return builtin
}

// clients describes how requests are distributed among clients.
type clients struct {
	lua   string // an expression in wrk's script, for X-Client
	count int
	skew  float64 // of a Zipf distribution; 0: uniform
}

var (
	hot     = clients{lua: `"hot"`, count: 1}
	zipf    = clients{lua: "zipf()", count: 10000, skew: 1.1}
	uniform = clients{lua: "uniform()", count: 200000}
)

// expected returns how many distinct clients send this number of requests, on average.
func (c clients) expected(requests int) float64 {
	sum := 0.0
	for i := range c.count {
		sum += math.Pow(float64(i+1), -c.skew)
	}
	seen := 0.0
	for i := range c.count {
		share := math.Pow(float64(i+1), -c.skew) / sum
		seen -= math.Expm1(float64(requests) * math.Log1p(-share))
	}
	return seen
}

// script is what wrk runs. It draws from the Zipf distribution in advance, because a draw costs more than a request.
const script = `function setup(thread)
	worker = thread
end

distinct = 0
local seen, draws, at = {}, {}, 0

function uniform()
	return "u" .. math.random(200000)
end

function zipf()
	at = at % #draws + 1
	return draws[at]
end

function init(args)
	math.randomseed(tonumber(args[1]))
	local sum, cumulative = 0, {}
	for i = 1, 10000 do
		sum = sum + 1 / i ^ 1.1
		cumulative[i] = sum
	end
	for n = 1, 200000 do
		local x, low, high = math.random() * sum, 1, 10000
		while low < high do
			local middle = math.floor((low + high) / 2)
			if cumulative[middle] < x then low = middle + 1 else high = middle end
		end
		draws[n] = "z" .. low
	end
end

function request()
	local client = CLIENTS
	if not seen[client] then
		seen[client] = true
		distinct = distinct + 1
	end
	return wrk.format("GET", nil, {["X-Client"] = client})
end

function done(summary, latency, requests)
	io.write(string.format('{"requests":%d,"micros":%d,"refused":%d,"broken":%d,"distinct":%d,"p50":%f,"p99":%f}\n',
		summary.requests, summary.duration, summary.errors.status,
		summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
		worker:get("distinct"), latency:percentile(50), latency:percentile(99)))
end
`
