package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/internal/ctl"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// asked is a gateway that writes down what it is asked to change.
type asked struct {
	ctl.Provider
	mu      sync.Mutex
	changes []*controlv1.ChangeIKERequest // guarded by mu
}

// take returns what was asked since the last time.
func (a *asked) take() []*controlv1.ChangeIKERequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	changes := a.changes
	a.changes = nil
	return changes
}

func (a *asked) ChangeIKE(_ context.Context, r *controlv1.ChangeIKERequest) (*controlv1.ChangeIKEResponse, error) {
	if r.GetPeer() == "nobody" {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New(`IKE speaks with no peer "nobody"; it speaks with site-b`))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changes = append(a.changes, r)
	return &controlv1.ChangeIKEResponse{}, nil
}

func (a *asked) ListIKE(context.Context, *controlv1.ListIKERequest) (*controlv1.ListIKEResponse, error) {
	return &controlv1.ListIKEResponse{Peers: ikeSample()}, nil
}

func serveAsked(t *testing.T) (a *asked, socket string) {
	t.Helper()
	a, socket = &asked{}, filepath.Join(t.TempDir(), "run", "adit.sock")
	server, err := ctl.Serve(socket, a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return a, socket
}

// TestIKECommandsAskForWhatTheySay: each command is one request, and what is refused
// is said in the gateway's words.
func TestIKECommandsAskForWhatTheySay(t *testing.T) {
	a, socket := serveAsked(t)
	for _, c := range []struct {
		args                 string
		action, peer, policy string // "": exit code 2
		says                 string
	}{
		{"ike initiate site-b", "initiate", "site-b", "", "site-b: begun, where it was missing. `adit ike list` and the gateway's log say what comes of it, and so does --wait 10s.\n"},
		{"ike initiate site-b lan", "initiate", "site-b", "lan", "site-b, lan: begun"},
		{"ike rekey site-b", "renew", "site-b", "", "site-b: new keys are asked for"},
		{"ike rekey site-b lan", "renew", "site-b", "lan", "site-b, lan: new keys"},
		{"ike rekey --children site-b", "renew", "site-b", "*", "site-b, all Child SAs: new keys"},
		{"ike terminate site-b", "terminate", "site-b", "", "site-b: ended"},
		{"ike terminate site-b lan", "terminate", "site-b", "lan", "site-b, lan: ended"},
		{"ike terminate --all", "terminate", "", "", "every peer: ended"},
		{"ike log --verbose on site-b", "verbose", "site-b", "", "site-b: each message is in the gateway's log now, with its payloads.\n"},
		{"ike log --verbose off", "quiet", "", "", "every peer: the gateway's log is as usual.\n"},
		{"ike terminate --all --json", "terminate", "", "", "{\n  \"action\": \"terminate\",\n  \"peer\": \"\",\n  \"policy\": \"\"\n}\n"},

		{"ike initiate", "", "", "", "which peer?"},
		{"ike terminate", "", "", "", "which peer?"},
		{"ike terminate --all site-b", "", "", "", "--all means every peer"},
		{"ike rekey --children site-b lan", "", "", "", "--children means every policy"},
		{"ike initiate a b c", "", "", "", "accepts between 0 and 2 arg(s), received 3"},
		{"ike log", "", "", "", `--verbose "": write on or off`},
		{"ike log --verbose loud", "", "", "", "write on or off"},
	} {
		t.Run(c.args, func(t *testing.T) {
			stdout, stderr, code := aditIn(t, t.TempDir(), append(strings.Fields(c.args), "--control", socket)...)
			changes := a.take()
			if c.action == "" {
				if code != exitUsage || !strings.Contains(stderr, c.says) || len(changes) != 0 {
					t.Errorf("exit code %d, %q, and %d requests; want 2, %q and none", code, stderr, len(changes), c.says)
				}
				return
			}
			if code != exitDone || stderr != "" || !strings.HasPrefix(stdout, c.says) {
				t.Errorf("exit code %d, %q, %q; want 0 and %q", code, stdout, stderr, c.says)
			}
			if len(changes) != 1 {
				t.Fatalf("%d requests", len(changes))
			}
			if r := changes[0]; r.GetAction() != c.action || r.GetPeer() != c.peer || r.GetPolicy() != c.policy {
				t.Errorf("asked %v", r)
			}
		})
	}
	_, stderr, code := aditIn(t, t.TempDir(), "ike", "initiate", "nobody", "--control", socket)
	if want := "adit: IKE speaks with no peer \"nobody\"; it speaks with site-b\n"; code != exitFailed || stderr != want {
		t.Errorf("exit code %d, %q; want 1, %q", code, stderr, want)
	}
}

// TestRootK10_ChangesNeedTheSocketsOwner: who may not use the socket changes nothing,
// and is told so.
func TestRootK10_ChangesNeedTheSocketsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: run the unprivileged tier with -skip Root")
	}
	a, socket := serveAsked(t)
	// The stranger may reach the directory; the socket itself is what refuses.
	for dir := filepath.Dir(socket); len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(filepath.Dir(socket), "adit")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, args := range [][]string{{"ike", "terminate", "site-b"}, {"ike", "rekey", "site-b"}, {"ike", "log", "--verbose", "on"}, {"ike", "list"}} {
		cmd := exec.Command(program, append(args, "--control", socket)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitFailed || !strings.Contains(string(out), "no permission to use "+socket) {
			t.Errorf("%v as nobody: %v, %q; want exit code 1 and \"no permission\"", args, err, out)
		}
	}
	if changes := a.take(); len(changes) != 0 {
		t.Errorf("a stranger changed %v", changes)
	}
}

