package fuzz

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/adit-ipsec/adit/natt"
)

// classifyReference is RFC 3948 section 2 written as its figures are: an ESP
// header, a Non-ESP Marker with an IKE header, and the keepalive.
func classifyReference(b []byte) natt.Kind {
	if bytes.Equal(b, []byte{0xff}) {
		return natt.Keepalive // 2.3
	}
	var header struct{ SPI, Sequence uint32 }
	if binary.Read(bytes.NewReader(b), binary.BigEndian, &header) != nil {
		return natt.Malformed
	}
	if header.SPI > 0 {
		return natt.ESP // 2.1
	}
	var ike struct { // RFC 7296 3.1
		Marker               uint32
		Initiator, Responder uint64
		NextPayload, Version uint8
		Exchange, Flags      uint8
		MessageID, Length    uint32
	}
	if binary.Read(bytes.NewReader(b), binary.BigEndian, &ike) != nil {
		return natt.Malformed
	}
	return natt.IKE // 2.2
}

// FuzzNATTClassify holds the demultiplexing of port 4500 equal to the
// reference, for any payload, without changing it.
func FuzzNATTClassify(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		got, want := natt.Classify(b), classifyReference(b)
		if got != want {
			t.Errorf("Classify(%x) = %v, want %v", b, got, want)
		}
		if !bytes.Equal(b, before) {
			t.Errorf("Classify changed %x to %x", before, b)
		}
	})
}
