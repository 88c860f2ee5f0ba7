package bench

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
)

// EngineMemory is what SA pairs cost to have.
type EngineMemory struct {
	Suite   string  `json:"suite"`
	SAs     int     `json:"sa_pairs"`
	Bytes   Summary `json:"heap_bytes_per_pair"`
	Install Summary `json:"install_us_per_pair"`
}

// engineMemory gathers the rounds of an EngineMemory.
type engineMemory struct {
	suite          string
	sas            int
	bytes, install []float64
}

func (o *EngineOptions) memories() (all []*engineMemory) {
	for _, n := range o.SAs {
		all = append(all, &engineMemory{suite: o.Suites[0], sas: n})
	}
	return all
}

func (m *engineMemory) title() string { return fmt.Sprintf("memory of SA pairs %d", m.sas) }

func (m *engineMemory) report() EngineMemory {
	return EngineMemory{m.suite, m.sas, Summarize(m.bytes), Summarize(m.install)}
}

// housekept is how long a gateway needs to begin to look after new SAs.
const housekept = 120 * time.Millisecond

// measure is one round: the live heap of a gateway before and after SAs are
// installed, their names included, and the gateway's books of them.
func (m *engineMemory) measure() (err error) {
	suite, err := esp.ParseSuite(m.suite)
	if err != nil {
		return err
	}
	e := Engine{Suite: m.suite, SAs: m.sas}.normal()
	mem := newMemory(packet.Outbound, newThreadClock(nil))
	gateway, err := dataplane.New(dataplane.Config{TUN: mem.tun, Wire: mem.wire, NoProbe: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gateway.Close()) }()
	before := liveHeap()
	pairs := e.pairs(suite)
	start := time.Now()
	if err := gateway.Install(pairs...); err != nil {
		return err
	}
	took := time.Since(start)
	clear(pairs)
	time.Sleep(housekept)
	after := liveHeap()
	if installed := len(gateway.Stats().SAs); installed != 2*m.sas {
		return fmt.Errorf("%d SAs are installed", installed)
	}
	m.bytes = append(m.bytes, (float64(after)-float64(before))/float64(m.sas))
	m.install = append(m.install, us(took)/float64(m.sas))
	return nil
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC() // what the first one's finalizers left
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
