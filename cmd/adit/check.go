package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

func newCheckCommand() *cobra.Command {
	var peer string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "validate a configuration, and say what it means",
		Long: strings.TrimSpace(`
Validates the file as ` + "`adit run`" + ` would, touches nothing, and says what the file
means. With --peer it also holds the file against the other end's and reports
every field in which the two do not mirror each other.

Exit code 0: valid. 2: not valid. 3: valid, and the two ends do not mirror each
other.`),
		Args: cobra.ExactArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			report, err := checkFiles(args[0], peer)
			if asJSON {
				return errors.Join(printJSON(cmd.OutOrStdout(), report), quiet(err))
			}
			return errors.Join(report.print(cmd.OutOrStdout()), err)
		}),
	}
	cmd.Flags().StringVar(&peer, "peer", "", "the other end's `file`")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// quiet keeps the exit code of an error whose text was printed already.
func quiet(err error) error {
	var f *failure
	if errors.As(err, &f) {
		return &failure{code: f.code}
	}
	return err
}

// checkReport is what `adit check` found.
type checkReport struct {
	File        string           `json:"file"`
	Peer        string           `json:"peer,omitempty"` // the other end's file
	Valid       bool             `json:"valid"`
	Errors      []checkError     `json:"errors"`
	Warnings    []checkWarning   `json:"warnings"`
	Differences []checkDifferent `json:"differences"`
	Meaning     *checkMeaning    `json:"meaning,omitempty"` // of a valid file
}

type checkError struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Key     string `json:"key"`
	Problem string `json:"problem"`
	Fix     string `json:"fix"`
}

type checkWarning struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Key    string `json:"key"`
	Text   string `json:"text"`
}

type checkDifferent struct {
	Key  string `json:"key"`
	Here string `json:"here"` // file:line:column
	Peer string `json:"peer"`
	Text string `json:"text"`
}

// checkMeaning is what a file says, defaults filled in.
type checkMeaning struct {
	Name     string        `json:"name"`
	TUN      string        `json:"tun"`
	MTU      int           `json:"mtu"`      // bytes
	MTUAuto  bool          `json:"mtu_auto"` // the MTU given is that of a path of 1500 bytes
	Listen   string        `json:"listen"`
	Raw      bool          `json:"raw"` // raw sockets are needed: protocol 50, with AH 51
	StateDir string        `json:"state_dir"`
	Control  string        `json:"control"`
	Routes   []string      `json:"routes"` // prefixes that will lead into the TUN
	SAs      []checkSA     `json:"sas"`
	IKE      []checkIKE    `json:"ike"`
	Policies []checkPolicy `json:"policies"`

	policies []*controlv1.Policy
}

type checkSA struct {
	Peer          string `json:"peer"`
	Direction     string `json:"direction"`
	SPI           uint32 `json:"spi"`
	Suite         string `json:"suite"`
	Posture       string `json:"posture"`
	Encapsulation string `json:"encapsulation"`
	Remote        string `json:"remote"`
	ESN           bool   `json:"esn"`
	ReplayWindow  int    `json:"replay_window"`
	Protocol      string `json:"protocol"`
	Mode          string `json:"mode"`
	Bundle        bool   `json:"bundle"` // one of two SAs, AH around ESP
	// Out only. No code points: those that no other SA names.
	Fragment string   `json:"fragment"`
	TFC      string   `json:"tfc"`
	DSCPs    []uint32 `json:"dscps"`
}

type checkPolicy struct {
	Name     string   `json:"name"`
	Action   string   `json:"action"`
	Peer     string   `json:"peer"`
	Local    []string `json:"local"`
	Remote   []string `json:"remote"`
	Protocol string   `json:"protocol"`
	Posture  string   `json:"posture"`
}

