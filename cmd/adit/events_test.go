package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/internal/netsim"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
)

// logged is what an event looks like in the log of that format.
func logged(t *testing.T, format, level string, e dataplane.Event) string {
	t.Helper()
	var b bytes.Buffer
	log, err := newLogger(&b, format, level)
	if err != nil {
		t.Fatal(err)
	}
	logEvent(log, &e)
	return b.String()
}

func replay() dataplane.Event {
	e := dataplane.Event{
		Kind: dataplane.Audit, Reason: dataplane.InReplay, At: time.Second, Peer: "site-b", Policy: "lan", SPI: 0x1001, Seq: 1<<32 | 7,
		Src: netip.MustParseAddrPort("198.51.100.2:4500"), Dst: netip.MustParseAddrPort("192.0.2.1:0"), Count: 3,
	}
	return e
}

// RFC 4303 3.4.3: the log has the SPI, the time, both addresses, the sequence
// number and, where it is known, the flow with its label; in both formats.
func TestRFC4303_4_AuditLogHasItsFields(t *testing.T) {
	text := logged(t, "text", "info", replay())
	for _, want := range []string{
		"time=", "level=WARN", `msg="dropped: the sequence number was seen before`, "event=Audit", "reason=InReplay", "peer=site-b", "spi=0x1001",
		"policy=lan", "from=198.51.100.2:4500", "to=192.0.2.1 ", "seq=4294967303", "count=3\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %s: %s", want, text)
		}
	}
	if strings.Contains(text, "flow") || strings.Count(text, "\n") != 1 {
		t.Errorf("saw %s", text)
	}
	e := replay()
	e.Reason, e.FlowLabel = dataplane.InSelector, 0xbcde
	e.Flow = packet.Flow{Src: netip.MustParseAddr("2001:db8::1").As16(), Dst: netip.MustParseAddr("2001:db8::2").As16(), Version: 6, Protocol: packet.ProtoUDP, SrcPort: 1, DstPort: 2}
	var line map[string]any
	if err := json.Unmarshal([]byte(logged(t, "json", "info", e)), &line); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"level": "WARN", "event": "Audit", "reason": "InSelector", "spi": "0x1001", "from": "198.51.100.2:4500", "to": "192.0.2.1",
		"seq": float64(1<<32 | 7), "flow": "[2001:db8::1]:1 > [2001:db8::2]:2 udp", "flow_label": "0x0bcde", "count": float64(3),
	} {
		if line[name] != want {
			t.Errorf("JSON log: %s is %v, want %v", name, line[name], want)
		}
	}
	if _, ok := line["time"]; !ok {
		t.Error("JSON log: no time")
	}
}

// Every auditable reason has words of its own, and none is as loud as an error;
// what no policy matches is no warning.
func TestEveryAuditableReasonHasWords(t *testing.T) {
	for _, reason := range dataplane.DropReasons() {
		if !reason.Auditable() {
			continue
		}
		text := logged(t, "text", "debug", dataplane.Event{Kind: dataplane.Audit, Reason: reason, Count: 1})
		level := "level=WARN"
		if reason == dataplane.OutDiscard {
			level = "level=INFO"
		}
		if strings.Contains(text, "not known") || !strings.Contains(text, `msg="dropped: `) || !strings.Contains(text, level) || !strings.Contains(text, "reason="+reason.String()) {
			t.Errorf("%s: saw %s", reason, text)
		}
	}
}

// The other events as they were.
func TestOtherEventsInTheLog(t *testing.T) {
	from := netip.MustParseAddrPort("198.51.100.2:4500")
	for _, c := range []struct {
		e    dataplane.Event
		want []string
	}{
		{dataplane.Event{Kind: dataplane.SeqOverflow, Peer: "b", SPI: 0x2001}, []string{"level=ERROR", "event=SeqOverflow", "peer=b", "spi=0x2001"}},
		{dataplane.Event{Kind: dataplane.BadSPI, SPI: 0xdead, From: from}, []string{"level=DEBUG", "event=BadSPI", "spi=0xdead", "from=198.51.100.2:4500"}},
		{dataplane.Event{Kind: dataplane.PeerMoved, Peer: "b", SPI: 0x1001, From: from}, []string{"level=INFO", "event=PeerMoved", "from=198.51.100.2:4500"}},
		{dataplane.Event{Kind: dataplane.AuthFailures, Peer: "b", SPI: 0x1001, Count: 9}, []string{"level=WARN", "event=AuthFailures", "count=9"}},
		{dataplane.Event{Kind: dataplane.Acquire, Peer: "b", Policy: "lan", Flow: packet.Flow{Version: 4}}, []string{"level=WARN", "event=Acquire", "policy=lan", "flow="}},
	} {
		text := logged(t, "text", "debug", c.e)
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: the log lacks %s: %s", c.e.Kind, want, text)
			}
		}
	}
}

// RFC 4303 4: "MUST allow a system administrator to enable or disable auditing".
func TestRFC4303_4_AuditingCanBeTurnedOff(t *testing.T) {
	for _, audit := range []bool{true, false} {
		dev, host := tun.NewMemory("adit0", 1400)
		wire, err := netsim.NewNetwork().Endpoint(netip.MustParseAddrPort("192.0.2.1:4500"))
		if err != nil {
			t.Fatal(err)
		}
		engine, err := dataplane.New(dataplane.Config{TUN: dev, Wire: wire})
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		log, err := newLogger(&b, "text", "info")
		if err != nil {
			t.Fatal(err)
		}
		packet := make([]byte, 20) // an IPv4 header that no policy matches
		packet[0], packet[3] = 0x45, 20
		if err := host.Send(t.Context(), packet); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); engine.Stats().Counter("OutDiscard") == 0; {
			if time.Now().After(deadline) {
				t.Fatal("the packet was not walked")
			}
			<-time.After(time.Millisecond)
		}
		if err := engine.Close(); err != nil {
			t.Fatal(err)
		}
		(&gateway{log: log, engine: engine}).logEvents(audit)
		if got := strings.Contains(b.String(), "reason=OutDiscard"); got != audit {
			t.Errorf("audit %v: saw %q", audit, b.String())
		}
	}
}
