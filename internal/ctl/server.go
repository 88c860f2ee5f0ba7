package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log" //nolint:depguard // http.Server.ErrorLog takes no other; what it says is discarded
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
)

// Provider answers the calls of the API, from snapshots: each call may come at
// any time and several at once.
type Provider = controlv1.ControlHandler

// Limits on a client. Every request of this API is an empty message; the room
// is for headers and for later versions.
const (
	maxRequest    = 64 << 10 // bytes of one request
	maxHeader     = 16 << 10 // bytes of its HTTP headers
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = time.Minute
	closeTimeout  = 2 * time.Second

	// maxPath is the longest socket path: sun_path of unix(7), less the
	// byte that ends it.
	maxPath = 107
)

// ErrRunning: another gateway answers on the socket.
var ErrRunning = errors.New("another gateway answers on this socket")

// Server serves the API on one socket.
type Server struct {
	http     *http.Server
	listener net.Listener
	served   chan struct{}
}

// Serve opens the socket at path and answers with p until Close. It makes the
// directory when it is missing, takes the place of a socket that nobody answers
// on, and refuses with ErrRunning when somebody does.
func Serve(path string, p Provider) (*Server, error) {
	listener, err := listen(path)
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("control socket %s: %w (run as root, or set `control` to a path that you may write to)", path, err)
	case err != nil:
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	mux := http.NewServeMux()
	mux.Handle(controlv1.NewControlHandler(p, connect.WithReadMaxBytes(maxRequest)))
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // gRPC
	s := &Server{
		listener: listener,
		served:   make(chan struct{}),
		http: &http.Server{
			Handler:           http.MaxBytesHandler(mux, maxRequest),
			Protocols:         protocols,
			ReadHeaderTimeout: headerTimeout,
			ReadTimeout:       readTimeout,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeader,
			ErrorLog:          log.New(io.Discard, "", 0), // what a client did wrong is told to the client
		},
	}
	go func() {
		defer close(s.served)
		_ = s.http.Serve(listener) // ends with Close
	}()
	return s, nil
}

// Close stops answering, waits a moment for calls under way, and removes the
// socket.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	<-s.served
	return err
}

// listen opens the socket. From the look whether somebody answers to the new
// socket being there, the directory is locked, so that two gateways that start
// at once cannot both find the place free.
func listen(path string) (net.Listener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("the path is %d bytes long and the system takes %d: choose a shorter one", len(path), maxPath)
	}
	directory := filepath.Dir(path)
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	unlock, err := lock(directory)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := clearPlace(path); err != nil {
		return nil, err
	}
	// connect(2) asks for write permission on the socket: with this mask
	// there is no moment in which others have it.
	before := syscall.Umask(0o177)
	defer syscall.Umask(before)
	return net.Listen("unix", path)
}

// clearPlace removes a socket that nobody answers on.
func clearPlace(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != os.ModeSocket:
		return errors.New("there is a file that is no socket: remove it, or choose another path")
	}
	conn, err := net.DialTimeout("unix", path, headerTimeout)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("%w: stop it first, or choose another control path", ErrRunning)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("there is a socket, and it cannot be told whether somebody uses it: %w", err)
	}
	return os.Remove(path)
}

// lock holds an advisory lock on a directory until the returned function is
// called.
func lock(directory string) (unlock func(), err error) {
	f, err := os.Open(directory)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", directory, err)
	}
	return func() { _ = f.Close() }, nil
}
