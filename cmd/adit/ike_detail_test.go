package main

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/ctl"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
	"github.com/adit-ipsec/adit/sad"
)

// TestWhatComesToNothingIsRefused: whoever is told "begun" can rely on it.
func TestWhatComesToNothingIsRefused(t *testing.T) {
	g := &gateway{cfg: &config.Config{Peers: []config.Peer{{Name: "b", Address: netip.MustParseAddr("192.0.2.2")}, {Name: "roams"}}}}
	up := []ike.SAStatus{{State: "established", ChildSAs: []ike.ChildStatus{{Policy: "lan"}}}}
	both := []string{"lan", "voice"}
	for _, c := range []struct {
		status         ike.PeerStatus
		action, policy string
		says           string // "": it is done
	}{
		{ike.PeerStatus{Name: "b", Role: "off"}, ikeInitiate, "", ""},
		{ike.PeerStatus{Name: "b", Role: "never-rekey"}, ikeInitiate, "", ""},
		{ike.PeerStatus{Name: "b", Role: "full"}, ikeInitiate, "", "`responder_only: full`"},
		{ike.PeerStatus{Name: "b", Role: "never-initiate", SAs: up}, ikeInitiate, "", "begin at the peer"},
		{ike.PeerStatus{Name: "roams", Role: "off"}, ikeInitiate, "", "`address: any`"},
		{ike.PeerStatus{Name: "roams", Role: "off", SAs: up}, ikeInitiate, "", ""},
		{ike.PeerStatus{Name: "b", Role: "off"}, ikeRenew, "", "no IKE SA with \"b\" to renew: `adit ike initiate b`"},
		{ike.PeerStatus{Name: "b", Role: "never-initiate"}, ikeRenew, "", "the peer has to begin"},
		{ike.PeerStatus{Name: "b", Role: "passive", SAs: up}, ikeRenew, "", "renew at the peer"},
		{ike.PeerStatus{Name: "b", Role: "off", SAs: up, Policies: both}, ikeRenew, "", ""},
		{ike.PeerStatus{Name: "b", Role: "off", SAs: up, Policies: both}, ikeRenew, "*", ""},
		{ike.PeerStatus{Name: "b", Role: "off", SAs: up, Policies: both}, ikeRenew, "lan", ""},
		{ike.PeerStatus{Name: "b", Role: "off", SAs: up, Policies: both}, ikeRenew, "voice", `policy "voice" of "b" has no Child SA`},
		{ike.PeerStatus{Name: "b", Role: "off", SAs: up, Policies: both[1:]}, ikeRenew, "*", "no Child SA"},
		{ike.PeerStatus{Name: "b", Role: "passive"}, ikeTerminate, "", ""},
		{ike.PeerStatus{Name: "b", Role: "passive"}, ikeVerbose, "", ""},
	} {
		err := (*provider)(g).comesToNothing(&c.status, c.action, c.policy)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %q of %+v: %v, want %q", c.action, c.policy, c.status, err, c.says)
		}
	}
}

