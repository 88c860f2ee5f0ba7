// Package integrity holds that no TCP stream through two real gateways is ever
// changed: IPv4 and IPv6 inside and outside, superpackets on and off, on a clean
// path and on one that loses and reorders packets. Every byte is compared with
// what the generator makes, and both ends hash what they saw.
//
// The root tier moves 256 MiB. `make soak` is the same test with more:
//
//	go test ./test/integrity -bytes 20G -full -progress 10s -report soak.json -timeout 6h
package integrity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// size is a number of bytes, written with K, M or G for powers of 1024.
type size int64

func (s *size) String() string { return strconv.FormatInt(int64(*s), 10) }

func (s *size) Set(text string) error {
	number, shift := text, 0
	for i, unit := range []string{"K", "M", "G"} {
		if n, ok := strings.CutSuffix(text, unit); ok {
			number, shift = n, 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > 1<<50>>shift {
		return errors.New("write a number of bytes such as 256M or 20G")
	}
	*s = size(n << shift)
	return nil
}

var (
	total     = size(256 << 20)
	perWay    = flag.Int("streams", 4, "TCP streams at once, in each direction")
	seed      = flag.String("seed", "", "what the streams' bytes are made from; empty: another one each time")
	progress  = flag.Duration("progress", 0, "write a line to standard error this often; 0: none")
	report    = flag.String("report", "", "write the results to this file, as JSON")
	full      = flag.Bool("full", false, "every cell with both outer families; else the families take turns")
	onlyCells = flag.String("cells", "", "only the cells whose name contains this")
)

func TestMain(m *testing.M) {
	flag.Var(&total, "bytes", "how much to move in all, over all cells: 256M, 20G")
	flag.Parse()
	os.Exit(gatewaytest.Main(m))
}

// Clean cells get this many times the bytes of cells with faults, where TCP is
// slower.
const cleanShare = 3

func TestRootStreamsThroughTheTunnelAreNeverChanged(t *testing.T) {
	if os.Geteuid() != 0 {
		if *progress > 0 { // asked for by a person
			t.Fatal("needs root: namespaces")
		}
		t.Skip("needs root: namespaces")
	}
	if len(matrix()) == 0 {
		t.Fatalf("no cell's name contains %q; one is %q", *onlyCells, cell{inner: 4, outer: 6, faults: true}.name())
	}
	gatewaytest.Binary(t)
	// An interrupt ends the streams; the test then fails and cleans up.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	out := t.Output()
	if *progress > 0 {
		out = os.Stderr
	}
	if *seed == "" {
		*seed = rand.Text()
	}
	fmt.Fprintf(out, "%s over %d cells, seed %s\n", bytesText(int64(total)), len(matrix()), *seed)
	campaign := campaign{Seed: *seed, start: time.Now()}
	shares := int64(0)
	for _, c := range matrix() {
		shares += c.share()
	}
	for _, c := range matrix() {
		t.Run(c.name(), func(t *testing.T) {
			r := new(result)
			campaign.Cells = append(campaign.Cells, r)
			c.run(ctx, t, out, int64(total)*c.share()/shares, r)
		})
		if ctx.Err() != nil {
			t.Error("interrupted")
			break
		}
	}
	campaign.finish()
	fmt.Fprint(out, campaign.table())
	if *report != "" {
		if err := campaign.write(*report); err != nil {
			t.Error(err)
		}
	}
}

// cell is one way in which streams cross.
type cell struct {
	inner, outer int  // IP versions
	offload      bool // superpackets at every link and in the gateways
	faults       bool // on the path between the gateways
}

// matrix is the cells to run. Half of them, unless -full asks for all, still hold
// every combination of any three of the four.
func matrix() (all []cell) {
	both := []bool{false, true}
	for _, faults := range both {
		for _, off := range both {
			for _, outer6 := range both {
				for _, inner6 := range both {
					c := cell{inner: version(inner6), outer: version(outer6), offload: !off, faults: faults}
					odd := faults != off != outer6 != inner6
					if (*full || !odd) && strings.Contains(c.name(), *onlyCells) {
						all = append(all, c)
					}
				}
			}
		}
	}
	return all
}

func version(six bool) int {
	if six {
		return 6
	}
	return 4
}

func (c cell) name() string {
	return fmt.Sprintf("IPv%d in IPv%d, offload %s, path %s", c.inner, c.outer, onOff(c.offload), c.path())
}

func (c cell) path() string {
	if c.faults {
		return "faulty"
	}
	return "clean"
}

func (c cell) share() int64 {
	if c.faults {
		return 1
	}
	return cleanShare
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// key makes every stream of a campaign another one, and the same one in each
// campaign of that seed.
func (c cell) key(stream string) [16]byte {
	sum := sha256.Sum256([]byte(*seed + "\n" + c.name() + "\n" + stream))
	return [16]byte(sum[:16])
}
