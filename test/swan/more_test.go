package swan

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
)

// RFC 8784: with the same PPK at both ends, required, the tunnel comes up in both
// roles; with another it does not.
func TestRootRFC8784_PPK(t *testing.T) {
	r := newRig(t, "psk", 2*time.Minute)
	const ppk, wrong = "c1b6d3f29a704e5b8d2f6a0913e57cb4d80e52a6", "7a90e4d1c52b8f36690dfe41b3a2c8751e64fb0d"
	r.keep("ppk", []byte(ppk))
	s := settings{
		peer: fmt.Sprintf("ppk: {id: quantum, key_file: %q, required: true}", r.dir+"/ppk"),
		conn: "ppk_id = quantum\n    ppk_required = yes",
		ppk:  ppk,
	}
	r.inBothRoles(s, func(string) {
		says(t, "strongSwan", r.swan.Log(), "using PPK for PPK_ID 'quantum'")
	})
	t.Run("another PPK", func(t *testing.T) {
		r.t = t
		s.ppk = wrong
		r.configure(s)
		if err := r.swan.Initiate("lan"); err == nil {
			t.Error("the tunnel came up")
		}
		says(t, "adit", r.adit.Log(), "auth_failed")
	})
}

// RFC 6023: an IKE SA without a Child SA, and the Child SA behind it.
func TestRootRFC6023_Childless(t *testing.T) {
	r := newRig(t, "psk", time.Minute)
	r.configure(settings{conn: "childless = force", peer: "childless: true"})
	r.connect("responder")
	r.carries()
	says(t, "strongSwan", r.swan.Log(), "N(CHDLESS_SUP)", "generating CREATE_CHILD_SA request")
	r.down()
}

// Two policies are two pairs of Child SAs of one IKE SA.
func TestRootSeveralChildSAs(t *testing.T) {
	r := newRig(t, "psk", time.Minute)
	halves := func(p netip.Prefix) (string, string) {
		low := netip.PrefixFrom(p.Addr(), p.Bits()+1)
		a := p.Addr().As4()
		a[3] |= 0x80
		return low.String(), netip.PrefixFrom(netip.AddrFrom4(a), p.Bits()+1).String()
	}
	low, high := halves(r.A.LAN4)
	s := settings{
		local: low, start: "now",
		policies: fmt.Sprintf("  - {name: high, local: [%s], remote: [%s], action: protect, peer: swan}\n", high, r.B.LAN4),
	}
	s.remoteTS = r.A.LAN4.String()
	r.configure(s)
	r.eventually("one IKE SA with two Child SAs at strongSwan", func() bool {
		sas := r.swan.SAs()
		return len(sas) == 1 && len(sas[0].Children) == 2
	})
	r.carries()
	r.down()
}

// RFC 4555: adit goes to another address, and its tunnel with it.
func TestRootRFC4555_AditMoves(t *testing.T) {
	r := newRig(t, "psk", 2*time.Minute)
	r.anyLocal = true
	r.configure(settings{peer: "mobike: true\ndpd: 2s", start: "now", aditFrom: "%any"})
	old := r.up()
	r.carries()
	wan := netip.PrefixFrom(r.A.Outside4, r.A.WAN4.Bits())
	other := netip.PrefixFrom(r.A.Outside4.Next().Next().Next(), r.A.WAN4.Bits())
	if err := r.A.Gateway.Sysctl("net.ipv4.conf.all.promote_secondaries", "1"); err != nil {
		t.Fatal(err)
	}
	if err := r.A.Gateway.AddAddr(netlab.OutsideIface, other); err != nil {
		t.Fatal(err)
	}
	if err := r.A.Gateway.DelAddr(netlab.OutsideIface, wan); err != nil {
		t.Fatal(err)
	}
	if err := r.A.Gateway.AddDefault(r.A.Router4); err != nil && !strings.Contains(err.Error(), "exists") {
		t.Fatal(err)
	}
	r.eventually("the tunnel carries from the new address", func() bool {
		ping, err := netlab.Ping(r.ctx, r.A.Host, netlab.PingOptions{Dst: r.B.Host4, Count: 1, Timeout: 300 * time.Millisecond})
		return err == nil && ping.Lost() == 0
	})
	r.carries()
	if now := r.up(); now.SPIi != old.SPIi {
		t.Errorf("the IKE SA is another one: %s, was %s", now.SPIi, old.SPIi)
	}
	says(t, "strongSwan", r.swan.Log(), "N(UPD_SA_ADDR)")
}
