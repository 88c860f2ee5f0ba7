package sad

import (
	"errors"
	"fmt"

	"github.com/adit-ipsec/adit/internal/packet"
)

// checkTFC tells whether the SA's packets can be padded that far.
func (p *Params) checkTFC() error {
	switch {
	case p.TFC == TFCOff:
		return nil
	case p.TFC < TFCMTU || p.TFC > packet.MaxLen:
		return fmt.Errorf("traffic flow confidentiality padding to %d bytes: use 1 to %d, mtu or off", int32(p.TFC), packet.MaxLen)
	case p.Protocol != ESP:
		return errors.New("traffic flow confidentiality padding on an AH SA: only ESP has it (RFC 4303 2.7): turn it off")
	case p.Bundle:
		return errors.New("traffic flow confidentiality padding in a bundle: it is not in this version: turn it off")
	case p.Mode != TunnelMode:
		// RFC 4303 2.7: "this padding [...] can be added only if the Payload
		// Data field contains a specification of the length of the IP
		// datagram. This is always true in tunnel mode, and may be true in
		// transport mode depending on whether the next layer protocol (e.g.,
		// IP, UDP, ICMP) contains explicit length information." Deviation: it
		// may, packet by packet, so that TCP would go bare; here it is
		// refused in transport mode.
		return errors.New(`traffic flow confidentiality padding in transport mode: RFC 4303 2.7, it "can be added only if the Payload Data field contains a specification of the length of the IP datagram. This is always true in tunnel mode": use tunnel mode, or turn it off`)
	}
	return nil
}
