package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/adit-ipsec/adit/config"
)

func newRunCommand() *cobra.Command {
	var file, format, level string
	var audit bool
	cmd := &cobra.Command{
		Use:   "run -c FILE",
		Short: "be the gateway, in the foreground",
		Long: strings.TrimSpace(`
Runs the gateway until SIGTERM or SIGINT. It makes the TUN device, sets its
addresses, MTU and routes, and takes all of it back when it stops. It logs to
standard error and tells systemd when it is ready.

SIGHUP applies the file again: SAs and policies that changed are swapped, the
others are not touched. A file that is not valid, or that changes tun, listen,
icmp, state_dir or control, changes nothing and is logged.

A second SIGTERM or SIGINT ends it at once, without tidying up.`),
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd.ErrOrStderr(), format, level)
			if err != nil {
				return &failure{exitUsage, err}
			}
			if file == "" {
				return &failure{exitUsage, errors.New("no configuration: give one with -c FILE")}
			}
			return runGateway(cmd.Context(), file, log, audit)
		}),
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "the configuration `file`")
	cmd.Flags().StringVar(&format, "log-format", "text", "text or json")
	cmd.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	cmd.Flags().BoolVar(&audit, "audit", true, "log auditable events (RFC 4303 4), see docs/audit.md")
	return cmd
}

func newLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	l, ok := levels[level]
	if !ok {
		return nil, fmt.Errorf("--log-level %q: write debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("--log-format %q: write text or json", format)
}

// runGateway is `adit run`. A file that is not valid is refused before anything
// is touched.
func runGateway(ctx context.Context, file string, log *slog.Logger, audit bool) error {
	// Signals are taken from here on: one that comes while the gateway starts
	// must not leave half of it behind.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)

	cfg, err := config.Load(file)
	if err != nil {
		return &failure{exitUsage, err}
	}
	for _, w := range cfg.Warnings {
		log.Warn(w.String())
	}
	warnCertificates(log, cfg)
	collectOften()
	g, err := startGateway(cfg, log)
	if err != nil {
		return err
	}
	go g.logEvents(audit)
	log.Info("ready", "name", cfg.Name, "version", programVersion(), "tun", cfg.TUN.Name, "mtu", g.mtu,
		"listen", strings.Join(g.listens, ", "), "routes", fmt.Sprint(g.into), "control", cfg.Control)
	watchdog := newWatchdog(log)
	defer watchdog.stop()
	notify(log, notifyReady)
	return g.serve(ctx, file, signals, watchdog)
}

// serve lives until a signal, the end of ctx, or the engine's own end.
func (g *gateway) serve(ctx context.Context, file string, signals <-chan os.Signal, watchdog *watchdog) error {
	for {
		select {
		case <-ctx.Done():
			return g.orderlyStop("the program is asked to end", signals)
		case <-g.engine.Done():
			// Nobody asked for this: what was protected is refused from
			// now on, and does not follow the host's own routes.
			err := g.engine.Err()
			g.log.Error("the gateway has ended by itself: what was protected is refused until it runs again", "error", err)
			g.keepRoutes = true
			return errors.Join(fmt.Errorf("the gateway has ended by itself: %w", err), g.stop())
		case <-watchdog.tick:
			// This loop and the engine's locks are alive, or it is not said.
			_ = g.engine.Stats()
			notify(g.log, notifyWatchdog)
		case s := <-signals:
			if s != syscall.SIGHUP {
				return g.orderlyStop(s.String(), signals)
			}
			notify(g.log, notifyReloading())
			if err := g.reload(file); err != nil {
				logLines(g.log, "the file was not applied, nothing has changed", err)
			}
			notify(g.log, notifyReady)
		}
	}
}

// orderlyStop takes everything back. A second signal ends it at once.
func (g *gateway) orderlyStop(why string, signals <-chan os.Signal) error {
	g.log.Info("stopping: what was protected follows the host's own routes from now on", "why", why)
	notify(g.log, notifyStopping)
	done := make(chan error, 1)
	go func() { done <- g.stop() }()
	for {
		select {
		case err := <-done:
			if err == nil {
				g.log.Info("stopped")
			}
			return err
		case s := <-signals:
			if s != syscall.SIGHUP {
				return fmt.Errorf("ended at once by a second %s: routes and rules may be left; the next start takes them over", s)
			}
		}
	}
}

// logLines logs an error that may have several lines, one entry each.
func logLines(log *slog.Logger, text string, err error) {
	var list *config.Errors
	if !errors.As(err, &list) {
		log.Error(text, "error", err)
		return
	}
	for _, e := range list.List {
		log.Error(text, "error", e.Error())
	}
}
