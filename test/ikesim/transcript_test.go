package ikesim

import (
	"fmt"
	"strings"
	"time"

	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// transcript is what has happened, as lines that are the same in every run of a
// seed: SPIs have names, in the order in which they were seen. It is kept only
// where somebody is to read it: a run that fails is run once more for it.
type transcript struct {
	on      bool
	verbose bool // with the machines' verbose log
	lines   []string
	ikes    map[wire.SPI]string
	sas     map[uint32]string
}

func (t *transcript) init() { t.ikes, t.sas = map[wire.SPI]string{}, map[uint32]string{} }

// clock is a time in seconds.
func (t *transcript) clock(now time.Duration) string { return fmt.Sprintf("%8.3f", now.Seconds()) }

func (t *transcript) add(now time.Duration, text string) {
	if t.on {
		t.lines = append(t.lines, t.clock(now)+" "+text)
	}
}

func (t *transcript) note(now time.Duration, format string, args ...any) {
	if t.on {
		t.add(now, fmt.Sprintf(format, args...))
	}
}

// ike is the name of an IKE SA, by its initiator's SPI.
func (t *transcript) ike(spi wire.SPI) string {
	if t.ikes[spi] == "" {
		t.ikes[spi] = fmt.Sprintf("ike%d", len(t.ikes)+1)
	}
	return t.ikes[spi]
}

// spi is the name of a Child SA, by its SPI.
func (t *transcript) spi(spi uint32) string {
	if t.sas[spi] == "" {
		t.sas[spi] = fmt.Sprintf("sa%d", len(t.sas)+1)
	}
	return t.sas[spi]
}

func (t *transcript) describe(d datagram) string {
	m, err := wire.Parse(d.data)
	if err != nil {
		return fmt.Sprintf("%d bytes: %v", len(d.data), err)
	}
	return t.ike(m.Initiator) + " " + m.Summary()
}

// sent is a message that leaves a gateway.
func (t *transcript) sent(h *host, d datagram) {
	if t.on {
		t.note(h.w.now, "%s > %s %s", h.called(), d.to, t.describe(d))
	}
}

// lost is a message that does not arrive.
func (t *transcript) lost(w *world, d datagram) {
	if t.on && !d.packet.set() {
		t.note(w.now, "        lost: %s", t.describe(d))
	}
}

// sa is a change of a SAD.
func (t *transcript) sa(h *host, what string, id sad.ID, policy string, grace time.Duration) {
	if !t.on {
		return
	}
	text := fmt.Sprintf("%s: %s %s %s %s %s", h.called(), what, id.Direction, t.spi(id.SPI), id.Peer, policy)
	if grace > 0 {
		text += fmt.Sprintf(", after %s", grace)
	}
	t.add(h.w.now, text)
}

// event is a line of a machine's log.
func (t *transcript) event(h *host, e ike.Event) {
	if !t.on {
		return
	}
	outcome := map[ike.Outcome]string{ike.Began: "began", ike.Done: "done", ike.Failed: "FAILED", ike.Detail: "detail"}[e.Outcome]
	parts := []string{string(e.Stage), outcome}
	if e.SPIi != 0 {
		parts = append(parts, t.ike(wire.SPI(e.SPIi)))
	}
	if e.SPIIn != 0 {
		parts = append(parts, t.spi(e.SPIIn)+"/"+t.spi(e.SPIOut))
	}
	for _, s := range []string{e.Peer, e.Policy, e.Suite, e.Authentication, e.Reason} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if e.Text != "" {
		parts = append(parts, "("+e.Text+")")
	}
	for _, side := range [][2]string{{"theirs", e.Theirs}, {"ours", e.Ours}, {"fix", e.Fix}} {
		if side[1] != "" {
			parts = append(parts, side[0]+" "+side[1])
		}
	}
	t.note(h.w.now, "%s: %s", h.called(), strings.Join(parts, " "))
}

// called is what a host is in a transcript.
func (h *host) called() string {
	if h == h.w.rogue {
		return "attacker as " + h.name
	}
	return h.name
}