// checkFiles checks file, and holds it against peerFile where one is given. The
// report is never nil; the error carries the exit code.
func checkFiles(file, peerFile string) (*checkReport, error) {
	r := &checkReport{File: file, Peer: peerFile, Errors: []checkError{}, Warnings: []checkWarning{}, Differences: []checkDifferent{}}
	cfg, err := config.Load(file)
	if err != nil {
		r.addErrors(err)
	}
	var other *config.Config
	if peerFile != "" {
		var otherErr error
		if other, otherErr = config.Load(peerFile); otherErr != nil {
			r.addErrors(otherErr)
			err = errors.Join(err, otherErr)
		}
	}
	if err != nil {
		return r, &failure{exitUsage, err}
	}
	r.Valid, r.Meaning = true, meaningOf(cfg)
	r.addWarnings(cfg.Warnings)
	r.addWarnings(certificateNotes(cfg, time.Now()))
	if other == nil {
		return r, nil
	}
	r.addWarnings(other.Warnings)
	for _, d := range config.Mirror(cfg, other) {
		r.Differences = append(r.Differences, checkDifferent{d.Key, d.A.String(), d.B.String(), d.Text})
	}
	if n := len(r.Differences); n > 0 {
		return r, &failure{exitNegative, fmt.Errorf("the two ends do not mirror each other: %s", count(n, "difference", "differences"))}
	}
	return r, nil
}

func (r *checkReport) addErrors(err error) {
	var list *config.Errors
	if !errors.As(err, &list) {
		r.Errors = append(r.Errors, checkError{File: r.File, Problem: err.Error()})
		return
	}
	for _, e := range list.List {
		r.Errors = append(r.Errors, checkError{e.File, e.Line, e.Column, e.Key, e.Problem, e.Fix})
	}
}

func (r *checkReport) addWarnings(list []config.Warning) {
	for _, w := range list {
		r.Warnings = append(r.Warnings, checkWarning{w.File, w.Line, w.Column, w.Key, w.Text})
	}
}

// meaningOf says what a valid configuration means.
func meaningOf(cfg *config.Config) *checkMeaning {
	params := cfg.SAParams()
	m := &checkMeaning{
		Name: cfg.Name, TUN: cfg.TUN.Name, MTU: cfg.TUN.MTU,
		Listen: listenText(cfg), Raw: cfg.Listen.Raw,
		StateDir: cfg.StateDir, Control: cfg.Control,
		Routes: []string{}, SAs: []checkSA{}, IKE: checkIKEOf(cfg), Policies: []checkPolicy{},
	}
	if m.MTU == 0 {
		m.MTU, m.MTUAuto = ethernetMTU, true
		if mtu, ok := tunnelMTU(allParams(cfg), func(*sad.Params) int { return ethernetMTU }); ok {
			m.MTU = mtu
		}
	}
	if cfg.TUN.Routes {
		for _, p := range planRoutes(cfg.Policies, nil).into {
			m.Routes = append(m.Routes, p.String())
		}
	}
	for i := range params {
		p := &params[i]
		sa := checkSA{
			Peer: p.Peer, Direction: p.Direction.String(), SPI: p.SPI, Suite: suiteName(p.Protocol, p.Suite, p.AHSuite),
			Posture: postureOf(p.Protocol, p.Suite), Encapsulation: p.Encap.String(), Remote: endpoint(p.Remote), ESN: p.ESN,
			Protocol: p.Protocol.String(), Mode: p.Mode.String(), Bundle: p.Bundle, DSCPs: []uint32{},
		}
		if p.Direction == packet.Inbound {
			sa.ReplayWindow = p.ReplayWindow
		} else {
			sa.Fragment, sa.TFC = p.Fragment.String(), p.TFC.String()
			for _, point := range p.DSCPs {
				sa.DSCPs = append(sa.DSCPs, uint32(point))
			}
		}
		m.SAs = append(m.SAs, sa)
	}
	all := kindsOf(params)
	postures := posturesOf(viewPeers(cfg, all, all))
	maps.Copy(postures, ikePostures(cfg))
	m.policies = viewPolicies(cfg.Policies, postures)
	for _, p := range m.policies {
		m.Policies = append(m.Policies, checkPolicy{p.GetName(), p.GetAction(), p.GetPeer(), p.GetLocal(), p.GetRemote(), protocolText(p), p.GetPosture()})
	}
	return m
}

