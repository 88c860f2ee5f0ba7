package main

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
	"github.com/adit-ipsec/adit/internal/tun"
)

// sixOffloads are the engine's, active but for those in why.
func sixOffloads(why map[string]string) []dataplane.Offload {
	var list []dataplane.Offload
	for _, name := range []string{"tun-read-tcp", "tun-read-udp", "tun-write-tcp", "tun-write-udp", "udp-send", "udp-receive"} {
		list = append(list, dataplane.Offload{Name: name, Active: why[name] == "", Why: why[name]})
	}
	return list
}

// TestStatusSaysWhichOffloadsAreActive holds the whole of `adit status` for a
// gateway with all offloads, with some, and with none.
func TestStatusSaysWhichOffloadsAreActive(t *testing.T) {
	const oldKernel = "switched off, or this kernel does not know it"
	some := sixOffloads(map[string]string{
		"tun-read-udp": oldKernel, "tun-write-udp": oldKernel, "udp-send": "the kernel refused a superpacket",
	})
	some[4].Fallbacks = 1
	off := sixOffloads(map[string]string{
		"tun-read-tcp": "switched off", "tun-read-udp": "switched off", "tun-write-tcp": "switched off", "tun-write-udp": "switched off",
		"udp-send": oldKernel, "udp-receive": oldKernel,
	})
	for name, offloads := range map[string][]*controlv1.Offload{
		"offload-all":  viewOffloads(sixOffloads(nil), true),
		"offload-some": viewOffloads(some, true),
		"offload-off":  viewOffloads(off, false),
		"starting":     nil,
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			err := printStatus(&b, &controlv1.StatusResponse{
				Name: "site-a", Version: "v", Pid: 7, UptimeSeconds: 90, ConfigFile: "a.yaml", Tun: "adit0", TunMtu: 1422,
				Ready: true, Listen: []string{"UDP 4500 on 192.0.2.1"}, Guard: "off", Policies: 1, Offloads: offloads,
			})
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/status-"+name+".golden", b.String())
		})
	}
}

func TestOffloadNamesNeedNotBeKnown(t *testing.T) {
	for want, names := range map[string][]string{
		"":                                nil,
		"TUN read tcp udp, write tcp udp": {"tun-read-tcp", "tun-read-udp", "tun-write-tcp", "tun-write-udp"},
		"TUN write udp; UDP receive":      {"tun-write-udp", "udp-receive"},
		"XDP; UDP send; RAW send v 6":     {"xdp", "udp-send", "raw-send-v-6"},
	} {
		if got := offloadText(names); got != want {
			t.Errorf("%v: got %q, want %q", names, got, want)
		}
	}
}

// TestGatewayLogsWhatTheKernelLacks: at level info when the file asks for it,
// at level debug when it does not.
func TestGatewayLogsWhatTheKernelLacks(t *testing.T) {
	for _, c := range []struct {
		auto bool
		want []string
	}{
		{true, []string{"level=INFO", `active=""`, "UDP send, receive: the device or the wire is not the kernel's"}},
		{false, []string{"level=DEBUG", `active=""`, "TUN read tcp udp, write tcp udp; UDP send, receive: tun.offload is off"}},
	} {
		device, _ := tun.NewMemory("t", 1500)
		engine, err := dataplane.New(dataplane.Config{TUN: device, Wire: silentWire{make(chan struct{})}})
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		log := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))
		g := &gateway{log: log, engine: engine, cfg: &config.Config{TUN: config.TUN{Offload: c.auto}}}
		g.logOffloads()
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
		if slices.ContainsFunc(c.want, func(s string) bool { return !strings.Contains(b.String(), s) }) || strings.Count(b.String(), "\n") != 1 {
			t.Errorf("tun.offload auto %t: want one line with %q, got %q", c.auto, c.want, b.String())
		}
	}
}
