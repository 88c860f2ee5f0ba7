package ctl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
)

// callTimeout bounds one call of the client.
const callTimeout = 5 * time.Second

// maxResponse bounds what the client takes from a gateway, in bytes: room for
// more than a hundred thousand SAs.
const maxResponse = 64 << 20

// ErrNoGateway: nobody listens on the socket.
var ErrNoGateway = errors.New("no gateway answers")

// Client calls a gateway. It may be used by several goroutines.
type Client struct {
	path string
	http *http.Client
	api  controlv1.ControlClient
}

// NewClient returns a client for the gateway whose socket is at path. It does
// not connect yet.
func NewClient(path string) *Client {
	var dialer net.Dialer
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
		MaxIdleConns: 1,
	}
	c := &Client{path: path, http: &http.Client{Transport: transport, Timeout: callTimeout}}
	c.api = controlv1.NewControlClient(c.http, "http://adit", connect.WithReadMaxBytes(maxResponse))
	return c
}

// Close lets go of the connection.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status is the gateway as a whole.
func (c *Client) Status(ctx context.Context) (*controlv1.StatusResponse, error) {
	m, err := c.api.Status(ctx, &controlv1.StatusRequest{})
	return m, c.explain(err)
}

// Counters is every counter.
func (c *Client) Counters(ctx context.Context) (*controlv1.CountersResponse, error) {
	m, err := c.api.Counters(ctx, &controlv1.CountersRequest{})
	return m, c.explain(err)
}

// SAs is every SA that is installed.
func (c *Client) SAs(ctx context.Context) (*controlv1.ListSAsResponse, error) {
	m, err := c.api.ListSAs(ctx, &controlv1.ListSAsRequest{})
	return m, c.explain(err)
}

// Policies is the policy table in force.
func (c *Client) Policies(ctx context.Context) (*controlv1.ListPoliciesResponse, error) {
	m, err := c.api.ListPolicies(ctx, &controlv1.ListPoliciesRequest{})
	return m, c.explain(err)
}

// IKE is every peer that IKE speaks with.
func (c *Client) IKE(ctx context.Context) (*controlv1.ListIKEResponse, error) {
	m, err := c.api.ListIKE(ctx, &controlv1.ListIKERequest{})
	return m, c.explain(err)
}

// ChangeIKE does one thing with one peer, and returns when it is begun.
func (c *Client) ChangeIKE(ctx context.Context, change *controlv1.ChangeIKERequest) error {
	_, err := c.api.ChangeIKE(ctx, change)
	return c.explain(err)
}

// explain puts what went wrong into the operator's words.
func (c *Client) explain(err error) error {
	var timeout net.Error
	var said *connect.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &said) && (said.Code() == connect.CodeInvalidArgument || said.Code() == connect.CodeFailedPrecondition):
		return errors.New(said.Message()) // the gateway's own words, to whoever asked
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w on %s: is `adit run` running? use --control PATH", ErrNoGateway, c.path)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("no permission to use %s: be root, or the user that runs the gateway", c.path)
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("the gateway on %s accepts the connection and says nothing: it may be stopped or overloaded; look at its log", c.path)
	case connect.CodeOf(err) == connect.CodeUnimplemented:
		return fmt.Errorf("what answers on %s does not know this call: it is no adit gateway, or one of another version", c.path)
	}
	return fmt.Errorf("asking the gateway on %s: %w", c.path, err)
}
