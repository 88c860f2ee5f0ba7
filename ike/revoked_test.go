package ike

import (
	"crypto/x509"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/internal/pki"
)

var addrOfC = netip.MustParseAddr("192.0.2.3")

// hub is B with the clients A and C, which are peers of their own there or come both by
// one peer of any name.
type hub struct {
	r       *rig
	a, b, c *end
	peers   []Peer // of B
	root    *pki.Entity
}

func newHub(t *testing.T, anybody bool) *hub {
	t.Helper()
	h := &hub{r: newRig(t), root: newRoot(t)}
	pa, pb := peerAt(t, "A"), peerAt(t, "B")
	certify(t, &pa, &pb, h.root, pki.P256)
	pc := pa
	pc.Local = addrOfC
	leaf, err := h.root.Issue(pki.Options{Name: "c.example.net", DNS: []string{"c.example.net"}, From: epoch.Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	pc.Auth = auth.Local{ID: identity(t, "c.example.net"), Chain: leaf.Chain(), Signer: leaf.Key}
	pbc := pb
	pbc.Name, pbc.Remote, pbc.Remotely.ID = "C", addrOfC, pc.Auth.ID
	if h.peers = []Peer{pb, pbc}; anybody {
		pb.Remote, pb.Remotely.ID = netip.Addr{}, auth.Identity{}
		h.peers = []Peer{pb}
	}
	h.a = h.r.add("A", Config{Peers: []Peer{pa}}, addrA.String())
	h.b = h.r.add("B", Config{Peers: h.peers}, addrB.String())
	h.c = h.r.add("C", Config{Peers: []Peer{pc}}, addrOfC.String())
	h.a.step(Initiate{Peer: "B"})
	h.c.step(Initiate{Peer: "B"})
	h.r.run(time.Second)
	if len(h.b.establishedSAs()) != 2 || len(h.a.establishedSAs()) != 1 || len(h.c.establishedSAs()) != 1 {
		t.Fatalf("not up: %d IKE SAs\n%s", len(h.b.establishedSAs()), lines(h.b.log))
	}
	return h
}

// reload gives B's peers a new list of the root.
func (h *hub) reload(t *testing.T, policy auth.Policy, revoked ...*x509.Certificate) {
	t.Helper()
	list, err := h.root.CRL(epoch.Add(-time.Hour), epoch.Add(24*time.Hour), revoked...)
	if err != nil {
		t.Fatal(err)
	}
	peers := slices.Clone(h.peers)
	for i := range peers {
		peers[i].Remotely.Revocation = auth.Revocation{Policy: policy, CRLs: []*x509.RevocationList{list}}
	}
	h.b.step(Configure{Peers: peers})
}

// revocations are the events that say so.
func (e *end) revocations() (said []Event) {
	for _, ev := range e.failures() {
		if ev.Reason == "revoked" {
			said = append(said, ev)
		}
	}
	return said
}

// TestRevokedPeersAreEnded: the reload that brings the news of a revoked certificate
// ends the IKE SA that came up by it, with its Child SAs and one event; the other peer,
// of a good certificate, notices nothing. The peer's next attempt is refused.
func TestRevokedPeersAreEnded(t *testing.T) {
	for name, anybody := range map[string]bool{"a peer each": false, "one peer for all": true} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t, anybody)
			stays := h.c.establishedSAs()[0]
			certA := h.a.m.peers["B"].Auth.Chain[0]
			h.reload(t, auth.RevocationOff, certA)
			h.reload(t, auth.RevocationRelaxed)
			h.r.run(time.Second)
			if n := len(h.b.establishedSAs()); n != 2 || len(h.b.failures()) != 0 {
				t.Fatalf("news that revoke nobody: %d IKE SAs left\n%s", n, lines(h.b.log))
			}
			h.reload(t, auth.RevocationStrict, certA)
			h.reload(t, auth.RevocationRelaxed, certA) // once more: it is being ended already
			h.reload(t, auth.RevocationStrict, certA)
			if said := h.b.revocations(); len(said) != 1 || said[0].Stage != StageDelete || said[0].RemoteID != "a.example.net" || said[0].Text == "" || said[0].Fix == "" {
				t.Errorf("not one event that says so:\n%s", lines(h.b.log))
			}
			if len(h.b.sad) != 2 {
				t.Errorf("%d SAs, of C alone there are 2", len(h.b.sad))
			}
			h.r.run(10 * time.Second)
			if left := h.b.establishedSAs(); len(left) != 1 || left[0].proved.ID().String() != "c.example.net" {
				t.Errorf("left: %d IKE SAs", len(left))
			}
			if now := h.c.establishedSAs(); len(now) != 1 || now[0] != stays || len(h.c.failures()) != 0 {
				t.Errorf("C was disturbed:\n%s", lines(h.c.log))
			}
			if len(h.a.establishedSAs()) != 0 || len(h.a.sad) != 0 {
				t.Errorf("A has not been told:\n%s", lines(h.a.log))
			}
			h.a.step(Initiate{Peer: "B"})
			h.r.run(2 * time.Second)
			if said := h.b.revocations(); len(said) != 2 || said[1].Stage != StageAuth || len(h.b.establishedSAs()) != 1 {
				t.Errorf("A tries again:\n%s", lines(h.b.log))
			}
		})
	}
}

