package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/goccy/go-yaml/lexer"
	"pgregory.net/rapid"
)

func TestASectionHasAtMost256Keys(t *testing.T) {
	profiles := func(n int) string {
		var b strings.Builder
		b.WriteString("version: 1\nprofiles:\n")
		for i := range n {
			fmt.Fprintf(&b, "  p%d: {esn: true}\n", i)
		}
		return b.String()
	}
	if c, err := Parse("x", []byte(profiles(maxKeys))); err != nil || len(c.Profiles) != maxKeys+1 {
		t.Errorf("%d profiles: expected to be read, seen %v", maxKeys, err)
	}
	_, err := Parse("x", []byte(profiles(maxKeys+1)))
	if want := "x:259:3: a section has more than 256 keys"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%d profiles: expected %q, seen %v", maxKeys+1, want, err)
	}
}

// TestLongListsAreNotSections: only the keys of one section are counted.
func TestLongListsAreNotSections(t *testing.T) {
	var b strings.Builder
	b.WriteString("version: 1\npolicies:\n")
	for i := range 3 * maxKeys {
		fmt.Fprintf(&b, "  - name: p%d\n    local: [any]\n    remote: [any]\n    action: bypass\n", i)
	}
	if c, err := Parse("x", []byte(b.String())); err != nil || len(c.Policies) != 3*maxKeys {
		t.Errorf("%d policies: expected to be read, seen %v", 3*maxKeys, err)
	}
}

// TestDurationsAndSizesReadWhatIsWritten holds the readers equal to arithmetic
// on the number and the unit.
func TestDurationsAndSizesReadWhatIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64Range(1, 8760).Draw(t, "n")
		unit := rapid.SampledFrom([]string{"s", "m", "h"}).Draw(t, "unit")
		size := rapid.SampledFrom([]string{"", "KB", "MB", "GB", "TB"}).Draw(t, "size")
		text := fmt.Sprintf("version: 1\nprofiles: {default: {lifetime: {soft: 0, hard: %d%s, hard_bytes: %d%s, hard_packets: 0x%x}}}\n", n, unit, n, size, n)
		c, err := Parse("x", []byte(text))
		if err != nil {
			t.Fatalf("%s%v", text, err)
		}
		l := c.Profiles["default"].Lifetime
		seconds := n * map[string]uint64{"s": 1, "m": 60, "h": 3600}[unit]
		bytes := n * map[string]uint64{"": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[size]
		if uint64(l.Hard.Seconds()) != seconds || l.HardBytes != bytes || l.HardPackets != n {
			t.Fatalf("%sexpected %d s, %d bytes, %d packets, seen %v", text, seconds, bytes, n, l)
		}
	})
}

func TestNumbersHaveOneWayToBeWritten(t *testing.T) {
	for text, want := range map[string]string{
		"4500": "", "0x1194": "", "0X1194": "found", "04500": "the number", "0o10624": "found", "0b1000110010100": "found", "4_500": "the number",
		"4500.0": "the number", "4.5e3": "found", "+4500": "the number", "-1": "the number", "65536": "the number", "0": "the number",
		"\"4500\"": "without quotes", "99999999999999999999": "text of 20 characters", ".inf": "found", "~": "nothing", "[4500]": "a list", "{}": "a section", "true": "found true",
	} {
		c, err := Parse("x", []byte("version: 1\nlisten: {natt_port: "+text+"}\n"))
		if want == "" && (err != nil || c.Listen.NATTPort != 4500) {
			t.Errorf("%s: expected port 4500, seen %v", text, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: expected a refusal with %q, seen %v", text, want, err)
		}
	}
}

func TestExcerptPointsAtThePlace(t *testing.T) {
	_, err := Parse("x", []byte("version: 1\nlisten:\n  natt_port: 0   # größer\n"))
	want := "x:3:14: listen.natt_port: found the number 0; write a UDP port, 1 to 65535\n      natt_port: 0   # größer\n                 ^"
	if err == nil || err.Error() != want {
		t.Errorf("expected\n%s\nseen\n%v", want, err)
	}
}

func TestCommentWithAKeyIsNoExcerpt(t *testing.T) {
	_, err := Parse("x", []byte("version: 1\nlisten: {natt_port: 0} # old key 00112233445566778899aabbccddeeff\n"))
	if err == nil || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "0011") {
		t.Errorf("expected no excerpt of a line that may hold a key, seen\n%v", err)
	}
}

// TestAWordOutsideTheTreeIsRefused feeds the check that stands behind the YAML
// parser a tree that lacks a word of the text. No text is known that makes the
// parser do so.
func TestAWordOutsideTheTreeIsRefused(t *testing.T) {
	const text = "version: 1\nguard: required\n"
	s := newSource("x", []byte(text))
	tokens := lexer.Tokenize(text)
	file, err := parse(lexer.Tokenize(text))
	if err != nil {
		t.Fatal(err)
	}
	if root := s.whole(file.Docs[0].Body, tokens); root != nil {
		t.Error("a tree of other tokens was taken for the whole text")
	}
	if err := s.result(false); err == nil || !strings.HasPrefix(err.Error(), "x:1:1: a word that belongs to nothing") {
		t.Errorf("expected the word's place, seen %v", err)
	}
	s = newSource("x", []byte(text))
	if file, err = parse(tokens); err != nil {
		t.Fatal(err)
	}
	if s.whole(file.Docs[0].Body, tokens) == nil {
		t.Errorf("the whole tree was refused: %v", s.result(false))
	}
}
