package swan

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// reload has adit read its file again and waits until it has.
func (r *rig) reload() {
	r.t.Helper()
	const applied = "the file is applied again"
	before := strings.Count(r.adit.Log(), applied)
	if err := r.adit.Process().Signal(syscall.SIGHUP); err != nil {
		r.t.Fatal(err)
	}
	r.eventually("adit has read its file again", func() bool { return strings.Count(r.adit.Log(), applied) > before })
}

// Every combination of role, authentication, encryption and key exchange comes up
// with what was asked for and carries data both ways.
func TestRootInteropMatrix(t *testing.T) {
	for _, auth := range auths {
		t.Run(auth, func(t *testing.T) {
			r := newRig(t, auth, 4*time.Minute)
			for _, c := range cells() {
				if c.auth != auth {
					continue
				}
				t.Run(c.esp+"/"+c.ke+"/"+c.role, func(t *testing.T) {
					r.t = t
					r.cell(c)
				})
			}
		})
	}
}

// cell brings one combination up and takes it down again.
func (r *rig) cell(c cell) {
	r.t.Helper()
	s := settings{esp: c.esp, ike: c.ike(), start: "traffic"}
	if c.role == "initiator" {
		s.start = "now"
	}
	r.configure(s)
	if c.role == "responder" {
		if err := r.swan.Initiate("lan"); err != nil {
			r.t.Fatalf("%v\nadit:\n%s", err, tail(r.adit.Log()))
		}
	}
	sa := r.up()
	encr, dh := c.wants()
	if sa.Encr != encr || sa.DH != dh || sa.Children[0].Encr != encr {
		r.t.Errorf("expected %s and %s, strongSwan lists the IKE SA with %s and %s, the Child SA with %s", encr, dh, sa.Encr, sa.DH, sa.Children[0].Encr)
	}
	if sa.Initiator != (c.role == "responder") {
		r.t.Errorf("strongSwan lists itself as initiator: %v", sa.Initiator)
	}
	r.carries()
	if out, err := r.adit.Command("ike", "terminate", "swan"); err != nil {
		r.t.Fatalf("adit ike terminate: %v: %s", err, out)
	}
	r.eventually("no SA at strongSwan", func() bool { return len(r.swan.SAs()) == 0 })
}
