package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// demoTraffic is how long the demonstration sends TCP when nobody asks for
// another time.
const demoTraffic = 5

// maxDemoSeconds bounds --seconds.
const maxDemoSeconds = 3600

func newDemoCommand() *cobra.Command {
	var seconds int
	var memory, manual, asJSON bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "see it work: two gateways and two hosts on this machine",
		Long: strings.TrimSpace(`
As root: raises two gateways (this very program, as ` + "`adit run`" + `) and two hosts in
network namespaces of their own. The gateways have certificates that are made for
this run, and negotiate keys by IKEv2 when the first packet comes, which is held
until there are some. Ping, TCP and UDP go through them, keys are renewed under load,
one gateway is killed and started again; an observer on the wire between the gateways
records all, and proves that nothing crossed it in clear. Nothing on this machine is
changed, and nothing is left.

Not as root, or with --memory: the same two gateways in one process, over a
network in memory. With --manual: keys by hand, without IKE.

Exit code 0: everything held. 1: something did not; the report says what.`),
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if seconds < 1 || seconds > maxDemoSeconds {
				return &failure{exitUsage, fmt.Errorf("--seconds %d: write a number from 1 to %d", seconds, maxDemoSeconds)}
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			d := &demo{seconds: seconds, manual: manual, progress: cmd.ErrOrStderr(), out: cmd.OutOrStdout()}
			if asJSON {
				d.out = io.Discard
			}
			report, err := d.run(ctx, memory || os.Geteuid() != 0)
			if asJSON {
				err = errors.Join(printJSON(cmd.OutOrStdout(), report), quiet(err))
			}
			return err
		}),
	}
	cmd.Flags().IntVar(&seconds, "seconds", demoTraffic, "how many seconds of TCP to send, in all")
	cmd.Flags().BoolVar(&memory, "memory", false, "the demonstration in memory, which needs no root")
	cmd.Flags().BoolVar(&manual, "manual", false, "keys by hand, made for this run, in place of IKEv2")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// demo is one demonstration. It prints each round as it ends.
type demo struct {
	seconds  int
	manual   bool // keys by hand
	progress io.Writer
	out      io.Writer
	report   demoReport
}

// demoReport is what came of it.
type demoReport struct {
	Mode     string      `json:"mode"`   // namespaces | memory
	Keying   string      `json:"keying"` // ike | manual
	OK       bool        `json:"ok"`
	Rounds   []demoRound `json:"rounds"`
	Kill     *demoKill   `json:"kill,omitempty"` // namespaces only
	Failures []string    `json:"failures"`
	Seconds  float64     `json:"seconds"`
}

// demoRound is one suite over one encapsulation.
type demoRound struct {
	Title    string         `json:"title"`
	Suite    string         `json:"suite"`
	Over     string         `json:"over"`          // udp | none
	IKE      *demoIKE       `json:"ike,omitempty"` // absent with manual keys
	Pings    []demoPing     `json:"pings"`
	TCP      []demoTransfer `json:"tcp"`
	UDP      []demoBurst    `json:"udp"`
	Wire     demoWire       `json:"wire"`
	LAN      demoLAN        `json:"lan"`
	Gateways []demoGateway  `json:"gateways"`
	Failures []string       `json:"failures"`
}

type demoPing struct {
	Path       string  `json:"path"` // "IPv4 A to B"
	Sent       int     `json:"sent"`
	Received   int     `json:"received"`
	RTTSeconds float64 `json:"rtt_seconds"` // mean
}

type demoTransfer struct {
	Path          string  `json:"path"`
	Bytes         int64   `json:"bytes"`
	Seconds       float64 `json:"seconds"`
	BitsPerSecond float64 `json:"bits_per_second"`
	SHA256Sent    string  `json:"sha256_sent"`
	SHA256Got     string  `json:"sha256_received"`
}

type demoBurst struct {
	Path     string `json:"path"`
	Sent     int    `json:"sent"`
	Received int    `json:"received"`
	Intact   bool   `json:"intact"` // every datagram that came is as it was sent
}

