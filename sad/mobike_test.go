package sad

import (
	"net/netip"
	"strings"
	"testing"
)

var (
	away4  = netip.MustParseAddrPort("192.0.2.77:4500") // this end, elsewhere
	own6   = netip.MustParseAddrPort("[2001:db8::1]:4500")
	nobody = netip.AddrPort{}
)

// between fails unless the SA is between these ends, and Stats says so too.
func between(t *testing.T, sa *SA, local, remote netip.AddrPort) {
	t.Helper()
	if e, s := sa.Ends(), sa.Stats(); e.Local != local || e.Remote != remote || s.Local != local || s.Remote != remote {
		t.Errorf("%s: expected between %s and %s, saw %s and %s, in Stats %s and %s", sa.ID(), local, remote, e.Local, e.Remote, s.Local, s.Remote)
	}
}

// RFC 4555: what IKE has agreed on moves both ends of tunnel mode SAs, the static
// ones with it, and nothing else of theirs.
func TestRFC4555_MoveEndsMovesBothEnds(t *testing.T) {
	d := NewDatabase()
	out, in, other := outbound(t), inbound(t), params(t, Outbound, 0x2003, "aes128gcm16", 2)
	out.Static, in.Static, other.Peer = true, true, "site-c"
	sas := installed(t, d, out, in, other)
	sas[0].Reserve(7)
	if err := d.MoveEnds("site-b", nil, away4, away); err != nil {
		t.Fatal(err)
	}
	between(t, sas[0], away4, away)
	between(t, sas[1], away4, away)
	between(t, sas[2], other.Local, other.Remote)
	if sas[0].Follows() || sas[0].Stats().Seq != 7 {
		t.Errorf("expected a static SA at number 7, saw %d", sas[0].Stats().Seq)
	}
	if err := d.MoveEnds("site-b", []ID{sas[1].ID()}, nobody, away6); err != nil {
		t.Fatal(err)
	}
	between(t, sas[0], away4, away)
	between(t, sas[1], nobody, away6)
	if e := sas[1].Ends(); !e.There(away6.Addr()) || !e.There(away.Addr()) || e.There(home.Addr()) {
		t.Error("packets from where the peer is now, and from where it was before, are its own; no others")
	}
	if e := sas[0].Ends(); !e.Here(away4.Addr()) || !e.Here(out.Local.Addr()) || e.Here(home.Addr()) {
		t.Error("packets to where this end is now, and to where it was before, are for it; no others")
	}
}

// What cannot move says why, and nothing moves.
func TestMoveEndsMovesAllOrNone(t *testing.T) {
	id := func(p Params) ID { return p.ID() }
	foreign := params(t, Outbound, 0x2003, "aes128gcm16", 2)
	foreign.Peer = "site-c"
	transport := params(t, Outbound, 0x2004, "aes128gcm16", 3)
	transport.Mode, transport.Local = TransportMode, netip.MustParseAddrPort("192.0.2.1:4500")
	for name, tt := range map[string]struct {
		ids           []ID
		local, remote netip.AddrPort
		want          string
	}{
		"an SA of another peer": {[]ID{id(outbound(t)), id(foreign)}, away4, away, "no SA"},
		"transport mode":        {[]ID{id(outbound(t)), id(transport)}, away4, away, "transport mode"},
		"no port":               {[]ID{id(outbound(t))}, away4, netip.AddrPortFrom(away.Addr(), 0), "port"},
		"two families":          {[]ID{id(outbound(t))}, own6, away, "one family"},
		"no address":            {[]ID{id(outbound(t))}, away4, nobody, "one host"},
		"multicast":             {[]ID{id(outbound(t))}, nobody, netip.MustParseAddrPort("224.0.0.1:4500"), "one host"},
		"itself":                {[]ID{id(outbound(t))}, away, away, "itself"},
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDatabase()
			sas := installed(t, d, outbound(t), foreign, transport)
			err := d.MoveEnds("site-b", tt.ids, tt.local, tt.remote)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("expected an error about %q, saw %v", tt.want, err)
			}
			between(t, sas[0], sas[0].Local, home)
		})
	}
}

// Behind other addresses lies another path.
func TestMoveEndsForgetsThePath(t *testing.T) {
	for _, local := range []netip.AddrPort{away4, nobody} {
		d := NewDatabase()
		sas := installed(t, d, outbound(t))
		sas[0].SetPathMTU(1400, MTUProbe, 1)
		if err := d.MoveEnds("site-b", nil, local, home); err != nil {
			t.Fatal(err)
		}
		if got := sas[0].PathMTU().MTU; got != 0 {
			t.Errorf("from %s: path MTU %d is the other path's", local, got)
		}
	}
}
