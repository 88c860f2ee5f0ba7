package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/adit-ipsec/adit/ike"
)

// IKEOptions say what RunIKE measures. Every group is measured with the first
// authentication, and every authentication with the first group; rekeys, cookies
// and memory with the first of both.
type IKEOptions struct {
	Groups   []string
	Auths    []string
	SAs      []int // IKE SAs whose memory is measured
	Rounds   int
	Duration time.Duration // of CPU time, in one round of one row, at the least
	Progress func(line string)
}

// maxIKESAs is the limit of IKE SAs whose memory is measured: a machine's own.
const maxIKESAs = 20000

// Check says what is wrong with the options.
func (o *IKEOptions) Check() error {
	if len(o.Groups) == 0 || len(o.Auths) == 0 {
		return errors.New("nothing to measure: name at least one group and one authentication")
	}
	for _, g := range o.Groups {
		if _, err := (&IKELoad{Group: g}).proposals(); err != nil {
			return err
		}
	}
	for _, a := range o.Auths {
		if _, err := ikeKind(a); err != nil {
			return err
		}
	}
	for _, n := range o.SAs {
		if n < 1 || n > maxIKESAs {
			return fmt.Errorf("%d IKE SAs: write numbers from 1 to %d", n, maxIKESAs)
		}
	}
	return nil
}

// IKEReport is what RunIKE measured.
type IKEReport struct {
	Kind     string      `json:"kind"` // "ike"
	Started  time.Time   `json:"started"`
	Machine  Machine     `json:"machine"`
	Version  string      `json:"adit"`
	Settings IKESettings `json:"settings"`
	Notes    []string    `json:"notes"`
	Rows     []IKERow    `json:"rows"`
	Memory   []IKEMemory `json:"memory"`
}

// IKESettings are the options that the rows do not show.
type IKESettings struct {
	Rounds  int     `json:"rounds"`
	Seconds float64 `json:"seconds"` // of CPU time, in one round of one row
}

// What an IKERow measures.
const (
	IKEHandshake     = "handshake"
	IKERekeyChild    = "Child SA rekey"
	IKERekeyChildPFS = "Child SA rekey with PFS"
	IKERekeyIKE      = "IKE SA rekey"
	IKECookie        = "cookie"
)

// IKERow is one kind of negotiation. Times are CPU time of one negotiation.
type IKERow struct {
	Work      string  `json:"work"` // see IKEHandshake and what follows it
	Group     string  `json:"group"`
	Auth      string  `json:"authentication"`
	Initiator Summary `json:"initiator_cpu_us"`
	Responder Summary `json:"responder_cpu_us"`
	Process   Summary `json:"process_cpu_us"` // both ends, and all other threads: garbage collection
	// What one core does in a second: one that has the responder alone, and one
	// that has both ends and the garbage collection.
	Gateway  Summary `json:"responder_per_core_second"`
	Both     Summary `json:"both_ends_per_core_second"`
	Messages float64 `json:"messages"` // of both ends
	Bytes    float64 `json:"message_bytes"`
}

// IKEMemory is what established IKE SAs cost to have, each with one Child SA.
type IKEMemory struct {
	Group string  `json:"group"`
	Auth  string  `json:"authentication"`
	SAs   int     `json:"ike_sas"`
	Bytes Summary `json:"heap_bytes_per_ike_sa"`
}

var ikeNotes = []string{
	"Two IKE machines in one process and one thread, without sockets, SAD and log: what is measured is the protocol and its cryptography. AES-128-GCM, PRF HMAC-SHA-256, fragmentation (RFC 7383) on.",
	"A handshake is IKE_SA_INIT, IKE_INTERMEDIATE where there is a second key exchange, and IKE_AUTH with the first Child SA. Certificates: a leaf and one intermediate are sent, the root is known; all of one kind of key. With ML-KEM the initiator makes the key pair and decapsulates, the responder encapsulates.",
	"Initiator and responder: CPU time of the thread, around that end's steps. Process: all threads, so that the garbage collection of both is in it.",
	"Per core and second: 1 s by the CPU time of the responder, which is what a gateway that is called has to do; both ends: 1 s by the process's.",
	"A rekey includes the delete of the old SA. PFS: a key exchange by the same group. Cookies: an IKE_SA_INIT from a new address each, while the half-open IKE SAs are at their threshold; no state is made.",
	"Memory: live heap of one end for each IKE SA, behind garbage collection; the mean of the two ends. What the SAD has of a Child SA is not in it (adit-bench engine has it).",
	"Figures of one machine are proportions, not promises: compare rows of one run.",
}

// RunIKE measures. Every round goes through all rows, so that a machine that is
// slower for a while is slower for all of them.
func RunIKE(ctx context.Context, o IKEOptions) (*IKEReport, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	version, err := ProgramVersion(self)
	if err != nil {
		return nil, err
	}
	report := &IKEReport{Kind: "ike", Started: time.Now().UTC().Truncate(time.Second), Machine: ThisMachine(), Version: version,
		Settings: IKESettings{o.Rounds, o.Duration.Seconds()}, Notes: ikeNotes}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	rows, memories := o.rows(), o.memories()
	jobs := make([]engineJob, 0, len(rows)+len(memories))
	for _, r := range rows {
		jobs = append(jobs, engineJob{r.title(), func(ctx context.Context) (string, error) { return r.measure(ctx, o.Duration) }})
	}
	for _, m := range memories {
		jobs = append(jobs, engineJob{m.title(), m.measure})
	}
	for round := range o.Rounds {
		for i, j := range jobs {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			said, err := j.measure(ctx)
			if err != nil {
				return nil, fmt.Errorf("bench: %s: %w", j.title, err)
			}
			o.Progress(fmt.Sprintf("round %d/%d  %d/%d  %s: %s", round+1, o.Rounds, i+1, len(jobs), j.title, said))
		}
	}
	for _, r := range rows {
		report.Rows = append(report.Rows, r.report())
	}
	for _, m := range memories {
		report.Memory = append(report.Memory, m.report())
	}
	return report, nil
}

