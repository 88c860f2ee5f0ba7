package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/internal/tun"
)

// NamespaceOptions say what stands between the two hosts.
type NamespaceOptions struct {
	// Binary is the adit program. "": no gateways; the hosts' packets are
	// routed in clear, which is the reference for everything else.
	Binary string
	Suite  string
	Raw    bool // protocol 50 in place of UDP 4500

	// WireGuard is the wireguard-go program, in the place of Binary.
	WireGuard string

	// StrongSwan are the programs of the other rival, in the place of Binary;
	// Suite is its too.
	StrongSwan *StrongSwan

	// A veth hands segmentation and checksums on undone, so that a burst of
	// segments crosses the "wire" as one packet. That flatters whoever sends
	// bursts; no wire does it.
	NoUDPSegmentation bool // off for UDP (tx-udp-segmentation) on the outside links, as where a network card lacks it
	NoOffloads        bool // off for everything on every link: each packet is one packet
}

// Namespaces is a network of two hosts and a router in namespaces of this
// machine, with two gateways or with clear routes. The hosts run in this
// process; hosts, gateways and the kernel between them share the machine.
type Namespaces struct {
	net      *netlab.Topology
	dir      string // configurations, state and control sockets
	binary   string
	gateways []*netlab.Process
	sockets  []string // that a gateway which was killed leaves behind
}

