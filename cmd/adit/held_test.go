package main

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
	"github.com/adit-ipsec/adit/internal/netsim"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// nowhere is a wire, and a SAD, for a driver that is never run.
type nowhere struct{}

func (nowhere) Send(ike.Send) error                                  { return nil }
func (nowhere) Keepalive(netip.Addr, netip.AddrPort) error           { return nil }
func (nowhere) Install(...sad.Params) error                          { return nil }
func (nowhere) Replace([]sad.ID, time.Duration, ...sad.Params) error { return nil }
func (nowhere) Remove(...sad.ID) int                                 { return 0 }
func (nowhere) Move(ike.Move)                                        {}
func (nowhere) Heard(...sad.ID) (time.Duration, bool)                { return 0, false }

// TestPacketsOfAManualPeerDoNotWait: beside peers of IKE there is one with manual keys
// whose SA is gone. Its packet is held, as all are; it is shown; and since nobody will
// make an SA for it, it is refused at once and does not wait for the deadline of 10 s.
func TestPacketsOfAManualPeerDoNotWait(t *testing.T) {
	dev, host := tun.NewMemory("adit0", 1400)
	wire, err := netsim.NewNetwork().Endpoint(netip.MustParseAddrPort("192.0.2.1:4500"))
	if err != nil {
		t.Fatal(err)
	}
	engine, err := dataplane.New(dataplane.Config{TUN: dev, Wire: wire, Hold: &dataplane.Hold{}})
	if err != nil {
		t.Fatal(err)
	}
	selector, err := spd.ParseSelector("local=any remote=any protocol=any")
	if err != nil {
		t.Fatal(err)
	}
	table, err := spd.NewTable([]spd.Policy{{Name: "lan", Selector: selector, Action: spd.Protect, Peer: "manual"}})
	if err != nil {
		t.Fatal(err)
	}
	engine.ApplyPolicy(table)
	machine, err := ike.New(ike.Config{})
	if err != nil {
		t.Fatal(err)
	}
	driver, err := ike.NewDriver(ike.DriverConfig{Machine: machine, Inbox: ike.NewInbox(), Transport: nowhere{}, SAD: nowhere{}})
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{log: slog.New(slog.DiscardHandler), engine: engine, ready: true, ike: &ikeService{driver: driver, peers: map[string]bool{"another": true}}}
	if err := host.Send(t.Context(), ping4()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the packet is held", func() bool { return engine.Stats().Counter("OutHeld") == 1 })
	stats, _ := (*provider)(g).stats()
	held := viewHeld(stats)
	if held.GetPackets() != 1 || held.GetBytes() != uint64(len(ping4())) {
		t.Errorf("held: %v", held)
	}
	go g.logEvents(false)
	eventually(t, "the packet is refused", func() bool { return engine.Stats().Counter("OutRefused") == 1 })
	if stats, _ = (*provider)(g).stats(); viewHeld(stats).GetPackets() != 0 {
		t.Errorf("held behind the refusal: %v", viewHeld(stats))
	}
	if err := engine.Close(); err != nil {
		t.Fatal(err)
	}
}

// ping4 is an IPv4 packet of ICMP.
func ping4() []byte {
	b := make([]byte, 28)
	b[0], b[3], b[8], b[9] = 0x45, 28, 64, 1
	copy(b[12:], []byte{10, 1, 0, 1, 10, 2, 0, 1})
	b[20] = 8
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
	return b
}

// eventually polls, for half of what a held packet may wait.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("not seen: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

// TestHeldPacketsAreShown: by `adit counters` and `adit status`, while there are some.
func TestHeldPacketsAreShown(t *testing.T) {
	for _, c := range []struct {
		held *controlv1.Held
		want string
	}{
		{&controlv1.Held{Packets: 1200, Bytes: 96_000}, "1 200 packets, 96.0 kB, wait for their SA"},
		{&controlv1.Held{}, ""},
		{nil, ""},
	} {
		var counters, status bytes.Buffer
		if err := printCounters(&counters, &controlv1.CountersResponse{Held: c.held}); err != nil {
			t.Fatal(err)
		}
		if err := printStatus(&status, &controlv1.StatusResponse{Held: c.held}); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"counters": counters.String(), "status": status.String()} {
			if shown := strings.Contains(text, "wait for their SA"); shown != (c.want != "") || !strings.Contains(text, c.want) {
				t.Errorf("%s of %v: %s", name, c.held, text)
			}
		}
	}
}
