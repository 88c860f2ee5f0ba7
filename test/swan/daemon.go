// Package swan runs strongSwan in a node of a test network: Debian's charon with
// the userspace ESP of kernel-libipsec, driven by swanctl. It is the peer that
// tests of ike speak to. It owns the daemon, its folder and its configuration;
// what is asked of it is the test's.
package swan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// TUN is the daemon's device towards the protected network.
const TUN = "ipsec0"

// plugins are what the daemon loads, and no more. The ciphers are OpenSSL's.
const plugins = "random nonce kdf openssl pem x509 pkcs1 pkcs8 pubkey revocation constraints " +
	"kernel-libipsec kernel-netlink socket-default vici"

const swanctlProgram = "/usr/sbin/swanctl"

// commandTime is what a command to the daemon may take.
const commandTime = 40 * time.Second

// Daemon is one running charon.
type Daemon struct {
	t       testing.TB
	node    *netlab.Node
	dir     string
	process *netlab.Process
	log     *gatewaytest.LogBuffer
}

// programs are copied out of where packages put them: AppArmor's profiles hold
// there, and would keep them from files in a temporary folder.
func programs(t testing.TB, dir string) (charon, swanctl string) {
	t.Helper()
	charon, swanctl = filepath.Join(dir, "charon"), filepath.Join(dir, "swanctl")
	for to, from := range map[string][]string{
		charon:  {"/usr/sbin/charon-systemd", "../../build/tools/charon-systemd/usr/sbin/charon-systemd"},
		swanctl: {swanctlProgram},
	} {
		var text []byte
		err := errors.New("not looked for")
		for _, path := range from {
			if text, err = os.ReadFile(path); err == nil {
				break
			}
		}
		if err != nil {
			t.Fatalf("strongSwan is not here: %v; run scripts/install-tools.sh as root", err)
		}
		if err := os.WriteFile(to, text, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return charon, swanctl
}

// Start runs a daemon in the node until the test ends. Extra are more lines for
// the daemon's section of strongswan.conf.
func Start(t testing.TB, node *netlab.Node, extra ...string) *Daemon {
	t.Helper()
	d := &Daemon{t: t, node: node, dir: t.TempDir(), log: new(gatewaytest.LogBuffer)}
	programs(t, d.dir)
	for _, folder := range []string{"x509", "x509ca", "x509crl", "private", "pubkey", "conf.d"} {
		if err := os.Mkdir(filepath.Join(d.dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d.write("strongswan.conf", fmt.Sprintf(daemonConf, plugins, d.uri(), strings.Join(extra, "\n  ")))
	d.launch()
	return d
}

// What the daemon logs at level 1 holds no keys.
const daemonConf = `charon-systemd {
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
  %s
}
swanctl {
  load = openssl pem x509 pkcs1 pkcs8 pubkey
}
`

func (d *Daemon) write(name, text string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *Daemon) uri() string { return "unix://" + filepath.Join(d.dir, "vici") }

func (d *Daemon) environ() []string {
	return append(os.Environ(), "STRONGSWAN_CONF="+filepath.Join(d.dir, "strongswan.conf"), "SWANCTL_DIR="+d.dir, "LC_ALL=C")
}

func (d *Daemon) launch() {
	d.t.Helper()
	cmd := exec.Command(filepath.Join(d.dir, "charon"))
	cmd.Env, cmd.Stdout, cmd.Stderr = d.environ(), d.log, d.log
	process, err := d.node.Start(cmd)
	if err != nil {
		d.t.Fatal(err)
	}
	d.process = process
	d.t.Cleanup(d.Kill)
	deadline := time.Now().Add(20 * time.Second)
	for {
		vici, err := net.Dial("unix", filepath.Join(d.dir, "vici"))
		if err == nil {
			_ = vici.Close()
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("strongSwan in %s did not come up: %v; its log:\n%s", d.node.Name(), err, d.Log())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Kill ends the daemon with SIGKILL and waits until it is gone.
func (d *Daemon) Kill() {
	d.process.Kill()
	<-d.process.Done()
}

// Restart starts the daemon again after a Kill; it has forgotten everything, its
// configuration too.
func (d *Daemon) Restart() {
	d.t.Helper()
	_ = os.Remove(filepath.Join(d.dir, "vici"))
	d.launch()
}

// Files are what Load puts beside swanctl.conf, by path below its folder, such as
// "x509/a.pem", "x509ca/ca.pem", "private/a.pem".
type Files map[string][]byte

// Load replaces the daemon's configuration.
func (d *Daemon) Load(conf string, files Files) {
	d.t.Helper()
	for name, text := range files {
		d.write(name, string(text))
	}
	d.write("swanctl.conf", conf)
	if out, err := d.Swanctl("--load-all", "--noprompt", "--clear", "--file", filepath.Join(d.dir, "swanctl.conf")); err != nil {
		d.t.Fatalf("strongSwan does not take its configuration: %v\n%s\n%s\nits log:\n%s", err, out, conf, d.Log())
	}
}

// Swanctl runs one command of swanctl and returns what it printed.
func (d *Daemon) Swanctl(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(d.dir, "swanctl"), append(args, "--uri", d.uri())...)
	cmd.Env = d.environ()
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("swanctl %s: %w", args[0], errors.Join(err, context.Cause(ctx)))
	}
	return string(out), err
}

// Initiate brings a Child SA up, and its IKE SA where there is none.
func (d *Daemon) Initiate(child string) error {
	out, err := d.Swanctl("--initiate", "--child", child, "--timeout", "15")
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// SA is an IKE SA as the daemon lists it, with its Child SAs.
type SA struct {
	Name, State     string
	Initiator       bool // the daemon began it
	SPIi, SPIr      string
	Encr, PRF, DH   string
	LocalID, PeerID string
	Children        []Child
}

// Child is a Child SA of an SA.
type Child struct {
	Name, State, Mode     string
	SPIIn, SPIOut         string // eight hex digits
	Encr, Integ, DH       string
	LocalTS, RemoteTS     string // as listed, with spaces between
	InPackets, OutPackets string
	ESN                   bool
}

// SAs are the daemon's IKE SAs now.
func (d *Daemon) SAs() []SA {
	d.t.Helper()
	out, err := d.Swanctl("--list-sas", "--raw")
	if err != nil {
		d.t.Fatalf("%v: %s", err, out)
	}
	return parseSAs(out)
}

// Log is what the daemon has written so far.
func (d *Daemon) Log() string { return d.log.String() }

// section is a vici section: keys with values, lists joined by spaces, and
// sections below.
type section struct {
	name   string
	values map[string]string
	below  []*section
}

var token = regexp.MustCompile(`[{}\[\]]|[^\s{}\[\]=]+=?|=`)

// parseSection reads "name {key=value key=[a b] name {...}}" from tokens. An
// empty value takes the next word for its own: nothing that is read here is empty.
func parseSection(name string, tokens []string) (*section, []string) {
	s := &section{name: name, values: map[string]string{}}
	var key string
	for len(tokens) > 0 {
		t := tokens[0]
		tokens = tokens[1:]
		switch {
		case t == "}":
			return s, tokens
		case t == "{":
			var sub *section
			sub, tokens = parseSection(key, tokens)
			s.below = append(s.below, sub)
			key = ""
		case t == "[":
			var list []string
			for len(tokens) > 0 && tokens[0] != "]" {
				list = append(list, tokens[0])
				tokens = tokens[1:]
			}
			if len(tokens) > 0 {
				tokens = tokens[1:]
			}
			s.values[strings.TrimSuffix(key, "=")] = strings.Join(list, " ")
			key = ""
		case strings.HasSuffix(key, "="):
			s.values[strings.TrimSuffix(key, "=")] = t
			key = ""
		default:
			key = t
		}
	}
	return s, nil
}

func parseSAs(raw string) (list []SA) {
	for line := range strings.Lines(raw) {
		_, body, found := strings.Cut(line, "list-sa event ")
		if !found {
			continue
		}
		root, _ := parseSection("", token.FindAllString(body, -1))
		for _, event := range root.below {
			for _, s := range event.below {
				list = append(list, readSA(s))
			}
		}
	}
	return list
}

func readSA(s *section) SA {
	v := s.values
	sa := SA{
		Name: s.name, State: v["state"], Initiator: v["initiator"] == "yes", SPIi: v["initiator-spi"], SPIr: v["responder-spi"],
		Encr: v["encr-alg"] + v["encr-keysize"], PRF: v["prf-alg"], DH: v["dh-group"], LocalID: v["local-id"], PeerID: v["remote-id"],
	}
	for _, below := range s.below {
		if below.name != "child-sas" {
			continue
		}
		for _, c := range below.below {
			v := c.values
			sa.Children = append(sa.Children, Child{
				Name: v["name"], State: v["state"], Mode: v["mode"], SPIIn: v["spi-in"], SPIOut: v["spi-out"],
				Encr: v["encr-alg"] + v["encr-keysize"], Integ: v["integ-alg"], DH: v["dh-group"],
				LocalTS: v["local-ts"], RemoteTS: v["remote-ts"], InPackets: v["packets-in"], OutPackets: v["packets-out"], ESN: v["esn"] != "",
			})
		}
	}
	return sa
}
