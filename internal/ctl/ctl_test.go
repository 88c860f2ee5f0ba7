package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
)

// fixed answers with the same messages always.
type fixed struct{}

func (fixed) Status(context.Context, *controlv1.StatusRequest) (*controlv1.StatusResponse, error) {
	return &controlv1.StatusResponse{Name: "site-a", Ready: true, Peers: []*controlv1.Peer{{Name: "site-b", Posture: "encrypted"}}}, nil
}

func (fixed) Counters(context.Context, *controlv1.CountersRequest) (*controlv1.CountersResponse, error) {
	return &controlv1.CountersResponse{Drops: []*controlv1.Counter{{Name: "InAuth", Value: 1<<64 - 1}}}, nil
}

func (fixed) ListSAs(context.Context, *controlv1.ListSAsRequest) (*controlv1.ListSAsResponse, error) {
	return &controlv1.ListSAsResponse{Sas: []*controlv1.SecurityAssociation{{Direction: "out", Spi: 0x2001}}}, nil
}

func (fixed) ListPolicies(context.Context, *controlv1.ListPoliciesRequest) (*controlv1.ListPoliciesResponse, error) {
	return &controlv1.ListPoliciesResponse{Policies: []*controlv1.Policy{{Name: "lan", Local: []string{"10.1.0.0/24"}}}}, nil
}

func (fixed) ListIKE(context.Context, *controlv1.ListIKERequest) (*controlv1.ListIKEResponse, error) {
	return &controlv1.ListIKEResponse{Peers: []*controlv1.IKEPeer{{Name: "site-b", State: "up"}}}, nil
}

func (fixed) ChangeIKE(_ context.Context, r *controlv1.ChangeIKERequest) (*controlv1.ChangeIKEResponse, error) {
	if r.GetPeer() != "site-b" {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("no peer \""+r.GetPeer()+"\""))
	}
	return &controlv1.ChangeIKEResponse{}, nil
}

func serve(t *testing.T, path string) *Server {
	t.Helper()
	s, err := Serve(path, fixed{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func socketPath(t *testing.T) string { return filepath.Join(t.TempDir(), "run", "adit.sock") }

func TestClientHearsWhatTheProviderSays(t *testing.T) {
	path := socketPath(t)
	serve(t, path)
	c := NewClient(path)
	defer c.Close()
	status, err := c.Status(t.Context())
	if err != nil || status.GetName() != "site-a" || len(status.GetPeers()) != 1 {
		t.Errorf("Status: got %v, %v", status, err)
	}
	counters, err := c.Counters(t.Context())
	if err != nil || counters.GetDrops()[0].GetValue() != 1<<64-1 {
		t.Errorf("Counters: got %v, %v", counters, err)
	}
	sas, err := c.SAs(t.Context())
	if err != nil || sas.GetSas()[0].GetSpi() != 0x2001 {
		t.Errorf("SAs: got %v, %v", sas, err)
	}
	policies, err := c.Policies(t.Context())
	if err != nil || policies.GetPolicies()[0].GetName() != "lan" {
		t.Errorf("Policies: got %v, %v", policies, err)
	}
}

// What the gateway says of a change that it refuses reaches who asked in its words.
func TestChangeIKEIsAnsweredInTheGatewaysWords(t *testing.T) {
	path := socketPath(t)
	serve(t, path)
	c := NewClient(path)
	defer c.Close()
	peers, err := c.IKE(t.Context())
	if err != nil || peers.GetPeers()[0].GetState() != "up" {
		t.Errorf("IKE: got %v, %v", peers, err)
	}
	if err := c.ChangeIKE(t.Context(), &controlv1.ChangeIKERequest{Action: "initiate", Peer: "site-b"}); err != nil {
		t.Error(err)
	}
	if err := c.ChangeIKE(t.Context(), &controlv1.ChangeIKERequest{Action: "initiate", Peer: "x"}); err == nil || err.Error() != `no peer "x"` {
		t.Errorf("got %v, want: no peer \"x\"", err)
	}
}

func TestPlainJSONOverHTTPIsAnswered(t *testing.T) {
	path := socketPath(t)
	serve(t, path)
	c := NewClient(path)
	defer c.Close()
	resp, err := c.http.Post("http://adit"+controlv1.ControlStatusProcedure, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), `"site-a"`) {
		t.Errorf("got %s %s", resp.Status, body)
	}
}

func TestSocketIsForItsOwnerOnly(t *testing.T) {
	before := syscall.Umask(0) // the worst that a service manager can hand down
	defer syscall.Umask(before)
	path := socketPath(t)
	serve(t, path)
	for name, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %s: got %o, want %o", name, got, want)
		}
	}
}

