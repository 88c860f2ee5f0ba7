package sad

import (
	"bytes"
	"errors"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/spd"
)

func TestNewRefuses(t *testing.T) {
	cases := []struct {
		name   string
		dir    Direction
		change func(p *Params)
		want   []string // besides SPI and peer
	}{
		{"direction", Outbound, func(p *Params) { p.Direction = 7 }, []string{"neither out nor in"}},
		{"no peer", Inbound, func(p *Params) { p.Peer = "" }, []string{"give the name"}},
		{"SPI 0", Inbound, func(p *Params) { p.SPI = 0 }, []string{"reserved", "use 0x100"}},
		{"SPI 255", Outbound, func(p *Params) { p.SPI = 255 }, []string{"reserved", "RFC 4303 2.1"}},
		{"no suite", Inbound, func(p *Params) { p.Suite = esp.Suite(0) }, []string{"no suite"}},
		{"key short", Inbound, func(p *Params) { p.EncryptionKey = p.EncryptionKey[1:] }, []string{"of 19 bytes", "takes 20"}},
		{"key long", Inbound, func(p *Params) { p.EncryptionKey = append(p.EncryptionKey, 0) }, []string{"of 21 bytes", "takes 20"}},
		{"no key", Outbound, func(p *Params) { p.EncryptionKey = nil }, []string{"of 0 bytes"}},
		{"integrity key too many", Inbound, func(p *Params) { p.IntegrityKey = Key{1} }, []string{"integrity key of 1 bytes", "takes 0"}},
		{"integrity key missing", Inbound, func(p *Params) {
			q := params(t, Inbound, 0x1001, "aes128-sha256", 3)
			p.Suite, p.EncryptionKey, p.IntegrityKey = q.Suite, q.EncryptionKey, nil
		}, []string{"integrity key of 0 bytes", "takes 32"}},
		{"window small", Inbound, func(p *Params) { p.ReplayWindow = 31 }, []string{"31 packets", "32 to 1048576"}},
		{"window negative", Inbound, func(p *Params) { p.ReplayWindow = -1 }, []string{"-1 packets"}},
		{"window large", Inbound, func(p *Params) { p.ReplayWindow = 1<<20 + 1 }, []string{"32 to 1048576"}},
		{"ESN without window", Inbound, func(p *Params) { p.ESN, p.ReplayWindow = true, 0 }, []string{"set a window, or turn ESN off"}},
		{"encapsulation", Inbound, func(p *Params) { p.Encap = 2 }, []string{"encapsulation 2"}},
		{"DF", Inbound, func(p *Params) { p.Tunnel.DF = 3 }, []string{"DF mode 3"}},
		{"ECN", Inbound, func(p *Params) { p.Tunnel.ECN = 2 }, []string{"ECN mode 2"}},
		{"DSCP", Inbound, func(p *Params) { p.Tunnel.DSCP = 2 }, []string{"DSCP mode 2"}},
		{"DSCP high", Inbound, func(p *Params) { p.Tunnel.DSCP = 0xff }, []string{"DSCP mode 255"}},
		{"keepalive", Outbound, func(p *Params) { p.Keepalive = -time.Second }, []string{"keepalive of -1s"}},
		{"no remote", Outbound, func(p *Params) { p.Remote = netip.AddrPort{} }, []string{"no remote address"}},
		{"unspecified remote", Outbound, func(p *Params) { p.Remote = netip.MustParseAddrPort("[::]:4500") }, []string{"two families"}},
		{"unspecified remote, any local", Outbound, func(p *Params) {
			p.Local, p.Remote = netip.AddrPort{}, netip.MustParseAddrPort("[::]:4500")
		}, []string{"no remote address"}},
		{"no port", Outbound, func(p *Params) { p.Remote = netip.MustParseAddrPort("192.0.2.2:0") }, []string{"no UDP port", "4500"}},
		{"families", Inbound, func(p *Params) { p.Remote = netip.MustParseAddrPort("[2001:db8::2]:4500") }, []string{"two families"}},
		{"selector", Inbound, func(p *Params) { p.Selectors = []spd.Selector{{}} }, []string{"selector 1"}},
		{"counter mode without store or fresh keys", Outbound, func(p *Params) { p.FreshKeys = false }, []string{"never use a number twice", "state directory"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := outbound(t)
			if c.dir == Inbound {
				p = inbound(t)
			}
			c.change(&p)
			sa, err := New(p)
			if sa != nil {
				t.Error("New returned an SA beside the error")
			}
			wantError(t, err, append(c.want, p.ID().String())...)
			if err != nil && strings.Contains(err.Error(), "a1a1") {
				t.Errorf("the error tells the key: %v", err)
			}
		})
	}
}

