// Command adit-bench measures: the engine alone, IKE alone, two gateways in network
// namespaces beside a rival, and how many calls a gateway carries. What is measured, and what a figure means, is in
// package bench; here are flags, tables and plots.
//
// Exit codes: 0 done, 1 it failed, 2 bad usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit codes; they are those of adit.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

var errInterrupted = errors.New("interrupted: everything that was started has ended, nothing was written")

// run is the program: arguments in, exit code out.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		<-signals
		signal.Stop(signals) // a second one ends the program at once, and what it started with it
		cancel(errInterrupted)
	}()

	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	if errors.Is(err, errInterrupted) {
		err = &failure{exitFailed, errInterrupted}
	}
	var f *failure
	if !errors.As(err, &f) {
		// What cobra itself refuses: unknown commands, flags, arguments.
		f = &failure{exitUsage, fmt.Errorf("%w\nsee `%s --help`", err, command.CommandPath())}
	}
	fmt.Fprintln(stderr, "adit-bench: "+f.Error())
	return f.code
}

// failure is an error with the exit code that it means.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func usage(format string, args ...any) error {
	return &failure{exitUsage, fmt.Errorf(format, args...)}
}

// action is what a command does. Its errors mean exit code 1 unless they are a
// failure with another.
func action(do func(cmd *cobra.Command) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		err := do(cmd)
		var f *failure
		if err == nil || errors.As(err, &f) {
			return err
		}
		return &failure{exitFailed, err}
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "adit-bench",
		Short: "measures adit",
		Long: strings.TrimSpace(`
adit-bench measures adit on this machine.

  adit-bench engine                            the engine alone: no system calls, no privileges
  adit-bench ike                               IKEv2 alone: handshakes, rekeys, cookies; no privileges
  adit-bench tunnel                            two gateways in namespaces (root)
  adit-bench tunnel --against wireguard-go,strongswan
                                               the same by turns with rivals, and the ratios
  adit-bench plan --peers 50 --calls 200       how many G.711 calls a gateway carries (root)

Figures of one machine are proportions, not promises: compare figures of one
run, on an idle machine. Progress goes to standard error.

Exit codes: 0 done, 1 it failed, 2 bad usage.`),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          action(func(cmd *cobra.Command) error { return cmd.Help() }),
	}
	root.AddCommand(newEngineCommand(), newIKECommand(), newTunnelCommand(), newPlanCommand())
	return root
}
