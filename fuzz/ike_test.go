package fuzz

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/ike/wire"
)

// ikeMessages are the valid messages of every exchange that package wire keeps: a
// line of name, a line of summary, lines of hex.
func ikeMessages(f *testing.F) (all [][]byte) {
	f.Helper()
	text, err := os.ReadFile(filepath.Join("..", "ike", "wire", "testdata", "messages.txt"))
	if err != nil {
		f.Fatal(err)
	}
	for _, section := range strings.Split(string(text), "# ")[1:] {
		lines := strings.SplitN(section, "\n", 3)
		if len(lines) != 3 {
			f.Fatalf("a message without bytes: %q", section)
		}
		b, err := hex.DecodeString(strings.ReplaceAll(lines[2], "\n", ""))
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// ikeAgain writes a message that was read.
func ikeAgain(m *wire.Message) []byte {
	if m.Protected == nil {
		return wire.Append(nil, m.Header, m.Payloads...)
	}
	return append(wire.BeginProtected(m.Header, m.Payloads, *m.Protected, len(m.Protected.Body)), m.Protected.Body...)
}

// ikeError says whether err is a *wire.ParseError inside n bytes.
func ikeError(err error, n int) bool {
	var parse *wire.ParseError
	return errors.As(err, &parse) && parse.Offset >= 0 && parse.Offset <= n && parse.What != ""
}

// FuzzIKEMessage: whatever the bytes are, they are refused with a place and a
// reason, or they are a message that is the same when it is written and read again,
// and that the schema and the log take.
func FuzzIKEMessage(f *testing.F) {
	for _, b := range ikeMessages(f) {
		f.Add(b)
	}
	h := wire.Header{Initiator: 1, Responder: 2, Exchange: wire.IKEAuth, MessageID: 1}
	for _, p := range []wire.Protected{{First: wire.PayloadIDi}, {First: wire.PayloadIDi, Fragment: 1, Total: 2}, {Fragment: 65535, Total: 65535}} {
		f.Add(append(wire.BeginProtected(h, nil, p, 48), make([]byte, 48)...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := wire.Parse(b)
		if err != nil {
			if m != nil || !ikeError(err, len(b)) {
				t.Fatalf("got %v, %v: want a *ParseError inside the message", m, err)
			}
			return
		}
		back, err := wire.Parse(ikeAgain(m))
		if err != nil {
			t.Fatalf("written again, the message is refused: %v", err)
		}
		if m.Protected != nil && (m.Protected.AAD+len(m.Protected.Body) != len(b) || m.Protected.Total != 0 && m.Protected.Fragment == 0) {
			t.Fatalf("protected %+v of %d bytes", m.Protected, len(b))
		}
		if m.Summary() != back.Summary() || strings.ContainsAny(m.Summary(), "\n\r\x00") {
			t.Fatalf("summary %q, then %q", m.Summary(), back.Summary())
		}
		outer, outerBack := wire.CheckOuter(m), wire.CheckOuter(back)
		if (outer == nil) != (outerBack == nil) {
			t.Fatalf("may stand on the wire: %v, then %v", outer, outerBack)
		}
		for _, x := range []*wire.Message{m, back} {
			x.Length, x.Raw = 0, nil
			if x.Protected != nil {
				x.Protected.AAD = 0
			}
		}
		if !reflect.DeepEqual(m, back) {
			t.Fatalf("read %+v, and when written again %+v", m, back)
		}
	})
}

// FuzzIKEPayloads: the same of what comes out of an SK payload: payloads that begin
// with any type. What is written again is never longer than what was read.
func FuzzIKEPayloads(f *testing.F) {
	for _, b := range ikeMessages(f) {
		f.Add(b[16], b[wire.HeaderLen:])
	}
	f.Fuzz(func(t *testing.T, first byte, b []byte) {
		all, err := wire.ParsePayloads(wire.PayloadType(first), b)
		if err != nil {
			if all != nil || !ikeError(err, len(b)) {
				t.Fatalf("got %v, %v: want a *ParseError inside", all, err)
			}
			return
		}
		if len(all) > wire.MaxPayloads {
			t.Fatalf("%d payloads", len(all))
		}
		next, again := wire.AppendPayloads(nil, all...)
		if next != wire.PayloadType(first) || len(again) > len(b) {
			t.Fatalf("written again: first %v, %d bytes; read: first %d, %d bytes", next, len(again), first, len(b))
		}
		back, err := wire.ParsePayloads(next, again)
		if err != nil || !reflect.DeepEqual(all, back) {
			t.Fatalf("read %+v, and when written again %+v, %v", all, back, err)
		}
	})
}

// FuzzIKESchema: what Check lets pass holds what a handler of its exchange takes for
// granted, and what it refuses is refused in any order.
func FuzzIKESchema(f *testing.F) {
	for _, b := range ikeMessages(f) {
		f.Add(b[18], b[19]&byte(wire.FlagResponse) != 0, b[16], b[wire.HeaderLen:])
	}
	f.Fuzz(func(t *testing.T, exchange byte, response bool, first byte, b []byte) {
		all, err := wire.ParsePayloads(wire.PayloadType(first), b)
		if err != nil {
			return
		}
		x := wire.ExchangeType(exchange)
		err = wire.Check(x, response, all)
		var schema *wire.SchemaError
		var critical *wire.CriticalError
		if err != nil && !errors.As(err, &schema) && !errors.As(err, &critical) {
			t.Fatalf("%v is of type %T", err, err)
		}
		reversed := make([]wire.Payload, len(all))
		for i, p := range all {
			reversed[len(all)-1-i] = p
		}
		if again := wire.Check(x, response, reversed); (err == nil) != (again == nil) {
			t.Fatalf("%v; in reverse order %v", err, again)
		}
		if err == nil {
			ikeTakenForGranted(t, x, response, all)
		}
	})
}

// ikeTakenForGranted holds a message that has passed against the list in Check's
// documentation, by hand.
func ikeTakenForGranted(t *testing.T, x wire.ExchangeType, response bool, all []wire.Payload) {
	n := func(kind wire.PayloadType) (count int) {
		for _, p := range all {
			if p.Type() == kind {
				count++
			}
		}
		return count
	}
	failed := false
	for _, p := range wire.All[*wire.Notify](all) {
		failed = failed || p.Kind.IsError()
	}
	sa, ke, nonce, ts := n(wire.PayloadSA), n(wire.PayloadKE), n(wire.PayloadNonce), n(wire.PayloadTSi)
	holds := sa <= 1 && ke <= 1 && nonce <= 1 && ts <= 1 && n(wire.PayloadTSr) == ts && n(wire.PayloadAUTH) <= 1 && n(wire.PayloadIDi) <= 1 && n(wire.PayloadEAP) == 0
	switch x {
	case wire.IKESAInit:
		cookie := wire.FindNotify(all, wire.NotifyCookie) != nil
		holds = holds && ts == 0 && sa == ke && ke == nonce && (sa == 1 || response && (cookie || failed))
	case wire.IKEAuth:
		id := n(wire.PayloadIDi)
		if response {
			id = n(wire.PayloadIDr)
		}
		holds = holds && sa == ts && (id == 1 && n(wire.PayloadAUTH) == 1 || response && failed && sa == 0 && n(wire.PayloadAUTH) == 0)
	case wire.CreateChildSA:
		holds = holds && sa == nonce && (sa == 1 && (ts == 1 || ke == 1) || response && failed && ts+ke == 0)
	case wire.Informational:
		holds = holds && sa+ke+nonce+ts+n(wire.PayloadAUTH) == 0
	case wire.IKEIntermediate, wire.IKEFollowupKE:
		holds = holds && sa+nonce+ts == 0 && (ke == 1 || response && failed)
	default:
		holds = false
	}
	if found := wire.First[*wire.SA](all); found != nil {
		holds = holds && len(found.Proposals) > 0 && (!response || len(found.Proposals) == 1)
		for _, p := range found.Proposals {
			holds = holds && len(p.Transforms) > 0 && (p.Protocol == wire.ProtocolIKE) == (ts == 0)
		}
	}
	if !holds {
		t.Fatalf("%v (response: %t) passes: %s", x, response, wire.Describe(wire.Header{Exchange: x}, all, nil))
	}
}