func TestSecondGatewayIsRefused(t *testing.T) {
	path := socketPath(t)
	serve(t, path)
	if _, err := Serve(path, fixed{}); !errors.Is(err, ErrRunning) {
		t.Errorf("second Serve: got %v, want ErrRunning", err)
	}
	c := NewClient(path)
	defer c.Close()
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("the first gateway no longer answers: %v", err)
	}
}

func TestOfManyGatewaysThatStartAtOnceOneWins(t *testing.T) {
	path := socketPath(t)
	leaveStaleSocket(t, path)
	var wg sync.WaitGroup
	won := make(chan *Server, 8)
	for range cap(won) {
		wg.Go(func() {
			if s, err := Serve(path, fixed{}); err == nil {
				won <- s
			} else if !errors.Is(err, ErrRunning) {
				t.Errorf("got %v, want ErrRunning", err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d gateways serve one socket, want 1", len(won))
	}
	_ = (<-won).Close()
}

// leaveStaleSocket leaves what a killed gateway leaves.
func leaveStaleSocket(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("no stale socket: %v", err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := socketPath(t)
	leaveStaleSocket(t, path)
	serve(t, path)
}

func TestFileThatIsNoSocketIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Serve(path, fixed{}); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("got %v", err)
	}
	if text, _ := os.ReadFile(path); string(text) != "mine" {
		t.Errorf("the file now holds %q", text)
	}
}

func TestPathLongerThanTheSystemTakesIsExplained(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("x", 120))
	if _, err := Serve(path, fixed{}); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("got %v", err)
	}
}

func TestCloseRemovesTheSocket(t *testing.T) {
	path := socketPath(t)
	s := serve(t, path)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestClientSaysWhatToDo(t *testing.T) {
	missing := socketPath(t)
	stale := socketPath(t)
	leaveStaleSocket(t, stale)
	for _, path := range []string{missing, stale} {
		_, err := NewClient(path).Status(t.Context())
		want := "no gateway answers on " + path + ": is `adit run` running? use --control PATH"
		if !errors.Is(err, ErrNoGateway) || err.Error() != want {
			t.Errorf("got %q\nwant %q", err, want)
		}
	}
}

func TestOversizedRequestIsRefused(t *testing.T) {
	path := socketPath(t)
	serve(t, path)
	c := NewClient(path)
	defer c.Close()
	body := `{"x":"` + strings.Repeat("y", 2*maxRequest) + `"}`
	resp, err := c.http.Post("http://adit"+controlv1.ControlStatusProcedure, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		t.Errorf("a request of %d bytes was answered with %s", len(body), resp.Status)
	}
}

// TestNoMessageHasAFieldForAKey holds for every message of the API, whoever
// adds one: no field may hold bytes, and none may be named like a secret.
func TestNoMessageHasAFieldForAKey(t *testing.T) {
	messages := controlv1.File_adit_control_v1_control_proto.Messages()
	if messages.Len() == 0 {
		t.Fatal("no messages found")
	}
	for i := range messages.Len() {
		fields := messages.Get(i).Fields()
		for j := range fields.Len() {
			f := fields.Get(j)
			if f.Kind() == protoreflect.BytesKind {
				t.Errorf("%s holds bytes", f.FullName())
			}
			for _, word := range []string{"key", "secret", "salt", "psk", "password"} {
				if strings.Contains(string(f.Name()), word) {
					t.Errorf("%s is named like a secret (%q)", f.FullName(), word)
				}
			}
		}
	}
}

func TestJSONHoldsEveryFieldInSnakeCase(t *testing.T) {
	m := &controlv1.ListSAsResponse{Sas: []*controlv1.SecurityAssociation{{
		Direction: "in", Spi: 4097, Packets: 1<<64 - 1, IdleSeconds: -1, Suite: `a"b`,
	}}}
	var got struct {
		SAs []map[string]json.RawMessage `json:"sas"`
	}
	if err := json.Unmarshal(JSON(m), &got); err != nil {
		t.Fatalf("%v in %s", err, JSON(m))
	}
	for name, want := range map[string]string{
		"direction": `"in"`, "spi": "4097", "packets": "18446744073709551615", "bytes": "0",
		"idle_seconds": "-1", "esn": "false", "suite": `"a\"b"`, "replay_window": "0", "peer": `""`,
	} {
		if string(got.SAs[0][name]) != want {
			t.Errorf("%s: got %s, want %s", name, got.SAs[0][name], want)
		}
	}
	if empty := string(JSON(&controlv1.ListPoliciesResponse{})); empty != "{\n  \"policies\": []\n}\n" {
		t.Errorf("no policies: got %s", empty)
	}
}
