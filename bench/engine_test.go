package bench

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/spd"
)

func carried(t *testing.T, e Engine, turns ...int) {
	t.Helper()
	run, err := e.prepare(newThreadClock(nil))
	if err != nil {
		t.Fatalf("%+v: %v", e, err)
	}
	defer func() {
		if err := run.close(); err != nil {
			t.Errorf("%+v: close: %v", e, err)
		}
	}()
	total := 0
	for _, count := range turns {
		walk, harness, err := run.carry(count)
		if err != nil {
			t.Fatalf("%+v: %v", e, err)
		}
		for _, m := range []engineMeasure{walk, harness} {
			if m.packets != count || m.took <= 0 || m.cpu <= 0 {
				t.Errorf("%+v: %+v after %d packets", e, m, count)
			}
		}
		total += count
	}
	name := map[packet.Direction]string{packet.Outbound: "OutPackets", packet.Inbound: "InPackets"}[e.Direction]
	if got := run.gateway.Stats().Counter(name); got != uint64(total) {
		t.Errorf("%+v: the gateway counts %d packets, want %d", e, got, total)
	}
}

// TestEngineCarriesEveryPacket: each walk, in turns that do not end where the
// packets begin again.
func TestEngineCarriesEveryPacket(t *testing.T) {
	for _, d := range []packet.Direction{packet.Outbound, packet.Inbound} {
		for _, name := range suites {
			carried(t, Engine{Suite: name, Size: 1408, Policies: 3, Direction: d}, 700, 1, 300)
		}
		carried(t, Engine{Suite: "aes128gcm16", Mix: IMIX, Direction: d}, 7, 30)
		carried(t, Engine{Suite: "aes128gcm16", Size: 64, Flows: 300, Direction: d}, 1000)
		carried(t, Engine{Suite: "aes128gcm16", Size: 64, SAs: 50, Run: 3, Flows: 2, Policies: 60, Direction: d}, 1000, 17)
	}
}

