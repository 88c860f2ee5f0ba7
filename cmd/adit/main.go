// Command adit is the gateway (`adit run`) and the operator's commands around
// it. It is thin: it parses flags, wires the packages together, turns signals
// into calls and state into text. What a packet goes through is in dataplane,
// what a file may say in config, what is changed on the host in
// internal/hostnet.
//
// Exit codes: 0 done, 1 it failed, 2 bad usage or configuration, 3 the check
// that was asked for is negative.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/adit-ipsec/adit/config"
)

// The exit codes; interface.md promises them.
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2 // bad usage or configuration
	exitNegative = 3 // the check that was asked for is negative
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }

// run is the program: arguments in, exit code out.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	var f *failure
	if !errors.As(err, &f) {
		// What cobra itself refuses: unknown commands, flags, arguments.
		f = &failure{exitUsage, fmt.Errorf("%w\nsee `%s --help`", err, command.CommandPath())}
	}
	var mistakes *config.Errors
	switch {
	case errors.As(f.err, &mistakes):
		// Each line starts with file:line:column, for editors to jump to.
		fmt.Fprintln(stderr, f.err.Error())
	case f.err != nil:
		fmt.Fprintln(stderr, "adit: "+f.err.Error())
	}
	return f.code
}

// failure is an error with the exit code that it means. A nil err: everything
// was said already.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string {
	if f.err == nil {
		return "exit code " + fmt.Sprint(f.code)
	}
	return f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

// action is what a command does. Its errors mean exit code 1 unless they are a
// failure with another.
func action(do func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := do(cmd, args)
		var f *failure
		if err == nil || errors.As(err, &f) {
			return err
		}
		return &failure{exitFailed, err}
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "adit",
		Short: "a userspace IPsec gateway",
		Long: strings.TrimSpace(`
adit is a userspace IPsec gateway: ESP behind a TUN device, without kernel IPsec.

  adit demo              see it work: two gateways and two hosts on this machine
  adit check FILE        is this configuration valid, and what does it mean?
  adit run -c FILE       be the gateway
  adit status            is it up, and what became of the packets?

Exit codes: 0 done, 1 it failed, 2 bad usage or configuration, 3 the check that
was asked for is negative.`),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          action(func(cmd *cobra.Command, _ []string) error { return cmd.Help() }),
	}
	root.AddCommand(
		newRunCommand(), newCheckCommand(),
		newStatusCommand(), newSACommand(), newPolicyCommand(), newCountersCommand(), newIKECommand(),
		newDemoCommand(), newVersionCommand(),
	)
	return root
}
