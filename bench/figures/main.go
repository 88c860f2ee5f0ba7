// Command figures writes README.md's figures out of the recorded results, so
// that nobody types one. It owns the text between the two markers, and nothing
// else; what is measured, and what a figure means, is in package bench.
//
//	go run ./bench/figures            # as `make figures`
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/adit-ipsec/adit/bench"
)

func main() {
	results := flag.String("results", "bench/results", "`folder` with engine.json, ike.json, tunnel.json and plan.json, as far as they were recorded")
	readme := flag.String("readme", "README.md", "`file` to write them into")
	flag.Parse()
	if err := update(*readme, *results); err != nil {
		fmt.Fprintln(os.Stderr, "figures: "+err.Error())
		os.Exit(1)
	}
}

// update writes the section of the results into the page.
func update(readme, results string) error {
	page, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	r, err := load(results)
	if err != nil {
		return err
	}
	text, err := replace(string(page), r.section())
	if err != nil {
		return fmt.Errorf("%s: %w", readme, err)
	}
	return os.WriteFile(readme, []byte(text), 0o644)
}

// The markers around the section.
const (
	beginMarker = "<!-- bench:begin -->\n"
	endMarker   = "<!-- bench:end -->\n"
)

// replace puts the section between the markers.
func replace(page, section string) (string, error) {
	front, rest, ok := strings.Cut(page, beginMarker)
	_, back, closed := strings.Cut(rest, endMarker)
	if !ok || !closed {
		return "", fmt.Errorf("the markers %s and %s are not there", strings.TrimSpace(beginMarker), strings.TrimSpace(endMarker))
	}
	return front + beginMarker + section + endMarker + back, nil
}

// recorded are the results that are there; nil: not recorded.
type recorded struct {
	engine *bench.EngineReport
	tunnel *bench.TunnelReport
	plan   *bench.PlanReport
	ike    *bench.IKEReport
}

func load(dir string) (r recorded, err error) {
	return r, errors.Join(
		read(filepath.Join(dir, "engine.json"), &r.engine),
		read(filepath.Join(dir, "ike.json"), &r.ike),
		read(filepath.Join(dir, "tunnel.json"), &r.tunnel),
		read(filepath.Join(dir, "plan.json"), &r.plan))
}

// read decodes a report, strictly: one that another version wrote is to be
// recorded again, not half understood.
func read[T any](file string, to **T) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	report := new(T)
	if err := d.Decode(report); err != nil {
		return fmt.Errorf("%s: %w: record it again with `make record`", file, err)
	}
	*to = report
	return nil
}
