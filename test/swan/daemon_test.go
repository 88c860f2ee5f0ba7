package swan

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

func TestMain(m *testing.M) { os.Exit(gatewaytest.Main(m)) }

const pskConf = `connections {
  tunnel {
    version = 2
    local_addrs = %s
    remote_addrs = %s
    proposals = aes128-sha256-x25519
    encap = yes
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
        local_ts = %s
        remote_ts = %s
        esp_proposals = aes128gcm16
      }
    }
  }
}
secrets {
  ike-tunnel {
    secret = 0x4d59d5c1d5ed9d86b4cd1c7b1eb3ac6ddb1c7a8c
  }
}
`

// The peer works: two daemons carry a ping, and what they list is read.
func TestRootTwoDaemonsCarryAPing(t *testing.T) {
	ctx := gatewaytest.Root(t, 90*time.Second)
	p, err := netlab.SiteToSite(netlab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	a, b := Start(t, p.A.Gateway), Start(t, p.B.Gateway)
	a.Load(fmt.Sprintf(pskConf, p.A.Outside4, p.B.Outside4, "a", "b", p.A.LAN4, p.B.LAN4), nil)
	b.Load(fmt.Sprintf(pskConf, p.B.Outside4, p.A.Outside4, "b", "a", p.B.LAN4, p.A.LAN4), nil)
	if err := a.Initiate("lan"); err != nil {
		t.Fatalf("%v\nlog of a:\n%s\nlog of b:\n%s", err, a.Log(), b.Log())
	}
	ping, err := netlab.Ping(ctx, p.A.Host, netlab.PingOptions{Dst: p.B.Host4, Count: 5})
	if err != nil || ping.Lost() != 0 {
		t.Errorf("ping: expected 5 answers, saw %s, %v", ping, err)
	}
	sas := b.SAs()
	if len(sas) != 1 || sas[0].State != "ESTABLISHED" || sas[0].Initiator || len(sas[0].Children) != 1 {
		out, _ := b.Swanctl("--list-sas", "--raw")
		t.Fatalf("expected one IKE SA with one Child SA, saw %+v of %s", sas, out)
	}
	c := sas[0].Children[0]
	if c.State != "INSTALLED" || c.Name != "lan" || len(c.SPIIn) != 8 || !strings.Contains(c.LocalTS, p.B.LAN4.String()) {
		t.Errorf("the Child SA is read as %+v", c)
	}
}
