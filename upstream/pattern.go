package main

import (
	"errors"
	"io"
)

// period is a prime, so that a missing or repeated piece shows.
const period = 251

// repeated holds the pattern many times over, so that a read copies long stretches.
var repeated = repeat(period * 256)

func repeat(length int) []byte {
	table := make([]byte, length)
	for i := range table {
		table[i] = byte(i % period)
	}
	return table
}

// pattern is a body whose byte at offset i is i modulo the period. It implements io.ReadSeeker.
type pattern struct {
	size, at int64
}

func (p *pattern) Read(into []byte) (int, error) {
	left := p.size - p.at
	if left <= 0 {
		return 0, io.EOF
	}
	stretch := repeated[p.at%period:]
	n := copy(into, stretch[:min(int64(len(stretch)), left)])
	p.at += int64(n)
	return n, nil
}

func (p *pattern) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += p.at
	case io.SeekEnd:
		offset += p.size
	}
	if offset < 0 {
		return 0, errors.New("pattern: an offset before the start; seek to 0 or later")
	}
	p.at = offset
	return offset, nil
}
