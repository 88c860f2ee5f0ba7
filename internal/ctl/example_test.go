package ctl_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/adit-ipsec/adit/internal/ctl"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
)

// gateway answers only what the example asks.
type gateway struct{ ctl.Provider }

func (gateway) Status(context.Context, *controlv1.StatusRequest) (*controlv1.StatusResponse, error) {
	return &controlv1.StatusResponse{Name: "site-a", Ready: true}, nil
}

func Example() {
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "adit.sock")

	server, err := ctl.Serve(path, gateway{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()

	client := ctl.NewClient(path)
	defer client.Close()
	status, err := client.Status(context.Background())
	fmt.Println(status.GetName(), status.GetReady(), err)
	// Output: site-a true <nil>
}