// demoWire is what an observer between the gateways saw, counted by kind.
type demoWire struct {
	Packets   uint64   `json:"packets"`
	Bytes     uint64   `json:"bytes"`
	UDPESP    uint64   `json:"udp_esp"` // ESP in UDP 4500
	ESP       uint64   `json:"esp"`     // IP protocol 50
	IKE       uint64   `json:"ike"`     // IKE messages, on either port
	Neighbour uint64   `json:"neighbour"`
	Keepalive uint64   `json:"keepalive"`
	Other     uint64   `json:"other"` // anything else: clear traffic
	Marked    uint64   `json:"marked"`
	Missed    uint64   `json:"missed"` // what the observer had no room for
	Others    []string `json:"others"`
}

type demoLAN struct {
	Marked uint64 `json:"marked"` // packets with the payload's marker
}

// demoGateway is a gateway's own account.
type demoGateway struct {
	Name       string            `json:"name"`
	OutPackets uint64            `json:"out_packets"`
	InPackets  uint64            `json:"in_packets"`
	Drops      map[string]uint64 `json:"drops"` // those that are not zero
}

// demoRounds is what is shown: one suite of each family, over both
// encapsulations.
var demoRounds = []struct{ title, suite, encap string }{
	{"AES-128-GCM over UDP 4500", "aes128gcm16", "udp"},
	{"AES-256-CBC with HMAC-SHA-256 over IP protocol 50", "aes256-sha256", "none"},
}

// newRound is a round without figures; its lists are empty rather than nil,
// which JSON would write as null.
func (d *demo) newRound(title, suite, encap string) demoRound {
	r := demoRound{
		Title: title, Suite: suite, Over: encap,
		Pings: []demoPing{}, TCP: []demoTransfer{}, UDP: []demoBurst{}, Gateways: []demoGateway{},
		Wire: demoWire{Others: []string{}}, Failures: []string{},
	}
	if !d.manual {
		r.IKE = &demoIKE{Ends: []demoEnd{}}
	}
	return r
}

// keyed says where the keys come from.
func (d *demo) keyed() string {
	if d.manual {
		return "Keys are made for this run, and are in both configurations.\n"
	}
	return "Certificates are made for this run; keys are negotiated by IKEv2 with the first packet.\n"
}

// sites are the two ends of a round in directory dir, with keys or identities that
// nobody had before.
func (d *demo) sites(dir string, suite, encap string) (a, b demoSite, err error) {
	if d.manual {
		return demoSites(dir, suite, encap)
	}
	return demoIKESites(dir, suite, encap)
}

// run is the whole demonstration. The error means that something did not hold.
func (d *demo) run(ctx context.Context, memory bool) (*demoReport, error) {
	start := time.Now()
	d.report = demoReport{Mode: "namespaces", Keying: madeByIKE, Rounds: []demoRound{}, Failures: []string{}}
	if d.manual {
		d.report.Keying = madeByHand
	}
	var err error
	if memory {
		d.report.Mode = "memory"
		err = d.runMemory(ctx)
	} else {
		err = d.runLab(ctx)
	}
	if err != nil {
		d.report.Failures = append(d.report.Failures, err.Error())
	}
	for i := range d.report.Rounds {
		d.report.Failures = append(d.report.Failures, d.report.Rounds[i].Failures...)
	}
	d.report.Seconds = time.Since(start).Seconds()
	d.report.OK = len(d.report.Failures) == 0
	if !d.report.OK {
		return &d.report, fmt.Errorf("the demonstration failed:\n  %s", strings.Join(d.report.Failures, "\n  "))
	}
	d.say("Everything held: nothing crossed the wire in clear. (%.1f s)\n", d.report.Seconds)
	return &d.report, nil
}

// say prints a line of the report.
func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }

// step tells whoever waits what goes on.
func (d *demo) step(format string, args ...any) {
	fmt.Fprintf(d.progress, "… "+format+"\n", args...)
}

// fail notes what did not hold.
func (r *demoRound) fail(format string, args ...any) {
	r.Failures = append(r.Failures, r.Title+": "+fmt.Sprintf(format, args...))
}

