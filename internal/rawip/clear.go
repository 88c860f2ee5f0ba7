package rawip

import (
	"errors"

	"github.com/adit-ipsec/adit/internal/packet"
)

// Clear sends whole IP packets of both families as they are: what policy says
// to bypass. It receives nothing.
type Clear struct{}

// NewClear opens the senders; mark is the SO_MARK of every packet, 0: none.
func NewClear(mark uint32) (*Clear, error) { return nil, errors.ErrUnsupported }

// WriteBatch sends the IP packets in m, to the destination that each one's
// header names; Addr, Local, TOS and DF are ignored. Its results are those of
// natt.Conn's WriteBatch.
func (c *Clear) WriteBatch(m []packet.Datagram) (sent int, err error) { return 0, errors.ErrUnsupported }

// Close ends the senders.
func (c *Clear) Close() error { return nil }
