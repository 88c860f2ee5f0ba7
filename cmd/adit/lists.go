package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/adit-ipsec/adit/internal/ctl"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
)

// newShowCommand is a command that asks the gateway one thing and prints the answer.
func newShowCommand[M proto.Message](use, short, long string, ask func(*ctl.Client, context.Context) (M, error), text func(io.Writer, M) error) *cobra.Command {
	var from controlFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Long:  long,
		Args:  cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			client, err := from.client()
			if err != nil {
				return err
			}
			defer client.Close()
			answer, err := ask(client, cmd.Context())
			switch {
			case err != nil:
				return err
			case asJSON:
				return printMessage(cmd.OutOrStdout(), answer)
			}
			return text(cmd.OutOrStdout(), answer)
		}),
	}
	from.add(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newSACommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sa",
		Short: "the security associations",
		Args:  cobra.NoArgs,
		RunE:  action(func(cmd *cobra.Command, _ []string) error { return cmd.Help() }),
	}
	cmd.AddCommand(newShowCommand("list", "every SA that is installed, with its figures; never its keys", "", (*ctl.Client).SAs,
		func(w io.Writer, list *controlv1.ListSAsResponse) error { return printSAs(w, list.GetSas()) }))
	return cmd
}

func printSAs(w io.Writer, sas []*controlv1.SecurityAssociation) error {
	if len(sas) == 0 {
		_, err := fmt.Fprintln(w, "No SA is installed: everything that policies protect is dropped as OutNoSA.")
		return err
	}
	var t table
	t.row("PEER", "DIR", "PROTO", "SPI", "SUITE", "MODE", "OVER", "REMOTE", "PACKETS", "BYTES", "SEQUENCE", "WINDOW", "DROPS", "IDLE", "PATH MTU", "MADE BY", "NOTE")
	for _, sa := range sas {
		remote, window := sa.GetRemote(), ""
		if sa.GetDirection() == "in" {
			window = fmt.Sprint(sa.GetReplayWindow())
			if sa.GetReplayWindow() == 0 {
				window = "off"
			}
			if remote == "" {
				remote = "any"
			}
		}
		idle := "unused"
		if sa.GetIdleSeconds() >= 0 {
			idle = lasted(sa.GetIdleSeconds())
		}
		t.row(sa.GetPeer(), sa.GetDirection(), sa.GetProtocol(), spiText(sa.GetSpi()), sa.GetSuite(), sa.GetMode(),
			carrier(sa.GetProtocol(), sa.GetEncapsulation(), sa.GetBundle()), remote,
			grouped(sa.GetPackets()), sized(sa.GetBytes()), grouped(sa.GetSequence()), window,
			grouped(sa.GetReplayDrops()+sa.GetAuthDrops()), idle, pathMTUText(sa), sa.GetSource(), saNote(sa))
	}
	return t.write(w, "")
}

// saNote is what an operator should know about an SA.
func saNote(sa *controlv1.SecurityAssociation) string {
	var notes []string
	switch {
	case sa.GetExhausted():
		notes = append(notes, "exhausted: no sequence number is left, replace its keys")
	case sa.GetAuthDrops() > 0:
		notes = append(notes, fmt.Sprintf("%s failed authentication", grouped(sa.GetAuthDrops())))
	}
	if list := sa.GetSelectors(); len(list) > 0 {
		notes = append(notes, "carries "+strings.Join(list, " or "))
	}
	if text := special(sa.GetMode(), sa.GetFragment(), sa.GetTfc(), sa.GetDscps()); text != "" {
		notes = append(notes, text)
	}
	return strings.Join(notes, "; ")
}

func newPolicyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "the policy table",
		Args:  cobra.NoArgs,
		RunE:  action(func(cmd *cobra.Command, _ []string) error { return cmd.Help() }),
	}
	cmd.AddCommand(newShowCommand("list", "the policies in force, in the order in which they are tried", "", (*ctl.Client).Policies,
		func(w io.Writer, list *controlv1.ListPoliciesResponse) error {
			return printPolicies(w, list.GetPolicies(), "")
		}))
	return cmd
}

func printPolicies(w io.Writer, policies []*controlv1.Policy, indent string) error {
	var t table
	t.row("#", "NAME", "ACTION", "PEER", "LOCAL", "REMOTE", "PROTOCOL", "ON THE WIRE")
	for i, p := range policies {
		t.row(fmt.Sprint(i+1), p.GetName(), p.GetAction(), p.GetPeer(),
			strings.Join(p.GetLocal(), ","), strings.Join(p.GetRemote(), ","), protocolText(p), onTheWire(p.GetPosture()))
	}
	t.row("", "(no match)", "discard", "", "any", "any", "any", onTheWire(postureDiscarded))
	return t.write(w, indent)
}

// protocolText is protocol and ports in one word.
func protocolText(p *controlv1.Policy) string {
	text := p.GetProtocol()
	if p.GetIcmp() != "any" {
		text += " " + p.GetIcmp()
	}
	if p.GetLocalPorts() != "any" || p.GetRemotePorts() != "any" {
		text += " " + p.GetLocalPorts() + " -> " + p.GetRemotePorts()
	}
	return text
}

// onTheWire says a posture in words.
func onTheWire(posture string) string {
	switch posture {
	case postureAuthenticated:
		return "authenticated only, readable"
	case postureClear:
		return "CLEAR"
	case postureDiscarded:
		return "nothing"
	case postureDown:
		return "nothing, until there is an SA"
	}
	return posture
}
