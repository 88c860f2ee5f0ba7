package oracle

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/pcap"
)

// ikeFields are tshark's names of what ikeReading says, in its order. What a message
// has several times, tshark writes with commas.
var ikeFields = []string{"isakmp.ispi", "isakmp.rspi", "isakmp.exchangetype", "isakmp.flag_r", "isakmp.messageid", "isakmp.length",
	"isakmp.typepayload", "isakmp.prop.number", "isakmp.prop.protoid", "isakmp.tf.type", "isakmp.ike2.attr.key_length",
	"isakmp.key_exchange.data", "isakmp.nonce", "isakmp.id.type", "isakmp.auth.method", "isakmp.notify.msgtype", "isakmp.spi", "isakmp.delete.spi",
	"isakmp.ts.type", "isakmp.ts.protoid", "isakmp.ts.start_port", "isakmp.ts.end_port", "isakmp.ts.start_ipv4", "isakmp.ts.end_ipv4",
	"isakmp.ts.start_ipv6", "isakmp.ts.end_ipv6", "isakmp.cfg.type", "isakmp.cfg.attr.type"}

// ikeMessages are the messages that package wire keeps in its file.
func ikeMessages(t *testing.T) (names []string, all [][]byte) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "ike", "wire", "testdata", "messages.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, section := range strings.Split(string(text), "# ")[1:] {
		lines := strings.SplitN(section, "\n", 3)
		b, err := hex.DecodeString(strings.ReplaceAll(lines[len(lines)-1], "\n", ""))
		if err != nil {
			t.Fatal(err)
		}
		names, all = append(names, lines[0]), append(all, b)
	}
	return names, all
}

// ikeReading is what adit reads in a message, field by field.
func ikeReading(t *testing.T, b []byte) map[string]string {
	t.Helper()
	m, err := wire.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	r := map[string][]string{}
	say := func(field, format string, a ...any) {
		r["isakmp."+field] = append(r["isakmp."+field], fmt.Sprintf(format, a...))
	}
	say("ispi", "%v", m.Initiator)
	say("rspi", "%v", m.Responder)
	say("exchangetype", "%d", m.Exchange)
	say("flag_r", "%d", m.Flags>>5)
	say("messageid", "0x%08x", m.MessageID)
	say("length", "%d", m.Length)
	for _, p := range m.Payloads {
		say("typepayload", "%d", p.Type())
		switch p := p.(type) {
		case *wire.SA:
			for _, q := range p.Proposals {
				say("typepayload", "2")
				say("prop.number", "%d", q.Number)
				say("prop.protoid", "%d", q.Protocol)
				if len(q.SPI) > 0 {
					say("spi", "%x", q.SPI)
				}
				for _, tr := range q.Transforms {
					say("typepayload", "3")
					say("tf.type", "%d", tr.Type)
					if tr.KeyBits != 0 {
						say("ike2.attr.key_length", "%d", tr.KeyBits)
					}
				}
			}
		case *wire.KE:
			say("key_exchange.data", "%x", p.Data)
		case *wire.Nonce:
			say("nonce", "%x", p.Data)
		case *wire.ID:
			say("id.type", "%d", p.Kind)
		case *wire.Auth:
			say("auth.method", "%d", p.Method)
		case *wire.Notify:
			say("notify.msgtype", "%d", p.Kind)
			if len(p.SPI) > 0 {
				say("spi", "%x", p.SPI)
			}
		case *wire.Delete:
			for _, spi := range p.SPIs {
				say("delete.spi", "%08x", spi)
			}
		case *wire.TS:
			for _, s := range p.Selectors {
				version, kind := "ipv4", 7
				if s.From.Is6() {
					version, kind = "ipv6", 8
				}
				say("ts.type", "%d", kind)
				say("ts.protoid", "%d", s.Protocol)
				say("ts.start_port", "%d", s.FromPort)
				say("ts.end_port", "%d", s.ToPort)
				say("ts.start_"+version, "%v", s.From)
				say("ts.end_"+version, "%v", s.To)
			}
		case *wire.CP:
			say("cfg.type", "%d", p.Kind)
			for _, a := range p.Attributes {
				say("cfg.attr.type", "%d", a.Kind)
			}
		}
	}
	joined := map[string]string{}
	for field, values := range r {
		joined[field] = strings.Join(values, ",")
	}
	return joined
}

// TestTsharkReadsIKEMessages: tshark reads in every message what adit reads. The
// messages of every exchange are shown to it in clear, which is how their payloads
// come out of SK.
func TestTsharkReadsIKEMessages(t *testing.T) {
	names, all := ikeMessages(t)
	file := filepath.Join(t.TempDir(), "ike.pcapng")
	capture, err := pcap.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := capture.AddInterface(pcap.Interface{Name: "wire", LinkType: pcap.RawIP}); err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		p := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 1, 0xf4, 1, 0xf4, 0, 0, 0, 0}
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)+len(b)))
		binary.BigEndian.PutUint16(p[24:], uint16(8+len(b)))
		if err := capture.Write(pcap.Packet{Time: time.Unix(1, 0), Data: append(p, b...)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := capture.Close(); err != nil {
		t.Fatal(err)
	}
	args := []string{"-r", file, "-T", "fields", "-E", "separator=|"}
	for _, field := range ikeFields {
		args = append(args, "-e", field)
	}
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, stderr(err))
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(all) || len(all) < 30 {
		t.Fatalf("%d messages, of which tshark shows %d", len(all), len(lines))
	}
	seen := map[string]bool{}
	for i, line := range lines {
		values, want := strings.Split(line, "|"), ikeReading(t, all[i])
		for k, field := range ikeFields {
			seen[field] = seen[field] || values[k] != ""
			if values[k] != want[field] {
				t.Errorf("%s: %s: tshark reads %q, adit %q", names[i], field, values[k], want[field])
			}
		}
	}
	for _, field := range ikeFields {
		if !seen[field] {
			t.Errorf("tshark shows no %s in any message: nothing was compared", field)
		}
	}
}