// TestRevokedWhileRekeying: the proof goes with the IKE SA from one rekey to the next,
// and an IKE SA that is being renewed in that moment is not left over.
func TestRevokedWhileRekeying(t *testing.T) {
	for at := time.Duration(0); at < 60*time.Millisecond; at += 5 * time.Millisecond {
		for _, by := range []string{"A", "B"} {
			h := newHub(t, false)
			certA := h.a.m.peers["B"].Auth.Chain[0]
			h.b.step(Rekey{Peer: "A"})
			h.r.run(10 * time.Second)
			if by == "A" {
				h.a.step(Rekey{Peer: "B"})
			} else {
				h.b.step(Rekey{Peer: "A"})
			}
			h.r.run(at)
			h.reload(t, auth.RevocationRelaxed, certA)
			h.r.run(2 * time.Minute)
			if left := h.b.establishedSAs(); len(left) != 1 || left[0].proved.ID().String() != "c.example.net" || len(h.b.sad) != 2 {
				t.Fatalf("%s rekeys, %s later: %d IKE SAs, %d SAs are left\n%s", by, at, len(left), len(h.b.sad), lines(h.b.log))
			}
			if len(h.a.establishedSAs()) != 0 || len(h.a.sad) != 0 {
				t.Fatalf("%s rekeys, %s later: A has %d SAs\n%s", by, at, len(h.a.sad), lines(h.a.log))
			}
		}
	}
}

// TestARevokedPeerMayHaveAnotherCertificate: a peer that is to be up is begun with
// again, and comes up once it has a certificate that is not revoked.
func TestARevokedPeerMayHaveAnotherCertificate(t *testing.T) {
	root := newRoot(t)
	var pa, pb Peer
	r, a, b := pair(t, func(x, y *Peer) {
		certify(t, x, y, root, pki.P256)
		y.Start = AtOnce
		pa, pb = *x, *y
	})
	r.run(5 * time.Second)
	r.wantUp(a, b, 1)
	list, err := root.CRL(epoch.Add(-time.Hour), epoch.Add(24*time.Hour), pa.Auth.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	pb.Remotely.Revocation = auth.Revocation{Policy: auth.RevocationRelaxed, CRLs: []*x509.RevocationList{list}}
	b.step(Configure{Peers: []Peer{pb}})
	r.run(10 * time.Second)
	if said := b.revocations(); len(said) < 2 || said[1].Stage != StageAuth || len(b.establishedSAs()) != 0 {
		t.Fatalf("B has not tried again:\n%s", lines(b.log))
	}
	certify(t, &pa, &Peer{}, root, pki.P256)
	a.step(Configure{Peers: []Peer{pa}})
	r.run(2 * time.Minute)
	if len(a.establishedSAs()) != 1 || len(b.establishedSAs()) != 1 {
		t.Errorf("%d and %d IKE SAs\n%s", len(a.establishedSAs()), len(b.establishedSAs()), lines(b.log))
	}
	r.wantPairs(a, b, 1)
}
