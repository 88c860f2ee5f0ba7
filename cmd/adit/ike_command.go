package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

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
			if err := printIKE(w, list.GetPeers()); err != nil {
				return err
			}
			return printIKEChildren(w, list.GetPeers())
		})
}

// newIKEChangeCommand is a command that does one thing with one peer; wide is the
// name of a flag that makes it mean more.
func newIKEChangeCommand(act, use, short, wide string) *cobra.Command {
	var from controlFlags
	var asJSON, more bool
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
			return changeIKE(cmd, &from, change, asJSON)
		}),
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
			return changeIKE(cmd, &from, change, asJSON)
		}),
	}
	cmd.Flags().StringVar(&verbose, "verbose", "", "`on` or off")
	from.add(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

// changeIKE asks the gateway and says what was asked.
func changeIKE(cmd *cobra.Command, from *controlFlags, change *controlv1.ChangeIKERequest, asJSON bool) error {
	client, err := from.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.ChangeIKE(cmd.Context(), change); err != nil {
		return err
	}
	if asJSON {
		return printMessage(cmd.OutOrStdout(), change)
	}
	whom := change.GetPeer()
	if whom == "" {
		whom = "every peer"
	}
	if change.GetPolicy() != "" {
		whom += ", " + change.GetPolicy()
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s. The gateway's log says what comes of it.\n", whom, ikeWords[change.GetAction()])
	return err
}

// ikeWords says that an action has begun.
var ikeWords = map[string]string{
	ikeInitiate: "begun, where it was missing", ikeRenew: "new keys are asked for", ikeTerminate: "ended",
	ikeVerbose: "the log is verbose", ikeQuiet: "the log is not verbose",
}

// printIKE is `adit ike list`, and a part of `adit status`.
func printIKE(w io.Writer, peers []*controlv1.IKEPeer) error {
	if len(peers) == 0 {
		_, err := fmt.Fprintln(w, "IKE speaks with nobody: no peer has `keying: ike`.")
		return err
	}
	var t table
	t.row("PEER", "STATE", "ROLE", "BEGUN BY", "PROVED BY", "REMOTE", "ID", "SUITE", "AGE", "REKEY IN", "NAT", "CHILD SAS", "NOTE")
	for _, p := range peers {
		if len(p.GetSas()) == 0 {
			t.row(p.GetName(), p.GetState(), p.GetRole(), "", "", "", "", "", "", "", "", childrenText(p, nil), ikePeerNote(p))
		}
		for _, sa := range p.GetSas() {
			t.row(p.GetName(), sa.GetState(), p.GetRole(), begunBy(sa), sa.GetAuthentication(), sa.GetRemote(), sa.GetRemoteId(), sa.GetSuite(),
				lasted(sa.GetAgeSeconds()), untilText(sa.GetRenewSeconds()), natText(sa), childrenText(p, sa), ikePeerNote(p))
		}
	}
	return t.write(w, "")
}

// printIKEChildren is the second half of `adit ike list`, where there are Child SAs.
func printIKEChildren(w io.Writer, peers []*controlv1.IKEPeer) error {
	var t table
	t.row("PEER", "POLICY", "SPI IN", "SPI OUT", "SUITE", "CARRIES")
	for _, p := range peers {
		for _, sa := range p.GetSas() {
			for _, c := range sa.GetChildren() {
				t.row(p.GetName(), c.GetPolicy(), spiText(c.GetSpiIn()), spiText(c.GetSpiOut()), c.GetSuite(), strings.Join(c.GetSelectors(), " or "))
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
		notes = append(notes, "packets wait for "+strings.Join(p.GetWaiting(), ", "))
	}
	if p.GetRetrySeconds() >= 0 {
		notes = append(notes, "failed, tried again in "+lasted(p.GetRetrySeconds()))
	}
	if p.GetVerbose() {
		notes = append(notes, "verbose log")
	}
	return strings.Join(notes, "; ")
}
