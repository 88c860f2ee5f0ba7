package crypt_test

import (
	"encoding/binary"
	"fmt"

	"github.com/adit-ipsec/adit/internal/crypt"
)

// The sender writes the inverted sum of the header; the receiver's sum over
// all of it is then 0xffff.
func ExampleChecksum() {
	header := []byte{
		0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11,
		0x00, 0x00, // the checksum's place
		0xc0, 0xa8, 0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
	}
	sum := ^crypt.Checksum(header, 0)
	binary.BigEndian.PutUint16(header[10:], sum)
	fmt.Printf("%#x %#x\n", sum, crypt.Checksum(header, 0))
	// Output: 0xb861 0xffff
}

// A payload is copied into its segment, and its sum goes on from that of the
// pseudo header.
func ExampleCopy() {
	pseudo := crypt.Checksum([]byte{10, 0, 0, 1, 10, 0, 0, 2, 0, 17, 0, 5}, 0)
	segment := make([]byte, 8)
	sum := crypt.Copy(segment, []byte("adits"), pseudo)
	fmt.Printf("%q %#x\n", segment, ^sum)
	// Output: "adits\x00\x00\x00" 0xae0d
}
