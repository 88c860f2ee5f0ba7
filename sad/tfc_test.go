package sad

import (
	"strings"
	"testing"
)

// What TFC may be, and that each refusal says what to do.
func TestRFC4303_2_7_TFCOnlyWhereTheReceiverCanCutIt(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Params)
		want   string // "": allowed
	}{
		{"off", func(p *Params) { p.TFC = TFCOff }, ""},
		{"mtu", func(p *Params) { p.TFC = TFCMTU }, ""},
		{"the least", func(p *Params) { p.TFC = 1 }, ""},
		{"the longest packet", func(p *Params) { p.TFC = 65535 }, ""},
		{"beyond it", func(p *Params) { p.TFC = 65536 }, "to 65536 bytes: use 1 to 65535, mtu or off"},
		{"negative", func(p *Params) { p.TFC = -2 }, "to -2 bytes: use 1 to 65535, mtu or off"},
		{"the least number", func(p *Params) { p.TFC = -1 << 31 }, "use 1 to 65535"},
		{"transport mode", func(p *Params) { p.TFC, p.Mode = TFCMTU, TransportMode }, `in transport mode: RFC 4303 2.7, it "can be added only if`},
		{"a bundle", func(p *Params) { p.TFC, p.Bundle = TFCMTU, true }, "in a bundle"},
		{"transport mode without it", func(p *Params) { p.Mode = TransportMode }, ""},
	} {
		for _, d := range []Direction{Outbound, Inbound} {
			p := outbound(t)
			if d == Inbound {
				p = inbound(t)
			}
			c.change(&p)
			err := p.checkTFC()
			switch {
			case c.want == "" && err != nil:
				t.Errorf("%s, %s: %v", c.name, d, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%s, %s: %v, want %q", c.name, d, err, c.want)
			case c.want != "" && p.Validate() == nil:
				t.Errorf("%s, %s: Validate takes it", c.name, d)
			}
		}
	}
	p := outbound(t)
	p.Protocol, p.TFC = AH, 100
	if err := p.checkTFC(); err == nil || !strings.Contains(err.Error(), "on an AH SA") {
		t.Errorf("AH: %v", err)
	}
}
