package pcap

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/google/gopacket/pcapgo"
)

// Reader reads a pcapng capture of any program.
type Reader struct {
	ng   *pcapgo.NgReader
	file *os.File
}

// Open reads the capture in a file.
func Open(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("pcap: %w", err)
	}
	r, err := NewReader(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", err, path), f.Close())
	}
	r.file = f
	return r, nil
}

// NewReader reads the capture in in.
func NewReader(in io.Reader) (*Reader, error) {
	ng, err := pcapgo.NewNgReader(in, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		return nil, fmt.Errorf("pcap: not a pcapng capture: %w", err)
	}
	return &Reader{ng: ng}, nil
}

// Next returns the next packet, whose Data the caller owns; io.EOF behind the
// last. Direction and Comment are not read.
func (r *Reader) Next() (Packet, error) {
	data, ci, err := r.ng.ReadPacketData()
	if errors.Is(err, io.EOF) {
		return Packet{}, io.EOF
	}
	if err != nil {
		return Packet{}, fmt.Errorf("pcap: %w", err)
	}
	return Packet{Interface: ci.InterfaceIndex, Time: ci.Timestamp, Data: data, Length: ci.Length}, nil
}

// Interface describes the interface with this number, once its block has been
// read: when Next has returned a packet of it.
func (r *Reader) Interface(id int) (Interface, error) {
	i, err := r.ng.Interface(id)
	if err != nil {
		return Interface{}, fmt.Errorf("pcap: %w", err)
	}
	return Interface{Name: i.Name, Description: i.Description, LinkType: LinkType(i.LinkType)}, nil
}

// Close closes the file that Open opened.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	f := r.file
	r.file = nil
	return f.Close()
}
