package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
)

// demoKill is what came of killing a gateway.
type demoKill struct {
	Before demoPing `json:"before"`
	Dead   demoPing `json:"dead"`
	Why    string   `json:"why"` // what host A was told while the gateway was dead
	After  demoPing `json:"after"`
	Wire   demoWire `json:"wire"`
}

// demoDeadTimeout is how long a ping waits that should not be answered.
const demoDeadTimeout = 300 * time.Millisecond

// kill ends gateway A with SIGKILL under the observer's eyes: what it protected
// must not leave in clear, and a new gateway must carry on.
func (l *labDemo) kill(ctx context.Context) (err error) {
	l.step("gateway A: kill -9, and start again")
	spec := demoRounds[0]
	siteA, siteB, err := l.sites(l.dir, spec.suite, spec.encap)
	if err != nil {
		return err
	}
	place(&siteA, &l.net.A, &l.net.B)
	place(&siteB, &l.net.B, &l.net.A)
	wire, err := l.net.Router.Capture(netlab.CaptureOptions{Iface: l.net.A.RouterIface, Keep: -1, Marker: l.marker})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, wire.Close()) }()
	first, err := l.start(ctx, siteA, l.net.A.Gateway)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, first.end()) }()
	b, err := l.start(ctx, siteB, l.net.B.Gateway)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.end()) }()
	k := &demoKill{}
	if k.Before, _, err = l.ping(ctx, "gateway A alive", l.patience()); err != nil {
		return err
	}
	if err := first.end(); err != nil {
		return err
	}
	var refused error
	if k.Dead, refused, err = l.ping(ctx, "gateway A killed", demoDeadTimeout); err != nil {
		return err
	}
	if refused != nil {
		k.Why = reasonOf(refused)
	}
	second, err := l.start(ctx, siteA, l.net.A.Gateway)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, second.end()) }()
	if k.After, _, err = l.ping(ctx, "started again", l.patience()); err != nil {
		return err
	}
	if err := errors.Join(second.stop(), b.stop()); err != nil {
		return err
	}
	k.Wire = wireOf(wire.Summary())
	l.report.Kill = k
	return k.judge()
}

// patience is how long a ping of a gateway that has just started may take.
func (l *labDemo) patience() time.Duration {
	if l.manual {
		return time.Second
	}
	return demoFirstWait
}

// ping sends one ping from host A to host B. refused is what the network told
// host A.
func (l *labDemo) ping(ctx context.Context, path string, timeout time.Duration) (p demoPing, refused, err error) {
	stats, err := netlab.Ping(ctx, l.net.A.Host, netlab.PingOptions{Dst: l.net.B.Host4, Timeout: timeout, Marker: l.marker})
	return demoPing{path, stats.Sent, stats.Received, stats.Mean.Seconds()}, stats.LastError, err
}

// judge says what did not hold.
func (k *demoKill) judge() error {
	var errs []error
	if k.Before.Received != k.Before.Sent {
		errs = append(errs, errors.New("no ping before the kill"))
	}
	if k.Dead.Received > 0 {
		errs = append(errs, errors.New("a ping was answered while the gateway was dead"))
	}
	if k.After.Received != k.After.Sent {
		errs = append(errs, errors.New("no ping after the restart"))
	}
	if k.Wire.Other > 0 || k.Wire.Marked > 0 || k.Wire.Missed > 0 {
		errs = append(errs, fmt.Errorf("%d packets in clear, %d with the marker, %d missed by the observer", k.Wire.Other, k.Wire.Marked, k.Wire.Missed))
	}
	return errors.Join(errs...)
}

func (d *demo) sayKill(number int) {
	k := d.report.Kill
	d.say("%d. Gateway A ends by kill -9, and starts again\n", number)
	var t table
	for i, p := range []demoPing{k.Before, k.Dead, k.After} {
		text := "answered after " + short(p.RTTSeconds)
		if p.Received == 0 {
			text = "refused: " + k.Why
			if k.Why == "" {
				text = "no answer"
			}
		}
		t.row(first(i, "ping"), p.Path, text)
	}
	_ = t.write(d.out, "   ")
	if !d.manual {
		d.say("   IKE   the new process had no keys of the old one, and nobody had to touch either end\n")
	}
	d.say("   wire  %sESP in UDP 4500 %s, anything else %s: what was protected did not leave in clear\n\n", ikeMessages(k.Wire.IKE), grouped(k.Wire.UDPESP), grouped(k.Wire.Other))
}

// ikeMessages is a part of what the wire carried; "" for none.
func ikeMessages(n uint64) string {
	if n == 0 {
		return ""
	}
	return "IKE " + grouped(n) + ", "
}

// reasonOf is the innermost text of an error.
func reasonOf(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
