package store

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBallot(t *testing.T) {
	for _, row := range []struct {
		name   string
		votes  []string // "": no answer
		voters int
		last   string
		left   string
		want   string // "": an error
		ends   int    // after how many answers
	}{
		{"all agree", []string{"a", "a", "a"}, 3, "", "", "a", 2},
		{"a majority is enough", []string{"b", "a", "b"}, 3, "a", "", "b", 3},
		{"one that is out of date", []string{"a", "b", "b"}, 3, "a", "", "b", 3},
		{"one answers", []string{"", "", "a"}, 3, "b", "", "a", 3},
		{"news counts", []string{"a", "b"}, 2, "a", "", "b", 2},
		{"news counts, in any order", []string{"b", "a"}, 2, "a", "", "b", 2},
		{"none answers", []string{"", ""}, 2, "a", "", "", 2},
		{"the rest cannot change it", []string{"a", "a", "a", "b"}, 5, "b", "", "a", 3},
		{"news counts, but not what was left", []string{"a", "b"}, 2, "b", "a", "b", 2},
		{"what was left, one of three", []string{"", "a", ""}, 3, "b", "a", "b", 3},
		{"what was left, one of one", []string{"a"}, 1, "b", "a", "a", 1},
		{"what was left, two of three", []string{"a", "b", "a"}, 3, "b", "a", "a", 3},
		{"what was left, two of five so far", []string{"", "", "a", "a", "a"}, 5, "b", "a", "a", 5},
		{"another one, two of five so far", []string{"", "", "a", "a"}, 5, "b", "", "a", 4},
		{"three addresses", []string{"a", "b", "c"}, 3, "b", "a", "c", 3},
		{"what was left, and none is known", []string{"a", ""}, 2, "", "a", "a", 2},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			b := newBallot(row.voters, row.last, row.left)
			for i, vote := range row.votes {
				require.Equal(t, i >= row.ends, b.ended, i)
				if vote == "" {
					b.add("", errors.New("no answer"))
				} else {
					b.add(vote, nil)
				}
			}
			address, err := b.result()
			require.Equal(t, row.want, address)
			require.Equal(t, row.want == "", err != nil)
		})
	}
}

// A panic while a server is asked is no answer.
func TestBallot_endsThoughAskingPanics(t *testing.T) {
	b := newBallot(2, "", "")
	vote(b, func() (string, error) { panic("no") })
	vote(b, func() (string, error) { return "a", nil })
	require.True(t, b.ended)
	address, err := b.result()
	require.NoError(t, err)
	require.Equal(t, "a", address)
}
