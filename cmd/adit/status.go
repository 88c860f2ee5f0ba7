package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/internal/ctl"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
)

// patience is how long a command may be silent.
const patience = 2 * time.Second

// statusInterval is how often `adit status --wait` asks.
const statusInterval = 50 * time.Millisecond

func newStatusCommand() *cobra.Command {
	var from controlFlags
	var asJSON bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "the gateway, its peers, and what became of the packets",
		Long: strings.TrimSpace(`
The gateway, its peers with the posture of their traffic, and every drop that is
not zero with what to do about it. Never keys.

With --wait: exit 0 as soon as the gateway answers and every SA that should be up
is up, else 1 after that time.`),
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			client, err := from.client()
			if err != nil {
				return err
			}
			defer client.Close()
			slow := time.AfterFunc(patience, func() {
				fmt.Fprintf(cmd.ErrOrStderr(), "… waiting for the gateway, at most %s\n", wait)
			})
			status, err := waitStatus(cmd.Context(), client, wait)
			slow.Stop()
			if status == nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				return errors.Join(printMessage(out, status), err)
			}
			return errors.Join(printStatus(out, status), err)
		}),
	}
	from.add(cmd)
	jsonFlag(cmd, &asJSON)
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait at most this `long` for the gateway and all its SAs, as in 30s")
	return cmd
}

// waitStatus asks until the gateway is ready or the time is over; with no time
// to wait it asks once. It may return a status and an error: what was seen last,
// and why that is not enough.
func waitStatus(ctx context.Context, client *ctl.Client, wait time.Duration) (*controlv1.StatusResponse, error) {
	if wait <= 0 {
		return client.Status(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(statusInterval)
	defer tick.Stop()
	var last *controlv1.StatusResponse
	var lastErr error
	for {
		status, err := client.Status(ctx)
		if err == nil {
			last, lastErr = status, nil
			if status.GetReady() {
				return status, nil
			}
		} else if ctx.Err() == nil {
			lastErr = err
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		switch {
		case lastErr != nil:
			return nil, fmt.Errorf("waited %s: %w", wait, lastErr)
		case last == nil:
			return nil, fmt.Errorf("waited %s: the gateway did not answer in that time", wait)
		}
		return last, fmt.Errorf("waited %s: not up: %s", wait, strings.Join(last.GetMissing(), ", "))
	}
}

func printStatus(w io.Writer, s *controlv1.StatusResponse) error {
	state := "up"
	if !s.GetReady() {
		state = "up, and not complete: missing " + strings.Join(s.GetMissing(), ", ")
	}
	var head table
	head.rows = slices.Concat([][]string{
		{"Gateway", s.GetName() + ", " + state},
		{"Since", fmt.Sprintf("%s ago (pid %d, version %s)", lasted(s.GetUptimeSeconds()), s.GetPid(), s.GetVersion())},
		{"File", s.GetConfigFile()},
		{"TUN", fmt.Sprintf("%s, MTU %d", s.GetTun(), s.GetTunMtu())},
		{"Routes", strings.Join(s.GetRoutes(), ", ")},
		{"Listen", strings.Join(s.GetListen(), ", ")},
	}, offloadRows(s.GetOffloads()), [][]string{
		{"Guard", s.GetGuard()},
		{"Policies", policyLine(s)},
		{"Carried", carriedLine(s.GetTraffic())},
	})
	if s.GetHeld().GetPackets() > 0 {
		head.row("Held", heldText(s.GetHeld()))
	}
	if err := head.write(w, ""); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := printPeers(w, s.GetPeers()); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if len(s.GetIke()) > 0 {
		if err := printIKE(w, s.GetIke(), false); err != nil {
			return err
		}
		printTroubles(w, s.GetIke())
		fmt.Fprintln(w)
	}
	return printDrops(w, s.GetDrops())
}

func policyLine(s *controlv1.StatusResponse) string {
	if clear := s.GetClearPolicies(); len(clear) > 0 {
		return fmt.Sprintf("%d, of which in CLEAR by bypass: %s", s.GetPolicies(), strings.Join(clear, ", "))
	}
	return fmt.Sprintf("%d, none lets anything out in clear", s.GetPolicies())
}

func carriedLine(traffic []*controlv1.Counter) string {
	value := map[string]uint64{}
	for _, c := range traffic {
		value[c.GetName()] = c.GetValue()
	}
	text := fmt.Sprintf("out %s packets, %s; in %s packets, %s",
		grouped(value["OutPackets"]), sized(value["OutBytes"]), grouped(value["InPackets"]), sized(value["InBytes"]))
	if n := value["OutBypass"]; n > 0 {
		text += fmt.Sprintf("; %s packets out in clear by bypass", grouped(n))
	}
	return text
}

func printPeers(w io.Writer, peers []*controlv1.Peer) error {
	if len(peers) == 0 {
		_, err := fmt.Fprintln(w, "No peers.")
		return err
	}
	var t table
	t.row("PEER", "ADDRESS", "PROTO", "MODE", "OVER", "POSTURE", "SAS", "SUITE", "PATH MTU", "POLICIES", "NOTE")
	for _, p := range peers {
		posture := p.GetPosture()
		if posture == postureAuthenticated {
			posture = "authenticated only"
		}
		t.row(p.GetName(), p.GetAddress(), p.GetProtocol(), p.GetMode(), overText(p), posture,
			fmt.Sprintf("%d of %d", p.GetSasInstalled(), p.GetSasExpected()),
			strings.Join(p.GetSuites(), ","), sourcedMTU(p.GetPathMtu(), p.GetPathMtuSource()), strings.Join(p.GetPolicies(), ","), peerNote(p))
	}
	return t.write(w, "")
}

// overText is what carries a peer's packets.
func overText(p *controlv1.Peer) string {
	switch {
	case p.GetEncapsulation() != "none":
		return fmt.Sprintf("UDP %d", p.GetPort())
	case p.GetProtocol() == config.ProtocolESP.String():
		return "protocol 50"
	}
	return "protocol 51"
}

// peerNote is what of a peer is not the default.
func peerNote(p *controlv1.Peer) string {
	var notes []string
	if text := special(p.GetMode(), p.GetFragment(), p.GetTfc(), nil); text != "" {
		notes = append(notes, text)
	}
	switch {
	case p.GetBehindNat():
		notes = append(notes, "we are behind a NAT")
	case p.GetStatic():
		notes = append(notes, "static")
	}
	return strings.Join(notes, "; ")
}

// printDrops lists the drops that are not zero, with what to do.
func printDrops(w io.Writer, drops []*controlv1.Counter) error {
	var t table
	t.row("DROPPED", "COUNT", "BECAUSE")
	var todo []string
	for _, d := range drops {
		if d.GetValue() == 0 {
			continue
		}
		e := explain(d.GetName())
		t.row(d.GetName(), grouped(d.GetValue()), e.meaning)
		if e.todo != "" {
			todo = append(todo, fmt.Sprintf("%s: %s.", e.name, e.todo))
		}
	}
	if len(t.rows) == 1 {
		_, err := fmt.Fprintln(w, "No packet was dropped.")
		return err
	}
	if err := t.write(w, ""); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, line := range todo {
		fmt.Fprintln(w, line)
	}
	return nil
}
