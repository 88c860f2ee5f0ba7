package bench

import "slices"

// Summary is what several rounds of one measurement say together.
type Summary struct {
	Min    float64   `json:"min"`
	Median float64   `json:"median"` // of an even number of rounds: the mean of the middle two
	Max    float64   `json:"max"`
	Rounds []float64 `json:"rounds"` // in the order they were measured
}

// Summarize sums up the rounds; of none, everything is 0.
func Summarize(rounds []float64) Summary {
	s := Summary{Rounds: slices.Clone(rounds)}
	if len(rounds) == 0 {
		return s
	}
	sorted := slices.Sorted(slices.Values(rounds))
	n := len(sorted)
	s.Min, s.Median, s.Max = sorted[0], (sorted[(n-1)/2]+sorted[n/2])/2, sorted[n-1]
	return s
}

// ratios divides round by round: what was measured one after the other is
// compared, so that a machine that is slower for a while slows both. A round
// in which b is 0 says nothing and is left out.
func ratios(a, b []float64) []float64 {
	var r []float64
	for i := range min(len(a), len(b)) {
		if b[i] != 0 {
			r = append(r, a[i]/b[i])
		}
	}
	return r
}
