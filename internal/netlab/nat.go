package netlab

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// FlushNAT makes the node's NAT forget every binding, as one that was started
// again: a flow's next packet gets a new one, with Masquerade on another port.
func (n *Node) FlushNAT() error {
	err := n.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer h.Close()
		return h.ConntrackTableFlush(netlink.ConntrackTable)
	})
	if err != nil {
		return fmt.Errorf("netlab: %s: flush the NAT: %w", n.name, err)
	}
	return nil
}