func TestNewAccepts(t *testing.T) {
	cases := map[string]func(p *Params){
		"as it is":              func(*Params) {},
		"outbound, any local":   func(p *Params) { *p = outbound(t); p.Local = netip.AddrPort{} },
		"inbound, any remote":   func(p *Params) { p.Remote = netip.AddrPort{} },
		"inbound without fresh": func(p *Params) { p.FreshKeys = false },
		"no window":             func(p *Params) { p.ReplayWindow = 0 },
		"outbound window":       func(p *Params) { *p = outbound(t); p.ReplayWindow = 5 },
		"outbound ESN":          func(p *Params) { *p = outbound(t); p.ReplayWindow, p.ESN = 0, true },
		"raw without port": func(p *Params) {
			*p = outbound(t)
			p.Encap, p.Remote = EncapNone, netip.MustParseAddrPort("192.0.2.2:0")
		},
		"lowest SPI":             func(p *Params) { p.SPI = MinSPI },
		"highest SPI":            func(p *Params) { p.SPI = math.MaxUint32 },
		"CBC needs no store":     func(p *Params) { *p = params(t, Outbound, 0x2001, "aes128-sha256", 1); p.FreshKeys = false },
		"NULL needs no store":    func(p *Params) { *p = params(t, Outbound, 0x2001, "null-sha256", 1); p.FreshKeys = false },
		"counter mode and store": func(p *Params) { *p = outbound(t); p.FreshKeys, p.Sequence = false, newMemoryStore() },
		"DSCP 63":                func(p *Params) { p.Tunnel.DSCP = FixedDSCP(63) },
		"DSCP 0":                 func(p *Params) { p.Tunnel.DSCP = FixedDSCP(0) },
		"empty selectors":        func(p *Params) { p.Selectors = []spd.Selector{} },
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			p := inbound(t)
			change(&p)
			if sa := newSA(t, p); sa.ID() != p.ID() || sa.Transform == nil {
				t.Errorf("expected %s with a transform, seen %s", p.ID(), sa.ID())
			}
		})
	}
}

