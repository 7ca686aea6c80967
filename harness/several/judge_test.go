package several

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// requests returns answers to a client that asks at even intervals, of which the service got every nth.
func requests(key string, from, to, every time.Duration, nth int) (answers []answer) {
	for at := from; at < to; at += every {
		a := answer{key: key, status: 429, sent: at, ended: at + time.Millisecond}
		if len(answers)%nth == 0 {
			a.status, a.arrived = 200, a.ended
		}
		answers = append(answers, a)
	}
	return answers
}

// TestJudge_findsWhatIsWrong gives it histories of 12 s a phase, in which greedy clients ask 20 times a second and the crowd 400 times.
func TestJudge_findsWhatIsWrong(t *testing.T) {
	const second = time.Second
	good := func() (answers []answer) {
		for c := range greedy {
			key := fmt.Sprint("greedy", c)
			answers = append(answers, requests(key, 0, 12*second, second/20, 2)...)
			answers = append(answers, requests(key, 24*second, 30*second, second/20, 2)...)
		}
		for c := range crowd {
			answers = append(answers, requests(fmt.Sprint("crowd", c), 12*second+time.Duration(c)*5*time.Millisecond/2, 24*second, 3*second/4, 2)...)
		}
		return answers
	}
	for _, row := range []struct {
		name    string
		answers []answer
		wrong   []string
	}{
		{"as it should be", nil, nil},
		{"a burst of one client", requests("greedy0", second, 2*second, 20*time.Millisecond, 1), []string{"client greedy0: a window has"}},
		{"a burst of all", requests("", 13*second, 14*second, time.Millisecond, 3), []string{"client : a window has", "everyone : a window has"}},
		{"more than an hour's", requests("greedy0", 25*second, 36*second, 125*time.Millisecond, 1), []string{"hour greedy0: a window has"}},
	} {
		h := &history{answers: append(good(), row.answers...), phases: []phase{{"client", 0, 12 * second}, {"everyone", 12 * second, 24 * second}, {"hour", 24 * second, 36 * second}}}
		r := h.judge(Options{Phase: 12 * second})
		for _, wrong := range row.wrong {
			require.Contains(t, fmt.Sprint(r.Wrong), wrong, row.name)
		}
		if row.wrong == nil {
			require.Empty(t, r.Wrong, row.name)
		}
	}
	t.Run("too little is admitted", func(t *testing.T) {
		h := &history{phases: []phase{{"client", 0, 12 * second}, {"everyone", 12 * second, 24 * second}, {"hour", 24 * second, 36 * second}}}
		for i, a := range good() {
			if i%20 == 0 {
				a.status, a.arrived = 429, 0
			}
			h.answers = append(h.answers, a)
		}
		require.Len(t, h.judge(Options{Phase: 12 * second}).Wrong, 3)
	})
}
