package wire

import "fmt"

// ParseError says that bytes are no IKE message. All errors of [ParseHeader],
// [Parse] and [ParsePayloads] are of this type. RFC 7296 3.10.1 names the answer to
// it, where there is one: INVALID_SYNTAX, and only in a message that was
// authenticated.
type ParseError struct {
	Offset int    // where, in bytes from the start of what was parsed
	What   string // what is wrong, in words that hold nothing of the message
}

func (e *ParseError) Error() string { return fmt.Sprintf("IKE message, byte %d: %s", e.Offset, e.What) }

// SchemaError says that a payload is missing, comes too often, may not be there, or
// does not fit its exchange. Answer is what to say to it.
type SchemaError struct {
	Exchange ExchangeType
	Response bool
	Payload  PayloadType
	Notify   NotifyType // which, if Payload is PayloadN and Rule speaks of one
	Rule     string     // what does not hold, such as "missing"
}

func (e *SchemaError) Error() string {
	direction := "request"
	if e.Response {
		direction = "response"
	}
	payload := e.Payload.String()
	if e.Notify != 0 {
		payload += "(" + e.Notify.String() + ")"
	}
	return fmt.Sprintf("%v %s: %s %s", e.Exchange, direction, payload, e.Rule)
}

// Answer is the notification that answers a request with this error. RFC 7296
// 3.10.1: INVALID_SYNTAX is for "any error not covered by one of the other status
// types"; who leaves out AUTH asks for EAP (2.16), and cannot be authenticated.
func (e *SchemaError) Answer() NotifyType {
	if e.Exchange == IKEAuth && e.Payload == PayloadAUTH && e.Rule == "missing" {
		return NotifyAuthenticationFailed
	}
	return NotifyInvalidSyntax
}

// CriticalError says that a payload is not known and that its sender set the
// critical bit: the whole message is to be rejected, and a request answered with
// UNSUPPORTED_CRITICAL_PAYLOAD, whose data is the one byte Type (RFC 7296 2.5).
type CriticalError struct{ Type PayloadType }

func (e *CriticalError) Error() string {
	return fmt.Sprintf("critical payload of unknown type %d", uint8(e.Type))
}