// ikeSample is three peers: one that is up, one that is being negotiated with, and one
// that is down.
func ikeSample() []*controlv1.IKEPeer {
	status := []ike.PeerStatus{
		{Name: "site-b", Role: "off", Policies: []string{"lan", "voice"}, Start: ike.AtOnce, Verbose: true, SAs: []ike.SAStatus{{
			SPIi: 0x1122334455667788, SPIr: 0x99, State: "established", Initiator: true,
			Local: netip.MustParseAddrPort("192.0.2.1:4500"), Remote: netip.MustParseAddrPort("192.0.2.2:4500"),
			Suite: "aes256gcm16-prfsha384-x25519", LocalID: "a.example.net", PeerID: "b.example.net", Authentication: "psk",
			Age: 90 * time.Second, Heard: 2 * time.Second, RekeyIn: 4 * time.Hour, PeerBehindNAT: true,
			ChildSAs: []ike.ChildStatus{{Policy: "lan", SPIIn: 0x1001, SPIOut: 0x2001, Suite: "aes128gcm16"}},
		}}},
		{Name: "site-c", Role: "off", Policies: []string{"c"}, Wanted: []string{"c"}, SAs: []ike.SAStatus{{State: "starting", Initiator: true, Asking: "IKE_SA_INIT", Transmissions: 3}}},
		{Name: "site-d", Policies: []string{"d"}, Role: "full", RetryIn: 4 * time.Second, Trouble: &ike.Trouble{
			Ago: 12 * time.Second, Event: ike.Event{
				Stage: ike.StageInit, Reason: "no_proposal_chosen", Text: "nothing in common", Theirs: "aes128-sha1\x1b[2J", Ours: "aes256gcm16", Fix: "add one",
			},
		}},
	}
	var list []*controlv1.IKEPeer
	for i := range status {
		list = append(list, viewIKEPeer(&status[i]))
	}
	selector, err := spd.ParseSelector("local=10.1.0.0/16 remote=10.2.0.0/16 protocol=tcp")
	if err != nil {
		panic(err)
	}
	installed := []sad.Stats{
		{ID: sad.ID{Direction: sad.Inbound, SPI: 0x1001, Peer: "site-c"}, Packets: 77},
		{ID: sad.ID{Direction: sad.Outbound, SPI: 0x1001, Peer: "site-b"}, Packets: 77},
		{
			ID: sad.ID{Direction: sad.Inbound, SPI: 0x1001, Peer: "site-b"}, Selectors: []spd.Selector{selector, selector},
			Packets: 12345, Bytes: 6_000_000, Life: sad.Life{Born: int64(time.Minute), Limits: sad.Lifetime{Soft: time.Hour}},
		},
		{ID: sad.ID{Direction: sad.Outbound, SPI: 0x2001, Peer: "site-b"}, Packets: 1, Bytes: 84},
	}
	viewSelectors(list, installed)
	viewCarried(list, installed, int64(2*time.Minute))
	return list
}

