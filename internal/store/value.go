package store

import (
	"io"
	"strconv"
	"strings"
)

// maxNested is how deep arrays may be nested in an answer that we read.
const maxNested = 8

// command returns a command in Redis's protocol.
func command(words ...string) string {
	text := "*" + strconv.Itoa(len(words)) + newline
	for _, word := range words {
		text += Word(word) + newline
	}
	return text
}

// do sends a command and reads its answer: a string, a number as a string, nil, or a []interface{} of those.
func do(c *conn, words []string) (interface{}, error) {
	if err := send(c, command(words...)); err != nil {
		return nil, err
	}
	return readAnswer(c)
}

// readAnswer reads an answer of any kind, of at most maxReply bytes. An error reply is an error.
func readAnswer(c *conn) (interface{}, error) {
	c.limit.N = maxReply
	return readValue(c, 0)
}

func readValue(c *conn, depth int) (interface{}, error) {
	line, err := c.reader.ReadString('\n')
	if err != nil {
		return nil, failureOf(c, err)
	}
	line = strings.TrimRight(line, newline)
	if line == "" || depth > maxNested {
		return nil, errNotRedis
	}
	kind, rest := line[0], line[1:]
	if kind == '+' || kind == ':' {
		return rest, nil
	}
	if kind == '-' {
		return nil, replyError(rest)
	}
	length, err := strconv.Atoi(rest)
	if err != nil || length > maxReply {
		return nil, errNotRedis
	}
	if length < 0 {
		return nil, nil
	}
	if kind == '$' {
		return readText(c, length)
	}
	if kind == '*' {
		return readArray(c, length, depth)
	}
	return nil, errNotRedis
}

func readText(c *conn, length int) (interface{}, error) {
	text := make([]byte, length+len(newline))
	if _, err := io.ReadFull(c.reader, text); err != nil {
		return nil, failureOf(c, err)
	}
	return string(text[:length]), nil
}

// readArray grows with what arrives: the announced length is not believed.
func readArray(c *conn, length, depth int) (interface{}, error) {
	values := []interface{}{}
	for i := 0; i < length; i++ {
		value, err := readValue(c, depth+1)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	return values, nil
}
