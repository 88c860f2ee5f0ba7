package config

import (
	"fmt"
	"strings"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/sad"
)

// suiteName reads the name of a suite of either protocol.
func (v value) suiteName(example string) (string, bool) {
	s, ok := v.word("write a suite, such as " + example)
	if ok && !showable(s) {
		v.wrong("write a suite, such as " + example)
		return "", false
	}
	return s, ok
}

// espSuite reads the name of an ESP suite.
func (d *decoder) espSuite(v value) (esp.Suite, bool) {
	s, ok := v.suiteName("aes128-sha256 or aes128gcm16")
	if !ok {
		return 0, false
	}
	suite, err := esp.ParseSuite(s)
	if err != nil {
		problem, fix, _ := strings.Cut(strings.TrimPrefix(err.Error(), "esp: "), "; ")
		if _, isAH := ah.ParseSuite(s); isAH == nil {
			fix += ", for AH `protocol: ah`"
		}
		v.fail(problem, fix)
		return 0, false
	}
	return suite, !suite.Legacy() || d.legacy(v, s, strings.TrimSuffix(s, "sha1")+"sha256")
}

// ahSuite reads the name of an AH suite.
func (d *decoder) ahSuite(v value) (ah.Suite, bool) {
	s, ok := v.suiteName("sha256 or aes128gmac")
	if !ok {
		return 0, false
	}
	suite, err := ah.ParseSuite(s)
	if err != nil {
		problem, fix, _ := strings.Cut(strings.TrimPrefix(err.Error(), "ah: "), "; ")
		if _, isESP := esp.ParseSuite(s); isESP == nil && !strings.Contains(problem, "refused") {
			problem = fmt.Sprintf("%s is an ESP suite, and this is for AH", s)
		}
		v.fail(problem, fix)
		return 0, false
	}
	return suite, !suite.Legacy() || d.legacy(v, s, "sha256")
}

// legacy tells whether the file lets SHA-1 in.
func (d *decoder) legacy(v value, suite, instead string) bool {
	if !d.AllowLegacy {
		v.fail(suite+" rests on SHA-1", "use "+instead+", or add `allow_legacy: true` at the top level for a peer that knows nothing else")
	}
	return d.AllowLegacy
}

// suites reads a list of suites to propose. With ah+esp it holds those of both
// protocols; a name that both have stands for both.
func (d *decoder) suites(v value, p Protocols) (esps []esp.Suite, ahs []ah.Suite) {
	items, ok := v.list("suites, such as [aes128gcm16, chacha20poly1305]")
	if !ok {
		return nil, nil
	}
	if len(items) == 0 {
		v.fail("the list is empty", "name at least one suite, or leave the key out")
	}
	seen := map[string]bool{}
	whole := true
	for _, item := range items {
		s, _ := d.mark(item).scalar()
		_, inAH := ah.ParseSuite(s)
		_, inESP := esp.ParseSuite(s)
		before := len(d.s.errs.List)
		if p.Uses(sad.ESP) && (p != ProtocolAHESP || inAH != nil || inESP == nil) {
			if suite, ok := d.espSuite(item); ok {
				esps = append(esps, suite)
			}
		}
		if p.Uses(sad.AH) && (p != ProtocolAHESP || inAH == nil) {
			if suite, ok := d.ahSuite(item); ok {
				ahs = append(ahs, suite)
			}
		}
		good := len(d.s.errs.List) == before
		if good && seen[s] {
			item.fail(s+" stands in the list twice", "name each suite once")
		}
		seen[s], whole = good, whole && good
	}
	if p == ProtocolAHESP && whole && len(items) > 0 && (len(esps) == 0 || len(ahs) == 0) {
		v.fail("the profile has `protocol: ah+esp`, and the list has suites of one of the two", "name suites of both, such as [aes128gcm16, sha256]")
	}
	return esps, ahs
}
