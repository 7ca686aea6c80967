package resilience

import (
	"net/http"
	"reflect"

	"github.com/resilient-gateway/resilience/breaker"
)

// Where Traefik does not watch answers itself, its recovery middleware is the only one around net/http's own writer. That has a field
// for the status, which is read by reflection: after the next handler has returned or panicked, in the goroutine that called it, and
// before the server ends the answer. Nobody else writes the field: informational answers leave it as it is, for HTTP/1 and for HTTP/2, and
// it stays 0 where the connection was taken over. A middleware that answers from another goroutine hands on another type of writer.
//
// The type of the writer is the same for HTTP/1 and HTTP/2, and net/http's behind it differs. The fields are looked up by name at the
// first request with each, and only in structs that look as expected. There is a recorder for anything else.

// fieldSource finds net/http's own writers behind writers of one type.
type fieldSource struct {
	inside []int // from the writer to the field that holds net/http's own
	first  *answerFields

	// Guarded by the middleware's mu.
	others     []*answerFields
	unreadable bool // there was a writer that cannot be read: a recorder serves all requests
}

// answerFields is where writers of one type keep what is known of an answer.
type answerFields struct {
	writer reflect.Type // a pointer to a struct
	status []int        // from the struct to the status
	size   []int        // and to the bytes of the body
}

// maxOthers is how many types of net/http's writers are remembered beside the first.
const maxOthers = 3

// newFieldReporter is newReporter for writers that lead to net/http's own.
func (m *Middleware) newFieldReporter(own *statusSource) func(*tracked) {
	failing, valueOf, toInt, typeOf, elem, byIndex := m.view.Failing, reflect.ValueOf, valueInt, valueType, valueElem, valueFieldByIndex
	inside, known, path := own.fields.inside, own.fields.first.writer, own.fields.first.status
	return func(p *tracked) {
		if p.finished {
			var (
				status int64
				writer reflect.Value
			)
			writer = elem(byIndex(elem(valueOf(p.w)), inside))
			if typeOf(writer) == known {
				status = toInt(byIndex(elem(writer), path))
			} else {
				status = otherStatus(m, own, p.w)
			}
			if status >= internalServerError {
				reportTracked(m, p, own)
			} else if len(failing) > 0 {
				reportTracked(m, p, own)
			} else if status < statusOK {
				reportSwitch(m, p)
			}
		} else {
			reportTracked(m, p, own)
		}
	}
}

// otherStatus returns the status of an answer whose writer is not of the first type. One that cannot be read is a failure to look at.
func otherStatus(m *Middleware, own *statusSource, w http.ResponseWriter) int64 {
	writer := own.fields.writerIn(w)
	fields := m.fieldsOf(own, writer.Type())
	if fields == nil {
		return internalServerError
	}
	return writer.Elem().FieldByIndex(fields.status).Int()
}

// readFields reads what net/http's writer knows of an answer. It reports whether it can be read.
func (m *Middleware) readFields(own *statusSource, w http.ResponseWriter, x *exchange) bool {
	writer := own.fields.writerIn(w)
	fields := m.fieldsOf(own, writer.Type())
	if fields == nil {
		return false
	}
	x.status = int(writer.Elem().FieldByIndex(fields.status).Int())
	x.size = writer.Elem().FieldByIndex(fields.size).Int()
	return true
}

// writerIn returns net/http's own writer behind one that leads to it.
func (s *fieldSource) writerIn(w http.ResponseWriter) reflect.Value {
	return reflect.ValueOf(w).Elem().FieldByIndex(s.inside).Elem()
}