// TestACommandThatComesToNothingFails: asked through the socket, with a machine behind it.
func TestACommandThatComesToNothingFails(t *testing.T) {
	p, err := proposal.Parse(wire.ProtocolIKE, "aes128gcm16-prfsha256-x25519", false)
	if err != nil {
		t.Fatal(err)
	}
	machine, err := ike.New(ike.Config{Peers: []ike.Peer{{Name: "site-b", Proposals: []proposal.Proposal{p}}}})
	if err != nil {
		t.Fatal(err)
	}
	driver, err := ike.NewDriver(ike.DriverConfig{Machine: machine, Inbox: ike.NewInbox(), Transport: nowhere{}, SAD: nowhere{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go driver.Run(ctx)
	defer func() {
		cancel()
		<-driver.Done()
	}()
	cfg := &config.Config{Peers: []config.Peer{{Name: "site-b"}}}
	g := &gateway{log: slog.New(slog.DiscardHandler), cfg: cfg, ready: true, ike: &ikeService{driver: driver}}
	socket := filepath.Join(t.TempDir(), "adit.sock")
	server, err := ctl.Serve(socket, (*provider)(g))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	for args, says := range map[string]string{
		"ike rekey site-b":     "there is no IKE SA with \"site-b\" to renew",
		"ike initiate site-b":  "\"site-b\" has `address: any`",
		"ike rekey site-c":     "IKE speaks with no peer \"site-c\"; it speaks with site-b",
		"ike terminate site-b": "",
	} {
		_, stderr, code := aditIn(t, t.TempDir(), append(strings.Fields(args), "--control", socket)...)
		if (code == exitDone) != (says == "") || !strings.Contains(stderr, says) {
			t.Errorf("%s: exit code %d, %q; want %q", args, code, stderr, says)
		}
	}
}

// TestNobodyRenewsWhereTheRoleForbidsIt: a soft lifetime of an end that never rekeys is
// no time at which keys are renewed.
func TestNobodyRenewsWhereTheRoleForbidsIt(t *testing.T) {
	for role, want := range map[string]float64{"off": 3540, "never-initiate": 3540, "never-rekey": -1, "full": -1, "passive": -1} {
		p := viewIKEPeer(&ike.PeerStatus{Name: "b", Role: role, SAs: []ike.SAStatus{{ChildSAs: []ike.ChildStatus{{Policy: "lan", SPIIn: 0x1001}}}}})
		viewCarried([]*controlv1.IKEPeer{p}, []sad.Stats{{
			ID: sad.ID{Direction: sad.Inbound, SPI: 0x1001, Peer: "b"}, Life: sad.Life{Limits: sad.Lifetime{Soft: time.Hour}},
		}}, int64(time.Minute))
		if c := p.GetSas()[0].GetChildren()[0]; c.GetRenewSeconds() != want || c.GetAgeSeconds() != 60 {
			t.Errorf("%s: renewed in %v s at the age of %v s, want %v and 60", role, c.GetRenewSeconds(), c.GetAgeSeconds(), want)
		}
	}
}

// negotiating is a gateway whose peer becomes something else at the third question.
type negotiating struct {
	asked
	questions atomic.Int32
	then      *controlv1.IKEPeer
}

func (n *negotiating) ListIKE(context.Context, *controlv1.ListIKERequest) (*controlv1.ListIKEResponse, error) {
	p := &controlv1.IKEPeer{
		Name: "site-b", State: ikeNegotiating, Policies: []string{"lan"}, Missing: []string{"lan"},
		// What failed before the command is not what came of it.
		Trouble: &controlv1.IKETrouble{Stage: "IKE_AUTH", Reason: "timeout", Seconds: 3600},
	}
	if n.questions.Add(1) >= 3 {
		p = n.then
	}
	return &controlv1.ListIKEResponse{Peers: []*controlv1.IKEPeer{p}}, nil
}

// TestInitiateWaitsForTheEnd: with --wait it says what came of it, by its exit code too.
func TestInitiateWaitsForTheEnd(t *testing.T) {
	for _, c := range []struct {
		name           string
		then           *controlv1.IKEPeer
		args           string
		code           int
		stdout, stderr string
	}{
		{"up", &controlv1.IKEPeer{Name: "site-b", State: ikeUp, Policies: []string{"lan"}}, "--wait 20s", exitDone, "site-b: up, after ", ""},
		{"the policy is up, another is not", &controlv1.IKEPeer{Name: "site-b", State: ikeUp, Missing: []string{"voice"}}, "lan --wait 20s", exitDone, "site-b: up, after ", ""},
		{"not all are up", &controlv1.IKEPeer{Name: "site-b", State: ikeUp, Missing: []string{"voice"}}, "--wait 300ms", exitFailed, "", "waited 300ms: site-b is not up: it is up, without voice;"},
		{"as JSON", &controlv1.IKEPeer{Name: "site-b", State: ikeUp}, "--wait 20s --json", exitDone, "{\n  \"name\": \"site-b\",\n  \"state\": \"up\",", ""},
		{
			"failed", &controlv1.IKEPeer{Name: "site-b", State: ikeDown, Missing: []string{"lan"}, Trouble: &controlv1.IKETrouble{
				Stage: "IKE_AUTH", Reason: "wrong_identity", Text: "the peer is somebody else", Theirs: "c.example.net", Ours: "b.example.net",
			}}, "--wait 20s", exitFailed, "", "adit: site-b: IKE_AUTH failed 0s ago: wrong_identity: the peer is somebody else\n  theirs: c.example.net\n  ours:   b.example.net\n",
		},
		{"nothing comes", &controlv1.IKEPeer{Name: "site-b", State: ikeNegotiating, Missing: []string{"lan"}}, "--wait 300ms", exitFailed, "", "adit: waited 300ms: site-b is not up: it is negotiating; `adit ike list`"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, socket := &negotiating{then: c.then}, filepath.Join(t.TempDir(), "adit.sock")
			server, err := ctl.Serve(socket, n)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = server.Close() }()
			stdout, stderr, code := aditIn(t, t.TempDir(), append(strings.Fields("ike initiate site-b "+c.args), "--control", socket)...)
			if code != c.code || !strings.HasPrefix(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) || c.stderr == "" && stderr != "" {
				t.Errorf("exit code %d, %q, %q; want %d, %q, %q", code, stdout, stderr, c.code, c.stdout, c.stderr)
			}
		})
	}
}

// TestAGatewayThatStopsSaysSo: and not what became of a goroutine.
func TestAGatewayThatStopsSaysSo(t *testing.T) {
	machine, err := ike.New(ike.Config{})
	if err != nil {
		t.Fatal(err)
	}
	driver, err := ike.NewDriver(ike.DriverConfig{Machine: machine, Inbox: ike.NewInbox(), Transport: nowhere{}, SAD: nowhere{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	driver.Run(ctx)
	g := &gateway{ready: true, ike: &ikeService{driver: driver}}
	socket := filepath.Join(t.TempDir(), "adit.sock")
	server, err := ctl.Serve(socket, (*provider)(g))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	for _, args := range []string{"ike list", "ike initiate site-b", "ike terminate site-b"} {
		_, stderr, code := aditIn(t, t.TempDir(), append(strings.Fields(args), "--control", socket)...)
		if code != exitFailed || stderr != "adit: the gateway is stopping\n" {
			t.Errorf("%s: exit code %d, %q", args, code, stderr)
		}
	}
}
