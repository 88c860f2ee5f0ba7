package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
)

// StrongSwan is where the second rival's programs are.
type StrongSwan struct {
	Charon  string // charon-systemd: the daemon without a pid file, so that several run side by side
	Swanctl string
	Version string
}

// strongSwanPlugins are what the daemon loads, and no more. AES-GCM is
// OpenSSL's: with the plugin gcm loaded the daemon may take that one, which is
// ten times slower.
const strongSwanPlugins = "random nonce kdf openssl kernel-libipsec kernel-netlink socket-default vici"

// strongSwanTUN is the daemon's TUN device.
const strongSwanTUN = "ipsec0"

// strongSwanSettings says how the rival runs.
func strongSwanSettings(suite string) string {
	return fmt.Sprintf("%s in userspace (kernel-libipsec), in UDP 4500, no ESN (it has none); the ciphers of OpenSSL, its own gcm not loaded; "+
		"plugins %s; IKEv2 with a pre-shared key, no rekeying; MTU 1400, a TUN queue of %d packets in place of the kernel's 500", suite, strongSwanPlugins, rivalQueue)
}

// charonEnd is one of the two daemons.
type charonEnd struct {
	own, peer *netlab.Side
	name      string // its IKE identity, and its folder
	dir       string
}

func (e *charonEnd) path(name string) string { return filepath.Join(e.dir, name) }

func (e *charonEnd) uri() string { return "unix://" + e.path("vici") }

// startStrongSwan runs the rival in both gateways, in the place of adit.
func (n *Namespaces) startStrongSwan(ctx context.Context, s *StrongSwan, suite string) (err error) {
	if n.dir, err = os.MkdirTemp("", "adit-bench-"); err != nil {
		return err
	}
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails: crypto/rand ends the program instead
	ends := [2]charonEnd{{own: &n.net.A, peer: &n.net.B, name: "a"}, {own: &n.net.B, peer: &n.net.A, name: "b"}}
	for i := range ends {
		e := &ends[i]
		e.dir = filepath.Join(n.dir, e.name)
		if err := n.startCharon(ctx, s, e, swanctlConf(e, &ends[1-i], suite, hex.EncodeToString(key[:]))); err != nil {
			return fmt.Errorf("bench: strongSwan in %s: %w", e.own.Gateway.Name(), err)
		}
	}
	if err := s.swanctl(ctx, &ends[0], "--initiate", "--child", "lan", "--timeout", "20", "--loglevel", "0"); err != nil {
		return fmt.Errorf("bench: strongSwan: %w; the log of %s: %s; of %s: %s", err,
			ends[0].own.Gateway.Name(), n.lastWords(ends[0].own.Gateway), ends[1].own.Gateway.Name(), n.lastWords(ends[1].own.Gateway))
	}
	for _, e := range ends {
		if err := setQueueLen(e.own.Gateway, strongSwanTUN, rivalQueue); err != nil {
			return err
		}
	}
	return nil
}

// startCharon starts one daemon and gives it its configuration.
func (n *Namespaces) startCharon(ctx context.Context, s *StrongSwan, e *charonEnd, swanctl string) error {
	if err := errors.Join(
		os.Mkdir(e.dir, 0o700),
		os.WriteFile(e.path("strongswan.conf"), []byte(strongSwanConf(e)), 0o600),
		os.WriteFile(e.path("swanctl.conf"), []byte(swanctl), 0o600)); err != nil {
		return err
	}
	cmd := exec.Command(s.Charon)
	cmd.Env = append(os.Environ(), "STRONGSWAN_CONF="+e.path("strongswan.conf"))
	_, p, err := n.startLogged(e.own.Gateway, cmd)
	if err == nil {
		var vici net.Conn
		if vici, err = dialGateway(ctx, p, e.path("vici")); err == nil {
			err = vici.Close() // it listens
		}
	}
	if err == nil {
		err = s.swanctl(ctx, e, "--load-all", "--noprompt", "--file", e.path("swanctl.conf"))
	}
	if err != nil {
		return fmt.Errorf("%w; its log: %s", err, n.lastWords(e.own.Gateway))
	}
	return nil
}

// swanctlTime is what a command to the daemon may take.
const swanctlTime = 30 * time.Second

func (s *StrongSwan) swanctl(ctx context.Context, e *charonEnd, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, swanctlTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.Swanctl, append(args, "--uri", e.uri())...)
	cmd.Env = append(os.Environ(), "STRONGSWAN_CONF="+e.path("strongswan.conf"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("swanctl %s: %w: %s", args[0], errors.Join(err, context.Cause(ctx)), swanctlSaid(out))
	}
	return nil
}

// swanctlSaid leaves out that there are no folders of certificates.
func swanctlSaid(out []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "opening directory") {
			b.WriteString(line)
		}
	}
	return strings.TrimSpace(b.String())
}

// strongSwanConf is the daemon's own file. What it logs at level 1 holds no keys.
func strongSwanConf(e *charonEnd) string {
	return fmt.Sprintf(`charon-systemd {
  load = %s
  plugins {
    vici {
      socket = %s
    }
  }
  filelog {
    stderr {
      default = 1
    }
  }
  syslog {
    daemon {
      default = -1
    }
  }
  journal {
    default = -1
  }
}
swanctl {
  load = openssl
}
`, strongSwanPlugins, e.uri())
}

// swanctlConf is the tunnel and its key.
func swanctlConf(e, other *charonEnd, suite, key string) string {
	return fmt.Sprintf(`connections {
  tunnel {
    version = 2
    local_addrs = %s
    remote_addrs = %s
    proposals = aes128-sha256-x25519
    encap = yes
    mobike = no
    rekey_time = 0
    local {
      auth = psk
      id = %s
    }
    remote {
      auth = psk
      id = %s
    }
    children {
      lan {
        mode = tunnel
        local_ts = %s
        remote_ts = %s
        esp_proposals = %s-x25519
        rekey_time = 0
      }
    }
  }
}
secrets {
  ike-tunnel {
    secret = 0x%s
  }
}
`, e.own.Outside4, e.peer.Outside4, e.name, other.name, e.own.LAN4, e.peer.LAN4, suite, key)
}
