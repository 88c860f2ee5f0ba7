package ike

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// A fault of this program must not become a stranger's way to end a gateway. So a
// step that panics is recovered at its boundary: it is counted (panic_recovered),
// logged with the place in the code and without a byte of the packet, and what it was
// about is dropped. Every suite fails where the counter is not zero: it is never how
// anything is meant to be handled.

// tickPause keeps a tick that panics from being taken again at once, for ever.
const tickPause = time.Second

// guarded steps the machine. Nothing is done of a step that panics.
func (d *Driver) guarded(in Input) (actions []Action) {
	now := d.cfg.Clock()
	defer func() {
		if r := recover(); r != nil {
			actions = nil
			if _, tick := in.(Tick); tick {
				d.pause = now + tickPause
			}
			d.panics.Add(1)
			d.cfg.Log(panicEvent(in, r))
		}
	}()
	return d.machine.Step(now, in)
}

// safely asks the machine something that is no step, and tells whether it has answered.
func (d *Driver) safely(what string, ask func()) (answered bool) {
	defer func() {
		if r := recover(); r != nil {
			d.panics.Add(1)
			d.cfg.Log(faultEvent("a question for "+what+", which has no answer", r))
		}
	}()
	ask()
	return true
}

// deadline is when the machine wants to be stepped. If it cannot say so it is asked
// again in a while, and stepped: its timers may be all that it has.
func (d *Driver) deadline() (at time.Duration, ok bool) {
	now := d.cfg.Clock()
	if now < d.pause {
		return d.pause, true
	}
	if !d.safely("the deadline", func() { at, ok = d.machine.Deadline() }) {
		d.pause = now + tickPause
		return d.pause, true
	}
	return at, ok
}

// status is the state of every peer; not ok: the machine cannot say it.
func (d *Driver) status() (list []PeerStatus, ok bool) {
	ok = d.safely("the status", func() { list = d.machine.Status() })
	return list, ok
}

// errFault: the answer is not to be had.
var errFault = errors.New("ike: a fault of this program: the log has panic_recovered, please report it")

// panicEvent says where it was.
func panicEvent(in Input, value any) Event {
	e := faultEvent(fmt.Sprintf("a step with %s, which was dropped", strings.TrimPrefix(fmt.Sprintf("%T", in), "ike.")), value)
	if p, ok := in.(Packet); ok {
		e.Local, e.Remote = p.Local, p.Remote
	}
	return e
}

// faultEvent says what it was about and where. The value of a panic may have been made
// of a packet's bytes, so only the runtime's own errors are told: they hold numbers.
func faultEvent(about string, value any) Event {
	what := fmt.Sprintf("%T", value)
	if err, ok := value.(runtime.Error); ok {
		what = err.Error()
	}
	return Event{
		Stage: StageMessage, Outcome: Failed, Reason: "panic_recovered",
		Text:  fmt.Sprintf("a fault of this program in %s: %s; please report it with its stack", about, what),
		Stack: panicStack(),
	}
}

// maxFrames is how many functions of a stack are told.
const maxFrames = 32

// panicStack is the functions that were running, the innermost first. A stack as the
// runtime prints it has their arguments, which may be keys: here are only names.
func panicStack() string {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])])
	var list []string
	inside := false
	for {
		f, more := frames.Next()
		if inside && len(list) < maxFrames && !strings.HasPrefix(f.Function, "runtime.") {
			list = append(list, fmt.Sprintf("%s %s:%d", f.Function[strings.LastIndexByte(f.Function, '/')+1:], filepath.Base(f.File), f.Line))
		}
		inside = inside || f.Function == "runtime.gopanic"
		if !more {
			return strings.Join(list, " < ")
		}
	}
}