// Every outbound counter-mode suite fails closed.
func TestEverySuiteThatCountsNeedsAStoreOrFreshKeys(t *testing.T) {
	counting := 0
	for _, s := range esp.Suites() {
		p := params(t, Outbound, 0x2001, s.String(), 9)
		p.FreshKeys = false
		_, err := New(p)
		if s.CounterMode() {
			counting++
			if !errors.Is(err, ErrNoStore) {
				t.Errorf("%s: expected ErrNoStore, seen %v", s, err)
			}
		} else if err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	if counting < 5 {
		t.Errorf("expected several suites in a counter mode, seen %d", counting)
	}
}

func TestNewKeepsNoReference(t *testing.T) {
	p := outbound(t)
	selectors := []spd.Selector{selector(t, "10.1.0.0/24")}
	p.Selectors = selectors
	sa := newSA(t, p)
	seal := func() []byte {
		wire := make([]byte, p.Suite.SealedLen(16))
		batch := []esp.Packet{{Seq: 1, NextHeader: 4, Payload: make([]byte, 16, 64), Wire: wire}}
		sa.Transform.Seal(esp.NewScratch(), sa.SPI, batch)
		if batch[0].Err != nil {
			t.Fatal(batch[0].Err)
		}
		return bytes.Clone(batch[0].Wire)
	}
	before := seal()
	p.EncryptionKey.Wipe()
	selectors[0].Local[0] = spd.AddrRange{}
	selectors[0] = spd.Selector{}
	if !bytes.Equal(before, seal()) {
		t.Error("wiping the caller's key changed what the SA seals")
	}
	if err := sa.Selectors[0].Validate(); err != nil {
		t.Errorf("changing the caller's selectors changed the SA's: %v", err)
	}
}

func TestMappedAddressesAreUnmapped(t *testing.T) {
	p := outbound(t)
	p.Remote = netip.MustParseAddrPort("[::ffff:192.0.2.2]:4500")
	if got, want := newSA(t, p).Remote, netip.MustParseAddrPort("192.0.2.2:4500"); got != want {
		t.Errorf("Remote: expected %s, seen %s", want, got)
	}
}

func TestDSCP(t *testing.T) {
	for _, c := range []struct {
		d     DSCP
		inner uint8
		want  uint8
		text  string
	}{
		{DSCPCopy, 46, 46, "copy"}, {DSCPCopy, 0, 0, "copy"}, {DSCPOff, 46, 0, "off"},
		{FixedDSCP(0), 46, 0, "0"}, {FixedDSCP(1), 46, 1, "1"}, {FixedDSCP(63), 0, 63, "63"}, {FixedDSCP(64 + 5), 9, 5, "5"},
	} {
		if got := c.d.Outer(c.inner); got != c.want || c.d.String() != c.text {
			t.Errorf("DSCP %s, inner %d: expected %d (%s), seen %d", c.d, c.inner, c.want, c.text, got)
		}
	}
	if (Tunnel{}) != (Tunnel{DFCopy, ECNNormal, DSCPCopy}) {
		t.Error("the zero Tunnel does not copy")
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		EncapUDP.String(): "udp", EncapNone.String(): "none", Encapsulation(9).String(): "unknown(9)",
		DFCopy.String(): "copy", DFSet.String(): "set", DFClear.String(): "clear",
		ECNNormal.String(): "normal", ECNCompat.String(): "compat",
		ID{Inbound, 0x1001, "b", ESP}.String(): `in SA 0x1001 of peer "b"`,
	} {
		if got != want {
			t.Errorf("expected %q, seen %q", want, got)
		}
	}
}

func selector(t testing.TB, local string) spd.Selector {
	t.Helper()
	l, err := spd.ParseAddrRange(local)
	if err != nil {
		t.Fatal(err)
	}
	r, err := spd.ParseAddrRange("10.2.0.0/24")
	if err != nil {
		t.Fatal(err)
	}
	return spd.Selector{Local: []spd.AddrRange{l}, Remote: []spd.AddrRange{r}, Protocol: spd.ProtocolAny}
}

func flow(src, dst string) *packet.Flow {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	return &packet.Flow{Version: 4, Src: s.As16(), Dst: d.As16(), Protocol: packet.ProtoUDP, SrcPort: 1, DstPort: 2}
}

func TestRFC4301_5_2_MatchesAsksTheSAsOwnSelectors(t *testing.T) {
	p := inbound(t)
	all := newSA(t, p)
	p.Selectors = []spd.Selector{selector(t, "10.1.0.0/24"), selector(t, "10.3.0.0/24")}
	own := newSA(t, p)
	for _, c := range []struct {
		src, dst string
		want     bool
	}{
		{"10.2.0.1", "10.1.0.1", true}, {"10.2.0.1", "10.3.0.1", true},
		{"10.2.0.1", "10.4.0.1", false}, {"10.1.0.1", "10.2.0.1", false},
	} {
		f := flow(c.src, c.dst)
		if got := own.Matches(Inbound, f); got != c.want {
			t.Errorf("%s > %s: expected %v, seen %v", c.src, c.dst, c.want, got)
		}
		if !all.Matches(Inbound, f) {
			t.Errorf("%s > %s: an SA without selectors of its own refused it", c.src, c.dst)
		}
	}
}
