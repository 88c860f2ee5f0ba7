package ike

import (
	"fmt"
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

// panicEvent says where it was. The value of a panic may have been made of the
// packet's bytes, so only the runtime's own errors are told: they hold numbers.
func panicEvent(in Input, value any) Event {
	what := fmt.Sprintf("%T", value)
	if err, ok := value.(runtime.Error); ok {
		what = err.Error()
	}
	e := Event{
		Stage: StageMessage, Outcome: Failed, Reason: "panic_recovered",
		Text: fmt.Sprintf("a fault of this program in a step with %s, which was dropped: %s; please report it: %s",
			strings.TrimPrefix(fmt.Sprintf("%T", in), "ike."), what, panicPlace()),
	}
	if p, ok := in.(Packet); ok {
		e.Local, e.Remote = p.Local, p.Remote
	}
	return e
}

// panicPlace is the innermost functions that were running, without arguments.
func panicPlace() string {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])])
	var list []string
	inside := false
	for {
		f, more := frames.Next()
		if inside && len(list) < 8 && !strings.HasPrefix(f.Function, "runtime.") {
			list = append(list, fmt.Sprintf("%s:%d", f.Function[strings.LastIndexByte(f.Function, '/')+1:], f.Line))
		}
		inside = inside || f.Function == "runtime.gopanic"
		if !more {
			return strings.Join(list, " < ")
		}
	}
}
