package pcap_test

import (
	"bytes"
	"fmt"
	"log"
	"time"

	"github.com/adit-ipsec/adit/internal/pcap"
)

func Example() {
	var file bytes.Buffer
	w := pcap.NewWriter(&file)
	outside, err := w.AddInterface(pcap.Interface{Name: "wan0", LinkType: pcap.RawIP})
	if err != nil {
		log.Fatal(err)
	}
	err = w.Write(pcap.Packet{
		Interface: outside, Time: time.Unix(1, 5), Direction: pcap.Sent,
		Data: []byte{0x45, 0, 0, 20}, Length: 20, Comment: "drop: InReplay",
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}

	r, err := pcap.NewReader(&file)
	if err != nil {
		log.Fatal(err)
	}
	p, err := r.Next()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(p.Data), "of", p.Length, "bytes at", p.Time.UTC().Format("15:04:05.000000000"))
	// Output: 4 of 20 bytes at 00:00:01.000000005
}