// NewNamespaces raises the network and waits until the gateways are up. It
// needs root. Close it.
func NewNamespaces(ctx context.Context, o NamespaceOptions) (*Namespaces, error) {
	topology, err := netlab.SiteToSite(netlab.Options{Name: "bench", Offloads: !o.NoOffloads})
	if err != nil {
		return nil, err
	}
	n := &Namespaces{net: topology, binary: o.Binary}
	if o.NoUDPSegmentation {
		err = n.noUDPSegmentation()
	}
	if err == nil {
		switch {
		case o.WireGuard != "":
			err = n.startWireGuard(ctx, o.WireGuard)
		case o.StrongSwan != nil:
			err = n.startStrongSwan(ctx, o.StrongSwan, o.Suite)
		case o.Binary != "":
			err = n.startGateways(ctx, o)
		default:
			err = n.routeInClear()
		}
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// Close ends the gateways and takes the network down.
func (n *Namespaces) Close() error {
	var errs []error
	for _, p := range n.gateways {
		errs = append(errs, p.Stop(10*time.Second))
	}
	errs = append(errs, n.net.Close())
	for _, socket := range n.sockets {
		if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if len(n.sockets) > 0 && wireGuardDirOurs.Load() {
		_ = os.Remove(wireGuardDir) // stays where others use it
	}
	if n.dir != "" {
		errs = append(errs, os.RemoveAll(n.dir))
	}
	return errors.Join(errs...)
}

func (n *Namespaces) noUDPSegmentation() error {
	var errs []error
	for _, s := range []*netlab.Side{&n.net.A, &n.net.B} {
		errs = append(errs,
			s.Gateway.SetOffload(netlab.OutsideIface, false, "tx-udp-segmentation"),
			n.net.Router.SetOffload(s.RouterIface, false, "tx-udp-segmentation"))
	}
	return errors.Join(errs...)
}

func (n *Namespaces) routeInClear() error {
	a, b := &n.net.A, &n.net.B
	return errors.Join(
		n.net.Router.AddRoute(a.LAN4, a.Outside4),
		n.net.Router.AddRoute(b.LAN4, b.Outside4))
}

func (n *Namespaces) startGateways(ctx context.Context, o NamespaceOptions) (err error) {
	suite, err := esp.ParseSuite(o.Suite)
	if err != nil {
		return err
	}
	if n.dir, err = os.MkdirTemp("", "adit-bench-"); err != nil {
		return err
	}
	a, b := &n.net.A, &n.net.B
	keysAB, keysBA := randomKeys(suite), randomKeys(suite)
	const spiAB, spiBA = 0x2001, 0x1001
	for _, site := range []struct {
		name      string
		own, peer *netlab.Side
		out, in   string
	}{
		{"a", a, b, securityAssociation("out", spiAB, suite, keysAB), securityAssociation("in", spiBA, suite, keysBA)},
		{"b", b, a, securityAssociation("out", spiBA, suite, keysBA), securityAssociation("in", spiAB, suite, keysAB)},
	} {
		text := n.config(o, site.name, site.own, site.peer, site.out, site.in)
		if err := n.startGateway(ctx, site.own.Gateway, site.name, text); err != nil {
			return err
		}
	}
	return nil
}

// keyPair is one SA's keys, in hexadecimal.
type keyPair struct{ encryption, integrity string }

func randomKeys(s esp.Suite) keyPair {
	random := func(n int) string {
		b := make([]byte, n)
		_, _ = rand.Read(b) // never fails: crypto/rand ends the program instead
		return hex.EncodeToString(b)
	}
	encryption, integrity := s.KeyLen()
	return keyPair{random(encryption), random(integrity)}
}

// securityAssociation is one entry of a configuration's sas.
func securityAssociation(direction string, spi uint32, s esp.Suite, k keyPair) string {
	text := fmt.Sprintf("direction: %s, spi: 0x%x, suite: %s", direction, spi, s)
	if k.encryption != "" {
		text += fmt.Sprintf(", encryption_key: %q", k.encryption)
	}
	if k.integrity != "" {
		text += fmt.Sprintf(", integrity_key: %q", k.integrity)
	}
	return "{" + text + "}"
}

func (n *Namespaces) config(o NamespaceOptions, name string, own, peer *netlab.Side, sas ...string) string {
	encap := "udp"
	if o.Raw {
		encap = "none"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nname: bench-%s\nstate_dir: %q\ncontrol: %q\nallow_manual_aead: true\nallow_legacy: true\n",
		name, filepath.Join(n.dir, name), n.control(name))
	fmt.Fprintf(&b, "listen: {address: %q, outside: [%s]}\nprofiles:\n  default: {encap: %s}\n", own.Outside4, netlab.OutsideIface, encap)
	fmt.Fprintf(&b, "peers:\n  - name: peer\n    address: %q\n    keying: manual\n    sas:\n", peer.Outside4)
	for _, sa := range sas {
		fmt.Fprintf(&b, "      - %s\n", sa)
	}
	fmt.Fprintf(&b, "policies:\n  - name: lan\n    local: [%q]\n    remote: [%q]\n    action: protect\n    peer: peer\n", own.LAN4, peer.LAN4)
	return b.String()
}

func (n *Namespaces) control(name string) string { return filepath.Join(n.dir, name+".sock") }

// startGateway runs the program in the node and waits until it is up. What it
// logs goes to a file; the error quotes it.
func (n *Namespaces) startGateway(ctx context.Context, node *netlab.Node, name, config string) error {
	file := filepath.Join(n.dir, name+".yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	logFile, _, err := n.startLogged(node, exec.Command(n.binary, "run", "-c", file))
	if err != nil {
		return err
	}
	status := exec.CommandContext(ctx, n.binary, "status", "--wait", "20s", "--control", n.control(name))
	if out, err := status.CombinedOutput(); err != nil {
		said, _ := os.ReadFile(logFile)
		return fmt.Errorf("bench: the gateway in %s did not come up: %w: %s; its log: %s", node.Name(), err, out, said)
	}
	return nil
}

// startLogged starts a gateway in the node; what it says goes to a file. It has
// a process group of its own: a terminal's SIGINT reaches this program, which
// then ends its gateways, and not them at the same time.
func (n *Namespaces) startLogged(node *netlab.Node, cmd *exec.Cmd) (logFile string, p *netlab.Process, err error) {
	logFile = filepath.Join(n.dir, node.Name()+".log")
	log, err := os.Create(logFile)
	if err != nil {
		return "", nil, err
	}
	defer log.Close() // the child has its own
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if p, err = node.Start(cmd); err != nil {
		return "", nil, err
	}
	n.gateways = append(n.gateways, p)
	return logFile, p, nil
}

// dialGateway connects to a gateway's control socket as soon as it listens.
func dialGateway(ctx context.Context, p *netlab.Process, socket string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err == nil {
			return conn, nil
		}
		select {
		case <-p.Done():
			return nil, fmt.Errorf("it has ended: %v", p.Wait()) //nolint:errorlint // nil where it ended well, which is as wrong here
		case <-ctx.Done():
			return nil, fmt.Errorf("it did not open %s: %w", socket, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// ended says which gateways have ended by themselves, and what they said last.
func (n *Namespaces) ended() error {
	var errs []error
	for i, node := range []*netlab.Node{n.net.A.Gateway, n.net.B.Gateway}[:len(n.gateways)] {
		select {
		case <-n.gateways[i].Done():
			how := n.gateways[i].Cmd.ProcessState.String()
			errs = append(errs, fmt.Errorf("bench: the gateway in %s has ended by itself (%s): %s", node.Name(), how, n.lastWords(node)))
		default:
		}
	}
	return errors.Join(errs...)
}

// lastWords is the end of what the node's gateway said.
func (n *Namespaces) lastWords(node *netlab.Node) []byte {
	said, _ := os.ReadFile(filepath.Join(n.dir, node.Name()+".log"))
	return said[max(0, len(said)-2000):]
}

// rivalQueue is the TUN queue of the rivals, in packets: adit's. With the
// kernel's default of 500 they are neither faster nor slower: 5000 by 500 by
// turns, median of 14 rounds, TCP of one flow 1.03 (wireguard-go) and 1.01
// (strongSwan), 64-byte datagrams delivered 1.09 and 0.96, each with rounds on
// both sides of 1.
const rivalQueue = tun.QueueLen

// setQueueLen sets the transmit queue of an interface, in packets: of a TUN
// device, the queue in front of its program.
func setQueueLen(node *netlab.Node, iface string, packets uint32) error {
	request, err := unix.NewIfreq(iface)
	if err == nil {
		request.SetUint32(packets)
		err = node.Do(func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.IoctlIfreq(fd, unix.SIOCSIFTXQLEN, request)
		})
	}
	if err != nil {
		return fmt.Errorf("bench: transmit queue of %s in %s: %w", iface, node.Name(), err)
	}
	return nil
}

// Measured is what a piece of work took.
type Measured struct {
	Bytes int64         // payload that arrived: of TCP, or of UDP datagrams
	Took  time.Duration // of the payload's way
	// CPU is the processor time of both gateway processes, system calls
	// included. What the kernel does for them in the hosts' system calls and
	// in softirqs of others is not in it.
	CPU time.Duration
}

// BitsPerSecond is the goodput.
func (m Measured) BitsPerSecond() float64 { return float64(m.Bytes) * 8 / m.Took.Seconds() }

// CPUSecondsPerGB is the processor time of both gateways for 10^9 bytes of
// payload.
func (m Measured) CPUSecondsPerGB() float64 { return m.CPU.Seconds() * 1e9 / float64(m.Bytes) }

// TCP carries so many bytes over one connection from host A to host B. Nothing
// is hashed: the ends are to cost little. Tests elsewhere hold that what
// arrives is intact.
func (n *Namespaces) TCP(ctx context.Context, bytes int64) (m Measured, err error) {
	m.CPU, err = n.gatewayTime(func() error {
		r, err := netlab.TCPTransfer(ctx, n.net.A.Host, n.net.B.Host,
			netlab.TransferOptions{To: netip.AddrPortFrom(n.net.B.Host4, 0), Bytes: bytes, NoHash: true})
		m.Bytes, m.Took = r.Bytes, r.Duration
		if err == nil && r.Bytes != bytes {
			err = fmt.Errorf("bench: %d of %d bytes of TCP arrived", r.Bytes, bytes)
		}
		return err
	})
	return m, err
}

// Ping sends so many echo requests from host A to host B, one at a time, on an
// otherwise idle network.
func (n *Namespaces) Ping(ctx context.Context, count int) (netlab.PingStats, error) {
	s, err := netlab.Ping(ctx, n.net.A.Host, netlab.PingOptions{Dst: n.net.B.Host4, Count: count})
	if err == nil && s.Received == 0 {
		err = fmt.Errorf("bench: ping: %s", s)
	}
	return s, err
}

// gatewayTime is the processor time that the gateways' processes use while work
// runs.
func (n *Namespaces) gatewayTime(work func() error) (time.Duration, error) {
	before, err := n.gatewayClocks()
	if err != nil {
		return 0, err
	}
	if err := work(); err != nil {
		return 0, err
	}
	after, err := n.gatewayClocks()
	return after - before, err
}

func (n *Namespaces) gatewayClocks() (total time.Duration, err error) {
	for _, p := range n.gateways {
		used, err := processTime(p.Pid())
		if err != nil {
			return 0, fmt.Errorf("bench: processor time of the gateway with pid %d: %w", p.Pid(), err)
		}
		total += used
	}
	return total, nil
}

// processTime is the processor time that a process has used, in user and in
// system mode, all its threads together: its CPU clock, whose id is made of the
// pid (clock_getcpuclockid(3)). It counts nanoseconds where /proc/PID/stat
// counts ticks.
func processTime(pid int) (time.Duration, error) {
	const cpuClockSched = 2 // CPUCLOCK_SCHED of the kernel's posix-timers.h
	var ts unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|cpuClockSched), &ts)
	return time.Duration(ts.Nano()), err
}
