package sad

import (
	"errors"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/replay"
)

// ErrReplay is the Err of a packet whose sequence number was seen before, lies
// behind the window or is 0. It is a value, not built per packet.
var ErrReplay = errors.New("sad: sequence number seen before, behind the window, or 0")

func (sa *SA) initWindow(size int) (err error) {
	if size == 0 {
		return nil
	}
	sa.ReplayWindow = size
	sa.window, err = replay.New(size, sa.ESN)
	return err
}

// Check is the cheap look before the ICV. On entry each packet's Seq holds the
// low 32 bits from its header; on return the full number. A number that must be
// refused sets Err to ErrReplay; packets with an Err on entry are left alone.
// The window does not change.
//
// The lock is taken once for the batch, around arithmetic only: workers that
// share an SA wait for each other a few nanoseconds per packet, not a lock per
// packet, and the ICV is computed outside it, between Check and Mark.
func (sa *SA) Check(batch []esp.Packet) {
	if sa.expired.Load() != 0 {
		sa.refuseExpired(batch)
		return
	}
	if sa.window == nil {
		sa.checkZero(batch)
		return
	}
	refused := 0
	sa.windowMu.Lock()
	for i := range batch {
		p := &batch[i]
		if p.Err != nil {
			continue
		}
		p.Seq = sa.window.Infer(uint32(p.Seq))
		if sa.window.Check(p.Seq) != replay.Fresh {
			p.Err = ErrReplay
			refused++
		}
	}
	sa.windowMu.Unlock()
	if refused > 0 {
		sa.replayDrops.Add(uint64(refused))
	}
}

// checkZero is Check without a window. RFC 4303 3.4.3: "If the receiver does not
// enable anti-replay for an SA, no inbound checks are performed on the Sequence
// Number." Deviation: 0 is refused all the same, since no sender uses it ("the
// first packet sent using a given SA will contain a sequence number of 1", and
// an SA ends before its numbers cycle).
func (sa *SA) checkZero(batch []esp.Packet) {
	refused := 0
	for i := range batch {
		p := &batch[i]
		if p.Err != nil {
			continue
		}
		p.Seq = uint64(uint32(p.Seq))
		if p.Seq == 0 {
			p.Err = ErrReplay
			refused++
		}
	}
	if refused > 0 {
		sa.replayDrops.Add(uint64(refused))
	}
}

// Mark records the numbers of the packets that passed the ICV, those with Err
// nil. RFC 4303 3.4.3: "The receive window is updated only if the integrity
// verification succeeds." It looks again, because the same number may stand
// twice in the batch or be in another worker's hands: of several one stays, the
// others get ErrReplay. It also counts the packets that failed the ICV.
//
// The lock is taken once for the batch, as in Check.
func (sa *SA) Mark(batch []esp.Packet) {
	refused, failed := 0, 0
	if sa.window != nil {
		sa.windowMu.Lock()
	}
	for i := range batch {
		p := &batch[i]
		switch {
		case p.Err == esp.ErrAuth: //nolint:errorlint // sentinel of this batch, never wrapped
			failed++
			if sa.window != nil {
				sa.window.AuthFailed()
			}
		case p.Err == nil && sa.window != nil && sa.window.Mark(p.Seq) != replay.Fresh:
			p.Err = ErrReplay
			refused++
		}
	}
	if sa.window != nil {
		sa.windowMu.Unlock()
	}
	if refused > 0 {
		sa.replayDrops.Add(uint64(refused))
	}
	if failed > 0 {
		sa.authDrops.Add(uint64(failed))
	}
}

// skipReceived makes every number up to and with edge count as seen.
func (sa *SA) skipReceived(edge uint64) {
	if sa.window == nil {
		return
	}
	sa.windowMu.Lock()
	defer sa.windowMu.Unlock()
	sa.window.SkipTo(edge)
}

// edge is the highest number marked; 0 without a window.
func (sa *SA) edge() uint64 {
	if sa.window == nil {
		return 0
	}
	sa.windowMu.Lock()
	defer sa.windowMu.Unlock()
	return sa.window.Edge()
}
