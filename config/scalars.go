package config

import (
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// word reads v as text on one line, without control characters.
func (v value) word(fix string) (string, bool) {
	s, kind := v.scalar()
	switch {
	case kind == number, kind == almostNumber, kind == truth:
		v.wrong("this is text: " + fix + "; put it in quotes if it is meant as it stands")
		return "", false
	case kind != text:
		v.wrong(fix)
		return "", false
	// "\0" and the like; checkText has seen those that stand as they are.
	case strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0:
		v.wrong(fix + ", without control characters")
		return "", false
	}
	return s, v.oneLine()
}

// choice reads v as one of the words.
func (v value) choice(words ...string) (string, bool) {
	fix := "write " + orList(words)
	s, kind := v.scalar()
	if kind != text {
		v.wrong(fix)
		return "", false
	}
	for _, w := range words {
		if s == w {
			return w, true
		}
	}
	v.fail("found "+v.found(), fix)
	return "", false
}

// isWord tells, without a complaint, whether v is exactly this word.
func (v value) isWord(w string) bool {
	s, kind := v.scalar()
	return kind == text && s == w
}

// truth reads v as true or false.
func (v value) truth() (value, ok bool) {
	s, kind := v.scalar()
	if kind != truth {
		v.wrong("write true or false, without quotes")
		return false, false
	}
	return s == "true", true
}

// integer reads v as a number without quotes.
func (v value) integer(low, high uint64, fix string) (uint64, bool) {
	s, kind := v.scalar()
	if kind == text {
		v.wrong(fix + ", without quotes")
		return 0, false
	}
	if kind != number {
		v.wrong(fix + ", decimal or after 0x")
		return 0, false
	}
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil || n < low || n > high {
		v.fail("found "+v.found(), fix)
		return 0, false
	}
	return n, true
}

// duration reads a number and a unit: 90s, 50m, 4h.
func (v value) duration(low, high time.Duration, also string) (time.Duration, bool) {
	fix := fmt.Sprintf("write %sa time from %s to %s, such as 90s, 50m or 4h", also, clock(low), clock(high))
	s, kind := v.scalar()
	if kind != text {
		v.wrong(fix)
		return 0, false
	}
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour}
	unit := units[s[len(s)-1]]
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if unit == 0 || err != nil || !isNumber(s[:len(s)-1]) || n > uint64(high/unit) || time.Duration(n)*unit < low {
		v.fail("found "+v.found(), fix)
		return 0, false
	}
	return time.Duration(n) * unit, true
}

// clock is d the way the file writes it.
func clock(d time.Duration) string {
	switch {
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= time.Minute && d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// size reads a number of bytes, with or without a decimal unit: 0, 1500, 10GB.
func (v value) size() (uint64, bool) {
	const fix = "write a number of bytes, with a unit or without, such as 500MB or 10GB; 0 for no limit"
	s, kind := v.scalar()
	if kind != text && kind != number {
		v.wrong(fix)
		return 0, false
	}
	factor := uint64(1)
	for _, u := range []struct {
		unit   string
		factor uint64
	}{{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}} {
		if digits, ok := strings.CutSuffix(s, u.unit); ok {
			s, factor = digits, u.factor
			break
		}
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || !isNumber(s) || n > math.MaxUint64/factor || kind == text && factor == 1 {
		v.fail("found "+v.found(), fix)
		return 0, false
	}
	return n * factor, true
}

// address reads a unicast IP address without zone.
func (v value) address(fix string) (netip.Addr, bool) {
	s, ok := v.word(fix)
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	problem := ""
	switch {
	case err != nil:
		problem = ", which is no IP address"
	case a.Zone() != "":
		problem = ", an address with a zone"
	case a.Is4In6():
		problem, fix = ", an IPv4-mapped IPv6 address", "write "+a.Unmap().String()
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		problem = ", which is no address of one host"
	default:
		return a, true
	}
	v.fail("found "+v.found()+problem, fix)
	return netip.Addr{}, false
}

// name reads an identifier: what peers, policies and profiles are called.
func (v value) name() (string, bool) {
	const fix = "a name is a letter or digit, then up to 62 letters, digits, `.`, `_` or `-`"
	s, ok := v.word(fix)
	if !ok {
		return "", false
	}
	if !isName(s) {
		v.fail("found "+v.found(), fix)
		return "", false
	}
	if secretive(s) {
		v.wrong("choose a name that does not look like a key: names are printed")
		return "", false
	}
	return s, true
}

func isName(s string) bool {
	for i, r := range s {
		letter := r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || !strings.ContainsRune("._-", r)) {
			return false
		}
	}
	return s != "" && len(s) <= 63
}

// device reads the name of a network interface.
func (v value) device() (string, bool) {
	// IFNAMSIZ is 16 with the closing zero byte; "." and "..", "/", ":" and
	// white space are what the kernel's dev_valid_name refuses; "%" makes
	// the kernel choose a number.
	const fix = "an interface name has 1 to 15 bytes, without spaces, `/`, `:` and `%`"
	s, ok := v.word(fix)
	if !ok {
		return "", false
	}
	if len(s) > 15 || s == "." || s == ".." || strings.ContainsAny(s, "/:% \t") || !showable(s) {
		problem := "found " + v.found()
		if len(s) > 15 {
			problem += fmt.Sprintf(" (%d bytes)", len(s))
		}
		v.fail(problem, fix)
		return "", false
	}
	return s, true
}

// path reads an absolute path of at most limit bytes.
func (v value) path(limit int, example string) (string, bool) {
	fix := "write an absolute path, such as " + example
	s, ok := v.word(fix)
	if !ok {
		return "", false
	}
	switch {
	case !filepath.IsAbs(s):
		if v.secret() {
			v.s.hide(v.node)
		}
		v.fail("found "+v.found()+", a relative path", fix)
	case len(s) > limit:
		v.fail(fmt.Sprintf("the path has %d bytes", len(s)), fmt.Sprintf("use one of at most %d", limit))
	default:
		return filepath.Clean(s), true
	}
	return "", false
}

// orList is "a, b or c".
func orList(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// plural is "1 byte", "2 bytes".
func plural(n int, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}

// packets reads a number of packets; 0 for no limit.
func (v value) packets() (uint64, bool) {
	return v.integer(0, math.MaxUint64, "write a number of packets, or 0 for no limit")
}
