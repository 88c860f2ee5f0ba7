package pcap

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// LinkType says what a packet's first byte belongs to (the LINKTYPE_ registry).
type LinkType uint16

// Link types that this project captures.
const (
	Ethernet LinkType = 1
	RawIP    LinkType = 101 // an IPv4 or IPv6 header, told apart by its version
)

// Direction of a packet as the interface saw it (epb_flags bits 0-1).
type Direction uint8

// Directions.
const (
	Unknown Direction = iota
	Received
	Sent
)

// Interface describes where packets of a capture were seen.
type Interface struct {
	Name        string
	Description string
	LinkType    LinkType
}

// Packet is one captured packet.
type Packet struct {
	Interface int       // what AddInterface returned
	Time      time.Time // kept to the nanosecond
	Data      []byte    // from the link type's first byte
	Length    int       // on the wire, bytes; 0: all of it is in Data
	Direction Direction
	Comment   string // Write: UTF-8, up to 65535 bytes; Reader leaves it empty
}

// Writer writes one capture. It is not safe for concurrent use.
type Writer struct {
	out        *bufio.Writer
	file       *os.File         // nil unless Create made it
	meta       *pcapgo.NgWriter // section and interface blocks; nil before the first interface
	interfaces int
	err        error // the first one; everything after it is refused
}

// Create makes the file, or empties it, readable by its owner alone: captures
// may hold what the tunnel protects.
func Create(path string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("pcap: %w", err)
	}
	if err := f.Chmod(0o600); err != nil { // it may have existed
		return nil, errors.Join(fmt.Errorf("pcap: %w", err), f.Close())
	}
	w := NewWriter(f)
	w.file = f
	return w, nil
}

// NewWriter writes a capture to out. Flush hands over what is buffered.
func NewWriter(out io.Writer) *Writer { return &Writer{out: bufio.NewWriterSize(out, 1<<16)} }

// AddInterface writes an interface block and returns the interface's number.
// The capture's section header goes in front of the first one.
func (w *Writer) AddInterface(i Interface) (id int, err error) {
	if w.err != nil {
		return 0, w.err
	}
	ng := pcapgo.NgInterface{
		Name: i.Name, Description: i.Description, OS: runtime.GOOS,
		LinkType: layers.LinkType(i.LinkType), TimestampResolution: 9,
	}
	if w.meta == nil {
		w.meta, err = pcapgo.NewNgWriterInterface(w.out, ng, pcapgo.NgWriterOptions{
			SectionInfo: pcapgo.NgSectionInfo{Hardware: runtime.GOARCH, OS: runtime.GOOS, Application: "adit"},
		})
	} else {
		_, err = w.meta.AddInterface(ng)
	}
	if err == nil {
		err = w.meta.Flush() // pcapgo has a buffer of its own: keep the order of blocks
	}
	if err != nil {
		return 0, w.fail(err)
	}
	w.interfaces++
	return w.interfaces - 1, nil
}

// Block and option codes of draft-ietf-opsawg-pcapng, sections 3.5 and 4.3.
const (
	blockEnhancedPacket = 6
	blockHeaderLen      = 28 // type, length, interface, time stamp, two lengths
	optEnd              = 0
	optComment          = 1
	optFlags            = 2
)

// Write writes a packet.
func (w *Writer) Write(p Packet) error {
	if w.err != nil {
		return w.err
	}
	if p.Interface < 0 || p.Interface >= w.interfaces {
		return fmt.Errorf("pcap: interface %d of a capture with %d: call AddInterface first", p.Interface, w.interfaces)
	}
	if len(p.Comment) > math.MaxUint16 {
		return fmt.Errorf("pcap: comment of %d bytes, at most %d fit", len(p.Comment), math.MaxUint16)
	}
	if p.Length == 0 {
		p.Length = len(p.Data)
	}
	if p.Length < len(p.Data) {
		return fmt.Errorf("pcap: packet of %d bytes with %d captured", p.Length, len(p.Data))
	}
	options := packetOptions(p)
	total := uint32(blockHeaderLen + padded(len(p.Data)) + len(options) + 4)
	stamp := uint64(p.Time.UnixNano())
	var h [blockHeaderLen]byte
	le := binary.LittleEndian
	le.PutUint32(h[0:], blockEnhancedPacket)
	le.PutUint32(h[4:], total)
	le.PutUint32(h[8:], uint32(p.Interface))
	le.PutUint32(h[12:], uint32(stamp>>32))
	le.PutUint32(h[16:], uint32(stamp))
	le.PutUint32(h[20:], uint32(len(p.Data)))
	le.PutUint32(h[24:], uint32(p.Length))
	w.write(h[:])
	w.write(p.Data)
	w.write(make([]byte, padded(len(p.Data))-len(p.Data)))
	w.write(options)
	w.write(le.AppendUint32(nil, total))
	return w.err
}

// packetOptions builds a packet block's option list: empty, or closed by
// opt_endofopt.
func packetOptions(p Packet) []byte {
	var b []byte
	le := binary.LittleEndian
	if p.Comment != "" {
		b = le.AppendUint16(le.AppendUint16(b, optComment), uint16(len(p.Comment)))
		b = append(b, p.Comment...)
		b = append(b, make([]byte, padded(len(p.Comment))-len(p.Comment))...)
	}
	if p.Direction != Unknown {
		b = le.AppendUint16(le.AppendUint16(b, optFlags), 4)
		b = le.AppendUint32(b, uint32(p.Direction))
	}
	if b != nil {
		b = le.AppendUint16(le.AppendUint16(b, optEnd), 0)
	}
	return b
}

// padded rounds up to the 32-bit boundary that blocks and options keep.
func padded(n int) int { return (n + 3) &^ 3 }

func (w *Writer) write(b []byte) {
	if w.err != nil {
		return
	}
	if _, err := w.out.Write(b); err != nil {
		_ = w.fail(err) // kept: every later call returns it
	}
}

func (w *Writer) fail(err error) error {
	w.err = fmt.Errorf("pcap: %w", err)
	return w.err
}

// Flush hands everything written so far to the underlying writer.
func (w *Writer) Flush() error {
	if w.err != nil {
		return w.err
	}
	if err := w.out.Flush(); err != nil {
		return w.fail(err)
	}
	return nil
}

// Close flushes, and closes the file that Create made. A capture without an
// interface gets one, so that the file is a capture at all.
func (w *Writer) Close() error {
	if w.interfaces == 0 && w.err == nil {
		if _, err := w.AddInterface(Interface{Name: "none", LinkType: RawIP}); err != nil {
			return errors.Join(err, w.closeFile())
		}
	}
	return errors.Join(w.Flush(), w.closeFile())
}

func (w *Writer) closeFile() error {
	if w.file == nil {
		return nil
	}
	f := w.file
	w.file = nil
	return f.Close()
}