// TestEngineSpreadsPackets: every SA and every flow has its turn, and each SA
// carries the same.
func TestEngineSpreadsPackets(t *testing.T) {
	const sas, run, flows = 5, 4, 3
	e := Engine{Suite: "aes128gcm16", Size: 64, SAs: sas, Run: run, Flows: flows, Direction: packet.Outbound}.normal()
	r, err := e.prepare(newThreadClock(nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.carry(e.period()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, sa := range r.gateway.Stats().SAs {
		want := uint64(run * flows)
		if sa.Direction == packet.Inbound {
			want = 0
		}
		if sa.Packets != want {
			t.Errorf("%s carried %d packets, want %d", sa.ID, sa.Packets, want)
		}
	}
	seen := make(map[[2]int]int)
	for k := range e.period() {
		sa, flow, _ := e.at(k)
		if first := k / run * run; k > first {
			if before, _, _ := e.at(k - 1); before != sa {
				t.Errorf("packet %d is of SA %d, the one before it of %d", k, sa, before)
			}
		}
		seen[[2]int{sa, flow}]++
	}
	if len(seen) != sas*flows {
		t.Errorf("%d pairs of SA and flow, want %d", len(seen), sas*flows)
	}
}

// TestEngineSaysWhatWasDropped: a load that the gateway does not carry is an
// error, at once.
func TestEngineSaysWhatWasDropped(t *testing.T) {
	run, err := Engine{Suite: "aes128gcm16", Size: 64, Direction: packet.Outbound}.prepare(newThreadClock(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := run.close(); err != nil {
			t.Error(err)
		}
	}()
	run.gateway.ApplyPolicy(nil)
	if _, _, err := run.carry(9); err == nil || !strings.Contains(err.Error(), "0 of 9 packets came through") || !strings.Contains(err.Error(), "{OutDiscard 9}") {
		t.Errorf("got %v", err)
	}
}

// TestRunEngineReportsEveryRow: each combination on each walk, all rounds, and
// figures that agree with each other.
func TestRunEngineReportsEveryRow(t *testing.T) {
	lines := 0
	o := EngineOptions{Suites: []string{"aes128gcm16", "aes128-sha256"}, Sizes: []string{"64", "imix"}, Policies: []int{1, 3}, SAs: []int{1, 7},
		Rounds: 2, Duration: 20 * time.Microsecond, Progress: func(string) { lines++ }}
	r, err := RunEngine(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	// Sizes: 2 suites, 2 sizes; policies: 2, cached or not; SAs: 1, and 7 with
	// two lengths of run; each on 2 walks.
	if want := 2 * (2*2 + 2*2 + 1 + 2); len(r.Rows) != want {
		t.Errorf("%d rows, want %d", len(r.Rows), want)
	}
	if want := 2 + len(lookupFlows); len(r.Lookups) != want || len(r.Memory) != 2 {
		t.Errorf("%d lookups, %d figures of memory, want %d, 2", len(r.Lookups), len(r.Memory), want)
	}
	if want := 2 * (len(r.Rows) + len(r.Lookups) + len(r.Memory)); lines < want {
		t.Errorf("%d lines of progress, want one for each round of each: %d", lines, want)
	}
	type load struct {
		varies, suite, size, walk  string
		policies, sas, inRow, flow int
	}
	seen := make(map[load]bool)
	for _, row := range r.Rows {
		seen[load{row.Varies, row.Suite, row.Size, row.Walk, row.Policies, row.SAs, row.Run, row.Flows}] = true
		bytes := 64.0
		if row.Size == "imix" {
			bytes = 4160.0 / 12
		}
		ns, packets, gbit := row.Nanoseconds.Rounds, row.Packets.Rounds, row.Gigabits.Rounds
		if len(ns) != 2 || len(packets) != 2 || len(gbit) != 2 || len(row.CPU.Rounds) != 2 || len(row.Harness.Rounds) != 2 || len(row.Allocations.Rounds) != 2 {
			t.Fatalf("%+v: want two rounds of everything", row)
		}
		for i := range ns {
			if ns[i] <= 0 || row.CPU.Rounds[i] <= 0 || row.Harness.Rounds[i] <= 0 || !near(packets[i]*ns[i], 1e9) || !near(gbit[i]*ns[i], 8*bytes) {
				t.Errorf("round %d of %+v does not add up", i, row)
			}
		}
	}
	if len(seen) != len(r.Rows) {
		t.Errorf("rows are not all different: %v", seen)
	}
	for _, l := range r.Lookups {
		if len(l.Nanoseconds.Rounds) != 2 || l.Nanoseconds.Min <= 0 || l.CPU.Min <= 0 {
			t.Errorf("lookup %+v", l)
		}
	}
}

func near(a, b float64) bool { return a > b*0.999 && a < b*1.001 }

// TestEngineMemoryIsThatOfThePairs: an SA pair holds at least its window and
// two cipher states, and ten times as many pairs cost about ten times as much.
func TestEngineMemoryIsThatOfThePairs(t *testing.T) {
	m := &engineMemory{suite: "aes128gcm16", sas: 2000}
	if err := m.measure(); err != nil {
		t.Fatal(err)
	}
	if got := m.bytes[0]; got < 4096/8+2*176 || got > 8<<10 {
		t.Errorf("%.0f bytes for each pair", got)
	}
}

// TestEngineLookupsFindWhatTheySay: each flow ends at the policy that its name
// says, by the table's own index.
func TestEngineLookupsFindWhatTheySay(t *testing.T) {
	const n = 200
	for name, want := range map[string]int{lookupFirst: 0, lookupMiddle: n / 2, lookupLast: n - 1, lookupNone: -1, lookupWorst: n - 1} {
		l := &engineLookup{policies: n, name: name}
		policies, flows := l.load()
		table, err := spd.NewTable(policies)
		if err != nil {
			t.Fatal(err)
		}
		got := -1
		if p := table.Lookup(spd.Outbound, &flows[0]); p != nil {
			got = p.Index()
		}
		if got != want || len(policies) != n || len(flows) != 1 {
			t.Errorf("%s: finds policy %d of %d, want %d", name, got, len(policies), want)
		}
	}
	l := &engineLookup{policies: n, name: lookupRandom}
	policies, flows := l.load()
	table, err := spd.NewTable(policies)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[int]bool)
	for i := range flows {
		found[table.Lookup(spd.Outbound, &flows[i]).Index()] = true
	}
	if len(found) != n {
		t.Errorf("%s: finds %d policies of %d", lookupRandom, len(found), n)
	}
}

// contextWithCause is a context that ends with err when asked.
func contextWithCause(t *testing.T, err error) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(t.Context())
	return ctx, func() { cancel(err) }
}

func TestRunEngineEndsWhenAsked(t *testing.T) {
	asked := errors.New("asked to end")
	o := EngineOptions{Suites: []string{"aes128gcm16"}, Sizes: []string{"64"}, Policies: []int{1}, SAs: []int{1},
		Rounds: 1, Duration: time.Hour, Progress: func(string) {}}
	ctx, cancel := contextWithCause(t, asked)
	cancel()
	if _, err := RunEngine(ctx, o); !errors.Is(err, asked) {
		t.Errorf("got %v, want %v", err, asked)
	}
	// In the middle of a row.
	ctx, cancel = contextWithCause(t, asked)
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := RunEngine(ctx, o); !errors.Is(err, asked) {
		t.Errorf("got %v, want %v", err, asked)
	}
}
