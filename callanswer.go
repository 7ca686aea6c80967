package resilience

import (
	"net/http"
	"strings"
)

// A gRPC client understands no status of HTTP but 200, and no body of ours. It gets a trailers-only answer instead: the status of the call
// is among the headers, and the headers end the stream. Retry-After is metadata of the call.

// The codes of gRPC that say why a call was refused.
const (
	permissionDenied  = "7"
	resourceExhausted = "8"
	callUnavailable   = "14"
)

// callStatus is the status of a refused call, as values of headers.
type callStatus struct {
	code, message []string
}

// newCallStatus returns a status. The message is printable ASCII without %, so that it needs no encoding.
func newCallStatus(code, message string) *callStatus {
	return &callStatus{code: []string{code}, message: []string{message}}
}

var callType = []string{callTypeName}

const callTypeName = "application/grpc"

// isCall reports whether a request is a gRPC call. Each has a body, whose length is not known, so callers ask only about requests with a
// body. gRPC-Web is not gRPC: its clients understand a status of HTTP.
func isCall(r *http.Request) bool {
	if r.ProtoMajor < 2 {
		return false
	}
	kind := r.Header.Get("Content-Type")
	if !strings.HasPrefix(kind, callTypeName) {
		return false
	}
	rest := kind[len(callTypeName):]
	return rest == "" || rest[0] == '+' || rest[0] == ';'
}

// refuseCall answers a call with a status alone.
func refuseCall(status *callStatus, w http.ResponseWriter, r *http.Request) {
	noteRefusedCall(r)
	header := w.Header()
	header["Content-Type"] = callType
	header["Grpc-Status"] = status.code
	header["Grpc-Message"] = status.message
	w.WriteHeader(http.StatusOK)
}
