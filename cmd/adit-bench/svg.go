package main

import (
	"fmt"
	"html"
	"math"
	"strings"

	"github.com/adit-ipsec/adit/bench"
)

// chart is a plot: panels with horizontal bars, one below the other.
type chart struct {
	Title, Subtitle string
	Panels          []panel
}

// panel is a plot with a scale of its own, from zero.
type panel struct {
	Title string
	Bars  []bar
}

// bar is a median with whiskers to the lowest and the highest. Bars of one
// group stand together and show its name once.
type bar struct {
	Group, Series string
	Colour        int
	Value         bench.Summary
}

// Measures of the plot, in pixels.
const (
	chartWidth  = 900
	chartMargin = 24
	labelsRight = 330 // where the bars begin
	barsWidth   = 460
	barHeight   = 16
	barStep     = 20
	groupGap    = 8
	panelHead   = 34
	panelFoot   = 30
)

// Colours that remain different for colour-blind readers and in print.
var chartColours = []string{"#1b5e9e", "#e08a2c", "#7f7f7f"}

// svg is the plot as a file.
func (c *chart) svg() string {
	var body strings.Builder
	y := float64(chartMargin + 16)
	text(&body, chartMargin, y, `font-size="17" font-weight="bold"`, c.Title)
	y += 20
	text(&body, chartMargin, y, `font-size="11" fill="#555555"`, c.Subtitle)
	y += 12
	for _, p := range c.Panels {
		y = p.draw(&body, y)
	}
	height := int(math.Ceil(y)) + chartMargin
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="Helvetica, Arial, sans-serif">
<title>%s</title>
<rect width="100%%" height="100%%" fill="#ffffff"/>
`, chartWidth, height, chartWidth, height, html.EscapeString(c.Title)) + body.String() + "</svg>\n"
}

// draw draws the panel below y and returns where it ends.
func (p *panel) draw(b *strings.Builder, y float64) float64 {
	text(b, chartMargin, y+22, `font-size="13" font-weight="bold"`, p.Title)
	top := y + panelHead
	step := tick(p.highest())
	end := math.Max(1, math.Ceil(p.highest()/step-1e-9)) * step
	x := func(v float64) float64 { return labelsRight + v/end*barsWidth }

	var bars strings.Builder
	y = top
	for i, r := range p.Bars {
		first := i == 0 || p.Bars[i-1].Group != r.Group
		if first && i > 0 {
			y += groupGap
		}
		if first {
			text(&bars, chartMargin, y+12.5, `font-size="12"`, r.Group)
		}
		text(&bars, labelsRight-8, y+12.5, `font-size="12" text-anchor="end" fill="#333333"`, r.Series)
		r.draw(&bars, x, y)
		y += barStep
	}
	for v := 0.0; v <= end*(1+1e-9); v += step {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#dddddd"/>`+"\n", x(v), top-4, x(v), y)
		text(b, x(v), y+14, `font-size="11" text-anchor="middle" fill="#555555"`, tickLabel(v, step))
	}
	b.WriteString(bars.String())
	return y + panelFoot
}

// draw draws the bar, its whiskers and its figure.
func (r *bar) draw(b *strings.Builder, x func(float64) float64, y float64) {
	colour := chartColours[r.Colour%len(chartColours)]
	middle, low, high := y+barHeight/2, x(r.Value.Min), x(r.Value.Max)
	fmt.Fprintf(b, `<rect x="%d" y="%.1f" width="%.1f" height="%d" fill="%s"/>`+"\n", labelsRight, y, x(r.Value.Median)-labelsRight, barHeight, colour)
	fmt.Fprintf(b, `<path d="M%.1f %.1fH%.1fM%.1f %.1fv8M%.1f %.1fv8" stroke="#111111" stroke-width="1.2" fill="none"/>`+"\n",
		low, middle, high, low, middle-4, high, middle-4)
	text(b, math.Max(high, x(r.Value.Median))+7, y+12.5, `font-size="12"`, figure(r.Value.Median))
}

func (p *panel) highest() (v float64) {
	for _, r := range p.Bars {
		v = math.Max(v, r.Value.Max)
	}
	return v
}

// tick is the distance of the lines of a scale: 1, 2 or 5 times a power of ten,
// four to ten of them up to highest.
func tick(highest float64) float64 {
	if highest <= 0 {
		return 1
	}
	raw := highest / 8
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5} {
		if raw <= m*power {
			return m * power
		}
	}
	return 10 * power
}

// tickLabel is a number with the digits that the scale needs.
func tickLabel(v, step float64) string {
	digits := max(0, int(math.Ceil(-math.Log10(step)-1e-9)))
	return fmt.Sprintf("%.*f", digits, v)
}

func text(b *strings.Builder, x, y float64, attributes, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" %s>%s</text>`+"\n", x, y, attributes, html.EscapeString(s))
}
