package keys

import (
	"bytes"
	"errors"
	"testing"

	"github.com/adit-ipsec/adit/ike/proposal"
)

// undrawn is a source of randomness that nobody may ask.
type undrawn struct{}

var errDrawn = errors.New("randomness was drawn")

func (undrawn) Read([]byte) (int, error) { return 0, errDrawn }

// TestABadPublicValueCostsNoKey: the responder looks at a stranger's value before it
// makes a private one. What is refused leaves nothing half-open, so no cookie would
// ever be asked for.
func TestABadPublicValueCostsNoKey(t *testing.T) {
	bad := map[proposal.KE][][]byte{}
	for _, method := range Methods() {
		bad[method] = [][]byte{nil, {2}, make([]byte, 5000)}
	}
	for method, size := range map[proposal.KE]int{proposal.KEECP256: 32, proposal.KEECP384: 48, proposal.KEECP521: 66} {
		bad[method] = append(bad[method], bytes.Repeat([]byte{1}, 2*size), make([]byte, 2*size), bytes.Repeat([]byte{0xff}, 2*size))
	}
	bad[proposal.KEModp2048] = append(bad[proposal.KEModp2048], make([]byte, 256), bytes.Repeat([]byte{0xff}, 256))
	for method, values := range bad {
		for i, value := range values {
			_, _, err := Respond(method, undrawn{}, value)
			var refused *PeerValueError
			if !errors.As(err, &refused) || refused.Method != method {
				t.Errorf("%s, value %d: %v", method, i, err)
			}
		}
	}
}
