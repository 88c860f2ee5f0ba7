package bench

import (
	"math"
	"reflect"
	"slices"
	"testing"
)

func TestSummarizeTakesTheMiddle(t *testing.T) {
	for _, c := range []struct {
		rounds []float64
		want   Summary
	}{
		{nil, Summary{}},
		{[]float64{7}, Summary{Min: 7, Median: 7, Max: 7}},
		{[]float64{3, 1}, Summary{Min: 1, Median: 2, Max: 3}},
		{[]float64{9, 1, 4}, Summary{Min: 1, Median: 4, Max: 9}},
		{[]float64{9, 1, 4, 100}, Summary{Min: 1, Median: 6.5, Max: 100}},
		{[]float64{5, 5, 5, 1, 9}, Summary{Min: 1, Median: 5, Max: 9}},
	} {
		given := slices.Clone(c.rounds)
		got := Summarize(given)
		c.want.Rounds = c.rounds
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("Summarize(%v) = %+v, want %+v", c.rounds, got, c.want)
		}
		if !slices.Equal(given, c.rounds) {
			t.Errorf("Summarize(%v) put its argument in order: %v", c.rounds, given)
		}
	}
}

func TestRatiosCompareWithinARound(t *testing.T) {
	// The machine halves its speed in the second round: the ratio stays.
	got := ratios([]float64{4, 2, 5}, []float64{2, 1, 0})
	if want := []float64{2, 2}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestDescribeCPU(t *testing.T) {
	model, features := describeCPU("processor\t: 0\nmodel name\t: Some  CPU @ 2.10GHz\nflags\t\t: fpu aes vaes sse\n\nprocessor\t: 1\nmodel name\t: Another\nflags\t\t: sha_ni\n")
	if model != "Some CPU @ 2.10GHz" || !slices.Equal(features, []string{"aes", "vaes"}) {
		t.Errorf("got %q, %v", model, features)
	}
}

func TestIMIXIsSevenToFourToOne(t *testing.T) {
	count := map[int]int{}
	total := 0
	for _, size := range IMIX {
		count[size]++
		total += size
	}
	if !reflect.DeepEqual(count, map[int]int{64: 7, 576: 4, 1408: 1}) || math.Round(float64(total)/12) != 347 {
		t.Errorf("got %v, %d bytes", count, total)
	}
}
