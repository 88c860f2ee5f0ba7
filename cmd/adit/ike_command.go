package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/adit-ipsec/adit/internal/ctl"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
)

// The actions of ChangeIKE.
const (
	ikeInitiate  = "initiate"
	ikeRenew     = "renew"
	ikeTerminate = "terminate"
	ikeVerbose   = "verbose"
	ikeQuiet     = "quiet"
)

func newIKECommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ike",
		Short: "what IKE has negotiated, and what to negotiate now",
		Long: strings.TrimSpace(`
What IKE has negotiated with each peer, and ways to have it begin, renew or end
something now. What a negotiation comes to is in the gateway's log, one line per
stage; "adit ike log --verbose on PEER" adds every message, and touches no SA.

What changes something is done by whoever may use the control socket: the user
that runs the gateway, and root.`),
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error { return cmd.Help() }),
	}
	cmd.AddCommand(newIKEListCommand(), newIKELogCommand(),
		newIKEChangeCommand(ikeInitiate, "initiate PEER [POLICY]", "begin an IKE SA with the peer, and its Child SAs, where they are missing", ""),
		newIKEChangeCommand(ikeRenew, "rekey PEER [POLICY]", "new keys now: of the IKE SA, or of a policy's Child SA (--children: of all)", "children"),
		newIKEChangeCommand(ikeTerminate, "terminate PEER [POLICY]", "end everything with the peer, or a policy's Child SA (--all: with every peer)", "all"),
	)
	return cmd
}

func newIKEListCommand() *cobra.Command {
	return newShowCommand("list", "the peers that IKE speaks with, their IKE SAs and Child SAs", "", (*ctl.Client).IKE,
		func(w io.Writer, list *controlv1.ListIKEResponse) error {
			if err := printIKE(w, list.GetPeers(), true); err != nil {
				return err
			}
			if err := printIKEChildren(w, list.GetPeers()); err != nil {
				return err
			}
			printTroubles(w, list.GetPeers())
			return nil
		})
}

