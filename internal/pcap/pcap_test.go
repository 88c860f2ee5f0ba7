package pcap

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// icmp is an IPv4 echo request with the given number of payload bytes.
func icmp(payload int) []byte {
	n := 28 + payload
	b := make([]byte, n)
	copy(b, []byte{0x45, 0, byte(n >> 8), byte(n), 0, 1, 0, 0, 64, 1, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 8})
	return b
}

var (
	at     = time.Date(2026, 5, 4, 3, 2, 1, 123456789, time.UTC)
	raw    = Interface{Name: "adit0", Description: "clear side", LinkType: RawIP}
	ether  = Interface{Name: "wan0", Description: "outside", LinkType: Ethernet}
	frames = []Packet{
		{Interface: 0, Time: at, Data: icmp(0), Direction: Received, Comment: "clear-out lan → site-b"},
		{Interface: 1, Time: at.Add(time.Nanosecond), Data: append(append(make([]byte, 12), 8, 0), icmp(1)...), Direction: Sent},
		{Interface: 0, Time: at.Add(time.Second), Data: icmp(2)},
		{Interface: 0, Time: at.Add(time.Hour), Data: icmp(100)[:60], Length: 128, Comment: "abc"},
		{Interface: 1, Time: at.Add(2 * time.Hour), Data: append(append(make([]byte, 12), 8, 0), icmp(1400)...), Comment: strings.Repeat("c", 65535)},
	}
)