func TestIKEListSaysWhatIsUp(t *testing.T) {
	_, socket := serveAsked(t)
	stdout, stderr, code := aditIn(t, t.TempDir(), "ike", "list", "--control", socket)
	if code != exitDone {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	want := `
PEER    STATE        AGE    REKEY IN  ROLE  BEGUN BY  PROVED BY  REMOTE          PEER ID        SUITE                         NAT       CHILD SAS            OUR ID         HEARD   SPIS                               NOTE
site-b  established  1m30s  4h0m      off   us        psk        192.0.2.2:4500  b.example.net  aes256gcm16-prfsha384-x25519  the peer  1 (1 of 2 policies)  a.example.net  2s ago  1122334455667788 0000000000000099  verbose log
site-c  starting     0s     -         off   us        -          -               -              -                             none      0 (0 of 1 policies)  -              -       0000000000000000 0000000000000000  wants a Child SA for c; no answer to 3 transmissions of IKE_SA_INIT
site-d  down         -      -         full  -         -          -               -              -                             -         0 (0 of 1 policies)  -              -       -                                  failed, tried again in 4s

PEER    POLICY  SPI IN  SPI OUT  SUITE        AGE  REKEY IN  RECEIVED                SENT            CARRIES
site-b  lan     0x1001  0x2001   aes128gcm16  1m   59m       12 345 packets, 6.0 MB  1 packet, 84 B  local=10.1.0.0/16 remote=10.2.0.0/16 protocol=tcp or local=10.1.0.0/16 remote=10.2.0.0/16 protocol=tcp

site-d: IKE_SA_INIT failed 12s ago: no_proposal_chosen: nothing in common
  theirs: aes128-sha1?[2J
  ours:   aes256gcm16
  fix:    add one
`
	if "\n"+stdout != want {
		t.Errorf("got%s\nwant%s", "\n"+stdout, want)
	}
	missing := missingIKE(ikeSample())
	if len(missing) != 1 || missing[0] != `Child SA of policy "voice" with peer "site-b"` {
		t.Errorf("missing: %q", missing)
	}
}

// TestIKEInputOfAnEvent: what the engine says, and what the machine hears.
func TestIKEInputOfAnEvent(t *testing.T) {
	from, old := netip.MustParseAddrPort("192.0.2.2:4500"), netip.MustParseAddrPort("192.0.2.3:4500")
	for _, c := range []struct {
		event dataplane.Event
		want  ike.Input
	}{
		{dataplane.Event{Kind: dataplane.Acquire, Peer: "b", Policy: "lan"}, ike.Acquire{Peer: "b", Policy: "lan"}},
		{
			dataplane.Event{Kind: dataplane.SoftExpire, Peer: "b", SPI: 7, Direction: sad.Inbound, Protocol: sad.AH},
			ike.Expired{ID: sad.ID{Direction: sad.Inbound, SPI: 7, Peer: "b", Protocol: sad.AH}, Soft: true},
		},
		{dataplane.Event{Kind: dataplane.HardExpire, Peer: "b", SPI: 7}, ike.Expired{ID: sad.ID{SPI: 7, Peer: "b"}}},
		{
			dataplane.Event{Kind: dataplane.SeqOverflow, Peer: "b", SPI: 7, Direction: sad.Inbound, Protocol: sad.AH},
			ike.Expired{ID: sad.ID{Direction: sad.Outbound, SPI: 7, Peer: "b", Protocol: sad.AH}, Soft: true},
		},
		{dataplane.Event{Kind: dataplane.PeerMoved, Peer: "b", From: from, Old: old}, ike.Moved{Peer: "b", Old: old, New: from}},
		{dataplane.Event{Kind: dataplane.Audit, Peer: "b"}, nil},
		{dataplane.Event{Kind: dataplane.AuthFailures, Peer: "b"}, nil},
		{dataplane.Event{Kind: dataplane.PeerElsewhere, Peer: "b"}, nil},
		{dataplane.Event{Kind: dataplane.BadSPI, SPI: 7}, nil},
	} {
		if got := ikeInput(&c.event); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.event.Kind, got, c.want)
		}
	}
}

