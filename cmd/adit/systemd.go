package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// What systemd is told (sd_notify(3)); outside systemd nobody listens.
const (
	notifyReady    = daemon.SdNotifyReady
	notifyStopping = daemon.SdNotifyStopping
	notifyWatchdog = daemon.SdNotifyWatchdog
)

// notifyReloading carries the time that Type=notify-reload wants.
func notifyReloading() string {
	return fmt.Sprintf("%s\n%s", daemon.SdNotifyReloading, daemon.SdNotifyMonotonicUsec())
}

func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd could not be told", "state", state, "error", err)
	}
}

// watchdog ticks when systemd wants to hear that the gateway lives.
type watchdog struct {
	tick   <-chan time.Time // nil, so never: systemd does not ask
	ticker *time.Ticker
}

func newWatchdog(log *slog.Logger) *watchdog {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd's watchdog interval cannot be read", "error", err)
	}
	if err != nil || interval == 0 {
		return &watchdog{}
	}
	ticker := time.NewTicker(interval / 2)
	return &watchdog{tick: ticker.C, ticker: ticker}
}

func (w *watchdog) stop() {
	if w.ticker != nil {
		w.ticker.Stop()
	}
}
