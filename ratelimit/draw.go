package ratelimit

import (
	"strconv"
	"strings"
)

// This file encodes what requests ask the script draw for, and parses its answers. drawscript.go describes the format.

// drawAsk is what a request asks of one bucket value.
type drawAsk struct {
	key           int    // index of the key in the call, from 1
	limits        string // indexes of the limits in the call, from 1, joined by "+"
	cost          int64  // tokens to take from each level
	owed, refund  int64  // tokens
	short, long   int64  // tokens to lease ahead
	lease, unused int64  // a lease to return and its unused tokens; lease 0: none
}

// drawAnswer is the script's answer to one draw.
type drawAnswer struct {
	levels []int64 // in the order of the limits, in units of each
	leased int64   // tokens
	lease  int64   // number of the lease; 0 if leased is 0
	length int64   // of the lease, microseconds
}

// limitWord returns a limit of a call. The block's own limit has the name default.
func limitWord(name string, limit *Limit) string {
	return name + ":" + strings.ReplaceAll(limit.text, " ", ":")
}

// drawWord encodes a draw. A request is "1" or "0" and its draws, separated by spaces.
func drawWord(d *drawAsk) string {
	word := digits(int64(d.key)) + "/" + d.limits + "/" + digits(d.cost) + "/" + digits(d.owed) + "/" + digits(d.refund)
	if d.lease != 0 {
		return word + "/" + digits(d.short) + "/" + digits(d.long) + "/" + digits(d.lease) + "/" + digits(d.unused)
	}
	if d.short != 0 || d.long != 0 {
		return word + "/" + digits(d.short) + "/" + digits(d.long)
	}
	return word
}

// parseDraws parses an answer other than plenty. It returns 1 if the cost was taken, 0 if not, and the answer to each draw. It returns -1 if
// a key does not hold a bucket, or if the answer is malformed.
func parseDraws(word string) (int64, []drawAnswer) {
	draws := []drawAnswer{} // not a named result: the interpreter does not clear it (R31)
	parts := strings.Split(word, ",")
	if parts[0] != "0" && parts[0] != "1" {
		return -1, nil
	}
	for _, part := range parts[1:] {
		fields := strings.Split(part, ":")
		if len(fields) != 2 && len(fields) != 4 {
			return -1, nil
		}
		levels, ok := parseNumbers(strings.Split(fields[0], "+"))
		leased, isNumber := parseNumbers(fields[1:])
		if !ok || !isNumber {
			return -1, nil
		}
		d := drawAnswer{levels: levels, leased: leased[0]}
		if len(leased) == 3 {
			d.lease = leased[1]
			d.length = leased[2]
		}
		draws = append(draws, d)
	}
	if parts[0] == "1" {
		return 1, draws
	}
	return 0, draws
}

// penalised is the first byte of an answer to a request of a penalised client.
const penalised = '!'

// parsePenalised returns how long the client is penalised, at least 1, and the rest of the answer as that to a refused request.
func parsePenalised(word string) (int64, string) {
	first, draws, _ := strings.Cut(word[1:], ",")
	left, _ := strconv.ParseInt(first, 10, 64)
	if left < 1 {
		left = 1
	}
	return left, "0," + draws
}

// parseNumbers parses decimal numbers.
func parseNumbers(words []string) ([]int64, bool) {
	numbers := make([]int64, len(words))
	for i, word := range words {
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return nil, false
		}
		numbers[i] = n
	}
	return numbers, true
}
