package oracle

import (
	"encoding/hex"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/pcap"
	"github.com/adit-ipsec/adit/sad"
)

// structure is what a packet is made of; what is not there is "". The numbers are
// decimal, but for the SPIs, which are as tshark has them.
type structure struct {
	Layers                             string // as in tshark's frame.protocols, without application data
	AHSPI, AHNumber, AHLength, AHNext  string
	AHICV                              string // hexadecimal, with GMAC's IV and padding
	ESPSPI, ESPNumber, ESPNext, ESPICV string // of ESPICV what tshark finds of it
	ESPText                            string // hexadecimal, decrypted, without the trailer
}

// structureFields are tshark's names of what structure holds.
var structureFields = []string{"frame.protocols", "ah.spi", "ah.sequence", "ah.length", "ah.next_header", "ah.icv",
	"esp.spi", "esp.sequence", "esp.protocol", "esp.icv_good", "esp.contained_data"}

// layerNames are the names of an IP packet's headers, and of the upper layer.
func layerNames(b []byte) string {
	names := map[uint8]string{packet.ProtoHopByHop: "ipv6.hopopts", packet.ProtoRouting: "ipv6.routing", packet.ProtoDestination: "ipv6.dstopts",
		packet.ProtoUDP: "udp", packet.ProtoTCP: "tcp", packet.ProtoICMP: "icmp", packet.ProtoICMPv6: "icmpv6"}
	if b[0]>>4 == 4 {
		return "ip:" + names[b[9]]
	}
	list := []string{"ipv6"}
	for next, at := b[6], 40; ; {
		list = append(list, names[next])
		if at == len(header(b)) {
			return strings.Join(list, ":")
		}
		next, at = b[at], at+8+8*int(b[at+1])
	}
}

// structure is what tshark is to find in wire, made by the cell of the n-th
// sample s; known tells that tshark has the keys.
func (c *cell) structure(n int, s sample, wire []byte, known bool) structure {
	inside, text := layerNames(s.b), s.b
	next := uint8(packet.ProtoIPv4)
	if s.b[0]>>4 == 6 {
		next = packet.ProtoIPv6
	}
	front := map[bool]string{false: "raw:ip", true: "raw:ipv6"}[c.v6]
	if c.mode == sad.TransportMode {
		at := strings.LastIndex(inside, ":")
		front, inside, next = "raw:"+inside[:at], inside[at+1:], protocol(s.b)
		text = text[len(header(text)):]
	}
	var want structure
	if c.udp() {
		front += ":udp:udpencap"
	}
	numbers, spi := c.outNumbers(n), fmt.Sprintf("0x%08x", c.spi)
	if c.ah != "" {
		front += ":ah"
		length := c.ahSuite().HeaderLen(c.family())
		want.AHSPI, want.AHNumber, want.AHLength = spi, fmt.Sprint(uint32(numbers[1])), fmt.Sprint(length/4-2)
		want.AHNext = fmt.Sprint(next)
		at := len(header(wire))
		want.AHICV = hex.EncodeToString(wire[at+12 : at+length])
	}
	if c.esp == "" {
		want.Layers = front + ":" + inside
		return want
	}
	if c.ah != "" {
		want.AHNext = fmt.Sprint(packet.ProtoESP)
	}
	want.ESPSPI, want.ESPNumber = spi, fmt.Sprint(uint32(numbers[0]))
	want.Layers = front + ":esp"
	if known {
		want.Layers += ":" + inside
		want.ESPNext, want.ESPICV = fmt.Sprintf("0x%02x", next), "1"
		want.ESPText = hex.EncodeToString(text)
	}
	return want
}

// uat is tshark's row of the cell's outbound SA of ESP.
func (c *cell) uat() string {
	names := tsharkNames[c.esp]
	keys := [2]string{}
	for i, k := range c.keys[0][:2] {
		if len(k) > 0 {
			keys[i] = "0x" + hex.EncodeToString(k)
		}
	}
	return fmt.Sprintf(`uat:esp_sa:"IPv%d","*","*","0x%08x","%s","%s","%s","%s"`, c.family(), c.spi, names[0], keys[0], names[1], keys[1])
}

// expected is a packet of the capture and what tshark is to find in it.
type expected struct {
	structure
	name string
}

// captureCells writes the packets of every cell into the file, and returns what
// tshark is to find and the keys for it.
func captureCells(t *testing.T, file string) (want []expected, keys []string) {
	t.Helper()
	capture, err := pcap.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := capture.AddInterface(pcap.Interface{Name: "wire", LinkType: pcap.RawIP}); err != nil {
		t.Fatal(err)
	}
	for _, c := range append(cells(false), cells(true)...) {
		_, known := tsharkNames[c.esp]
		known = known && !c.esn // its numbers are of 32 bits
		if known {
			keys = append(keys, "-o", c.uat())
		}
		g := newGate(t, c)
		for n, s := range c.samples(true) {
			wire := g.outbound(s.b)
			if err := capture.Write(pcap.Packet{Time: time.Unix(1, 0), Data: wire}); err != nil {
				t.Fatal(err)
			}
			want = append(want, expected{c.structure(n, s, wire, known), fmt.Sprintf("%s: %s: %x", c, s.name, wire)})
		}
		g.close()
	}
	if err := capture.Close(); err != nil {
		t.Fatal(err)
	}
	return want, keys
}

// tshark agrees about every packet of every cell: its headers in their order, SPIs,
// numbers, lengths, next headers and ICVs of AH and ESP; where it knows suite and
// numbers it finds ESP's ICV right and decrypts to what went in. It finds no
// checksum wrong, nothing malformed, and nothing to warn of.
func TestTsharkAgreesOnTheStructureOfEveryPacket(t *testing.T) {
	file := filepath.Join(t.TempDir(), "wire.pcapng")
	want, keys := captureCells(t, file)
	args := append(keys, "-r", file, "-T", "fields", "-E", "separator=|",
		"-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE",
		"-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE",
		"-o", "tcp.analyze_sequence_numbers:FALSE") // other cells have the same flows
	for _, name := range append(structureFields, "_ws.expert.severity", "_ws.expert.message") {
		args = append(args, "-e", name)
	}
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, stderr(err))
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	t.Logf("%d packets", len(lines))
	if n := 2 * 2 * 2 * (3*len(espSuites) + len(ahSuites)) * perCell; len(want) != n || len(lines) != n {
		t.Fatalf("packets: expected %d, saw %d, and of tshark %d", n, len(want), len(lines))
	}
	for i, line := range lines {
		if got := parseStructure(t, line); got != want[i].structure {
			t.Fatalf("%s: expected\n%+v, saw\n%+v", want[i].name, want[i].structure, got)
		}
	}
}

// warning is the least severity of what tshark says that is not to be there.
const warning = 0x600000

// parseStructure reads one line of tshark's.
func parseStructure(t *testing.T, line string) structure {
	f := strings.Split(line, "|")
	if len(f) != len(structureFields)+2 {
		t.Fatalf("tshark: %q", line)
	}
	for severity := range strings.SplitSeq(f[len(f)-2], ",") {
		if n, _ := strconv.Atoi(severity); n >= warning {
			t.Errorf("tshark warns: %q", line)
		}
	}
	return structure{strings.TrimSuffix(f[0], ":data"), f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8], f[9], f[10]}
}
