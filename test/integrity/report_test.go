package integrity

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
)

// campaign is what the report file holds.
type campaign struct {
	Seed    string    `json:"seed"`
	Bytes   int64     `json:"bytes"` // that arrived
	Seconds float64   `json:"seconds"`
	Streams int       `json:"streams"`
	Intact  int       `json:"intact"`
	Failed  bool      `json:"failed"`
	Cells   []*result `json:"cells"`

	start time.Time
}

// result is what came of one cell.
type result struct {
	Name       string            `json:"name"`
	Inner      int               `json:"inner"` // IP version
	Outer      int               `json:"outer"`
	Offload    string            `json:"offload"`
	Path       string            `json:"path"`
	Congestion string            `json:"congestion_control"`
	Bytes      int64             `json:"bytes"`
	Seconds    float64           `json:"seconds"`
	Wire       netlab.PathCounts `json:"wire"`
	Drops      map[string]uint64 `json:"drops,omitempty"` // by gateway and counter
	Streams    []stream          `json:"streams"`
	Failed     bool              `json:"failed"`
}

// stream is what came of one TCP connection.
type stream struct {
	Name        string      `json:"name"`
	Expected    int64       `json:"expected"` // bytes
	Received    int64       `json:"received"`
	Sent        string      `json:"sent_sha256"` // empty: the sender did not get to its end
	Arrived     string      `json:"received_sha256"`
	Intact      bool        `json:"intact"`
	Retransmits uint32      `json:"retransmits"`
	Reordering  uint32      `json:"reordering_seen"`
	Difference  *difference `json:"first_difference,omitempty"`
	Error       string      `json:"error,omitempty"`
}

type difference struct {
	Offset   int64  `json:"offset"`
	Expected string `json:"expected"`
	Read     string `json:"read"`
}

func (s *stream) set(r netlab.TransferResult, err error) {
	s.Received, s.Retransmits, s.Reordering = r.Bytes, r.Retransmits, r.ReorderingSeen
	if s.Arrived = hex.EncodeToString(r.ReceivedSHA256[:]); r.SentSHA256 != [32]byte{} {
		s.Sent = hex.EncodeToString(r.SentSHA256[:])
	}
	if d := r.Difference; d != nil {
		s.Difference = &difference{d.Offset, hex.EncodeToString(d.Want), hex.EncodeToString(d.Got)}
	}
	if err != nil {
		s.Error = err.Error()
	}
	s.Intact = err == nil && r.Intact() && r.Bytes == s.Expected
}

// String says what is wrong with the stream.
func (s *stream) String() string {
	text := fmt.Sprintf("%d of %d bytes arrived, SHA-256 %q sent, %q read", s.Received, s.Expected, s.Sent, s.Arrived)
	if d := s.Difference; d != nil {
		text += fmt.Sprintf("; from byte %d on expected %s, read %s", d.Offset, d.Expected, d.Read)
	}
	if s.Error != "" {
		text += "; " + s.Error
	}
	return text
}

func (r *result) drop(counter string, n uint64) {
	if r.Drops == nil {
		r.Drops = make(map[string]uint64)
	}
	r.Drops[counter] = n
}

func (r *result) intact() (n int) {
	for _, s := range r.Streams {
		if s.Intact {
			n++
		}
	}
	return n
}

func (c *campaign) finish() {
	c.Seconds = time.Since(c.start).Seconds()
	for _, r := range c.Cells {
		c.Bytes += r.Bytes
		c.Streams += len(r.Streams)
		c.Intact += r.intact()
		c.Failed = c.Failed || r.Failed
	}
}

// table is the campaign for people.
func (c *campaign) table() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "inner\touter\toffload\tpath\tbytes\tseconds\tGbit/s\tpackets\tsuper\tsuper in\tlost\tlate\tretransmits\tintact\t")
	for _, r := range c.Cells {
		retransmits := uint64(0)
		for _, s := range r.Streams {
			retransmits += uint64(s.Retransmits)
		}
		mark := ""
		if r.Failed {
			mark = "FAILED"
		}
		fmt.Fprintf(w, "IPv%d\tIPv%d\t%s\t%s\t%s\t%.1f\t%.2f\t%d\t%d\t%d\t%s\t%s\t%d\t%d of %d\t%s\n",
			r.Inner, r.Outer, r.Offload, r.Path, bytesText(r.Bytes), r.Seconds, gigabits(r.Bytes, r.Seconds),
			r.Wire.Packets, r.Wire.Long, r.Wire.LongIn, percent(r.Wire.Lost, r.Wire.Packets), percent(r.Wire.Late, r.Wire.Packets-r.Wire.Lost),
			retransmits, r.intact(), len(r.Streams), mark)
	}
	_ = w.Flush() // into memory
	fmt.Fprintf(&b, "%s in %.0f s, %d of %d streams intact, seed %s\n", bytesText(c.Bytes), c.Seconds, c.Intact, c.Streams, c.Seed)
	return b.String()
}

func (c *campaign) write(file string) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

func percent(n, of uint64) string {
	return fmt.Sprintf("%.2f %%", 100*float64(n)/float64(max(of, 1)))
}

func gigabits(bytes int64, seconds float64) float64 {
	return float64(bytes) * 8 / max(seconds, 1e-9) / 1e9
}

func bytesText(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

func isTraffic(counter string) bool {
	return strings.HasPrefix(counter, "In") || strings.HasPrefix(counter, "Out")
}

// tail is the end of a log.
func tail(log string) string {
	const lines = 40
	all := strings.Split(strings.TrimSpace(log), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