// fieldsOf returns where writers of a type keep what is known of an answer, or nil where that cannot be told. Then no writer of the source
// is asked again.
func (m *Middleware) fieldsOf(own *statusSource, writer reflect.Type) *answerFields {
	s := own.fields
	if writer == s.first.writer {
		return s.first
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, fields := range s.others {
		if fields.writer == writer {
			return fields
		}
	}
	fields := fieldsOfNetHTTP(writer)
	if fields == nil || len(s.others) == maxOthers {
		s.unreadable = true
		own.writer = nil
		return nil
	}
	s.others = append(s.others, fields)
	return fields
}

// reportUnread reports a tracked request of which only the end is known: it says nothing about the service.
func (m *Middleware) reportUnread(p *tracked) {
	m.breaker.Done(m.breaker.PermitAt(p.at), breaker.Unknown, m.policy, m.redis.Timeout)
}

// The types that Traefik's recovery middleware wraps a writer in. The second embeds the first.
const (
	recoveryWriter   = "*recovery.responseWriterWrapper"
	recoveryNotifier = "*recovery.responseWriterWrapperWithCloseNotify"
)

// newFieldSource returns how the status is read behind writers such as this one, or nil where it cannot be.
func newFieldSource(w http.ResponseWriter) *fieldSource {
	writer := reflect.TypeOf(w)
	if name := writer.String(); name != recoveryWriter && name != recoveryNotifier {
		return nil
	}
	inside := pathToWriter(writer.Elem())
	if inside == nil {
		return nil
	}
	s := &fieldSource{inside: inside}
	first := s.writerIn(w)
	if !first.IsValid() {
		return nil
	}
	s.first = fieldsOfNetHTTP(first.Type())
	if s.first == nil {
		return nil
	}
	return s
}

// pathToWriter returns the path from a struct of the recovery middleware's to the writer that it wraps, or nil where the struct does not
// look as expected.
func pathToWriter(wrapper reflect.Type) []int {
	if wrapper.Kind() == reflect.Struct && wrapper.NumField() == 1 {
		embedded := wrapper.Field(0)
		if !embedded.Anonymous || embedded.Type.Kind() != reflect.Ptr {
			return nil
		}
		return pathIn(embedded.Type.Elem(), embedded.Index)
	}
	return pathIn(wrapper, nil)
}

func pathIn(wrapper reflect.Type, path []int) []int {
	if wrapper.Kind() != reflect.Struct || wrapper.NumField() != 2 {
		return nil
	}
	rw, found := wrapper.FieldByName("rw")
	sent, flagged := wrapper.FieldByName("headersSent")
	if !found || !flagged || rw.Type != responseWriter || sent.Type.Kind() != reflect.Bool {
		return nil
	}
	return joined(path, rw.Index)
}

var responseWriter = reflect.TypeOf((*http.ResponseWriter)(nil)).Elem()

// fieldsOfNetHTTP returns where writers of a type keep what is known of an answer, if it is one of net/http's own.
func fieldsOfNetHTTP(writer reflect.Type) *answerFields {
	if writer.Kind() != reflect.Ptr || writer.Elem().PkgPath() != "net/http" {
		return nil
	}
	return fieldsOf(writer)
}

// fieldsOf returns where writers of a type keep what is known of an answer, or nil where they do not look as expected.
func fieldsOf(writer reflect.Type) *answerFields {
	answer := writer.Elem()
	if answer.Kind() != reflect.Struct {
		return nil
	}
	rws, leads := answer.FieldByName("rws")
	if !leads {
		return fieldsIn(writer, answer, nil, "written")
	}
	if rws.Type.Kind() != reflect.Ptr || rws.Type.Elem().Kind() != reflect.Struct { // HTTP/2 keeps all in a second struct
		return nil
	}
	return fieldsIn(writer, rws.Type.Elem(), rws.Index, "wroteBytes")
}

// fieldsIn looks for the fields in a struct that a path leads to.
func fieldsIn(writer, answer reflect.Type, path []int, size string) *answerFields {
	status, hasStatus := answer.FieldByName("status")
	written, hasSize := answer.FieldByName(size)
	wrote, hasWrote := answer.FieldByName("wroteHeader")
	if !hasStatus || !hasSize || !hasWrote {
		return nil
	}
	if status.Type.Kind() != reflect.Int || written.Type.Kind() != reflect.Int64 || wrote.Type.Kind() != reflect.Bool {
		return nil
	}
	return &answerFields{writer: writer, status: joined(path, status.Index), size: joined(path, written.Index)}
}

// joined returns a path that shares no memory with its parts.
func joined(path, rest []int) []int {
	return append(append([]int{}, path...), rest...)
}
