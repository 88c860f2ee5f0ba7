package site

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// TCP sets Don't Fragment on every packet. On an outside of 1280 bytes the TUN,
// which IPv6 keeps at 1280, promises more than one outer packet can hold.
func TestRootTCPPassesAnOutsideOf1280Bytes(t *testing.T) {
	for _, raw := range []bool{false, true} {
		t.Run(fmt.Sprintf("raw=%v", raw), func(t *testing.T) {
			ctx := root(t)
			p := gatewaytest.NewPair(t, gatewaytest.Options{Raw: raw, Topology: netlab.Options{MTU: 1280}})
			p.Start()
			for _, host := range []netip.Addr{p.B.Host4, p.B.Host6} {
				r, err := netlab.TCPTransfer(ctx, p.A.Host, p.B.Host, netlab.TransferOptions{To: netip.AddrPortFrom(host, 0)})
				if err != nil || r.SentSHA256 != r.ReceivedSHA256 {
					t.Errorf("to %s: %d bytes, %v\nA: %v", host, r.Bytes, err, p.GatewayA.Counters())
				}
			}
			if n := p.GatewayA.Counters()["OutSendError"]; n != 0 {
				t.Errorf("OutSendError: expected 0, saw %d", n)
			}
		})
	}
}
