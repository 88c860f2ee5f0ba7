package bench

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike"
)

func newTestPair(t *testing.T, l IKELoad) *ikePair {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	p, err := newIKEPair(l)
	if err != nil {
		t.Fatalf("%+v: %v", l, err)
	}
	return p
}

// measuredSomething fails for a figure that was not measured.
func measuredSomething(t *testing.T, what string, m ikeMeasure, count int) {
	t.Helper()
	if m.count != count || m.initiator <= 0 || m.responder <= 0 || m.process < m.initiator+m.responder || m.messages < 2*count || m.bytes < 28*m.messages {
		t.Errorf("%s: %+v of %d", what, m, count)
	}
}

// TestIKENegotiatesEveryGroupAndEveryAuthentication: one handshake after the other,
// and nothing is left of them.
func TestIKENegotiatesEveryGroupAndEveryAuthentication(t *testing.T) {
	var loads []IKELoad
	for _, g := range IKEGroups() {
		loads = append(loads, IKELoad{Group: g, Auth: "psk", Pairs: 2})
	}
	for _, a := range IKEAuths() {
		loads = append(loads, IKELoad{Group: "x25519", Auth: a, Pairs: 2})
	}
	for _, l := range loads {
		p := newTestPair(t, l)
		for round := range 2 {
			m, err := p.handshakes()
			if err != nil {
				t.Fatalf("%+v: %v", l, err)
			}
			measuredSomething(t, l.Group+" "+l.Auth, m, 2)
			for end, e := range p.ends {
				if want := 2 * 2 * (round + 1); e.installed != want || e.done[ike.StageAuth] != want/2 {
					t.Errorf("%+v: end %d installed %d SAs after %d authentications, want %d", l, end, e.installed, e.done[ike.StageAuth], want)
				}
			}
		}
	}
}

// TestIKERekeysAreRekeys: each gives new SAs, and takes the old ones away.
func TestIKERekeysAreRekeys(t *testing.T) {
	for _, c := range []struct {
		stage ike.Stage
		pfs   bool
		sas   int // new ones of the dataplane at each end
	}{{ike.StageRekeyChild, false, 2}, {ike.StageRekeyChild, true, 2}, {ike.StageRekeyIKE, false, 0}} {
		p := newTestPair(t, IKELoad{Group: "x25519", Auth: "psk", PFS: c.pfs, Pairs: 3})
		if err := p.establish(); err != nil {
			t.Fatal(err)
		}
		bytes := 0
		for range 3 {
			before := p.ends[ikeResponder].installed
			m, err := p.rekeys(c.stage)
			if err != nil {
				t.Fatalf("%s: %v", c.stage, err)
			}
			measuredSomething(t, string(c.stage), m, 3)
			if got := p.ends[ikeResponder].installed - before; got != 3*c.sas {
				t.Errorf("%s: %d SAs, want %d", c.stage, got, 3*c.sas)
			}
			if bytes != 0 && m.bytes != bytes {
				t.Errorf("%s: %d bytes, and %d before", c.stage, m.bytes, bytes)
			}
			bytes = m.bytes
		}
	}
}

// TestIKEFloodIsAnsweredWithCookies: every stranger beyond the threshold, and no
// state is made for any.
func TestIKEFloodIsAnsweredWithCookies(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f, err := newIKEFlood(IKELoad{Group: "x25519", Auth: "psk"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		m, err := f.cookies()
		if err != nil {
			t.Fatal(err)
		}
		if m.count != floodBatch || m.responder <= 0 || m.initiator != 0 || m.messages != floodBatch {
			t.Errorf("%+v", m)
		}
	}
}

// TestRunIKEReportsEveryRow: with figures in all of them.
func TestRunIKEReportsEveryRow(t *testing.T) {
	o := IKEOptions{Groups: []string{"x25519", "ecp256"}, Auths: []string{"psk", "ed25519"}, SAs: []int{20}, Rounds: 2, Duration: time.Millisecond, Progress: func(string) {}}
	r, err := RunIKE(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range r.Rows {
		got = append(got, strings.Join([]string{row.Work, row.Group, row.Auth}, " "))
		if len(row.Responder.Rounds) != 2 || row.Responder.Min <= 0 || row.Process.Min <= row.Responder.Min/2 || row.Gateway.Median <= row.Both.Median || row.Messages < 1 || row.Bytes < 50 {
			t.Errorf("%+v", row)
		}
		if row.Initiator.Min <= 0 && row.Work != IKECookie {
			t.Errorf("%+v", row)
		}
	}
	want := []string{"handshake x25519 psk", "handshake ecp256 psk", "handshake x25519 ed25519", "Child SA rekey x25519 psk",
		"Child SA rekey with PFS x25519 psk", "IKE SA rekey x25519 psk", "cookie x25519 psk"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(r.Memory) != 1 || r.Memory[0].SAs != 20 || r.Memory[0].Bytes.Min < 500 || r.Memory[0].Bytes.Max > 1<<20 {
		t.Errorf("memory: %+v", r.Memory)
	}
}

func TestRunIKEEndsWhenAsked(t *testing.T) {
	asked := errors.New("asked to end")
	o := IKEOptions{Groups: []string{"x25519"}, Auths: []string{"psk"}, Rounds: 1, Duration: time.Hour, Progress: func(string) {}}
	ctx, cancel := contextWithCause(t, asked)
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := RunIKE(ctx, o); !errors.Is(err, asked) {
		t.Errorf("got %v, want %v", err, asked)
	}
}
