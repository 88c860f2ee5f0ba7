package esp_test

import (
	"bytes"
	"fmt"

	"github.com/adit-ipsec/adit/esp"
)

// Two ends with the same key: one seals, the other opens.
func Example() {
	suite, err := esp.ParseSuite("aes128gcm16")
	if err != nil {
		fmt.Println(err)
		return
	}
	encryption, _ := suite.KeyLen()
	key := bytes.Repeat([]byte{0x11}, encryption) // 16 bytes of key, 4 of salt
	sender, err := esp.New(suite, key, nil, true)
	if err != nil {
		fmt.Println(err)
		return
	}
	receiver, err := esp.New(suite, key, nil, true)
	if err != nil {
		fmt.Println(err)
		return
	}
	scratch := esp.NewScratch() // one for each worker

	// Build the cleartext at its place, so that nothing is copied.
	start := esp.HeaderLen + suite.IVLen()
	wire := make([]byte, 2048)
	payload := wire[start : start+copy(wire[start:], "an IP packet")]
	batch := []esp.Packet{{Seq: 1, NextHeader: 4, Payload: payload, Wire: wire}}
	sender.Seal(scratch, 0x1001, batch)
	fmt.Println(len(batch[0].Wire), "bytes on the wire,", batch[0].Err)

	spi, low, _ := esp.ParseHeader(batch[0].Wire)
	fmt.Printf("SPI %#x, sequence number %d\n", spi, low)
	received := []esp.Packet{{Seq: uint64(low), Wire: batch[0].Wire}}
	receiver.Open(scratch, received)
	fmt.Printf("%s, next header %d, %v\n", received[0].Payload, received[0].NextHeader, received[0].Err)

	// Output:
	// 48 bytes on the wire, <nil>
	// SPI 0x1001, sequence number 1
	// an IP packet, next header 4, <nil>
}
