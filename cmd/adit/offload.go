package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
	"github.com/adit-ipsec/adit/natt"
)

// whyOff is why an offload is not active where the file says off.
const whyOff = "tun.offload is off"

// udpOffload is tun.offload for the UDP socket.
func udpOffload(auto bool) natt.Offload {
	if auto {
		return natt.OffloadAuto
	}
	return natt.OffloadOff
}

// viewOffloads describes the engine's offloads; auto is tun.offload.
func viewOffloads(list []dataplane.Offload, auto bool) []*controlv1.Offload {
	var view []*controlv1.Offload
	for _, o := range list {
		// Whether it was switched off is known here, and not to the engine.
		why := strings.TrimPrefix(o.Why, "switched off, or ")
		if !auto && !o.Active {
			why = whyOff
		}
		view = append(view, &controlv1.Offload{Name: o.Name, Active: o.Active, Why: why, Fallbacks: o.Fallbacks})
	}
	return view
}

// splitOffloads says which offloads are active, and for each reason which are
// not, with the reason.
func splitOffloads(list []*controlv1.Offload) (active string, inactive []string) {
	names := map[string][]string{} // by reason, which active ones have none of
	var reasons []string
	for _, o := range list {
		why := o.GetWhy()
		if !o.GetActive() && !slices.Contains(reasons, why) {
			reasons = append(reasons, why)
		}
		names[why] = append(names[why], o.GetName())
	}
	for _, why := range reasons {
		inactive = append(inactive, offloadText(names[why])+": "+why)
	}
	return offloadText(names[""]), inactive
}

// offloadText is names of offloads as people read them: tun-read-tcp,
// tun-read-udp, udp-send is "TUN read tcp udp; UDP send".
func offloadText(names []string) string {
	var b strings.Builder
	var lastDevice, lastVerb string
	for _, name := range names {
		device, rest, _ := strings.Cut(strings.ReplaceAll(name, "-", " "), " ")
		verb, what, _ := strings.Cut(rest, " ")
		switch {
		case device != lastDevice:
			b.WriteString("; " + strings.TrimSpace(strings.ToUpper(device)+" "+rest))
		case verb != lastVerb:
			b.WriteString(", " + rest)
		default:
			b.WriteString(" " + what)
		}
		lastDevice, lastVerb = device, verb
	}
	return strings.TrimPrefix(b.String(), "; ")
}

// offloadRows is what status says of the offloads: what is active, and below it
// whatever is not, or was refused.
func offloadRows(list []*controlv1.Offload) [][]string {
	active, inactive := splitOffloads(list)
	if active == "" && len(inactive) > 0 {
		active = "none"
	}
	rows := [][]string{{"Offload", active}}
	for _, text := range inactive {
		rows = append(rows, []string{" ", "not " + text})
	}
	for _, o := range list {
		if n := o.GetFallbacks(); n > 0 {
			rows = append(rows, []string{" ", fmt.Sprintf("%s: the kernel refused %s", offloadText([]string{o.GetName()}), count(int(n), "superpacket", "superpackets"))})
		}
	}
	return rows
}

// logOffloads tells once at the start, at level info only where the kernel
// lacks what the file asks for.
func (g *gateway) logOffloads() {
	active, inactive := splitOffloads(viewOffloads(g.engine.Stats().Offloads, g.cfg.TUN.Offload))
	level := slog.LevelDebug
	if g.cfg.TUN.Offload && len(inactive) > 0 {
		level = slog.LevelInfo
	}
	g.log.Log(context.Background(), level, "superpackets", "active", active, "inactive", strings.Join(inactive, "; "))
}