// judge holds the round's figures to what they must be.
func (r *demoRound) judge() {
	for _, p := range r.Pings {
		if p.Received != p.Sent {
			r.fail("ping %s: %d of %d answered", p.Path, p.Received, p.Sent)
		}
	}
	for _, t := range r.TCP {
		if t.SHA256Sent != t.SHA256Got {
			r.fail("TCP %s: SHA-256 differs at the two ends", t.Path)
		}
	}
	for _, b := range r.UDP {
		// UDP may lose; a path that is idle but for this should lose next to
		// nothing.
		if !b.Intact || b.Received*100 < b.Sent*99 {
			r.fail("UDP %s: %d of %d datagrams came, all intact: %t", b.Path, b.Received, b.Sent, b.Intact)
		}
	}
	w := &r.Wire
	right, wrong := w.UDPESP, w.ESP
	if r.Over == "none" {
		right, wrong = wrong, right
	}
	switch {
	case w.Missed > 0:
		r.fail("the observer missed %d packets: no proof", w.Missed)
	case w.Other > 0:
		r.fail("%d packets crossed the wire in clear: %s", w.Other, strings.Join(w.Others, "; "))
	case w.Marked > 0:
		r.fail("the payload's marker was seen in %d packets on the wire", w.Marked)
	case w.IKE > 0 && r.IKE == nil:
		r.fail("the wire carried %d IKE messages, and the keys are manual", w.IKE)
	case right == 0 || wrong > 0:
		r.fail("the wire carried %d packets of the right encapsulation and %d of the other", right, wrong)
	case r.LAN.Marked == 0:
		r.fail("the payload's marker was not seen on the LAN either: the absence on the wire proves nothing")
	}
	if r.IKE != nil {
		r.IKE.judge(r)
	}
	for _, g := range r.Gateways {
		if len(r.Failures) > 0 && len(g.Drops) > 0 {
			r.fail("gateway %s dropped %v", g.Name, g.Drops)
		}
	}
}

// print writes the round for people.
func (r *demoRound) print(w io.Writer, number int) {
	fmt.Fprintf(w, "%d. %s\n", number, r.Title)
	if r.IKE != nil {
		r.IKE.print(w)
	}
	var t table
	for i, p := range r.Pings {
		t.row(first(i, "ping"), p.Path, fmt.Sprintf("%d of %d answered", p.Received, p.Sent), fmt.Sprintf("mean %s", short(p.RTTSeconds)))
	}
	for i, x := range r.TCP {
		equal := "SHA-256 " + x.SHA256Sent[:12] + "… at both ends"
		if x.SHA256Sent != x.SHA256Got {
			equal = "SHA-256 DIFFERS"
		}
		t.row(first(i, "TCP"), x.Path, fmt.Sprintf("%s, %s", sized(uint64(x.Bytes)), rate(x.BitsPerSecond)), equal)
	}
	for i, b := range r.UDP {
		t.row(first(i, "UDP"), b.Path, fmt.Sprintf("%s of %s arrived", grouped(uint64(b.Received)), grouped(uint64(b.Sent))), "intact: "+yesNo(b.Intact))
	}
	if r.IKE != nil {
		r.IKE.Rekey.row(&t)
	}
	_ = t.write(w, "   ") // a table in memory: only w can fail, and what follows tells
	kinds := []string{}
	for _, k := range []struct {
		name string
		n    uint64
	}{{"IKE", r.Wire.IKE}, {"ESP in UDP 4500", r.Wire.UDPESP}, {"ESP", r.Wire.ESP}, {"keepalives", r.Wire.Keepalive}, {"neighbour discovery", r.Wire.Neighbour}} {
		if k.n > 0 {
			kinds = append(kinds, k.name+" "+grouped(k.n))
		}
	}
	kinds = append(kinds, "anything else "+grouped(r.Wire.Other))
	space := ""
	if r.IKE != nil {
		space = " " // as wide as "rekey"
	}
	fmt.Fprintf(w, "   wire%s  %s\n", space, strings.Join(kinds, ", "))
	fmt.Fprintf(w, "       %s  the payload's marker: %s packets on the LAN, %s on the wire\n\n", space, grouped(r.LAN.Marked), grouped(r.Wire.Marked))
}

// first is word in the first row of its kind, and nothing below.
func first(i int, word string) string {
	if i == 0 {
		return word
	}
	return " "
}

// short is a short time in the unit that suits it.
func short(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(10 * time.Microsecond).String()
}

// rate is bits per second as people say it.
func rate(bps float64) string {
	if bps >= 1e9 {
		return fmt.Sprintf("%.2f Gbit/s", bps/1e9)
	}
	return fmt.Sprintf("%.0f Mbit/s", bps/1e6)
}
