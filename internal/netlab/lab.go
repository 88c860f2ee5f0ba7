package netlab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrRoot is returned where the privilege to make namespaces is missing.
var ErrRoot = errors.New("netlab: network namespaces need root (CAP_SYS_ADMIN and CAP_NET_ADMIN)")

// Lab is one test network: nodes, the links between them, and the processes
// that run in them. Its methods may be called from several goroutines.
type Lab struct {
	name    string
	spawner *spawner

	mu     sync.Mutex // guards what follows
	nodes  []*Node
	procs  map[*Process]struct{}
	closed bool
}

// Node is one machine of a lab: a network namespace of its own, with the
// loopback up.
type Node struct {
	lab  *Lab
	name string
	ns   *os.File        // holds the namespace
	nl   *netlink.Handle // its rtnetlink socket lives in the namespace
}

// New makes an empty lab. name appears in errors. Close it.
func New(name string) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, ErrRoot
	}
	return &Lab{name: name, spawner: newSpawner(), procs: make(map[*Process]struct{})}, nil
}

// Close kills the processes that still run and takes the network down. It is
// safe to call it twice. Sockets and TUN devices that the caller opened inside
// a node and has not closed keep that node's namespace alive until they are.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	nodes, procs := l.nodes, l.procs
	l.nodes, l.procs = nil, nil
	l.mu.Unlock()

	for p := range procs {
		p.Kill()
	}
	for p := range procs {
		<-p.Done()
	}
	l.spawner.stop()
	var errs []error
	for _, n := range nodes {
		errs = append(errs, n.close())
	}
	return errors.Join(errs...)
}

// Node makes a machine with the given name, which appears in errors only.
func (l *Lab) Node(name string) (*Node, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, fmt.Errorf("netlab: %s: new namespace: %w", name, err)
	}
	n := &Node{lab: l, name: name, ns: ns}
	if err := n.prepare(); err != nil {
		return nil, errors.Join(err, n.close())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errors.Join(fmt.Errorf("netlab: %s: %w", name, errClosed), n.close())
	}
	l.nodes = append(l.nodes, n)
	return n, nil
}

// prepare opens the node's netlink socket, sets the sysctls of a quick and
// honest network, and brings the loopback up.
func (n *Node) prepare() error {
	err := n.Do(func() (err error) {
		n.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return fmt.Errorf("netlab: %s: netlink: %w", n.name, err)
	}
	for _, s := range nodeSysctls {
		if err := n.Sysctl(s.key, s.value); err != nil && !(s.optional && errors.Is(err, os.ErrNotExist)) {
			return err
		}
	}
	return n.Up("lo")
}

// close lets go of the namespace. Its links go with it; they are deleted here
// as well, because the kernel takes a namespace down at leisure.
func (n *Node) close() error {
	var errs []error
	if n.nl != nil {
		links, err := n.nl.LinkList()
		errs = append(errs, err)
		for _, link := range links {
			if link.Type() == "veth" {
				// The other end may have taken this one along by now.
				_ = n.nl.LinkDel(link)
			}
		}
		n.nl.Close()
	}
	return errors.Join(append(errs, n.ns.Close())...)
}

// Name is the name the node was made with.
func (n *Node) Name() string { return n.name }

// Lab is the lab the node belongs to.
func (n *Node) Lab() *Lab { return n.lab }

// Do runs f inside the node's namespace, on the caller's goroutine, which is
// locked to its thread meanwhile. Sockets, netlink sockets and TUN devices that
// f opens stay in the namespace for life, wherever they are used later.
// Goroutines that f starts are not inside. Do may be nested.
//
// Where the thread cannot be set back, which the kernel gives no reason for,
// the goroutine stays locked to it, so that the runtime ends the thread with
// the goroutine instead of handing it to others, and the error says so.
func (n *Node) Do(f func() error) (err error) {
	runtime.LockOSThread()
	back, err := os.Open(threadNamespace)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("netlab: %s: this thread's namespace: %w", n.name, err)
	}
	defer back.Close()
	if err := setNamespace(n.ns); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("netlab: enter %s: %w", n.name, err)
	}
	defer func() {
		if e := setNamespace(back); e != nil {
			err = errors.Join(err, fmt.Errorf("netlab: leave %s: %w; this goroutine stays in it", n.name, e))
			return
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

const threadNamespace = "/proc/thread-self/ns/net"

func setNamespace(ns *os.File) error { return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET) }

// newNamespace makes a network namespace and returns the descriptor that holds
// it. The thread that made it is set back to its own.
func newNamespace() (ns *os.File, err error) {
	type result struct {
		ns  *os.File
		err error
	}
	ch := make(chan result)
	go func() {
		// The goroutine ends locked if setting back fails: the runtime
		// then ends the thread.
		runtime.LockOSThread()
		ns, back, err := unshare()
		if back {
			runtime.UnlockOSThread()
		}
		ch <- result{ns, err}
	}()
	r := <-ch
	return r.ns, r.err
}

// unshare must run on a locked thread; back tells whether the thread is in the
// namespace it started in.
func unshare() (ns *os.File, back bool, err error) {
	home, err := os.Open(threadNamespace)
	if err != nil {
		return nil, true, err
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, true, err
	}
	ns, err = os.Open(threadNamespace)
	if e := setNamespace(home); e != nil {
		return ns, false, errors.Join(err, e)
	}
	return ns, true, err
}
