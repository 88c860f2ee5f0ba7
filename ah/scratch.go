package ah

import (
	"fmt"
	"io"

	"github.com/adit-ipsec/adit/internal/crypt"
)

// Scratch is one worker's working memory: what a packet needs for a moment
// while it is signed or verified. It serves any number of transforms, one call
// at a time. It remembers the last packet until the next; drop it with the
// worker.
type Scratch struct {
	digests *crypt.Digests

	nonce   [12]byte // GMAC's salt and IV
	high    [4]byte  // of the sequence number
	mac     [64]byte // GMAC output
	covered []byte   // IP header and AH as the ICV covers them; with GMAC all of the packet
}

// coverLen holds the largest IP packet (IPv6: its header is not counted) and
// the high half of a sequence number.
const coverLen = ipv6Len + 65535 + 4

// NewScratch returns a worker's Scratch, about 65 KiB of which only GMAC touches
// more than a header's worth.
func NewScratch() *Scratch {
	sc := &Scratch{digests: crypt.NewDigests(), covered: make([]byte, coverLen)}
	return sc
}

// Format keeps keys and packets out of logs.
func (sc *Scratch) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "ah.Scratch") }
