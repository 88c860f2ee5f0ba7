package oracle

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// tsharkNames are the algorithms by tshark's names. Its authentication check
// covers HMAC; of GCM it checks nothing, and it takes the ICV's length from the
// authentication it is told.
var tsharkNames = map[string][2]string{
	"aes128gcm16":      {"AES-GCM with 16 octet ICV [RFC4106]", "NULL"},
	"aes256gcm16":      {"AES-GCM with 16 octet ICV [RFC4106]", "NULL"},
	"aes128gcm12":      {"AES-GCM with 12 octet ICV [RFC4106]", "NULL"},
	"aes256gcm8":       {"AES-GCM with 8 octet ICV [RFC4106]", "NULL"},
	"aes128-sha256":    {"AES-CBC [RFC3602]", "HMAC-SHA-256-128 [RFC4868]"},
	"aes256-sha512":    {"AES-CBC [RFC3602]", "HMAC-SHA-512-256 [RFC4868]"},
	"aes128ctr-sha256": {"AES-CTR [RFC3686]", "HMAC-SHA-256-128 [RFC4868]"},
	"null-sha256":      {"NULL", "HMAC-SHA-256-128 [RFC4868]"},
}

// What tshark decrypts from the wire is what the LAN saw, byte for byte, up to
// the TTL and checksum that a forwarding gateway changes; and where tshark can
// check the ICV it finds every one right.
func TestRootTsharkDecryptsTheWireToWhatTheLANSaw(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces")
	}
	for suite := range tsharkNames {
		for _, raw := range []bool{false, true} {
			for _, outer6 := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s raw=%v outer6=%v", suite, raw, outer6), func(t *testing.T) {
					t.Parallel()
					// tshark knows no ESN; its numbers are 32 bits.
					compare(t, gatewaytest.Options{Suite: suite, Raw: raw, OuterV6: outer6, NoESN: true})
				})
			}
		}
	}
}

func compare(t *testing.T, o gatewaytest.Options) {
	// The LAN's MTU fits into the tunnel: no packet that is answered with a
	// "packet too big" and never enters it.
	o.Topology.LANMTU = 1340
	p := gatewaytest.NewPair(t, o)
	p.Start()
	dir := t.TempDir()
	wire, lan := filepath.Join(dir, "wire.pcapng"), filepath.Join(dir, "lan.pcapng")
	onWire, err := p.Router.Capture(netlab.CaptureOptions{Iface: p.A.RouterIface, File: wire})
	if err != nil {
		t.Fatal(err)
	}
	onLAN, err := p.A.Gateway.Capture(netlab.CaptureOptions{Iface: netlab.InsideIface, File: lan})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for _, dst := range []netip.Addr{p.B.Host4, p.B.Host6} {
		if ping, err := netlab.Ping(ctx, p.A.Host, netlab.PingOptions{Dst: dst, Count: 3, Size: 57}); err != nil || ping.Lost() != 0 {
			t.Fatalf("ping: %s, %v", ping, err)
		}
		if r, err := netlab.TCPTransfer(ctx, p.A.Host, p.B.Host, netlab.TransferOptions{To: netip.AddrPortFrom(dst, 0), Bytes: 30000}); err != nil || !r.Intact() {
			t.Fatalf("TCP: %v", err)
		}
		if r, err := netlab.UDPBurst(ctx, p.A.Host, p.B.Host, netlab.BurstOptions{To: netip.AddrPortFrom(dst, 0), Count: 20, Size: 333}); err != nil || r.Lost() != 0 {
			t.Fatalf("UDP: %s, %v", r, err)
		}
	}
	frames := onLAN.IPPackets()
	for _, c := range []*netlab.Capture{onWire, onLAN} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	decrypted := decrypt(t, p, o, wire)
	want := map[string]int{}
	for _, ip := range frames {
		if site, ok := between(p, ip); ok {
			want[normal(ip, site == "A")]++
		}
	}
	got := map[string]int{}
	for _, ip := range decrypted {
		if bytes.HasPrefix(ip, []byte("adit-mtu")) {
			continue // a dummy that probes the path MTU, or the answer to one
		}
		site, ok := between(p, ip)
		if !ok {
			t.Fatalf("tshark decrypted a packet that is not between the LANs: %x", ip)
		}
		got[normal(ip, site == "B")]++
	}
	if len(want) < 80 {
		t.Errorf("only %d different packets on the LAN", len(want))
	}
	missing := 0
	for ip, n := range want {
		if got[ip] != n {
			if missing++; missing <= 3 {
				t.Errorf("on the LAN %d times, decrypted %d times: %.80x", n, got[ip], ip)
			}
		}
		delete(got, ip)
	}
	for ip := range got {
		t.Errorf("decrypted and never on the LAN: %.80x", ip)
	}
	t.Logf("%d different packets on the LAN, %d missing", len(want), missing)
}