// ikeRow gathers the rounds of an IKERow.
type ikeRow struct {
	work string
	load IKELoad
	once func() (ikeMeasure, error) // one batch; nil before the first round

	initiator, responder, process []float64 // CPU, microseconds
	messages, bytes               float64
}

// ikeBatch is how many peers take turns: enough that no batch is short beside the
// clock, few enough that their certificates are soon made.
const ikeBatch = 16

func (o *IKEOptions) rows() (rows []*ikeRow) {
	add := func(work, group, auth string) {
		rows = append(rows, &ikeRow{work: work, load: IKELoad{Group: group, Auth: auth, PFS: work == IKERekeyChildPFS, Pairs: ikeBatch}})
	}
	for _, g := range o.Groups {
		add(IKEHandshake, g, o.Auths[0])
	}
	for _, a := range o.Auths[1:] {
		add(IKEHandshake, o.Groups[0], a)
	}
	for _, work := range []string{IKERekeyChild, IKERekeyChildPFS, IKERekeyIKE, IKECookie} {
		add(work, o.Groups[0], o.Auths[0])
	}
	return rows
}

func (r *ikeRow) title() string { return fmt.Sprintf("%s %s %s", r.work, r.load.Group, r.load.Auth) }

// prepare makes the machines, which then stay for all rounds, as a gateway does.
func (r *ikeRow) prepare() error {
	if r.work == IKECookie {
		flood, err := newIKEFlood(r.load)
		if err == nil {
			r.once = flood.cookies
		}
		return err
	}
	pair, err := newIKEPair(r.load)
	if err != nil {
		return err
	}
	switch r.work {
	case IKEHandshake:
		r.once = pair.handshakes
		return nil
	case IKERekeyIKE:
		r.once = func() (ikeMeasure, error) { return pair.rekeys(ike.StageRekeyIKE) }
	default:
		r.once = func() (ikeMeasure, error) { return pair.rekeys(ike.StageRekeyChild) }
	}
	return pair.establish()
}

// measure is one round: batches until they have taken long enough, behind one that
// is not counted.
func (r *ikeRow) measure(ctx context.Context, duration time.Duration) (said string, err error) {
	if r.once == nil {
		if err := r.prepare(); err != nil {
			return "", err
		}
	}
	var sum ikeMeasure
	for warm := false; sum.process < duration; warm = true {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		m, err := r.once()
		if err != nil {
			return "", err
		}
		if warm {
			sum.add(m)
		}
	}
	n := float64(sum.count)
	r.initiator = append(r.initiator, us(sum.initiator)/n)
	r.responder = append(r.responder, us(sum.responder)/n)
	r.process = append(r.process, us(sum.process)/n)
	r.messages, r.bytes = float64(sum.messages)/n, float64(sum.bytes)/n
	return lastOf(r.responder, "%.0f µs at the responder"), nil
}

func (r *ikeRow) report() IKERow {
	perSecond := func(us []float64) Summary {
		var rates []float64
		for _, v := range us {
			rates = append(rates, 1e6/v)
		}
		return Summarize(rates)
	}
	return IKERow{
		Work: r.work, Group: r.load.Group, Auth: r.load.Auth, Messages: r.messages, Bytes: r.bytes,
		Initiator: Summarize(r.initiator), Responder: Summarize(r.responder), Process: Summarize(r.process),
		Gateway: perSecond(r.responder), Both: perSecond(r.process),
	}
}

// ikeMemory gathers the rounds of an IKEMemory.
type ikeMemory struct {
	load  IKELoad
	bytes []float64
}

func (o *IKEOptions) memories() (all []*ikeMemory) {
	for _, n := range o.SAs {
		all = append(all, &ikeMemory{load: IKELoad{Group: o.Groups[0], Auth: o.Auths[0], Pairs: n}})
	}
	return all
}

func (m *ikeMemory) title() string { return fmt.Sprintf("memory of IKE SAs %d", m.load.Pairs) }

// measure is one round: the live heap of two machines with their peers, before and
// after these are up.
func (m *ikeMemory) measure(context.Context) (string, error) {
	pair, err := newIKEPair(m.load)
	if err != nil {
		return "", err
	}
	before := liveHeap()
	if err := pair.establish(); err != nil {
		return "", err
	}
	if err := pair.pass(ikeRest); err != nil {
		return "", err
	}
	after := liveHeap()
	if err := pair.wantChildren(m.load.Pairs); err != nil {
		return "", err
	}
	m.bytes = append(m.bytes, (float64(after)-float64(before))/float64(2*m.load.Pairs))
	return lastOf(m.bytes, "%.0f bytes each"), nil
}

func (m *ikeMemory) report() IKEMemory {
	return IKEMemory{m.load.Group, m.load.Auth, m.load.Pairs, Summarize(m.bytes)}
}
