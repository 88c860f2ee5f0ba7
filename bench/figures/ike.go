package main

import (
	"fmt"
	"strings"

	"github.com/adit-ipsec/adit/bench"
)

func ikeSection(b *strings.Builder, r *bench.IKEReport) {
	heading(b, "IKEv2 alone, without system calls", fmt.Sprintf("adit-bench ike --rounds %d --seconds %g", r.Settings.Rounds, r.Settings.Seconds),
		r.Machine, r.Started.Format(day))
	row(b, "CPU µs of one", "initiator", "responder", "a second on one core: responder", "both ends, garbage collection too")
	rule(b, 5)
	var others []bench.IKERow
	for _, w := range r.Rows {
		if w.Work != bench.IKEHandshake {
			others = append(others, w)
			continue
		}
		row(b, "handshake, "+w.Group+", "+w.Auth, figure(w.Initiator), figure(w.Responder), figure(w.Gateway), figure(w.Both))
	}
	for _, w := range others {
		initiator := figure(w.Initiator)
		if w.Work == bench.IKECookie {
			initiator = ""
		}
		row(b, w.Work, initiator, figure(w.Responder), figure(w.Gateway), figure(w.Both))
	}
	b.WriteString("\nA handshake is IKE_SA_INIT and IKE_AUTH with the first Child SA; of certificates a leaf and one intermediate are sent.")
	if n := len(r.Memory); n > 0 {
		m := r.Memory[n-1]
		fmt.Fprintf(b, "\n%s with one Child SA: %.0f bytes of heap each.", count(m.SAs, "established IKE SA", "established IKE SAs"), m.Bytes.Median)
	}
	b.WriteString("\n")
}