// TestNegotiationLogIsOneLinePerStage: with peer and stage, and on failure what both
// ends say and what would help; what is not known is left out.
func TestNegotiationLogIsOneLinePerStage(t *testing.T) {
	for _, c := range []struct {
		event ike.Event
		want  string
	}{
		{
			ike.Event{
				Peer: "b", Stage: ike.StageInit, Outcome: ike.Failed, Reason: "no_proposal_chosen", Text: "the peer offers nothing that we take",
				Theirs: "aes128-sha1-modp1024", Ours: "aes256gcm16-prfsha384-x25519", Fix: "add aes128-sha256-modp2048 to the peer",
				Remote: netip.MustParseAddrPort("192.0.2.2:500"), SPIi: 0xab, Retransmits: 2,
			},
			`level=WARN msg="the peer offers nothing that we take" event=IKE peer=b stage=IKE_SA_INIT outcome=failed reason=no_proposal_chosen ` +
				`theirs=aes128-sha1-modp1024 ours=aes256gcm16-prfsha384-x25519 fix="add aes128-sha256-modp2048 to the peer" remote=192.0.2.2:500 ` +
				"spi_i=00000000000000ab spi_r=0000000000000000 retransmits=2\n",
		},
		{
			ike.Event{Peer: "b", Stage: ike.StageChild, Outcome: ike.Done, Policy: "lan", Suite: "aes128gcm16", SPIIn: 0x1001, SPIOut: 0x2001, Took: 1234567},
			"level=INFO msg=CHILD_SA event=IKE peer=b stage=CHILD_SA outcome=done policy=lan suite=aes128gcm16 spi_in=0x1001 spi_out=0x2001 took=1.23ms\n",
		},
		{
			ike.Event{Stage: ike.StageMessage, Outcome: ike.Failed, Reason: "panic_recovered", Text: "a fault", Stack: "ike.f f.go:7 < ike.g g.go:9"},
			"level=ERROR msg=\"a fault\" event=IKE stage=message outcome=failed reason=panic_recovered stack=\"ike.f f.go:7 < ike.g g.go:9\"\n",
		},
		{ike.Event{Stage: ike.StageMessage, Outcome: ike.Began}, "level=DEBUG msg=message event=IKE stage=message outcome=began\n"},
		{ike.Event{Stage: ike.StageMessage, Outcome: ike.Detail, Text: "x"}, "level=INFO msg=x event=IKE stage=message outcome=detail\n"},
	} {
		var b bytes.Buffer
		log := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
		logIKE(log, &c.event)
		if b.String() != c.want {
			t.Errorf("got  %swant %s", b.String(), c.want)
		}
	}
}

func TestIKECounterNames(t *testing.T) {
	for name, want := range map[string]string{"send_errors": "IKESendErrors", "received": "IKEReceived", "panic_recovered": "IKEPanicRecovered"} {
		if got := ikeCounterName(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}
