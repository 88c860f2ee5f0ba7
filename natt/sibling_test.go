package natt

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
)

// Siblings share the port: each peer's datagrams all come to one of them, in
// order, and the peers come to all of them.
func TestSiblingsShareThePeers(t *testing.T) {
	for _, addr := range []netip.Addr{loop4, loop6, {}} {
		t.Run(addr.String(), func(t *testing.T) {
			first := listen(t, Config{Address: addr})
			conns := []*Conn{first}
			for range 2 {
				c, err := first.Sibling()
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				if c.LocalPort() != first.LocalPort() {
					t.Fatalf("a sibling has port %d, want %d", c.LocalPort(), first.LocalPort())
				}
				conns = append(conns, c)
			}
			from := loop4
			if addr == loop6 {
				from = loop6
			}
			const peers, each = 64, 5
			for i := range peers {
				peer := listen(t, Config{Address: from, Offload: OffloadOff})
				for n := range each {
					m := message(first.at(from), []byte{byte(i), byte(n)})
					if _, err := peer.WriteBatch([]Message{m}); err != nil {
						t.Fatal(err)
					}
				}
			}
			type read struct {
				conn int
				b    [2]byte
			}
			reads := make(chan read, peers*each)
			for i, c := range conns {
				go func() {
					slots := packet.NewDatagrams(8)
					for {
						n, err := c.ReadBatch(slots)
						if err != nil {
							return
						}
						for _, d := range slots[:n] {
							for b := d.Bytes(); len(b) >= 2; b = b[2:] {
								reads <- read{i, [2]byte(b)}
							}
						}
					}
				}()
			}
			at, next, used := map[byte]int{}, map[byte]byte{}, map[int]bool{}
			for range peers * each {
				select {
				case r := <-reads:
					peer := r.b[0]
					if was, ok := at[peer]; ok && was != r.conn {
						t.Fatalf("peer %d came to sibling %d and to sibling %d", peer, was, r.conn)
					}
					if r.b[1] != next[peer] {
						t.Fatalf("peer %d: datagram %d came in the place of %d", peer, r.b[1], next[peer])
					}
					at[peer] = r.conn
					next[peer]++
					used[r.conn] = true
				case <-time.After(patience):
					t.Fatal("datagrams are missing")
				}
			}
			if len(used) != len(conns) {
				t.Errorf("64 peers came to %d of %d siblings", len(used), len(conns))
			}
		})
	}
}

// The first socket's bind tells whether the port is taken, by a socket that is
// shared or not.
func TestSharedPortIsNotForOthers(t *testing.T) {
	first := listen(t, Config{Address: loop4})
	other := func() error {
		c, err := Listen(Config{Address: loop4, Port: first.LocalPort()})
		if err == nil {
			c.Close()
			return fmt.Errorf("port %d was given away", first.LocalPort())
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
		return nil
	}
	if err := other(); err != nil {
		t.Error(err)
	}
	c, err := first.Sibling()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := other(); err != nil {
		t.Errorf("with a sibling: %v", err)
	}
}
