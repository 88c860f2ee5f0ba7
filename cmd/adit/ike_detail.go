package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
	"github.com/adit-ipsec/adit/sad"
)

// viewCarried puts into the Child SAs' views how old they are and what they have
// carried. now is nanoseconds on the engine's clock.
func viewCarried(peers []*controlv1.IKEPeer, sas []sad.Stats, now int64) {
	type name struct {
		peer      string
		direction sad.Direction
		spi       uint32
	}
	of := map[name]*sad.Stats{}
	for i := range sas {
		of[name{sas[i].Peer, sas[i].Direction, sas[i].SPI}] = &sas[i]
	}
	for _, p := range peers {
		for _, sa := range p.GetSas() {
			for _, c := range sa.GetChildren() {
				if s := of[name{p.GetName(), sad.Outbound, c.GetSpiOut()}]; s != nil {
					c.OutPackets, c.OutBytes = s.Packets, s.Bytes
				}
				if s := of[name{p.GetName(), sad.Inbound, c.GetSpiIn()}]; s != nil { // it is there first, and longer
					c.InPackets, c.InBytes = s.Packets, s.Bytes
					c.AgeSeconds = float64(max(now-s.Life.Born, 0)) / 1e9
					if s.Life.Limits.Soft > 0 && renews(p.GetRole()) {
						c.RenewSeconds = s.Left(now).Soft.Seconds()
					}
				}
			}
		}
	}
}

// renews tells whether an end of this role begins rekeys: else a soft lifetime is nothing
// that anybody acts on here.
func renews(role string) bool {
	return role == ike.Both.String() || role == ike.NeverInitiate.String()
}

func viewTrouble(t *ike.Trouble) *controlv1.IKETrouble {
	if t == nil {
		return nil
	}
	return &controlv1.IKETrouble{
		Stage: string(t.Stage), Reason: t.Reason, Text: t.Text, Theirs: t.Theirs, Ours: t.Ours, Fix: t.Fix,
		Policy: t.Policy, Seconds: t.Ago.Seconds(),
	}
}

// troubleText is a failure in words: a line, and one more for each thing that helps.
func troubleText(t *controlv1.IKETrouble) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s failed %s ago: %s", t.GetStage(), lasted(t.GetSeconds()), t.GetReason())
	if t.GetPolicy() != "" {
		fmt.Fprintf(&b, ", policy %s", t.GetPolicy())
	}
	if t.GetText() != "" {
		fmt.Fprintf(&b, ": %s", plain(t.GetText()))
	}
	for _, part := range []struct{ name, text string }{{"theirs", t.GetTheirs()}, {"ours", t.GetOurs()}, {"fix", t.GetFix()}} {
		if part.text != "" {
			fmt.Fprintf(&b, "\n  %-7s %s", part.name+":", plain(part.text))
		}
	}
	return b.String()
}

// plain is text that a peer may have had a part in, for a terminal.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

// printTroubles says what went wrong last with each peer where nothing has gone well
// since.
func printTroubles(w io.Writer, peers []*controlv1.IKEPeer) {
	for _, p := range peers {
		if t := p.GetTrouble(); t.GetReason() != "" {
			fmt.Fprintf(w, "\n%s: %s\n", p.GetName(), troubleText(t))
		}
	}
}

// carriedText is a number of packets, and of bytes.
func carriedText(packets, bytes uint64) string {
	switch packets {
	case 0:
		return "nothing"
	case 1:
		return "1 packet, " + sized(bytes)
	}
	return grouped(packets) + " packets, " + sized(bytes)
}