// newIKEChangeCommand is a command that does one thing with one peer; wide is the
// name of a flag that makes it mean more.
func newIKEChangeCommand(act, use, short, wide string) *cobra.Command {
	var from controlFlags
	var asJSON, more bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.RangeArgs(0, 2),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			change := &controlv1.ChangeIKERequest{Action: act}
			switch {
			case len(args) == 0 && !(more && wide == "all"):
				return &failure{exitUsage, errors.New("which peer? `adit ike list` has their names")}
			case len(args) > 0 && more && wide == "all":
				return &failure{exitUsage, errors.New("--all means every peer: give it, or a peer")}
			case len(args) == 2 && more:
				return &failure{exitUsage, errors.New("--children means every policy: give it, or a policy")}
			case len(args) == 2:
				change.Policy = args[1]
			case more && wide == "children":
				change.Policy = "*"
			}
			if len(args) > 0 {
				change.Peer = args[0]
			}
			return changeIKE(cmd, &from, change, wait, asJSON)
		}),
	}
	if act == ikeInitiate {
		cmd.Flags().DurationVar(&wait, "wait", 0, "wait at most this `long` until it is up, as in 10s: exit 0, or 1 and why not")
	}
	if wide != "" {
		cmd.Flags().BoolVar(&more, wide, false, map[string]string{"children": "of all Child SAs, not of the IKE SA", "all": "with every peer"}[wide])
	}
	from.add(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newIKELogCommand() *cobra.Command {
	var from controlFlags
	var asJSON bool
	var verbose string
	cmd := &cobra.Command{
		Use:   "log --verbose on|off [PEER]",
		Short: "switch the verbose negotiation log of a peer, or of all, while the gateway runs",
		Args:  cobra.MaximumNArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			change := &controlv1.ChangeIKERequest{}
			switch verbose {
			case "on":
				change.Action = ikeVerbose
			case "off":
				change.Action = ikeQuiet
			default:
				return &failure{exitUsage, fmt.Errorf("--verbose %q: write on or off", verbose)}
			}
			if len(args) > 0 {
				change.Peer = args[0]
			}
			return changeIKE(cmd, &from, change, 0, asJSON)
		}),
	}
	cmd.Flags().StringVar(&verbose, "verbose", "", "`on` or off")
	from.add(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

// changeIKE asks the gateway and says what was asked, or, with a time to wait, what came
// of it.
func changeIKE(cmd *cobra.Command, from *controlFlags, change *controlv1.ChangeIKERequest, wait time.Duration, asJSON bool) error {
	client, err := from.client()
	if err != nil {
		return err
	}
	defer client.Close()
	start := time.Now()
	if err := client.ChangeIKE(cmd.Context(), change); err != nil {
		return err
	}
	if wait > 0 {
		asked := &initiated{peer: change.GetPeer(), policy: change.GetPolicy(), since: start, wait: wait}
		peer, err := asked.await(cmd.Context(), client, cmd.ErrOrStderr())
		switch {
		case asJSON && peer != nil:
			return errors.Join(printMessage(cmd.OutOrStdout(), peer), err)
		case err != nil:
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: up, after %s.\n", change.GetPeer(), short(time.Since(start).Seconds()))
		return err
	}
	if asJSON {
		return printMessage(cmd.OutOrStdout(), change)
	}
	whom := change.GetPeer()
	if whom == "" {
		whom = "every peer"
	}
	switch policy := change.GetPolicy(); policy {
	case "":
	case "*":
		whom += ", all Child SAs"
	default:
		whom += ", " + policy
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s.\n", whom, ikeWords[change.GetAction()])
	return err
}

// ikeWords says that an action has begun.
var ikeWords = map[string]string{
	ikeInitiate:  "begun, where it was missing. `adit ike list` and the gateway's log say what comes of it, and so does --wait 10s",
	ikeRenew:     "new keys are asked for. `adit ike list` and the gateway's log say what comes of it",
	ikeTerminate: "ended, and the peer is told. The next packet that needs it begins anew, and the peer may",
	ikeVerbose:   "each message is in the gateway's log now, with its payloads",
	ikeQuiet:     "the gateway's log is as usual",
}

// printIKE is a part of `adit status`, and in full the first half of `adit ike list`.
func printIKE(w io.Writer, peers []*controlv1.IKEPeer, full bool) error {
	if len(peers) == 0 {
		_, err := fmt.Fprintln(w, "IKE speaks with nobody: no peer has `keying: ike`.")
		return err
	}
	var t table
	row := func(cells []string, note string, more ...string) {
		if full {
			cells = append(cells, more...)
		}
		t.row(append(cells, note)...)
	}
	row([]string{"PEER", "STATE", "AGE", "REKEY IN", "ROLE", "BEGUN BY", "PROVED BY", "REMOTE", "PEER ID", "SUITE", "NAT", "CHILD SAS"}, "NOTE", "OUR ID", "HEARD", "SPIS")
	for _, p := range peers {
		if len(p.GetSas()) == 0 {
			row([]string{p.GetName(), p.GetState(), "", "", p.GetRole(), "", "", "", "", "", "", childrenText(p, nil)}, ikePeerNote(p), "", "", "")
		}
		for _, sa := range p.GetSas() {
			row([]string{
				p.GetName(), sa.GetState(), lasted(sa.GetAgeSeconds()), untilText(sa.GetRenewSeconds()), p.GetRole(), begunBy(sa), sa.GetAuthentication(),
				sa.GetRemote(), plain(sa.GetRemoteId()), sa.GetSuite(), natText(sa), childrenText(p, sa),
			}, ikePeerNote(p), sa.GetLocalId(), heardText(sa), sa.GetSpiI()+" "+sa.GetSpiR())
		}
	}
	return t.write(w, "")
}

// heardText is when the peer last gave a sign of life, where it has a name for it.
func heardText(sa *controlv1.IKESA) string {
	if sa.GetAuthentication() == "" {
		return ""
	}
	return lasted(sa.GetHeardSeconds()) + " ago"
}

// printIKEChildren is the second half of `adit ike list`, where there are Child SAs.
func printIKEChildren(w io.Writer, peers []*controlv1.IKEPeer) error {
	var t table
	t.row("PEER", "POLICY", "SPI IN", "SPI OUT", "SUITE", "AGE", "REKEY IN", "RECEIVED", "SENT", "CARRIES")
	for _, p := range peers {
		for _, sa := range p.GetSas() {
			for _, c := range sa.GetChildren() {
				t.row(p.GetName(), c.GetPolicy(), spiText(c.GetSpiIn()), spiText(c.GetSpiOut()), c.GetSuite(), untilText(c.GetAgeSeconds()), untilText(c.GetRenewSeconds()),
					carriedText(c.GetInPackets(), c.GetInBytes()), carriedText(c.GetOutPackets(), c.GetOutBytes()), strings.Join(c.GetSelectors(), " or "))
			}
		}
	}
	if len(t.rows) == 1 {
		return nil
	}
	fmt.Fprintln(w)
	return t.write(w, "")
}

func begunBy(sa *controlv1.IKESA) string {
	if sa.GetInitiator() {
		return "us"
	}
	return "peer"
}

func natText(sa *controlv1.IKESA) string {
	switch {
	case sa.GetBehindNat() && sa.GetPeerBehindNat():
		return "both ends"
	case sa.GetBehindNat():
		return "this end"
	case sa.GetPeerBehindNat():
		return "the peer"
	}
	return "none"
}

// untilText is a time to come; less than 0: it does not.
func untilText(seconds float64) string {
	if seconds < 0 {
		return ""
	}
	return lasted(seconds)
}

// childrenText is how many of the peer's policies have Child SAs, and on this IKE SA.
func childrenText(p *controlv1.IKEPeer, sa *controlv1.IKESA) string {
	return fmt.Sprintf("%d (%d of %d policies)", len(sa.GetChildren()), len(p.GetPolicies())-len(p.GetMissing()), len(p.GetPolicies()))
}

func ikePeerNote(p *controlv1.IKEPeer) string {
	var notes []string
	if len(p.GetWaiting()) > 0 {
		notes = append(notes, "wants a Child SA for "+strings.Join(p.GetWaiting(), ", "))
	}
	for _, sa := range p.GetSas() {
		if n := sa.GetTransmissions(); n > 1 {
			notes = append(notes, fmt.Sprintf("no answer to %d transmissions of %s", n, sa.GetAsking()))
		}
	}
	if p.GetRetrySeconds() >= 0 {
		notes = append(notes, "failed, tried again in "+lasted(p.GetRetrySeconds()))
	}
	if p.GetVerbose() {
		notes = append(notes, "verbose log")
	}
	return strings.Join(notes, "; ")
}