func write(t *testing.T, w *Writer) {
	t.Helper()
	for i, in := range []Interface{raw, ether} {
		id, err := w.AddInterface(in)
		check(t, err)
		if id != i {
			t.Fatalf("interface %d got number %d", i, id)
		}
	}
	for _, p := range frames {
		check(t, w.Write(p))
	}
	check(t, w.Close())
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	var file bytes.Buffer
	write(t, NewWriter(&file))
	r, err := NewReader(&file)
	check(t, err)
	for i, want := range frames {
		got, err := r.Next()
		check(t, err)
		if want.Length == 0 {
			want.Length = len(want.Data)
		}
		if got.Interface != want.Interface || !got.Time.Equal(want.Time) || !bytes.Equal(got.Data, want.Data) || got.Length != want.Length {
			t.Errorf("packet %d: got %d bytes of %d on %d at %v, expected %d of %d on %d at %v",
				i, len(got.Data), got.Length, got.Interface, got.Time, len(want.Data), want.Length, want.Interface, want.Time)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("behind the last packet: %v, expected %v", err, io.EOF)
	}
	for i, want := range []Interface{raw, ether} {
		if got, err := r.Interface(i); err != nil || got != want {
			t.Errorf("interface %d: %+v, %v; expected %+v", i, got, err, want)
		}
	}
	if _, err := r.Interface(2); err == nil {
		t.Error("a third interface of a capture with two")
	}
}

// tshark prints fields of a capture, one line a packet, separated by "|".
func tshark(t *testing.T, file string, fields ...string) []string {
	t.Helper()
	args := []string{"-n", "-r", file, "-T", "fields", "-E", "separator=|"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	cmd := exec.Command("tshark", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, stderr.String())
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

func TestTsharkReadsTheCapture(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.pcapng")
	w, err := Create(file)
	check(t, err)
	write(t, w)
	got := tshark(t, file, "frame.interface_name", "frame.time_epoch", "frame.cap_len", "frame.len", "frame.packet_flags_direction", "ip.dst", "frame.comment")
	want := []string{
		"adit0|1777863721.123456789|28|28|0x00000001|192.0.2.2|clear-out lan → site-b",
		"wan0|1777863721.123456790|43|43|0x00000002|192.0.2.2|",
		"adit0|1777863722.123456789|30|30||192.0.2.2|",
		"adit0|1777867321.123456789|60|128||192.0.2.2|abc",
		"wan0|1777870921.123456789|1442|1442||192.0.2.2|" + strings.Repeat("c", 65535),
	}
	if len(got) != len(want) {
		t.Fatalf("%d packets, expected %d:\n%.2000s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range want {
		if normal(got[i]) != normal(want[i]) {
			t.Errorf("packet %d:\ngot  %.200q\nwant %.200q", i, got[i], want[i])
		}
	}
}

// normal forgets how many leading zeros a version of tshark prints.
func normal(s string) string { return strings.Replace(s, "0x0000000", "0x", 1) }

func TestCapturesAreReadableByTheirOwnerAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.pcapng")
	check(t, os.WriteFile(file, []byte("an older, longer file that anybody may read"), 0o644))
	w, err := Create(file)
	check(t, err)
	check(t, w.Close())
	info, err := os.Stat(file)
	check(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, expected 0600", info.Mode())
	}
	// Even without a packet it is a capture.
	r, err := Open(file)
	check(t, err)
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("first packet: %v, expected %v", err, io.EOF)
	}
	check(t, r.Close())
	check(t, r.Close())
	if _, err := Create(filepath.Join(t.TempDir(), "no", "such", "place")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Create: %v, expected %v", err, os.ErrNotExist)
	}
}

func TestWriterRefusesWhatTheFormatCannotHold(t *testing.T) {
	var file bytes.Buffer
	w := NewWriter(&file)
	if err := w.Write(Packet{Data: icmp(0)}); err == nil {
		t.Error("a packet before the first interface was written")
	}
	_, err := w.AddInterface(raw)
	check(t, err)
	for name, p := range map[string]Packet{
		"an interface that is not there": {Interface: 1, Data: icmp(0)},
		"a negative interface":           {Interface: -1, Data: icmp(0)},
		"a comment of 65536 bytes":       {Data: icmp(0), Comment: strings.Repeat("c", 65536)},
		"more captured than sent":        {Data: icmp(0), Length: 27},
	} {
		if err := w.Write(p); err == nil {
			t.Errorf("%s was written", name)
		}
	}
	// None of that harmed the capture.
	check(t, w.Write(Packet{Time: at, Data: icmp(0)}))
	check(t, w.Close())
	r, err := NewReader(&file)
	check(t, err)
	if p, err := r.Next(); err != nil || !bytes.Equal(p.Data, icmp(0)) {
		t.Errorf("the one packet: %+v, %v", p, err)
	}
}

type full struct{ room int }

func (f *full) Write(b []byte) (int, error) {
	if f.room -= len(b); f.room < 0 {
		return 0, errFull
	}
	return len(b), nil
}

var errFull = errors.New("no space left")

func TestWriterKeepsTheFirstError(t *testing.T) {
	w := NewWriter(&full{room: 300})
	_, err := w.AddInterface(raw)
	check(t, err)
	for err == nil {
		err = w.Write(Packet{Time: at, Data: icmp(1000)})
	}
	if !errors.Is(err, errFull) {
		t.Errorf("error %v, expected %v", err, errFull)
	}
	for name, again := range map[string]error{"Flush": w.Flush(), "Write": w.Write(Packet{}), "Close": w.Close()} {
		if !errors.Is(again, errFull) {
			t.Errorf("%s: %v, expected %v", name, again, errFull)
		}
	}
	if _, err := w.AddInterface(ether); !errors.Is(err, errFull) {
		t.Errorf("AddInterface: %v, expected %v", err, errFull)
	}
}

func TestReaderRefusesWhatIsNoCapture(t *testing.T) {
	if _, err := NewReader(strings.NewReader("neither pcap nor pcapng, but long enough")); err == nil {
		t.Error("text was taken for a capture")
	}
	var file bytes.Buffer
	write(t, NewWriter(&file))
	r, err := NewReader(bytes.NewReader(file.Bytes()[:file.Len()-1000]))
	check(t, err)
	n := 0
	for err == nil {
		if _, err = r.Next(); err == nil {
			n++
		}
	}
	if n != len(frames)-1 {
		t.Errorf("%d packets of a capture that was cut in its last, expected %d", n, len(frames)-1)
	}
}
