package main

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"
)

// longest is the longest wait. A request for a longer one gets this one.
const longest = 60 * time.Second

// seconds reads a wait from the query, or returns fallback if it is not there.
func seconds(r *http.Request, name string, fallback float64) (time.Duration, error) {
	value := fallback
	if text := r.URL.Query().Get(name); text != "" {
		var err error
		value, err = strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(value) || math.IsInf(value, 0) {
			return 0, fmt.Errorf("%s: %q is not a number; write %v", name, text, suggested(fallback))
		}
		if value < 0 {
			return 0, fmt.Errorf("%s: %s is below zero; write %v", name, text, suggested(fallback))
		}
	}
	if value >= longest.Seconds() {
		return longest, nil
	}
	return time.Duration(value * float64(time.Second)), nil
}

func suggested(fallback float64) float64 {
	if fallback == 0 {
		return 2
	}
	return fallback
}

// whole reads a whole number from the query, or returns fallback if it is not there.
func whole(r *http.Request, name string, fallback, least, most int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return fallback, nil
	}
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %q is not a whole number; write %d to %d", name, text, least, most)
	}
	if value < least || value > most {
		return 0, fmt.Errorf("%s: %d is out of range; write %d to %d", name, value, least, most)
	}
	return value, nil
}

// on reads a switch from the query, which is off if it is not there.
func on(r *http.Request, name string) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("%s: %q is not a switch; write 1 or 0", name, text)
	}
	return value, nil
}
