package main

import "strings"

// workload is a kind of traffic.
type workload struct {
	name, title    string
	capacity, rate int // of the limit
	gateways       int
	connections    int
	clients        string // what wrk's script makes of X-Client
	path           string
	refused        float64 // share of the answers, at the least; 0: none at all
	keys           int     // that Redis must hold afterwards, at the least
	open           bool    // the circuit is opened first
}

var workloads = []workload{
	{name: "a", title: "one hot client", capacity: 1000000, rate: 1000000, gateways: 1, connections: 16, clients: `"hot"`, path: "/ok", keys: 1},
	{name: "b", title: "10,000 clients, Zipf", capacity: 10000, rate: 10000, gateways: 1, connections: 16, clients: "zipf()", path: "/ok", keys: 500},
	{name: "c", title: "200,000 clients, uniform", capacity: 10000, rate: 1, gateways: 1, connections: 64, clients: "uniform()", path: "/ok", keys: 500},
	{name: "c256", title: "200,000 clients, uniform, 256 connections", capacity: 10000, rate: 1, gateways: 1, connections: 256, clients: "uniform()", path: "/ok", keys: 500},
	{name: "d", title: "a flood, nearly all refused", capacity: 100, rate: 10, gateways: 1, connections: 16, clients: `"flood"`, path: "/ok", refused: 0.97, keys: 1},
	{name: "e", title: "circuit open", capacity: 1000000, rate: 1000000, gateways: 1, connections: 16, clients: `"hot"`, path: "/ok", refused: 1, open: true},
	{name: "f", title: "two gateways, Zipf", capacity: 10000, rate: 10000, gateways: 2, connections: 16, clients: "zipf()", path: "/ok", keys: 500},
}

func slug(text string) string { return strings.NewReplacer(" ", "-").Replace(text) }

// script is what wrk runs. Each thread draws from a seed of its own; the draws of a Zipf distribution (s = 1.1) are made
// ahead, for they cost more than a request.
const script = `local counter = 0
function setup(thread)
	thread:set("seed", counter)
	counter = counter + 1
end

local draws, at = {}, 0

function uniform()
	return "u" .. math.random(200000)
end

function zipf()
	at = at % #draws + 1
	return draws[at]
end

function init(args)
	math.randomseed(tonumber(args[1]) * 1000 + seed)
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
	return wrk.format("GET", nil, {["X-Client"] = CLIENTS})
end

function done(summary, latency, requests)
	io.write(string.format('{"requests":%d,"micros":%d,"refused":%d,"broken":%d,"p50":%f,"p99":%f}\n',
		summary.requests, summary.duration, summary.errors.status,
		summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
		latency:percentile(50), latency:percentile(99)))
end
`
