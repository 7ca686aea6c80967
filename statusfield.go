package resilience

import (
	"net/http"
	"reflect"
	"sync"
)

// Without metrics, access log and tracing, Traefik puts only its recovery middleware around net/http's own writer. That writer has a field
// for the status, which is read by reflection:
//
//   - The field is read after the next handler has returned or panicked, in the goroutine that called it, and before the server ends the
//     answer. Only WriteHeader and Write set it, and only the next handler calls those, so the read races with no write. A middleware that
//     returns before the handler that it called gives that handler a different writer, of a different type.
//   - Informational answers do not change the field. It stays 0 if nothing was written, or if the connection was taken over.
//   - The type of Traefik's writer is the same for HTTP/1 and HTTP/2. The type of net/http's writer behind it differs, and is compared for
//     each request.
//   - Fields are looked up by name at the first request with a type, and only in structs that look as expected. In another version of
//     Traefik or Go they may not: then there is a recorder.

// fieldSource finds net/http's own writers behind writers of one type.
type fieldSource struct {
	inside     []int // the path from the writer to the field that holds net/http's own
	unreadable bool  // net/http's own could not be read once: a recorder serves all requests; guarded by the middleware's mu
}

// answerFields says where net/http's writers of one type keep the status and the size of an answer.
type answerFields struct {
	writer reflect.Type // a pointer to a struct
	status []int        // the path from the struct to the status
	size   []int        // the path from the struct to the number of bytes in the body
}

// newFieldReporter is newReporter for writers that lead to net/http's own. The report knows the types that this process has met before the
// report is made, usually all of them. A type that is met later is looked up with a lock.
func newFieldReporter(m *Middleware, own *statusSource) func(*tracked) {
	failing, valueOf, toInt, typeOf, elem, byIndex := m.view.Failing, reflect.ValueOf, valueInt, valueType, valueElem, valueFieldByIndex
	inside, paths := own.fields.inside, knownWriters.paths()
	return func(p *tracked) {
		if p.finished {
			var (
				status int64
				writer reflect.Value
				path   []int
			)
			writer = elem(byIndex(elem(valueOf(p.w)), inside))
			path = paths[typeOf(writer)]
			if path == nil {
				reportOther(m, p, own, writer)
				return
			}
			status = toInt(byIndex(elem(writer), path))
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

// reportOther reports a tracked request whose writer has a type that was not known yet when the report was made.
func reportOther(m *Middleware, p *tracked, own *statusSource, writer reflect.Value) {
	fields := knownWriters.of(valueType(writer))
	if fields == nil {
		reportTracked(m, p, own)
		return
	}
	status := valueInt(valueFieldByIndex(valueElem(writer), fields.status))
	if status >= internalServerError || len(m.view.Failing) > 0 {
		reportTracked(m, p, own)
	} else if status < statusOK {
		reportSwitch(m, p)
	}
}

// readFields reads status and size of an answer from net/http's writer. It reports whether they can be read.
func (s *fieldSource) readFields(w http.ResponseWriter, x *exchange) bool {
	writer := s.writerIn(w)
	fields := knownWriters.of(writer.Type())
	if fields == nil {
		return false
	}
	x.status = int(writer.Elem().FieldByIndex(fields.status).Int())
	x.size = writer.Elem().FieldByIndex(fields.size).Int()
	return true
}

// writerIn returns net/http's own writer behind a writer of this source.
func (s *fieldSource) writerIn(w http.ResponseWriter) reflect.Value {
	return reflect.ValueOf(w).Elem().FieldByIndex(s.inside).Elem()
}

// writerTypes are the types of net/http's writers that this process has met: one for HTTP/1, one for HTTP/2.
type writerTypes struct {
	mu  sync.Mutex
	met []*answerFields
}

var knownWriters = &writerTypes{}

// paths returns the path to the status for each type that was met.
func (k *writerTypes) paths() map[reflect.Type][]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := map[reflect.Type][]int{}
	for _, fields := range k.met {
		all[fields.writer] = fields.status
	}
	return all
}

// of returns the fields of a type of writer, or nil if it does not have the expected ones.
func (k *writerTypes) of(writer reflect.Type) *answerFields {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, fields := range k.met {
		if fields.writer == writer {
			return fields
		}
	}
	fields := fieldsOfNetHTTP(writer)
	if fields != nil {
		k.met = append(k.met, fields)
	}
	return fields
}

// giveUp stops reading writers of a source, because one could not be read. The outcome of that request is unknown.
func (m *Middleware) giveUp(own *statusSource) {
	m.mu.Lock()
	defer m.mu.Unlock()
	own.fields.unreadable = true
	if m.source.fields == own.fields {
		m.source.writer = nil
	}
}

// The types that Traefik's recovery middleware wraps a writer in. The second embeds the first.
const (
	recoveryWriter   = "*recovery.responseWriterWrapper"
	recoveryNotifier = "*recovery.responseWriterWrapperWithCloseNotify"
)

// newFieldSource returns the source for writers of this one's type, or nil if net/http's writer is not found behind them.
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
	if !first.IsValid() || knownWriters.of(first.Type()) == nil {
		return nil
	}
	return s
}

// pathToWriter returns the path from a struct of the recovery middleware to the writer that it wraps, or nil if the struct does not look
// as expected.
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

// fieldsOfNetHTTP is fieldsOf for net/http's own types; nil for any other.
func fieldsOfNetHTTP(writer reflect.Type) *answerFields {
	if writer.Kind() != reflect.Ptr || writer.Elem().PkgPath() != "net/http" {
		return nil
	}
	return fieldsOf(writer)
}

// fieldsOf returns the fields of a type of writer, or nil if it does not have the expected ones.
func fieldsOf(writer reflect.Type) *answerFields {
	answer := writer.Elem()
	if answer.Kind() != reflect.Struct {
		return nil
	}
	rws, leads := answer.FieldByName("rws")
	if !leads {
		return fieldsIn(writer, answer, nil, "written")
	}
	if rws.Type.Kind() != reflect.Ptr || rws.Type.Elem().Kind() != reflect.Struct { // the writer of HTTP/2 keeps them in a second struct
		return nil
	}
	return fieldsIn(writer, rws.Type.Elem(), rws.Index, "wroteBytes")
}

// fieldsIn returns the fields in a struct that a path leads to, or nil if they are not the expected ones.
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

// joined returns a new path: path, then rest.
func joined(path, rest []int) []int {
	return append(append([]int{}, path...), rest...)
}
