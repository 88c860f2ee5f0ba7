package bench

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
)

// The rival: wireguard-go at the version that go.mod pins for its tun package.
const (
	WireGuardModule  = "golang.zx2c4.com/wireguard"
	WireGuardVersion = "v0.0.0-20260522210424-ecfc5a8d5446"
)

// wireGuardSettings says how the rival runs.
var wireGuardSettings = fmt.Sprintf("its defaults: GSO and GRO on the TUN and on UDP, MTU 1420, batches of 128; a TUN queue of %d packets in place of the kernel's 500; "+
	"ChaCha20-Poly1305 (it has no other cipher); no pre-shared key, no keepalive", rivalQueue)

// InstallWireGuard builds the rival into dir by the go command, from the module
// proxy or the module cache, with the versions that its own go.mod pins.
func InstallWireGuard(ctx context.Context, dir string) (path string, err error) {
	module := WireGuardModule + "@" + WireGuardVersion
	cmd := exec.CommandContext(ctx, "go", "install", module)
	cmd.Dir = dir // outside of any module
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0", "GOFLAGS=")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // so that the go command ends its children
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install %s: %w: %s; build wireguard-go elsewhere and name it with --wireguard-go PATH",
			module, errors.Join(err, context.Cause(ctx)), strings.TrimSpace(string(out)))
	}
	return filepath.Join(dir, "wireguard"), nil
}

// wireGuard is one of the two ends.
type wireGuard struct {
	own   *netlab.Side
	peer  *netlab.Side
	key   *ecdh.PrivateKey
	iface string
	tun   netip.Prefix
}

const wireGuardPort = 51820

// startWireGuard runs the rival in both gateways, in the place of adit.
func (n *Namespaces) startWireGuard(ctx context.Context, binary string) (err error) {
	if n.dir, err = os.MkdirTemp("", "adit-bench-"); err != nil {
		return err
	}
	if _, err := os.Stat(wireGuardDir); errors.Is(err, os.ErrNotExist) {
		wireGuardDirOurs.Store(true)
	}
	// The tunnel's own network serves as next hops only; no packet has its
	// addresses.
	ends := [2]wireGuard{
		{own: &n.net.A, peer: &n.net.B, tun: netip.MustParsePrefix("10.255.0.1/24")},
		{own: &n.net.B, peer: &n.net.A, tun: netip.MustParsePrefix("10.255.0.2/24")},
	}
	unique := strings.TrimPrefix(filepath.Base(n.dir), "adit-bench-")
	for i := range ends {
		if ends[i].key, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return err
		}
		// The name of the interface is that of its control socket as well,
		// in a folder that all namespaces share, so it has to be unique.
		// An interface's name is 15 bytes long at the most.
		ends[i].iface = fmt.Sprintf("ab%d%.11s", i, unique)
	}
	for i := range ends {
		if err := n.startWireGuardEnd(ctx, binary, &ends[i], &ends[1-i]); err != nil {
			return fmt.Errorf("bench: wireguard-go in %s: %w", ends[i].own.Gateway.Name(), err)
		}
	}
	return nil
}

func (n *Namespaces) startWireGuardEnd(ctx context.Context, binary string, end, other *wireGuard) error {
	cmd := exec.Command(binary, "--foreground", end.iface)
	cmd.Env = append(os.Environ(), "LOG_LEVEL=error", "WG_PROCESS_FOREGROUND=1")
	n.sockets = append(n.sockets, wireGuardSocket(end.iface))
	log, p, err := n.startLogged(end.own.Gateway, cmd)
	if err != nil {
		return err
	}
	err = configureWireGuard(ctx, p, end, other)
	if err == nil {
		node := end.own.Gateway
		err = errors.Join(
			setQueueLen(node, end.iface, rivalQueue),
			node.AddAddr(end.iface, end.tun),
			node.Up(end.iface),
			node.AddRoute(end.peer.LAN4, other.tun.Addr()))
	}
	if err != nil {
		said, _ := os.ReadFile(log)
		return fmt.Errorf("%w; it said: %s", err, said)
	}
	return nil
}

// wireGuardDir is where wireguard-go makes its control sockets; it makes the
// folder too. wireGuardDirOurs: it was not there before, so it goes again.
const wireGuardDir = "/var/run/wireguard"

var wireGuardDirOurs atomic.Bool

func wireGuardSocket(iface string) string { return filepath.Join(wireGuardDir, iface+".sock") }

// configureWireGuard hands a device its configuration once it listens, as
// wg(8) does (the cross-platform userspace interface, "UAPI").
func configureWireGuard(ctx context.Context, p *netlab.Process, end, other *wireGuard) error {
	conn, err := dialGateway(ctx, p, wireGuardSocket(end.iface))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	fmt.Fprintf(conn, "set=1\nprivate_key=%s\nlisten_port=%d\nreplace_peers=true\npublic_key=%s\nendpoint=%s\nreplace_allowed_ips=true\nallowed_ip=%s\n\n",
		hex.EncodeToString(end.key.Bytes()), wireGuardPort, hex.EncodeToString(other.key.PublicKey().Bytes()),
		netip.AddrPortFrom(end.peer.Outside4, wireGuardPort), end.peer.LAN4)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return fmt.Errorf("it did not answer to its configuration: %w", err)
	}
	if answer != "errno=0\n" {
		return fmt.Errorf("it refused its configuration: %s", strings.TrimSpace(answer))
	}
	return nil
}