func listenText(cfg *config.Config) string {
	text := fmt.Sprintf("UDP %d on %s", cfg.Listen.NATTPort, listenAddress(cfg.Listen.Address))
	if cfg.UsesIKE() {
		text = fmt.Sprintf("UDP %d and ", cfg.Listen.IKEPort) + text
	}
	switch esp, ah := cfg.UsesRawESP(), cfg.UsesAH(); {
	case esp && ah:
		text += ", protocol 50 and protocol 51"
	case esp:
		text += " and protocol 50"
	case ah:
		text += " and protocol 51"
	}
	return text
}

// print writes the report; errors are the caller's to print.
func (r *checkReport) print(w io.Writer) error {
	if !r.Valid {
		return nil
	}
	fmt.Fprintf(w, "%s is valid.\n\n", r.File)
	if err := r.Meaning.print(w); err != nil {
		return err
	}
	if len(r.Warnings) > 0 {
		fmt.Fprintln(w)
	}
	for _, x := range r.Warnings {
		fmt.Fprintf(w, "warning: %s:%d:%d: %s: %s\n", x.File, x.Line, x.Column, x.Key, x.Text)
	}
	if r.Peer == "" {
		return nil
	}
	if len(r.Differences) == 0 {
		_, err := fmt.Fprintf(w, "\n%s and %s mirror each other.\n", r.File, r.Peer)
		return err
	}
	fmt.Fprintf(w, "\n%s and %s do not mirror each other:\n", r.File, r.Peer)
	for _, d := range r.Differences {
		fmt.Fprintf(w, "%s: %s: %s (other end: %s)\n", d.Here, d.Key, d.Text, d.Peer)
	}
	return nil
}

func (m *checkMeaning) print(w io.Writer) error {
	mtu := fmt.Sprint(m.MTU)
	if m.MTUAuto {
		mtu = fmt.Sprintf("auto: %d on a path of %d bytes", m.MTU, ethernetMTU)
	}
	var head table
	head.rows = [][]string{
		{"Gateway", m.Name},
		{"TUN", fmt.Sprintf("%s, MTU %s", m.TUN, mtu)},
		{"Routes", strings.Join(m.Routes, ", ")},
		{"Listen", m.Listen},
		{"State", m.StateDir},
		{"Control", m.Control},
	}
	if err := head.write(w, ""); err != nil {
		return err
	}
	var sas table
	sas.row("PEER", "DIR", "PROTO", "SPI", "SUITE", "POSTURE", "MODE", "OVER", "REMOTE", "ESN", "WINDOW", "NOTE")
	for _, sa := range m.SAs {
		window, remote := "", sa.Remote
		if sa.Direction == packet.Inbound.String() {
			window = fmt.Sprint(sa.ReplayWindow)
			if sa.ReplayWindow == 0 {
				window = "off"
			}
			if remote == "" {
				remote = "any"
			}
		}
		sas.row(sa.Peer, sa.Direction, sa.Protocol, spiText(sa.SPI), sa.Suite, sa.Posture, sa.Mode,
			carrier(sa.Protocol, sa.Encapsulation, sa.Bundle), remote, yesNo(sa.ESN), window, special(sa.Mode, sa.Fragment, sa.TFC, sa.DSCPs))
	}
	if len(m.SAs) > 0 || len(m.IKE) == 0 {
		fmt.Fprintln(w)
		if err := sas.write(w, ""); err != nil {
			return err
		}
	}
	if err := printCheckIKE(w, m.IKE); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nPolicies, the first match wins:")
	return printPolicies(w, m.policies, "")
}
