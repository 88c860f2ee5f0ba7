package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// inventory is what tests could leave behind on the host, one line each.
type inventory []string

// takeInventory reads namespaces, links, policy rules and nftables' tables.
func takeInventory(ctx context.Context) (inv inventory) {
	inv = append(inv, globbed("namespace", "/run/netns/*")...)
	inv = append(inv, globbed("link", "/sys/class/net/*")...)
	inv = append(inv, printed(ctx, "rule", "ip", "-4", "rule", "show")...)
	inv = append(inv, printed(ctx, "rule", "ip", "-6", "rule", "show")...)
	return append(inv, printed(ctx, "nftables", "nft", "list", "tables")...)
}

func globbed(kind, pattern string) (list []string) {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return nil
	}
	for _, p := range paths {
		list = append(list, kind+" "+filepath.Base(p))
	}
	return list
}

// printed is what a tool prints, a line each; without the tool or the right to
// ask there is nothing to compare.
func printed(ctx context.Context, kind, name string, args ...string) (list []string) {
	out, err := command(ctx, nil, name, args...).Output()
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(out)) {
		list = append(list, kind+" "+strings.TrimSpace(line))
	}
	return list
}

// marked lists the processes that carry the marker in their environment: those
// that this run started, whatever became of their parents.
func marked(marker string) (list []string) {
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil
	}
	for _, path := range paths {
		env, err := os.ReadFile(path) // #nosec G304 -- /proc
		if err != nil || !slices.Contains(strings.Split(string(env), "\x00"), marker) {
			continue
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline")) // #nosec G304 -- /proc
		if err != nil {
			continue
		}
		text := strings.TrimSpace(string(bytes.ReplaceAll(line, []byte{0}, []byte(" "))))
		list = append(list, fmt.Sprintf("process %s: %.120s", filepath.Base(filepath.Dir(path)), text))
	}
	return list
}

// leftovers compares with the inventory from before, and gives what is on its
// way out up to patience to be gone. It is a tier of one test.
func leftovers(ctx context.Context, before inventory, marker string, patience time.Duration) result {
	started := time.Now()
	var left []string
	for {
		left = marked(marker)
		for _, item := range takeInventory(ctx) {
			if !slices.Contains(before, item) {
				left = append(left, item)
			}
		}
		if len(left) == 0 || time.Since(started) > patience || ctx.Err() != nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	r := result{passed: 1, note: "no process, namespace, link, rule or table left behind"}
	if len(left) > 0 {
		r = failure("new since the run began, and still there:\n  " + strings.Join(left, "\n  "))
	}
	r.name, r.log, r.elapsed = "leftovers", "above", time.Since(started)
	return r
}
