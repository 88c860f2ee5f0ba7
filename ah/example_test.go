package ah_test

import (
	"bytes"
	"fmt"

	"github.com/adit-ipsec/adit/ah"
)

// Two ends with the same key: one signs, a router counts the time to live down,
// the other verifies.
func Example() {
	suite, err := ah.ParseSuite("sha256")
	if err != nil {
		fmt.Println(err)
		return
	}
	key := bytes.Repeat([]byte{0x11}, suite.KeyLen())
	sender, err := ah.New(suite, key, true)
	if err != nil {
		fmt.Println(err)
		return
	}
	receiver, err := ah.New(suite, key, true)
	if err != nil {
		fmt.Println(err)
		return
	}
	scratch := ah.NewScratch() // one for each worker

	// The outer header, room for AH, and the payload at its place, so that
	// nothing is copied.
	wire := make([]byte, 2048)
	header := []byte{0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 51, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2}
	start := copy(wire, header) + suite.HeaderLen(4)
	payload := wire[start : start+copy(wire[start:], "an IP packet")]
	batch := []ah.Packet{{Seq: 1, NextHeader: 4, Payload: payload, Wire: wire}}
	sender.Sign(scratch, 0x1001, batch)
	fmt.Println(len(batch[0].Wire), "bytes on the wire,", batch[0].Err)

	batch[0].Wire[8]--
	spi, low, _ := ah.ParseHeader(batch[0].Wire)
	fmt.Printf("SPI %#x, sequence number %d\n", spi, low)
	received := []ah.Packet{{Seq: uint64(low), Wire: batch[0].Wire}}
	receiver.Verify(scratch, received)
	fmt.Printf("%s, next header %d, %v\n", received[0].Payload, received[0].NextHeader, received[0].Err)

	// Output:
	// 60 bytes on the wire, <nil>
	// SPI 0x1001, sequence number 1
	// an IP packet, next header 4, <nil>
}
