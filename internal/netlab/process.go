package netlab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a program that runs inside a node.
type Process struct {
	Cmd  *exec.Cmd
	done chan struct{}
	err  error // set before done is closed
}

// waitDelay bounds the wait for the output of a process that has ended, when a
// child of its own still holds the pipe.
const waitDelay = 5 * time.Second

// Start starts cmd inside the node. It dies with the lab, and with this
// process. The caller waits through the Process, never through cmd.Wait.
func (n *Node) Start(cmd *exec.Cmd) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// The signal comes when the thread that started the child ends
	// (prctl(2), PR_SET_PDEATHSIG). The spawner's thread ends with the lab.
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = waitDelay
	}
	err := n.lab.spawner.do(func() error { return n.Do(cmd.Start) })
	if err != nil {
		return nil, fmt.Errorf("netlab: %s: start %s: %w", n.name, cmd.Path, err)
	}
	p := &Process{Cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
		n.lab.forget(p)
	}()
	if !n.lab.remember(p) {
		p.Kill()
		<-p.done
		return nil, fmt.Errorf("netlab: %s: start %s: %w", n.name, cmd.Path, errClosed)
	}
	return p, nil
}

// Run runs a program inside the node to its end and returns what it printed on
// standard output. The error holds what it printed on standard error.
func (n *Node) Run(name string, args ...string) (string, error) {
	return n.RunInput("", name, args...)
}

// RunInput is Run with the given standard input.
func (n *Node) RunInput(input, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	p, err := n.Start(cmd)
	if err != nil {
		return "", err
	}
	if err := p.Wait(); err != nil {
		return stdout.String(), fmt.Errorf("netlab: %s: %s %s: %w: %s",
			n.name, name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Pid is the process id.
func (p *Process) Pid() int { return p.Cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end and returns what exec.Cmd.Wait returned. It may be
// called often.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Signal sends a signal; os.ErrProcessDone when the process has ended.
func (p *Process) Signal(s os.Signal) error { return p.Cmd.Process.Signal(s) }

// Kill ends the process the hard way. Wait tells when it is gone.
func (p *Process) Kill() { _ = p.Cmd.Process.Kill() }

// Stop asks the process to end with SIGTERM, kills it after the grace, and
// returns its exit state as Wait does.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
		p.Kill()
	}
	return p.Wait()
}

func (l *Lab) remember(p *Process) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	select {
	case <-p.done: // forget has been here already
	default:
		l.procs[p] = struct{}{}
	}
	return true
}

func (l *Lab) forget(p *Process) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.procs, p)
}

// spawner owns the one thread that starts a lab's processes. It must outlive
// them: the kernel kills a child with Pdeathsig when the thread that forked it
// ends, and the runtime ends threads of goroutines that finish locked.
type spawner struct {
	work chan func()
	quit chan struct{}
	gone chan struct{}
	once sync.Once
}

func newSpawner() *spawner {
	s := &spawner{work: make(chan func()), quit: make(chan struct{}), gone: make(chan struct{})}
	go func() {
		defer close(s.gone)
		runtime.LockOSThread() // and ends locked: the thread goes, and with it every child left
		for {
			select {
			case f := <-s.work:
				f()
			case <-s.quit:
				return
			}
		}
	}()
	return s
}

var errClosed = errors.New("the lab is closed")

func (s *spawner) do(f func() error) error {
	done := make(chan error, 1)
	select {
	case s.work <- func() { done <- f() }:
		return <-done
	case <-s.quit:
		return errClosed
	}
}

func (s *spawner) stop() {
	s.once.Do(func() { close(s.quit) })
	<-s.gone
}
