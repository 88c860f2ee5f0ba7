package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/adit-ipsec/adit/dataplane"
)

// logEvents writes what the engine reports until it ends. The engine thins
// repeated events out at their source. RFC 4303 4: an implementation "MUST allow
// a system administrator to enable or disable auditing for ESP"; audit says which.
func (g *gateway) logEvents(audit bool) {
	for e := range g.engine.Events() {
		if g.hear(&e) && e.Kind == dataplane.Acquire {
			g.log.Debug("a packet waits for its SA", "event", e.Kind.String(), "peer", e.Peer, "policy", e.Policy, "flow", e.Flow.String())
			continue
		}
		if audit || e.Kind != dataplane.Audit {
			logEvent(g.log, &e)
		}
	}
}

// eventLine is one line of the log while it is being made.
type eventLine struct {
	level      slog.Level
	text       string
	attributes []slog.Attr
}

func (l *eventLine) add(name string, value any) {
	l.attributes = append(l.attributes, slog.Any(name, value))
}

func logEvent(log *slog.Logger, e *dataplane.Event) {
	l := eventLine{level: slog.LevelWarn, attributes: []slog.Attr{slog.String("event", e.Kind.String())}}
	if e.Kind == dataplane.Audit {
		l.add("reason", e.Reason.String())
	}
	if e.Peer != "" {
		l.add("peer", e.Peer)
	}
	if e.SPI != 0 {
		l.add("spi", spiText(e.SPI))
	}
	switch e.Kind {
	case dataplane.Acquire:
		l.text = "a packet is to be protected and there is no SA for it: dropped"
		l.add("policy", e.Policy)
		l.add("flow", e.Flow.String())
	case dataplane.SeqOverflow:
		l.level, l.text = slog.LevelError, "the SA has used its last sequence number and sends nothing more: replace its keys at both ends"
	case dataplane.BadSPI:
		// For key sources; the log has it as Audit, InNoSA.
		l.level, l.text = slog.LevelDebug, "a packet for no SA of ours: dropped"
		l.add("from", e.From.String())
	case dataplane.PeerMoved:
		l.level, l.text = slog.LevelInfo, "the peer is at another address or port: it is answered there"
		l.add("from", e.From.String())
		l.add("old", e.Old.String())
	case dataplane.PeerElsewhere:
		l.level, l.text = slog.LevelInfo, "an authenticated packet came from another address or port: the peer is still answered where it was"
		l.add("from", e.From.String())
		l.add("peer_at", e.Old.String())
		l.add("why", e.Why)
	case dataplane.SoftExpire:
		l.level, l.text = slog.LevelInfo, "the SA should be replaced: its soft lifetime is over"
		l.add("direction", e.Direction.String())
		l.add("limit", e.Limit.String())
	case dataplane.HardExpire:
		l.text = "the SA has ended and is removed: its hard lifetime is over"
		l.add("direction", e.Direction.String())
		l.add("limit", e.Limit.String())
	case dataplane.AuthFailures:
		l.text = "packets failed authentication: dropped"
		l.add("count", e.Count)
	case dataplane.Audit:
		l.audit(e)
	default:
		l.text = "event"
	}
	log.LogAttrs(context.Background(), l.level, l.text, l.attributes...)
}

// audit says what RFC 4303 4 wants in an audit log; the date and time are the
// log's own. Addresses and numbers are those of the first of count packets.
func (l *eventLine) audit(e *dataplane.Event) {
	l.text = "dropped: " + explain(e.Reason.String()).meaning
	if e.Reason == dataplane.OutDiscard {
		// Every host sends now and then what no policy speaks of; what one
		// discards is not audited.
		l.level, l.text = slog.LevelInfo, "dropped: no policy matches (RFC 4301 5.1)"
	}
	if e.Policy != "" {
		l.add("policy", e.Policy)
	}
	if e.Src.Addr().IsValid() {
		l.add("from", endpointText(e.Src))
	}
	if e.Dst.Addr().IsValid() {
		l.add("to", endpointText(e.Dst))
	}
	if e.Seq != 0 || e.SPI != 0 {
		l.add("seq", e.Seq)
	}
	if e.Flow.Version != 0 {
		l.add("flow", e.Flow.String())
	}
	if e.Flow.Version == 6 {
		l.add("flow_label", fmt.Sprintf("0x%05x", e.FlowLabel))
	}
	l.add("count", e.Count)
}

// endpointText leaves out a port that there is none of.
func endpointText(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}
