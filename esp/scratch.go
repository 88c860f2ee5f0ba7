package esp

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/adit-ipsec/adit/internal/crypt"
)

// runLen is how many packets a codec is handed at a time: enough for a
// multi-buffer kernel, few enough to stay in the first-level cache.
const runLen = 16

// Scratch is one worker's working memory: what a packet needs for a moment
// while it is sealed or opened. It serves any number of transforms, one call
// at a time. It remembers the last batch's packets and bytes until the next;
// drop it with the worker.
type Scratch struct {
	jobs    [runLen]job
	digests *crypt.Digests

	nonce   [16]byte // salt and IV; CCM: flags, salt and IV
	counter [16]byte // a counter block
	chain   [16]byte // a CBC-MAC value
	aad     [12]byte // SPI, sequence number high, low
	high    [4]byte
	mac     [64]byte  // HMAC output, an expected ICV
	stream  [128]byte // keystream
	tail    [32]byte  // the end of a CTR text
	copied  []byte    // a whole packet, where a suite needs a copy
	again   []byte    // a second one
}

// copyLen holds the largest packet with everything around it.
const copyLen = 65535 + 512

// NewScratch returns a worker's Scratch, about 130 KiB of which only suites
// that copy touch more than 1 KiB.
func NewScratch() *Scratch {
	sc := &Scratch{digests: crypt.NewDigests(), copied: make([]byte, copyLen), again: make([]byte, copyLen)}
	return sc
}

// Format keeps keys and cleartext out of logs.
func (sc *Scratch) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "esp.Scratch") }

// putHigh returns the high half of a sequence number as on the wire.
func (sc *Scratch) putHigh(seq uint64) []byte {
	binary.BigEndian.PutUint32(sc.high[:], uint32(seq>>32))
	return sc.high[:]
}

// putAAD returns the associated data of a combined mode. RFC 4106 5: SPI and
// 32-bit sequence number (the packet's own header), or SPI and 64-bit extended
// sequence number.
func (sc *Scratch) putAAD(j *job, esn bool) []byte {
	if !esn {
		return j.wire[:HeaderLen]
	}
	copy(sc.aad[:4], j.wire)
	binary.BigEndian.PutUint64(sc.aad[4:], j.seq)
	return sc.aad[:]
}

// room returns two copies' worth of memory of n bytes each. Only a packet
// longer than any IP packet makes it allocate.
func (sc *Scratch) room(n int) (first, second []byte) {
	if n > len(sc.copied) {
		sc.copied, sc.again = make([]byte, n), make([]byte, n)
	}
	return sc.copied[:n], sc.again[:n]
}