// between tells which site an IP packet between the two hosts comes from.
func between(p *gatewaytest.Pair, ip []byte) (string, bool) {
	var h packet.Header
	var f packet.Flow
	if packet.Parse(ip, &h, &f) != nil {
		return "", false
	}
	src, dst := f.SrcAddr(), f.DstAddr()
	switch {
	case (src == p.A.Host4 && dst == p.B.Host4) || (src == p.A.Host6 && dst == p.B.Host6):
		return "A", true
	case (src == p.B.Host4 && dst == p.A.Host4) || (src == p.B.Host6 && dst == p.A.Host6):
		return "B", true
	}
	return "", false
}

// normal is the packet as it is inside the tunnel. A packet that is about to
// enter the tunnel (on LAN A, from A) loses one hop on the way there; one that
// has left it (on LAN A, from B) lost one since. forward takes one hop off;
// a decrypted packet from B takes one off to be what LAN A sees.
func normal(ip []byte, forward bool) string {
	ip = bytes.Clone(ip)
	var h packet.Header
	var f packet.Flow
	_ = packet.Parse(ip, &h, &f)
	ip = ip[:h.TotalLen]
	if !forward {
		return string(ip)
	}
	if h.Version == 6 {
		ip[7]--
		return string(ip)
	}
	ip[8]--
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^packet.Checksum(ip[:int(ip[0]&15)*4], 0))
	return string(ip)
}

// decrypt has tshark decrypt the file and returns the inner packets.
func decrypt(t *testing.T, p *gatewaytest.Pair, o gatewaytest.Options, file string) (inner [][]byte) {
	t.Helper()
	names := tsharkNames[o.Suite]
	family := "IPv4"
	if o.OuterV6 {
		family = "IPv6"
	}
	hexKey := func(k []byte) string {
		if len(k) == 0 {
			return ""
		}
		return "0x" + hex.EncodeToString(k)
	}
	args := []string{"-r", file,
		"-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE"}
	for spi, k := range map[uint32]gatewaytest.Keys{gatewaytest.SPIAtoB: p.AtoB, gatewaytest.SPIBtoA: p.BtoA} {
		args = append(args, "-o", fmt.Sprintf(`uat:esp_sa:"%s","*","*","0x%08x","%s","%s","%s","%s"`,
			family, spi, names[0], hexKey(k.Encryption), names[1], hexKey(k.Integrity)))
	}
	out, err := exec.Command("tshark", append(args, "-x")...).Output()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, stderr(err))
	}
	inner = decryptedParts(t, string(out))
	verdicts, err := exec.Command("tshark", append(args, "-T", "fields", "-e", "esp.icv_good", "-e", "esp.icv_bad", "-Y", "esp")...).Output()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, stderr(err))
	}
	lines := strings.Split(strings.TrimSpace(string(verdicts)), "\n")
	if len(lines) != len(inner) {
		t.Errorf("ESP packets: %d, decrypted: %d", len(lines), len(inner))
	}
	for _, line := range lines {
		good, bad, _ := strings.Cut(line, "\t")
		if strings.EqualFold(bad, "true") || bad == "1" {
			t.Errorf("tshark finds an ICV wrong: %q", line)
		}
		if names[1] != "NULL" && !strings.EqualFold(good, "true") && good != "1" {
			t.Errorf("tshark did not find the ICV right: %q", line)
		}
	}
	return inner
}

var hexLine = regexp.MustCompile(`^[0-9a-f]{4,}  ((?:[0-9a-f]{2} ){1,16})`)

// decryptedParts reads `tshark -x`: of every frame the bytes below "Decrypted
// Data", cut to the inner packet's own length.
func decryptedParts(t *testing.T, text string) (parts [][]byte) {
	t.Helper()
	var current []byte
	taking := false
	end := func() {
		if taking {
			parts = append(parts, current)
		}
		taking, current = false, nil
	}
	for line := range strings.Lines(text) {
		switch m := hexLine.FindStringSubmatch(line); {
		case strings.HasPrefix(line, "Decrypted"):
			end()
			taking = true
		case strings.Contains(line, "bytes):"), strings.TrimSpace(line) == "":
			end()
		case taking && m != nil:
			b, err := hex.DecodeString(strings.ReplaceAll(m[1], " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			current = append(current, b...)
		}
	}
	end()
	return parts
}

func stderr(err error) []byte {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.Stderr
	}
	return nil
}
