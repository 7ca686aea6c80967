// Package logging writes events: through Traefik's own logger, with its levels and fields, or where there is none, such as in
// a test, as one line of JSON each to standard output.
package logging

import (
	"encoding/json"
	"log"
	"os"
	"reflect"
	"sync"
	"time"
)

// output is where lines go without Traefik's logger. outputMu guards it.
var (
	outputMu sync.Mutex
	output   = os.Stdout
)

// SetOutput sets the file to which lines go without Traefik's logger, and returns the one before. It is for tests.
func SetOutput(file *os.File) (before *os.File) {
	outputMu.Lock()
	defer outputMu.Unlock()
	before = output
	output = file
	return before
}

// Logger writes the events of one middleware. It is safe for concurrent use. It never fails: an event that cannot be written
// is lost.
type Logger struct {
	middleware string
}

// New returns the logger of the middleware with the given name.
func New(middleware string) *Logger {
	return &Logger{middleware: middleware}
}

// Debugs reports whether events of the level debug are written.
func (l *Logger) DebugEnabled() bool {
	return enabled("Debug")
}

// Debug writes an event of the level debug. Fields are names and values in turn.
func (l *Logger) Debug(message string, fields ...string) { l.write("Debug", "debug", message, fields) }

// Info writes an event of the level info, which needs no action.
func (l *Logger) Info(message string, fields ...string) { l.write("Info", "info", message, fields) }

// Warn writes an event of the level warn, which operators should see.
func (l *Logger) Warn(message string, fields ...string) { l.write("Warn", "warn", message, fields) }

func (l *Logger) write(method, level, message string, fields []string) {
	defer func() { recover() }() // a request must not fail because its log line does
	all := append([]string{"middleware", l.middleware}, fields...)
	event, ok := newEvent(method)
	if !ok {
		printLine(level, message, all)
		return
	}
	if event.IsNil() {
		return // the level is off
	}
	for i := 0; i+1 < len(all); i += 2 {
		event.MethodByName("Str").Call([]reflect.Value{reflect.ValueOf(all[i]), reflect.ValueOf(all[i+1])})
	}
	event.MethodByName("Msg").Call([]reflect.Value{reflect.ValueOf(message)})
}

// newEvent begins an event in Traefik's logger. In Traefik, log.Writer is a zerolog.Logger. Its methods can be called by
// reflection only, on a pointer to a copy. ok is false outside of Traefik.
func newEvent(method string) (event reflect.Value, ok bool) {
	writer := reflect.ValueOf(log.Writer())
	if writer.Type().String() != "zerolog.Logger" {
		return event, false
	}
	logger := reflect.New(writer.Type())
	logger.Elem().Set(writer)
	begin := logger.MethodByName(method)
	if !begin.IsValid() {
		return event, false
	}
	return begin.Call(nil)[0], true
}

func enabled(method string) (on bool) {
	defer func() { recover() }()
	event, ok := newEvent(method)
	if !ok {
		return false
	}
	return !event.IsNil()
}

func printLine(level, message string, fields []string) {
	line := map[string]string{"level": level, "time": time.Now().Format(time.RFC3339), "message": message}
	for i := 0; i+1 < len(fields); i += 2 {
		line[fields[i]] = fields[i+1]
	}
	text, err := json.Marshal(line)
	if err == nil {
		outputMu.Lock()
		defer outputMu.Unlock()
		output.Write(append(text, '\n'))
	}
}
