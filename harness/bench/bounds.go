package main

import (
	"errors"
	"fmt"
)

// bound is what a figure of a workload must not pass.
type bound struct {
	workload, says string
	figure         func(*result) float64
	most           float64
}

// bounds are loose: they hold on a machine that does other work beside, and still notice when the hot path is lost.
var bounds = []bound{
	{"a", "CPU added to that of the built-in pair", func(r *result) float64 { return r.Ratios["added"].Median }, 0.8},
	{"a", "Redis calls a request", calls, 0.02},
	{"d", "CPU of the whole refused request to that of the built-in pair", func(r *result) float64 { return r.Ratios["whole"].Median }, 1},
	{"d", "Redis calls a request", calls, 0.01},
}

func calls(r *result) float64 { return r.Medians[ours]["redisCalls"].Median }

// hold tells which bounds a result passes.
func hold(r *result) error {
	var failed error
	for _, b := range bounds {
		if b.workload != r.Workload.Name {
			continue
		}
		if value := b.figure(r); value > b.most {
			failed = errors.Join(failed, fmt.Errorf("%s: %s: %.3f, more than %.3f", b.workload, b.says, value, b.most))
		} else {
			fmt.Printf("  %s: %s: %.3f, at most %.3f: holds\n", b.workload, b.says, value, b.most)
		}
	}
	return failed
}
